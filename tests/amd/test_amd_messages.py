# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Messages, RMA and all_reduce_rmsnorm by the shipped code objects on emulated GPUs."""

import cases
import machine
import norms
import pytest
import torch
from test_amd_collectives import BEHAVIOURS, Exchange

import iris_c

CHUNK = 32 << 10


def messages(ctx, memory, sizes=(1, 5, CHUNK + 1, 9 * CHUNK + 3)):
    """Between all pairs, more than a lane's slots hold; then with a size for each pair."""
    exchange, world, rank = Exchange(ctx, memory), ctx.world_size, ctx.rank
    for number, n in enumerate(sizes):
        for src in range(world):
            dst = (src + 1 + number) % world
            if src == dst:
                continue
            if rank == src:
                exchange.call("send", exchange.mine(n, torch.uint8, False), dst=dst)
            elif rank == dst:
                got = exchange.tensor(n, torch.uint8, False)
                exchange.call("recv", got, src=src)
                assert torch.equal(got, cases.contribution(src, n, torch.uint8)), (n, src)
        exchange.done()
    generator = torch.Generator().manual_seed(5)
    for largest in (3, 9000):
        sizes = torch.randint(0, largest, (world, world), generator=generator)
        parts = [
            [
                cases.contribution(world * s + t, int(sizes[s][t]), torch.float32)
                for t in range(world)
            ]
            for s in range(world)
        ]
        given = exchange.tensor(int(sizes[rank].sum()), torch.float32, False)
        given.copy_(torch.cat(parts[rank]))
        output = exchange.tensor(int(sizes[:, rank].sum()), torch.float32, False)
        exchange.call(
            "all_to_all", output, given, output_split_sizes=sizes[:, rank].tolist(),
            input_split_sizes=sizes[rank].tolist(),
        )  # fmt: skip
        assert torch.equal(output, torch.cat([parts[s][rank] for s in range(world)]))
        exchange.done()


def remote_memory(ctx, memory, sizes=(1, 7, 70001)):
    """A semaphore round the ring."""
    exchange, world = Exchange(ctx, memory), ctx.world_size
    right, left = (ctx.rank + 1) % world, (ctx.rank - 1) % world
    word, taken = (exchange.tensor(1, torch.int32, True).zero_() for _ in range(2))
    for n in sizes:
        place = exchange.tensor(n, torch.uint8, True)
        given = exchange.mine(n, torch.uint8, False)
        ctx.barrier()
        for turn in range(3):
            given.copy_(cases.contribution(ctx.rank, n, torch.uint8, turn))
            ctx.put(*(memory.passed(t) for t in (place, given)), right)
            ctx.signal(memory.passed(word), right, op="add")
            ctx.wait(memory.passed(word), consume=True)
            assert memory.library.hipDeviceSynchronize() == 0
            assert torch.equal(place, cases.contribution(left, n, torch.uint8, turn)), (n, turn)
            ctx.signal(memory.passed(taken), left, n + turn)
            ctx.wait(memory.passed(taken), n + turn, "eq")
        assert memory.library.hipDeviceSynchronize() == 0
        got = exchange.tensor(n, torch.uint8, False)
        ctx.get(*(memory.passed(t) for t in (got, place)), right)
        assert memory.library.hipDeviceSynchronize() == 0
        assert torch.equal(got, cases.contribution(ctx.rank, n, torch.uint8, 2))
        ctx.barrier()
    assert int(word) == 0


def normalized_sums(ctx, memory, shapes=((1, 8), (5, 129), (9, 1024), (0, 4)), dtypes=cases.DTYPES):
    exchange = Exchange(ctx, memory)
    for number, (rows, columns) in enumerate(shapes):
        for dtype in dtypes:
            for variant in ("ll", "ll_two_shot"):
                n = rows * columns
                output, residual_out = (exchange.tensor(n, dtype, False) for _ in range(2))
                given = exchange.mine(n, dtype, number % 2 == 0)
                residual = exchange.tensor(n, dtype, False).copy_(cases.contribution(21, n, dtype))
                weight = exchange.tensor(columns, dtype, False)
                weight.copy_(cases.contribution(20, columns, dtype))
                exchange.call(
                    "all_reduce_rmsnorm",
                    *(t.view(rows, columns) for t in (output, residual_out, given, residual)),
                    weight, eps=norms.EPS, config=iris_c.ccl.Config(all_reduce_variant=variant),
                )  # fmt: skip
                if n > 0:
                    terms = [cases.contribution(r, n, dtype) for r in (*range(ctx.world_size), 21)]
                    results = (t.view(rows, columns) for t in (residual_out, output))
                    norms.check(terms, weight, *results, dtype, f"{rows}x{columns} {variant}")
                exchange.done()


SCATTERED = (
    (1, 1, 1, "row"),
    (33, 47, 29, "transposed"),
    (130, 20, 70, "row"),
    (9, 150, 40, "padded"),
)


def scattered_products(ctx, memory, shapes=SCATTERED, dtypes=cases.DTYPES):
    """matmul_reduce_scatter along both dimensions, shares that are no multiple of anything."""
    exchange, world = Exchange(ctx, memory), ctx.world_size
    for number, (M, N, K, b) in enumerate(shapes):
        for dtype in dtypes:
            for dim in (0, 1):
                rows, cols = (M * world, N) if dim == 0 else (M, N * world)
                case = cases.Case(rows, cols, K, b=b)

                def allocate(*sizes, dtype=dtype):
                    return memory.ordinary(*sizes, dtype=dtype)

                A, B = cases.operands(case, ctx.rank, dtype, str(number), allocate)
                C = exchange.tensor(M * N, dtype, False).view(M, N)
                passed = [memory.passed(tensor) for tensor in (C, A, B)]
                ctx.ops.matmul_reduce_scatter(*passed, dim=dim)
                assert memory.library.hipDeviceSynchronize() == 0
                expected, bound = cases.reference(case, world, dtype, str(number))
                cases.check_close(
                    C, expected.chunk(world, dim)[ctx.rank], bound.chunk(world, dim)[ctx.rank],
                    f"{case} {dtype} dim {dim}",
                )  # fmt: skip
                exchange.done()


def gathered_products(
    ctx, memory, shapes=((1, 1, 1), (33, 47, 29), (140, 20, 70)), dtypes=cases.DTYPES
):
    """matmul_all_gather, results in the heap and outside of it."""
    exchange, world = Exchange(ctx, memory), ctx.world_size
    for number, (M, N, K) in enumerate(shapes):
        for dtype in dtypes:
            case = cases.Case(M, N, K)
            A, B = cases.operands(
                case, ctx.rank, dtype, "",
                lambda *sizes, dtype=dtype: memory.ordinary(*sizes, dtype=dtype),
            )  # fmt: skip
            C = exchange.tensor(M * world * N, dtype, number % 2 == 0).view(M * world, N)
            ctx.ops.matmul_all_gather(*(memory.passed(tensor) for tensor in (C, A, B)))
            assert memory.library.hipDeviceSynchronize() == 0
            expected, bound = cases.gathered(case, world, dtype)
            cases.check_close(C, expected, bound, f"{case} {dtype}")
            exchange.done()


def product_of(A, B, dtype):
    """cases.product; gfx90a takes subnormal fp16 elements for 0."""
    expected, bound = cases.product(A, B, dtype)
    if dtype == torch.float16:
        A, B, tiny = A.double().abs(), B.double().abs(), 2.0**-14
        bound += torch.where(A < tiny, A, 0) @ B + A @ torch.where(B < tiny, B, 0)
    return expected, bound


JOINED = ((1, 1, 1, "row"), (33, 47, 29, "transposed"), (140, 20, 70, "row"))


def joined_operands(ctx, memory, shapes=JOINED, dtypes=cases.DTYPES):
    """all_gather_matmul and its overlapped form along both dimensions; the joined operand too."""
    exchange, world = Exchange(ctx, memory), ctx.world_size
    config = iris_c.FusedConfig(k_per_flag=1, staged_a_layout="m_contiguous")
    for number, (M, N, K, a) in enumerate(shapes):
        for dtype in dtypes:
            for dim in (0, 1):

                def allocate(*sizes, dtype=dtype):
                    return memory.ordinary(*sizes, dtype=dtype)

                shard = cases.Case(M, N, K, a=a)
                A, _ = cases.operands(shard, ctx.rank, dtype, "", allocate)
                joined = torch.cat(
                    [cases.operands(shard, rank, dtype)[0] for rank in range(world)], dim
                )
                _, B = cases.operands(
                    cases.Case(M, N, joined.shape[1]), ctx.rank, dtype, "", allocate
                )
                C = exchange.tensor(joined.shape[0] * N, dtype, False).view(-1, N)
                gathered = exchange.tensor(joined.numel(), dtype, False).view(joined.shape)
                operation = (
                    ctx.ops.all_gather_matmul if number == 1
                    else ctx.ops.all_gather_matmul_hbm_buffer
                )  # fmt: skip
                operation(
                    *(memory.passed(tensor) for tensor in (C, A, B)), gather_dim=dim,
                    config=config if number == 2 else None, A_gathered=memory.passed(gathered),
                )  # fmt: skip
                assert memory.library.hipDeviceSynchronize() == 0
                expected, bound = product_of(joined, B, dtype)
                cases.check_close(C, expected, bound, f"{shard} {dtype} dim {dim}")
                assert torch.equal(gathered, joined)
                exchange.done()


BODIES = [
    messages,
    remote_memory,
    normalized_sums,
    scattered_products,
    gathered_products,
    joined_operands,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_direct(emulated, arch, behaviour, body):
    emulated(arch, **BEHAVIOURS[behaviour]).run(body, 3)
