# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""ccl.all_reduce: every variant, reduction and dtype, and what several calls do to each other."""

import random
import time

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks, seed_of

INT32_MAX = 2**31 - 1
SIZES = [0, 1, 7, 255, 4099, 70001]


def config(variant):
    return iris_c.ccl.Config(all_reduce_variant=variant)


class Reduction:
    """One rank's tensors of a call; ``shift`` elements off alignment, on the heap or off it."""

    def __init__(self, ctx, n, dtype, on_heap=True, shift=0):
        def place():
            size = n + shift
            whole = ctx.empty(size, dtype=dtype) if on_heap else torch.empty(size, dtype=dtype)
            return whole[shift:]

        self.ctx, self.n, self.dtype = ctx, n, dtype
        self.output, self.input = place(), place()

    def run(self, variant, op="sum", workspace=None, salt=0):
        self.input.copy_(cases.reduced_input(self.ctx.rank, self.n, self.dtype, salt))
        self.output.view(torch.uint8).fill_(0x7F)
        self.ctx.ccl.all_reduce(
            self.output, self.input, op=op, config=config(variant), workspace=workspace
        )

    def check(self, variant, op="sum", salt=0):
        what = f"rank {self.ctx.rank} {variant} {self.dtype} {self.n} {op} {salt}"
        cases.check_reduction(self.output, self.ctx.world_size, op, what, salt)


@pytest.mark.parametrize("variant", [*cases.ALL_REDUCE_VARIANTS, None])
@ranks(1, 2, 3, 4, deadline=120)
def test_matches_the_reference(ctx, variant):
    for number, n in enumerate(SIZES):
        for dtype in cases.REDUCIBLE:
            reduction = Reduction(ctx, n, dtype, on_heap=number % 2 == 0, shift=number % 3)
            for op in cases.REDUCTIONS:
                if cases.reduces(variant, op, dtype):
                    reduction.run(variant, op)
                    reduction.check(variant, op)


@ranks(8, deadline=120)
def test_eight_ranks(ctx):
    for variant in cases.ALL_REDUCE_VARIANTS:
        reduction = Reduction(ctx, 4099, torch.bfloat16)
        reduction.run(variant)
        reduction.check(variant)


def check_large(ctx, nbytes, variant, dtype, op):
    """``nbytes`` and an element, off the heap, off alignment."""
    n = nbytes // dtype.itemsize + 1
    part = cases.reduced_input(ctx.rank, cases.PERIOD, dtype)
    given, output = torch.empty(n + 1, dtype=dtype)[1:], torch.empty(n + 1, dtype=dtype)[1:]
    given.copy_(cases.repeated(part, n))
    output.view(torch.uint8).fill_(0x7F)
    ctx.ccl.all_reduce(output, given, op=op, config=config(variant))
    what = f"rank {ctx.rank} {variant} {dtype} {nbytes} {op}"
    cases.check_repeated_reduction(output, ctx.world_size, op, what)


@pytest.mark.parametrize("variant", [*cases.ALL_REDUCE_VARIANTS, None])
@ranks(2, 3, 8, deadline=120, heap_size=1 << 29)
def test_a_megabyte(ctx, variant):
    for number, dtype in enumerate(cases.REDUCIBLE):
        op = cases.REDUCTIONS[number]
        if cases.reduces(variant, op, dtype):
            check_large(ctx, 1 << 20, variant, dtype, op)


@ranks(2, deadline=120, heap_size=1 << 30)
def test_large_and_odd(ctx):
    """33 MiB and an element in every variant, the dtypes in turn."""
    for number, variant in enumerate((*cases.ALL_REDUCE_VARIANTS, None)):
        dtype = cases.REDUCIBLE[number % 5]
        if cases.reduces(variant, "sum", dtype):
            check_large(ctx, 33 << 20, variant, dtype, "sum")


@pytest.mark.parametrize("variant", cases.ALL_REDUCE_VARIANTS)
@ranks(2, 3)
def test_same_bits_on_all_ranks(ctx, variant):
    """But of those that add in the order of arrival."""
    if variant in ("atomic", "spinlock"):
        return
    reduction = Reduction(ctx, 5000, torch.float16)
    reduction.run(variant)
    all_ranks = ctx.empty(ctx.world_size * 5000, dtype=torch.float16)
    ctx.ccl.all_gather(all_ranks, reduction.output)
    for other in all_ranks.view(ctx.world_size, -1):
        assert torch.equal(other, reduction.output)


@pytest.mark.parametrize("variant", ["ll", "ll_two_shot", "one_shot", "two_shot", "ring"])
@ranks(2, 3)
def test_nan_and_infinity_go_through(ctx, variant):
    for dtype in cases.DTYPES:
        n = 4 * 512
        given, output = torch.ones(n, dtype=dtype), ctx.empty(n, dtype=dtype)
        if ctx.rank == 1:
            given[0], given[1], given[2] = float("nan"), float("inf"), -float("inf")
        for op in cases.REDUCTIONS:
            output.fill_(7.0)  # NaN is a right result here
            ctx.barrier()
            ctx.ccl.all_reduce(output, given, op=op, config=config(variant))
            assert output[0].isnan(), f"{op} {dtype}"
            assert output[1] == (1.0 if op == "min" else float("inf")), f"{op} {dtype}"
            assert output[2] == (1.0 if op == "max" else -float("inf")), f"{op} {dtype}"
            assert output[3] == (ctx.world_size if op == "sum" else 1.0), f"{op} {dtype}"


@ranks(2, 3)
def test_words_that_look_empty_go_through(ctx):
    """NaNs all of whose bits are ones, from one rank, from all, and in every place of a word."""
    device = ctx.empty(0).device
    for dtype, size in ((torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 2)):
        for senders in ([1], list(range(ctx.world_size))):
            n = 64 * ctx.world_size * 3
            given = torch.ones(n, dtype=dtype, device="cpu")
            ones = torch.arange(n, device="cpu") % 7 < 4
            if ctx.rank in senders:
                given.view(torch.uint8).view(n, size)[ones] = 255
            given, ones = given.to(device), ones.to(device)
            for _ in range(3):
                for variant in ("ll", "ll_two_shot"):
                    output = ctx.empty(n, dtype=dtype)
                    ctx.ccl.all_reduce(output, given, config=config(variant))
                    assert torch.equal(output.isnan(), ones), f"{variant} {dtype}"
                    assert (output[~ones] == ctx.world_size).all(), f"{variant} {dtype}"
                part = ctx.empty(n // ctx.world_size, dtype=dtype)
                ctx.ccl.reduce_scatter(part, given, config=config("ll"))
                assert torch.equal(part.isnan(), ones.view(ctx.world_size, -1)[ctx.rank])


@ranks(1, 2, 4)
def test_in_place(ctx):
    """Of itself where nothing is asked for, and refused where it cannot be."""
    for n in (1, 5000):
        for variant in (None, "ll", "ll_two_shot", "two_shot", "ring", "atomic", "spinlock"):
            tensor = cases.reduced_input(ctx.rank, n, torch.float32).to(ctx.empty(0).device)
            ctx.ccl.all_reduce(tensor, tensor, config=config(variant))
            cases.check_reduction(tensor, ctx.world_size, "sum", f"{variant} {n}")
    big = torch.zeros(5000)
    for variant in ("one_shot", "one_shot_legacy"):
        with pytest.raises(ValueError, match=f"memory apart from input's in the .* '{variant}'"):
            ctx.ccl.all_reduce(big, big, config=config(variant))
    for variant in (*cases.ALL_REDUCE_VARIANTS, None):  # neither apart nor the same
        for output, given in ((big[1:], big[:-1]), (big[:-1], big[1:])):
            with pytest.raises(ValueError, match="output: expected memory apart from input's"):
                ctx.ccl.all_reduce(output, given, config=config(variant))


@ranks(2, 3)
def test_ranks_with_another_reduction_are_told(ctx):
    output, given = ctx.empty(100), torch.ones(100)
    with pytest.raises(ValueError, match="op=max"):
        ctx.ccl.all_reduce(output, given, op="max" if ctx.rank == 0 else "sum")
    ctx.ccl.all_reduce(output, given)
    assert torch.equal(output, torch.full((100,), float(ctx.world_size)))


@ranks(2)
def test_torch_names_of_reductions(ctx):
    from torch.distributed import ReduceOp

    output, given = ctx.empty(3), torch.full((3,), ctx.rank + 1.0)
    for op, expected in ((ReduceOp.SUM, 3), (ReduceOp.PRODUCT, 2), (ReduceOp.MAX, 2),
                         (ReduceOp.MIN, 1), (ReduceOp.AVG, 1.5), ("MAX", 2)):  # fmt: skip
        cases.poisoned(output)
        ctx.barrier()
        ctx.ccl.all_reduce(output, given, op=op)
        assert output.tolist() == [expected] * 3


@ranks(1, 2, 3, deadline=120)
def test_the_counter_wraps(ctx):
    """Variants in turn on one workspace, from INT32_MAX to 1."""
    variants = ("ll", "ll_two_shot", "one_shot", "two_shot", "ring", "atomic", "spinlock")
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    reductions = [Reduction(ctx, n, torch.float32) for n in (3000, 17, 999)]
    for variant in variants:
        reductions[0].run(variant, workspace=workspace)
    ctx.barrier()
    workspace._set_calls(INT32_MAX - 12)
    ctx.barrier()
    counters = []
    for call in range(40):
        variant, reduction = variants[call * 3 % 7], reductions[call % 3]
        reduction.run(variant, workspace=workspace, salt=call)
        reduction.check(variant, salt=call)
        counters.append(workspace.call_counter)
    assert counters == [*range(INT32_MAX - 11, INT32_MAX + 1), *range(1, 29)]


@ranks(2, 3)
def test_no_word_of_an_earlier_period_looks_current(ctx):
    """The words that ll does not write hold the very value that is waited for, of a period ago."""
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    two_shot, ll = Reduction(ctx, 4000, torch.float32), Reduction(ctx, 30, torch.float32)
    for variant, reduction in (("ll", ll), ("two_shot", two_shot)):
        ctx.ccl.all_reduce_preamble(
            reduction.output, reduction.input, config=config(variant), workspace=workspace
        )
    for start in (0, INT32_MAX - 3):
        ctx.barrier()
        workspace._set_calls(start)
        ctx.barrier()
        for salt in range(9 if start else 5):
            value = start + salt + 1 if start + salt < INT32_MAX else start + salt + 1 - INT32_MAX
            if value != 5:
                ll.run("ll", workspace=workspace, salt=salt)
                ll.check("ll", salt=salt)
                continue
            ctx.barrier()
            if ctx.rank == 1:  # who does not wait for it now, writes before it has begun
                time.sleep(0.2)
            two_shot.run("two_shot", workspace=workspace, salt=salt)
            two_shot.check("two_shot", salt=salt)
    assert workspace.call_counter == 6


@ranks(2, 3, 4, deadline=120)
def test_random_interleavings(ctx):
    """Sizes, variants, dtypes and reductions in turn on workspaces of two contexts."""
    seed = seed_of(f"all_reduce {ctx.world_size}")
    print(f"seed {seed}")
    chance = random.Random(seed)
    with iris_c.init(ctx.heap_size, ctx.backend, ctx.rank, ctx.world_size) as other:
        workspaces = [
            (context, workspace)
            for context in (ctx, other)
            for workspace in (None, iris_c.FusedWorkspace(context, "all_reduce"))
        ]
        for call in range(200):
            variant = chance.choice(cases.ALL_REDUCE_VARIANTS)
            dtype, op = chance.choice(cases.REDUCIBLE), chance.choice(cases.REDUCTIONS)
            n = int(10 ** chance.uniform(0, 4.5))
            context, workspace = chance.choice(workspaces)
            if not cases.reduces(variant, op, dtype):
                continue
            on_heap = chance.random() < 0.5
            reduction = Reduction(context, n, dtype, on_heap=on_heap, shift=call % 4)
            reduction.run(variant, op, workspace, call)
            reduction.check(variant, op, call)
        other.barrier()
