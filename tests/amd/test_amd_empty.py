# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Products without elements by the shipped code objects on emulated GPUs."""

import cases
import machine
import pytest
import torch

import iris_c

EXTENTS = [(0, 5, 6), (6, 0, 6), (6, 5, 0), (6, 0, 0), (6, 5, 4)]  # M, N, K; the last has all


def shapes(name, M, N, K, world):
    """C, A and B."""
    if name == "matmul_reduce_scatter":
        return (M // world, N), (M, K), (K, N)
    if name in ("matmul_all_gather", "all_gather_matmul", "all_gather_matmul_hbm_buffer"):
        return (M * world, N), (M, K), (K, N)
    return (M, N), (M, K), (K, N)


def nothing(ctx, memory):
    calls = 0
    for number, extents in enumerate((*EXTENTS, *EXTENTS)):
        dtype = cases.DTYPES[number % 3]
        place = memory.heap if number % 2 == 0 else memory.ordinary
        for name in cases.PRODUCTS:
            c, a, b = shapes(name, *extents, ctx.world_size)
            C = cases.poisoned(place(*c, dtype=dtype))
            A, B = (memory.ordinary(*shape, dtype=dtype).fill_(2.0) for shape in (a, b))
            bias = memory.ordinary(c[1], dtype=dtype).fill_(3.0)
            options = {"bias": memory.passed(bias)}
            joined = None
            if name.startswith("all_gather"):
                joined = memory.ordinary(c[0], a[1], dtype=dtype).zero_()
                options["A_gathered"] = memory.passed(joined)
            workspace = getattr(ctx.ops, name)(
                *(memory.passed(tensor) for tensor in (C, A, B)), **options
            )
            assert memory.library.hipDeviceSynchronize() == 0
            sources = ctx.world_size if "reduce" in name else 1
            assert torch.equal(C, torch.full(c, 4.0 * extents[2] * sources + 3, dtype=dtype)), (
                name, extents, dtype
            )  # fmt: skip
            assert joined is None or torch.equal(joined, torch.full_like(joined, 2.0)), extents
        calls += 1
        assert workspace.call_counter == calls
        ctx.barrier()
        memory.release()
    for variant in cases.VARIANTS:
        config = iris_c.FusedConfig(all_reduce_variant=variant)
        for M, K in ((0, 3), (4, 0)):
            C = cases.poisoned(memory.ordinary(M, 5, dtype=torch.float32))
            A, B = memory.ordinary(M, K, dtype=C.dtype), memory.ordinary(K, 5, dtype=C.dtype)
            ctx.ops.matmul_all_reduce(
                *(memory.passed(tensor) for tensor in (C, A, B)), config=config
            )
            assert memory.library.hipDeviceSynchronize() == 0
            assert torch.equal(C, torch.zeros(M, 5)), variant


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_products_without_elements(emulated, arch, world):
    emulated(arch).run(nothing, world)
