# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The C files build on one another in one direction, and each header stands alone.

A unit is X.c with X.h, or one of them. It builds on another if it includes the other's header, or
uses what the other's object defines. A header without a .c of its name is an interface: others
define what it declares.
"""

import itertools
import pathlib
import re
import sysconfig

import programs
import pytest
from once import made_once

CSRC = programs.ROOT / "csrc"
LAYERS = ("base", "device", "runtime", "python")
PYTHON = ("-DPy_LIMITED_API=0x030B0000", f"-I{sysconfig.get_paths()['include']}")
# Included several times over in one file, each time for another instruction set.
WITHOUT_GUARD = ["kernels/cpu/gemm_host_micro.h"]

Graph = dict[str, dict[str, str]]  # unit -> the units that it builds on -> by what


def files(*patterns: str, root: pathlib.Path = CSRC) -> list[pathlib.Path]:
    return sorted(
        path for layer in LAYERS for pattern in patterns for path in (root / layer).rglob(pattern)
    )


def symbols(objects: list[pathlib.Path], *options: str) -> list[tuple[str, str]]:
    """(unit, symbol) for each line of nm."""
    listed = programs.run(["nm", "-A", *options, *map(str, objects)]).stdout
    return [
        (pathlib.Path(place).name.removesuffix(".c.o"), entry.split()[-1])
        for place, entry in (line.rsplit(":", 1) for line in listed.splitlines())
    ]


def calls(objects: list[pathlib.Path]) -> tuple[Graph, dict[str, str]]:
    """Who uses what whose object defines, and where each symbol is defined."""
    home = {symbol: unit for unit, symbol in symbols(objects, "-g", "--defined-only")}
    graph: Graph = {}
    for unit, symbol in symbols(objects, "-u"):
        if symbol in home:
            graph.setdefault(unit, {}).setdefault(home[symbol], f"{symbol}()")
    return graph, home


def includes(sources: list[pathlib.Path]) -> Graph:
    graph: Graph = {}
    for path in sources:
        for name in re.findall(r'#include "([^"]+\.h)"', path.read_text()):
            target = pathlib.PurePath(name).stem
            if target != path.stem:
                graph.setdefault(path.stem, {}).setdefault(target, f"{path.name} includes {name}")
    return graph


def cycle(*graphs: Graph) -> list[str]:
    """A circle in the graphs taken together, a line for each step; empty: there is none."""
    edges: Graph = {}
    for graph, unit in itertools.chain.from_iterable(((g, u) for u in g) for g in graphs):
        edges.setdefault(unit, {}).update(graph[unit])
    done: set[str] = set()

    def visit(path: list[str]) -> list[str]:
        unit = path[-1]
        for other in sorted(edges.get(unit, {})):
            if other in path:
                circle = [*path[path.index(other) :], other]
                return [f"{a} -> {b}: {edges[a][b]}" for a, b in itertools.pairwise(circle)]
            if other not in done and (found := visit([*path, other])):
                return found
        done.add(unit)
        return []

    for unit in sorted(edges):
        if unit not in done and (found := visit([unit])):
            return found
    return []


@pytest.fixture(scope="module")
def objects(shared) -> list[pathlib.Path]:
    """Of all C files, with nothing inlined away."""
    folder = made_once(
        shared / "layers",
        lambda out: programs.compiled(programs.ROOT, files("*.c"), out, "-O0", "-g0", *PYTHON),
    )
    return sorted(folder.glob("*.c.o"))


def test_no_circle_of_calls(objects):
    circle = cycle(calls(objects)[0])
    assert not circle, "\n".join(circle)


def test_no_circle_of_calls_and_includes(objects):
    circle = cycle(calls(objects)[0], includes(files("*.[ch]")))
    assert not circle, "\n".join(circle)


def test_a_circle_is_named(tmp_path):
    (tmp_path / "base").mkdir()
    for name, text in {
        "upper.h": "void upper(void);",
        "upper.c": '#include "upper.h"\n#include "lower.h"\nvoid upper(void) { lower(); }',
        "lower.h": "void lower(void);",
        "lower.c": "extern void upper(void);\nvoid lower(void) { upper(); }",
        "other.c": '#include "upper.h"\nvoid other(void) { upper(); }',
    }.items():
        (tmp_path / "base" / name).write_text(f"{text}\n")
    sources = files("*.c", root=tmp_path)
    found = programs.compiled(tmp_path, sources, tmp_path / "out", "-O0")
    graph, _ = calls([pathlib.Path(path) for path in found])
    assert cycle(graph) == ["lower -> upper: upper()", "upper -> lower: lower()"]
    assert cycle(includes(files("*.[ch]", root=tmp_path))) == []


def declared(header: pathlib.Path) -> str:
    """What stands outside of braces, without comments and preprocessor lines."""
    text = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.S)
    text = re.sub(r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", "", text, flags=re.M)
    while (inner := re.sub(r"\{[^{}]*\}", " ", text)) != text:
        text = inner
    return text


def test_a_header_declares_what_its_own_file_defines(objects):
    """Or it is an interface, and has no file of its own."""
    home = calls(objects)[1]
    elsewhere = [
        f"{header.name} declares {word}, which {home[word]}.c defines"
        for header in files("*.h")
        if header.with_suffix(".c").exists()
        for word in set(re.findall(r"\b\w+\b", declared(header)))
        if home.get(word, header.stem) != header.stem
    ]
    assert elsewhere == []


def has_guard(header: pathlib.Path) -> bool:
    return re.search(r"^#ifndef IRIS_\w+_H\n#define", header.read_text(), flags=re.M) is not None


def test_every_header_has_a_guard():
    without = [
        path.relative_to(CSRC).as_posix() for path in CSRC.rglob("*.h") if not has_guard(path)
    ]
    assert sorted(without) == WITHOUT_GUARD


def compile_alone(header: pathlib.Path, compiler: list[str]) -> None:
    """Fails if the header does not include what it uses."""
    name = header.relative_to(CSRC).as_posix()
    programs.run([*compiler, f"-I{CSRC}", "-fsyntax-only", "-"], input=f'#include "{name}"\n')


@pytest.mark.parametrize("layer", [*LAYERS, "kernels/abi"])
def test_headers_of_c_compile_alone(layer):
    cc = [*programs.compilers()[0], *programs.C, "-Wall", "-Wextra", "-Werror", *PYTHON, "-xc"]
    for header in sorted((CSRC / layer).rglob("*.h")):
        compile_alone(header, cc)


@pytest.mark.parametrize("folder", ["abi", "base", "protocol", "ops", "cpu"])
def test_headers_of_the_host_kernels_compile_alone(folder):
    cxx = [*programs.compilers()[1], *programs.CXX, "-xc++"]
    for header in filter(has_guard, sorted((CSRC / "kernels" / folder).rglob("*.h"))):
        compile_alone(header, cxx)
