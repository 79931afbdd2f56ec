# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The form "plain" of the fused products, a product and a collective in one call, against float64:
shapes, strides, dtypes, bias, the joined operand, turns with other forms."""

import dataclasses

import cases
import pytest
import torch
from waits import waiting

import iris_c
from iris_c.testing import ranks

PLAIN = iris_c.FusedConfig(form="plain")
SMALL = [case for case in cases.SHAPES if case.M * case.N * case.K < 1 << 20]


def allocated(ctx, dtype, on_heap):
    def allocate(*sizes):
        return ctx.empty(*sizes, dtype=dtype) if on_heap else torch.empty(sizes, dtype=dtype)

    return allocate


def bias_for(rows, cols, wanted, rank, dtype):
    """(rows or 1, cols or 1); None: none."""
    if wanted is None:
        return None
    sizes = [size if all_ else 1 for size, all_ in zip((rows, cols), wanted, strict=True)]
    values = cases.contribution(30 + rank, sizes[0] * sizes[1], dtype).view(sizes)
    return torch.empty(sizes, dtype=dtype).copy_(values)


def divided(case, world, operation, dim=None):
    """The case with rows or columns, of a shape that is divided, in a multiple of the ranks."""
    if operation != "matmul_reduce_scatter":
        return dataclasses.replace(case, bias="")
    name = "MN"[dim]
    return dataclasses.replace(case, **{name: getattr(case, name) * world}, bias="")


def expected_of(case, rank, world, operation, dtype, salt, bias_of, dim=0):
    """This rank's A and B, the joined A of a gathered one, the result, the bound of its error."""
    u = cases.UNIT_ROUNDOFF[dtype]
    if operation in cases.GATHERED:
        shards = [cases.operands(case, which, dtype, salt)[0] for which in range(world)]
        joined = torch.cat(shards, dim)
        whole = dataclasses.replace(case, K=joined.shape[1])
        B = cases.operands(whole, rank, dtype, salt)[1]
        expected, bound = cases.product(joined, B, dtype, bias_of(rank))
        if bias_of(rank) is not None:  # added to a rounded product where our kernel multiplies
            bound = bound + u * (joined.double() @ B.double()).abs()
        return shards[rank], B, joined, expected, bound
    A, B = cases.operands(case, rank, dtype, salt)
    if operation == "matmul_all_gather":
        of = None if bias_of(0) is None else lambda which: bias_of(which).double()
        return A, B, None, *cases.gathered(case, world, dtype, salt, of)
    expected, bound = cases.reference(case, world, dtype, salt)
    if bias_of(0) is not None:  # rounded with rank 0's partial sum
        expected = expected + bias_of(0).double()
        bound = bound + 3 * u * bias_of(0).double().abs() + u * expected.abs()
    if operation == "matmul_reduce_scatter":
        expected, bound = (x.chunk(world, dim)[rank] for x in (expected, bound))
    return A, B, None, expected, bound


def check(ctx, operation, case, dtype, *, on_heap=True, salt="", bias=None, joined="",
          workspace=None, config=PLAIN, **options):  # fmt: skip
    """One call, checked."""
    world, rank = ctx.world_size, ctx.rank
    dim = options.get("dim", options.get("gather_dim", 0))
    case = divided(case, world, operation, dim)
    rows = case.M * (world if operation in cases.GATHERED and dim == 0 else 1)

    def bias_of(which):
        return bias_for(rows, case.N, bias, 0 if operation == "matmul_all_reduce" else which, dtype)

    A, B, whole, expected, bound = expected_of(
        case, rank, world, operation, dtype, salt, bias_of, dim
    )
    C = cases.poisoned(cases.laid_out(*expected.shape, case.c, allocated(ctx, dtype, on_heap)))
    if joined:
        options["A_gathered"] = cases.poisoned(
            cases.laid_out(*whole.shape, joined, allocated(ctx, dtype, False))
        )
    done = getattr(ctx.ops, operation)(
        C, A, B, bias=bias_of(rank), config=config, workspace=workspace, **options
    )
    what = f"rank {rank} {operation} {options} {case} {dtype} {salt}"
    cases.check_close(C, expected, bound, what)
    if joined:
        assert torch.equal(options["A_gathered"], whole), what
    return done


@pytest.mark.parametrize(("operation", "options"), cases.CALLS, ids=str)
@ranks(1, 2, 3, 4)
def test_shapes(ctx, operation, options):
    for number, case in enumerate(SMALL):
        for dtype in cases.DTYPES:
            joined = "row" if operation in cases.GATHERED and number % 2 else ""
            check(ctx, operation, case, dtype, on_heap=number % 3 != 2, joined=joined, **options)


@pytest.mark.parametrize(("operation", "options"), cases.CALLS, ids=str)
@ranks(2, 3)
def test_layouts(ctx, operation, options):
    for number, case in enumerate(cases.LAYOUTS):
        for dtype in (torch.float32, torch.bfloat16):
            joined = ("transposed", "strided")[number % 2] if operation in cases.GATHERED else ""
            check(ctx, operation, case, dtype, on_heap=number % 2 == 0, joined=joined, **options)


PLACES = ("heap", "arena", "ordinary", "not aligned", "strided", "none")


@pytest.mark.parametrize("dim", [0, 1])
@ranks(1, 2, 3, deadline=120)
def test_joined_operands_wherever_they_lie(ctx, dim):
    """In another place on each rank, in all combinations that two ranks may have; again and again,
    since peers write some of them. What is beside the operand stays."""
    m, k, n, world = 24, 40, 17, ctx.world_size
    workspace = iris_c.FusedWorkspace(ctx, "all_gather_matmul")
    rows, columns = (m * world, k) if dim == 0 else (m, k * world)
    memory = {
        "heap": ctx.empty((rows, columns)),
        "arena": ctx.local_empty((rows, columns)),
        "ordinary": torch.empty(rows, columns),
        "not aligned": ctx.empty(rows * columns + 2)[1:-1].view(rows, columns),
        "strided": ctx.empty((rows, columns + 3))[:, :columns],
        "none": None,
    }
    beside = [memory["not aligned"]._base, memory["strided"]._base]
    for number in range(len(PLACES) ** 2):
        of_rank = (number % len(PLACES), number // len(PLACES), (number * 7 + 3) % len(PLACES))
        place = PLACES[of_rank[ctx.rank]]
        shards = [
            cases.contribution(rank, m * k, torch.float32, salt=number).view(m, k)
            for rank in range(world)
        ]
        whole = torch.cat(shards, dim)
        mine = shards[ctx.rank]
        if number % 3 == 0:
            mine = mine.t().contiguous().t()
        B = cases.contribution(9, columns * n, torch.float32, salt=number).view(columns, n)
        for tensor in beside:
            tensor.fill_(7.0)
        joined, C = memory[place], torch.full((rows, n), float("nan"))
        if joined is not None:
            joined.fill_(float("nan"))
        ctx.ops.all_gather_matmul(
            C, mine, B, gather_dim=dim, A_gathered=joined, config=PLAIN, workspace=workspace
        )
        assert joined is None or torch.equal(joined, whole), (number, place)
        torch.testing.assert_close(C, whole @ B, rtol=1e-5, atol=1e-5, msg=place)
        flat, gaps = beside[0], beside[1].view(rows, columns + 3)[:, columns:]
        assert flat[0] == flat[-1] == 7.0
        assert (gaps == 7.0).all()


@pytest.mark.parametrize(
    ("operation", "options"), [c for c in cases.CALLS if c[0] != "matmul_reduce_scatter"], ids=str
)
@ranks(2, 3)
def test_bias(ctx, operation, options):
    for wanted in ((0, 1), (1, 0), (1, 1), (0, 0)):
        for dtype in cases.DTYPES:
            check(ctx, operation, cases.Case(40, 70, 30), dtype, bias=wanted, **options)


@ranks(2)
def test_a_bias_of_each_owner_has_no_plain_form(ctx):
    A, B, C = torch.empty(4, 3), torch.empty(3, 6), torch.empty(2, 6)
    with pytest.raises(ValueError, match=r"^form: expected one that matmul_reduce_scatter has"):
        ctx.ops.matmul_reduce_scatter(C, A, B, bias=torch.empty(6), config=PLAIN)
    ctx.ops.matmul_reduce_scatter(C, A, B, bias=torch.empty(6))


@ranks(2, 4)
def test_each_rank_has_its_operands_and_results_as_it_likes(ctx):
    """On the heap or off it, with gaps or transposed; the others are not concerned."""
    kinds = ("row", "transposed", "padded", "strided")
    for operation, options in cases.CALLS:
        for turn in range(8):
            own = kinds[(turn + ctx.rank) % 4]
            case = cases.Case(33, 46, 29)
            dim = options.get("dim", options.get("gather_dim", 0))
            whole = divided(case, ctx.world_size, operation, dim)
            A, B, _, expected, bound = expected_of(
                whole, ctx.rank, ctx.world_size, operation, torch.float32, "", lambda _: None, dim
            )
            own_A = cases.laid_out(*A.shape, own, lambda *s: torch.empty(s)).copy_(A)
            C = cases.laid_out(
                *expected.shape, kinds[turn % 4] if ctx.rank else "row",
                allocated(ctx, torch.float32, False),
            )  # fmt: skip
            getattr(ctx.ops, operation)(cases.poisoned(C), own_A, B, config=PLAIN, **options)
            cases.check_close(C, expected, bound, f"{operation} {turn} {own}")


@pytest.mark.parametrize(("operation", "options"), cases.CALLS, ids=str)
@ranks(2, 3)
def test_forms_take_turns_on_one_workspace(ctx, operation, options):
    """With other shapes, and across the wrap of the counter."""
    workspace = iris_c.FusedWorkspace(ctx, operation)
    tiles = iris_c.FusedConfig(form="tiles")
    check(ctx, operation, cases.Case(60, 140, 20), torch.float32, workspace=workspace, **options)
    ctx.barrier()
    workspace._set_calls((1 << 31) - 4)
    ctx.barrier()
    for call in range(12):
        case = cases.Case((7, 60, 33)[call % 3], (140, 9, 50)[call % 3], (20, 31, 8)[call % 3])
        check(ctx, operation, case, (torch.float32, torch.float16)[call % 2], salt=str(call),
              workspace=workspace, config=(PLAIN, tiles, PLAIN, PLAIN, tiles)[call % 5],
              on_heap=call % 2 == 0, **options)  # fmt: skip
        assert workspace.call_counter == ((1 << 31) - 4 + call) % ((1 << 31) - 1) + 1


@pytest.mark.parametrize("operation", cases.PRODUCTS)
@ranks(2)
def test_without_elements_it_has_the_form_tiles(ctx, operation):
    for M, N, K in ((0, 6, 4), (4, 0, 4), (4, 6, 0)):
        rows = M * (2 if operation in (*cases.GATHERED, "matmul_all_gather") else 1)
        rows = rows // 2 if operation == "matmul_reduce_scatter" else rows
        C = cases.poisoned(ctx.empty(rows, N))
        getattr(ctx.ops, operation)(C, torch.ones(M, K), torch.ones(K, N), config=PLAIN)
        assert torch.equal(C, torch.zeros(rows, N)), (M, N, K)


@ranks(2)
def test_ranks_of_different_forms_are_told(ctx):
    A, B, C = torch.ones(4, 3), torch.ones(3, 6), ctx.empty(4, 6)
    config = PLAIN if ctx.rank == 0 else iris_c.FusedConfig(form="tiles")
    expected = (
        "rank 0 called matmul_all_reduce.M=4, N=6, K=3, float32, \\w+, plain., "
        "rank 1 called matmul_all_reduce.M=4, N=6, K=3, float32, two_shot, blocks "
    )
    product = waiting(ctx, lambda: ctx.ops.matmul_all_reduce(C, A, B, config=config))
    for _ in range(3):
        with pytest.raises(ValueError, match=expected):
            product()
        ctx.ops.matmul_all_reduce(C, A, B, config=PLAIN)
        assert torch.equal(C, torch.full((4, 6), 6.0))


@ranks(2, heap_size=16 << 20)
def test_a_preamble_makes_all_the_room(ctx):
    for operation, options in cases.CALLS:
        case = divided(cases.Case(64, 64, 16), 2, operation, options.get("dim", 0))
        A, B, _, expected, _ = expected_of(
            case, ctx.rank, 2, operation, torch.float32, "", lambda _: None,
            options.get("dim", options.get("gather_dim", 0)),
        )  # fmt: skip
        C = torch.zeros(expected.shape)
        preamble = getattr(ctx.ops, operation + "_preamble")
        workspace = preamble(C, A, B, config=PLAIN, **options)
        held = ctx.heap_used
        assert C.count_nonzero() == 0
        assert workspace.call_counter == 0
        getattr(ctx.ops, operation)(C, A, B, config=PLAIN, workspace=workspace, **options)
        assert ctx.heap_used == held
        assert workspace.call_counter == 1
        torch.testing.assert_close(C, expected.float())
        workspace.clear()


@ranks(2)
def test_a_selected_config_selects_the_same_again(ctx):
    for operation in cases.PRODUCTS:
        config = ctx.ops.select_config(128, 64, 32, "float32", PLAIN, operation)
        assert config.form == "plain"
        assert config.block_size_m is config.block_size_n is config.k_per_flag is None
        assert ctx.ops.select_config(128, 64, 32, "float32", config, operation) == config
