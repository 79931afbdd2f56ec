# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The form 'decode' of the fused products by the shipped code objects, on emulated GPUs."""

import dataclasses

import cases
import machine
import pytest
import torch

import iris_c

CASES = [
    cases.Case(1, 1, 1, bias="row"),
    cases.Case(8, 130, 70, b="transposed", bias="row"),
    cases.Case(33, 47, 29, a="transposed", b="strided", c="strided"),
    cases.Case(130, 260, 40, b="transposed"),
]
# Of tiles that work-groups share: rows in each number of blocks, weights along K and along N, and
# without whole runs; ends of K and of N within a step and a tile.
SHARED = [
    cases.Case(3, 136, 1096, b="transposed", bias="row"),
    cases.Case(40, 72, 1088),
    cases.Case(70, 130, 840, b="transposed"),
    cases.Case(9, 80, 1003),
    cases.Case(132, 64, 648, b="transposed"),
]
OPERATIONS = ("all_reduce", "two_hops", "scatter_rows", "scatter_cols", "all_gather")


def check(ctx, memory, operation, case, dtype, salt="", workspace=None):
    """One call and its result, on this rank."""
    world, rank = ctx.world_size, ctx.rank
    if operation.startswith("scatter"):
        case = dataclasses.replace(
            case, M=-(-case.M // world) * world, N=-(-case.N // world) * world, bias=""
        )

    def allocate(*sizes):
        return memory.ordinary(*sizes, dtype=dtype)

    A, B = cases.operands(case, rank, dtype, salt, allocate)
    bias = cases.bias_of(case, dtype)
    rows = case.M * (world if operation == "all_gather" else 1)
    rows //= world if operation == "scatter_rows" else 1
    cols = case.N // (world if operation == "scatter_cols" else 1)
    C = cases.poisoned(cases.laid_out(rows, cols, case.c, allocate))
    if bias is not None:
        bias = memory.ordinary(*bias.shape, dtype=dtype).copy_(bias)
    variant = {"all_reduce": "ll", "two_hops": "ll_two_shot"}.get(operation, "two_shot")
    options = {
        "bias": memory.passed(bias),
        "config": iris_c.FusedConfig(form="decode", all_reduce_variant=variant),
        "workspace": workspace,
    }
    operands = [memory.passed(tensor) for tensor in (C, A, B)]
    if operation.startswith("scatter"):
        dim = 0 if operation == "scatter_rows" else 1
        ctx.ops.matmul_reduce_scatter(*operands, dim=dim, **options)
        expected, bound = cases.reference(case, world, dtype, salt)
        expected, bound = (x.chunk(world, dim)[rank] for x in (expected, bound))
    elif operation == "all_gather":
        ctx.ops.matmul_all_gather(*operands, **options)
        addend = None if bias is None else lambda which: cases.bias_of(case, dtype).double()
        expected, bound = cases.gathered(case, world, dtype, salt, addend)
    else:
        ctx.ops.matmul_all_reduce(*operands, **options)
        expected, bound = cases.reference(case, world, dtype, salt)
    memory.library.hipDeviceSynchronize()
    cases.check_close(C, expected, bound, f"rank {rank} {operation} {case} {dtype} {salt}")
    ctx.barrier()
    memory.release()


def every_case(ctx, memory, dtypes, chosen):
    for operation in OPERATIONS:
        for dtype in dtypes:
            for case in chosen:
                check(ctx, memory, operation, case, dtype)


def calls_at_the_wrap(ctx, memory):
    """Of changing shapes in one workspace, before which all packets have to be forgotten."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    check(ctx, memory, "two_hops", cases.Case(40, 140, 20), torch.bfloat16, workspace=workspace)
    workspace._set_calls(2**31 - 1 - 4)
    ctx.barrier()
    for turn in range(8):
        case = cases.Case(10 + turn, 140 - 9 * turn, 20)
        operation = ("all_reduce", "two_hops")[turn % 2]
        check(ctx, memory, operation, case, torch.float16, str(turn), workspace)
    assert workspace.call_counter == 4


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_matches_float64(emulated, arch, world_size):
    dtype = (torch.float16, torch.bfloat16)[world_size % 2]
    emulated(arch, adversarial=0).run(every_case, world_size, [dtype], CASES)


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_work_groups_share_tiles(emulated, arch):
    """Of four compute units, and on all of three the same."""
    emulated(arch, adversarial=0).run(every_case, 2, [torch.bfloat16], SHARED)


def repeated_bits(ctx, memory):
    """Of two calls and both ranks."""
    found = []
    for _ in range(2):
        A, B = cases.operands(
            SHARED[0], ctx.rank, torch.bfloat16, "", lambda *sizes: memory.ordinary(
                *sizes, dtype=torch.bfloat16))  # fmt: skip
        C = cases.poisoned(memory.ordinary(SHARED[0].M, SHARED[0].N, dtype=torch.bfloat16))
        config = iris_c.FusedConfig(form="decode", all_reduce_variant="ll")
        ctx.ops.matmul_all_reduce(*(memory.passed(x) for x in (C, A, B)), config=config)
        memory.library.hipDeviceSynchronize()
        found.append(C.view(torch.int16).tolist())
        ctx.barrier()
    return found


def test_shared_sums_are_added_in_one_order(emulated):
    runs = [
        emulated("gfx942", seed=seed, adversarial=1, order="random").run(repeated_bits, 2)
        for seed in (1, 2)
    ]
    assert all(bits == runs[0][0][0] for run in runs for rank in run for bits in rank)


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_memory_may_be_as_late_as_it_can(emulated, arch):
    gpus = emulated(arch, seed=1, adversarial=1, order="random")
    gpus.run(every_case, 3, [torch.bfloat16], [*CASES[:3], SHARED[0]])


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_one_workspace_across_the_wrap(emulated, arch):
    emulated(arch, adversarial=0, order="reversed").run(calls_at_the_wrap, 2)
