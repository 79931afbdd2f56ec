# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Several threads and one context: what cannot work is refused at once, and says what the other
thread is doing; what can, works."""

import threading
import time

import cases
import pytest
import torch

import iris_c
from iris_c.testing import run_ranks

INIT = {"heap_size": 1 << 22, "timeout": 25.0}


def calls(ctx):
    """Name -> call; those of two ranks are for rank 0."""
    x, y = torch.ones(8), torch.zeros(8)
    square, out = torch.ones(8, 8), torch.zeros(8, 8)
    place, word = ctx.zeros(8), ctx.zeros(1, dtype=torch.int32)
    even = [4, 4]
    return {
        "all_reduce": lambda: ctx.ccl.all_reduce(y, x),
        "broadcast": lambda: ctx.ccl.broadcast(x),
        "matmul_all_reduce": lambda: ctx.ops.matmul_all_reduce(out, square, square),
        "all_to_all": lambda: ctx.ccl.all_to_all(
            y, x, output_split_sizes=even, input_split_sizes=even
        ),
        "barrier": ctx.barrier,
        "device_barrier": ctx.device_barrier,
        "allocate": lambda: ctx.allocate(8),
        "recv": lambda: ctx.ccl.recv(y, 1 - ctx.rank),
        "wait": lambda: ctx.wait(word, consume=True),
        "put": lambda: ctx.put(place, x, 1 - ctx.rank),
        "get": lambda: ctx.get(y, place, 1 - ctx.rank),
        "signal": lambda: ctx.signal(word, 1 - ctx.rank),
        "send": lambda: ctx.ccl.send(x, 1 - ctx.rank),
    }


# What rank 1 calls when it comes to what rank 0's thread is in.
PARTNERS = {"recv": "send", "wait": "signal"}
WAITING = ["all_reduce", "matmul_all_reduce", "all_to_all", "barrier", "device_barrier", "allocate",
           "recv", "wait"]  # fmt: skip


def beside(ctx, name):
    """Rank 0's thread is in `name` until rank 1 comes; meanwhile its main thread tries all else."""
    all_calls = calls(ctx)
    ctx.barrier()
    if ctx.rank == 1:
        time.sleep(3)
        all_calls[PARTNERS.get(name, name)]()
    else:
        failures = []

        def run():
            try:
                all_calls[name]()
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.5)
        start = time.monotonic()
        for other, call in all_calls.items():
            with pytest.raises(RuntimeError, match=rf"^{other}: another thread is in {name} of"):
                call()
                pytest.fail(f"{other} beside {name}")
        assert time.monotonic() - start < 1.5
        assert thread.is_alive()
        thread.join(20)
        assert not failures
    ctx.barrier()
    result = ctx.zeros(4)
    ctx.ccl.all_reduce(result, torch.ones(4))
    assert result.tolist() == [2.0] * 4


@cases.cpu_only
@pytest.mark.parametrize("name", WAITING)
def test_what_could_wait_for_ever_is_refused_at_once(name):
    run_ranks(beside, 2, name, init=INIT)


def close_beside(ctx):
    """close() waits for the other thread's call, which ends as it should."""
    x = torch.zeros(8)
    ctx.barrier()
    if ctx.rank == 1:
        time.sleep(1.5)
        ctx.ccl.all_reduce(x, torch.ones(8))
        return
    thread = threading.Thread(target=ctx.ccl.all_reduce, args=(x, torch.ones(8)))
    thread.start()
    time.sleep(0.3)
    ctx.close()
    thread.join(20)
    assert x.tolist() == [2.0] * 8
    with pytest.raises(RuntimeError, match="closed"):
        ctx.barrier()


def test_close_waits_for_the_call_of_another_thread():
    run_ranks(close_beside, 2, init=INIT)


def calls_alone(ctx):
    """Name -> call, in a world of one; none waits."""
    device = ctx.device
    x, y, w = (torch.ones(64, device=device) for _ in range(3))
    square, out = torch.ones(8, 8, device=device), torch.zeros(8, 8, device=device)
    place, word = ctx.zeros(64), ctx.zeros(1, dtype=torch.int32)
    ops, ccl = ctx.ops, ctx.ccl
    exchange = [iris_c.ccl.Send(x, 0), iris_c.ccl.Recv(y, 0)]
    return {
        "put": lambda: ctx.put(place, x, 0),
        "get": lambda: ctx.get(y, place, 0),
        "signal": lambda: ctx.signal(word, 0),
        "batch": lambda: ccl.batch(exchange),
        "sendrecv": lambda: ccl.sendrecv(y, x, 0, 0),
        "matmul_all_reduce": lambda: ops.matmul_all_reduce(out, square, square),
        "matmul_reduce_scatter": lambda: ops.matmul_reduce_scatter(out, square, square),
        "matmul_all_gather": lambda: ops.matmul_all_gather(out, square, square),
        "all_gather_matmul": lambda: ops.all_gather_matmul(out, square, square),
        "all_gather_matmul_hbm_buffer": lambda: ops.all_gather_matmul_hbm_buffer(
            out, square, square
        ),
        "all_reduce": lambda: ccl.all_reduce(y, x),
        "all_reduce_rmsnorm": lambda: ccl.all_reduce_rmsnorm(y, w, x, None, x),
        "broadcast": lambda: ccl.broadcast(x),
        "all_to_all": lambda: ccl.all_to_all(y, x, output_split_sizes=[64], input_split_sizes=[64]),
        "select_config": lambda: ops.select_config(8, 8, 8, "float32"),
        "tracing": lambda: ops.matmul_all_reduce(out, square, square, trace=True),
        "allocate": lambda: ctx.allocate(8),
        "a workspace": lambda: iris_c.FusedWorkspace(ctx, "all_reduce"),
    }


def close_at_any_moment(name):
    """In a process of its own, for what may end it. A call looks at its arguments before it enters
    the context: there, too, another thread may close it."""
    until, rounds = time.monotonic() + 0.8, 0
    while time.monotonic() < until or rounds < 20:
        ctx = iris_c.init(heap_size=1 << 20, rank=0, world_size=1)
        call, others = calls_alone(ctx)[name], []

        def run(call=call, others=others):
            try:
                while True:
                    call()
            except RuntimeError as error:
                others.append(str(error))

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(rounds % 8 * 4e-4)
        ctx.close()
        for thread in threads:
            thread.join(20)
        assert others == ["context: it is closed"] * 2
        assert ctx.get_cu_count() > 0  # the device's facts stay
        rounds += 1


# One for each way into the context.
CLOSED_BESIDE = ["put", "batch", "matmul_all_reduce", "all_gather_matmul", "all_reduce",
                 "all_reduce_rmsnorm", "broadcast", "all_to_all", "select_config", "tracing",
                 "allocate", "a workspace"]  # fmt: skip


@pytest.mark.parametrize("name", CLOSED_BESIDE)
def test_close_at_any_moment_of_a_call(name):
    run_ranks(close_at_any_moment, 1, name, deadline=120)


class Closes:
    """A number, and Python code that runs when it is asked for."""

    def __init__(self, ctx):
        self.ctx = ctx

    def __index__(self):
        self.ctx.close()
        return 0


def test_no_group_of_a_context_that_is_closed_meanwhile():
    ctx = iris_c.init(heap_size=1 << 20, rank=0, world_size=1)
    with pytest.raises(RuntimeError, match="closed"):
        ctx.group([Closes(ctx)])
    assert not ctx._groups


def close_while_a_group_meets(ctx):
    """Whether a group comes about or not, closing its parent closes it."""
    made = []

    def meet():
        try:
            made.append(ctx.group([0, 1]))
        except (RuntimeError, iris_c.PeerError) as error:
            made.append(error)

    thread = threading.Thread(target=meet)
    thread.start()
    time.sleep(ctx.rank * 0.02)
    ctx.close()
    thread.join(30)
    assert not ctx._groups
    assert isinstance(made[0], Exception) or made[0].closed


def test_close_while_a_group_meets():
    for _ in range(10):
        run_ranks(close_while_a_group_meets, 2, init={"heap_size": 1 << 20, "timeout": 3})


def brief_calls(ctx, threads):
    """put, get and signal from several threads at once, each at its own place."""
    places, words = ctx.zeros(threads, 64), ctx.zeros(threads, dtype=torch.int32)
    peer, failures = 1 - ctx.rank, []
    ctx.barrier()

    def run(number):
        try:
            for turn in range(200):
                value = torch.full((64,), float(turn), device=ctx.device)
                ctx.put(places[number], value, peer)
                ctx.signal(words[number : number + 1], peer, 1, "add")
                ctx.get(torch.empty_like(value), places[number], peer)
        except Exception as error:
            failures.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert not failures
    ctx.barrier()
    assert words.tolist() == [200] * threads
    assert (places == 199).all()


def test_brief_calls_of_several_threads():
    run_ranks(brief_calls, 2, 3, init=INIT)


def test_alone_no_thread_waits_for_a_peer():
    """In a world of one, calls of several threads come one after the other."""
    failures = []
    with iris_c.init(heap_size=1 << 22, rank=0, world_size=1) as ctx:

        def run():
            try:
                for _ in range(300):
                    x = torch.ones(16, device=ctx.device)
                    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
                    ctx.ccl.all_reduce(torch.zeros_like(x), x, workspace=workspace)
                    ctx.device_barrier()
                    ctx.zeros(4)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures


def one_after_the_other(ctx):
    """Threads that take turns, in one order on all ranks."""
    failures = []

    def run(value):
        try:
            x = torch.zeros(4, device=ctx.device)
            ctx.ccl.all_reduce(x, torch.full_like(x, value))
            assert x.tolist() == [2 * value] * 4
        except Exception as error:
            failures.append(error)

    for turn in range(20):
        thread = threading.Thread(target=run, args=(float(turn),))
        thread.start()
        thread.join(20)
    assert not failures


def test_threads_may_take_turns():
    run_ranks(one_after_the_other, 2, init=INIT)
