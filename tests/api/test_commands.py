# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""``python -m iris_c``: the environment, the self-test and the timings, for people and programs."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

import iris_c


def python_m(*arguments):
    """In a directory where no other iris_c lies than the one under test."""
    return subprocess.run(
        [sys.executable, "-m", "iris_c", *arguments],
        cwd=tempfile.gettempdir(),
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(iris_c.__path__[0]).parent)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_info():
    text = python_m()
    assert text.returncode == 0, text.stderr
    facts = json.loads(python_m("info", "--json").stdout)
    assert {"iris_c", "extension", "backends", "code objects"} <= set(facts)
    for key, value in facts.items():
        assert f"{key:<12} {value}" in text.stdout


@pytest.mark.slow
def test_bench():
    done = python_m("bench", "--backend", "cpu", "--dtype", "bfloat16", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["backend"], result["ranks"], result["dtype"]) == ("cpu", 2, "bfloat16")
    assert {row["operation"] for row in result["rows"]} == {"all_reduce", "matmul_all_reduce"}
    for row in result["rows"]:
        assert row["seconds"] > 0
        assert row["rate"] > 0
