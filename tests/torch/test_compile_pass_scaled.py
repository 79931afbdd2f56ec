# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Products of float8 matrices (torch._scaled_mm) and collectives in compiled graphs: which become
one operation, and that they compute what they did."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from compiled_graphs import Compiled, all_gather_single, reduce_scatter_single
from process_groups import distributed, starts_ranks

from iris_c.testing import run_ranks

pytestmark = starts_ranks

M, N, K = 32, 48, 64
FP8 = torch.float8_e4m3fn


def multiply(A, B, scale_a, scale_b, bias=None, dtype=torch.bfloat16):
    return torch._scaled_mm(A, B, scale_a, scale_b, bias, out_dtype=dtype)


def gather(x):
    return all_gather_single(x, 0, dist.group.WORLD)


def summed(A, B, a, b, bias):
    return collectives.all_reduce(multiply(A, B, a, b, bias), "sum", dist.group.WORLD)


def summed_3d(A, B, a, b, bias):
    product = multiply(A.view(-1, K), B, a, b).view(2, M // 2, N)
    return collectives.all_reduce(product, "avg", dist.group.WORLD) + 1


def scattered(A, B, a, b, bias):
    return reduce_scatter_single(multiply(A, B, a, b), "sum", 0, dist.group.WORLD)


def scattered_sequence(A, B, a, b, bias):
    product = multiply(A, B, a, b).view(2, M // 2, N)
    return reduce_scatter_single(product, "sum", 1, dist.group.WORLD)


def gathered(A, B, a, b, bias):
    whole = gather(A)
    if a.numel() > 1:
        a = gather(a)
    return multiply(whole, B, a, b, bias, torch.float32)


def gathered_3d_for_two(A, B, a, b, bias):
    whole = gather(A.view(M // 4, 4, K))
    rows = whole.view(-1, K)
    if a.numel() > 1:
        a = gather(a.view(M // 4, 4, 1)).view(-1, 1)
    return multiply(rows, B, a, b) + multiply(rows, B, a, b * 2)


def product_gathered(A, B, a, b, bias):
    return gather(multiply(A, B, a, b))


# What is in the graphs, with a scale for the tensor and with one for each row.
AR, RS, AG = (f"scaled_{name}" for name in ("matmul_all_reduce", "matmul_reduce_scatter",
                                            "matmul_all_gather"))  # fmt: skip
CASES = [
    (summed, {AR: 1}, {AR: 1}),
    (summed_3d, {AR: 1}, {AR: 1}),
    (scattered, {RS: 1}, {RS: 1}),
    (scattered_sequence, {RS: 1}, {}),
    (gathered, {"scaled_gathered_matmul": 1}, {"scaled_gathered_matmul": 1}),
    (gathered_3d_for_two, {"scaled_all_gather_matmul": 1}, {"scaled_all_gather_matmul": 1}),
    (product_gathered, {AG: 1}, {AG: 1}),
]


def arguments(rank, by_row):
    generator = torch.Generator().manual_seed(rank)
    A = torch.randn(M, K, generator=generator).to(FP8)
    B = torch.randn(N, K, generator=generator).to(FP8).t()
    sizes = ((M, 1), (1, N)) if by_row else ((1, 1), (1, 1))
    scales = [torch.rand(size, generator=generator) + 0.1 for size in sizes]
    return A, B, *scales, torch.randn(N, generator=generator)


def defined(A, B, scale_a, scale_b, bias=None, dtype=torch.bfloat16):
    """torch._scaled_mm, whatever this device's can do."""
    product = ((A.double() * scale_a) @ (B.double() * scale_b)).to(dtype)
    return product if bias is None else product + bias.to(dtype)


def gathered_bytes(x):
    """All ranks' x, of a dtype that gloo does not know."""
    own = x.contiguous().view(torch.uint8)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return torch.cat(parts).view(x.dtype)


@distributed
def _results(rank):
    for function, *hits in CASES:
        for by_row, expected_hits in zip((False, True), hits, strict=True):
            A, B, a, b, bias = arguments(rank, by_row)
            if function is summed:
                bias = bias.bfloat16()
            given = (A, B, a, b, bias)
            compiled = Compiled(function)
            result = compiled(*given)
            assert compiled.hits == expected_hits, f"{function.__name__}: {compiled}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(globals(), "multiply", defined)
                patch.setitem(globals(), "gather", gathered_bytes)
                expected = function(*given)
            assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
            torch.testing.assert_close(result, expected, rtol=3e-2, atol=0.2)


def test_of_two_ranks(tmp_path):
    run_ranks((__name__, "_results"), 2, str(tmp_path / "store"), deadline=300)
