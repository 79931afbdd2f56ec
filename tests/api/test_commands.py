# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""``python -m iris_c``: the environment, the self-test and the timings, for people and programs."""

import json
import os
import pathlib
import pty
import subprocess
import sys
import tempfile

import pytest

import iris_c

ENVIRONMENT = {"PYTHONPATH": str(pathlib.Path(iris_c.__path__[0]).parent)}


def python_m(*arguments):
    """In a directory where no other iris_c lies than the one under test."""
    return subprocess.run(
        [sys.executable, "-m", "iris_c", *arguments],
        cwd=tempfile.gettempdir(),
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_info():
    text = python_m()
    assert text.returncode == 0, text.stderr
    facts = json.loads(python_m("info", "--json").stdout)
    assert {"iris_c", "extension", "backends", "code objects", "GPU drivers"} <= set(facts)
    devices = facts.pop("devices")
    assert f"{'devices':<12} {'none but the cpu' if not devices else ''}" in text.stdout
    for key, value in facts.items():
        assert f"{key:<12} {value}" in text.stdout
    assert "\x1b" not in text.stdout + text.stderr


def on_a_terminal(*arguments, **environment):
    """What Python writes to one, standard output and error alike."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tempfile.gettempdir(),
            env={**os.environ, **ENVIRONMENT, **environment},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: its other end is closed
                break
            if not piece:
                break
            written += piece
        assert process.wait(timeout=60) == 0, written.decode()
    finally:
        os.close(ours)
    return written.decode()


@pytest.mark.slow
def test_selftest():
    done = python_m("selftest", "--backend", "cpu")
    assert done.returncode == 0, done.stderr
    assert "checks on 2 ranks, backend cpu: all right" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


# `python -m iris_c selftest` of two checks, in one rank that is this process: what else it does
# takes long, and test_selftest does it.
SHORT_SELFTEST = """
import sys
import iris_c
from iris_c import __main__, selftest

def run_here(body, ranks, init, **options):
    with iris_c.init(backend="cpu", rank=0, world_size=1, **init) as ctx:
        return [body(ctx)]

two = list(selftest._checks())[-2:]
selftest._checks = lambda: two
selftest.run_ranks = run_here
sys.argv = ["iris_c", "selftest"]
sys.exit(__main__.main())
"""


def test_colour_and_progress_are_for_terminals():
    colourful = on_a_terminal("-c", SHORT_SELFTEST, TERM="xterm", NO_COLOR="")
    assert "\x1b[32mok" in colourful
    assert "\x1b[32mall right" in colourful
    assert "[1/2]" in colourful, "progress"
    plain = on_a_terminal("-c", SHORT_SELFTEST, TERM="xterm", NO_COLOR="1")
    assert "\x1b[32m" not in plain
    assert "all right" in plain
    assert "[1/2]" in plain
    dumb = on_a_terminal("-c", SHORT_SELFTEST, TERM="dumb", NO_COLOR="")
    assert "\x1b" not in dumb
    assert "[1/2]" not in dumb
    assert "all right" in dumb


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
