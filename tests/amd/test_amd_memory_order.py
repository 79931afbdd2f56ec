# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Code objects with a part of the memory order taken out fail when memory is adversarial."""

import cases
import gpus
import machine
import mutants
import pytest
import test_amd_collectives
import test_amd_products
import torch

import iris_c
from iris_c.testing import RankFailure

CASE = cases.Case(200, 150, 40)
N = 4099
BY_COPIES = iris_c.ccl.Config(all_reduce_variant="two_shot")  # packets carry their signals
# What `again_and_again` launches. Of a mutant no other kernel is taken apart, which takes seconds.
KERNELS = "iris_MATMUL_ALL_REDUCE_(TWO_SHOT|RING|ONE_SHOT)_F32|iris_ALL_GATHER_NONE_U8"


def again_and_again(ctx, memory):
    """Calls with new contents each time: partials, results and gathered parts cross."""
    exchange, world = test_amd_collectives.Exchange(ctx, memory), ctx.world_size
    for turn in range(6):
        for variant in ("two_shot", "ring", "one_shot"):
            test_amd_products.check_product(
                ctx, memory, CASE, variant, torch.float32, f"turn {turn}", on_heap=turn % 2 == 0
            )
        output = exchange.tensor(N * world, torch.float32, turn % 2 == 1)
        given = exchange.tensor(N, torch.float32, False)
        given.copy_(cases.contribution(ctx.rank, N, torch.float32, turn))
        exchange.call("all_gather", output, given, config=BY_COPIES)
        for rank in range(world):
            expected = cases.contribution(rank, N, torch.float32, turn)
            assert torch.equal(output.view(world, N)[rank], expected), "elements are wrong"
        exchange.done()


def fails(devices) -> bool:
    try:
        devices.run(again_and_again, 2, timeout=3.0)
    except RankFailure as failure:
        text = str(failure)
        # Wrong data or a signal that does not come, not an accident of the test.
        reasons = ("elements are wrong", "did not signal", "gave up waiting", "LaunchFailure")
        assert any(reason in text for reason in reasons), text
        return True
    return False


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_the_kernels_as_they_are(emulated, arch):
    """What fails below does so for what was taken out; test_amd_products.py tries more of them."""
    emulated(arch, adversarial=1, order="random", seed=1).run(again_and_again, 2)


@pytest.mark.parametrize(
    ("arch", "name"), [(arch, name) for arch in machine.ARCHES for name in mutants.orders(arch)]
)
def test_a_mutant_fails(emulated, arch, name, tmp_path):
    assert mutants.prepare(gpus.KERNELS / f"iris_{arch}.hsaco", name, tmp_path, KERNELS) > 0
    # Some of the waits are for loads too: what is asked here is whether memory shows it.
    changed = {"mutated": tmp_path, "checks": 0}
    assert not fails(emulated(arch, adversarial=0, **changed)), "plain memory needs no order"
    behaviour = {"adversarial": 1, "order": "random", **changed}
    assert any(fails(emulated(arch, seed=seed, **behaviour)) for seed in range(1, 5))
