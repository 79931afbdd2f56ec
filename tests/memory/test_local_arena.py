# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The local arena: memory of the heap that a rank allocates without its peers, and frees alone."""

import gc
import os
import random
import threading

import pytest
import torch

import iris_c
from iris_c.environment import default_local_size
from iris_c.testing import ranks, run_ranks

LOCAL = 1 << 20


@pytest.fixture
def ctx():
    with iris_c.Context(heap_size=LOCAL, local_size=LOCAL, backend="cpu") as made:
        yield made


def test_memory_is_reachable_and_not_symmetric(ctx):
    x = ctx.local_empty(3, 5, dtype=torch.bfloat16)
    assert x.shape == (3, 5)
    assert x.dtype == torch.bfloat16
    assert x.device == ctx.device
    assert ctx.is_reachable(x)
    assert not ctx.is_symmetric(x)
    assert x.data_ptr() % 512 == 0
    heap = ctx.empty(3)
    assert ctx.is_reachable(heap)
    assert ctx.is_symmetric(heap)
    assert not ctx.is_reachable(torch.empty(3))
    assert not ctx.is_symmetric(torch.empty(3))
    assert ctx.local_used == 512
    assert ctx.local_size == LOCAL
    buffer = ctx.allocate_local((2, 3), "float32")
    assert buffer.shape == (2, 3)
    assert ctx.is_reachable(buffer)
    assert not ctx.is_symmetric(buffer)
    assert buffer.offset > heap.data_ptr() - ctx.get_heap_bases()[0].item()


def test_freed_memory_is_used_again(ctx):
    x = ctx.local_empty(1000)
    address = x.data_ptr()
    view = x[10:20]
    del x
    assert ctx.local_used == 4096  # the view keeps it
    assert ctx.local_empty(1000).data_ptr() != address
    del view
    assert ctx.local_used == 0
    assert ctx.local_empty(1000).data_ptr() == address


def test_ranges_join(ctx):
    """Whatever the order in which they are freed, all of the arena can be taken at once again."""
    generator = random.Random(3)
    for _ in range(20):
        tensors = [ctx.local_empty(generator.randrange(1, 9000)) for _ in range(20)]
        generator.shuffle(tensors)
        while tensors:
            tensors.pop()
        assert ctx.local_used == 0
        assert ctx.local_empty(LOCAL, dtype=torch.uint8).numel() == LOCAL


def test_no_two_tensors_share_memory(ctx):
    generator, tensors = random.Random(5), {}
    for number in range(300):
        if tensors and generator.random() < 0.4:
            tensors.pop(generator.choice(list(tensors)))
        size = generator.randrange(0, 2000)
        tensors[number] = ctx.local_empty(size, dtype=torch.int32).fill_(number)
        if len(tensors) > 40:
            tensors.pop(next(iter(tensors)))
    for number, tensor in tensors.items():
        assert (tensor == number).all(), number


def test_exhaustion_says_what_to_do(ctx):
    held = ctx.local_empty(LOCAL // 2, dtype=torch.uint8)
    with pytest.raises(iris_c.HeapExhausted, match=r"local arena: .*raise local_size") as caught:
        ctx.local_empty(LOCAL, dtype=torch.uint8)
    error = caught.value
    assert (error.asked, error.free, error.heap_size) == (LOCAL, LOCAL // 2, LOCAL)
    with iris_c.Context(heap_size=LOCAL, local_size=error.needed, backend="cpu") as larger:
        first = larger.local_empty(LOCAL // 2, dtype=torch.uint8)
        second = larger.local_empty(LOCAL, dtype=torch.uint8)
        assert first.numel() + second.numel() == LOCAL * 3 // 2
    assert held.numel() == LOCAL // 2
    assert ctx.local_used == LOCAL // 2
    assert ctx.heap_used == 0  # the arena is apart from the heap


def test_there_may_be_no_arena():
    with iris_c.Context(heap_size=LOCAL, backend="cpu") as ctx:
        assert ctx.local_size == 0
        with pytest.raises(iris_c.HeapExhausted, match="local arena"):
            ctx.local_empty(1)


def test_default_size(monkeypatch):
    monkeypatch.delenv("IRIS_C_LOCAL_SIZE", raising=False)
    assert default_local_size(1 << 20) == 1 << 19
    assert default_local_size(1 << 40) == 2 << 30
    with iris_c.init(heap_size=1 << 20, backend="cpu", rank=0, world_size=1) as ctx:
        assert ctx.local_size == 1 << 19
        assert ctx.group([0], heap_size=1 << 19).local_size == 1 << 18
    monkeypatch.setenv("IRIS_C_LOCAL_SIZE", "8192")
    with iris_c.init(heap_size=1 << 20, backend="cpu", rank=0, world_size=1) as ctx:
        assert ctx.local_size == 8192
    with iris_c.init(1 << 20, "cpu", 0, 1, local_size=5000) as ctx:
        assert ctx.local_size == 8192  # whole pages
    monkeypatch.setenv("IRIS_C_LOCAL_SIZE", "much")
    with pytest.raises(ValueError, match="IRIS_C_LOCAL_SIZE"):
        iris_c.init(heap_size=1 << 20, backend="cpu", rank=0, world_size=1)


@pytest.mark.parametrize("size", [-1, 1 << 50])
def test_sizes_that_are_refused(size):
    with pytest.raises(ValueError, match=f"local_size: expected .*got {size}"):
        iris_c.Context(heap_size=LOCAL, local_size=size, backend="cpu")
    with pytest.raises(TypeError, match="local_size"):
        iris_c.Context(heap_size=LOCAL, local_size="1", backend="cpu")


def test_a_groups_arena_is_asked_for_once(ctx):
    group = ctx.group([0], heap_size=1 << 19, local_size=4096)
    assert group.local_size == 4096
    assert ctx.group([0]) is group
    with pytest.raises(ValueError, match="local_size: expected 4096, which the group has, got 8"):
        ctx.group([0], local_size=8)


def test_memory_outlives_the_context():
    ctx = iris_c.Context(heap_size=LOCAL, local_size=LOCAL, backend="cpu")
    x = ctx.local_empty(100).fill_(3)
    ctx.close()
    with pytest.raises(RuntimeError, match="closed"):
        ctx.local_empty(1)
    del ctx
    gc.collect()
    assert (x.fill_(4) == 4).all()


def test_threads(ctx):
    """Allocate and free beside each other: nobody gets another one's memory."""
    errors = []

    def work(number):
        generator = random.Random(number)
        try:
            for _ in range(300):
                x = ctx.local_empty(generator.randrange(1, 500), dtype=torch.int32).fill_(number)
                assert (x == number).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert ctx.local_used == 0


def differ():
    size = 4096 * (1 + int(os.environ["RANK"]))
    with pytest.raises(ValueError, match="local_size: expected the same on all ranks, got 4096 on"):
        iris_c.init(heap_size=LOCAL, local_size=size)


def test_ranks_have_arenas_of_one_size():
    run_ranks(differ, 2)


@ranks(2, heap_size=LOCAL)
def test_what_takes_equal_offsets_refuses_it(ctx):
    """Peers write results there, but no rank can name it on another."""
    x = ctx.local_empty(4).fill_(ctx.rank)
    word = ctx.local_empty(1, dtype=torch.int32).fill_(0)
    y, peer = torch.zeros(4), 1 - ctx.rank
    refused = "expected a tensor in the context's symmetric heap.*local arena"
    for call in (
        lambda: ctx.put(x, y, peer),
        lambda: ctx.get(y, x, peer),
        lambda: ctx.signal(word, peer),
        lambda: ctx.wait(word, 0),
    ):
        with pytest.raises(ValueError, match=refused):
            call()
    # As ordinary memory it serves.
    heap = ctx.zeros(4)
    ctx.barrier()
    ctx.put(heap, x, peer)
    ctx.barrier()
    assert (heap == peer).all()
    ctx.get(x, heap, peer)
    assert (x == ctx.rank).all()
    assert ctx.is_symmetric(ctx.as_symmetric(x))
    ctx.barrier()
