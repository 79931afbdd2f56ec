# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Products of float8 operands with scales against float64: formats, kinds of scales, shapes,
layouts, operations, forms and variants, bias; and what is refused. The bound is that of float8.py.
"""

import itertools

import cases
import float8
import pytest
import torch
from float8 import FORMATS, KINDS

import iris_c
from iris_c.testing import ranks

# (M, N, K): a block of K, several, and one with a part; odd sizes; more than a tile.
SHAPES = ((1, 1, 1), (5, 7, 130), (33, 9, 256), (130, 300, 129), (64, 257, 384), (2, 128, 17))

pytestmark = cases.cpu_only


def draw(name, rows, cols, dtype, layout="row"):
    values = float8.drawn(name, rows, cols).to(dtype)
    return cases.laid_out(rows, cols, layout, lambda *s: torch.empty(s, dtype=dtype)).copy_(values)


class Product:
    """Operands of every rank, with which any rank computes the reference by itself."""

    def __init__(self, shape, world, formats=FORMATS[:2], kinds=("row", "row"),
                 layouts=("row",) * 3, salt=""):  # fmt: skip
        M, N, K = self.shape = shape
        self.world, self.layouts = world, layouts
        name = f"{shape}{formats}{kinds}{salt}"
        each = range(world)
        self.A = [draw(f"A{r}{name}", M, K, formats[0], layouts[0]) for r in each]
        self.B = [draw(f"B{r}{name}", K, N, formats[1], layouts[1]) for r in each]
        self.scale_a = [float8.drawn_scale(f"a{r}{name}", kinds[0], M, K) for r in each]
        self.scale_b = [float8.drawn_scale(f"b{r}{name}", kinds[1], N, K).t() for r in each]

    def a(self, rank):
        return self.A[rank].double() * float8.spread(self.scale_a[rank], *self.A[rank].shape)

    def b(self, rank):
        scale = float8.spread(self.scale_b[rank].t(), *self.B[rank].t().shape)
        return self.B[rank].double() * scale.t()


def check(ctx, operation, product, dtype=torch.bfloat16, *, dim=0, bias=None, on_heap=False,
          config=None, workspace=None, joined=False, where=""):  # fmt: skip
    """One call, checked. Returns its result and its workspace."""
    rank, world = ctx.rank, ctx.world_size
    A, B, scale_b = product.A[rank], product.B[rank], product.scale_b[rank]
    keywords = {"config": config, "workspace": workspace}
    a, b = ([of(r) for r in range(world)] for of in (product.a, product.b))
    if operation == "matmul_reduce_scatter":
        keywords["dim"] = dim
    if operation in cases.GATHERED:
        keywords["gather_dim"] = dim
        if dim == 1:  # B's rows are those of all shards
            B = torch.cat([product.B[(rank + r) % world] for r in range(world)])
            b[rank] = torch.cat([product.b((rank + r) % world) for r in range(world)])
            scale_b = product.joined_scale_b(rank)
        if joined:
            keywords["A_gathered"] = torch.empty(torch.cat(a, dim).shape, dtype=A.dtype)
    expected, sizes, partials = float8.reference(operation, rank, a, b, dim)
    if bias is not None:
        keywords["bias"] = bias
        expected = expected + bias.double()
        partials = partials + bias.double().abs()
    empty = ctx.empty if on_heap else torch.empty
    C = cases.laid_out(*expected.shape, product.layouts[2], lambda *s: empty(*s, dtype=dtype))
    cases.poisoned(C)
    used = getattr(ctx.ops, operation)(
        C, A, B, scale_a=product.scale_a[rank], scale_b=scale_b, **keywords
    )
    bound = float8.bound(partials, sizes, expected, dtype, B.shape[0], world)
    cases.check_close(C, expected, bound, f"rank {rank} {operation} {dim} {product.shape} {where}")
    if joined:
        shards = torch.cat([product.A[r].view(torch.uint8) for r in range(world)], dim)
        assert torch.equal(keywords["A_gathered"].view(torch.uint8), shards)
    return C, used


def gathered_columns(shape, world, kinds, formats=FORMATS[:2], salt=""):
    """A product whose A is gathered along K: B has the rows of all shards, with its scales."""
    product = Product(shape, world, formats, kinds, salt=salt)
    if kinds[1] in ("tensor", "row"):
        product.scale_b = [product.scale_b[0]] * world

    def joined(rank):
        if kinds[1] in ("tensor", "row"):
            return product.scale_b[0]
        return torch.cat([product.scale_b[(rank + r) % world] for r in range(world)])

    product.joined_scale_b = joined
    return product


@pytest.mark.parametrize("operation", cases.PRODUCTS)
@ranks(1, 2, 3)
def test_kinds_of_scales(ctx, operation):
    """Every pair of kinds, with all shapes, formats and dtypes of C in turn."""
    shapes, formats = itertools.cycle(SHAPES), itertools.cycle(itertools.product(FORMATS, FORMATS))
    dtypes = itertools.cycle(cases.DTYPES)
    for number, kinds in enumerate(itertools.product(KINDS, KINDS)):
        M, N, K = next(shapes)
        if operation == "matmul_reduce_scatter":
            M *= ctx.world_size
        product = Product((M, N, K), ctx.world_size, next(formats), kinds)
        joined = operation in cases.GATHERED and number % 3 == 0
        check(ctx, operation, product, next(dtypes), on_heap=number % 2 == 0, joined=joined,
              where=kinds)  # fmt: skip


@ranks(2, 3)
def test_layouts_and_bias(ctx):
    layouts = (
        ("transposed", "row", "row"),
        ("row", "transposed", "transposed"),
        ("strided", "padded", "strided"),
    )
    for number, operation in enumerate(cases.PRODUCTS):
        for layout in layouts:
            shape = (33 * ctx.world_size if operation == "matmul_reduce_scatter" else 33, 47, 150)
            product = Product(shape, ctx.world_size, kinds=("line", "square"), layouts=layout)
            dtype = cases.DTYPES[number % 3]
            bias = cases.contribution(7, 47, dtype)
            check(ctx, operation, product, dtype, bias=bias, where=layout)


@ranks(2, 3)
def test_columns_are_scattered(ctx):
    for kinds in (("row", "row"), ("line", "square"), ("tensor", "line")):
        product = Product((9, 64 * ctx.world_size, 200), ctx.world_size, kinds=kinds)
        check(ctx, "matmul_reduce_scatter", product, dim=1)


@ranks(1, 2, 3)
def test_columns_are_gathered(ctx):
    """Each shard of columns has scales of its own; blocks of B's are whole in each shard."""
    for operation in cases.GATHERED:
        for kinds in itertools.product(KINDS, KINDS):
            K = 77 if kinds[1] in ("tensor", "row") else 256
            product = gathered_columns((40, 150, K), ctx.world_size, kinds)
            check(ctx, operation, product, torch.float32, dim=1, joined=True, where=kinds)


@ranks(2)
def test_forms_and_variants(ctx):
    for kinds in (("tensor", "row"), ("line", "square")):
        product = Product((9, 150, 200), 2, kinds=kinds)
        for variant in cases.VARIANTS:
            config = iris_c.FusedConfig(all_reduce_variant=variant, form="tiles")
            check(ctx, "matmul_all_reduce", product, config=config, where=variant)
        for variant in ("ll", "ll_two_shot"):
            config = iris_c.FusedConfig(form="decode", all_reduce_variant=variant)
            check(ctx, "matmul_all_reduce", product, torch.float16, config=config, where=variant)
        product = Product((10, 256, 200), 2, kinds=kinds)
        for operation, form, dim in itertools.product(
            cases.PRODUCTS[:3], ("decode", "plain"), (0, 1)
        ):
            if operation != "matmul_reduce_scatter" and dim == 1:
                continue
            check(
                ctx, operation, product, dim=dim, config=iris_c.FusedConfig(form=form), where=form
            )
        # Small tiles, of which a block of K has many, and packed panels are used again.
        config = iris_c.FusedConfig(block_size_m=16, block_size_n=32, form="tiles")
        for operation in cases.PRODUCTS:
            check(ctx, operation, product, config=config, where=config)


@ranks(2)
def test_workspaces_and_preambles(ctx):
    first = Product((34, 47, 150), 2, kinds=("line", "square"))
    second = Product((34, 47, 150), 2, kinds=("row", "row"), salt="2")
    for operation in cases.PRODUCTS:
        names = {"A": first.A[ctx.rank], "B": first.B[ctx.rank]}
        rows = 34 * (2 if "gather" in operation else 1) // (2 if "scatter" in operation else 1)
        workspace = getattr(ctx.ops, f"{operation}_preamble")(
            torch.empty(rows, 47, dtype=torch.bfloat16), *names.values(),
            scale_a=first.scale_a[ctx.rank], scale_b=first.scale_b[ctx.rank],
        )  # fmt: skip
        for product in (first, second, first):
            _, used = check(ctx, operation, product, workspace=workspace)
            assert used is workspace
        assert workspace.call_counter == 3


@ranks(2)
def test_batch_invariance(ctx):
    """A row has the same bits whatever the others, and the same in every call."""
    product = Product((70, 300, 390), 2, kinds=("line", "square"))
    config = iris_c.FusedConfig(batch_invariant=True)
    for operation in ("matmul_all_reduce", "all_gather_matmul"):
        whole, _ = check(ctx, operation, product, config=config)
        few = Product((70, 300, 390), 2, kinds=("line", "square"))
        few.shape = (3, 300, 390)
        few.A = [a[:3] for a in few.A]
        few.scale_a = [s[:3] for s in few.scale_a]
        some, _ = check(ctx, operation, few, config=config)
        assert torch.equal(some[:3], whole[:3])


@ranks(1, 2)
def test_nothing_to_multiply(ctx):
    for operation in cases.PRODUCTS:
        for shape in ((0, 5, 7), (4, 0, 7), (4, 5, 0)):
            for kinds in (("row", "row"), ("line", "square")):
                bias = cases.contribution(3, shape[1], torch.bfloat16)
                check(ctx, operation, Product(shape, ctx.world_size, kinds=kinds), bias=bias,
                      where=kinds)  # fmt: skip


@ranks(1)
def test_every_value(ctx):
    """All 256 bytes of each format come out as torch has them, one in each row."""
    for dtype in FORMATS:
        A = torch.arange(256, dtype=torch.uint8).view(dtype).view(256, 1)
        C = torch.empty(256, 1)
        one = torch.ones(1)
        ctx.ops.matmul_all_reduce(C, A, torch.ones(1, 1).to(dtype), scale_a=one, scale_b=one)
        assert torch.equal(C.nan_to_num(7e7), A.float().nan_to_num(7e7))


@ranks(2)
def test_refusals(ctx):
    """Names the argument, what it was and what was expected, on every rank; the context goes on."""
    M, N, K = 4, 6, 256
    good = {
        "C": torch.empty(M, N, dtype=torch.bfloat16), "A": torch.empty(M, K).to(FORMATS[0]),
        "B": torch.empty(K, N).to(FORMATS[0]), "scale_a": torch.ones(M, 1),
        "scale_b": torch.ones(1, N),
    }  # fmt: skip
    overlapping = torch.zeros(M * N)
    wrong = (
        ({"scale_a": None}, "scale_a: expected a float32 tensor, as A is float8_e4m3fn, got None"),
        ({"scale_b": None}, "scale_b: expected a float32 tensor, as B is float8_e4m3fn, got None"),
        ({"scale_a": torch.ones(M, 1, dtype=torch.float64)},
         "scale_a: expected dtype float32, got float64"),
        ({"scale_a": torch.ones(3, 1)},
         "scale_a: expected one element, or shape (4, 1), (4, 2) or (1, 2) for A (4, 256), got "
         "shape (3, 1)"),
        ({"scale_b": torch.ones(6, 1)},
         "scale_b: expected one element, or shape (1, 6), (2, 6) or (2, 1) for B (256, 6), got "
         "shape (6, 1)"),
        ({"scale_a": torch.ones(4)}, "for A (4, 256), got 1-D with 4 elements"),
        ({"C": torch.empty(M, N).to(FORMATS[0])},
         "C: expected dtype float32, float16 or bfloat16, as A is float8_e4m3fn, got float8"),
        ({"B": torch.empty(K, N, dtype=torch.bfloat16)},
         "or float8_e5m2fnuz, as A is float8_e4m3fn, got bfloat16"),
        ({"A": torch.empty(M, K, dtype=torch.half), "B": torch.empty(K, N, dtype=torch.half),
          "C": torch.empty(M, N, dtype=torch.half)},
         "scale_a: expected None, as A is float16 and not of a float8 dtype, got a tensor"),
        ({"bias": torch.empty(N).to(FORMATS[0])},
         "bias: expected dtype bfloat16 like C, got float8_e4m3fn"),
        ({"C": overlapping.view(M, N), "scale_a": overlapping[:M].view(M, 1)},
         "C: expected memory apart from scale_a's"),
        ({"A": torch.empty(M, K).to(torch.float8_e8m0fnu)}, "on cpu, got float8_e8m0fnu"),
    )  # fmt: skip
    for changes, message in wrong:
        for operation in ("matmul_all_reduce", "matmul_all_reduce_preamble"):
            arguments = good | changes
            if operation.endswith("preamble") and "memory apart" in message:
                continue
            with pytest.raises(ValueError) as error:
                getattr(ctx.ops, operation)(**arguments)
            assert message in str(error.value)
    shard = {"A_shard": torch.empty(M, 77).to(FORMATS[0]), "B": torch.empty(154, N).to(FORMATS[0])}
    with pytest.raises(ValueError, match=r"columns in a multiple of 128, .* got 77"):
        ctx.ops.all_gather_matmul(
            good["C"], **shard, gather_dim=1, scale_a=torch.ones(1), scale_b=torch.ones(2, 6)
        )
    with pytest.raises(ValueError, match="form: expected one that all_gather_matmul has"):
        ctx.ops.all_gather_matmul(
            torch.empty(2 * M, N, dtype=torch.bfloat16), good["A"], good["B"],
            scale_a=torch.ones(1), scale_b=torch.ones(1), config=iris_c.FusedConfig(form="plain"),
        )  # fmt: skip
    ctx.ops.matmul_all_reduce(**good)


@ranks(2)
def test_ranks_that_disagree_about_scales(ctx):
    """Kinds of scales are part of what ranks agree on, as dtypes are."""
    M, N, K = 4, 6, 256
    scale_a = torch.ones(M, 1) if ctx.rank == 0 else torch.ones(M, 2)
    with pytest.raises(ValueError, match=r"by row .*by 1x128 |by 1x128 .*by row "):
        ctx.ops.matmul_all_reduce(
            torch.empty(M, N), torch.empty(M, K).to(FORMATS[0]), torch.empty(K, N).to(FORMATS[0]),
            scale_a=scale_a, scale_b=torch.ones(1),
        )  # fmt: skip
