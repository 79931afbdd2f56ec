# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Bad arguments: an error that names argument, value and expectation; the context goes on."""

import cases
import numpy
import pytest
import torch

import iris_c
from iris_c.testing import ranks


def operands(device=None):
    """A, B and C of a call that is right; by default on torch's device, a rank's context's."""
    return tuple(torch.zeros(shape, device=device) for shape in ((4, 6), (6, 5), (4, 5)))


def wrong_calls():
    """Tensors of a call that is not, and what the error says."""
    A, B, C = operands()
    return {
        "A 3-D": (
            (C, torch.zeros(2, 4, 6), B),
            r"A: expected a 2-D tensor \(M, K\), got 3-D with shape \(2, 4, 6\)",
        ),
        "B 1-D": ((C, A, torch.zeros(6)), r"B: expected a 2-D tensor \(K, N\), got 1-D"),
        "C 3-D": (
            (torch.zeros(1, 4, 5), A, B),
            r"C: expected a 2-D tensor \(M, N\), got 3-D",
        ),
        "inner": (
            (C, A, torch.zeros(7, 5)),
            r"B: expected 6 rows, the columns of A \(4, 6\), got shape \(7, 5\)",
        ),
        "C shape": ((torch.zeros(5, 4), A, B), r"C: expected shape \(4, 5\).*got \(5, 4\)"),
        "B dtype": ((C, A, B.half()), r"B: expected dtype float32 like A, got float16"),
        "C dtype": ((C.bfloat16(), A, B), r"C: expected dtype float32 like A, got bfloat16"),
        "double": (
            (C.double(), A.double(), B.double()),
            r"A: expected dtype float32, float16.* on .*, got float64",
        ),
        "C expanded": (
            (torch.zeros(1, 5).expand(4, 5), A, B),
            r"C: expected elements that do not share memory, .* strides \(0, 1\)",
        ),
    }


@ranks(1, 2)
def test_tensors(ctx):
    A, B, C = operands()
    for name, (args, message) in wrong_calls().items():
        with pytest.raises(ValueError, match=message):
            ctx.ops.matmul_all_reduce(*args)
            pytest.fail(name)
    for bias, message in (
        (torch.zeros(4), r"bias: expected a shape that broadcasts to \(4, 5\)"),
        (torch.zeros(1, 1, 5), r"bias: expected a shape that broadcasts to \(4, 5\), got 3-D"),
        (torch.zeros(5).half(), r"bias: expected dtype float32"),
    ):
        with pytest.raises(ValueError, match=message):
            ctx.ops.matmul_all_reduce(C, A, B, bias=bias)
    ctx.ops.matmul_all_reduce(C, A, B)


@ranks(1, 2)
def test_types(ctx):
    A, B, C = operands()
    with pytest.raises(TypeError, match=r"A.*list"):
        ctx.ops.matmul_all_reduce(C, [[1.0]], B)
    with pytest.raises(TypeError, match=r"config"):
        ctx.ops.matmul_all_reduce(C, A, B, config={"block_size_m": 4})
    with pytest.raises(TypeError, match=r"workspace"):
        ctx.ops.matmul_all_reduce(C, A, B, workspace=3)
    with pytest.raises(TypeError):
        ctx.ops.matmul_all_reduce(C, A)
    with pytest.raises(TypeError):
        iris_c.ops.matmul_all_reduce("ctx", C, A, B)
    frozen = numpy.zeros((4, 5), dtype=numpy.float32)
    frozen.flags.writeable = False
    with pytest.raises((ValueError, BufferError, TypeError), match="read"):
        ctx.ops.matmul_all_reduce(frozen, A, B)


@ranks(1, 2)
def test_aliasing(ctx):
    square = ctx.zeros(6, 6)
    for C, A, B in (
        (square, square, torch.zeros(6, 6)),
        (square, torch.zeros(6, 6), square.t()),
        (square[:3], square[2:5], torch.zeros(6, 6)),
    ):
        with pytest.raises(ValueError, match=r"C: expected memory apart from [AB]'s"):
            ctx.ops.matmul_all_reduce(C, A, B)
    with pytest.raises(ValueError, match=r"C: expected memory apart from bias's"):
        ctx.ops.matmul_all_reduce(square, torch.zeros(6, 2), torch.zeros(2, 6), bias=square[0])
    # Columns of one buffer interleave in memory and do not overlap.
    wide = ctx.randn(6, 12)
    A = wide[:, 6:].clone()
    ctx.ops.matmul_all_reduce(wide[:, :6], wide[:, 6:], torch.eye(6))
    torch.testing.assert_close(wide[:, 6:], A)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block_size_m": 0}, "block_size_m"),
        ({"block_size_n": -4}, "block_size_n"),
        ({"num_sms": 100000}, "num_sms"),
        ({"all_reduce_variant": "three_shot"}, "three_shot"),
        ({"block_size_m": 1 << 19, "block_size_n": 1 << 19}, "block_size_m"),
    ],
    ids=str,
)
def test_configs(fields, message):
    with iris_c.init(heap_size=1 << 20, rank=0, world_size=1) as ctx:
        with pytest.raises(ValueError, match=message):
            config = iris_c.FusedConfig(**fields)
            config.validate(1)
            A, B, C = operands(ctx.device)
            ctx.ops.matmul_all_reduce(C, A, B, config=config)


@cases.cpu_only
def test_numpy_arrays_are_tensors_too():
    with iris_c.init(heap_size=1 << 20, rank=0, world_size=1) as ctx:
        a = numpy.random.default_rng(0).standard_normal((4, 6), dtype=numpy.float32)
        b = numpy.random.default_rng(1).standard_normal((6, 5), dtype=numpy.float32)
        c = numpy.full((4, 5), numpy.nan, dtype=numpy.float32)
        ctx.ops.matmul_all_reduce(c, a[:, ::-1], b[::-1])
        numpy.testing.assert_allclose(c, a @ b, rtol=1e-5, atol=1e-5)
