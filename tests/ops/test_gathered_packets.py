# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""all_gather by packets and by copies: sizes, places, bytes beside the output, the wrap, faults.
Which of the two a call takes is a matter of tests/api/test_auto_config.py."""

import cases
import pytest
import torch
from waits import waiting

import iris_c
from iris_c.testing import ranks

PACKETS, COPIES = (iris_c.ccl.Config(all_reduce_variant=name) for name in ("ll", "two_shot"))
SIZES = (0, 1, 7, 8, 9, 64, 511, 4099, 70001)
UNTOUCHED = 0x55


def check(ctx, n, config, *, salt=0, on_heap=True, shift=0, in_place=False, workspace=None):
    """Gathers n bytes of each rank into an output that begins `shift` bytes into its memory."""
    world, rank = ctx.world_size, ctx.rank
    whole = ctx.empty(world * n + 16, dtype=torch.uint8)  # collective, wherever the output lies
    if not on_heap:
        whole = torch.empty(world * n + 16, dtype=torch.uint8)
    whole.fill_(UNTOUCHED)
    output = whole[shift : shift + world * n]
    given = output[rank * n : (rank + 1) * n]
    if not in_place:
        given = torch.empty(n + 8, dtype=torch.uint8)[salt % 8 : salt % 8 + n]
    mine = cases.bytes_of(rank, n, salt)
    given.copy_(mine)
    done = ctx.ccl.all_gather(output, given, config=config, workspace=workspace)
    what = (rank, n, salt, on_heap, shift, in_place)
    for source in range(world):
        theirs = cases.bytes_of(source, n, salt)
        assert torch.equal(output[source * n : (source + 1) * n], theirs), (source, *what)
    assert torch.equal(given, mine), what
    beside = torch.cat([whole[:shift], whole[shift + world * n :]])
    assert bool((beside == UNTOUCHED).all()), what
    return done


@ranks(1, 2, 3, 4, 8)
def test_sizes_and_places(ctx):
    for number, n in enumerate(SIZES):
        for turn in range(6):
            check(
                ctx, n, PACKETS, salt=6 * number + turn, on_heap=turn % 2 == 0,
                shift=(0, 8, 1, 2, 4, 7)[turn], in_place=turn in (1, 2, 5),
            )  # fmt: skip


@ranks(2, 3)
def test_every_dtype(ctx):
    for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64):
        output = torch.empty(ctx.world_size * 33, dtype=dtype)
        ctx.ccl.all_gather(output, cases.contribution(ctx.rank, 33, dtype), config=PACKETS)
        for rank in range(ctx.world_size):
            theirs = cases.contribution(rank, 33, dtype)
            assert torch.equal(output.view(-1, 33)[rank], theirs), (rank, dtype)


@ranks(2, 3)
def test_one_workspace_for_both_variants_and_all_sizes(ctx):
    """Small and large in turn, across the wrap of the counter, after which no packet of before may
    look current."""
    workspace = iris_c.FusedWorkspace(ctx, "all_gather")
    check(ctx, 9000, PACKETS, workspace=workspace)
    check(ctx, 70000, COPIES, on_heap=False, workspace=workspace)
    ctx.barrier()
    workspace._set_calls(2**31 - 1 - 20)
    ctx.barrier()
    for turn in range(40):
        n = (0, 9000, 70000, 8, 1000)[turn % 5]
        config = COPIES if turn % 7 in (2, 3) else PACKETS
        check(ctx, n, config, salt=turn, on_heap=turn % 3 == 0, workspace=workspace)
    assert workspace.call_counter == 20


@ranks(2, 3)
def test_the_number_of_work_groups_may_differ(ctx):
    config = iris_c.ccl.Config(comm_sms=ctx.rank + 1, all_reduce_variant="ll")
    for turn in range(10):
        check(ctx, 70001, config, salt=turn)


@ranks(3)
def test_the_variants_of_reductions_are_none_of_a_gather(ctx):
    for name in ("ll_two_shot", "one_shot", "ring", "atomic", "spinlock", "one_shot_legacy"):
        check(ctx, 100, iris_c.ccl.Config(all_reduce_variant=name))


@ranks(2)
def test_ranks_that_differ_hear_of_it(ctx):
    with pytest.raises(ValueError, match=r"all_gather\(200 elements, uint8, ll\)"):
        check(ctx, 100, PACKETS if ctx.rank == 0 else COPIES)
    check(ctx, 100, PACKETS)


@ranks(3, timeout=2.0)
def test_a_peer_that_does_not_come_ends_the_wait(ctx):
    check(ctx, 1000, PACKETS)
    if ctx.rank == 2:
        return
    output, given = (torch.empty(n, dtype=torch.uint8, device=ctx.device) for n in (3000, 1000))
    call = waiting(ctx, lambda: ctx.ccl.all_gather(output, given, config=PACKETS))
    with pytest.raises((iris_c.SignalTimeout, iris_c.PeerError), match="all_gather"):
        call()
