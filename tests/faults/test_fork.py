# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A process forks while its threads are in calls: the child is told at once, the parent goes on."""

import os
import threading
import time
import traceback
import warnings

import pytest
import torch

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
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > until:
            where = open(f"/proc/{pid}/wchan").read()
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            pytest.fail(f"the child hangs in {where}")
        time.sleep(0.01)
    with os.fdopen(reading) as file:
        return file.read()


def every_call(ctx):
    """Name and call of all that a context and what belongs to it can be asked to do."""
    x, y = torch.ones(8, 8), torch.ones(8, 8)
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
        "all_gather_matmul": lambda: ctx.ops.all_gather_matmul(
            torch.empty(8 * ctx.world_size, 8), x, x
        ),
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


IN_FLIGHT = ["barrier", "allocate", "all_reduce", "matmul_all_reduce", "recv", "device_barrier"]


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
