# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Numbers that the hosts tell each other: Context._exchange."""

import time

import pytest
import torch
from waits import waiting

import iris_c
from iris_c.testing import ranks


@ranks(1, 2, 4)
def test_every_rank_gets_all_numbers(ctx):
    """More calls than the board has slots, some ranks late, with operations in between."""
    A = torch.ones(4)
    for turn in range(600):
        if turn % 100 == 10 * ctx.rank:
            time.sleep(0.002)
        value = (turn - 300) * 10**15 + ctx.rank
        assert ctx._exchange(value) == tuple(value - ctx.rank + r for r in range(ctx.world_size))
        if turn % 7 == 0:
            out = ctx.zeros(4)
            ctx.ccl.all_reduce(out, A)
            assert out.tolist() == [ctx.world_size] * 4
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError, match="value"):
            ctx._exchange(wrong)
    with pytest.raises((ValueError, OverflowError), match="value"):
        ctx._exchange(2**63)


@ranks(2, 3)
def test_another_call_on_another_rank_is_an_error_on_all(ctx):
    """Whichever comes first, with or without a prepared call; then it goes on."""
    A, out = torch.ones(4), ctx.zeros(4)
    last = ctx.world_size - 1
    for prepared in (False, True):
        for alone in (0, last):
            for first in (0, last):
                if ctx.rank != first:
                    time.sleep(0.02)
                with pytest.raises(ValueError, match="the ranks called different operations") as e:
                    if ctx.rank == alone:
                        ctx._exchange(ctx.rank)
                    else:
                        waiting(ctx, lambda: ctx.ccl.all_reduce(out, A))()
                assert "exchange(" in str(e.value)
                assert "all_reduce(" in str(e.value)
                assert ctx._exchange(ctx.rank) == tuple(range(ctx.world_size))
        if not prepared:
            ctx.ccl.all_reduce(out, A)
    ctx.ccl.all_reduce(out, A)
    assert out.tolist() == [ctx.world_size] * 4


@ranks(2)
def test_a_rank_that_has_left_is_named(ctx):
    if ctx.rank == 0:
        with pytest.raises(iris_c.PeerError, match=r"exchange.*rank 1 closed its context"):
            ctx._exchange(1)
    else:
        ctx.close()
        with pytest.raises(RuntimeError, match="closed"):
            ctx._exchange(1)
