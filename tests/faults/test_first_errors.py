# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The first error about a peer says in which call it came: the operation and what it was about."""

import concurrent.futures
import contextlib
import os
import re
import signal
import time

import cases
import pytest
import torch
from waits import waiting

import iris_c
from iris_c.testing import run_ranks, use_device

INIT = {"heap_size": 1 << 22, "timeout": 1.5}
PRODUCT = r"\(M=8, N=8, K=8, float32, two_shot, blocks \d+x\d+x\d+\)"

# Name -> how the message begins.
CALLS = {
    "all_reduce": r"all_reduce\(8 elements, float32, \w+\)[:,]",
    "all_reduce_preamble": r"all_reduce_preamble\(8 elements, float32, \w+\)[:,]",
    "all_gather": r"all_gather\(\d+ elements, uint8\)[:,]",
    "broadcast": r"broadcast\(\d+ elements, uint8, src=0\)[:,]",
    "matmul_all_reduce": rf"matmul_all_reduce{PRODUCT}[:,]",
    "matmul_all_reduce_preamble": r"matmul_all_reduce_preamble\(M=8, N=8, K=8.*\)[:,]",
    "barrier": "barrier: ",
    "device_barrier": "barrier[:,] ",
    "allocate": "allocation of 100 bytes: ",
    "recv": "recv[:,] ",
    "wait": "wait: ",
}


def calls(ctx):
    x, y = torch.ones(8), torch.zeros(8)
    square, out = torch.ones(8, 8), torch.zeros(8, 8)
    word = ctx.zeros(1, dtype=torch.int32)
    return {
        "all_reduce": lambda: ctx.ccl.all_reduce(y, x),
        "all_reduce_preamble": lambda: ctx.ccl.all_reduce_preamble(y, x),
        "all_gather": lambda: ctx.ccl.all_gather(torch.zeros(16), x),
        "broadcast": lambda: ctx.ccl.broadcast(x),
        "matmul_all_reduce": lambda: ctx.ops.matmul_all_reduce(out, square, square),
        "matmul_all_reduce_preamble": lambda: ctx.ops.matmul_all_reduce_preamble(
            out, square, square
        ),
        "barrier": ctx.barrier,
        "device_barrier": ctx.device_barrier,
        "allocate": lambda: ctx.allocate(100),
        "recv": lambda: ctx.ccl.recv(y, 1),
        "wait": lambda: ctx.wait(word),
    }


def side_by_side(run, asked):
    """`run(ctx, one)` for each of `asked`, all at the same time: most of it is waiting.

    Each has a context of little patience; the ranks meet for it behind a barrier of a patient one.
    """
    with contextlib.ExitStack() as stack:
        patient = stack.enter_context(iris_c.init(heap_size=1 << 20, timeout=60.0))
        contexts = []
        for _ in asked:
            patient.barrier()
            contexts.append(stack.enter_context(iris_c.init(**INIT)))
        patient.barrier()
        with concurrent.futures.ThreadPoolExecutor(len(asked)) as threads:
            return list(threads.map(run, contexts, asked))


def message_of(ctx, asked):
    name, warm = asked
    call = calls(ctx)[name]
    if warm:
        call()
    ctx.barrier()
    if ctx.rank != 0:
        time.sleep(2.5)
        return None
    with pytest.raises((iris_c.PeerError, iris_c.SignalTimeout)) as caught:
        call()
    return str(caught.value)


def nobody_comes(asked):
    """Rank 1 does not come to the call; rank 0's messages."""
    return side_by_side(message_of, asked)


@cases.cpu_only  # a GPU's calls are queued, and errors come with those after them
def test_a_rank_that_does_not_come():
    asked = [(name, False) for name in CALLS]
    asked += [(name, True) for name in ("all_reduce", "matmul_all_reduce", "all_gather")]
    messages = run_ranks(nobody_comes, 2, asked, deadline=120)[0]
    for (name, _), message in zip(asked, messages, strict=True):
        assert re.match(CALLS[name], message), message
    assert re.search(
        r"rank 1 did not come to the same call, number 1 of this context, within 1.5 s; it has "
        r"come to number 0$",
        messages[asked.index(("all_reduce", False))],
    )


def killed(name):
    with iris_c.init(heap_size=1 << 22, timeout=20.0) as ctx:
        use_device(ctx)
        call = waiting(ctx, calls(ctx)[name])
        ctx.barrier()
        if ctx.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(iris_c.PeerError) as caught:
            for _ in range(1000):
                call()
        return str(caught.value)


@pytest.mark.parametrize("name", ["all_reduce", "barrier", "allocate"])
def test_a_rank_that_dies(name):
    message = run_ranks(killed, 2, name, expect_killed=(1,))[0]
    # The death may have been noticed before the call began.
    assert re.match(CALLS[name] + "|all_reduce: |barrier: ", message), message
    assert "rank 1 died" in message


def who_is_named(ctx, asked):
    """Rank 2 does not come; `second` waits for it a moment later than the other, who leaves."""
    name, warm, second = asked
    call = ctx.broadcast_object if name == "broadcast_object" else calls(ctx)[name]
    if warm:
        call()
    ctx.barrier()
    if ctx.rank == 2:
        time.sleep(3.0)
        return None
    if ctx.rank == second:
        time.sleep(0.7)
    with pytest.raises((iris_c.PeerError, iris_c.SignalTimeout)) as caught:
        call()
    ctx.close()
    return caught.value.rank, str(caught.value)


def one_gives_up_first(asked):
    return side_by_side(who_is_named, asked)


@cases.cpu_only  # a GPU's calls are queued, and errors come with those after them
def test_all_name_the_rank_that_did_not_come():
    """Not the one that gave up first, and left."""
    asked = [
        (name, warm, second)
        for name, warm in (
            ("broadcast_object", False),
            ("all_reduce", False),
            ("all_reduce", True),
            ("barrier", False),
        )
        for second in (0, 1)
    ]
    told = run_ranks(one_gives_up_first, 3, asked, deadline=120)
    for case, *said in zip(asked, *told[:2], strict=True):
        for rank, text in said:
            assert rank == 2, (case, text)
            assert "rank 2" in text or "rank(s) 2" in text, (case, text)
    left = "closed its context, after it had waited in vain for rank 2"
    assert left in told[0][0][1], told[0][0]
    assert left in told[1][1][1], told[1][1]
