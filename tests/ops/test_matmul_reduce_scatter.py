# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""matmul_reduce_scatter against float64: shapes, strides, dtypes, both dimensions, bias."""

import dataclasses

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks


def divisible(case: cases.Case, world: int, dim: int) -> cases.Case:
    """The case with rows, or columns, in a multiple of the ranks: as many for each as it had."""
    name = "MN"[dim]
    return dataclasses.replace(case, **{name: getattr(case, name) * world}, bias="")


def share(tensor: torch.Tensor, rank: int, world: int, dim: int) -> torch.Tensor:
    return tensor.chunk(world, dim)[rank]


def check(ctx, case, dim, dtype, on_heap, salt="", bias_shape=None, workspace=None, **options):
    """One call, checked; the result's memory in the case's layout for C."""
    case = divisible(case, ctx.world_size, dim)
    world, rank = ctx.world_size, ctx.rank
    A, B = cases.operands(case, rank, dtype, salt)
    rows, cols = case.M // (world if dim == 0 else 1), case.N // (world if dim == 1 else 1)

    def allocate(*sizes):
        return ctx.empty(*sizes, dtype=dtype) if on_heap else torch.empty(sizes, dtype=dtype)

    C = cases.poisoned(cases.laid_out(rows, cols, case.c, allocate))
    bias = None
    if bias_shape is not None:
        shape = tuple(size if wanted else 1 for size, wanted in zip((rows, cols), bias_shape,
                                                                   strict=True))  # fmt: skip
        values = cases.contribution(30, shape[0] * shape[1], dtype).view(shape)
        bias = torch.empty(shape, dtype=dtype).copy_(values)
    fields = ("num_sms", "block_size_n")
    config = iris_c.FusedConfig(**{name: options.pop(name, None) for name in fields}, form="tiles")
    ctx.ops.matmul_reduce_scatter(
        C, A, B, bias=bias, dim=dim, config=config, workspace=workspace, **options
    )
    expected, bound = (share(x, rank, world, dim)
                       for x in cases.reference(case, world, dtype, salt))  # fmt: skip
    if bias is not None:
        addend = bias.double()
        expected = expected + addend
        bound = bound + 2.1 * cases.UNIT_ROUNDOFF[dtype] * addend.abs()
        bound = bound + cases.UNIT_ROUNDOFF[torch.float32] * expected.abs()
    cases.check_close(C, expected, bound, f"rank {rank} {case} dim {dim} {dtype} {salt}")


@pytest.mark.parametrize("dim", [0, 1])
@ranks(1, 2, 3, 4)
def test_shapes(ctx, dim):
    for number, case in enumerate(cases.SHAPES):
        for dtype in cases.DTYPES:
            check(ctx, case, dim, dtype, on_heap=number % 2 == 0)


@pytest.mark.parametrize("dim", [0, 1])
@ranks(2, 3)
def test_layouts(ctx, dim):
    for case in cases.LAYOUTS:
        for dtype in (torch.float32, torch.bfloat16):
            check(ctx, case, dim, dtype, on_heap=False)


@ranks(2, 5)
def test_whole_tiles_and_their_rests(ctx):
    """Of both widths where there are two."""
    widths = (128, 256) if ctx.backend == "cuda" else (None,)
    for dim in (0, 1):
        for width in widths:
            for dtype in (torch.float16, torch.bfloat16):
                case = cases.Case(270, 530, 136)
                check(ctx, case, dim, dtype, on_heap=dim == 0, block_size_n=width)


@ranks(2, 3)
def test_bias(ctx):
    for dim in (0, 1):
        for bias_shape in ((0, 1), (1, 0), (1, 1), (0, 0)):
            for dtype in cases.DTYPES:
                check(ctx, cases.Case(40, 70, 30), dim, dtype, True, bias_shape=bias_shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@ranks(2, 4)
def test_many_calls_on_one_workspace(ctx, dtype):
    """Of different shapes, among calls of the sum; across the wrap of the counter."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_reduce_scatter")
    check(ctx, cases.Case(90, 140, 20), 0, dtype, True, "first", workspace=workspace)
    ctx.barrier()
    workspace._set_calls(2**31 - 1 - 10)
    ctx.barrier()
    for turn in range(20):
        case = cases.Case(30 + turn, 140 - 3 * turn, 20)
        check(ctx, case, turn % 2, dtype, turn % 3 == 0, str(turn), workspace=workspace)
    assert workspace.call_counter == 10


@ranks(3)
def test_every_run_gives_the_same_bits(ctx):
    case = divisible(cases.Case(50, 90, 200), 3, 0)
    A, B = cases.operands(case, ctx.rank, torch.bfloat16)
    first, again = (torch.empty(50, 90, dtype=torch.bfloat16) for _ in range(2))
    ctx.ops.matmul_reduce_scatter(first, A, B)
    for _ in range(3):
        ctx.ops.matmul_reduce_scatter(cases.poisoned(again), A, B)
        assert torch.equal(first, again)


@ranks(2)
def test_mistakes_are_named(ctx):
    A, B, C = torch.zeros(6, 4), torch.zeros(4, 8), torch.zeros(3, 8)
    call = ctx.ops.matmul_reduce_scatter
    for dim in (2, -1):
        with pytest.raises(ValueError, match=f"dim: expected 0 or 1, got {dim}"):
            call(C, A, B, dim=dim)
    with pytest.raises(ValueError, match=r"C: expected shape \(3, 8\).*got \(6, 8\)"):
        call(torch.zeros(6, 8), A, B)
    with pytest.raises(ValueError, match=r"C: expected shape \(6, 4\)"):
        call(C, A, B, dim=1)
    with pytest.raises(ValueError, match=r"A: expected rows in a multiple of world_size 2.*got 5"):
        call(C, torch.zeros(5, 4), B)
    with pytest.raises(ValueError, match="B: expected columns in a multiple of world_size 2"):
        call(C, A, torch.zeros(4, 7), dim=1)
    with pytest.raises(ValueError, match="bias: expected a shape that broadcasts to"):
        call(C, A, B, bias=torch.zeros(6, 1))
    with pytest.raises(ValueError, match="expected 'two_shot' for matmul_reduce_scatter"):
        call(C, A, B, config=iris_c.FusedConfig(all_reduce_variant="ring"))
    with pytest.raises(ValueError, match="different operations"):
        call(C if ctx.rank == 0 else torch.zeros(6, 4), A, B, dim=ctx.rank)
    call(C, A, B)
