# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Which pool of torch's allocator results are taken from, on a double of torch.cuda; what torch
makes of it is tested on GPUs, in test_arena_on_gpus.py."""

import gc
import types
import weakref

import pytest
import torch

from iris_c import pools


class Pool:
    count = 0

    def __init__(self, allocator):
        self.allocator = allocator
        Pool.count += 1
        self.id = (0, Pool.count)


class Context:
    """What Pools asks of a context."""

    device_id, local_size = 0, 1 << 30

    def __init__(self):
        self.capture, self._local_room, self.ended = 0, 1 << 30, set()

    def _pool(self):
        return 5

    def _capture(self):
        return self.capture

    def _watch_capture(self):
        capture = self.capture
        return lambda: capture in self.ended


@pytest.fixture
def cuda(monkeypatch):
    """The pools that are active, in order; `taken`: where tensors came from; `blocks`: of pools."""
    double = types.SimpleNamespace(active=[], taken=[], blocks=[], full=False)

    def begin(device, pool):
        if pool in double.active:
            raise RuntimeError("already recording to mempool_id")
        double.active.append(pool)

    def allocator(path, allocate, free):
        assert (allocate, free) == ("iris_c_pool_allocate_5", "iris_c_pool_free")
        return types.SimpleNamespace(allocator=lambda: path)

    def empty(*args, **kwargs):
        if double.full and double.active:
            raise torch.OutOfMemoryError
        double.taken.append(double.active[-1] if double.active else None)
        return "tensor"

    stream = types.SimpleNamespace(cuda_stream=7)
    for target, name, value in (
        (torch._C, "_cuda_beginAllocateCurrentThreadToPool", begin),
        (torch._C, "_cuda_endAllocateToPool", lambda device, pool: double.active.remove(pool)),
        (torch._C, "_cuda_releasePool", lambda device, pool: None),
        (torch.cuda, "MemPool", Pool),
        (torch.cuda.memory, "CUDAPluggableAllocator", allocator),
        (torch.cuda, "device", lambda index: pools.contextlib.nullcontext()),
        (torch.cuda, "current_stream", lambda device: stream),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch.cuda, "memory_snapshot", lambda pool: double.blocks),
        (torch, "empty", empty),
    ):
        monkeypatch.setattr(target, name, value, raising=False)
    monkeypatch.setattr(pools, "_allocators", {})
    yield double
    gc.collect()  # pools that exceptions kept go while the double is there
    pools._unneeded.clear()


LIKE = types.SimpleNamespace(element_size=lambda: 4, new_empty=lambda shape: torch.empty(shape))


def take(made, ctx, n=1000):
    made.empty(ctx, (n,), LIKE)


def test_results_share_a_pool_and_each_capture_has_its_own(cuda):
    ctx = Context()
    made = pools.Pools(ctx)
    take(made, ctx)
    take(made, ctx)
    ctx.capture = 11
    take(made, ctx)
    take(made, ctx)
    ctx.capture = 12
    take(made, ctx)
    ctx.capture = 0
    take(made, ctx)
    eager, first, second = cuda.taken[0], cuda.taken[2], cuda.taken[4]
    assert len({None, eager, first, second}) == 4
    assert cuda.taken == [eager, eager, first, first, second, eager]
    assert not cuda.active


def test_a_captures_pool_is_used_again_when_its_graph_is_gone(cuda):
    ctx = Context()
    made = pools.Pools(ctx)
    for ctx.capture in (1, 2):
        take(made, ctx)
    ctx.capture = 3
    take(made, ctx)
    ctx.ended = {1}
    ctx.capture = 4
    take(made, ctx)
    assert cuda.taken[3] == cuda.taken[0]
    assert len(set(cuda.taken)) == 3


def test_without_room_results_are_ordinary(cuda):
    """After a failure nothing is tried for a while, but for what the arena has room for."""
    ctx = Context()
    made = pools.Pools(ctx)
    ctx._local_room, cuda.full = 0, True
    for _ in range(1 + pools.PATIENCE):
        take(made, ctx)
    assert cuda.taken == [None] * (1 + pools.PATIENCE)
    cuda.full = False
    take(made, ctx)
    assert cuda.taken.pop() is not None
    cuda.full = True
    take(made, ctx)
    cuda.full = False
    take(made, ctx)
    assert cuda.taken.pop() is None
    ctx._local_room = 2 << 20
    take(made, ctx)
    assert cuda.taken.pop() is not None
    assert not cuda.active


@pytest.mark.parametrize(
    ("state", "size", "stream", "found"),
    [("inactive", 4096, 7, True), ("active_allocated", 4096, 7, False),
     ("inactive", 512, 7, False), ("inactive", 4096, 8, False)],
)  # fmt: skip
def test_a_capture_without_room_uses_what_its_pool_has(cuda, state, size, stream, found):
    ctx = Context()
    made = pools.Pools(ctx)
    ctx.capture, ctx._local_room = 1, 0
    cuda.blocks = [
        {"stream": stream, "segment_type": "small", "blocks": [{"state": state, "size": size}]}
    ]
    take(made, ctx)
    assert (cuda.taken[0] is not None) is found


def test_the_users_pool(cuda):
    """Nested, and with results inside, which need no pool then."""
    ctx = Context()
    made = pools.Pools(ctx)
    with made.use(ctx):
        torch.empty(1)
        with made.use(ctx):
            take(made, ctx)
        (own,) = cuda.active
        # A graph that is captured inside has its own again.
        ctx.capture = 1
        take(made, ctx)
        with made.use(ctx):
            torch.empty(1)
            take(made, ctx)
        ctx.capture = 0
        take(made, ctx)
    assert not cuda.active
    captured = cuda.taken[2]
    assert cuda.taken == [own, own, captured, captured, captured, own]
    assert captured not in (None, own)
    take(made, ctx)
    assert cuda.taken.pop() not in (None, own, captured)


def test_a_full_arena_says_so_to_the_user(cuda):
    ctx = Context()
    made = pools.Pools(ctx)
    cuda.full = True
    with pytest.raises(torch.OutOfMemoryError) as caught, made.use(ctx):
        torch.empty(1)
    assert "raise local_size" in caught.value.__notes__[0]
    assert not cuda.active


def test_another_thread_does_not_wait(cuda):
    ctx = Context()
    made = pools.Pools(ctx)
    with made._lock:
        take(made, ctx)
    assert cuda.taken == [None]
    take(made, ctx)
    assert cuda.taken[1] is not None


@pytest.mark.parametrize("ours", [True, False])
def test_graphs_of_the_compiler_keep_to_their_pool(cuda, monkeypatch, ours):
    stream = torch.cuda.current_stream(0) if ours else "another"
    trees = types.SimpleNamespace(
        get_manager=lambda device, create_if_none_exists: types.SimpleNamespace(stream=stream)
    )
    monkeypatch.setitem(pools.sys.modules, "torch._inductor.cudagraph_trees", trees)
    ctx = Context()
    made = pools.Pools(ctx)
    for ctx.capture in (0, 1):
        take(made, ctx)
    assert [pool is None for pool in cuda.taken] == [ours, ours]


@pytest.mark.parametrize("capturing", [False, True])
def test_no_pool_is_destroyed_in_a_capture(cuda, monkeypatch, capturing):
    """Where torch would end the process."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(pools, "_unneeded", [])
    ctx = Context()
    made = pools.Pools(ctx)
    for ctx.capture in (0, 1):
        take(made, ctx)
    with made.use(ctx):
        pass
    gone = [weakref.ref(pool) for pool in made._all]
    assert len(gone) == 2
    del made
    assert [pool() is None for pool in gone] == [not capturing] * 2
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    pools.Pools(ctx)
    assert [pool() for pool in gone] == [None, None]


def test_users_pools_are_taken_in_turn(cuda):
    ctx = Context()
    made = pools.Pools(ctx)
    for _ in range(3):
        with made.use(ctx):
            torch.empty(1)
    assert len(set(cuda.taken)) == 1


def test_an_older_torch(cuda, monkeypatch):
    monkeypatch.delattr(torch._C, "_cuda_beginAllocateCurrentThreadToPool")
    with pytest.raises(RuntimeError, match=r"needs torch 2\.8"):
        pools.Pools(Context())
