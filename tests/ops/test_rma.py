# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""put, get, signal and wait: what one rank does to the heaps of others."""

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks, run_ranks

SIZES = [0, 1, 7, 4099, (1 << 20) + 5]


@ranks(1, 2, 3)
def test_put_signal_wait(ctx):
    """Round a ring, each rank's word a semaphore."""
    right, left = (ctx.rank + 1) % ctx.world_size, (ctx.rank - 1) % ctx.world_size
    word, taken = (ctx.zeros(1, dtype=torch.int32) for _ in range(2))
    for salt, n in enumerate(SIZES):
        place = ctx.zeros(n)
        ctx.barrier()  # nobody puts into what is still being zeroed
        for turn in range(3):
            given = torch.empty(n).copy_(
                cases.contribution(ctx.rank, n, torch.float32, salt + turn)
            )
            ctx.put(place, given, right)
            ctx.signal(word, right, op="add")
            ctx.wait(word, consume=True)
            expected = cases.contribution(left, n, torch.float32, salt + turn)
            assert torch.equal(place, expected), (n, turn)
            ctx.signal(taken, left, turn + 1)
            ctx.wait(taken, turn + 1, "eq")
        ctx.barrier()
        taken.zero_()
        ctx.barrier()
    assert int(word) == 0, "every signal has been consumed"


@ranks(1, 2, 3)
def test_get(ctx):
    for n in SIZES:
        for dtype in (torch.float32, torch.uint8):
            place = ctx.empty(n, dtype=dtype).copy_(cases.contribution(ctx.rank, n, dtype))
            ctx.device_barrier()
            for peer in range(ctx.world_size):
                got = torch.empty(n, dtype=dtype)
                ctx.get(got, place, peer)
                assert torch.equal(got, cases.contribution(peer, n, dtype)), (n, peer)
            ctx.device_barrier()


@ranks(2)
def test_a_view_of_a_symmetric_tensor(ctx):
    place = ctx.zeros(100)
    ctx.barrier()
    ctx.put(place[10 * ctx.rank : 10 * ctx.rank + 10], torch.full((10,), 1.0 + ctx.rank),
            1 - ctx.rank)  # fmt: skip
    ctx.device_barrier()
    expected = torch.zeros(100)
    expected[10 * (1 - ctx.rank) : 10 * (1 - ctx.rank) + 10] = 2.0 - ctx.rank
    assert torch.equal(place, expected)


@ranks(2)
def test_comparisons(ctx):
    word = ctx.zeros(1, dtype=torch.int32)
    ctx.barrier()
    ctx.signal(word, 1 - ctx.rank, -5)
    for value, compare in ((-5, "eq"), (-4, "ne"), (-6, "gt"), (-5, "ge"), (0, "lt"), (-5, "le")):
        ctx.wait(word, value, compare)
    ctx.wait(word, -5, "eq", consume=True)
    assert int(word) == 0
    ctx.barrier()
    for _ in range(3):
        ctx.signal(word, 1 - ctx.rank, 1 << 30, op="add")
    ctx.barrier()
    assert int(word) == 3 * (1 << 30) - (1 << 32)


@ranks(2)
def test_mistakes_are_named(ctx):
    place, word = ctx.zeros(4), ctx.zeros(1, dtype=torch.int32)
    with pytest.raises(ValueError, match="dst: expected a tensor in the context's symmetric heap"):
        ctx.put(torch.zeros(4), place, 0)
    with pytest.raises(ValueError, match="src: expected a tensor in the context's symmetric heap"):
        ctx.get(place, torch.zeros(4), 0)
    with pytest.raises(ValueError, match="peer: expected a rank, 0 to 1, got 2"):
        ctx.put(place, torch.zeros(4), 2)
    with pytest.raises(ValueError, match="src: expected 4 elements"):
        ctx.put(place, torch.zeros(5), 0)
    with pytest.raises(ValueError, match="src: expected dtype float32"):
        ctx.put(place, torch.zeros(4, dtype=torch.int32), 0)
    with pytest.raises(ValueError, match="dst: expected memory apart"):
        ctx.put(place, place, ctx.rank)
    with pytest.raises(ValueError, match="word: expected one element of int32, got 4 of float32"):
        ctx.signal(place, 0)
    with pytest.raises(ValueError, match="op: expected one of set, add, got 'or'"):
        ctx.signal(word, 0, op="or")
    with pytest.raises(ValueError, match="compare: expected one of eq, ne"):
        ctx.wait(word, compare="==")
    with pytest.raises((ValueError, OverflowError), match=r"value|large"):
        ctx.signal(word, 0, 1 << 40)


def waits_in_vain(ctx):
    word = ctx.zeros(1, dtype=torch.int32)
    if ctx.rank == 0:
        with pytest.raises(iris_c.SignalTimeout, match="wait: the word did not become as asked"):
            ctx.wait(word)
    else:
        with pytest.raises(iris_c.PeerError, match="rank 0 gave up waiting for a word"):
            while True:
                ctx.wait(word, 0)
    return True


@cases.cpu_only
def test_a_wait_is_bounded():
    assert all(
        run_ranks((__name__, "waits_in_vain"), 2, init={"heap_size": 1 << 20, "timeout": 1.0})
    )
