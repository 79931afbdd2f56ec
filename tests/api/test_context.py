# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Contexts and the heap over several ranks."""

import gc
import os
import random

import numpy
import pytest
import torch

import iris_c
from iris_c.testing import ranks, run_ranks, seed_of


@ranks(1, 2, 4)
def test_facts(ctx):
    assert ctx.get_rank() == ctx.rank == int(os.environ["RANK"])
    assert ctx.get_num_ranks() == ctx.world_size == int(os.environ["WORLD_SIZE"])
    assert ctx.backend == os.environ.get("IRIS_C_BACKEND", "cpu")
    assert ctx.get_cu_count() >= 1
    assert len(ctx.get_heap_bases()) == ctx.world_size
    assert f"rank={ctx.rank}" in repr(ctx)


@ranks(2, 3)
def test_heap_bases_reach_every_rank(ctx):
    """A rank's own address, moved to a peer's base, is the same tensor there."""
    mine = ctx.full((64,), float(ctx.rank + 1))
    ctx.barrier()
    bases = ctx.get_heap_bases().tolist()
    offset = mine.data_ptr() - bases[ctx.rank]
    import ctypes

    for peer in range(ctx.world_size):
        values = (ctypes.c_float * 64).from_address(bases[peer] + offset)
        assert list(values) == [peer + 1.0] * 64
    ctx.barrier()


@ranks(2, 3)
def test_same_offsets_whatever_is_freed_when(ctx):
    """Ranks free in different orders and at different times; offsets stay equal, nothing overlaps,
    and in the end every byte is back."""
    shared, own = random.Random(seed_of("heap")), random.Random(ctx.rank)
    empty = ctx.heap_used
    base = int(ctx.get_heap_bases()[ctx.rank])
    live, doomed = {}, []
    for step in range(300):
        size = shared.choice([0, 1, 100, 256, 257, 5000, 100_000])
        tensor = ctx.empty(size, dtype=torch.uint8)
        if size:
            offset = tensor.data_ptr() - base
            assert offset % 256 == 0
            agreed = torch.tensor([offset])
            gathered = torch.empty(ctx.world_size, dtype=torch.int64)
            ctx.ccl.all_gather(gathered, agreed)
            assert gathered.tolist() == [offset] * ctx.world_size
            tensor.fill_(step % 251)
        live[step] = tensor
        if len(live) > 20:
            doomed.append(live.pop(shared.choice(list(live))))
        while doomed and own.random() < 0.3:
            doomed.pop(own.randrange(len(doomed)))
        for number, other in live.items():
            assert bool((other == number % 251).all())
    del tensor, other
    live.clear()
    doomed.clear()
    gc.collect()
    workspaces = ctx.heap_used - empty
    ctx.barrier()
    whole = ctx.heap_size - workspaces - (1 << 20)
    big = ctx.empty(whole, dtype=torch.uint8)  # coalesced again
    assert big.numel() == whole


@ranks(2)
def test_symmetric(ctx):
    on, off = ctx.zeros(10), torch.arange(10.0)
    assert ctx.is_symmetric(on)
    assert ctx.is_symmetric(on[3:])
    assert not ctx.is_symmetric(off)
    copy = ctx.as_symmetric(off)
    assert ctx.is_symmetric(copy)
    assert torch.equal(copy, off)


@ranks(2)
def test_tensors_outlive_the_context(ctx):
    tensor = ctx.arange(1000)
    ctx.close()
    ctx.close()
    assert ctx.closed
    assert torch.equal(tensor, torch.arange(1000))
    tensor.add_(1)
    for call in (
        lambda: ctx.empty(3),
        lambda: ctx.barrier(),
        lambda: ctx.device_barrier(),
        lambda: ctx.ccl.all_reduce(torch.zeros(2), torch.zeros(2)),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            call()


@ranks(2)
def test_two_contexts_side_by_side(ctx):
    with iris_c.init(heap_size=1 << 20) as other:
        for turn in range(20):
            first, second = (ctx, other) if turn % 2 else (other, ctx)
            x, y = first.ones(100), second.full((100,), 2.0)
            first.ccl.all_reduce(x, x.clone())
            second.ccl.all_reduce(y, y.clone())
            assert float(x.sum()) == 200
            assert float(y.sum()) == 400
    ctx.barrier()


def come_and_go(times):
    for turn in range(times):
        with iris_c.init(heap_size=1 << 20) as ctx:
            x = ctx.full((10,), float(ctx.rank + turn))
            out = torch.empty(10)
            ctx.ccl.all_reduce(out, x)
            assert out[0] == ctx.world_size * turn + sum(range(ctx.world_size))
            ctx.barrier()
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def test_contexts_come_and_go():
    few = run_ranks(come_and_go, 2, 3)
    many = run_ranks(come_and_go, 2, 200, deadline=120)
    assert few == many, "file descriptors or threads pile up"


def fork_inside(ctx):
    tensor = ctx.ones(10)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ctx.barrier()
        except RuntimeError as error:
            code = 0 if "parent" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    ctx.barrier()
    ctx.ccl.all_reduce(tensor, tensor.clone())
    assert float(tensor.sum()) == 20


def test_a_forked_child_is_told():
    run_ranks(fork_inside, 2, init={"heap_size": 1 << 20})


def threads_after_a_product():
    """How many this process has."""
    for square in (numpy.ones((512, 512)), torch.ones(512, 512)):
        assert (square @ square)[0, 0] == 512
    return len(os.listdir("/proc/self/task"))


def test_a_ranks_libraries_use_one_thread():
    """Ranks share the cores: more threads would spin while they wait for each other."""
    assert run_ranks(threads_after_a_product, 2) == [1, 1]


@ranks(2)
def test_creation(ctx):
    assert torch.equal(ctx.ones(2, 3), torch.ones(2, 3))
    assert torch.equal(ctx.full((2, 2), 7), torch.full((2, 2), 7))
    assert torch.equal(ctx.arange(2, 11, 3), torch.arange(2, 11, 3))
    assert torch.equal(ctx.linspace(0, 1, 5), torch.linspace(0, 1, 5))
    assert ctx.zeros((2, 3), dtype=torch.bfloat16).dtype == torch.bfloat16
    assert ctx.empty(0).numel() == 0
    for make in (ctx.rand, ctx.randn, ctx.uniform):
        tensor = make(1000)
        assert tensor.std() > 0.1
        assert ctx.is_symmetric(tensor)
    integers = ctx.randint(3, 6, (1000,))
    assert set(integers.tolist()) == {3, 4, 5}
