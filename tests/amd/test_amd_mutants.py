# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Parts taken out of the code objects, and the check that notices each. What only the order of
memory shows is in test_amd_memory_order.py."""

import os
import random
import re

import amd_objects
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

SEEDS = int(os.environ.get("IRIS_C_TEST_AMD_SEEDS", "1"))
PRODUCT = "iris_MATMUL_ALL_REDUCE_TWO_SHOT_F16"
# Several stages of K, in tiles of which one work-group has more than one.
CASE = cases.Case(300, 260, 100, b="transposed")


def product(ctx, memory):
    test_amd_products.check_product(ctx, memory, CASE, "two_shot", torch.float16)


def exchanges(ctx, memory, variants):
    """Sums of which each rank waits for the others' parts."""
    exchange = test_amd_collectives.Exchange(ctx, memory)
    for turn in range(3):
        for variant in variants:
            given = exchange.tensor(1000, torch.float32, False)
            given.copy_(cases.reduced_input(ctx.rank, 1000, torch.float32))
            output = exchange.tensor(1000, torch.float32, turn % 2 == 0)
            config = iris_c.ccl.Config(all_reduce_variant=variant)
            exchange.call("all_reduce", output, given, config=config)
            cases.check_reduction(output, ctx.world_size, "sum", f"{variant} {turn}")
            exchange.done()


def mutated(emulated, arch, edit, folder, kernels, **behaviour):
    assert mutants.prepare(gpus.KERNELS / f"iris_{arch}.hsaco", edit, folder, kernels) > 0
    return emulated(arch, mutated=folder, log=folder / "log", **behaviour)


def said(devices, folder, body, world_size, *args):
    """What the emulator complains of, and what the ranks do; "" if all is well."""
    try:
        devices.run(body, world_size, *args, timeout=3.0)
    except RankFailure as failure:
        log = folder / "log"
        return (log.read_text() if log.exists() else "") + str(failure)
    return ""


COMPLAINTS = {
    "waits for LDS and scalars": r"group \d+ at 0x\w+ \S+: it (reads|writes) \S+ before lgkmcnt",
    "waits for loads": r"group \d+ at 0x\w+ \S+: it (reads|writes) \S+ before vmcnt",
    "s_nops": r"\S+ at 0x\w+: \d+ wait states after \S+ at 0x\w+, of which \d+ are there",
    "barriers": "byte [0-9a-fx]+ of LDS, which wave . (reads|writes), with no barrier between",
}


@pytest.mark.parametrize("name", mutants.CODE)
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_code_that_is_wrong_whatever_memory_does(emulated, arch, name, tmp_path):
    """As it is, test_amd_products.py runs it."""
    devices = mutated(emulated, arch, name, tmp_path, PRODUCT)
    assert re.search(f"{PRODUCT}: .*{COMPLAINTS[name]}", said(devices, tmp_path, product, 1))


def barriers_that_run(emulated, arch, folder) -> list[int]:
    """The numbers of those around and after matrix instructions that the product passes."""
    code = amd_objects.instructions(gpus.KERNELS / f"iris_{arch}.hsaco", PRODUCT)[PRODUCT]
    emulated(arch, profile=folder / "profile").run(product, 1)
    lines = (folder / "profile").read_text().splitlines()
    ran = {int(address, 16) for kernel, address, _ in map(str.split, lines) if kernel == PRODUCT}
    matrix = [x.address for x in code if x.name.startswith("v_mfma_") and x.address in ran]
    barriers = [(n, x) for n, x in enumerate(x for x in code if x.name == "s_barrier")]
    return [n for n, x in barriers if x.address in ran and x.address > matrix[0] - 512]


@pytest.mark.parametrize("arch", machine.ARCHES if SEEDS > 1 else ["gfx942"])
def test_a_single_barrier_of_a_product(emulated, arch, tmp_path):
    """Those between uses of the buffers that the waves share, of a stage of K or of a tile."""
    noticed, numbers = [], barriers_that_run(emulated, arch, tmp_path)
    for number in numbers if SEEDS > 1 else numbers[:3]:
        folder = tmp_path / str(number)
        devices = mutated(emulated, arch, mutants.barrier(number), folder, PRODUCT)
        if re.search(COMPLAINTS["barriers"], said(devices, folder, product, 1)):
            noticed.append(number)
    print(f"{arch}: the lack of barriers {noticed} of {numbers} is noticed")
    assert noticed


LL = r"iris_ALL_REDUCE_LL(_TWO_SHOT)?_F32"
BY_FLAGS = r"iris_ALL_REDUCE_(ONE|TWO)_SHOT_F32"
SCOPE_CASES = {
    "packet stores": (LL, ("ll",), machine.ARCHES[1:]),  # gfx90a's stores have no scope
    "packet loads": (LL, ("ll",), machine.ARCHES),
    "flag stores": (BY_FLAGS, ("two_shot",), machine.ARCHES[1:]),
    "flag loads": (BY_FLAGS, ("two_shot",), machine.ARCHES),
}
QUIET = {"adversarial": 1, "evictions": 0, "order": "random", "seed": 1}


@pytest.mark.parametrize("arch", machine.ARCHES[1:])  # gfx90a has evictions always
def test_without_evictions_the_kernels_pass(emulated, arch):
    emulated(arch, **QUIET).run(exchanges, 2, ("ll", "two_shot"))
    if SEEDS > 1:
        emulated(arch, **QUIET).run(exchanges, 3, ("ll_two_shot", "one_shot", "ring"))
        emulated(arch, **QUIET).run(product, 2)


@pytest.mark.parametrize(
    ("name", "arch"),
    [(name, arch) for name, (_, _, arches) in SCOPE_CASES.items() for arch in arches],
)
def test_work_group_scope_is_noticed(emulated, arch, name, tmp_path):
    """Where dirty lines leave L2 by chance, such a store arrives after all."""
    kernels, variants, _ = SCOPE_CASES[name]
    devices = mutated(emulated, arch, name, tmp_path, kernels, **QUIET)
    complaint = said(devices, tmp_path, exchanges, 2, variants)
    assert re.search("did not signal|gave up waiting|elements are wrong|Timeout", complaint)


@pytest.mark.skipif(SEEDS <= 1, reason="of `make test-amd`")
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_single_waits(emulated, arch, tmp_path):
    """Left out by chance, some are noticed: the others wait for what another wait covers, or lie
    where this product does not come."""
    chance = random.Random(arch)
    code = amd_objects.instructions(gpus.KERNELS / f"iris_{arch}.hsaco", PRODUCT)[PRODUCT]
    waits = [x.address for x in code if x.name == "s_waitcnt"]
    noticed = 0
    chosen = chance.sample(waits, SEEDS)
    for address in chosen:
        edit = lambda code, gone=address: [x for x in code if x.address != gone]  # noqa: E731
        folder = tmp_path / hex(address)
        devices = mutated(emulated, arch, edit, folder, PRODUCT)
        noticed += "has been waited for" in said(devices, folder, product, 1)
    print(f"{arch}: the lack of {noticed} of {len(chosen)} waits is noticed")
    assert noticed > 0
