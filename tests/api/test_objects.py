# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Context.broadcast_object, and the log of the package."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import iris_c
from iris_c.testing import ranks, run_ranks


class Odd:
    """Cannot be pickled, or not be made again, on the ranks that it names."""

    def __init__(self, at, ranks):
        self.at, self.ranks = at, ranks

    def __getstate__(self):
        if self.at == "pickle":
            raise KeyError("no state")
        return (self.at, self.ranks)

    def __setstate__(self, state):
        self.at, self.ranks = state
        if int(os.environ["RANK"]) in self.ranks:
            raise OSError("not here")


@ranks(1, 2, 4)
def test_every_rank_gets_the_object(ctx):
    last = ctx.world_size - 1
    for src in {0, last}:
        for size in (0, 1, 8000, 8192, 8193, 300_000):
            obj = {"bytes": os.urandom(size), "from": ctx.rank}
            got = ctx.broadcast_object(obj if ctx.rank == src else object, src)
            assert got["from"] == src
            assert (got is obj) == (ctx.rank == src)
            digest = hash(got["bytes"]) if ctx.world_size == 1 else sum(got["bytes"])
            assert len(got["bytes"]) == size
            if ctx.world_size > 1:
                assert ctx._exchange(digest) == (digest,) * ctx.world_size
    assert ctx.broadcast_object("one" if ctx.rank == 0 else None) == "one"
    assert ctx.broadcast_object(src=last) is None


@ranks(2, 3)
def test_errors_are_every_ranks(ctx):
    """And the context goes on."""
    for obj in (lambda: 0, Odd("pickle", ())):
        with pytest.raises(Exception) as caught:
            ctx.broadcast_object(obj, 1)
        if ctx.rank == 1:
            assert not isinstance(caught.value, RuntimeError)
        else:
            assert "broadcast_object: it could not begin on rank(s) 1" in str(caught.value)
    with pytest.raises(Exception) as caught:
        ctx.broadcast_object(Odd("make", (1,)), 0)
    assert isinstance(caught.value, OSError if ctx.rank == 1 else RuntimeError)
    with pytest.raises(ValueError, match=r"src: expected one on all ranks, got 0 on rank 0, 1 on"):
        ctx.broadcast_object("x", ctx.rank)
    for wrong, error in ((ctx.world_size, ValueError), (-1, ValueError), ("0", TypeError),
                         (True, TypeError)):  # fmt: skip
        with pytest.raises(error, match="src: expected"):
            ctx.broadcast_object("x", wrong)
        if ctx.rank == 0:
            with pytest.raises(error, match="src: expected"):
                ctx.broadcast_object("x", wrong)
        else:
            with pytest.raises(RuntimeError, match=r"it could not begin on rank\(s\) 0"):
                ctx.broadcast_object("x", 0)
    with pytest.raises(ValueError, match="the ranks called different operations"):
        if ctx.rank == 0:
            ctx.broadcast_object("x")
        else:
            ctx.ccl.all_reduce(torch.ones(4), torch.ones(4))
    assert ctx.broadcast_object(ctx.rank, 1) == 1


def _late(rank_that_stops):
    # The ranks meet with patience: only then is a second long enough for them to meet again.
    with (
        iris_c.init(heap_size=1 << 20, timeout=30.0),
        iris_c.init(heap_size=1 << 20, timeout=1.0) as ctx,
    ):
        if ctx.rank == rank_that_stops:
            time.sleep(3)
            return
        with pytest.raises((iris_c.PeerError, iris_c.SignalTimeout)):
            ctx.broadcast_object("x")


def _dead(rank_that_dies):
    with iris_c.init(heap_size=1 << 20, timeout=20.0) as ctx:
        if ctx.rank == rank_that_dies:
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(iris_c.PeerError, match=f"rank {rank_that_dies}"):
            for _ in range(1000):
                ctx.broadcast_object(bytes(100_000))


def test_a_rank_that_does_not_come():
    run_ranks(_late, 2, 1, deadline=30)
    run_ranks(_dead, 3, 2, deadline=60, expect_killed=(2,))


@ranks(1, 2)
def test_closed_contexts_say_so(ctx):
    group = ctx.group([ctx.rank])
    assert group.broadcast_object("alone") == "alone"
    group.close()
    with pytest.raises(RuntimeError, match="closed"):
        group.broadcast_object("alone")


@ranks(1, 2)
def test_records_carry_the_rank(ctx):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("iris_c")
    logger.addHandler(handler)
    try:
        ctx.group([ctx.rank]).close()
        assert records == []  # the level is the program's, WARNING unless it says otherwise
        logger.setLevel(logging.DEBUG)
        with ctx.group([ctx.rank]):
            pass
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert [(r.rank, r.world_size, r.name) for r in records] == [(0, 1, "iris_c")] * 2
    assert records[0].getMessage().startswith("rank 0 of 1: joined: backend ")
    assert records[1].getMessage() == "rank 0 of 1: closes"
    assert records[1].filename == "context.py"


def test_nothing_is_configured():
    """No handler but one that does nothing, no level, nothing on stderr."""
    code = (
        "import logging, iris_c\n"
        "logger = logging.getLogger('iris_c')\n"
        "assert [type(h) for h in logger.handlers] == [logging.NullHandler]\n"
        "assert logger.level == logging.NOTSET and logger.propagate\n"
        "assert logging.getLogger().handlers == []\n"
        "with iris_c.init(heap_size=1 << 20, rank=0, world_size=1) as ctx:\n"
        "    ctx = ctx.survivors()\n"
        "ctx.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60,
        cwd="/", check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
