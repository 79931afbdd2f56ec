# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Who is left when ranks are lost agrees on who goes on, and goes on; nothing stays behind."""

import contextlib
import gc
import os
import random
import signal
import threading
import time

import cases
import pytest
import torch
from descriptors import open_descriptors
from training import ROUNDS, train_through_deaths
from waits import waiting

import iris_c
from iris_c.testing import run_ranks, use_device

SMALL = {"heap_size": 1 << 22, "timeout": 10.0}
LOST = (iris_c.PeerError, iris_c.SignalTimeout)


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


def call_until_lost(ctx):
    with pytest.raises(LOST) as caught:
        for _ in range(100000):
            ctx.ccl.all_reduce(torch.empty(8), torch.ones(8))
    return caught.value


def assert_sums(ctx):
    """Collectives over exactly the ranks that ctx has."""
    got = torch.empty(ctx.world_size, dtype=torch.int64)
    ctx.ccl.all_gather(got, torch.tensor([ctx.ranks[ctx.rank]]))
    assert tuple(got.tolist()) == ctx.ranks
    total = ctx.zeros(8)
    ctx.ccl.all_reduce(total, torch.full((8,), 1.0 + ctx.ranks[ctx.rank]))
    assert total.tolist() == [ctx.world_size + sum(ctx.ranks)] * 8
    ctx.barrier()


def maps_of_memory():
    """Sizes in KiB of this process's mappings of heaps."""
    with open("/proc/self/smaps") as file:
        lines = file.read().splitlines()
    return [
        int(lines[i + 1].split()[1]) for i, line in enumerate(lines) if "memfd:iris_c-heap" in line
    ]


# ---- who is left ----


def lose(ctx, victims):
    ctx.barrier()
    if ctx.rank in victims:
        die()
    call_until_lost(ctx)
    start = time.monotonic()
    with ctx.survivors() as survivors:
        delay = time.monotonic() - start
        assert ctx.closed
        assert survivors.heap_size == ctx.heap_size
        assert survivors.backend == ctx.backend
        assert type(survivors) is type(ctx)
        assert_sums(survivors)
        return survivors.rank, survivors.ranks, delay


@pytest.mark.parametrize(
    ("world_size", "victims"),
    [(4, (0,)), (4, (2,)), (4, (0, 1)), (4, (1, 3)), (4, (1, 2, 3)), (4, (0, 1, 2)), (2, (0,))],
)
def test_survivors_go_on(world_size, victims):
    left = tuple(rank for rank in range(world_size) if rank not in victims)
    outcomes = run_ranks(lose, world_size, victims, init=SMALL, expect_killed=victims)
    for number, rank in enumerate(left):
        assert outcomes[rank][:2] == (number, left)
        assert outcomes[rank][2] < 5  # the timeout alone would take 10 s


def lose_one_after_the_other(ctx):
    for survivors_left in (3, 2, 1):
        ctx.barrier()
        if ctx.rank == ctx.world_size - 1 - ctx.world_size % 2:
            die()
        call_until_lost(ctx)
        ctx = ctx.survivors()
        assert ctx.world_size == survivors_left
        assert_sums(ctx)
    ranks = ctx.ranks
    ctx.close()
    return ranks


def test_survivors_of_survivors_are_called_as_in_the_first_context():
    """Of 0, 1, 2, 3 die 3; then, of 0, 1, 2, 1; then, of 0 and 2, 2."""
    outcomes = run_ranks(lose_one_after_the_other, 4, init=SMALL, expect_killed=(1, 2, 3))
    assert outcomes[0] == (0,)


def alone():
    with iris_c.init(heap_size=1 << 20) as ctx:
        use_device(ctx)
        kept = ctx.ones(4)
        with ctx.survivors() as survivors:
            assert (survivors.rank, survivors.world_size, survivors.ranks) == (0, 1, (0,))
            assert_sums(survivors)
        assert kept.tolist() == [1.0] * 4


def test_a_world_of_one_survives_itself():
    run_ranks(alone, 1)


def nobody_is_lost(ctx):
    with ctx.survivors() as survivors:
        assert survivors.ranks == (0, 1, 2)
        assert survivors.rank == ctx.rank
        assert_sums(survivors)


def test_all_ranks_may_go_on():
    run_ranks(nobody_is_lost, 3, init=SMALL)


def told_by_the_framework(ctx):
    """Rank 2 dies; rank 0 calls survivors() without a call that could fail, rank 1 computes on."""
    ctx.barrier()
    if ctx.rank == 2:
        die()
    if ctx.rank == 1:
        time.sleep(1)
    with ctx.survivors() as survivors:
        assert survivors.ranks == (0, 1)
        assert_sums(survivors)


def test_survivors_needs_no_error_first():
    run_ranks(told_by_the_framework, 3, init=SMALL, expect_killed=(2,))


def waiting_for_who_goes_on(ctx):
    ctx.barrier()
    start = time.monotonic()
    if ctx.rank == 0:
        time.sleep(0.3)
    else:
        error = call_until_lost(ctx)
        assert "called survivors()" in str(error)
    with ctx.survivors() as survivors:
        assert time.monotonic() - start < 5
        assert survivors.ranks == (0, 1, 2)


def test_a_call_that_waits_for_who_goes_on_ends():
    run_ranks(waiting_for_who_goes_on, 3, init=SMALL)


def closed_by_a_rank(ctx):
    ctx.barrier()
    if ctx.rank == 0:
        ctx.close()
        with pytest.raises(RuntimeError, match="closed"):
            ctx.survivors()
        return
    call_until_lost(ctx)
    with ctx.survivors() as survivors:
        assert survivors.ranks == (1, 2)
        assert_sums(survivors)


def test_who_has_closed_is_out():
    run_ranks(closed_by_a_rank, 3, init=SMALL)


def interrupted(ctx):
    """Rank 1 is interrupted in a call: it is out, as if it had died, and knows it."""
    ctx.barrier()
    if ctx.rank == 1:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            waiting(ctx, lambda: ctx.ccl.all_reduce(torch.empty(8), torch.ones(8)))()
        with pytest.raises(RuntimeError, match="interrupted"):
            ctx.survivors()
        time.sleep(3)  # neither it nor its end is waited for
        return 0.0
    time.sleep(1)
    error = call_until_lost(ctx)
    assert error.rank == 1
    assert "rank 1 was interrupted" in str(error)
    start = time.monotonic()
    with ctx.survivors() as survivors:
        assert survivors.ranks == (0, 2)
        assert_sums(survivors)
        return time.monotonic() - start


def test_an_interrupted_rank_is_out():
    delays = run_ranks(interrupted, 3, init=SMALL)
    assert max(delays) < 2


def interrupted_survivor(ctx):
    """Rank 2 dies. Rank 0 is interrupted while it waits for rank 1, which then goes on alone."""
    ctx.barrier()
    if ctx.rank == 2:
        die()
    call_until_lost(ctx)
    if ctx.rank == 0:
        start = time.monotonic()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            ctx.survivors()
        assert time.monotonic() - start < 3
        time.sleep(3)
        return
    time.sleep(2)
    start = time.monotonic()
    with ctx.survivors() as survivors:
        assert survivors.ranks == (1,)
    assert time.monotonic() - start < 5


def test_a_survivor_that_is_interrupted_is_out():
    run_ranks(interrupted_survivor, 3, init=SMALL, expect_killed=(2,))


# ---- who is late ----


def stopped(ctx, victim):
    """The victim is stopped when the others need it, and continues when they have gone on."""
    pids = torch.empty(3, dtype=torch.int64)
    ctx.ccl.all_gather(pids, torch.tensor([os.getpid()]))
    assert_sums(ctx)
    others = [rank for rank in range(3) if rank != victim]
    if ctx.rank == victim:
        os.kill(os.getpid(), signal.SIGSTOP)
        with pytest.raises(
            iris_c.PeerError,
            match=rf"^rank {victim} came too late for survivors\(\); ranks {others[0]} and "
            rf"{others[1]} went on without it",
        ) as caught:
            ctx.survivors()
        assert caught.value.rank == victim
        with pytest.raises(RuntimeError, match="closed"):
            ctx.survivors()
        return
    call_until_lost(ctx)
    with ctx.survivors(timeout=5.0) as survivors:
        assert list(survivors.ranks) == others
        assert_sums(survivors)
        if survivors.rank == 0:
            os.kill(int(pids[victim]), signal.SIGCONT)
        for _ in range(20):
            assert_sums(survivors)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_stopped_rank_is_refused_when_it_comes_back(victim):
    run_ranks(stopped, 3, victim, init={"heap_size": 1 << 22, "timeout": 3.0})


def wrong_timeouts(ctx):
    for value in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout"):
            ctx.survivors(timeout=value)
    with pytest.raises(TypeError, match="timeout"):
        ctx.survivors(timeout="soon")
    assert_sums(ctx)  # it goes on


def test_a_wrong_timeout_closes_nothing():
    run_ranks(wrong_timeouts, 2, init=SMALL)


# ---- deaths while the survivors agree ----


def lose_while_agreeing(ctx, delays):
    """Rank 3 dies, and those of `delays` that many seconds after everybody has called."""
    ctx.barrier()
    if ctx.rank == 3:
        die()
    if ctx.rank in delays:
        threading.Timer(delays[ctx.rank], os.kill, (os.getpid(), signal.SIGKILL)).start()
    call_until_lost(ctx)
    while True:
        ctx = ctx.survivors()
        with contextlib.suppress(iris_c.PeerError):
            while ctx.world_size > 3 - len(delays):
                assert_sums(ctx)
            assert_sums(ctx)
            break
    ctx.close()
    return ctx.ranks


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.004, 0.006, 0.01])
@pytest.mark.parametrize("victims", [(0,), (1,), (0, 2)])
def test_ranks_that_die_while_survivors_agree_are_left_out(victims, delay):
    shift = random.Random(f"{victims}{delay}").random() * 0.002
    delays = {rank: delay + shift * number for number, rank in enumerate(victims)}
    left = tuple(rank for rank in range(3) if rank not in victims)
    outcomes = run_ranks(lose_while_agreeing, 4, delays, init=SMALL, expect_killed=(*victims, 3))
    assert all(outcomes[rank] == left for rank in left)


# ---- groups ----


def group_of_lost(ctx):
    group = ctx.group([0, 2, 3]) if ctx.rank != 1 else None
    ctx.barrier()
    if ctx.rank == 3:
        die()
    if group is None:
        call_until_lost(ctx)
        return
    call_until_lost(group)
    with group.survivors() as survivors:
        assert survivors.ranks == (0, 2)  # as ctx calls them
        assert_sums(survivors)
        pair = survivors.group([0, 1])
        assert pair.ranks == (0, 1)  # as survivors calls them
        assert_sums(pair)
        kept = survivors.ones(4)
        ctx.close()  # which does not close what is not its group any more
        assert_sums(survivors)
    assert kept.tolist() == [1.0] * 4


def test_a_group_has_survivors():
    run_ranks(group_of_lost, 4, init=SMALL, expect_killed=(3,))


def group_without_a_member(ctx):
    """Rank 1 dies before it comes to the group."""
    ctx.barrier()
    if ctx.rank == 1:
        die()
    start = time.monotonic()
    with pytest.raises(iris_c.PeerError, match=r"rank 1 died|rank 1 .* before it came") as caught:
        ctx.group([0, 1, 2])
    assert caught.value.rank == 1
    assert time.monotonic() - start < 5
    with ctx.survivors() as survivors:
        assert_sums(survivors)


def test_a_group_does_not_wait_for_the_dead():
    run_ranks(group_without_a_member, 3, init=SMALL, expect_killed=(1,))


def group_without_who_goes_on(ctx):
    """Rank 0 calls survivors() when rank 1, which has heard of no loss, makes a group with it."""
    ctx.barrier()
    if ctx.rank == 2:
        die()
    start = time.monotonic()
    if ctx.rank == 1:
        with pytest.raises(iris_c.PeerError, match="rank 0 called survivors") as caught:
            ctx.group([0, 1])
        assert caught.value.rank == 0
    with ctx.survivors() as survivors:
        assert time.monotonic() - start < 5
        assert survivors.ranks == (0, 1)
        assert_sums(survivors)


def test_a_group_does_not_wait_for_who_goes_on():
    run_ranks(group_without_who_goes_on, 3, init=SMALL, expect_killed=(2,))


def groups_close(ctx):
    group = ctx.group([0, 1])
    ctx.barrier()
    with ctx.survivors() as survivors:
        assert group.closed
        assert survivors.group([0, 1]) is not group
        assert_sums(survivors.group([0, 1]))


def test_survivors_close_the_groups():
    run_ranks(groups_close, 2, init=SMALL)


# ---- nothing stays behind ----


def memory_goes_with_the_last_tensor():
    iris_c.init(heap_size=1 << 20).close()
    assert maps_of_memory() == []
    descriptors, threads = open_descriptors(), threading.active_count()
    ctx = iris_c.init(heap_size=8 << 20, timeout=10.0)
    first, second = ctx.full((1 << 20,), 3.0), ctx.full((1 << 10,), 4.0)
    workspace = ctx.ops.matmul_all_reduce_preamble(
        torch.empty(4, 4), torch.ones(4, 4), torch.ones(4, 4)
    )
    assert len(maps_of_memory()) == 3
    ctx.barrier()
    if ctx.rank == 1:
        die()
    call_until_lost(ctx)
    survivors = ctx.survivors()
    assert len(maps_of_memory()) == 1 + 2  # the old heap of this rank, and the new ones
    assert first.sum().item() == 3.0 * (1 << 20)
    view = second[5:]
    del first, second
    assert len(maps_of_memory()) == 1 + 2
    assert view[0].item() == 4.0
    del view
    assert len(maps_of_memory()) == 2  # although ctx itself is still there
    assert workspace.call_counter == 0
    assert not ctx.is_symmetric(torch.ones(3))
    assert ctx.get_heap_bases().tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match="closed"):
        ctx.zeros(3)
    assert_sums(survivors)
    survivors.close()
    del ctx, survivors, workspace
    gc.collect()
    assert maps_of_memory() == []
    assert open_descriptors() == descriptors
    assert threading.active_count() == threads


@cases.cpu_only  # a GPU's memory is in no list of mappings
def test_memory_goes_with_the_last_tensor():
    run_ranks(memory_goes_with_the_last_tensor, 3, expect_killed=(1,))


def test_an_orphan_does_not_hide_its_parents_death():
    """A rank's forked child lives longer than the rank."""
    run_ranks(die_with_a_child, 3, init=SMALL, expect_killed=(1,))


def die_with_a_child(ctx):
    ctx.barrier()
    if ctx.rank == 1:
        if os.fork() == 0:
            time.sleep(6)
            os._exit(0)
        die()
    call_until_lost(ctx)
    start = time.monotonic()
    with ctx.survivors() as survivors:
        assert time.monotonic() - start < 4
        assert survivors.ranks == (0, 2)


# ---- the whole ----


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_training_goes_on(seed):
    """One or two of four ranks are killed at random inside random operations."""
    draw = random.Random(seed)
    victims = tuple(draw.sample(range(4), draw.choice((1, 2))))
    delays = {rank: 0.05 + 0.25 * draw.random() for rank in victims}
    outcomes = run_ranks(train_through_deaths, 4, seed, delays, expect_killed=victims)
    left = [outcome for rank, outcome in enumerate(outcomes) if rank not in victims]
    assert len(set(left)) == 1, left  # the same bits everywhere
    assert not [name for name in os.listdir("/dev/shm") if "iris" in name]
