# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Every operation, variant and form once or twice in worlds of 5, 6, 7 and 8: more ranks than the
other files have, and numbers of them that divide little."""

import dataclasses
import itertools
import pathlib
import re

import cases
import norms
import test_all_gather_matmul
import test_decode
import test_matmul_reduce_scatter
import test_plain
import torch

import iris_c
from iris_c.ccl import Recv, Send
from iris_c.testing import ranks

F32, F16, BF16 = cases.DTYPES
PRODUCT = cases.Case(33, 47, 29, b="transposed", bias="row", block=(16, 16, 16))
FEW_ROWS = cases.Case(9, 70, 40, bias="row")
SIZES = (1, 255, 4099)


def roots(ctx):
    return (0, ctx.world_size // 2, ctx.world_size - 1)


def place(ctx, n, dtype, on_heap):
    return ctx.empty(n, dtype=dtype) if on_heap else torch.empty(n, dtype=dtype)


# ---- products ----


def sums_of_products(ctx):
    for number, variant in enumerate((*cases.VARIANTS, None)):
        config = cases.config(ctx, variant, *PRODUCT.block)
        for dtype in (F32, BF16) if number % 2 else (F32, F16):
            A, B = cases.operands(PRODUCT, ctx.rank, dtype)
            C = cases.poisoned(place(ctx, PRODUCT.M * PRODUCT.N, dtype, number % 2 == 0))
            C = C.view(PRODUCT.M, PRODUCT.N)
            ctx.ops.matmul_all_reduce(
                C, A, B, bias=cases.bias_of(PRODUCT, dtype), async_op=number % 3 == 0, config=config
            )
            ctx.barrier()
            expected, bound = cases.reference(PRODUCT, ctx.world_size, dtype)
            cases.check_close(C, expected, bound, f"rank {ctx.rank} {variant} {dtype}")


def shares_of_products(ctx):
    for dim in (0, 1):
        for on_heap, dtype in ((True, F32), (False, F16)):
            test_matmul_reduce_scatter.check(
                ctx, cases.Case(5, 13, 29), dim, dtype, on_heap, bias_shape=(False, True)
            )


def gathered_products(ctx):
    case = dataclasses.replace(PRODUCT, bias="")
    for on_heap, dtype in ((True, F32), (False, BF16)):
        A, B = cases.operands(case, ctx.rank, dtype)
        C = cases.poisoned(place(ctx, ctx.world_size * case.M * case.N, dtype, on_heap))
        C = C.view(-1, case.N)
        ctx.ops.matmul_all_gather(C, A, B, config=iris_c.FusedConfig(form="tiles"))
        cases.check_close(C, *cases.gathered(case, ctx.world_size, dtype), f"rank {ctx.rank}")


def products_of_gathered(ctx):
    """The units of the overlapped form at their smallest too: as many flags as there can be."""
    smallest = iris_c.FusedConfig(k_per_flag=1, block_size_k=16)
    for operation in cases.GATHERED:
        for dim in (0, 1):
            config = smallest if operation.endswith("buffer") and ctx.backend == "cpu" else None
            for dtype, options in ((F32, {}), (F16, {"config": config, "joined": "row"})):
                test_all_gather_matmul.check(
                    ctx, operation, cases.Case(7, 33, 21), dim, dtype, bias_shape=(False, True),
                    **options,
                )  # fmt: skip


def forms_of_few_rows(ctx):
    for operation in test_decode.OPERATIONS:
        for number, dtype in enumerate(test_decode.HALVES):
            test_decode.check(ctx, operation, FEW_ROWS, dtype, on_heap=number == 0)


def plain_forms(ctx):
    for number, (operation, options) in enumerate(cases.CALLS):
        joined = "row" if operation in cases.GATHERED else ""
        bias = None if operation == "matmul_reduce_scatter" else (False, True)
        test_plain.check(
            ctx, operation, cases.Case(9, 31, 21), (F32, BF16)[number % 2], bias=bias,
            joined=joined, on_heap=number % 3 != 0, **options,
        )  # fmt: skip


def invariant_products(ctx):
    """A row has the same bits in calls of any number of rows."""
    invariant = iris_c.FusedConfig(batch_invariant=True)
    case = cases.Case(3 * ctx.world_size, 40, 50)
    A, B = cases.operands(case, ctx.rank, F16)
    results = []
    for rows in (case.M, ctx.world_size):
        C = torch.empty(rows, case.N, dtype=F16)
        ctx.ops.matmul_all_reduce(C, A[:rows], B, config=invariant)
        results.append(C)
    assert torch.equal(results[0][: ctx.world_size], results[1])


def prepared_products(ctx):
    """What a preamble has agreed on, the call takes; a workspace serves call after call."""
    world = ctx.world_size
    A, B = torch.ones(4, 6), torch.ones(6, 2 * world)
    shapes = {
        "matmul_all_reduce": ((4, 2 * world), 6.0 * world),
        "matmul_all_gather": ((4 * world, 2 * world), 6.0),
        "all_gather_matmul": ((4 * world, 2 * world), 6.0),
        "all_gather_matmul_hbm_buffer": ((4 * world, 2 * world), 6.0),
        "matmul_reduce_scatter": ((4, 2), 6.0 * world),
    }
    for name in cases.PRODUCTS:
        shape, value = shapes[name]
        C = ctx.empty(*shape)
        options = {"dim": 1} if name == "matmul_reduce_scatter" else {}
        workspace = getattr(ctx.ops, f"{name}_preamble")(C, A, B, **options)
        before = workspace.call_counter  # of calls without one that went before
        for call in range(3):
            cases.poisoned(C)
            done = getattr(ctx.ops, name)(C, A, B, workspace=workspace, **options)
            assert done is workspace, name
            assert workspace.call_counter == before + call + 1, name
            assert torch.equal(C, torch.full(shape, value)), name
            ctx.barrier()


# ---- collectives ----


def reductions(ctx):
    for number, variant in enumerate((*cases.ALL_REDUCE_VARIANTS, None)):
        config = iris_c.ccl.Config(all_reduce_variant=variant)
        for n in SIZES:
            for op in cases.REDUCTIONS:
                dtype = cases.REDUCIBLE[(number + n + len(op)) % len(cases.REDUCIBLE)]
                if not cases.reduces(variant or "two_shot", op, dtype):
                    continue
                output = place(ctx, n, dtype, n != 255)
                given = place(ctx, n, dtype, number % 2 == 0)
                given.copy_(cases.reduced_input(ctx.rank, n, dtype))
                ctx.ccl.all_reduce(output, given, op=op, config=config)
                what = f"rank {ctx.rank} {variant} {op} {n} {dtype}"
                cases.check_reduction(output, ctx.world_size, op, what)


def shares_of_sums(ctx):
    for variant, (number, n) in itertools.product(("ll", "two_shot"), enumerate(SIZES)):
        config = iris_c.ccl.Config(all_reduce_variant=variant)
        for op in cases.REDUCTIONS:
            dtype = cases.REDUCIBLE[(number + len(op)) % len(cases.REDUCIBLE)]
            part = place(ctx, n, dtype, number % 2 == 0)
            given = torch.empty(n * ctx.world_size, dtype=dtype)
            given.copy_(cases.reduced_input(ctx.rank, n * ctx.world_size, dtype))
            ctx.ccl.reduce_scatter(part, given, op=op, config=config)
            whole = ctx.empty(n * ctx.world_size, dtype=dtype)
            ctx.ccl.all_gather(whole, part)
            what = f"rank {ctx.rank} {variant} {op} {n} {dtype}"
            cases.check_reduction(whole, ctx.world_size, op, what)


def copies(ctx):
    """all_gather and all_to_all, by either way, of words and of bytes."""
    world = ctx.world_size
    for number, n in enumerate(SIZES):
        for variant in ("two_shot", "ll"):
            config = iris_c.ccl.Config(all_reduce_variant=variant)
            dtype = (F32, torch.uint8, torch.int64)[number]
            output = place(ctx, n * world, dtype, number % 2 == 0)
            output.view(torch.uint8).fill_(0x55)
            ctx.ccl.all_gather(output, cases.contribution(ctx.rank, n, dtype), config=config)
            for rank, part in enumerate(output.view(world, n)):
                assert torch.equal(part, cases.contribution(rank, n, dtype)), (rank, n, variant)
        output.view(torch.uint8).fill_(0x55)
        ctx.ccl.all_to_all(output, cases.contribution(ctx.rank, n * world, dtype))
        for rank, part in enumerate(output.view(world, n)):
            theirs = cases.contribution(rank, n * world, dtype).view(world, n)
            assert torch.equal(part, theirs[ctx.rank]), (rank, n)


def rows_between(src, dst):
    """Of an all_to_all with sizes: some are 0, none is the same both ways for long."""
    return (3 * src + dst) % 4


def uneven_copies(ctx):
    rank, world = ctx.rank, ctx.world_size
    for columns in (1, 5, 3000):

        def sent(src, dst, columns=columns):
            n = rows_between(src, dst) * columns
            return cases.contribution(100 * src + dst, n, F32).view(-1, columns)

        outgoing = [rows_between(rank, peer) for peer in range(world)]
        incoming = [rows_between(peer, rank) for peer in range(world)]
        output = cases.poisoned(torch.empty(sum(incoming), columns))
        ctx.ccl.all_to_all(
            output, torch.cat([sent(rank, peer) for peer in range(world)]),
            output_split_sizes=incoming, input_split_sizes=outgoing,
        )  # fmt: skip
        assert torch.equal(output, torch.cat([sent(peer, rank) for peer in range(world)])), columns


def rooted(ctx):
    rank, world = ctx.rank, ctx.world_size
    for number, root in enumerate(roots(ctx)):
        for n in SIZES:
            on_heap = (number + n) % 2 == 0
            tensor = place(ctx, n, F32, on_heap).copy_(cases.contribution(rank, n, F32))
            ctx.ccl.broadcast(tensor, src=root)
            assert torch.equal(tensor, cases.contribution(root, n, F32)), (root, n)
            output = cases.poisoned(place(ctx, n, F32, on_heap))
            ctx.ccl.reduce(
                output if rank == root else None, cases.contribution(rank, n, F32), dst=root
            )
            if rank == root:
                cases.check_close(output[None], *cases.sums(world, n, F32), f"{root} {n}")
            else:
                assert output.isnan().all(), "what is not the root's was written"
            output = cases.poisoned(place(ctx, n * world, F32, on_heap))
            ctx.ccl.gather(
                output if rank == root else None, cases.contribution(rank, n, F32), dst=root
            )
            if rank == root:
                for peer, part in enumerate(output.view(world, n)):
                    assert torch.equal(part, cases.contribution(peer, n, F32)), (root, n, peer)
            whole = cases.contribution(root, n * world, F32)
            output = cases.poisoned(place(ctx, n, F32, on_heap))
            ctx.ccl.scatter(output, whole if rank == root else None, src=root)
            assert torch.equal(output, whole.view(world, n)[rank]), (root, n)


def rms_norms(ctx):
    for number, variant in enumerate(("ll", "ll_two_shot", "one_shot", "two_shot", None)):
        if ctx.backend != "cpu" and variant in ("one_shot", "two_shot"):
            continue
        for shape in ((1, 40), (7, 129)):
            layer = norms.Layer(ctx, shape, cases.DTYPES[number % 3], variant)
            layer.call()
            layer.check()


def prepared_sums(ctx):
    output, given = ctx.zeros(100), torch.ones(100)
    workspace = ctx.ccl.all_reduce_preamble(output, given)
    before = workspace.call_counter
    for call in range(3):
        assert ctx.ccl.all_reduce(output, given, workspace=workspace) is workspace
        assert workspace.call_counter == before + call + 1
        assert torch.equal(output, torch.full((100,), float(ctx.world_size)))
        ctx.barrier()


# ---- messages, and access to other ranks' heaps ----


def messages(ctx):
    """One after the other over all distances; round a ring; then all with all at once."""
    rank, world = ctx.rank, ctx.world_size
    for src in range(world):
        for distance in (1, world // 2):
            dst = (src + distance) % world
            if rank == src:
                ctx.ccl.send(cases.bytes_of(src, 5000), dst)
            elif rank == dst:
                got = torch.zeros(5000, dtype=torch.uint8)
                ctx.ccl.recv(got, src)
                assert torch.equal(got, cases.bytes_of(src, 5000)), (src, dst)
    n = 300_000  # more than waits in the slots
    for distance in range(1, world):
        got = torch.zeros(n, dtype=torch.uint8)
        src = (rank - distance) % world
        ctx.ccl.sendrecv(got, cases.bytes_of(rank, n), (rank + distance) % world, src)
        assert torch.equal(got, cases.bytes_of(src, n)), distance
    several, received = [], {}
    for step in range(world):
        peer = (rank + step) % world
        received[peer] = torch.zeros(1000 * (1 + peer), dtype=torch.uint8)
        several.append(Recv(received[peer], peer))
        several.append(Send(cases.bytes_of(10 * rank + peer, 1000 * (1 + rank)), peer))
    ctx.ccl.batch(several)
    for peer, got in received.items():
        assert torch.equal(got, cases.bytes_of(10 * peer + rank, 1000 * (1 + peer))), peer


def one_sided(ctx):
    """Every rank writes to, reads from and signals all others."""
    rank, world, n = ctx.rank, ctx.world_size, 3001
    inbox, own = ctx.zeros(world, n), ctx.empty(n)
    word = ctx.zeros(1, dtype=torch.int32)
    own.copy_(cases.contribution(rank, n, F32))
    ctx.barrier()
    for step in range(world):
        peer = (rank + step) % world
        ctx.put(inbox[rank], cases.contribution(100 * rank + peer, n, F32), peer)
        ctx.signal(word, peer, op="add")
    ctx.wait(word, world, "eq", consume=True)
    for peer in range(world):
        expected = cases.contribution(100 * peer + rank, n, F32)
        assert torch.equal(inbox[peer], expected), peer
        got = torch.empty(n)
        ctx.get(got, own, peer)
        assert torch.equal(got, cases.contribution(peer, n, F32)), peer
    assert int(word) == 0
    ctx.ccl.barrier()


def told_objects(ctx):
    for root in roots(ctx):
        assert ctx.broadcast_object({"of": ctx.rank}, root) == {"of": root}
    assert ctx._exchange(ctx.rank**3) == tuple(rank**3 for rank in range(ctx.world_size))


# ---- the rest ----


def nothing(ctx):
    """Empty sizes, of each operation: a call like any other."""
    world = ctx.world_size

    def sizes(name, m, n, k):
        """Of C, A and B."""
        rows = {"matmul_all_gather": world, "all_gather_matmul": world,
                "all_gather_matmul_hbm_buffer": world}.get(name, 1)  # fmt: skip
        given = world if name == "matmul_reduce_scatter" else 1
        return (rows * m, n), (given * m, k), (k, n)

    for name in cases.PRODUCTS:
        for m, n, k in ((0, 5, 3), (2, 0, 3), (2, 5, 0), (0, 0, 0)):
            C, A, B = (torch.ones(size) for size in sizes(name, m, n, k))
            getattr(ctx.ops, name)(cases.poisoned(C), A, B)
            assert torch.equal(C, torch.zeros_like(C)), (name, m, n, k)
    for name in ("all_reduce", "all_gather", "all_to_all", "reduce_scatter"):
        getattr(ctx.ccl, name)(ctx.empty(0), torch.empty(0))
    for name in ("reduce", "gather", "scatter"):
        getattr(ctx.ccl, name)(torch.empty(0), torch.empty(0))
    ctx.ccl.broadcast(ctx.empty(0), world - 1)
    none = [0] * world
    ctx.ccl.all_to_all(
        torch.empty(0, 3), torch.empty(0, 3), output_split_sizes=none, input_split_sizes=none
    )
    right, left = (ctx.rank + 1) % world, (ctx.rank - 1) % world
    ctx.ccl.sendrecv(torch.empty(0), torch.empty(0), right, left)
    layer = norms.Layer(ctx, (0, 8), F32, None)
    layer.call()
    ctx.barrier()


def chosen(ctx):
    """A choice for each product, here and on chips that are not."""
    world = ctx.world_size
    shape = (64 * world, 512, 1024)
    for name in cases.PRODUCTS:
        assert ctx.ops.select_config(*shape, F32, operation=name).form is not None, name
        for arch in ("sm_90a", "gfx942", "cpu"):
            assert iris_c.ops.auto_config(name, *shape, F16, world, arch).form is not None, name
            for decision in iris_c.ops.explain(name, *shape, F16, world, arch).decisions:
                assert min(c.seconds for c in decision.candidates) > 0, (name, arch)


def groups(ctx):
    """Every other rank, all but one, and the last three; each with a product and a sum."""
    world, rank = ctx.world_size, ctx.rank
    for members in (range(0, world, 2), range(1, world), range(world - 3, world)):
        if rank in members:
            total = torch.zeros(1000)
            ctx.ccl.all_reduce(total, torch.full((1000,), 1.0 + rank), group=members)
            assert torch.equal(total, torch.full((1000,), sum(1.0 + r for r in members)))
            group = ctx.group(members)
            C = group.empty(5, 7)
            group.ops.matmul_all_reduce(C, torch.ones(5, 3), torch.ones(3, 7))
            assert torch.equal(C, torch.full((5, 7), 3.0 * len(members)))
        ctx.barrier()


CHECKS = (
    sums_of_products,
    shares_of_products,
    gathered_products,
    products_of_gathered,
    forms_of_few_rows,
    plain_forms,
    invariant_products,
    prepared_products,
    reductions,
    shares_of_sums,
    copies,
    uneven_copies,
    rooted,
    rms_norms,
    prepared_sums,
    messages,
    one_sided,
    told_objects,
    nothing,
    chosen,
    groups,
)


@ranks(5, 6, 7, 8, deadline=150)
def test_every_operation(ctx):
    for check in CHECKS:
        check(ctx)
        ctx.barrier()


def test_no_operation_is_left_out():
    source = "".join(pathlib.Path(file).read_text() for file in (__file__, norms.__file__))
    names = {*iris_c.ops.__all__, *iris_c.ccl.__all__, "put", "get", "signal", "wait", "group"}
    names = {name for name in names if name.islower()}  # the others are types
    # `prepared_products` calls these by names that it makes of cases.PRODUCTS.
    made = {f"{product}{suffix}" for product in cases.PRODUCTS for suffix in ("", "_preamble")}
    assert made < names
    for name in names - made:
        assert re.search(rf"\b(ctx|ops|ccl)\.{name}\(", source), name
    checks = set(re.findall(r"^def (\w+)\(ctx\):", source, re.MULTILINE))
    assert checks - {check.__name__ for check in CHECKS} == {"roots", "test_every_operation"}
