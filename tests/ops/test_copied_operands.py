# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Operands that copy engines gather beside products of their shards: only GPUs have them, and only
large operands travel so."""

import pytest
import torch
from descriptors import ON_GPU

import iris_c
from iris_c.testing import ranks

pytestmark = pytest.mark.skipif(not ON_GPU, reason="of copy engines")
PLAIN = iris_c.FusedConfig(form="plain")
M, N, K = 8192, 512, 2048


def shard_of(rank, world, salt, device):
    generator = torch.Generator(device).manual_seed(100 * salt + rank)
    return torch.randn(M // world, K, generator=generator, device=device).half()


def expected(world, salt, B, device):
    return torch.cat([shard_of(rank, world, salt, device) for rank in range(world)]).float() @ B


@ranks(2, 4, heap_size=1 << 30, deadline=120)
def test_products_of_all_ranks_shards(ctx):
    """Call after call, of other values: what is copied is this call's. Joined operands and bias
    too, shards with gaps, transposed weights, results off the heap, and in graphs."""
    device, world = torch.device(ctx.device), ctx.world_size
    B = torch.randn(N, K, device=device).half().t()
    bias = torch.randn(N, device=device).half()
    C = torch.empty(M, N, device=device, dtype=torch.float16)
    joined = torch.empty(M, K, device=device, dtype=torch.float16)
    A = torch.empty(M // world, K, device=device, dtype=torch.float16)
    gaps = torch.empty(M // world, K + 24, device=device, dtype=torch.float16)[:, 8 : 8 + K]

    def check(salt, added=0):
        torch.cuda.synchronize()
        torch.testing.assert_close(
            C.float(), expected(world, salt, B.float(), device) + added, rtol=2e-3, atol=0.1
        )

    for salt in range(6):
        C.fill_(float("nan"))
        shard = shard_of(ctx.rank, world, salt, device)
        operand = gaps if salt == 3 else A
        operand.copy_(shard)
        given = {"bias": bias} if salt == 4 else {}
        if salt == 5:
            given["A_gathered"] = joined
        ctx.ops.all_gather_matmul_hbm_buffer(C, operand, B, config=PLAIN, **given)
        check(salt, bias.float() if salt == 4 else 0)
    whole = [shard_of(rank, world, 5, device) for rank in range(world)]
    assert torch.equal(joined, torch.cat(whole))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(3):
                ctx.ops.all_gather_matmul_hbm_buffer(C, A, B, config=PLAIN, async_op=True)
        for salt in range(6, 12):
            C.fill_(float("nan"))
            A.copy_(shard_of(ctx.rank, world, salt, device))
            graph.replay()
            check(salt)
