# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""matmul_all_gather against float64: shapes, strides, dtypes, bias, results on the heap and off."""

import dataclasses

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks

TILES = iris_c.FusedConfig(form="tiles")


def check(ctx, case, dtype, on_heap, salt="", bias_shape=None, workspace=None):
    case = dataclasses.replace(case, bias="")
    world, rank = ctx.world_size, ctx.rank
    A, B = cases.operands(case, rank, dtype, salt)

    def allocate(*sizes):
        return ctx.empty(*sizes, dtype=dtype) if on_heap else torch.empty(sizes, dtype=dtype)

    def bias_of(which):
        return cases.contribution(30 + which, torch.Size(bias_shape).numel(), dtype).view(
            bias_shape
        )

    C = cases.poisoned(cases.laid_out(case.M * world, case.N, case.c, allocate))
    bias = None
    if bias_shape is not None:
        bias = torch.empty(bias_shape, dtype=dtype).copy_(bias_of(rank))
    ctx.ops.matmul_all_gather(C, A, B, bias=bias, workspace=workspace, config=TILES)
    expected, bound = cases.gathered(
        case, world, dtype, salt, None if bias is None else lambda which: bias_of(which).double()
    )
    cases.check_close(C, expected, bound, f"rank {rank} {case} {dtype} {salt}")


@pytest.mark.parametrize("on_heap", [True, False])
@ranks(1, 2, 3, 4)
def test_shapes(ctx, on_heap):
    for case in cases.SHAPES:
        for dtype in cases.DTYPES:
            check(ctx, case, dtype, on_heap)


@ranks(2, 3)
def test_layouts(ctx):
    for number, case in enumerate(cases.LAYOUTS):
        for dtype in (torch.float32, torch.bfloat16):
            check(ctx, case, dtype, on_heap=number % 2 == 0)


@ranks(2, 3)
def test_bias_is_each_ranks_own(ctx):
    for shape in ((70,), (1, 70), (40, 1), (40, 70), (1,)):
        for dtype in cases.DTYPES:
            check(ctx, cases.Case(40, 70, 30), dtype, True, bias_shape=shape)


@ranks(3)
def test_some_results_on_the_heap_and_some_off(ctx):
    """Each rank says for itself where it wants the result."""
    case = cases.Case(33, 70, 20)
    A, B = cases.operands(case, ctx.rank, torch.float32)
    on_heap = ctx.empty(99, 70)
    for turn in range(6):
        C = on_heap if (turn + ctx.rank) % 2 else torch.empty(99, 70)
        cases.poisoned(C)
        ctx.ops.matmul_all_gather(C, A, B)
        expected, bound = cases.gathered(case, 3, torch.float32)
        cases.check_close(C, expected, bound)
        ctx.barrier()  # the heap's is poisoned again


@ranks(2, 4)
def test_many_calls_on_one_workspace(ctx):
    """Of different shapes, across the wrap of the counter."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_gather")
    check(ctx, cases.Case(60, 140, 20), torch.float32, True, "first", workspace=workspace)
    ctx.barrier()
    workspace._set_calls(2**31 - 1 - 10)
    ctx.barrier()
    for turn in range(20):
        case = cases.Case(30 + turn, 140 - 3 * turn, 20)
        check(ctx, case, torch.float32, turn % 3 == 0, str(turn), workspace=workspace)
    assert workspace.call_counter == 10


@ranks(2)
def test_mistakes_are_named(ctx):
    A, B, C = torch.zeros(6, 4), torch.zeros(4, 8), torch.zeros(12, 8)
    call = ctx.ops.matmul_all_gather
    with pytest.raises(ValueError, match=r"C: expected shape \(12, 8\).*got \(6, 8\)"):
        call(torch.zeros(6, 8), A, B)
    with pytest.raises(ValueError, match=r"bias: expected a shape that broadcasts to \(6, 8\)"):
        call(C, A, B, bias=torch.zeros(12, 1))
    with pytest.raises(ValueError, match="expected 'two_shot' for matmul_all_gather"):
        call(C, A, B, config=iris_c.FusedConfig(all_reduce_variant="ring"))
    call(C, A, B)
