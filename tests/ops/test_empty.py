# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Tensors without elements: calls that have nothing to do, or a sum over nothing, are calls.

torch gives an empty tensor no address, an empty Buffer has one: both are passed.
"""

import itertools
import time

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks

EXTENTS = [
    extents for extents in itertools.product((0, 6), (0, 5), (0, 6)) if 0 in extents
]  # M, N, K: M is a multiple of every world size that is used
PRODUCTS = [
    *(("matmul_all_reduce", {"all_reduce_variant": variant}, {}) for variant in cases.VARIANTS),
    *((name, {}, arguments) for name, arguments in cases.CALLS[1:]),
    ("all_gather_matmul_hbm_buffer", {"overlap": True, "num_fetch_sms": None}, {"gather_dim": 0}),
]


def product_shapes(name: str, arguments: dict, extents: tuple, world: int):
    """C, A and B of a call; N is a multiple of the world size where the result is cut along it."""
    M, N, K = extents
    if arguments.get("dim") == 1:
        N *= 12
    if name == "matmul_reduce_scatter":
        C = (M // world, N) if arguments["dim"] == 0 else (M, N // world)
        return C, (M, K), (K, N)
    if name == "matmul_all_gather":
        return (M * world, N), (M, K), (K, N)
    if name in cases.GATHERED and arguments["gather_dim"] == 1:
        return (M, N), (M, K), (K * world, N)
    if name in cases.GATHERED:
        return (M * world, N), (M, K), (K, N)
    return (M, N), (M, K), (K, N)


@pytest.mark.parametrize(("name", "config", "arguments"), PRODUCTS, ids=str)
@ranks(1, 3)
def test_products_without_elements(ctx, name, config, arguments):
    """Zeros plus the bias where there is a result, and a call in every case."""
    call = getattr(ctx.ops, name)
    config = iris_c.FusedConfig(**config)
    calls = 0
    for number, extents in enumerate(EXTENTS):
        dtype = cases.DTYPES[number % 3]
        c, a, b = product_shapes(name, arguments, extents, ctx.world_size)
        # Where a result lies is each rank's own affair.
        on_heap = ctx.empty(c, dtype=dtype)
        for has_bias in (False, True):
            C = on_heap if (ctx.rank + number) % 2 == 0 else torch.empty(c, dtype=dtype)
            cases.poisoned(C)
            bias = torch.arange(c[1], dtype=torch.float32).to(dtype) if has_bias else None
            workspace = call(
                C,
                torch.ones(a, dtype=dtype),
                torch.ones(b, dtype=dtype),
                bias=bias,
                config=config,
                async_op=number % 2 == 0,
                **arguments,
            )
            expected = torch.zeros(c, dtype=dtype)
            assert torch.equal(C, expected if bias is None else expected + bias), extents
            calls += 1
            ctx.device_barrier()
            assert workspace.call_counter == calls
            shares = ctx.world_size if name in cases.GATHERED else 1
            assert workspace.shape[2] == extents[2] * (shares if arguments.get("gather_dim") else 1)
        ctx.barrier()


@pytest.mark.parametrize(("name", "config", "arguments"), PRODUCTS, ids=str)
@ranks(2)
def test_empty_calls_among_others_on_one_workspace(ctx, name, config, arguments):
    """Neither kind of call disturbs the other's flags and halves, with preambles in between."""
    call, preamble = getattr(ctx.ops, name), getattr(ctx.ops, f"{name}_preamble")
    config = iris_c.FusedConfig(**config)
    sized, workspace = (6, 5, 4), None
    for number in range(12):
        extents = sized if number % 3 == 0 else EXTENTS[number % len(EXTENTS)]
        c, a, b = product_shapes(name, arguments, extents, ctx.world_size)
        A, B, C = torch.full(a, 1.0 + number), torch.ones(b), torch.empty(c)
        if number % 4 == 1:
            workspace = preamble(C, A, B, config=config, workspace=workspace, **arguments)
        cases.poisoned(C)
        workspace = call(C, A, B, config=config, workspace=workspace, **arguments)
        sources = ctx.world_size if "reduce" in name else 1
        expected = torch.full(c, sources * (1.0 + number) * b[0])
        assert torch.equal(C, expected), (number, extents)
    assert workspace.call_counter == 12


@ranks(1, 2, 3)
def test_the_joined_operand_of_a_product_without_columns(ctx):
    """N = 0 leaves nothing to multiply; A_gathered is wanted all the same, maybe on one rank."""
    for name, dim, dtype, turned in itertools.product(
        cases.GATHERED, (0, 1), cases.DTYPES, (False, True)
    ):
        shape = (7, 5)
        shards = [
            cases.contribution(rank, 35, dtype, salt=dim).view(shape)
            for rank in range(ctx.world_size)
        ]
        mine = shards[ctx.rank].t().contiguous().t() if turned else shards[ctx.rank]
        whole = torch.cat(shards, dim)
        joined = torch.zeros(whole.shape, dtype=dtype) if ctx.rank != 1 else None
        for _ in range(3):
            workspace = getattr(ctx.ops, name)(
                torch.empty(whole.shape[0], 0, dtype=dtype), mine,
                torch.empty(whole.shape[1], 0, dtype=dtype), gather_dim=dim, A_gathered=joined,
                config=iris_c.FusedConfig(overlap=True),
            )  # fmt: skip
            assert joined is None or torch.equal(joined, whole), (name, dim, dtype)
        assert workspace.shape == (whole.shape[0], 0, whole.shape[1])


@ranks(2)
def test_an_empty_call_hears_from_every_peer(ctx):
    """No rank gets ahead: the call ends after the other rank has come to it."""
    for name, config, arguments in PRODUCTS[::3]:
        c, a, b = product_shapes(name, arguments, (0, 5, 6), 2)
        ctx.barrier()
        started = time.monotonic()
        if ctx.rank == 0:
            time.sleep(0.2)
        workspace = getattr(ctx.ops, name)(
            torch.empty(c), torch.empty(a), torch.ones(b), config=iris_c.FusedConfig(**config),
            **arguments,
        )  # fmt: skip
        assert workspace.call_counter > 0  # waits for the device
        assert time.monotonic() - started > 0.15, name


@ranks(2)
def test_ranks_that_disagree_about_emptiness(ctx):
    for mine in ((0, 1), (0, 6), (6, 0)):
        K = mine[ctx.rank]
        with pytest.raises(ValueError, match=r"different operations.*K=0.*K=[16]|K=[16].*K=0"):
            ctx.ops.matmul_all_reduce(torch.empty(4, 5), torch.ones(4, K), torch.ones(K, 5))
    with pytest.raises(ValueError, match=r"M=\d.*M=\d"):
        M = (0, 3)[ctx.rank]
        ctx.ops.matmul_all_reduce(torch.empty(M, 5), torch.ones(M, 2), torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"different operations"):
        ctx.ccl.all_reduce(torch.empty(3 * ctx.rank), torch.ones(3 * ctx.rank))
    ctx.ops.matmul_all_reduce(torch.empty(0, 5), torch.ones(0, 2), torch.ones(2, 5))


@ranks(1, 2)
def test_shapes_are_checked_all_the_same(ctx):
    with pytest.raises(ValueError, match=r"B: expected 0 rows"):
        ctx.ops.matmul_all_reduce(torch.empty(4, 5), torch.empty(4, 0), torch.empty(3, 5))
    with pytest.raises(ValueError, match=r"C: expected shape \(0, 5\)"):
        ctx.ops.matmul_all_reduce(torch.empty(1, 5), torch.empty(0, 3), torch.empty(3, 5))
    with pytest.raises(ValueError, match=r"A_gathered: expected shape"):
        ctx.ops.all_gather_matmul(
            torch.empty(4 * ctx.world_size, 5), torch.empty(4, 0), torch.empty(0, 5),
            A_gathered=torch.empty(4 * ctx.world_size, 1),
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"bias: expected a shape"):
        ctx.ops.matmul_all_reduce(
            torch.empty(0, 5), torch.empty(0, 3), torch.empty(3, 5), bias=torch.zeros(4)
        )
    # Of an expanded tensor without elements none share memory.
    ctx.ops.matmul_all_reduce(torch.empty(1, 0).expand(4, 0), torch.ones(4, 3), torch.empty(3, 0))


def empties(ctx, count: int, dtype=torch.float32):
    """`count` empty tensors, of a sort that differs between the ranks."""
    kinds = (
        lambda: torch.empty(0, dtype=dtype),
        lambda: ctx.zeros(0, dtype=dtype),
        lambda: ctx.allocate(0, dtype),
        lambda: torch.ones(7, dtype=dtype)[3:3],
    )
    # All allocate, as allocation is collective; each takes another.
    made = [[kind() for kind in kinds] for _ in range(count)]
    return [row[(ctx.rank + 2 * number) % len(kinds)] for number, row in enumerate(made)]


@pytest.mark.parametrize("variant", [None, *cases.ALL_REDUCE_VARIANTS])
@ranks(1, 2, 3)
def test_all_reduce_of_nothing(ctx, variant):
    config = iris_c.ccl.Config(all_reduce_variant=variant)
    for dtype, op in ((torch.float32, "sum"), (torch.int64, "max"), (torch.bfloat16, "avg")):
        if variant is not None and not cases.reduces(variant, op, dtype):
            continue
        output, given = empties(ctx, 2, dtype)
        before = ctx.ccl.all_reduce_preamble(output, given, config=config).call_counter
        workspace = ctx.ccl.all_reduce(output, given, op=op, config=config)
        ctx.device_barrier()
        assert workspace.call_counter == before + 1


@ranks(1, 2, 3)
def test_collectives_of_nothing(ctx):
    last = ctx.world_size - 1
    for dtype in (torch.float32, torch.int64, torch.bool):
        for name in ("reduce_scatter", "all_gather", "all_to_all"):
            if name != "reduce_scatter" or dtype != torch.bool:
                getattr(ctx.ccl, name)(*empties(ctx, 2, dtype))
        ctx.ccl.broadcast(*empties(ctx, 1, dtype), src=last)
        for name, root, everywhere in (
            ("gather", "dst", 1), ("scatter", "src", 0), ("reduce", "dst", 1)
        ):  # fmt: skip
            if name == "reduce" and dtype == torch.bool:
                continue
            tensors = empties(ctx, 2, dtype)
            if ctx.rank != last:
                tensors[1 - everywhere] = None
            getattr(ctx.ccl, name)(*tensors, **{root: last})
    value = torch.tensor([float(ctx.rank)])
    ctx.ccl.all_reduce(value, value.clone(), op="max")
    assert value.item() == last


@ranks(2, 3)
def test_messages_of_nothing(ctx):
    """Sent and received in order with others; parts of an exchange that only some ranks have."""
    tensors = empties(ctx, 2)
    if ctx.rank == 0:
        ctx.ccl.send(tensors[0], 1)
        ctx.ccl.send(torch.ones(3), 1)
        ctx.ccl.send(tensors[1], 1)
    if ctx.rank == 1:
        ctx.ccl.recv(tensors[0], 0)
        got = torch.zeros(3)
        ctx.ccl.recv(got, 0)
        ctx.ccl.recv(tensors[1], 0)
        assert torch.equal(got, torch.ones(3))
    world = ctx.world_size
    for rows in ([0] * world, [0] * (world - 1) + [4]):  # nobody has any; only the last rank has
        mine = rows[ctx.rank]
        sizes = [mine] * world
        given = torch.full((mine * world, 2), float(ctx.rank))
        output = torch.zeros(sum(rows), 2)
        ctx.ccl.all_to_all(output, given, output_split_sizes=rows, input_split_sizes=sizes)
        assert torch.equal(output, torch.full(output.shape, float(world - 1)))
    ctx.ccl.all_to_all(
        torch.empty(world, 0), torch.empty(world, 0), output_split_sizes=[1] * world,
        input_split_sizes=[1] * world,
    )  # fmt: skip
    dst, src = empties(ctx, 2)
    for peer in range(world):
        ctx.put(dst, src, peer)
        ctx.get(src, dst, peer)
    ctx.barrier()


@pytest.mark.parametrize("variant", ["ll", "ll_two_shot", None])
@ranks(1, 2, 3)
def test_rmsnorm_of_nothing(ctx, variant):
    config = iris_c.ccl.Config(all_reduce_variant=variant)
    for shape in ((0, 16), (0,), (5, 0), (3, 0, 8), (0, 0)):
        for has_residual in (True, False):
            x = [torch.empty(shape) for _ in range(4)]
            workspace = ctx.ccl.all_reduce_rmsnorm(
                x[0], x[1], x[2], x[3] if has_residual else None, torch.ones(shape[-1]),
                config=config,
            )  # fmt: skip
        assert workspace.call_counter > 0
    output, summed, ones = torch.zeros(3, 4), torch.zeros(3, 4), torch.ones(3, 4)
    ctx.ccl.all_reduce_rmsnorm(output, summed, ones, None, torch.ones(4), config=config)
    assert torch.equal(summed, ones * ctx.world_size)


@ranks(1, 2)
def test_tensors_without_elements(ctx):
    for tensor in (ctx.zeros(0), ctx.zeros(3, 0)[1:], ctx.allocate(0), ctx.ones(4)[4:]):
        assert ctx.is_symmetric(tensor)
    for shape in ((0,), (0, 5), (5, 0)):
        copy = ctx.as_symmetric(torch.empty(shape))
        assert ctx.is_symmetric(copy)
        assert tuple(copy.shape) == shape
        assert ctx.empty_like(copy).shape == copy.shape
    assert not ctx.is_symmetric(torch.empty(1))
    for made in (ctx.rand(0), ctx.randn(0, 3), ctx.randint(5, (0,)), ctx.arange(0),
                 ctx.linspace(0, 1, 0), ctx.full((0,), 3.0), ctx.uniform(0)):  # fmt: skip
        assert made.numel() == 0
    buffer = ctx.allocate((0, 3), "float32")
    buffer.copy_from_host(b"")
    buffer.copy_to_host(bytearray())
    assert torch.from_dlpack(buffer).shape == (0, 3)


@ranks(1, 2)
def test_configs_of_nothing(ctx):
    """What has no extent is tiled as what has one of 1 is, in the form of all empty calls."""
    for extents in ((0, 8, 8), (8, 0, 8), (8, 8, 0), (0, 0, 0)):
        for name in ("matmul_all_reduce", "all_gather_matmul_hbm_buffer"):
            chosen = ctx.ops.select_config(*extents, torch.float32, operation=name)
            assert chosen.block_size_m >= 1
        for arch in ("cpu", "sm_90a", "gfx942"):
            for dtype in (torch.float32, torch.float16):
                config = iris_c.ops.auto_config("all_gather_matmul", *extents, dtype, 4, arch)
                assert config.form == "tiles"
                sized = (max(extents[0], 4), max(extents[1], 1), max(extents[2], 1))
                other = iris_c.ops.auto_config("all_gather_matmul", *sized, dtype, 4, arch)
                if other.form == "tiles":
                    assert config == other
    with pytest.raises(ValueError, match="M, N, K: expected >= 0, got -1, 8, 8"):
        ctx.ops.select_config(-1, 8, 8, torch.float32)


@ranks(1, 2)
def test_empty_calls_are_traced(ctx):
    for extents in ((0, 5, 6), (6, 0, 6), (6, 5, 0)):
        c, a, b = product_shapes("matmul_all_reduce", {}, extents, ctx.world_size)
        workspace = ctx.ops.matmul_all_reduce(
            torch.empty(c), torch.ones(a), torch.ones(b), trace=True
        )
        assert workspace.call_counter > 0


@cases.cpu_only
@ranks(2)
def test_a_group_of_one_and_of_all(ctx):
    alone = ctx.group([ctx.rank], heap_size=1 << 20)
    for group in (alone, ctx.group([0, 1], heap_size=1 << 20)):
        C = torch.empty(4, 3)
        group.ops.matmul_all_reduce(C, torch.empty(4, 0), torch.empty(0, 3))
        assert torch.equal(C, torch.zeros(4, 3))
        group.ops.matmul_all_reduce(torch.empty(0, 3), torch.empty(0, 2), torch.ones(2, 3))
