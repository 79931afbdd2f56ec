# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A workspace takes of the heap what docs/api.md says, and no more, wherever outputs lie."""

import pathlib
import re

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks, run_ranks

API = pathlib.Path(__file__).resolve().parents[2] / "docs" / "api.md"
M = N = K = 384  # whole tiles everywhere
SIZE = 384 * 384  # n
OVERHEAD = 40 << 10


def rows():
    """(operation, dim, variant, cpu, gpu, staged) of the table."""
    section = API.read_text().split("### Memory that a call stages", 1)[1].split("\n### ", 1)[0]
    found = re.findall(
        r"^\| `(\w+)`(?:, dim (\d))? \| (?:`(\w+)`)? ?\| `(.*)` \| `(.*)` \| `(.*)` \|$",
        section,
        re.M,
    )
    assert len(found) == len(re.findall(r"^\| `", section, re.M))
    return found


def call(ctx, name, dim, variant, place):
    """Calls the operation with an output from ``place(*shape)``; returns the workspace."""
    world, last = ctx.world_size, ctx.world_size - 1
    A, B = torch.ones(M, K), torch.ones(K, N)
    if variant and "matmul" in name:
        config = iris_c.FusedConfig(all_reduce_variant=variant, form="tiles")
    elif variant:
        config = iris_c.ccl.Config(all_reduce_variant=variant)
    else:
        config = None
    here, whole = torch.ones(SIZE), torch.ones(world * SIZE)
    if name == "matmul_all_reduce":
        return ctx.ops.matmul_all_reduce(place(M, N), A, B, config=config)
    if name == "matmul_reduce_scatter":
        return ctx.ops.matmul_reduce_scatter(place(M // world, N), A, B)
    if name == "matmul_all_gather":
        return ctx.ops.matmul_all_gather(place(world * M, N), A, B)
    if name == "all_gather_matmul":
        dim = int(dim)
        shard = A.chunk(world, dim)[ctx.rank]
        return ctx.ops.all_gather_matmul(place(M, N), shard, B, gather_dim=dim)
    if name == "all_reduce":
        return ctx.ccl.all_reduce(place(SIZE), here, config=config)
    if name == "reduce":
        return ctx.ccl.reduce(place(SIZE) if ctx.rank == last else None, here, dst=last)
    if name == "reduce_scatter":
        return ctx.ccl.reduce_scatter(place(SIZE), whole)
    if name == "all_gather":
        return ctx.ccl.all_gather(place(world * SIZE), here, config=config)
    if name == "all_to_all":
        return ctx.ccl.all_to_all(place(SIZE), here)
    if name == "broadcast":
        return ctx.ccl.broadcast(place(SIZE), src=0)
    if name == "gather":
        return ctx.ccl.gather(place(world * SIZE) if ctx.rank == last else None, here, dst=last)
    assert name == "scatter", name
    return ctx.ccl.scatter(place(SIZE), whole if ctx.rank == 0 else None, src=0)


@ranks(2, 3, heap_size=128 << 20)
def test_the_table_is_what_the_heap_gives(ctx):
    memory = ctx.empty(ctx.world_size * SIZE)

    def on_heap(*shape):
        return memory[: torch.Size(shape).numel()].view(shape)

    for name, dim, variant, cpu, gpu, staged in rows():
        values = {"W": ctx.world_size, "e": 4, "M": M, "N": N, "K": K, "n": SIZE}
        always = eval(cpu if ctx.backend == "cpu" else gpu, values)
        more = eval(staged, values)
        for place, expected in ((on_heap, always), (torch.empty, always + more)):
            before = ctx.heap_used
            workspace = call(ctx, name, dim, variant, place)
            taken = ctx.heap_used - before
            what = (name, dim, variant, place.__name__, taken, expected)
            assert expected <= taken <= expected + OVERHEAD, what
            assert abs(taken - workspace.nbytes) < 256, what
            workspace.clear()
            assert ctx.heap_used == before, what


@ranks(2, 3, heap_size=64 << 20)
def test_outputs_may_lie_anywhere_from_call_to_call(ctx):
    """One rank's output leaves the heap and comes back: the workspace grows once, results hold."""
    world, n = ctx.world_size, 100003
    memory, workspaces, sizes = ctx.empty(world * n), {}, []
    for number, off in enumerate((None, None, 1, None, 0, "all", None, 1)):
        staged = off in (ctx.rank, "all")

        def place(*shape, staged=staged):
            output = torch.empty(shape) if staged else memory[: shape[0]]
            return cases.poisoned(output)

        given = torch.full((n,), float(ctx.rank + number))
        for variant in ("two_shot", "ring"):
            output = place(n)
            workspaces[variant] = ctx.ccl.all_reduce(
                output, given, config=iris_c.ccl.Config(all_reduce_variant=variant),
                workspace=workspaces.get(variant),
            )  # fmt: skip
            assert (output == sum(rank + number for rank in range(world))).all(), (number, variant)
        output = place(world * n)
        workspaces["all_gather"] = ctx.ccl.all_gather(
            output,
            given,
            workspace=workspaces.get("all_gather"),
            config=iris_c.ccl.Config(all_reduce_variant="two_shot"),
        )
        for rank in range(world):
            assert (output.view(world, n)[rank] == rank + number).all(), number
        tensor = place(n).fill_(float(ctx.rank))
        workspaces["broadcast"] = ctx.ccl.broadcast(
            tensor, src=0, workspace=workspaces.get("broadcast")
        )
        assert (tensor == 0).all()
        sizes.append([workspace.nbytes for workspace in workspaces.values()])
        counts = {name: workspace.call_counter for name, workspace in workspaces.items()}
        # The two variants are one operation, whose workspace they share.
        assert counts.pop("ring") == counts.pop("two_shot") == 2 * (number + 1)
        assert set(counts.values()) == {number + 1}, counts
    assert sizes[0] == sizes[1]
    assert all(small < large for small, large in zip(sizes[1], sizes[2], strict=True))
    assert all(size == sizes[2] for size in sizes[3:])


@ranks(3, heap_size=64 << 20)
def test_handles_in_different_states(ctx):
    """Small, large, fresh and cleared ones meet at one call; whose output is staged changes."""
    n = 50000
    generator = torch.Generator().manual_seed(7)
    memory, fresh = ctx.empty(3 * n), None
    kept = [None, None]
    for number in range(40):
        choice, off = torch.randint(0, 8, (2, 3), generator=generator, device="cpu").tolist()
        mine = choice[ctx.rank]
        output = torch.empty(3 * n) if off[ctx.rank] == 0 else memory
        workspace = fresh if mine == 7 else kept[mine % 2]
        if workspace is not None and mine == 6:
            workspace.clear()
        elif workspace is not None and mine == 5:
            workspace.reset()
        cases.poisoned(output)
        used = ctx.ccl.all_gather(output, torch.full((n,), float(ctx.rank)), workspace=workspace)
        kept[mine % 2] = used
        for rank in range(3):
            assert (output.view(3, n)[rank] == rank).all(), number


@ranks(2, 3, heap_size=1 << 22)
def test_ranks_that_disagree_while_nothing_is_staged(ctx):
    memory = ctx.empty(1 << 17)
    for _ in range(2):
        for number in range(3):
            with pytest.raises(ValueError, match="different operations"):
                n = 30000 if ctx.rank == number % ctx.world_size else 30001
                ctx.ccl.broadcast(memory[:n], src=0)
        ctx.ccl.broadcast(memory, src=0)
        ctx.ccl.all_reduce(memory[:30000], torch.ones(30000))
        assert (memory[:30000] == ctx.world_size).all()


def gathers_in_place(heap_size):
    """Each rank's part of 32 MiB, in a heap that has no room for more than half of it again."""
    with iris_c.init(heap_size=heap_size) as ctx:
        part = (32 << 20) // ctx.world_size
        output = ctx.empty(32 << 20, dtype=torch.uint8)
        mine = output[ctx.rank * part :][:part].fill_(ctx.rank + 1)
        for _ in range(3):
            ctx.ccl.all_gather(output, mine)
            ctx.ccl.broadcast(output, src=1)
        ctx.barrier()
        return all(int(output[rank * part]) == rank + 1 for rank in range(ctx.world_size))


def test_what_stages_nothing_needs_no_room():
    assert all(run_ranks(gathers_in_place, 2, 45 << 20))


def fills(heap_size):
    """Tensors, holes between them, and calls that stage; what the error asks for, or None."""
    with iris_c.init(heap_size=heap_size) as ctx:
        try:
            tensors = [ctx.zeros(1 << 16) for _ in range(6)]
            del tensors[1], tensors[2]
            for n in (1000, 90000, 300000):
                output = torch.empty(n)
                ctx.ccl.all_reduce(
                    output, torch.ones(n), config=iris_c.ccl.Config(all_reduce_variant="one_shot")
                )
                assert (output == ctx.world_size).all()
            ctx.zeros(1 << 18)
        except iris_c.HeapExhausted as error:
            exhausted = error
        else:
            return None
        assert f"to {exhausted.needed} or more" in str(exhausted)
        assert exhausted.needed > ctx.heap_size
        ctx.barrier()
        return exhausted.needed


@pytest.mark.parametrize("world", [1, 2])
def test_the_heap_size_that_the_error_names_does(world):
    """Each error is about the first allocation without room, which then has it."""
    sizes = [1 << 16]
    while sizes[-1] is not None:
        answers = run_ranks(fills, world, sizes[-1])
        assert len(set(answers)) == 1
        assert len(sizes) < 12, sizes
        sizes.append(answers[0])
    assert len(sizes) > 4  # several stages of the program did not fit at first
    assert sizes[:-1] == sorted(set(sizes[:-1]))
    # It is the least that does.
    assert run_ranks(fills, world, sizes[-2] - 4096) == [sizes[-2]] * world


@cases.cpu_only
@ranks(2)
def test_no_more_threads_than_cores(ctx):
    import os
    import time

    cores = len(os.sched_getaffinity(0))
    started = time.monotonic()
    for variant in cases.ALL_REDUCE_VARIANTS:
        config = iris_c.ccl.Config(comm_sms=200, all_reduce_variant=variant)
        output = torch.empty(70001)
        ctx.ccl.all_reduce(output, torch.ones(70001), config=config)
        assert (output == 2).all()
    chosen = ctx.ops.select_config(
        4096, 4096, 64, torch.float32, iris_c.FusedConfig(num_sms=200)
    )  # fmt: skip
    assert chosen.num_sms <= cores
    assert time.monotonic() - started < 30
