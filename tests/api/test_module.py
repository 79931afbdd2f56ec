# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The package as Python sees it: what an import loads, signatures, exceptions."""

import inspect

import pytest
from one_rank import run_python

import iris_c
from iris_c import _C


def test_import_loads_neither_torch_nor_numpy():
    code = "import iris_c, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    result = run_python(["-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["False", "False"], result.stderr


def test_environment_report():
    result = run_python(["-m", "iris_c"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for key in ("iris_c", "backends", "cpu ISA", "torch"):
        assert key in result.stdout


@pytest.mark.parametrize("name", [*_C.__dict__])
def test_functions_have_signatures_and_docstrings(name):
    function = getattr(_C, name)
    if not callable(function) or isinstance(function, type) or name.startswith("__"):
        return
    assert inspect.signature(function)
    assert function.__doc__


def test_signature_of_matmul_all_reduce():
    parameters = inspect.signature(iris_c.ops.matmul_all_reduce).parameters
    names = ["ctx", "C", "A", "B", "bias", "async_op", "config", "workspace"]
    keywords = ["trace", "scale_a", "scale_b"]
    assert list(parameters) == [*names, *keywords]
    for name in keywords:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (iris_c.HeapExhausted, MemoryError),
        (iris_c.PeerError, RuntimeError),
        (iris_c.SignalTimeout, TimeoutError),
        (iris_c.BackendError, RuntimeError),
    ],
)
def test_exceptions_extend_builtin_ones(error, base):
    assert issubclass(error, base)
    assert error.__module__ == "iris_c"
