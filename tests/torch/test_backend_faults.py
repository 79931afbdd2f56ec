# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What goes wrong on the torch.distributed backend: it is an error in time, on the ranks that are
left, and nothing stays behind."""

import functools
import os
import signal
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from process_groups import starts_ranks

import iris_c.torch.backend
from iris_c.testing import run_ranks

pytestmark = starts_ranks


def begin(store, seconds=20.0):
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(
        "iris",
        f"file://{store}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=seconds),
    )
    return rank


def _a_rank_dies(store):
    rank = begin(store, 600)
    dist.all_reduce(torch.ones(3))
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    work = dist.all_reduce(torch.ones(1000), async_op=True)
    begun = time.monotonic()
    with pytest.raises(iris_c.PeerError, match="rank 1 died"):
        work.wait()
    with pytest.raises(RuntimeError, match=r"rank 1 died|can only be closed"):
        dist.barrier()
    assert time.monotonic() - begun < 30
    assert isinstance(work.exception(), iris_c.PeerError)
    dist.destroy_process_group()


def _another_collective(store):
    rank = begin(store)
    call = functools.partial(dist.broadcast, torch.ones(5), 0) if rank else functools.partial(
        dist.all_reduce, torch.ones(7)
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"(?s)the ranks called different.*all_reduce.*broadcast"):
        call()
    value = torch.ones(2)  # the group goes on
    dist.all_reduce(value)
    assert value.tolist() == [dist.get_world_size()] * 2
    with pytest.raises(ValueError, match=r"(?s)the ranks called different"):
        if rank:
            dist.all_to_all_single(torch.ones(2), torch.ones(2), [1, 1], [1, 1])
        else:
            dist.all_reduce(torch.ones(7))
    dist.all_reduce(value)
    dist.destroy_process_group()


def _one_does_not_come(store):
    rank = begin(store, 600)
    group = dist.new_group(timeout=timedelta(seconds=2))
    dist.barrier(group)
    with pytest.raises(RuntimeError, match=r"Ranks? 1.* failed to pass monitoredBarrier in 500 ms"):
        if rank == 1:
            time.sleep(3)  # it comes too late, and is told
        dist.barrier(timeout=timedelta(seconds=0.5))
    if rank != 1:
        with pytest.raises((iris_c.PeerError, iris_c.SignalTimeout), match="rank 1"):
            dist.all_reduce(torch.ones(3), group=group)
        never = dist.group.WORLD.split_group([0, 1, 2], timeout=timedelta(seconds=1))
        with pytest.raises(RuntimeError, match="Timed out after 1 s: rank 1 of 3 did not come"):
            never.allreduce(torch.ones(1)).wait()
    value = torch.ones(2)  # the barrier's own time has ended no more than the waiting
    dist.all_reduce(value)
    assert value.tolist() == [3] * 2
    dist.group.WORLD.monitored_barrier(timedelta(seconds=10), wait_all_ranks=True)
    dist.destroy_process_group()


def _aborts(store):
    """abort() ends a call that waits, and those behind it; Ctrl-C ends a wait."""
    rank = begin(store, 600)
    dist.barrier()
    if rank == 0:
        works = [dist.all_reduce(torch.ones(3), async_op=True) for _ in range(2)]
        with pytest.raises(dist.DistBackendError, match=r"Timed out waiting 0\.1 s"):
            works[0].wait(timedelta(seconds=0.1))
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            works[0].wait()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            dist.all_reduce(torch.ones(1), group=dist.group.WORLD)
        begun = time.monotonic()
        group = dist.group.WORLD
        dist.distributed_c10d._abort_process_group()
        assert time.monotonic() - begun < 20
        for work in works:
            with pytest.raises(RuntimeError, match=r"interrupted|aborted|closed"):
                work.wait()
        with pytest.raises(RuntimeError, match="allreduce: the process group is aborted"):
            group.allreduce(torch.ones(1))
    else:
        time.sleep(1.5)
        with pytest.raises(iris_c.PeerError, match=r"rank 0 (was interrupted|left|closed)"):
            dist.barrier()
        dist.destroy_process_group()


def _ends(store):
    """What was asked for is carried out before the end; groups begin anew under the same names."""
    rank = begin(store)
    works = []
    for _ in range(3):
        value = torch.ones(1 << 16)
        works.append((value, dist.all_reduce(value, async_op=True)))
    dist.destroy_process_group()
    assert all(value.unique().tolist() == [2] for value, _ in works)
    assert all(work.is_success() for _, work in works)
    threads = [t.name for t in threading.enumerate()]
    assert not any("iris_c" in name for name in threads), threads
    for again in range(2):
        begin(f"{store}{again}")
        groups = [dist.new_group([0, 1]) for _ in range(3)]
        for group in groups:
            dist.all_gather_object([None, None], rank, group=group)
        dist.destroy_process_group()
    open_files = len(os.listdir("/proc/self/fd"))
    begin(f"{store}last")
    dist.all_reduce(torch.ones(1))
    dist.destroy_process_group()
    assert len(os.listdir("/proc/self/fd")) <= open_files + 4


@pytest.mark.parametrize(
    ("body", "world_size", "killed"),
    [
        ("_a_rank_dies", 3, (1,)),
        ("_another_collective", 2, ()),
        ("_one_does_not_come", 3, ()),
        ("_aborts", 2, ()),
        ("_ends", 2, ()),
    ],
)
def test_fault(body, world_size, killed, tmp_path):
    before = set(os.listdir("/dev/shm"))
    run_ranks((__name__, body), world_size, str(tmp_path / "store"), expect_killed=killed)
    left = set(os.listdir("/dev/shm")) - before
    assert not any("iris" in name for name in left)
