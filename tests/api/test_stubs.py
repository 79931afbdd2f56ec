# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The extension's type stubs name what the extension has, with the same parameters and defaults."""

import ast
import inspect
import pathlib
import subprocess
import sys

import pytest

import iris_c
from iris_c import _C

ROOT = pathlib.Path(__file__).resolve().parents[2]
STUBS = ast.parse((pathlib.Path(iris_c.__file__).parent / "_C.pyi").read_text())
FUNCTIONS = {node.name: node for node in STUBS.body if isinstance(node, ast.FunctionDef)}
CLASSES = {node.name: node for node in STUBS.body if isinstance(node, ast.ClassDef)}
METHODS = {
    f"{name}.{node.name}": node
    for name in ("Context", "FusedWorkspace", "Buffer")
    for node in CLASSES[name].body
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("__")
}


def parameters(node: ast.FunctionDef) -> list[tuple[str, object]]:
    """Names and defaults, which are literals."""
    given = [*node.args.posonlyargs, *node.args.args]
    defaults = [inspect.Parameter.empty] * (len(given) - len(node.args.defaults))
    defaults += [ast.literal_eval(default) for default in node.args.defaults]
    pairs = list(zip((a.arg for a in given), defaults, strict=True))
    keywords = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return pairs + [(a.arg, ast.literal_eval(default)) for a, default in keywords]


def test_the_stubs_name_every_function_and_class():
    public = {name for name in vars(_C) if not name.startswith("__")}
    named = {*FUNCTIONS, *CLASSES, *(
        target.target.id for target in STUBS.body if isinstance(target, ast.AnnAssign)
    )}  # fmt: skip
    assert named - {"_Config"} == public


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    signature = inspect.signature(getattr(_C, name)).parameters.values()
    assert [(p.name, p.default) for p in signature] == parameters(FUNCTIONS[name])


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    owner, method = name.split(".")
    actual = getattr(getattr(_C, owner), method)
    if "property" in {getattr(d, "id", "") for d in METHODS[name].decorator_list}:
        assert inspect.isdatadescriptor(actual)
        return
    signature = inspect.signature(actual).parameters.values()
    assert [(p.name, p.default) for p in signature] == parameters(METHODS[name])


def test_the_written_stubs_are_those_of_the_table():
    """iris_c/_C.pyi and bound.pyi are what build_stubs.py makes of csrc/python/ops.def."""
    subprocess.run([sys.executable, str(ROOT / "build_stubs.py"), "--check"], check=True)


def test_stubtest_finds_no_difference(tmp_path):
    """mypy's own comparison of the stubs with what is installed."""
    allowed = tmp_path / "allowed"
    # The buffer protocol has this name from Python 3.12 on.
    allowed.write_text("iris_c._C.Buffer.__buffer__\n" if sys.version_info < (3, 12) else "")
    # What torch's classes are made of takes half a minute to read, and is not compared.
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\n[mypy-torch.*,numpy.*]\nfollow_imports = skip\n")
    command = [sys.executable, "-P", "-m", "mypy.stubtest", "iris_c._C", "iris_c.bound",
               "--ignore-disjoint-bases", "--allowlist", str(allowed),
               "--mypy-config-file", str(settings)]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_help_of_a_bound_method_is_the_whole_text():
    with iris_c.init(heap_size=1 << 20, rank=0, world_size=1) as ctx:
        for bound, module in ((ctx.ops, iris_c.ops), (ctx.ccl, iris_c.ccl)):
            for name in dir(bound):
                if name.startswith("_"):
                    continue
                method, function = getattr(bound, name), getattr(module, name)
                assert method.__doc__ == function.__doc__
                assert "Parameters\n---" in inspect.getdoc(method) or name == "barrier", name
                own = list(inspect.signature(method).parameters.values())
                assert own == list(inspect.signature(function).parameters.values())[1:]
