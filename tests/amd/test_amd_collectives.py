# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The collectives by the shipped code objects on emulated GPUs, memory plain and adversarial."""

import cases
import dtypes
import machine
import pytest
import torch

import iris_c

SIZES = [1, 7, 255, 4099]
MOVABLE = [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.complex64]
BEHAVIOURS = {
    "plain": {"adversarial": 0},
    "adversarial": {"adversarial": 1, "order": "random", "seed": 3},
}


class Exchange:
    """Allocates, calls and reads back on one rank."""

    def __init__(self, ctx, memory):
        self.ctx, self.memory = ctx, memory

    def tensor(self, n, dtype, on_heap):
        place = self.memory.heap if on_heap else self.memory.ordinary
        tensor = place(n, dtype=dtype)
        tensor.view(torch.uint8).fill_(0x55)
        return tensor

    def mine(self, n, dtype, on_heap):
        values = cases.contribution(self.ctx.rank, n, dtype)
        return self.tensor(n, dtype, on_heap).copy_(values)

    def call(self, name, *tensors, **options):
        getattr(self.ctx.ccl, name)(*(self.memory.passed(t) for t in tensors), **options)
        assert self.memory.library.hipDeviceSynchronize() == 0

    def done(self):
        self.ctx.barrier()
        self.memory.release()


def sums(ctx, memory, sizes=SIZES, reducible=cases.REDUCIBLE):
    exchange, world = Exchange(ctx, memory), ctx.world_size
    for number, n in enumerate(sizes):
        for turn, dtype in enumerate(reducible):
            for variant in cases.ALL_REDUCE_VARIANTS:
                op = cases.REDUCTIONS[(turn + number + len(variant)) % len(cases.REDUCTIONS)]
                if not cases.reduces(variant, op, dtype):
                    continue
                output = exchange.tensor(n, dtype, number % 2 == 0)
                given = exchange.tensor(n, dtype, number % 3 == 0)
                given.copy_(cases.reduced_input(ctx.rank, n, dtype))
                config = iris_c.ccl.Config(all_reduce_variant=variant)
                exchange.call("all_reduce", output, given, op=op, config=config)
                cases.check_reduction(output, world, op, f"{variant} {n} {dtype} {op}")
                exchange.done()
        for dtype in (dtype for dtype in reducible if dtype in cases.DTYPES):
            output = exchange.tensor(n, dtype, number % 2 == 1)
            given = exchange.tensor(n, dtype, False).copy_(cases.reduced_input(ctx.rank, n, dtype))
            exchange.call("reduce", output, given, dst=world - 1)
            if ctx.rank == world - 1:
                cases.check_reduction(output, world, "sum", f"reduce {n} {dtype}")
            output = exchange.tensor(n, dtype, number % 2 == 1)
            exchange.call("reduce_scatter", output, exchange.mine(n * world, dtype, False))
            expected, bound = cases.sums(world, n * world, dtype)
            mine = slice(ctx.rank * n, (ctx.rank + 1) * n)
            cases.check_close(output[None], expected[:, mine], bound[:, mine], f"{n} {dtype}")
            exchange.done()


def moves(ctx, memory, sizes=SIZES, movable=MOVABLE):
    exchange, world = Exchange(ctx, memory), ctx.world_size
    for number, n in enumerate(sizes):
        for dtype in movable:
            for variant in ("ll", "two_shot"):
                gathered = exchange.tensor(n * world, dtype, number % 2 == 0)
                given = exchange.mine(n, dtype, number % 3 == 0)
                config = iris_c.ccl.Config(all_reduce_variant=variant)
                exchange.call("all_gather", gathered, given, config=config)
                for rank in range(world):
                    theirs = cases.contribution(rank, n, dtype)
                    assert torch.equal(gathered.view(world, n)[rank], theirs), (variant, n, dtype)
            swapped = exchange.tensor(n * world, dtype, number % 2 == 1)
            exchange.call("all_to_all", swapped, exchange.mine(n * world, dtype, False))
            part = exchange.tensor(n, dtype, number % 3 == 1)
            exchange.call("scatter", part, exchange.mine(n * world, dtype, False), src=world - 1)
            whole = exchange.tensor(n * world, dtype, number % 2 == 0)
            exchange.call("gather", whole, exchange.mine(n, dtype, number % 2 == 1), dst=world - 1)
            told = exchange.mine(n, dtype, number % 2 == 0)
            exchange.call("broadcast", told, src=world - 1)
            for rank in range(world):
                theirs = cases.contribution(rank, n * world, dtype).view(world, n)
                assert torch.equal(swapped.view(world, n)[rank], theirs[ctx.rank])
            dealt = cases.contribution(world - 1, n * world, dtype).view(world, n)
            assert torch.equal(part, dealt[ctx.rank])
            assert torch.equal(whole, gathered) or ctx.rank != world - 1
            assert torch.equal(told, cases.contribution(world - 1, n, dtype))
            exchange.done()


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_sums(emulated, arch, behaviour):
    emulated(arch, **BEHAVIOURS[behaviour]).run(sums, 3)


def rare_sums(ctx, memory):
    """Of the dtypes that have one variant: float64, bytes, bool by the kernel of bytes."""
    exchange, world = Exchange(ctx, memory), ctx.world_size
    for number, n in enumerate(SIZES):
        for turn, dtype in enumerate(dtypes.RARE):
            op = cases.REDUCTIONS[(number + turn) % len(cases.REDUCTIONS)]
            op = "sum" if (op, dtype) == ("avg", torch.bool) else op
            output = exchange.tensor(n, dtype, number % 2 == 0)
            given = exchange.tensor(n, dtype, number % 3 == 0)
            given.copy_(dtypes.values(ctx.rank, n, dtype, number))
            exchange.call("all_reduce", output, given, op=op)
            dtypes.check(output, world, dtype, op, number, f"{n}")
            part = exchange.tensor(n, dtype, number % 2 == 1)
            whole = exchange.tensor(n * world, dtype, False)
            whole.copy_(dtypes.values(ctx.rank, n * world, dtype, number))
            exchange.call("reduce_scatter", part, whole, op=op)
            mine = slice(ctx.rank * n, (ctx.rank + 1) * n)
            expected, bound = dtypes.reference(world, n * world, dtype, op, number)
            error = (part.double() - expected[mine].double()).abs()
            assert bool((error <= bound[mine]).all()), f"reduce_scatter {n} {dtype} {op}"
            exchange.done()


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_rare_sums(emulated, arch, behaviour):
    emulated(arch, **BEHAVIOURS[behaviour]).run(rare_sums, 3)


def gathers(ctx, memory):
    """In both variants, sizes in turn on one workspace, across the wrap of the counter: odd bytes,
    none, in place, with nothing written beside the output."""
    world, rank = ctx.world_size, ctx.rank
    workspace = iris_c.FusedWorkspace(ctx, "all_gather")
    sizes = (5000, 0, 1, 9, 777, 64, 5000, 8)
    for turn in range(3 * len(sizes)):
        n, shift = sizes[turn % len(sizes)], turn % 5
        place = memory.heap if turn % 2 else memory.ordinary
        around = place(world * n + 16, dtype=torch.uint8).fill_(0x55)
        output = around[shift : shift + world * n]
        given = output[rank * n : (rank + 1) * n]
        if turn % 3:
            given = memory.ordinary(n + 3, dtype=torch.uint8)[turn % 3 : turn % 3 + n]
        given.copy_(cases.bytes_of(rank, n, turn))
        config = iris_c.ccl.Config(all_reduce_variant=("ll", "ll", "two_shot")[turn % 3])
        ctx.ccl.all_gather(
            *(memory.passed(t) for t in (output, given)), config=config, workspace=workspace
        )
        assert memory.library.hipDeviceSynchronize() == 0
        for source in range(world):
            theirs = cases.bytes_of(source, n, turn)
            assert torch.equal(output[source * n : (source + 1) * n], theirs), (turn, n, source)
        beside = torch.cat([around[:shift], around[shift + world * n :]])
        assert bool((beside == 0x55).all()), (turn, n)
        ctx.barrier()
        memory.release()
        if turn == 6:
            workspace._set_calls(2**31 - 1 - 5)
            ctx.barrier()
    assert workspace.call_counter == 3 * len(sizes) - 7 - 5


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_gathers(emulated, arch, behaviour):
    emulated(arch, **BEHAVIOURS[behaviour]).run(gathers, 2)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_moves(emulated, arch, behaviour):
    emulated(arch, **BEHAVIOURS[behaviour]).run(moves, 3)
