# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The first error about a peer says in which call it came: the operation and what it was about."""

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


def nobody_comes(names, warm):
    """Rank 1 does not come to the call; rank 0's message."""
    messages = {}
    for name in names:
        with iris_c.init(**INIT) as ctx:
            use_device(ctx)
            call = calls(ctx)[name]
            if warm and name in ("all_reduce", "matmul_all_reduce", "all_gather"):
                call()
            ctx.barrier()
            if ctx.rank == 0:
                with pytest.raises((iris_c.PeerError, iris_c.SignalTimeout)) as caught:
                    call()
                messages[name] = str(caught.value)
            else:
                time.sleep(2.2)
    return messages


@cases.cpu_only  # a GPU's calls are queued, and errors come with those after them
@pytest.mark.parametrize("warm", [False, True], ids=["first call", "second call"])
def test_a_rank_that_does_not_come(warm):
    names = [name for name in CALLS if not warm or "all" in name]
    messages = run_ranks(nobody_comes, 2, names, warm, deadline=120)[0]
    for name in names:
        assert re.match(CALLS[name], messages[name]), messages[name]
    if not warm:
        assert re.search(
            r"rank 1 did not come to the same call, number 1 of this context, within 1.5 s; it has "
            r"come to number 0$",
            messages["all_reduce"],
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
