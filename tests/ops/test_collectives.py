# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""ccl: every operation, size and place of its tensors against what the ranks must have sent."""

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks

SIZES = [1, 2, 7, 255, 2048, 4099, (1 << 20) // 4 + 3]
MOVABLE = [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64]


def place(ctx, n: int, dtype: torch.dtype, on_heap: bool) -> torch.Tensor:
    return ctx.empty(n, dtype=dtype) if on_heap else torch.empty(n, dtype=dtype)


@pytest.mark.parametrize("variant", ["one_shot", "two_shot", None])
@ranks(1, 2, 3, 4, 8)
def test_all_reduce(ctx, variant):
    config = iris_c.ccl.Config(all_reduce_variant=variant)
    for number, n in enumerate(SIZES):
        for dtype in cases.DTYPES:
            output = cases.poisoned(place(ctx, n, dtype, number % 2 == 0))
            given = place(ctx, n, dtype, number % 3 == 0).copy_(
                cases.contribution(ctx.rank, n, dtype)
            )
            ctx.ccl.all_reduce(output, given, config=config)
            expected, bound = cases.sums(ctx.world_size, n, dtype)
            cases.check_close(output[None], expected, bound, f"rank {ctx.rank} n {n} {dtype}")
            assert torch.equal(given, cases.contribution(ctx.rank, n, dtype)), (
                "the input was changed"
            )


@ranks(2, 3)
def test_all_reduce_in_place(ctx):
    two_shot = iris_c.ccl.Config(all_reduce_variant="two_shot")
    one_shot = iris_c.ccl.Config(all_reduce_variant="one_shot")
    for on_heap in (True, False):
        tensor = place(ctx, 5000, torch.float32, on_heap)
        tensor.copy_(cases.contribution(ctx.rank, 5000, torch.float32))
        ctx.ccl.all_reduce(tensor, tensor, config=two_shot)
        expected, bound = cases.sums(ctx.world_size, 5000, torch.float32)
        cases.check_close(tensor[None], expected, bound)
        with pytest.raises(ValueError, match="output: expected memory apart from input's"):
            ctx.ccl.all_reduce(tensor, tensor, config=one_shot)
        with pytest.raises(ValueError, match="output: expected memory apart from input's"):
            ctx.ccl.all_reduce(tensor[1:], tensor[:-1], config=two_shot)


@pytest.mark.parametrize("variant", ["ll", "two_shot"])
@ranks(1, 2, 3, 4)
def test_reduce_scatter(ctx, variant):
    config = iris_c.ccl.Config(all_reduce_variant=variant)
    for number, n in enumerate(SIZES[:-1]):
        for dtype in cases.DTYPES:
            output = cases.poisoned(place(ctx, n, dtype, number % 2 == 0))
            given = cases.contribution(ctx.rank, n * ctx.world_size, dtype)
            ctx.ccl.reduce_scatter(output, given, config=config)
            expected, bound = cases.sums(ctx.world_size, n * ctx.world_size, dtype)
            mine = slice(ctx.rank * n, (ctx.rank + 1) * n)
            cases.check_close(output[None], expected[:, mine], bound[:, mine], f"n {n} {dtype}")


@ranks(1, 2, 3, 4)
def test_all_gather(ctx):
    for number, n in enumerate(SIZES):
        for dtype in MOVABLE:
            output = place(ctx, n * ctx.world_size, dtype, number % 2 == 0)
            output.view(torch.uint8).fill_(0x55)
            ctx.ccl.all_gather(output, cases.contribution(ctx.rank, n, dtype))
            for rank in range(ctx.world_size):
                part = output[rank * n : (rank + 1) * n]
                assert torch.equal(part, cases.contribution(rank, n, dtype)), (rank, n, dtype)


@ranks(3)
def test_all_gather_in_place(ctx):
    output = ctx.zeros(3 * 1000)
    own = output[ctx.rank * 1000 : (ctx.rank + 1) * 1000]
    own.copy_(cases.contribution(ctx.rank, 1000, torch.float32))
    ctx.ccl.all_gather(output, own)
    for rank in range(3):
        assert torch.equal(output.view(3, -1)[rank], cases.contribution(rank, 1000, torch.float32))


@ranks(1, 2, 3, 4)
def test_all_to_all(ctx):
    for number, n in enumerate(SIZES):
        for dtype in MOVABLE:
            output = place(ctx, n * ctx.world_size, dtype, number % 2 == 0)
            output.view(torch.uint8).fill_(0x55)
            ctx.ccl.all_to_all(output, cases.contribution(ctx.rank, n * ctx.world_size, dtype))
            for rank in range(ctx.world_size):
                theirs = cases.contribution(rank, n * ctx.world_size, dtype).view(ctx.world_size, n)
                assert torch.equal(output.view(ctx.world_size, n)[rank], theirs[ctx.rank]), (
                    rank,
                    n,
                )


@ranks(1, 2, 3, 4)
def test_broadcast(ctx):
    for number, n in enumerate(SIZES):
        for src in range(ctx.world_size):
            for dtype in (torch.float32, torch.int64, torch.bool):
                tensor = place(ctx, n, dtype, (number + src) % 2 == 0)
                tensor.copy_(cases.contribution(ctx.rank, n, dtype))
                ctx.ccl.broadcast(tensor, src=src)
                assert torch.equal(tensor, cases.contribution(src, n, dtype)), (src, n, dtype)


@ranks(2)
def test_any_shape_and_no_elements(ctx):
    output, given = ctx.zeros(2, 3, 5), torch.ones(2, 3, 5)
    ctx.ccl.all_reduce(output, given)
    assert torch.equal(output, torch.full((2, 3, 5), 2.0))
    for name in ("all_reduce", "all_gather", "all_to_all", "reduce_scatter"):
        getattr(ctx.ccl, name)(ctx.empty(0), torch.empty(0))
    ctx.ccl.broadcast(ctx.empty(0))


@pytest.mark.parametrize("variant", ["ll", "two_shot"])
@ranks(1, 2, 3)
def test_reduce_scatter_reduces_as_asked(ctx, variant):
    world = ctx.world_size
    config = iris_c.ccl.Config(all_reduce_variant=variant)
    for number, n in enumerate((1, 255, 4099)):
        for dtype in cases.REDUCIBLE:
            for op in cases.REDUCTIONS:
                part = place(ctx, n, dtype, number % 2 == 0)
                given = torch.empty(n * world, dtype=dtype)
                given.copy_(cases.reduced_input(ctx.rank, n * world, dtype))
                ctx.ccl.reduce_scatter(part, given, op=op, config=config)
                whole = ctx.empty(n * world, dtype=dtype)
                ctx.ccl.all_gather(whole, part)
                cases.check_reduction(whole, world, op, f"rank {ctx.rank} {n} {dtype} {op}")


def pattern(rank: int, n: int) -> torch.Tensor:
    """What ``rank`` sends: bytes, on the context's device."""
    generator = torch.Generator().manual_seed(rank)
    period = torch.randint(0, 256, (cases.PERIOD,), generator=generator, device="cpu")
    return cases.repeated(period.to(torch.empty(0, dtype=torch.uint8)), n)


@ranks(2, deadline=120, heap_size=1 << 30)
def test_large_and_odd(ctx):
    """A mebibyte, and 33, and a byte, to or from each rank."""
    world, rank = ctx.world_size, ctx.rank
    for n in ((1 << 20) + 1, (33 << 20) + 1):
        mine, whole = pattern(rank, n), pattern(rank, n * world)
        everybody = torch.cat([pattern(r, n) for r in range(world)])
        swapped = torch.cat([pattern(r, n * world).view(world, n)[rank] for r in range(world)])
        output = torch.zeros(n * world, dtype=torch.uint8)
        ctx.ccl.all_gather(output, mine)
        assert torch.equal(output, everybody), f"all_gather {n}"
        ctx.ccl.all_to_all(output, whole)
        assert torch.equal(output, swapped), f"all_to_all {n}"
        output.zero_()
        sizes = [n] * world
        ctx.ccl.all_to_all(output, whole, output_split_sizes=sizes, input_split_sizes=sizes)
        assert torch.equal(output, swapped), f"all_to_all with sizes {n}"
        output.zero_()
        ctx.ccl.gather(output if rank == 1 else None, mine, dst=1)
        assert rank != 1 or torch.equal(output, everybody), f"gather {n}"
        part = torch.zeros(n, dtype=torch.uint8)
        ctx.ccl.scatter(part, whole if rank == 1 else None, src=1)
        assert torch.equal(part, pattern(1, n * world).view(world, n)[rank]), f"scatter {n}"
        ctx.ccl.broadcast(mine, src=1)
        assert torch.equal(mine, pattern(1, n)), f"broadcast {n}"
        if rank == 0:
            ctx.ccl.send(part, 1)
        elif rank == 1:
            ctx.ccl.recv(part, 0)
        assert rank > 1 or torch.equal(part, pattern(1, n * world)[:n]), f"message {n}"
        ctx.barrier()


@ranks(2, deadline=120, heap_size=1 << 30)
def test_large_and_odd_reductions(ctx):
    for number, n in enumerate(((1 << 18) + 1, (33 << 18) + 1)):
        for dtype in (torch.float32, torch.bfloat16, torch.int32)[number:]:
            given = cases.reduced_input(ctx.rank, cases.PERIOD, dtype)
            given = torch.empty(n, dtype=dtype).copy_(cases.repeated(given, n))
            output = torch.zeros_like(given)
            ctx.ccl.reduce(output if ctx.rank == 1 else None, given, dst=1)
            if ctx.rank == 1:
                cases.check_repeated_reduction(output, ctx.world_size, "sum", f"{n} {dtype}")
            # Each rank's share begins anew with the period.
            output.zero_()
            ctx.ccl.reduce_scatter(output, given.repeat(ctx.world_size))
            cases.check_repeated_reduction(output, ctx.world_size, "sum", f"{n} {dtype}")


@ranks(1, 2, 3, 4)
def test_reduce(ctx):
    for number, n in enumerate((0, 1, 255, 4099, 70001)):
        for turn, dtype in enumerate(cases.REDUCIBLE):
            op, dst = cases.REDUCTIONS[(number + turn) % 5], (number + turn) % ctx.world_size
            here = ctx.rank == dst
            # Collective whatever becomes of it.
            on_heap = place(ctx, n, dtype, True)
            output = (on_heap if turn % 2 else torch.empty(n, dtype=dtype)) if here else None
            if here:
                output.view(torch.uint8).fill_(0x55)
            given = torch.empty(n, dtype=dtype).copy_(cases.reduced_input(ctx.rank, n, dtype))
            ctx.ccl.reduce(output, given, dst=dst, op=op)
            if here:
                cases.check_reduction(output, ctx.world_size, op, f"{n} {dtype} {op} to {dst}")
    tensor = torch.ones(500)
    ctx.ccl.reduce(tensor, tensor)  # in place
    assert torch.equal(tensor, torch.full((500,), float(ctx.world_size if ctx.rank == 0 else 1)))


@ranks(1, 2, 3, 4)
def test_gather_and_scatter(ctx):
    world = ctx.world_size
    for number, n in enumerate((0, 1, 255, 4099)):
        for turn, dtype in enumerate(MOVABLE):
            root = (number + turn) % world
            on_heap = place(ctx, world * n, dtype, True)
            whole = on_heap if turn % 2 else torch.empty(world * n, dtype=dtype)
            gathered = whole if ctx.rank == root else None
            ctx.ccl.gather(gathered, cases.contribution(ctx.rank, n, dtype), dst=root)
            if gathered is not None:
                for rank in range(world):
                    expected = cases.contribution(rank, n, dtype)
                    assert torch.equal(gathered[rank * n : (rank + 1) * n], expected)
            part = place(ctx, n, dtype, number % 2 == 0)
            dealt = cases.contribution(root, world * n, dtype)
            ctx.ccl.scatter(part, dealt if ctx.rank == root else None, src=root)
            assert torch.equal(part, dealt[ctx.rank * n : (ctx.rank + 1) * n])


@ranks(2, 3)
def test_roots_are_checked(ctx):
    good, whole = torch.zeros(8), torch.zeros(8 * ctx.world_size)
    for call, args, options, message in (
        (ctx.ccl.reduce, (good, good + 1), {"dst": 9}, "dst: expected a rank, 0 to .*, got 9"),
        (ctx.ccl.gather, (whole, good), {"dst": -1}, "dst: expected a rank, 0 to .*, got -1"),
        (ctx.ccl.scatter, (good, whole), {"src": 9}, "src: expected a rank, 0 to .*, got 9"),
        (ctx.ccl.reduce, (good, None), {}, "input: expected a tensor on this rank, got None"),
        (ctx.ccl.gather, (whole, None), {}, "input: expected a tensor on this rank, got None"),
        (ctx.ccl.scatter, (None, whole), {}, "output: expected a tensor on this rank, got None"),
    ):
        with pytest.raises(ValueError, match=message):
            call(*args, **options)
    if ctx.rank == 0:
        with pytest.raises(ValueError, match="output: expected a tensor on this rank, got None"):
            ctx.ccl.gather(None, good)
    with pytest.raises(ValueError, match="dst=1"):  # the ranks disagree
        ctx.ccl.gather(whole, good, dst=1 if ctx.rank == 0 else 0)
    ctx.ccl.all_reduce(good, torch.ones(8))
    assert good[0] == ctx.world_size


@ranks(2)
def test_misaligned_tensors(ctx):
    for dtype in (torch.float32, torch.bfloat16):
        output, given = ctx.zeros(1001, dtype=dtype)[1:], torch.empty(1003, dtype=dtype)[3:]
        given.copy_(cases.contribution(ctx.rank, 1000, dtype))
        for variant in ("one_shot", "two_shot"):
            cases.poisoned(output)
            ctx.barrier()
            ctx.ccl.all_reduce(output, given, config=iris_c.ccl.Config(all_reduce_variant=variant))
            expected, bound = cases.sums(2, 1000, dtype)
            cases.check_close(output[None], expected, bound, f"{variant} {dtype}")


@ranks(2, 4)
def test_device_barrier_orders_plain_stores(ctx):
    """What a rank stored into its heap before the barrier, every rank finds there after it."""
    board = ctx.zeros(ctx.world_size, dtype=torch.int64)
    seen = torch.empty_like(board)
    for turn in range(1, 200):
        board[ctx.rank] = turn * 10 + ctx.rank
        ctx.ccl.barrier()
        seen.fill_(-1)
        ctx.ccl.all_to_all(seen, board[ctx.rank].repeat(ctx.world_size))
        assert seen.tolist() == [turn * 10 + rank for rank in range(ctx.world_size)]


@ranks(2)
def test_arguments_are_checked(ctx):
    good = torch.zeros(8)
    wrong = [
        ("all_reduce", (good, torch.zeros(9)), "output: expected 9 elements .* got 8"),
        ("all_reduce", (good, good.double()), "input: expected dtype float32 like output"),
        (
            "all_reduce",
            (good.short(), good.short() + 1),
            "input: expected dtype float32, float16, .*, got int16",
        ),
        ("all_reduce", (torch.zeros(16)[::2], good), "output: expected a contiguous tensor"),
        ("all_gather", (good, torch.zeros(8)), "output: expected 16 elements"),
        ("all_to_all", (torch.zeros(7), torch.zeros(7)), "multiples of world_size 2, got 7"),
        ("reduce_scatter", (good, torch.zeros(8)), "input: expected 16 elements"),
    ]
    for name, args, message in wrong:
        with pytest.raises(ValueError, match=message):
            getattr(ctx.ccl, name)(*args)
    with pytest.raises(ValueError, match="src: expected a rank, 0 to 1, got 2"):
        ctx.ccl.broadcast(good, src=2)
    with pytest.raises(ValueError, match=r"op: expected 'sum', 'max', .* got 'median'"):
        ctx.ccl.all_reduce(good, torch.zeros(8), op="median")
    atomic = iris_c.ccl.Config(all_reduce_variant="atomic")
    with pytest.raises(ValueError, match="op: expected 'sum' or 'avg' in the variant 'atomic'"):
        ctx.ccl.all_reduce(good, torch.zeros(8), op="max", config=atomic)
    with pytest.raises(ValueError, match=r"input: expected dtype .* 'atomic', got int32"):
        ctx.ccl.all_reduce(good.int(), torch.zeros(8, dtype=torch.int32), config=atomic)
    for comm_sms, message in ((100000, "at most [0-9]+ on the"), (0, "> 0 or None")):
        with pytest.raises(ValueError, match=f"comm_sms: expected {message}"):
            ctx.ccl.all_reduce(good, torch.zeros(8), config=iris_c.ccl.Config(comm_sms=comm_sms))
    ctx.ccl.all_reduce(good, torch.ones(8))
    assert torch.equal(good, torch.full((8,), 2.0))


@ranks(2, 3)
def test_the_number_of_work_groups(ctx):
    """It may differ between ranks."""
    for variant in cases.ALL_REDUCE_VARIANTS:
        config = iris_c.ccl.Config(comm_sms=ctx.rank + 1, all_reduce_variant=variant)
        given, output = cases.reduced_input(ctx.rank, 70001, torch.float32), ctx.empty(70001)
        ctx.ccl.all_reduce(output, torch.empty(70001).copy_(given), config=config)
        cases.check_reduction(output, ctx.world_size, "sum", f"{variant} {ctx.rank}")
