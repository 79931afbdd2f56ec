# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""matmul_all_reduce: every variant, dtype, shape and layout against float64."""

import dataclasses

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks


def config_of(ctx, case, variant):
    return cases.config(ctx, variant, *(case.block or ()))


def output_of(ctx, case, dtype, on_heap):
    """A poisoned C with the case's layout, on the heap or off it."""

    def allocate(*sizes):
        if on_heap:
            return ctx.empty(*sizes, dtype=dtype)
        return torch.empty(sizes, dtype=dtype)

    return cases.poisoned(cases.laid_out(case.M, case.N, case.c, allocate))


def check_all_ranks_equal(ctx, C):
    """The same bits on all ranks."""
    flat = C.contiguous().view(torch.uint8).flatten()
    gathered = torch.empty(ctx.world_size * flat.numel(), dtype=torch.uint8)
    ctx.ccl.all_gather(gathered, flat)
    for rank in range(ctx.world_size):
        assert torch.equal(gathered.view(ctx.world_size, -1)[rank], flat), f"rank {rank} differs"


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("variant", cases.VARIANTS)
@ranks(1, 2, 3, 4)
def test_matches_float64(ctx, variant, dtype):
    for number, case in enumerate(cases.matmul_all_reduce()):
        A, B = cases.operands(case, ctx.rank, dtype)
        C = output_of(ctx, case, dtype, on_heap=number % 3 != 2)
        ctx.ops.matmul_all_reduce(
            C, A, B, bias=cases.bias_of(case, dtype), config=config_of(ctx, case, variant)
        )
        expected, bound = cases.reference(case, ctx.world_size, dtype)
        cases.check_close(C, expected, bound, f"rank {ctx.rank} {variant} {case}")
        if variant in cases.DETERMINISTIC:
            check_all_ranks_equal(ctx, C)


@pytest.mark.parametrize("variant", cases.VARIANTS)
@ranks(8)
def test_eight_ranks(ctx, variant):
    for case in (cases.Case(5, 3, 2), cases.Case(97, 101, 33, block=(16, 16, 16))):
        A, B = cases.operands(case, ctx.rank, torch.bfloat16)
        C = output_of(ctx, case, torch.bfloat16, on_heap=True)
        ctx.ops.matmul_all_reduce(C, A, B, config=config_of(ctx, case, variant))
        expected, bound = cases.reference(case, ctx.world_size, torch.bfloat16)
        cases.check_close(C, expected, bound, f"rank {ctx.rank} {variant} {case}")


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_a_dropped_rank_does_not_pass(world_size, dtype):
    """The bound is tight: a sum without any one rank's contribution is outside, at once.

    With very few elements a rank's whole contribution may happen to be as small as a rounding.
    """
    for case in (case for case in cases.SHAPES if case.M * case.N >= 64):
        expected, bound = cases.reference(case, world_size, dtype)
        for rank in range(world_size):
            without, _ = cases.reference(case, world_size, dtype, drop=rank)
            with pytest.raises(AssertionError, match="elements are wrong"):
                cases.check_close(without.to(dtype), expected, bound)


@ranks(2, 3)
def test_output_may_lie_elsewhere_on_each_rank(ctx):
    """Off the heap on some ranks, at other offsets and strides of the heap on others."""
    case = cases.Case(45, 51, 20)
    room = ctx.empty(4, 64, 64)
    for variant in cases.VARIANTS:
        for turn in range(3):
            place = (ctx.rank + turn) % 3
            C = torch.empty(45, 51) if place == 0 else room[place, place : 45 + place, :51]
            C = room[3, :51, :45].t() if place == 2 else C
            A, B = cases.operands(case, ctx.rank, torch.float32)
            cases.poisoned(C)
            ctx.ops.matmul_all_reduce(C, A, B, config=config_of(ctx, case, variant))
            expected, bound = cases.reference(case, ctx.world_size, torch.float32)
            cases.check_close(C, expected, bound, f"rank {ctx.rank} {variant} turn {turn}")
            ctx.barrier()  # before anybody poisons what a peer may have been given to write


@pytest.mark.parametrize("variant", cases.VARIANTS)
@ranks(3)
def test_async_result_is_complete_on_this_rank(ctx, variant):
    case = cases.Case(70, 70, 31, block=(16, 16, 16))
    expected, bound = cases.reference(case, ctx.world_size, torch.float32)
    A, B = cases.operands(case, ctx.rank, torch.float32)
    C = ctx.empty(case.M, case.N)
    for _ in range(20):
        cases.poisoned(C)
        ctx.ops.matmul_all_reduce(C, A, B, async_op=True, config=config_of(ctx, case, variant))
        cases.check_close(C, expected, bound, f"rank {ctx.rank} {variant}")


@pytest.mark.parametrize("threads", [1, 3])
@ranks(2)
def test_work_group_count_is_each_ranks_own_business(ctx, threads):
    case = cases.Case(100, 90, 40, block=(16, 16, 16))
    expected, bound = cases.reference(case, ctx.world_size, torch.float32)
    A, B = cases.operands(case, ctx.rank, torch.float32)
    for variant in cases.VARIANTS:
        config = cases.config(ctx, variant, 16, 16)
        config = dataclasses.replace(config, num_sms=threads + ctx.rank)
        C = cases.poisoned(ctx.empty(case.M, case.N))
        ctx.ops.matmul_all_reduce(C, A, B, config=config)
        cases.check_close(C, expected, bound, f"rank {ctx.rank} {variant}")


@ranks(2, heap_size=1 << 20)
def test_preamble_allocates_and_computes_nothing(ctx):
    case = cases.Case(64, 64, 16)
    A, B = cases.operands(case, ctx.rank, torch.float32)
    C = ctx.zeros(64, 64)
    before = ctx.heap_used
    workspace = ctx.ops.matmul_all_reduce_preamble(C, A, B)
    assert ctx.heap_used > before
    assert workspace.prepared
    assert workspace.call_counter == 0
    assert C.count_nonzero() == 0
    held = ctx.heap_used
    assert ctx.ops.matmul_all_reduce(C, A, B, workspace=workspace) is workspace
    assert ctx.heap_used == held
    assert workspace.call_counter == 1


@ranks(2)
def test_special_values_arrive(ctx):
    """Infinities and NaN propagate like in any matrix product."""
    A = torch.ones(4, 4)
    B = torch.ones(4, 4)
    if ctx.rank == 1:
        A[1, 0], A[2, 0] = float("inf"), float("nan")
    for variant in cases.VARIANTS:
        C = ctx.empty(4, 4)
        config = iris_c.FusedConfig(all_reduce_variant=variant)
        ctx.ops.matmul_all_reduce(C, A, B, config=config)
        assert torch.equal(C[0], torch.full((4,), 8.0))
        assert bool(C[1].isinf().all())
        assert bool(C[2].isnan().all())


@ranks(1, 2, heap_size=6 << 30, deadline=120)
def test_beyond_four_gib(ctx):
    """Offsets above 2**32 work: a sparse heap, of which little is touched."""
    filler = ctx.empty(5 << 30, dtype=torch.uint8)
    case = cases.Case(40, 50, 30, block=(16, 16, 16))
    C = ctx.empty(case.M, case.N)
    assert C.data_ptr() - int(ctx.get_heap_bases()[ctx.rank]) > 5 << 30
    A, B = cases.operands(case, ctx.rank, torch.float32)
    expected, bound = cases.reference(case, ctx.world_size, torch.float32)
    for variant in cases.VARIANTS:
        cases.poisoned(C)
        ctx.barrier()
        ctx.ops.matmul_all_reduce(C, A, B, config=config_of(ctx, case, variant))
        cases.check_close(C, expected, bound, f"rank {ctx.rank} {variant}")
    del filler
