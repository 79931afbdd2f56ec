# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Whatever may wait for peers releases the GIL: two ranks as threads of one interpreter.

A call that kept the GIL would stop the other rank from arriving, and end in the timeout's error.
"""

import threading
import uuid

import pytest
import torch

import iris_c

WORLD_SIZE = 2


def on_all_ranks(body, timeout=5.0, leave_together=True):
    """Runs body(ctx) on two ranks, one thread each; returns their results in rank order."""
    run_key = uuid.uuid4().hex
    results = [None] * WORLD_SIZE

    def rank_main(rank):
        try:
            with iris_c.Context(
                heap_size=1 << 22,
                backend="cpu",
                rank=rank,
                world_size=WORLD_SIZE,
                timeout=timeout,
                run_key=run_key,
                num_threads=1,
            ) as ctx:
                results[rank] = body(ctx)
                if leave_together:
                    ctx.barrier()
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=rank_main, args=(rank,)) for rank in range(WORLD_SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * timeout)
        assert not thread.is_alive(), "possible deadlock"
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def collectives(ctx):
    mine = torch.full((6,), float(ctx.rank + 1))
    out = ctx.zeros(6)
    yield ctx.ccl.all_reduce(out, mine), out, [3.0] * 6
    part = ctx.zeros(3)
    yield ctx.ccl.reduce_scatter(part, mine), part, [3.0] * 3
    both = ctx.zeros(12)
    yield ctx.ccl.all_gather(both, mine), both, [1.0] * 6 + [2.0] * 6
    yield ctx.ccl.all_to_all(out, mine), out, [1.0] * 3 + [2.0] * 3
    copy = ctx.as_symmetric(mine)
    yield ctx.ccl.broadcast(copy, 1), copy, [2.0] * 6


def test_collectives():
    def body(ctx):
        for _, got, expected in collectives(ctx):
            assert got.tolist() == expected

    on_all_ranks(body)


def test_barriers_and_allocations():
    def body(ctx):
        for _ in range(20):
            ctx.barrier()
            ctx.device_barrier()
            ctx.empty(16)
        return ctx.empty(8).data_ptr() - int(ctx.get_heap_bases()[ctx.rank])

    offsets = on_all_ranks(body)
    assert offsets[0] == offsets[1]


@pytest.mark.parametrize("variant", ["atomic", "spinlock", "one_shot", "two_shot", "ring"])
def test_matmul_all_reduce(variant):
    torch.manual_seed(3)
    A, B = torch.randn(WORLD_SIZE, 30, 20), torch.randn(WORLD_SIZE, 20, 40)
    expected = (A @ B).sum(0)
    config = iris_c.FusedConfig(16, 16, all_reduce_variant=variant)

    def body(ctx):
        C = ctx.full((30, 40), float("nan"))
        ctx.ops.matmul_all_reduce_preamble(C, A[ctx.rank], B[ctx.rank], config=config)
        for _ in range(5):
            C.fill_(float("nan"))
            ctx.barrier()
            ctx.ops.matmul_all_reduce(C, A[ctx.rank], B[ctx.rank], config=config)
            torch.testing.assert_close(C, expected, rtol=1e-5, atol=1e-5)
            ctx.barrier()

    on_all_ranks(body)


def test_missing_rank_is_an_error_not_a_hang():
    with pytest.raises(iris_c.PeerError, match="1") as caught:
        iris_c.Context(
            heap_size=1 << 20, world_size=2, timeout=0.3, run_key=uuid.uuid4().hex, num_threads=1
        )
    assert caught.value.rank == 1


def test_rank_that_left_is_reported():
    def body(ctx):
        if ctx.rank == 1:
            ctx.close()
            return
        with pytest.raises(iris_c.PeerError) as caught:
            ctx.barrier()
        assert caught.value.rank == 1

    on_all_ranks(body, leave_together=False)


def test_dropped_context_leaves_although_a_tensor_lives():
    tensors = []

    def body(ctx):
        tensors.append(ctx.full((4,), 5.0))
        if ctx.rank == 1:
            return
        with pytest.raises(iris_c.PeerError, match=r"closed|left"):
            ctx.barrier()

    def rank_main(rank, run_key, errors):
        ctx = iris_c.Context(
            heap_size=1 << 20, rank=rank, world_size=2, timeout=5.0, run_key=run_key, num_threads=1
        )
        try:
            body(ctx)
        except BaseException as error:
            errors.append(error)

    run_key, errors = uuid.uuid4().hex, []
    threads = [threading.Thread(target=rank_main, args=(r, run_key, errors)) for r in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "possible deadlock"
    assert not errors
    assert all(tensor.eq(5.0).all() for tensor in tensors)
