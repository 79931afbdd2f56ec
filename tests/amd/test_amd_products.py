# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""matmul_all_reduce by the shipped code objects, through the hip backend, on emulated GPUs."""

import cases
import machine
import pytest
import torch

import iris_c

SMALL = [
    cases.Case(1, 1, 1),
    cases.Case(7, 13, 3),
    cases.Case(33, 47, 29, a="transposed", b="transposed", c="transposed"),
    cases.Case(33, 47, 29, a="strided", b="padded", c="strided", bias="row"),
    cases.Case(130, 260, 70),
    cases.Case(64, 128, 64, bias="column"),
    cases.Case(257, 40, 33, a="transposed"),
]
PLAIN = {"adversarial": 0}
ADVERSARIAL = {"adversarial": 1, "order": "random"}


def check_product(
    ctx, memory, case, variant, dtype, salt="", on_heap=True, workspace=None, trace=False
):
    """One call and its result, on this rank."""

    def allocate(*sizes):
        return memory.ordinary(*sizes, dtype=dtype)

    A, B = cases.operands(case, ctx.rank, dtype, salt, allocate)
    place = memory.heap if on_heap else memory.ordinary
    C = cases.laid_out(case.M, case.N, case.c, lambda *sizes: place(*sizes, dtype=dtype))
    cases.poisoned(C)
    bias = cases.bias_of(case, dtype)
    if bias is not None:
        bias = memory.ordinary(*bias.shape, dtype=dtype).copy_(bias)
    ctx.ops.matmul_all_reduce(
        memory.passed(C), memory.passed(A), memory.passed(B), bias=memory.passed(bias),
        config=iris_c.FusedConfig(all_reduce_variant=variant), workspace=workspace, trace=trace,
    )  # fmt: skip
    memory.library.hipDeviceSynchronize()
    expected, bound = cases.reference(case, ctx.world_size, dtype, salt)
    cases.check_close(C, expected, bound, f"rank {ctx.rank} {variant} {dtype} {case} {salt}")
    ctx.barrier()  # before a peer writes what this rank still reads
    memory.release()


def every_case(ctx, memory, variants, dtypes, chosen):
    for variant in variants:
        for dtype in dtypes:
            for number, case in enumerate(chosen):
                check_product(ctx, memory, case, variant, dtype, on_heap=number % 3 != 2)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_matches_float64(emulated, arch, world_size):
    gpus = emulated(arch, **PLAIN)
    gpus.run(every_case, world_size, cases.VARIANTS, cases.DTYPES, SMALL)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_memory_may_be_as_late_as_it_can(emulated, arch, seed):
    """Delayed stores, stale copies, waves in random order. Each case with one of the seeds: shapes
    and dtypes are multiplied out where memory is plain, which is faster."""
    gpus = emulated(arch, seed=seed, **ADVERSARIAL)
    gpus.run(every_case, 2 + seed % 2, cases.VARIANTS, cases.DTYPES, SMALL[seed:5:2])


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_work_groups_in_reversed_order(emulated, arch):
    gpus = emulated(arch, order="reversed", compute_units=3)
    gpus.run(every_case, 2, cases.VARIANTS, [torch.bfloat16], [cases.Case(300, 300, 20)])
