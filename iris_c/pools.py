# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The local arena of a context on a GPU as pools of torch's allocator.

torch takes large segments from the arena, divides them, and knows which streams use what, as it
does with all its memory: tensors are freed and their memory is used again as usual, also by
`record_stream`. What is captured into a graph has a pool of the graph's own, because other work
must not use its memory for as long as the graph can be replayed.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch

from iris_c import _C

__all__ = ["Pools"]

MemPool: TypeAlias = Any  # torch.cuda.MemPool
SMALL, LARGE, STEP = 1 << 20, 10 << 20, 2 << 20  # as torch's allocator divides sizes
# Requests that are not even tried after one that the arena had no room for.
PATIENCE = 256

# Pools that nobody needs any more. torch ends the process where one is destroyed while a stream is
# being captured, as the garbage collector might do.
_unneeded: list[MemPool] = []

# By number. torch's pools call them for as long as any memory of theirs is alive.
_allocators: dict[int, Any] = {}


def _segment(nbytes: int) -> int:
    """The bytes that torch's allocator asks for where it has none left for so many."""
    if nbytes <= SMALL:
        return STEP
    return 2 * LARGE if nbytes < LARGE else -(-nbytes // STEP) * STEP


def _allocator(number: int) -> Any:
    if number not in _allocators:
        _allocators[number] = torch.cuda.memory.CUDAPluggableAllocator(
            _C.__file__, f"iris_c_pool_allocate_{number}", "iris_c_pool_free"
        )
    return _allocators[number].allocator()


def _destroy_unneeded() -> None:
    if _unneeded and not torch.cuda.is_current_stream_capturing():
        _unneeded.clear()


def _is_recorded_as_a_tree(device: int) -> bool:
    """Whether torch.compile warms up or records a graph on the current stream. It expects all
    results in a pool of its own."""
    trees = sys.modules.get("torch._inductor.cudagraph_trees")
    if trees is None:
        return False
    try:
        manager = trees.get_manager(device, create_if_none_exists=False)
        return manager is not None and torch.cuda.current_stream(device) == manager.stream
    except Exception:  # another version, another thread: no harm in ordinary memory
        return True


class Pools:
    """The pools of one context, which its methods are given: it owns them."""

    def __init__(self, ctx: _C.Context) -> None:
        try:  # what torch.cuda.use_mem_pool calls, in half its time
            self._begin = torch._C._cuda_beginAllocateCurrentThreadToPool
            self._end = torch._C._cuda_endAllocateToPool
            self._release = torch._C._cuda_releasePool
        except AttributeError:
            raise RuntimeError("pool: needs torch 2.8 or newer, with CUDA or ROCm") from None
        self._number = ctx._pool()
        self._device = ctx.device_id
        self._lock = threading.Lock()
        self._eager: MemPool | None = None
        self._captures: dict[int, tuple[MemPool, Callable[[], bool]]] = {}
        self._spare: list[MemPool] = []  # of captures
        self._users: list[MemPool] = []  # of use(), by whichever thread
        self._all: list[MemPool] = []
        self._thread = threading.local()
        self._patience = 0

        _destroy_unneeded()

    def __del__(self) -> None:
        if hasattr(self, "_all") and not sys.is_finalizing():
            _unneeded.extend(self._all)
            self._all.clear()
            self._captures.clear()
            self._spare.clear()
            self._users.clear()
            self._eager = None
            _destroy_unneeded()

    def _new(self) -> MemPool:
        with torch.cuda.device(self._device):
            self._all.append(torch.cuda.MemPool(_allocator(self._number)))
        return self._all[-1]

    def _of_capture(self, ctx: _C.Context, capture: int) -> MemPool:
        """The pool of a graph that is being captured; one of a graph that is gone, if there is."""
        if capture not in self._captures:
            for known, (pool, has_ended) in tuple(self._captures.items()):
                if has_ended():
                    self._spare.append(pool)
                    del self._captures[known]
            pool = self._spare.pop() if self._spare else self._new()
            self._captures[capture] = (pool, ctx._watch_capture())
        return self._captures[capture][0]

    def _has_free(self, pool: MemPool, nbytes: int) -> bool:
        """Whether a pool has a block for so many bytes on the current stream. Slow."""
        stream = torch.cuda.current_stream(self._device).cuda_stream
        kind = "small" if nbytes <= SMALL else "large"
        return any(
            block["state"] == "inactive" and block["size"] >= nbytes
            for segment in torch.cuda.memory_snapshot(pool.id)
            if segment["stream"] == stream and segment["segment_type"] == kind
            for block in segment["blocks"]
        )

    @contextlib.contextmanager
    def _active(self, pool: MemPool) -> Iterator[None]:
        """Directs this thread's allocations to the pool; no other thread may do so meanwhile."""
        self._begin(self._device, pool.id)
        try:
            yield
        finally:
            self._end(self._device, pool.id)
            self._release(self._device, pool.id)

    def empty(self, ctx: _C.Context, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """An uninitialised tensor of the dtype and device of a strided one, in the arena if it has
        room."""
        # Another thread is at it, or this one, in a handler of a signal.
        if not self._lock.acquire(blocking=False):
            return like.new_empty(shape)
        try:
            pool = self._pool_for(ctx, shape, like.element_size())
            if pool is not None:
                device, number = self._device, pool.id
                self._begin(device, number)
                try:
                    return like.new_empty(shape)
                finally:
                    self._end(device, number)
                    self._release(device, number)
        except torch.OutOfMemoryError:
            self._patience = PATIENCE
        finally:
            self._lock.release()
        return like.new_empty(shape)

    def _pool_for(
        self, ctx: _C.Context, shape: tuple[int, ...], element_size: int
    ) -> MemPool | None:
        """The pool to allocate from; None: where torch would."""
        capture = ctx._capture()
        if getattr(self._thread, "inside", None) == capture:
            return None  # it is active
        nbytes = element_size
        for size in shape:
            nbytes *= size
        room = ctx._local_room >= _segment(nbytes)
        if capture == 0:
            if not room and self._patience > 0:
                self._patience -= 1
                return None
            if _is_recorded_as_a_tree(self._device):
                return None
            if self._eager is None:
                self._eager = self._new()
            return self._eager
        if _is_recorded_as_a_tree(self._device):
            return None
        pool = self._of_capture(ctx, capture)
        # In a capture nothing is tried: a failure might ask the driver for what it then refuses.
        return pool if room or self._has_free(pool, nbytes) else None

    @contextlib.contextmanager
    def use(self, ctx: _C.Context) -> Iterator[None]:
        """Has this thread's new tensors lie in the arena."""
        capture = ctx._capture()
        outer = getattr(self._thread, "inside", None)
        if outer == capture:
            yield
            return
        with self._lock:
            if capture != 0:
                pool = self._of_capture(ctx, capture)
            else:
                pool = self._users.pop() if self._users else self._new()
        self._thread.inside = capture
        try:
            with self._active(pool):
                yield
        except torch.OutOfMemoryError as error:
            error.add_note(
                f"inside ctx.pool(), whose local arena has {ctx.local_size} bytes, of which "
                f"{ctx._local_room} can be taken in one piece; free tensors or raise local_size"
            )
            raise
        finally:
            self._thread.inside = outer
            if capture == 0:
                self._users.append(pool)
