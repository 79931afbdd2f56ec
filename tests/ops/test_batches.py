# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""sendrecv, and batch: several sends and receipts at once."""

import random

import cases
import pytest
import torch

from iris_c.ccl import Recv, Send
from iris_c.testing import ranks

# More than the buffers between two ranks hold, so that a send ends only when it is received.
LARGE = 3 << 20


def filled(n: int, value: int) -> torch.Tensor:
    """n bytes that another rank can compute too."""
    return torch.empty(n, dtype=torch.uint8).copy_(cases.contribution(value, n, torch.int64))


def poisoned(n: int) -> torch.Tensor:
    return torch.full((n,), 0x55, dtype=torch.uint8)


@ranks(1, 2, 3, 4)
def test_a_ring(ctx):
    """Every rank sends and receives at once, more than fits into the buffers; alone it copies."""
    right, left = (ctx.rank + 1) % ctx.world_size, (ctx.rank - 1) % ctx.world_size
    for n in (0, 1, 4099, LARGE):
        got = poisoned(n)
        ctx.ccl.sendrecv(got, filled(n, ctx.rank), right, left)
        assert torch.equal(got, filled(n, left)), n
    ctx.barrier()


@ranks(2, 3)
def test_its_partner_may_send_and_receive(ctx):
    n = 1000
    if ctx.rank == 0:
        got = poisoned(n)
        ctx.ccl.sendrecv(got, filled(n, 0), 1, 1)
        assert torch.equal(got, filled(n, 1))
    elif ctx.rank == 1:
        got = poisoned(n)
        ctx.ccl.send(filled(n, 1), 0)
        ctx.ccl.recv(got, 0)
        assert torch.equal(got, filled(n, 0))
    ctx.barrier()


@ranks(2, 3, 4)
def test_batches_in_any_order(ctx):
    """Some messages for every ordered pair of ranks, a rank's own among them, shuffled by each rank
    as it likes; those of one pair keep their order."""
    world, rank = ctx.world_size, ctx.rank
    for seed in range(6):
        plan = random.Random(seed)
        sizes = {
            (src, dst, k): plan.choice([0, 5, 4096, 100_003, LARGE])
            for src in range(world)
            for dst in range(world)
            for k in range(plan.randrange(3))
        }
        order = random.Random(seed * 100 + rank)
        queues = {}
        for (src, dst, k), n in sizes.items():
            value = 1 + k + 10 * src + 100 * dst
            if src == rank:
                queues.setdefault(("to", dst), []).append((Send(filled(n, value), dst), None))
            if dst == rank:
                wanted = filled(n, value)
                queues.setdefault(("from", src), []).append((Recv(poisoned(n), src), wanted))
        messages = []
        while queues:
            key = order.choice(sorted(queues))
            messages.append(queues[key].pop(0))
            if not queues[key]:
                del queues[key]
        ctx.ccl.batch([message for message, _ in messages])
        for message, wanted in messages:
            assert wanted is None or torch.equal(message.tensor, wanted), (seed, message.src)
    ctx.barrier()


@ranks(3)
def test_within_a_group(ctx):
    """Ranks are named as outside the group; the one that is left out does not call."""
    members = [0, 2]
    if ctx.rank in members:
        other = members[1 - members.index(ctx.rank)]
        got = poisoned(77)
        ctx.ccl.sendrecv(got, filled(77, ctx.rank), other, other, group=members)
        assert torch.equal(got, filled(77, other))
        got = poisoned(78)
        ctx.ccl.batch([Recv(got, other), Send(filled(78, ctx.rank), other)], group=members)
        assert torch.equal(got, filled(78, other))
    ctx.barrier()


@ranks(2)
def test_an_empty_batch(ctx):
    before = ctx.heap_used
    for messages in ([], ()):
        assert ctx.ccl.batch(messages) is None
    ctx.barrier()
    assert ctx.heap_used == before


@ranks(2)
def test_mistakes_are_named(ctx):
    """Nothing is sent by a call with one, so the messages that follow are whole."""
    a, b, other = torch.zeros(8), torch.ones(8), 1 - ctx.rank
    for messages, error, text in (
        ([7], TypeError, r"messages\[0\]: expected a ccl.Send or ccl.Recv, got int"),
        (7, TypeError, "messages: expected a sequence of ccl.Send and ccl.Recv, got int"),
        ([Send(b, other), Send(None, 0)], TypeError, r"messages\[1\]\.tensor: expected"),
        ([Send(b, 2)], ValueError, "dst: expected a rank, 0 to 1, got 2"),
        ([Recv(a, -1)], ValueError, "src: expected a rank, 0 to 1, got -1"),
        ([Send(b, "x")], TypeError, "dst: expected"),
        ([Recv(a, other), Send(a, other)], ValueError, r"\[0\].tensor: expected memory apart"),
        ([Recv(a, other), Recv(a, other)], ValueError, r"\[0\].tensor: expected memory apart"),
        ([Send(b, ctx.rank)], ValueError, r"messages\[0\].tensor: .* only sent"),
        ([Recv(a, ctx.rank)], ValueError, r"messages\[0\].tensor: .* only received"),
        (
            [Send(b, ctx.rank), Recv(a[:3], ctx.rank)],
            ValueError,
            r"messages\[1\].tensor: expected 32 bytes, as are sent in messages\[0\].tensor, got 12",
        ),
        ([Send(b, other)] * 1025, ValueError, "messages: expected at most 1024, got 1025"),
    ):
        with pytest.raises(error, match=text):
            ctx.ccl.batch(messages)
    with pytest.raises(ValueError, match=r"recv_tensor: expected memory apart from"):
        ctx.ccl.sendrecv(a, a, other, other)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'src'"):
        ctx.ccl.sendrecv(a, b, other)
    ctx.ccl.sendrecv(a, b * (ctx.rank + 1), other, other)
    assert torch.equal(a, b * (other + 1))


class Slippery(list):
    """Reading an item empties the list."""

    def __iter__(self):
        return iter(())

    def __getitem__(self, index):
        self.clear()
        raise IndexError(index)


@ranks(1)
def test_a_list_that_changes_while_it_is_read(ctx):
    class Item:
        def __init__(self, items):
            self.items = items

        @property
        def tensor(self):
            self.items.clear()
            return torch.zeros(4)

        dst = 0

    items = []
    items.extend([Item(items), Recv(torch.empty(4), 0)])
    ctx.ccl.batch(items)
    assert items == []
    ctx.ccl.batch(Slippery([Send(torch.zeros(1), 0)]))
