# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Who keeps the ranks from meeting does so for as long as the timeout lets it, and is named."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import cases
import pytest

import iris_c
from iris_c.environment import run_key
from iris_c.testing import run_ranks

TIMEOUT = 2.0
NOBODY = 65534


def name_of(key):
    """The name in the abstract space under which the ranks of a run meet."""
    value = 14695981039346656037
    for byte in key.encode():
        value = ((value ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return f"\0iris_c/{os.getuid()}/{value:016x}"


HOLDER = """
import os, socket, sys
name, user, listens = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if user != os.getuid():
    os.setgroups([]); os.setgid(user); os.setuid(user)
held = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
held.bind("\\0" + name)
if listens != "bound":
    held.listen(0)
print("held", flush=True)
kept = []
while listens == "accepts":
    kept.append(held.accept())
sys.stdin.read()
"""


@contextlib.contextmanager
def held_name(user, listens):
    """Another process has the run's name: 'bound' alone, 'listens' without accepting, 'accepts'
    and says nothing."""
    name = name_of(run_key())
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, name[1:], str(user), listens],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def meet(held_on_rank_0_by, listens, ready):
    """Rank 0 lets somebody else have the name before both ranks come."""
    rank = int(os.environ["RANK"])
    with contextlib.ExitStack() as stack:
        if rank == 0:
            pid = stack.enter_context(held_name(held_on_rank_0_by, listens))
            open(f"{ready}-{pid}", "w").close()
        folder, prefix = os.path.split(ready)
        while not any(name.startswith(prefix) for name in os.listdir(folder)):
            time.sleep(0.01)
        start = time.monotonic()
        with pytest.raises(iris_c.PeerError) as caught:
            iris_c.init(heap_size=1 << 20, timeout=TIMEOUT)
        took = time.monotonic() - start
        if rank == 0:  # the name stays held until rank 1 is done, too
            while not os.path.exists(f"{folder}/done"):
                time.sleep(0.01)
        else:
            open(f"{folder}/done", "w").close()
    return str(caught.value), took, [n.rpartition("-")[2] for n in os.listdir(folder)]


@pytest.mark.parametrize("listens", ["bound", "listens", "accepts"])
@pytest.mark.parametrize("user", [NOBODY, None], ids=["another-user", "this-user"])
def test_who_holds_the_name_is_named_on_all_ranks(user, listens, tmp_path):
    if user is not None and os.getuid() != 0:
        pytest.skip("only root can become another user")
    user = os.getuid() if user is None else user
    told = run_ranks(meet, 2, user, listens, str(tmp_path / "held"))
    for text, took, _pids in told:
        assert f"user {user}" in text
        assert took < TIMEOUT + 6, text
    # The kernel tells the process of who listens, to who gets a place in its queue.
    named = [any(f"pid {pid})" in text for pid in pids) for text, _, pids in told]
    assert all(named) if listens == "accepts" else any(named) or listens == "bound", told


def silent_guests(count):
    """Processes that connect to rank 0 and say nothing hold nobody up."""
    name = name_of(run_key())
    rank = int(os.environ["RANK"])
    guests = []
    if rank == 1:
        until = time.monotonic() + 10
        while len(guests) < count and time.monotonic() < until:
            guest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            guest.setblocking(False)
            try:
                guest.connect(name)
                guests.append(guest)
            except OSError:
                guest.close()
                time.sleep(0.01)
        assert len(guests) == count
    start = time.monotonic()
    with iris_c.init(heap_size=1 << 20, timeout=20) as ctx:
        took = time.monotonic() - start
        ctx.barrier()
    for guest in guests:
        guest.close()
    return took


def test_silent_guests_hold_nobody_up():
    took = run_ranks(silent_guests, 2, 20)
    assert took[1] < 8, took  # one after the other they would take 40 s


def stopped_hub(seconds):
    """Rank 0 is stopped while it meets; rank 1 keeps to its own timeout."""
    rank = int(os.environ["RANK"])
    if rank == 0:
        pid = os.getpid()
        if os.fork() == 0:
            time.sleep(0.5)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)
            os._exit(0)
    else:
        time.sleep(1.5)
    start = time.monotonic()
    with pytest.raises(iris_c.PeerError):
        iris_c.init(heap_size=1 << 20, timeout=TIMEOUT)
    return time.monotonic() - start


def test_a_stopped_rank_0_is_not_waited_for():
    assert run_ranks(stopped_hub, 2, 6)[1] < TIMEOUT + 3


def out_of_descriptors():
    """Rank 0 may open one more, the socket that listens."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filling = []
    if os.environ["RANK"] == "0":
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        with contextlib.suppress(OSError):
            while True:
                filling.append(os.dup(0))
        os.close(filling.pop())
    with pytest.raises(iris_c.PeerError) as caught:
        iris_c.init(heap_size=1 << 20, timeout=TIMEOUT)
    if filling:
        filling.append(os.dup(0))  # the one that was left has been given back
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
    for fd in filling:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
    return str(caught.value)


@cases.cpu_only  # a GPU's driver wants descriptors, too
def test_a_rank_0_without_descriptors_says_so():
    told = run_ranks(out_of_descriptors, 2)
    assert "cannot take their connections: Too many open files" in told[0], told
