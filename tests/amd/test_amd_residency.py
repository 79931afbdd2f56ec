# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Fewer work-groups resident than a launch has, as beside another kernel.

Some operations end all the same; of the others the emulator names the deadlock. docs/hip.md has the
table. `make test-amd` tries all of them.
"""

import os
import re

import cases
import pytest
import test_amd_collectives
import test_amd_decode
import test_amd_products
import torch

import iris_c
from iris_c.testing import RankFailure

PRODUCT = cases.Case(300, 300, 40)


def fused(variant):
    def body(ctx, memory):
        test_amd_products.check_product(ctx, memory, PRODUCT, variant, torch.bfloat16)

    return body


def decoded(ctx, memory):
    case = cases.Case(33, 300, 40, b="transposed")
    test_amd_decode.check(ctx, memory, "all_reduce", case, torch.bfloat16)


def shared(ctx, memory):
    """Tiles whose K work-groups share."""
    for case in (cases.Case(3, 136, 1096, b="transposed"), cases.Case(132, 64, 648)):
        test_amd_decode.check(ctx, memory, "all_reduce", case, torch.bfloat16)


def reduced(variant):
    def body(ctx, memory):
        exchange = test_amd_collectives.Exchange(ctx, memory)
        given = exchange.tensor(200000, torch.float32, False)
        given.copy_(cases.reduced_input(ctx.rank, 200000, torch.float32))
        output = exchange.tensor(200000, torch.float32, False)
        config = iris_c.ccl.Config(all_reduce_variant=variant)
        exchange.call("all_reduce", output, given, config=config)
        cases.check_reduction(output, ctx.world_size, "sum", variant)
        exchange.done()

    return body


def gathered(ctx, memory):
    exchange = test_amd_collectives.Exchange(ctx, memory)
    output = exchange.tensor(100000 * ctx.world_size, torch.float32, False)
    exchange.call("all_gather", output, exchange.mine(100000, torch.float32, False))
    exchange.done()


OPERATIONS = {
    **{f"matmul_all_reduce {v}": fused(v) for v in cases.VARIANTS},
    "matmul_all_reduce ll (decode)": decoded,
    "matmul_all_reduce ll (decode, K shared)": shared,
    **{f"all_reduce {v}": reduced(v) for v in cases.ALL_REDUCE_VARIANTS},
    "all_gather": gathered,
}


def operation(ctx, memory, name):
    OPERATIONS[name](ctx, memory)


# What ends with half of its work-groups, and with one; whatever is not named ends with neither.
# Tiles are dealt to work-groups before the launch, so that those that have a place wait for others.
PROGRESSES = ("matmul_all_reduce ring", "matmul_all_reduce ll (decode)",
              "matmul_all_reduce ll (decode, K shared)", "all_reduce ll", "all_reduce ll_two_shot",
              "all_gather")  # fmt: skip
ALWAYS = ("matmul_all_reduce two_shot", "matmul_all_reduce ring", "all_reduce ll",
          "matmul_all_reduce ll (decode, K shared)")  # fmt: skip
RUN = OPERATIONS if "IRIS_C_TEST_AMD_SEEDS" in os.environ else ALWAYS


@pytest.mark.parametrize("resident", ["half", "one"])
@pytest.mark.parametrize("name", RUN)
def test_fewer_groups_than_a_launch_has(emulated, name, resident, tmp_path):
    stuck = name not in PROGRESSES
    behaviour = {"resident": resident, "starved_ms": 1500 if stuck else 20000}
    log = tmp_path / "log"
    gpus = emulated("gfx942", compute_units=4, log=log, **behaviour)
    if not stuck:
        gpus.run(operation, 2, name)
        return
    with pytest.raises(RankFailure):
        gpus.run(operation, 2, name, timeout=30.0)
    deadlock = r"deadlock, \d+ of \d+ work-groups wait for a place that none of the others gives up"
    assert re.search(deadlock, log.read_text())
