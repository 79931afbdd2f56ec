# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The README's example runs as it stands there."""

import pathlib
import re

from iris_c.testing import run_ranks

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def run_example(code):
    names = {"__name__": "__main__"}
    exec(compile(code, "example.py", "exec"), names)
    summed = names["total"]
    assert tuple(names["C"].shape) == (512, 1024)
    assert bool(summed.isfinite().all())
    return summed.tolist()


def test_example():
    (code,) = re.findall(r"```python\n# example\.py.*?\n(.*?)```", README.read_text(), flags=re.S)
    assert code.count("\n") <= 15
    first, second = run_ranks(run_example, 2, code)
    assert first == second
