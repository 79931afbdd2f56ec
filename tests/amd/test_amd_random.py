# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Random calls on emulated GPUs: `make test-amd` runs as many as it is asked for."""

import os
import random

import cases
import machine
import pytest
import test_amd_collectives
import test_amd_products

import iris_c

SEEDS = int(os.environ.get("IRIS_C_TEST_AMD_SEEDS", "1"))
LAYOUTS = ("row", "transposed", "strided", "padded")
BIASES = ("", "row", "column", "matrix", "scalar")


def random_case(chance: random.Random) -> cases.Case:
    return cases.Case(
        chance.randint(1, 300), chance.randint(1, 300), chance.randint(1, 150),
        a=chance.choice(LAYOUTS), b=chance.choice(LAYOUTS), c=chance.choice(LAYOUTS),
        bias=chance.choice(BIASES),
    )  # fmt: skip


def random_calls(ctx, memory, seed):
    """The same on every rank."""
    chance = random.Random(seed)
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    for number in range(12):
        test_amd_products.check_product(
            ctx, memory, random_case(chance), chance.choice(cases.VARIANTS),
            chance.choice(cases.DTYPES), f"{seed}/{number}", on_heap=chance.random() < 0.5,
            workspace=workspace if chance.random() < 0.5 else None,
        )  # fmt: skip
    chance.choice((test_amd_collectives.sums, test_amd_collectives.moves))(ctx, memory)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_random_calls(emulated, arch, seed):
    chance = random.Random(f"{arch} {seed}")
    gpus = emulated(
        arch, seed=seed + 1, adversarial=int(chance.random() < 0.7),
        order=chance.choice(("", "reversed", "random")), compute_units=chance.randint(1, 6),
    )  # fmt: skip
    gpus.run(random_calls, chance.randint(1, 5), seed, deadline=300.0)
