# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Ctrl-C and other signals' handlers act while a call waits, and the peers hear of it."""

import contextlib
import os
import signal
import threading
import time

import cases
import pytest
import torch
from descriptors import open_descriptors
from waits import waiting

import iris_c
from iris_c.testing import run_ranks

INIT = {"heap_size": 8 << 20, "timeout": 40.0}
PROMISED = 1.0  # seconds from the signal to its exception
SLACK = 4.0  # for a machine that is busy with something else
LARGE = 4 << 20  # elements of a message that no channel holds


class Stop(Exception):
    """What a handler of a test raises."""


def send_signals(*delays, number=signal.SIGINT):
    """Signals to this process so many seconds from now. To start a thread takes long where cores
    are busy, so the time is counted when all have started."""
    begin = threading.Event()

    def send(delay):
        begin.wait()
        time.sleep(delay)
        os.kill(os.getpid(), number)

    for delay in delays:
        threading.Thread(target=send, args=(delay,), daemon=True).start()
    begin.set()


@contextlib.contextmanager
def interrupted(error=KeyboardInterrupt, delay=0.4, number=signal.SIGINT):
    """The block waits, is sent a signal after `delay`, and raises its handler's exception."""
    start = time.monotonic()
    send_signals(delay, number=number)
    with pytest.raises(error):
        yield
    took = time.monotonic() - start
    assert delay * 0.9 < took < delay + PROMISED + SLACK, took


def can_only_be_closed(ctx):
    for call in (ctx.barrier, lambda: ctx.allocate(1), lambda: ctx.group((0, 1))):
        with pytest.raises(RuntimeError, match="it can only be closed"):
            call()
    start = time.monotonic()
    ctx.close()
    assert ctx.closed
    assert time.monotonic() - start < SLACK


def every_wait(ctx):
    """Name and call of all that can wait for a peer."""
    world = ctx.world_size
    x, y = torch.ones(8 * world, 8), torch.ones(8 * world, 8)
    square, out, wide = torch.ones(8, 8), torch.empty(8, 8), torch.empty(8 * world, 8)
    large = torch.zeros(LARGE)
    word = ctx.zeros(1, dtype=torch.int32)
    return {
        "barrier": ctx.barrier,
        "device_barrier": ctx.device_barrier,
        "allocate": lambda: ctx.allocate(64),
        "empty": lambda: ctx.empty(4, 4),
        "matmul_all_reduce": lambda: ctx.ops.matmul_all_reduce(out, square, square),
        "matmul_all_reduce_preamble": lambda: ctx.ops.matmul_all_reduce_preamble(
            out, square, square
        ),
        "matmul_reduce_scatter": lambda: ctx.ops.matmul_reduce_scatter(out, x, square),
        "matmul_all_gather": lambda: ctx.ops.matmul_all_gather(wide, square, square),
        "all_gather_matmul": lambda: ctx.ops.all_gather_matmul(wide, square, square),
        "all_reduce": lambda: ctx.ccl.all_reduce(y, x),
        "all_reduce_preamble": lambda: ctx.ccl.all_reduce_preamble(y, x),
        "reduce_scatter": lambda: ctx.ccl.reduce_scatter(square, x),
        "all_gather": lambda: ctx.ccl.all_gather(wide, square),
        "all_to_all": lambda: ctx.ccl.all_to_all(y, x),
        "broadcast": lambda: ctx.ccl.broadcast(y, 2),
        "reduce": lambda: ctx.ccl.reduce(y, x, 0),
        "gather": lambda: ctx.ccl.gather(y, square, 0),
        "scatter": lambda: ctx.ccl.scatter(square, y, 2),
        "send": lambda: ctx.ccl.send(large, 2),
        "recv": lambda: ctx.ccl.recv(large, 2),
        "sendrecv": lambda: ctx.ccl.sendrecv(large, torch.ones(4), 2, 2),
        "batch": lambda: ctx.ccl.batch(
            [iris_c.ccl.Send(torch.ones(4), 2), iris_c.ccl.Recv(large, 2)]
        ),
        "wait": lambda: ctx.wait(word, 1),
        "ccl.barrier": ctx.ccl.barrier,
        "trace": lambda: ctx._trace(),
    }


EVERY_WAIT = [
    "barrier", "device_barrier", "allocate", "empty", "matmul_all_reduce",
    "matmul_all_reduce_preamble", "matmul_reduce_scatter", "matmul_all_gather",
    "all_gather_matmul", "all_reduce", "all_reduce_preamble", "reduce_scatter", "all_gather",
    "all_to_all", "broadcast", "reduce", "gather", "scatter", "send", "recv", "sendrecv", "batch",
    "wait", "ccl.barrier", "trace",
]  # fmt: skip


def interrupted_in(ctx, name):
    """Rank 2 never comes; rank 0 is interrupted; rank 1 waits beside it, rank 2 comes later."""
    calls = every_wait(ctx)
    assert list(calls) == EVERY_WAIT
    ctx.barrier()
    told = None
    if ctx.rank == 0:
        with interrupted():
            waiting(ctx, calls[name])()
        can_only_be_closed(ctx)
    else:
        time.sleep(1.2 if ctx.rank == 2 else 0)
        start = time.monotonic()
        with pytest.raises(iris_c.PeerError) as caught:
            (waiting(ctx, calls[name]) if ctx.rank == 1 else ctx.barrier)()
        assert time.monotonic() - start < 0.4 + PROMISED + 2 * SLACK
        assert caught.value.rank == 0
        told = str(caught.value)
    return told


@pytest.mark.parametrize("name", EVERY_WAIT)
def test_every_wait_is_interrupted_and_the_peers_hear_of_it(name):
    told = run_ranks(interrupted_in, 3, name, init=INIT)
    assert all("rank 0 was interrupted" in text for text in told[1:]), told


def several_threads(ctx):
    """The work-group of the calling thread is through, the others wait."""
    x = torch.ones(256, 64)
    y = torch.empty(256, 256)
    ctx.ops.matmul_all_reduce(y, x, x.t())
    ctx.barrier()
    if ctx.rank == 0:
        with interrupted():
            ctx.ops.matmul_all_reduce(y, x, x.t())
        can_only_be_closed(ctx)
    else:
        time.sleep(1.5)
        with pytest.raises(iris_c.PeerError, match="rank 0 was interrupted"):
            ctx.ops.matmul_all_reduce(y, x, x.t())


@cases.cpu_only
def test_a_call_of_several_threads_is_interrupted():
    run_ranks(several_threads, 2, init=INIT, environment={"IRIS_C_NUM_THREADS": "4"})


def interrupted_in_init(victim):
    """Rank 2 never comes."""
    rank = int(os.environ["RANK"])
    if rank == 2:
        return
    if rank == victim:
        with interrupted(delay=1.0):
            iris_c.init(heap_size=1 << 20, timeout=40)
        return
    start = time.monotonic()
    with pytest.raises(iris_c.PeerError, match=f"init: rank {victim} was interrupted") as caught:
        iris_c.init(heap_size=1 << 20, timeout=40)
    assert caught.value.rank == victim
    assert time.monotonic() - start < 1 + PROMISED + 2 * SLACK


@pytest.mark.parametrize("victim", [0, 1])
def test_after_an_interrupted_init_the_next_one_works(victim):
    run_ranks(interrupted_then_met, 2, victim)


@pytest.mark.parametrize("victim", [0, 1])
def test_init_is_interrupted_and_those_who_wait_hear_of_it(victim):
    run_ranks(interrupted_in_init, 3, victim)


def interrupted_then_met(victim):
    """Nothing is left behind: a second attempt meets under the same name."""
    descriptors = open_descriptors()
    if int(os.environ["RANK"]) == victim:
        with interrupted():
            iris_c.init(heap_size=1 << 20, timeout=40)
        assert open_descriptors() == descriptors
    else:
        time.sleep(1.5)
    with iris_c.init(heap_size=1 << 20, timeout=40) as ctx:
        ctx.barrier()


def handlers_that_return(ctx):
    """They run while the call waits, which then completes as if nothing had been."""
    x, y = torch.ones(1000), torch.empty(1000)
    ctx.barrier()
    ran = []
    if ctx.rank == 0:
        signal.signal(signal.SIGALRM, lambda *_: ran.append(time.monotonic()))
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    all_reduce = waiting(ctx, lambda: ctx.ccl.all_reduce(y, x))
    for call in (all_reduce, ctx.barrier, lambda: ctx.empty(4), all_reduce):
        if ctx.rank == 1:
            time.sleep(0.8)
        before = len(ran)
        y.fill_(float("nan"))
        call()
        assert ctx.rank == 1 or len(ran) - before >= 2
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert torch.equal(y, 2 * x)


def test_a_handler_that_does_not_raise_lets_the_call_go_on():
    run_ranks(handlers_that_return, 2, init=INIT)


def raise_stop(*_):
    raise Stop("enough")


def any_exception(ctx):
    if ctx.rank == 0:
        signal.signal(signal.SIGUSR2, raise_stop)
        with interrupted(Stop, number=signal.SIGUSR2):
            ctx.barrier()
        can_only_be_closed(ctx)
    else:
        time.sleep(1.5)
        with pytest.raises(iris_c.PeerError, match="rank 0 was interrupted"):
            ctx.empty(1)


def test_the_caller_gets_the_exception_of_the_handler():
    run_ranks(any_exception, 2, init=INIT)


def handler_uses_the_context(ctx):
    """It can close it, which the call that it interrupts does when it ends; nothing else."""
    seen = []

    def handler(*_):
        with pytest.raises(RuntimeError, match="in a call of it already"):
            ctx.barrier()
        ctx.close()
        seen.append(ctx.closed)
        raise SystemExit(3)

    if ctx.rank == 0:
        signal.signal(signal.SIGTERM, handler)
        with interrupted(SystemExit, number=signal.SIGTERM):
            waiting(ctx, lambda: ctx.ccl.all_reduce(torch.ones(4), torch.ones(4)))()
        assert seen == [True]
        with pytest.raises(RuntimeError, match="closed"):
            ctx.barrier()
    else:
        time.sleep(1.5)
        with pytest.raises(iris_c.PeerError):
            ctx.barrier()


def test_a_handler_may_close_the_context():
    run_ranks(handler_uses_the_context, 2, init=INIT)


def interrupted_close(ctx, delays):
    """Rank 1 does not take what it was sent, so rank 0's close waits for it."""
    group = ctx.group((0, 1))
    ctx.barrier()
    if ctx.rank == 0:
        descriptors = open_descriptors()
        ctx.ccl.send(torch.ones(8), 1)
        group.ccl.send(torch.ones(8), 1)
        send_signals(*delays)
        start = time.monotonic()
        raised = 0
        try:
            try:
                ctx.close()
            finally:
                time.sleep(max(0.0, start + delays[-1] + 0.5 - time.monotonic()))
        except KeyboardInterrupt:
            raised += 1
        assert raised == 1
        assert time.monotonic() - start < delays[-1] + PROMISED + SLACK
        assert ctx.closed
        assert group.closed
        assert len(open_descriptors()) < len(descriptors)
        ctx.close()
    else:
        time.sleep(2)
        with pytest.raises(iris_c.PeerError):
            ctx.barrier()


@pytest.mark.parametrize("delays", [(0.4,), (0.4, 0.43), (0.4, 0.9)], ids=str)
def test_close_is_interrupted_once_or_twice_and_has_closed(delays):
    run_ranks(interrupted_close, 2, delays, init=INIT)


def close_beside_a_call(ctx):
    """Another thread is in a call: an interrupted close cuts it short."""
    ctx.barrier()
    if ctx.rank == 0:
        errors, x = [], torch.ones(4)
        all_reduce = waiting(ctx, lambda: ctx.ccl.all_reduce(x, x.clone()))

        def call():
            try:
                all_reduce()
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        time.sleep(0.3)
        with interrupted():
            ctx.close()
        thread.join(10)
        assert not thread.is_alive()
        assert "interrupted" in errors[0]
        assert ctx.closed
    else:
        time.sleep(2)
        with pytest.raises(iris_c.PeerError, match="rank 0 was interrupted"):
            ctx.barrier()


def test_an_interrupted_close_cuts_short_what_it_waits_for():
    run_ranks(close_beside_a_call, 2, init=INIT)


def calls_of_other_threads(ctx):
    """The main thread's interrupt is not theirs."""
    ctx.barrier()
    if ctx.rank == 0:
        errors = []

        def call():
            try:
                ctx.barrier()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        with interrupted():
            time.sleep(20)
        thread.join(30)
        assert not errors
    else:
        time.sleep(1.5)
        ctx.barrier()
    ctx.barrier()


def test_calls_on_other_threads_are_not_interrupted():
    run_ranks(calls_of_other_threads, 2, init=INIT)


def long_product(ctx, name):
    """Of a long time, in which nobody is waited for."""
    world, n = ctx.world_size, 4096
    A, B = torch.ones(n, n), torch.ones(n, n)
    calls = {
        "matmul_all_reduce": (torch.empty(n, n), ctx.ops.matmul_all_reduce),
        "all_gather_matmul": (torch.empty(n * world, n), ctx.ops.all_gather_matmul),
    }
    C, function = calls[name]
    if ctx.rank == 0:
        with interrupted(delay=1.0):
            function(C, A, B)
        can_only_be_closed(ctx)
    else:
        with pytest.raises(iris_c.PeerError, match="rank 0 was interrupted"):
            function(C, A, B)  # a gathered product waits for nobody after its shards have come
            ctx.barrier()


@cases.cpu_only
@pytest.mark.parametrize("name", ["matmul_all_reduce", "all_gather_matmul"])
@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_long_products_are_interrupted(name, threads, world_size):
    environment = {"IRIS_C_NUM_THREADS": threads, "IRIS_C_CPU_ISA": "generic"}
    init = {"heap_size": 1 << 30, "timeout": 600.0}  # longer than the deadline
    run_ranks(long_product, world_size, name, init=init, environment=environment, deadline=400)
