# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The form 'decode' of the fused products, for few rows, against float64: operations, dtypes,
rows, odd sizes, strides, biases, hops; other calls' packets; peers that do not come."""

import dataclasses
import itertools

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks

HALVES = (torch.float16, torch.bfloat16)
ROWS = (1, 2, 3, 7, 8, 9, 16, 17, 33, 64, 65, 128, 200, 256)
OPERATIONS = ("all_reduce", "two_hops", "scatter_rows", "scatter_cols", "all_gather")


def config(operation: str) -> iris_c.FusedConfig:
    hops = {"all_reduce": "ll", "two_hops": "ll_two_shot"}.get(operation, "two_shot")
    return iris_c.FusedConfig(form="decode", all_reduce_variant=hops)


def check(ctx, operation, case, dtype, *, on_heap=False, salt="", workspace=None, sizes=None):
    """One call, checked. The case's rows, or columns, are made a multiple of the ranks where they
    are scattered, without exceeding the form's rows."""
    world, rank = ctx.world_size, ctx.rank
    if operation == "scatter_rows":
        case = dataclasses.replace(case, M=min(-(-case.M // world) * world, 256 // world * world))
    if operation == "scatter_cols":
        case = dataclasses.replace(case, N=-(-case.N // world) * world)
    A, B = cases.operands(case, rank, dtype, salt)
    bias = cases.bias_of(case, dtype)
    rows = case.M * (world if operation == "all_gather" else 1)
    rows //= world if operation == "scatter_rows" else 1
    cols = case.N // (world if operation == "scatter_cols" else 1)
    if operation.startswith("scatter") and bias is not None:
        bias = bias[:rows, :cols] if bias.dim() == 2 else bias[:cols]

    def allocate(*sizes):
        return ctx.empty(*sizes, dtype=dtype) if on_heap else torch.empty(sizes, dtype=dtype)

    C = cases.poisoned(cases.laid_out(rows, cols, case.c, allocate))
    options = {"bias": bias, "config": config(operation), "workspace": workspace}
    if operation.startswith("scatter"):
        dim = 0 if operation == "scatter_rows" else 1
        ctx.ops.matmul_reduce_scatter(C, A, B, dim=dim, **options)
        total, bound = cases.reference(case, world, dtype, salt)
        whole_bias = cases.bias_of(case, dtype)
        total = total if whole_bias is None else total - whole_bias.double()
        expected, bound = (x.chunk(world, dim)[rank] for x in (total, bound))
        if bias is not None:  # of this share
            expected = expected + bias.double()
            bound = bound + 1.01 * cases.UNIT_ROUNDOFF[dtype] * expected.abs()
    elif operation == "all_gather":
        ctx.ops.matmul_all_gather(C, A, B, **options)
        addend = None if bias is None else lambda which: bias.double()
        expected, bound = cases.gathered(case, world, dtype, salt, addend)
    else:
        ctx.ops.matmul_all_reduce(C, A, B, **options)
        expected, bound = cases.reference(case, world, dtype, salt)
    cases.check_close(C, expected, bound, f"rank {rank} {operation} {case} {dtype} {salt}")


@pytest.mark.parametrize("operation", OPERATIONS)
@ranks(1, 2, 3, 4)
def test_rows(ctx, operation):
    """Each number of rows with some of the widths and depths, none of which is a whole tile."""
    widths, depths = itertools.cycle((1, 63, 70, 129, 203)), itertools.cycle((1, 40, 65, 7))
    for number, rows in enumerate(ROWS):
        case = cases.Case(rows, next(widths), next(depths), b=("row", "transposed")[number % 2])
        for dtype in HALVES:
            check(ctx, operation, case, dtype, on_heap=number % 3 == 0)


@pytest.mark.parametrize("operation", OPERATIONS)
@ranks(2, 3)
def test_layouts(ctx, operation):
    for case in (*cases.LAYOUTS[:-1], cases.Case(64, 512, 128), cases.Case(5, 300, 264)):
        check(ctx, operation, case, torch.bfloat16)


@pytest.mark.parametrize("operation", OPERATIONS)
@ranks(2, 3)
def test_biases(ctx, operation):
    for case in (*cases.BIASES, cases.Case(1, 9, 4, bias="row"), cases.Case(65, 66, 8, bias="row")):
        for dtype in HALVES:
            check(ctx, operation, case, dtype, on_heap=True)


@ranks(2, 4)
def test_one_workspace_for_all_forms_and_shapes(ctx):
    """Across the wrap of the counter, after which no packet of before may look current."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    check(ctx, "two_hops", cases.Case(90, 140, 20), HALVES[0], workspace=workspace)
    ctx.barrier()
    workspace._set_calls(2**31 - 1 - 10)
    ctx.barrier()
    for turn in range(20):
        case = cases.Case(30 + turn, 140 - 3 * turn, 20)
        operation = ("all_reduce", "two_hops")[turn % 2]
        if turn % 3 < 2:
            check(ctx, operation, case, HALVES[1], salt=str(turn), workspace=workspace)
            continue
        A, B = cases.operands(case, ctx.rank, torch.float32, str(turn))
        C = cases.poisoned(torch.empty(case.M, case.N))
        ctx.ops.matmul_all_reduce(C, A, B, workspace=workspace)
        cases.check_close(C, *cases.reference(case, ctx.world_size, torch.float32, str(turn)))
    assert workspace.call_counter == 10


@ranks(3)
def test_all_ranks_get_the_same_bits_in_every_run(ctx):
    case = cases.Case(24, 200, 300)
    A, B = cases.operands(case, ctx.rank, torch.bfloat16)
    first, again = (torch.empty(24, 200, dtype=torch.bfloat16) for _ in range(2))
    ctx.ops.matmul_all_reduce(first, A, B, config=config("all_reduce"))
    for operation in ("two_hops", "all_reduce", "two_hops"):
        ctx.ops.matmul_all_reduce(cases.poisoned(again), A, B, config=config(operation))
        assert torch.equal(first, again)
    everyone = torch.empty(72, 200, dtype=torch.bfloat16)
    ctx.ccl.all_gather(everyone, first)
    for rank in range(3):
        assert torch.equal(everyone[24 * rank : 24 * (rank + 1)], first)


@ranks(2)
def test_no_columns_of_A(ctx):
    for operation in OPERATIONS:
        check(ctx, operation, cases.Case(6, 10, 0), torch.float16)
        check(ctx, operation, cases.Case(6, 10, 0, bias="row"), torch.bfloat16)


@ranks(2)
def test_the_first_weights_are_loaded_early(ctx):
    """Fewer steps of K than a ring has stages, and more; B's rows contiguous, and its columns."""
    shapes = ((1, 130, 40), (9, 200, 700), (40, 64, 2100), (100, 2100, 72))
    for turn, (M, N, K) in enumerate(shapes * 2):
        case = cases.Case(M, N, K, b=("transposed", "row")[turn // len(shapes)])
        A, B = cases.operands(case, ctx.rank, torch.bfloat16)
        C = cases.poisoned(torch.empty(M, N, dtype=torch.bfloat16))
        if ctx.backend != "cpu":
            torch.cuda.synchronize()  # B has been written
        if turn % 2 == 0:
            early = iris_c.FusedConfig(form="decode", prefetch_b=True)
            ctx.ops.matmul_all_reduce(C, A, B, config=early)
        else:
            assert iris_c.set_prefetch_b(True) is False
            ctx.ops.matmul_all_reduce(C, A, B, config=iris_c.FusedConfig(form="decode"))
            assert iris_c.set_prefetch_b(False) is True
        cases.check_close(C, *cases.reference(case, ctx.world_size, torch.bfloat16))
    with pytest.raises(TypeError, match="prefetch: expected a bool"):
        iris_c.set_prefetch_b(1)
    with pytest.raises(TypeError, match="prefetch_b: expected a bool or None"):
        iris_c.FusedConfig(prefetch_b=1).validate()


@pytest.mark.parametrize("operation", OPERATIONS)
@ranks(2, 3)
def test_nans_travel(ctx, operation):
    """Also those whose bits are all ones, which a packet holds while it is empty."""
    world = ctx.world_size
    for dtype in HALVES:
        A = torch.ones(6, 16, dtype=dtype)
        A.view(torch.int16)[2] = -1
        B, bias = torch.ones(16, 72, dtype=dtype), None
        if not operation.startswith("scatter"):
            bias = torch.zeros(72, dtype=dtype)
            bias.view(torch.int16)[5] = -1
        C = torch.zeros(6 * world if operation == "all_gather" else 6, 72, dtype=dtype)
        expected = torch.full((6, 72), 16.0 * (1 if operation == "all_gather" else world))
        expected[2] = torch.nan
        if bias is not None:
            expected[:, 5] = torch.nan
        if operation == "all_gather":
            ctx.ops.matmul_all_gather(C, A, B, bias=bias, config=config(operation))
            expected = expected.repeat(world, 1)
        elif operation.startswith("scatter"):
            dim = 0 if operation == "scatter_rows" else 1
            C, expected = (x.chunk(world, dim)[ctx.rank].contiguous() for x in (C, expected))
            ctx.ops.matmul_reduce_scatter(C, A, B, dim=dim, config=config(operation))
        else:
            ctx.ops.matmul_all_reduce(C, A, B, bias=bias, config=config(operation))
        torch.testing.assert_close(C.float(), expected, rtol=0, atol=0, equal_nan=True)


@ranks(2)
def test_what_it_is_not_for(ctx):
    def call(rows, dtype=torch.bfloat16, **fields):
        A, B, C = (torch.zeros(s, dtype=dtype) for s in ((rows, 8), (8, 16), (rows, 16)))
        ctx.ops.matmul_all_reduce(C, A, B, config=iris_c.FusedConfig(form="decode", **fields))

    with pytest.raises(ValueError, match=r"^form: expected one that matmul_all_reduce has"):
        call(257)
    with pytest.raises(ValueError, match=r"^form: expected one that matmul_all_reduce has"):
        call(4, torch.float32)
    for variant in ("one_shot", "ring", "atomic"):
        with pytest.raises(ValueError, match=r"^all_reduce_variant: expected None in the form"):
            call(4, all_reduce_variant=variant)
    call(256)


@ranks(2)
def test_hops_belong_to_sums(ctx):
    A, B, C = (torch.zeros(s, dtype=torch.float16) for s in ((4, 8), (8, 16), (8, 16)))
    with pytest.raises(ValueError, match="expected 'll' for matmul_all_gather"):
        ctx.ops.matmul_all_gather(C, A, B, config=config("two_hops"))


@pytest.mark.parametrize("operation", ["all_reduce", "two_hops"])
@ranks(3, timeout=2.0)
def test_a_peer_that_does_not_come_ends_the_wait(ctx, operation):
    case = cases.Case(9, 130, 30)
    check(ctx, operation, case, torch.bfloat16)
    if ctx.rank == 2:
        return
    A, B = cases.operands(case, ctx.rank, torch.bfloat16)
    C = torch.empty(9, 130, dtype=torch.bfloat16)
    with pytest.raises((iris_c.SignalTimeout, iris_c.PeerError), match="matmul_all_reduce"):
        ctx.ops.matmul_all_reduce(C, A, B, config=config(operation))
