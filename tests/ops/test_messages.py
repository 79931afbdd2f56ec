# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""send, recv, and all_to_all with a size for each pair of ranks."""

import time

import cases
import pytest
import torch

import iris_c
from iris_c.testing import RankFailure, ranks, run_ranks

CHUNK, SLOTS = 32 << 10, 4
# Around a chunk, the slots of a lane, and those of all lanes.
SIZES = [0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 3, 150 * CHUNK + 5]


def filled(n: int, value) -> torch.Tensor:
    """n bytes that are another rank's to compute."""
    return torch.empty(n, dtype=torch.uint8).copy_(cases.contribution(value, n, torch.int64))


@ranks(2, 3)
def test_a_message(ctx):
    """In both directions between all pairs, one after the other."""
    for number, n in enumerate(SIZES):
        for src in range(ctx.world_size):
            for dst in range(ctx.world_size):
                if src == dst:
                    continue
                if ctx.rank == src:
                    ctx.ccl.send(filled(n, src + number), dst)
                if ctx.rank == dst:
                    got = torch.full((n,), 0x55, dtype=torch.uint8)
                    ctx.ccl.recv(got, src)
                    assert torch.equal(got, filled(n, src + number)), (n, src, dst)
    ctx.barrier()  # a rank that leaves ends what the others still do


@ranks(2)
def test_messages_keep_their_order_and_the_buffers_their_room(ctx):
    """What fits into a lane's slots is sent before anybody receives."""
    sizes = [100, 0, CHUNK, 3]
    if ctx.rank == 0:
        for number, n in enumerate(sizes):
            ctx.ccl.send(filled(n, number), 1)
    ctx.barrier()
    if ctx.rank == 1:
        for number, n in enumerate(sizes):
            got = torch.empty(n, dtype=torch.uint8)
            ctx.ccl.recv(got, 0)
            assert torch.equal(got, filled(n, number))


@ranks(2)
def test_any_dtype_and_shape(ctx):
    for dtype in (torch.float64, torch.bfloat16, torch.bool, torch.int64):
        tensor = torch.empty(3, 5, 7, dtype=dtype).copy_(
            cases.contribution(5, 105, dtype).view(3, 5, 7)
        )
        if ctx.rank == 0:
            ctx.ccl.send(tensor, dst=1)
        else:
            got = torch.zeros(3, 5, 7, dtype=dtype)
            ctx.ccl.recv(got, src=0)
            assert torch.equal(got, tensor)


def split_sizes(world: int, largest: int, salt: int) -> torch.Tensor:
    """[source][target] rows; some of them none."""
    generator = torch.Generator().manual_seed(salt)
    sizes = torch.randint(0, largest, (world, world), generator=generator, device="cpu")
    return sizes * torch.randint(0, 2, (world, world), generator=generator, device="cpu")


@ranks(1, 2, 3, 4)
def test_all_to_all_with_sizes(ctx):
    world, rank = ctx.world_size, ctx.rank
    for salt, (largest, width) in enumerate(((1, 1), (5, 3), (3000, 7), (90000, 1))):
        for dtype in (torch.float32, torch.bfloat16):
            sizes = split_sizes(world, largest, salt)

            def part(source, target, sizes=sizes, width=width, dtype=dtype):
                rows = int(sizes[source][target])
                return cases.contribution(world * source + target, rows * width, dtype).view(
                    rows, width
                )

            given = torch.cat([part(rank, target) for target in range(world)])
            output = torch.full((int(sizes[:, rank].sum()), width), float("nan"), dtype=dtype)
            ctx.ccl.all_to_all(
                output, torch.empty(given.shape, dtype=dtype).copy_(given),
                output_split_sizes=sizes[:, rank].tolist(), input_split_sizes=sizes[rank].tolist(),
            )  # fmt: skip
            expected = torch.cat([part(source, rank) for source in range(world)])
            assert torch.equal(output, expected), (largest, width, dtype)


@ranks(2)
def test_mistakes_are_named(ctx):
    tensor, other = torch.zeros(4), 1 - ctx.rank
    for rank in (-1, 2, ctx.rank):
        with pytest.raises(ValueError, match=f"dst: expected another rank.*got {rank}"):
            ctx.ccl.send(tensor, rank)
    with pytest.raises(ValueError, match="tensor: expected a contiguous tensor"):
        ctx.ccl.recv(torch.zeros(4, 4).t()[1:], other)
    with pytest.raises(ValueError, match="input_split_sizes: expected sizes"):
        ctx.ccl.all_to_all(torch.zeros(4), tensor, output_split_sizes=[2, 2])
    with pytest.raises(ValueError, match=r"output_split_sizes: expected 2 sizes.*got 3"):
        ctx.ccl.all_to_all(
            torch.zeros(4), tensor, output_split_sizes=[1, 1, 2], input_split_sizes=[2, 2]
        )
    for wrong in ([3, 2], [1, 2], [-1, 5]):
        with pytest.raises(ValueError, match="input_split_sizes: expected sizes"):
            ctx.ccl.all_to_all(
                torch.zeros(4), tensor, output_split_sizes=[2, 2], input_split_sizes=wrong
            )
    own = [1, 3] if ctx.rank == 0 else [3, 1]
    with pytest.raises(ValueError, match="from this rank to itself"):
        ctx.ccl.all_to_all(
            torch.zeros(4), tensor, output_split_sizes=own, input_split_sizes=own[::-1]
        )
    if ctx.rank == 0:
        ctx.ccl.send(tensor, other)  # nothing above has left a trace
    else:
        ctx.ccl.recv(tensor, other)


@cases.cpu_only
@ranks(2)
def test_sizes_that_differ(ctx):
    """Both ranks are told, at the latest when they next do something together."""
    with pytest.raises(
        ValueError,
        match="one size at both ends of a message, got 400 bytes sent "
        "by rank 0 and 396 bytes to be received by rank 1",
    ):
        if ctx.rank == 0:
            ctx.ccl.send(torch.zeros(100), 1)
            while True:
                ctx.ccl.recv(torch.zeros(1), 1)
        else:
            ctx.ccl.recv(torch.zeros(99), 0)


def waits_for_nobody(ctx):
    """Whichever gives up first."""
    with pytest.raises((iris_c.SignalTimeout, iris_c.PeerError)) as error:
        ctx.ccl.recv(torch.zeros(10), 1 - ctx.rank)
    return str(error.value)


@cases.cpu_only
def test_a_wait_for_a_message_is_bounded():
    said = run_ranks((__name__, "waits_for_nobody"), 2, init={"heap_size": 1 << 20, "timeout": 1.0})
    assert any("did not signal a piece of its message within 1 s" in text for text in said), said


def sends_without_a_receiver(ctx):
    if ctx.rank == 0:
        ctx.ccl.send(torch.zeros(64 << 20, dtype=torch.uint8), 1)
    else:
        time.sleep(3)


@cases.cpu_only
def test_a_wait_for_room_is_bounded():
    with pytest.raises(RankFailure, match="rank 1 did not signal the receipt of a piece"):
        run_ranks(
            (__name__, "sends_without_a_receiver"), 2, init={"heap_size": 1 << 20, "timeout": 1.0}
        )
