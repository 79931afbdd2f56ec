# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Ranks that die, stop, come late, leave, or never come: a clear error in time, nothing hangs."""

import os
import random
import signal
import time

import cases
import pytest
import torch
from waits import waiting

import iris_c
from iris_c.testing import ranks, run_ranks


def product_loop(ctx, seconds, variant):
    """Calls until something is raised or the time is over."""
    A, B = torch.randn(64, 16), torch.randn(16, 64)
    C = ctx.empty(64, 64)
    config = cases.config(ctx, variant, 16, 16)
    until = time.monotonic() + seconds
    calls = 0
    while time.monotonic() < until:
        ctx.ops.matmul_all_reduce(C, A, B, config=config)
        calls += 1
    return calls


def killed_rank(ctx, victim, variant, delay):
    """The victim dies at a random moment of the loop; the others say how long they took to see."""
    if ctx.rank == victim:
        pid = os.getpid()
        if os.fork() == 0:  # a helper kills the victim in the middle of whatever it does
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            os._exit(0)
        product_loop(ctx, 30, variant)
        return None
    with pytest.raises(iris_c.PeerError) as caught:
        product_loop(ctx, 30, variant)
    noticed = time.time()
    assert caught.value.rank == victim
    with pytest.raises(iris_c.PeerError):
        ctx.barrier()
    with pytest.raises(iris_c.PeerError):
        ctx.empty(4)
    return noticed


@pytest.mark.parametrize("variant", ["one_shot", "two_shot", "ring", "atomic", "spinlock"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_killed_rank_is_noticed(world_size, variant):
    for victim in range(world_size):
        delay = 0.2 + random.Random(f"{variant}{victim}").random() * 0.05
        started = time.time()
        noticed = run_ranks(
            killed_rank,
            world_size,
            victim,
            variant,
            delay,
            init={"heap_size": 1 << 22, "timeout": 25.0},
            expect_killed=(victim,),
        )
        for rank, when in enumerate(noticed):
            assert rank == victim or when - started < 12  # the timeout alone would take 25 s


def notice_delay(ctx, victim):
    """Seconds between the victim's death and the error on this rank."""
    ctx.barrier()
    if ctx.rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(iris_c.PeerError):
        product_loop(ctx, 20, "two_shot")
    return time.monotonic() - start


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_death_is_noticed_within_two_seconds(victim):
    delays = run_ranks(
        notice_delay, 3, victim, init={"heap_size": 1 << 22}, expect_killed=(victim,)
    )
    assert all(delay < 2 for delay in delays if delay is not None), delays


def stopped_rank(ctx, victim):
    """The victim is stopped before a call and resumed after the others have given up."""
    A, B = torch.randn(40, 8), torch.randn(8, 40)
    # Off the heap, so that results are staged and no host waits, but those who miss a signal.
    C = torch.empty(40, 40)
    product = waiting(ctx, lambda: ctx.ops.matmul_all_reduce(C, A, B))
    product()
    ctx.barrier()
    if ctx.rank == victim:
        pid = os.getpid()
        if os.fork() == 0:
            time.sleep(4)
            os.kill(pid, signal.SIGCONT)
            os._exit(0)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(iris_c.PeerError, match="gave up waiting"):
            product()
        return "told"
    start = time.monotonic()
    with pytest.raises((iris_c.SignalTimeout, iris_c.PeerError)) as caught:
        product()
    assert 1.5 < time.monotonic() - start < 4
    assert caught.value.rank == victim
    if isinstance(caught.value, iris_c.SignalTimeout):
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.wanted == 2
        assert caught.value.seen < 2
        assert caught.value.call == 2
    with pytest.raises((iris_c.SignalTimeout, iris_c.PeerError)):
        product()
    return type(caught.value).__name__


@pytest.mark.parametrize(("world_size", "victim"), [(2, 0), (2, 1), (3, 1)])
def test_stopped_rank_times_out(world_size, victim):
    outcomes = run_ranks(
        stopped_rank, world_size, victim, init={"heap_size": 1 << 22, "timeout": 2.0}
    )
    assert outcomes[victim] == "told"
    assert "SignalTimeout" in outcomes


@ranks(2, 3)
def test_delayed_rank_is_waited_for(ctx):
    A, B = torch.ones(20, 4), torch.ones(4, 20)
    C = ctx.empty(20, 20)
    for call in range(3):
        cases.poisoned(C)
        ctx.barrier()
        if call % ctx.world_size == ctx.rank:
            time.sleep(0.5)
        ctx.ops.matmul_all_reduce(C, A, B)
        assert torch.equal(C, torch.full((20, 20), 4.0 * ctx.world_size))


def leaving_rank(ctx):
    ctx.barrier()
    if ctx.rank == 1:
        ctx.close()
        return
    with pytest.raises(iris_c.PeerError, match="rank 1 closed its context") as caught:
        product_loop(ctx, 10, "two_shot")
    assert caught.value.rank == 1


def test_a_rank_that_leaves_is_named():
    run_ranks(leaving_rank, 3, init={"heap_size": 1 << 22})


@ranks(3)
def test_who_is_done_may_leave_while_others_exchange_messages(ctx):
    """Rank 2 has nothing to send or to get, and leaves at once."""
    count = 16 << 20
    sizes = [0, 0, 0]
    if ctx.rank < 2:
        sizes[1 - ctx.rank] = count
    given = torch.arange(sum(sizes), dtype=torch.float32) + ctx.rank
    got = torch.zeros_like(given)
    ctx.barrier()
    ctx.ccl.all_to_all(got, given, output_split_sizes=sizes, input_split_sizes=sizes)
    if ctx.rank < 2:
        assert torch.equal(got, torch.arange(count, dtype=torch.float32) + 1 - ctx.rank)


@ranks(4)
def test_who_is_done_may_leave_a_collective(ctx):
    """Each time another rank, which has its result, is followed by others still on their way."""
    for turn in range(40):
        with ctx.group(range(4)) as group:
            value = torch.full((64 << turn % 3,), float(ctx.rank + turn))
            total = torch.empty_like(value)
            group.ccl.all_reduce(total, value)
            assert torch.equal(total, torch.full_like(value, 6.0 + 4 * turn))
        ctx._groups.clear()


def lonely_rank():
    if os.environ["RANK"] == "1":
        return
    start = time.monotonic()
    with pytest.raises(iris_c.PeerError) as caught:
        iris_c.init(heap_size=1 << 20, timeout=1.0)
    assert time.monotonic() - start < 4
    assert "1" in str(caught.value)


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_rank_that_never_comes_is_named(world_size):
    run_ranks(lonely_rank, world_size)


def quarrel(what):
    rank = int(os.environ["RANK"])
    options = {"heap_size": 1 << 20, "timeout": 5.0}
    if what == "heap_size" and rank == 1:
        options["heap_size"] = 1 << 21
    if what == "world_size":
        options.update(rank=rank, world_size=3 if rank == 1 else 2)
    if what == "rank":
        options.update(rank=min(rank, 1), world_size=3)
    with pytest.raises(ValueError, match=what) as caught:
        iris_c.init(**options)
    return str(caught.value)


@pytest.mark.parametrize(("what", "world_size"), [("heap_size", 3), ("world_size", 2), ("rank", 3)])
def test_ranks_that_disagree_at_init_get_one_error(what, world_size):
    messages = run_ranks(quarrel, world_size, what)
    assert len(set(messages)) == 1, messages


def misaligned(ctx):
    with pytest.raises(ValueError, match="different collectives: rank 0 in 'barrier'"):
        if ctx.rank == 0:
            ctx.barrier()
        else:
            ctx.empty(16)
    with pytest.raises(ValueError, match="same size on all ranks"):
        ctx.empty(16 + ctx.rank)
    tensor = ctx.ones(16)
    ctx.ccl.all_reduce(tensor, tensor.clone())
    assert tensor[0] == ctx.world_size


def test_collectives_that_do_not_meet():
    run_ranks(misaligned, 2, init={"heap_size": 1 << 20})
