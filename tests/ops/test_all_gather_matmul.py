# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""all_gather_matmul and its overlapped form against float64: shapes, strides, dtypes, dimensions,
bias, the joined operand, configs."""

import dataclasses

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks

DIMENSIONS = (0, 1)


def reference(case, rank, world, dim, dtype, salt, bias):
    """The joined A, A @ this rank's B + bias in float64, and the error's bound."""
    shards = [cases.operands(case, which, dtype, salt)[0] for which in range(world)]
    joined = torch.cat(shards, dim)
    whole = dataclasses.replace(case, K=joined.shape[1])
    _, B = cases.operands(whole, rank, dtype, salt)
    return shards[rank], B, joined, *cases.product(joined, B, dtype, bias)


def check(ctx, operation, case, dim, dtype, *, salt="", bias_shape=None, joined="", config=None,
          workspace=None, on_heap=False):  # fmt: skip
    """One call, checked; the case's M and K are a shard's. `joined`: the layout of A_gathered."""
    config = dataclasses.replace(config or iris_c.FusedConfig(), form="tiles")
    case = dataclasses.replace(case, bias="")
    world, rank = ctx.world_size, ctx.rank
    bias = None
    if bias_shape is not None:
        rows = case.M * (world if dim == 0 else 1)
        sizes = [size if wanted else 1 for size, wanted in zip((rows, case.N), bias_shape,
                                                              strict=True)]  # fmt: skip
        values = cases.contribution(30 + rank, sizes[0] * sizes[1], dtype).view(sizes)
        bias = torch.empty(sizes, dtype=dtype).copy_(values)
    A, B, expected_A, expected, bound = reference(case, rank, world, dim, dtype, salt, bias)

    def allocate(*sizes):
        return ctx.empty(*sizes, dtype=dtype) if on_heap else torch.empty(sizes, dtype=dtype)

    C = cases.poisoned(cases.laid_out(*expected.shape, case.c, allocate))
    A_gathered = None
    if joined:
        A_gathered = cases.poisoned(
            cases.laid_out(*expected_A.shape, joined, lambda *s: torch.empty(s, dtype=dtype))
        )
    getattr(ctx.ops, operation)(
        C, A, B, bias=bias, gather_dim=dim, config=config, workspace=workspace,
        A_gathered=A_gathered,
    )  # fmt: skip
    cases.check_close(C, expected, bound, f"rank {rank} {operation} {case} {dim} {dtype} {salt}")
    if joined:
        assert torch.equal(A_gathered, expected_A)


@pytest.mark.parametrize("operation", cases.GATHERED)
@pytest.mark.parametrize("dim", DIMENSIONS)
@ranks(1, 2, 3, 4)
def test_shapes(ctx, operation, dim):
    for number, case in enumerate(cases.SHAPES):
        for dtype in cases.DTYPES:
            check(ctx, operation, case, dim, dtype, joined="row" if number % 2 else "",
                  on_heap=number % 3 == 0)  # fmt: skip


@pytest.mark.parametrize("operation", cases.GATHERED)
@pytest.mark.parametrize("dim", DIMENSIONS)
@ranks(2, 3)
def test_layouts(ctx, operation, dim):
    for case in cases.LAYOUTS:
        for dtype in (torch.float32, torch.bfloat16):
            for layout in ("k_contiguous", "m_contiguous"):
                config = iris_c.FusedConfig(staged_a_layout=layout)
                joined = "transposed" if layout == "k_contiguous" else "strided"
                check(ctx, operation, case, dim, dtype, config=config, joined=joined)


@pytest.mark.parametrize("dim", DIMENSIONS)
@ranks(2, 3)
def test_bias_is_each_ranks_own(ctx, dim):
    for shape in ((0, 1), (1, 0), (1, 1), (0, 0)):
        for dtype in cases.DTYPES:
            check(ctx, cases.GATHERED[1], cases.Case(40, 70, 30), dim, dtype, bias_shape=shape)


@pytest.mark.parametrize("operation", cases.GATHERED)
@pytest.mark.parametrize("dim", DIMENSIONS)
@ranks(1, 2, 3, 4)
def test_few_tiles_and_a_long_inner_dimension(ctx, operation, dim):
    """Where a GPU's work-groups share the inner dimension of a tile, also of an odd number of
    steps."""
    workspace = iris_c.FusedWorkspace(ctx, operation)
    shapes = [cases.Case(30, 300, 2500)]
    if ctx.backend != "cpu":  # where they share nothing, and the products take seconds
        shapes += [cases.Case(150, 140, 2120), cases.Case(128, 128, 2048)]
    for case in shapes:
        for dtype in (torch.float16, torch.bfloat16):
            for layout in ("k_contiguous", "m_contiguous"):
                check(ctx, operation, case, dim, dtype, bias_shape=(1, 1), joined="row",
                      config=iris_c.FusedConfig(staged_a_layout=layout),
                      workspace=workspace)  # fmt: skip
        for config in (iris_c.FusedConfig(num_sms=3), iris_c.FusedConfig(k_per_flag=3)):
            check(ctx, operation, case, dim, torch.bfloat16, workspace=workspace, config=config)


@pytest.mark.parametrize("dim", DIMENSIONS)
@ranks(2, 4)
def test_pieces_of_any_size(ctx, dim):
    """Units of one step and of many, last ones cut short, few and many that send."""
    for k_per_flag in (1, 2, 3, 8):
        for fetchers in (None, 1):
            config = iris_c.FusedConfig(k_per_flag=k_per_flag, num_fetch_sms=fetchers, num_sms=3)
            for dtype in (torch.float32, torch.float16):
                case = cases.Case(150, 140, 400)
                check(ctx, cases.GATHERED[1], case, dim, dtype, config=config, joined="row")


@pytest.mark.parametrize("dim", DIMENSIONS)
@ranks(2, 3, 4)
def test_work_groups_without_a_tile_send(ctx, dim):
    """On sm_90a, if as many multiply nothing, those that are asked for send with all their warps:
    a few with several units each, and more than there are units; also where others share a tile's
    K."""
    workspace = iris_c.FusedWorkspace(ctx, cases.GATHERED[1])
    for case in (cases.Case(150, 140, 400), cases.Case(128, 256, 2112), cases.Case(7, 130, 60)):
        if ctx.backend == "cpu" and case.K > 1000:
            continue  # nothing is shared there, and the product takes seconds
        for fetchers in (1, 3, 8):
            config = iris_c.FusedConfig(
                num_fetch_sms=fetchers, num_sms=12 if ctx.backend == "cpu" else None
            )
            for dtype in (torch.float16, torch.bfloat16):
                check(ctx, cases.GATHERED[1], case, dim, dtype, config=config, salt=str(fetchers),
                      joined="row", bias_shape=(0, 1), workspace=workspace)  # fmt: skip


@pytest.mark.parametrize("operation", cases.GATHERED)
@ranks(2, 4)
def test_many_calls_on_one_workspace(ctx, operation):
    """Of different shapes and dimensions, across the wrap of the counter."""
    workspace = iris_c.FusedWorkspace(ctx, operation)
    check(ctx, operation, cases.Case(90, 140, 60), 0, torch.float32, workspace=workspace)
    ctx.barrier()
    workspace._set_calls(2**31 - 1 - 10)
    ctx.barrier()
    for turn in range(20):
        case = cases.Case(30 + turn, 140 - 3 * turn, 20)
        check(ctx, operation, case, turn % 2, torch.float32, salt=str(turn), workspace=workspace)
    assert workspace.call_counter == 10


@ranks(3)
def test_every_run_gives_the_same_bits(ctx):
    A, _ = cases.operands(cases.Case(50, 90, 200), ctx.rank, torch.bfloat16)
    _, B = cases.operands(cases.Case(50, 90, 600), ctx.rank, torch.bfloat16)
    first, again = (torch.empty(50, 90, dtype=torch.bfloat16) for _ in range(2))
    ctx.ops.all_gather_matmul(first, A, B, gather_dim=1)
    for operation in cases.GATHERED:
        getattr(ctx.ops, operation)(again, A, B, gather_dim=1)
        assert torch.equal(first, again)


@ranks(2)
def test_only_finite_numbers_meet(ctx):
    """What B holds past a shard's columns, or A past its rows, stays out of the result."""
    for dim in DIMENSIONS:
        A = torch.ones(3, 5)
        B = torch.ones(10 if dim == 1 else 5, 4)
        B[-1, 2] = torch.inf
        C = torch.empty(3 if dim == 1 else 6, 4)
        ctx.ops.all_gather_matmul_hbm_buffer(C, A, B, gather_dim=dim)
        assert torch.equal(C.isinf().any(0), torch.tensor([False, False, True, False]))
        assert not C.isnan().any()


@ranks(2)
def test_preamble_prepares(ctx):
    A, B, C = torch.ones(6, 4), torch.ones(4, 8), torch.empty(12, 8)
    for operation in cases.GATHERED:
        workspace = getattr(ctx.ops, f"{operation}_preamble")(C, A, B)
        nbytes = workspace.nbytes
        assert nbytes > 0
        assert workspace.call_counter == 0
        assert getattr(ctx.ops, operation)(C, A, B, workspace=workspace) is workspace
        assert workspace.nbytes == nbytes
        assert workspace.operation == operation
        assert (C == 4).all()


@ranks(2)
def test_mistakes_are_named(ctx):
    A, B, C = torch.zeros(6, 4), torch.zeros(4, 8), torch.zeros(12, 8)
    for operation in cases.GATHERED:
        call = getattr(ctx.ops, operation)
        with pytest.raises(ValueError, match="gather_dim: expected 0 or 1, got 2"):
            call(C, A, B, gather_dim=2)
        with pytest.raises(ValueError, match=r"C: expected shape \(12, 8\).*got \(6, 8\)"):
            call(torch.zeros(6, 8), A, B)
        with pytest.raises(ValueError, match="B: expected 8 rows, the columns of all ranks'"):
            call(C, A, B, gather_dim=1)
        with pytest.raises(ValueError, match=r"A_gathered: expected shape \(12, 4\)"):
            call(C, A, B, A_gathered=torch.zeros(6, 4))
        with pytest.raises(ValueError, match="A_gathered: expected memory apart from A_shard's"):
            both = torch.zeros(12, 4)
            call(C, both[:6], B, A_gathered=both)
        with pytest.raises(ValueError, match="C: expected memory apart from A_shard's"):
            call(C, C[:6, :4], B)
        with pytest.raises(ValueError, match="bias: expected a shape that broadcasts to"):
            call(C, A, B, bias=torch.zeros(6, 1))
        with pytest.raises(TypeError, match="A_shard"):
            call(C, None, B)
        with pytest.raises(ValueError, match="staged_a_layout: expected k_contiguous"):
            call(C, A, B, config=iris_c.FusedConfig(staged_a_layout="rows"))
        with pytest.raises(ValueError, match="different operations"):
            call(torch.zeros(6, 8) if ctx.rank else C, A, torch.zeros(4 + 4 * ctx.rank, 8),
                 gather_dim=ctx.rank)  # fmt: skip
        call(C, A, B)
