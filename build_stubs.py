# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Writes what type checkers read of csrc/python/ops.def: stubs of its functions and bound methods.

    python build_stubs.py            writes iris_c/_C.pyi (its last part) and iris_c/bound.pyi
    python build_stubs.py --check    exits with 1 if they are not what it would write

The table is expanded by the C preprocessor (CC, or cc), as it is for the extension itself.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent
TABLE = "csrc/python/ops.def"
STUB, BOUND = ROOT / "iris_c/_C.pyi", ROOT / "iris_c/bound.pyi"
MARK = f"# ---- functions of {TABLE}, written by build_stubs.py ----\n"

# What a `kind` of the table is to a type checker.
TYPES = {
    "context": "Context",
    "tensor": "Tensor",
    "optional_tensor": "Tensor | None",
    "flag": "bool",
    "integer": "int",
    "real": "float",
    "reduction": "Reduction",
    "fused_config": "FusedConfig | None",
    "ccl_config": "Config | None",
    "workspace": "FusedWorkspace | None",
    "ranks": "Sequence[int] | None",
    "sizes": "Sequence[int] | None",
    "messages": "Sequence[Send | Recv]",
}
RESULTS = {"IRIS_PY_RETURNS_WORKSPACE": "FusedWorkspace", "IRIS_PY_RETURNS_NONE": "None"}
# bound.pyi, but for what the table has: the functions that are Python are spelled here.
BOUND_HEAD = f"""\
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
# Written by build_stubs.py, of {TABLE}.
from collections.abc import Sequence

from iris_c._C import Context, FusedWorkspace
from iris_c.ccl import Recv, Send
from iris_c.config import Config, FusedConfig
from iris_c.typing import DType, Reduction, Tensor

"""
BOUND_INIT = "    def __init__(self, ctx: Context) -> None: ...\n"
BY_HAND = {
    "ops": """\
    def select_config(
        ctx, M: int, N: int, K: int, dtype: DType, config: FusedConfig | None = None,
        operation: str = "matmul_all_reduce",
    ) -> FusedConfig: ...
""",
    "ccl": """\
    def barrier(ctx, stream: object = None, group: Sequence[int] | None = None) -> None: ...
""",
}
# In front of what the preprocessor makes of a row: nothing in the table begins like it.
EXPAND = """
#include "ops.def"
#define R(name, kind, type, meaning) @parameter name kind @
#define O(name, value, kind, type, meaning) @parameter name kind value @
#define STAR @star @
#define X(op, namespace) @function op namespace IRIS_PY_RESULT_##op @ \\
    IRIS_PY_PARAMETERS_##op(R, O) IRIS_PY_KEYWORDS_##op(O, STAR)
IRIS_PY_OPERATIONS(X)
"""


class Function:
    def __init__(self, name, namespace, result):
        self.name, self.namespace, self.result = name, namespace, RESULTS[result]
        self.parameters: list[str] = []

    def stub(self, first: str) -> str:
        """Its definition, with `first` in the place of the context."""
        given = ", ".join([first, *self.parameters[1:]])
        return f"def {self.name}({given}) -> {self.result}: ...\n"


def read_table() -> list[Function]:
    """The functions in the table's order."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    expanded = subprocess.run(
        [*compiler, "-E", "-P", "-x", "c", f"-I{(ROOT / TABLE).parent}", "-"],
        input=EXPAND, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    functions: list[Function] = []
    for entry in expanded.split("@"):
        what, *words = entry.split() or [""]
        if what == "function":
            functions.append(Function(*words))
        elif what == "star":
            functions[-1].parameters.append("*")
        elif what == "parameter":
            name, kind, *default = words
            value = f" = {default[0].strip(chr(34))}" if default else ""
            functions[-1].parameters.append(f"{name}: {TYPES[kind]}{value}")
    return functions


def formatted(text: str) -> str:
    """As the house's formatter has it."""
    ruff = pathlib.Path(sys.executable).parent / "ruff"
    command = [str(ruff) if ruff.exists() else "ruff", "format", "--stdin-filename", "x.pyi", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def stubs() -> dict[pathlib.Path, str]:
    functions = read_table()
    hand = STUB.read_text().split(MARK)[0]
    table = "".join(function.stub("ctx: Context") for function in functions)
    bound = [BOUND_HEAD]
    for namespace, kind in (("ops", "BoundOps"), ("ccl", "BoundCcl")):
        own = "".join("    " + f.stub("ctx") for f in functions if f.namespace == namespace)
        bound.append(f"class {kind}:\n{BOUND_INIT}{own}{BY_HAND[namespace]}\n")
    return {STUB: formatted(hand + MARK + table), BOUND: formatted("".join(bound))}


def main() -> None:
    written = stubs()
    stale = [p for p, text in written.items() if not p.exists() or p.read_text() != text]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit(f"not current, run python build_stubs.py: {', '.join(map(str, stale))}")
        return
    for path in stale:
        path.write_text(written[path])
        print("wrote", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
