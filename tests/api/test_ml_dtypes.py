# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""NumPy's arrays of ml_dtypes' dtypes, which neither DLPack nor the buffer protocol describes."""

import numpy
import pytest

import iris_c

ml_dtypes = pytest.importorskip("ml_dtypes")
FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")


@pytest.fixture(scope="module")
def ctx():
    with iris_c.init(heap_size=1 << 22, backend="cpu", rank=0, world_size=1) as context:
        yield context


def drawn(dtype, *shape):
    values = numpy.random.default_rng(len(dtype)).standard_normal(shape)
    return values.astype(getattr(ml_dtypes, dtype))


def test_products(ctx):
    """Where they lie, with their strides."""
    one = numpy.ones(1, numpy.float32)
    for dtype in FLOAT8:
        A, B = drawn(dtype, 12, 8)[::2], drawn(dtype, 5, 8).T
        C = numpy.zeros((6, 5), numpy.float32)
        ctx.ops.matmul_all_reduce(C, A, B, scale_a=one, scale_b=one)
        numpy.testing.assert_allclose(C, A.astype(float) @ B.astype(float), rtol=1e-5, atol=1e-5)
    A, B = drawn("bfloat16", 6, 8), drawn("bfloat16", 8, 5)
    C = numpy.zeros((6, 5), ml_dtypes.bfloat16)
    ctx.ops.matmul_all_reduce(C, A, B)
    expected = A.astype(float) @ B.astype(float)
    numpy.testing.assert_allclose(C.astype(float), expected, rtol=2**-7, atol=2**-7)


def test_what_is_written(ctx):
    x = drawn("float8_e8m0fnu", 16)
    y = numpy.zeros_like(x)
    ctx.ccl.all_gather(y, x)
    assert (x.view("uint8") == y.view("uint8")).all()
    y.flags.writeable = False
    with pytest.raises(ValueError, match="output: expected a writable tensor"):
        ctx.ccl.all_gather(y, x)


def test_refusals(ctx):
    with pytest.raises(ValueError, match="output: "):
        ctx.ccl.all_gather(numpy.zeros(3, "M8[s]"), numpy.zeros(3, "M8[s]"))
    with pytest.raises(ValueError, match="output: "):
        ctx.ccl.all_gather(drawn("float8_e3m4", 3), drawn("float8_e3m4", 3))
