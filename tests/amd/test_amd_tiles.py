# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What products take for a tile beside their loop over K, and that nothing divides where chunks are
stored."""

import functools
import re

import amd_objects
import cases
import gpus
import machine
import pytest
import test_amd_plain
import test_amd_products
import tile_instructions
import torch

import iris_c

WAVES, WORLD = 4, 2
MOST = 800  # wave-instructions of a wave for a tile
# Ways that a tile's operands and its result may lie.
PATHS = {
    "runs along K": cases.Case(256, 256, 128, b="transposed"),
    "runs across K": cases.Case(256, 256, 128, a="transposed"),
    "edges": cases.Case(250, 250, 128, b="transposed"),
}
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
KERNELS = [(f"MATMUL_ALL_REDUCE_{variant.upper()}", "BF16") for variant in cases.VARIANTS]
KERNELS += [("MATMUL_ALL_REDUCE_TWO_SHOT", "F16"), ("MATMUL_ALL_REDUCE_TWO_SHOT", "F32")]
KERNELS += [("MATMUL_REDUCE_SCATTER_TWO_SHOT", "BF16"), ("MATMUL_ALL_GATHER_TWO_SHOT", "BF16"),
            ("ALL_GATHER_MATMUL_NONE", "BF16")]  # fmt: skip
# A thread has one chunk a piece of a tile there, so that its loop over pieces has no loop inside.
ONE_CHUNK = r"iris_MATMUL_ALL_REDUCE_ATOMIC_.*"


def multiply(ctx, memory, kernel, case, dtype):
    if kernel.startswith("MATMUL_ALL_REDUCE"):
        variant = kernel.removeprefix("MATMUL_ALL_REDUCE_").lower()
        return test_amd_products.check_product(ctx, memory, case, variant, dtype)
    name = re.sub("_(TWO_SHOT|NONE)$", "", kernel).lower()
    options = {"matmul_reduce_scatter": {"dim": 0}, "all_gather_matmul": {"gather_dim": 0}}
    tiles = iris_c.FusedConfig(form="tiles")
    test_amd_plain.check(
        ctx, memory, name, options.get(name, {}), case, dtype, config=tiles
    )  # fmt: skip


def all_kernels(ctx, memory, case):
    for kernel, dtype in KERNELS:
        multiply(ctx, memory, kernel, case, DTYPES[dtype])


def tiles_of(kernel, case) -> int:
    """Of all ranks together."""
    tiles = -(-case.M // 128) * -(-case.N // 128) * WORLD
    return tiles * (1 if re.match("MATMUL_ALL", kernel) else WORLD)


@functools.cache
def loops(arch, kernel):
    path = gpus.KERNELS / f"iris_{arch}.hsaco"
    return tile_instructions.Loops(amd_objects.instructions(path, kernel)[kernel])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_instructions_of_a_tile(emulated, arch, path, tmp_path):
    emulated(arch, profile=tmp_path / "profile").run(all_kernels, WORLD, PATHS[path])
    counted = tile_instructions.counts(tmp_path / "profile")
    for name, dtype in KERNELS:
        kernel = f"iris_{name}_{dtype}"
        found = loops(arch, kernel).of_tiles(counted[kernel])
        per_wave = found / tiles_of(name, PATHS[path]) / WAVES
        print(f"{arch} {kernel} {path}: {per_wave:.0f}")
        assert 200 < per_wave <= MOST, (kernel, path)
        written_back = sum(
            counted[kernel][x.address] for x in loops(arch, kernel).code if x.name == "buffer_wbl2"
        )
        assert (written_back == 0) == (arch == "gfx942"), kernel


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_nothing_divides_where_chunks_are_stored(arch):
    kernels = [f"iris_{name}_{dtype}" for name, dtype in KERNELS]
    others = ("ALL_REDUCE_TWO_SHOT", "ALL_REDUCE_ONE_SHOT", "ALL_REDUCE_RING",
              "REDUCE_SCATTER_TWO_SHOT")  # fmt: skip
    kernels += [f"iris_{name}_BF16" for name in others]
    for kernel in kernels:
        storing = loops(arch, kernel).storing()
        assert storing, kernel
        if re.fullmatch(ONE_CHUNK, kernel):
            continue
        for body in storing:
            names = [loops(arch, kernel).code[i].name for i in sorted(body)]
            assert not [name for name in names if tile_instructions.DIVIDES.match(name)], kernel
