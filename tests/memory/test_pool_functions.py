# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The exported functions by which torch takes memory of the arena, called as its allocator does."""

import ctypes
import gc
import threading

import pytest

import iris_c
from iris_c import _C

SIZE = 1 << 20
SEGMENT = 1 << 16
LIBRARY = ctypes.CDLL(_C.__file__)


def functions(ctx):
    allocate = getattr(LIBRARY, f"iris_c_pool_allocate_{ctx._pool()}")
    allocate.restype = ctypes.c_void_p
    allocate.argtypes = [ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    free = LIBRARY.iris_c_pool_free
    free.restype, free.argtypes = None, [ctypes.c_void_p, ctypes.c_size_t, *allocate.argtypes[1:]]
    return (lambda n, device=0: allocate(n, device, None)), (lambda p: free(p, 0, 0, None))


def context():
    return iris_c.Context(heap_size=SIZE, local_size=SIZE, backend="cpu")


def test_memory_comes_of_the_contexts_own_arena():
    with context() as first, context() as second:
        assert first._pool() == first._pool() != second._pool()
        for ctx, other in ((first, second), (second, first)):
            allocate, free = functions(ctx)
            address = allocate(SEGMENT)
            base = ctx._heap_bases()[0]
            assert base < address < base + (4 << 20)
            assert address % 512 == 0
            assert (ctx.local_used, other.local_used) == (SEGMENT, 0)
            ctypes.memset(address, 7, SEGMENT)
            free(address)
            assert ctx.local_used == 0


def test_no_room_is_null():
    with context() as ctx:
        allocate, free = functions(ctx)
        whole = allocate(SIZE)
        assert whole
        assert allocate(1) is None
        free(whole)
        assert allocate(SIZE) == whole
        assert allocate(SEGMENT, device=3) is None
        free(whole)
        assert allocate(SEGMENT, device=3) is None  # not this context's
        with pytest.raises(iris_c.HeapExhausted):
            ctx.local_empty(SIZE)


def test_memory_outlives_the_context():
    ctx = context()
    allocate, free = functions(ctx)
    address = allocate(SEGMENT)
    ctx.close()
    assert allocate(SEGMENT) is None
    with pytest.raises(RuntimeError, match="closed"):
        ctx._pool()
    del ctx
    gc.collect()
    ctypes.memset(address, 1, SEGMENT)
    assert allocate(SEGMENT) is None  # nobody's, until another context has the number
    free(address)
    free(address)  # unknown: ignored


def test_numbers_are_used_again_and_end():
    contexts = [context() for _ in range(33)]
    numbers = [ctx._pool() for ctx in contexts[:32]]
    assert sorted(numbers) == list(range(1, 33))
    with pytest.raises(MemoryError, match="at most 32 contexts"):
        contexts[32]._pool()
    del contexts[4]
    gc.collect()
    assert contexts[31]._pool() == numbers[4]
    for ctx in contexts:
        ctx.close()


def test_threads():
    with context() as ctx:
        allocate, free = functions(ctx)
        errors = []

        def work(number):
            for _ in range(500):
                address = allocate(512)
                ctypes.memset(address, number, 512)
                if ctypes.string_at(address, 512) != bytes([number]) * 512:
                    errors.append(number)
                free(address)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert ctx.local_used == 0


def test_the_cpu_captures_nothing():
    with context() as ctx:
        assert ctx._capture() == 0
        has_ended = ctx._watch_capture()
        assert has_ended() is False
        with ctx.pool():
            pass
    with pytest.raises(RuntimeError, match="closed"):
        ctx.pool()
