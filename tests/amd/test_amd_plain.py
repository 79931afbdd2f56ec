# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The form 'plain' of the fused products on emulated GPUs: by the shipped code objects alone, and
with a stand-in for hipBLASLt in the process, which multiplies what it can take."""

import ctypes
import dataclasses
import os
import pathlib
import subprocess

import cases
import machine
import pytest
import torch
from once import made_once

import iris_c

# A rank loads this module before it makes its context, which looks for the library.
LOADED = ctypes.CDLL(os.environ["VENDOR_STAND_IN"]) if "VENDOR_STAND_IN" in os.environ else None
STAND_IN = pathlib.Path(__file__).resolve().parents[1] / "native/blas_stand_in.c"
NAME = "libhipblaslt.so.1"
PLAIN = iris_c.FusedConfig(form="plain")
CASES = [
    cases.Case(1, 1, 1),
    cases.Case(8, 130, 70, b="transposed"),
    cases.Case(33, 47, 29, a="transposed", b="strided", c="strided"),
    cases.Case(33, 47, 29, a="padded", b="padded", c="transposed"),
]
CALLS = cases.CALLS[:-2]  # but for all_gather_matmul_hbm_buffer


def check(
    ctx, memory, operation, options, case, dtype, on_heap=False, workspace=None, config=PLAIN
):
    """One call and its result, on this rank; with a row of bias where there may be one."""
    world, rank = ctx.world_size, ctx.rank
    dim = options.get("dim", options.get("gather_dim", 0))

    def allocate(*sizes):
        return memory.ordinary(*sizes, dtype=dtype)

    if operation == "matmul_reduce_scatter":
        name = "MN"[dim]
        case = dataclasses.replace(case, **{name: getattr(case, name) * world})
    A, B = cases.operands(case, rank, dtype, "", allocate)
    bias = None
    if operation != "matmul_reduce_scatter":
        bias = memory.ordinary(case.N, dtype=dtype).copy_(cases.contribution(9, case.N, dtype))
    if operation == "all_gather_matmul":
        joined = torch.cat([cases.operands(case, r, dtype)[0] for r in range(world)], dim)
        whole = dataclasses.replace(case, K=joined.shape[1])
        B = cases.operands(whole, rank, dtype, "", allocate)[1]
        expected, bound = cases.product(joined, B, dtype, bias)
        bound = bound + cases.UNIT_ROUNDOFF[dtype] * (joined.double() @ B.double()).abs()
        magnitude = joined.double().abs().sum() + B.double().abs().sum()
    elif operation == "matmul_all_gather":
        expected, bound = cases.gathered(case, world, dtype, "", lambda _: bias.double())
        magnitude = A.double().abs().sum() + B.double().abs().sum()
    else:
        expected, bound = cases.reference(case, world, dtype)
        if bias is not None:
            expected = expected + bias.double()
            bound = bound + cases.UNIT_ROUNDOFF[dtype] * (3 * bias.double().abs() + expected.abs())
        if operation == "matmul_reduce_scatter":
            expected, bound = (x.chunk(world, dim)[rank] for x in (expected, bound))
        magnitude = world * (A.double().abs().sum() + B.double().abs().sum())
    if dtype == torch.float16:  # some matrix units take operands below this for zero
        bound = bound + 2.0**-14 * magnitude * 1e-2
    place = memory.heap if on_heap else memory.ordinary
    C = cases.laid_out(*expected.shape, case.c, lambda *sizes: place(*sizes, dtype=dtype))
    cases.poisoned(C)
    getattr(ctx.ops, operation)(
        *(memory.passed(tensor) for tensor in (C, A, B)), bias=memory.passed(bias), config=config,
        workspace=workspace, **options,
    )  # fmt: skip
    assert memory.library.hipDeviceSynchronize() == 0
    cases.check_close(C, expected, bound, f"rank {rank} {operation} {options} {case} {dtype}")
    ctx.barrier()
    memory.release()


def every_case(ctx, memory, dtypes, chosen):
    """How often the library has multiplied."""
    for operation, options in CALLS:
        for dtype in dtypes:
            for number, case in enumerate(chosen):
                check(ctx, memory, operation, options, case, dtype, on_heap=number % 2 == 0)
    return LOADED and ctypes.c_int.in_dll(LOADED, "stand_in_multiplied").value


def calls_at_the_wrap(ctx, memory):
    """Of changing shapes on one workspace."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    check(ctx, memory, *CALLS[0], CASES[3], torch.bfloat16, workspace=workspace)
    workspace._set_calls(2**31 - 1 - 4)
    ctx.barrier()
    for turn in range(8):
        case = cases.Case(10 + turn, 140 - 9 * turn, 20)
        check(ctx, memory, *CALLS[0], case, torch.bfloat16, turn % 2 == 0, workspace)
    assert workspace.call_counter == 4


@pytest.fixture(scope="session")
def stand_in(shared):
    def make(out):
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-DHIP", f"-Wl,-soname,{NAME}", str(STAND_IN), "-o",
             str(out / NAME), "-ldl"],
            check=True,
        )  # fmt: skip

    return str(made_once(shared / "hipblaslt", make) / NAME)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_by_our_own_kernels(emulated, arch, world_size):
    gpus = emulated(arch, adversarial=0)
    gpus.run(every_case, world_size, cases.DTYPES, CASES)


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_memory_may_be_as_late_as_it_can(emulated, arch):
    gpus = emulated(arch, seed=1, adversarial=1, order="random")
    gpus.run(every_case, 2, [torch.bfloat16], CASES[1:3])


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_by_a_vendors_library(emulated, arch, stand_in):
    """All but what has gaps, or a bias along columns."""
    gpus = emulated(arch, adversarial=0)
    gpus.environment["VENDOR_STAND_IN"] = stand_in
    counts = gpus.run(every_case, 2, cases.DTYPES, CASES)
    assert counts == [3 * (9 + 3 + 4)] * 2


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_one_workspace_across_the_wrap(emulated, arch):
    emulated(arch, adversarial=0, order="reversed").run(calls_at_the_wrap, 2)
