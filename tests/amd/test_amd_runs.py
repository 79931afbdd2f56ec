# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Operands that consist of aligned runs, along K or across, which have loops of their own: each
number of stages that the loops begin, go round and end with, and a rest of K that fills none."""

import itertools

import cases
import machine
import pytest
import test_amd_float8
import test_amd_products
import torch

# Of A and of B; "row" lies along K for A, across for B.
LAYOUTS = list(itertools.product(("row", "transposed"), repeat=2))
# In stages of 64 bytes of K. A loop's round is two or four; three to five of them are on their way.
STAGES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 13)
REST = 3  # of K, behind the stages


def every_length(ctx, memory, dtypes, stages):
    """A tile that lacks rows and columns, so that runs of both lie beyond the end."""
    for dtype, (number, count), (a, b) in itertools.product(dtypes, enumerate(stages), LAYOUTS):
        # Runs along K begin at multiples of 16 bytes where rows are as long.
        K = count * 64 // dtype.itemsize
        K += 0 if number % 2 == 0 and "transposed" in (a, b) else 16 // dtype.itemsize
        case = cases.Case(72, 104, K, a=a, b=b)
        test_amd_products.check_product(ctx, memory, case, "one_shot", dtype)
        if (a, b) == ("transposed", "row"):
            case = cases.Case(72, 104, K + REST, a=a, b=b)
            test_amd_products.check_product(ctx, memory, case, "one_shot", dtype)


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_every_number_of_stages(emulated, arch):
    gpus = emulated(arch, adversarial=0)
    gpus.run(every_length, 1, [torch.bfloat16], STAGES)
    # MI200 multiplies subnormal float16 as zero, which the bound of the errors does not know.
    others = [torch.float32] if arch == "gfx90a" else [torch.float16, torch.float32]
    gpus.run(every_length, 1, others, STAGES[::4])


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_memory_may_be_as_late_as_it_can(emulated, arch):
    gpus = emulated(arch, adversarial=1, order="random", seed=5)
    gpus.run(every_length, 1, [torch.bfloat16], STAGES[::3])


def every_float8_length(ctx, memory, formats, stages):
    pairs = itertools.cycle(itertools.product(formats, formats))
    for count, layouts in itertools.product(stages, LAYOUTS):
        K = 64 * count + (REST if layouts == ("transposed", "row") else 16)
        for kinds in (("row", "row"), ("line", "square"))[: 1 + (count == 5)]:
            test_amd_float8.check(ctx, memory, "matmul_all_reduce", (80, 112, K), kinds,
                                  next(pairs), torch.bfloat16, layouts=layouts)  # fmt: skip


@pytest.mark.parametrize("arch", test_amd_float8.FORMATS)
def test_every_number_of_stages_of_float8(emulated, arch):
    gpus = emulated(arch, adversarial=0)
    gpus.run(every_float8_length, 1, test_amd_float8.FORMATS[arch], STAGES)
