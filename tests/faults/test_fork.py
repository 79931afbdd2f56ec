# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A process forks while its threads are in calls: the child is told at once, the parent goes on."""

import gc
import os
import subprocess
import sys
import threading
import time
import traceback
import warnings

import cases
import pytest
import torch
from descriptors import ON_GPU, open_descriptors

import iris_c
from iris_c.testing import run_ranks

INIT = {"heap_size": 1 << 22, "timeout": 20.0}


def in_child(body, limit=15.0):
    """Runs `body` in a forked child; what it raises, or None. Fails if it takes longer."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        text = "None"
        try:
            body()
        except BaseException:  # told to the parent, whatever it is
            text = traceback.format_exc()
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    until = time.monotonic() + limit
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > until:
            where = open(f"/proc/{pid}/wchan").read()
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            pytest.fail(f"the child hangs in {where}")
        time.sleep(0.01)
    with os.fdopen(reading) as file:
        return file.read() if ended[1] == 0 else f"the child ended with status {ended[1]}"


def every_call(ctx):
    """Name and call of all that a context and what belongs to it can be asked to do."""
    x, y = torch.ones(8, 8), torch.ones(8, 8)
    wide = torch.empty(8 * ctx.world_size, 8)
    word, buffer = ctx.zeros(1, dtype=torch.int32), ctx.allocate(8, "uint8")
    workspace = ctx.ops.matmul_all_reduce(y, x, x)
    peer = ctx.world_size - 1
    calls = {
        "barrier": ctx.barrier,
        "device_barrier": ctx.device_barrier,
        "allocate": lambda: ctx.allocate(8),
        "zeros": lambda: ctx.zeros(4),
        "group": lambda: ctx.group((ctx.rank,)),
        "put": lambda: ctx.put(word, word, peer),
        "get": lambda: ctx.get(word, word, peer),
        "signal": lambda: ctx.signal(word, peer),
        "wait": lambda: ctx.wait(word, 0),
        "matmul_all_reduce": lambda: ctx.ops.matmul_all_reduce(y, x, x),
        "preamble": lambda: ctx.ops.matmul_all_reduce_preamble(y, x, x),
        "all_gather_matmul": lambda: ctx.ops.all_gather_matmul(wide, x, x),
        "all_reduce": lambda: ctx.ccl.all_reduce(y, x),
        "broadcast": lambda: ctx.ccl.broadcast(y, 0),
        "copy_from_host": lambda: buffer.copy_from_host(bytes(8)),
        "copy_to_host": lambda: buffer.copy_to_host(bytearray(8)),
        "clear": workspace.clear,
        "reset": workspace.reset,
        "call_counter": lambda: workspace.call_counter,
        "FusedWorkspace": lambda: iris_c.FusedWorkspace(ctx),
    }
    if ctx.world_size > 1:
        calls["send"] = lambda: ctx.ccl.send(x, 1 - ctx.rank)
        calls["recv"] = lambda: ctx.ccl.recv(y, 1 - ctx.rank)
    return calls


def all_are_refused(ctx, calls):
    for name, call in calls.items():
        start = time.monotonic()
        with pytest.raises(RuntimeError, match="parent process"):
            call()
            pytest.fail(f"{name} was not refused")
        assert time.monotonic() - start < 1, name
    assert "rank=" in repr(ctx)
    assert ctx.heap_used >= 0
    ctx.close()
    calls.clear()


def held_in(call, ctx):
    """Another thread is in `call` until its peer comes."""
    failures = []

    def run():
        try:
            call()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()
    return thread, failures


# Of a GPU's calls, those in which the host waits.
IN_FLIGHT = ["barrier", "allocate"]
IN_FLIGHT += [
    pytest.param(name, marks=cases.cpu_only)
    for name in ("all_reduce", "matmul_all_reduce", "recv", "device_barrier")
]


def fork_beside(ctx, name):
    calls = every_call(ctx)
    ctx.barrier()
    if ctx.rank == 0:
        thread, failures = held_in(calls[name], ctx)
        told = in_child(lambda: all_are_refused(ctx, calls))
        assert told == "None", told
        open(os.environ["IRIS_C_TEST_GO"], "w").close()
        thread.join()
        assert not failures
    else:
        until = time.monotonic() + 18
        while not os.path.exists(os.environ["IRIS_C_TEST_GO"]) and time.monotonic() < until:
            time.sleep(0.01)
        calls["send" if name == "recv" else name]()
    ctx.barrier()
    x = ctx.ones(4)
    ctx.ccl.all_reduce(x, x.clone())
    assert x.tolist() == [2.0] * 4


@pytest.mark.parametrize("name", IN_FLIGHT)
def test_calls_in_a_child_are_refused_while_a_thread_is_in(name, tmp_path):
    environment = {"IRIS_C_TEST_GO": str(tmp_path / "go")}
    run_ranks(fork_beside, 2, name, init=INIT, environment=environment)


def own_world(rank, world_size, key):
    """The child's context, alone or with other processes."""
    os.environ["TORCHELASTIC_RUN_ID"] = key
    with iris_c.init(heap_size=1 << 20, rank=rank, world_size=world_size, timeout=30) as ctx:
        x = ctx.ones(4)
        ctx.ccl.all_reduce(x, x.clone())
        assert x.tolist() == [float(world_size)] * 4


def fork_and_init(ctx, key):
    """Children of both ranks meet each other, with names that their parents have used."""
    ctx.barrier()
    assert in_child(lambda: own_world(0, 1, key)) == "None"
    told = in_child(lambda: own_world(ctx.rank, 2, key), 40)
    assert told == "None", told
    # What a parent has counted is no concern of its child: rank 1's has had one more.
    with iris_c.init(heap_size=1 << 20):
        pass
    told = in_child(lambda: own_world(1 - ctx.rank, 2, key), 40)
    assert told == "None", told
    ctx.barrier()


@cases.cpu_only  # a GPU's driver does not work in a forked child
def test_a_childs_own_contexts_work():
    run_ranks(fork_and_init, 2, "children", init=INIT)


def fork_beside_init():
    """A thread of each rank meets, and closes, over and over while the main thread forks."""
    stop, failures = threading.Event(), []

    def meet():
        for _ in range(30):
            try:
                with iris_c.init(heap_size=1 << 20, timeout=20) as ctx:
                    ctx.ccl.all_reduce(torch.empty(4), torch.ones(4))
            except Exception as error:
                failures.append(error)
        stop.set()

    # What torch makes when an operator is first used, it makes behind a lock: before the forks.
    torch.empty(4).fill_(1.0).clone().tolist()
    before = open_descriptors()
    thread = threading.Thread(target=meet)
    thread.start()
    forks = 0
    while not stop.is_set() and forks < 40:
        # The child holds no socket of a meeting, and can meet alone itself.
        told = in_child(lambda: own_world(0, 1, "alone"))
        assert told == "None", told
        forks += 1
    thread.join(60)
    assert not failures, failures
    assert forks > 0
    assert open_descriptors() == before


@cases.cpu_only
def test_a_process_forks_while_a_thread_meets_and_closes():
    run_ranks(fork_beside_init, 2)


def sockets():
    return {link for link in open_descriptors() if link.startswith("socket:")}


def children_hold_no_socket():
    """Neither of the one who meets, nor of a context: it would hide the parent's death."""
    if ON_GPU:  # what its driver opens, it opens for good
        iris_c.init(heap_size=1 << 20, rank=0, world_size=1).close()
    before = sockets()

    def meet():
        with pytest.raises(iris_c.PeerError):
            iris_c.init(heap_size=1 << 20, rank=0, world_size=2, timeout=3)

    listening = threading.Thread(target=meet)
    listening.start()
    until = time.monotonic() + 2
    while sockets() == before and time.monotonic() < until:
        time.sleep(0.01)
    assert sockets() != before

    def check():
        assert sockets() <= before

    assert in_child(check) == "None"
    listening.join()


def test_a_child_holds_no_socket_of_its_parent():
    run_ranks(children_hold_no_socket, 1)


def objects_die(ctx):
    """The parent's objects are freed in the child, by count and by collection."""
    held = {"tensor": ctx.ones(64), "buffer": ctx.allocate(8), "group": ctx.group((0, 1)),
            "workspace": ctx.ccl.all_reduce(ctx.ones(4), ctx.ones(4))}  # fmt: skip
    held["self"] = held  # only the collector frees it
    used = ctx.heap_used

    def die():
        assert "parent process" in repr(held["workspace"])
        assert float(held["tensor"].sum()) == 64  # what lies in the heap can be read
        held.clear()
        gc.collect()

    thread, failures = held_in(ctx.barrier, ctx) if ctx.rank == 0 else (None, [])
    told = in_child(die)
    assert told == "None", told
    if thread is None:
        time.sleep(0.6)
        ctx.barrier()
    else:
        thread.join()
    assert not failures
    assert ctx.heap_used == used
    x = held["tensor"]
    held["group"].ccl.all_reduce(x, x.clone())
    assert float(x.sum()) == 128


@cases.cpu_only  # where the child can read what lies in the heap
def test_the_parents_objects_die_in_a_child_and_the_parent_goes_on():
    run_ranks(objects_die, 2, init=INIT)


NORMAL_EXIT = """
import os, threading, time, warnings
import iris_c
warnings.simplefilter("ignore")
ctx = iris_c.init(heap_size=1 << 20, timeout=4, backend="cpu")
word, group = ctx.allocate(1, "int32"), ctx.group((0,))
word.copy_from_host(bytes(4))
def wait():
    try:
        ctx.wait(word, 1)
    except TimeoutError:
        print("timed out", flush=True)
thread = threading.Thread(target=wait)
thread.start()
time.sleep(0.3)
pid = os.fork()
if pid != 0:
    begin = time.monotonic()
    assert os.waitpid(pid, 0)[1] == 0
    assert time.monotonic() - begin < 3, "the child waited for what its parent's thread does"
    thread.join()
    ctx.barrier()
    print("parent done", flush=True)
"""


@cases.cpu_only
def test_a_child_that_exits_as_usual_leaves_its_parent_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NORMAL_EXIT], capture_output=True, cwd=tmp_path, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "timed out" in done.stdout
