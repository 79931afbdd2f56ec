# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Traced calls by the shipped code objects, through the hip backend, on emulated GPUs."""

import cases
import gpus
import machine
import numpy
import program
import pytest
import test_amd_products
import torch

from iris_c import tracing

CASE = cases.Case(130, 260, 70)  # 2 x 3 tiles


def traced_product(ctx, memory, variant, dtype):
    """One call, checked, and what it left in the trace."""
    tracing.clear(ctx)
    test_amd_products.check_product(ctx, memory, CASE, variant, dtype, trace=True)
    data, dropped, offset, round_trip, _ = ctx._trace()
    records = numpy.frombuffer(data, tracing.RECORD)
    assert dropped == 0
    assert (records["end"] >= records["begin"]).all()
    assert (records["begin"] > 0).all()
    assert (records["kind"] == tracing.GEMM).sum() == 6
    assert {tracing.GEMM, tracing.REDUCE, tracing.SIGNAL} <= set(records["kind"].tolist())
    assert set(records["role"].tolist()) == {0}
    assert abs(offset) <= (round_trip + 1) // 2  # the emulated GPUs have one clock
    ctx.barrier()


def every_variant(ctx, memory):
    for variant in cases.VARIANTS:
        for dtype in (torch.float32, torch.bfloat16):
            traced_product(ctx, memory, variant, dtype)


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_traced_products(emulated, programs, arch):
    traced = gpus.KERNELS / f"iris_{arch}.traced.hsaco"
    program.prepare(traced, programs, r"iris_MATMUL_ALL_REDUCE_\w+_(F32|BF16)")
    emulated(arch).run(every_variant, 3)
