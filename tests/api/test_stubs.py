# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The extension's type stubs name what the extension has, with the same parameters and defaults."""

import ast
import inspect
import pathlib

import pytest

import iris_c
from iris_c import _C

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
