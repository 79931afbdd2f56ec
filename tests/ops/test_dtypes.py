# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Any dtype for what only moves; float64, 8-bit integers and bool also for what is reduced."""

import cases
import dtypes
import pytest
import torch
from dtypes import RARE

import iris_c
from iris_c.testing import ranks

MOVABLE = (
    torch.bool, torch.int8, torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.uint64,
    torch.float64, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
)  # fmt: skip
N = 37


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


def at(*args):
    """dtypes.drawn where the context's tensors are."""
    return dtypes.drawn(*args).to(torch.get_default_device())


def same(got, want):
    return torch.equal(bits(got).cpu(), bits(want).cpu())


@ranks(1, 2, 3)
def test_everything_moves(ctx):
    world, rank = ctx.world_size, ctx.rank
    following, preceding = (rank + 1) % world, (rank - 1) % world
    for dtype in MOVABLE:
        mine = at(rank, N, dtype)
        everybodys = torch.cat([bits(at(r, N, dtype)) for r in range(world)]).view(dtype)
        for place in (ctx.empty, torch.empty):
            whole = place(world * N, dtype=dtype)
            ctx.ccl.all_gather(whole, mine)
            assert same(whole, everybodys), dtype
            gathered = place(world * N, dtype=dtype)
            ctx.ccl.gather(gathered if rank == 0 else None, mine)
            assert rank != 0 or same(gathered, everybodys), dtype
            part = place(N, dtype=dtype)
            ctx.ccl.scatter(part, everybodys if rank == world - 1 else None, src=world - 1)
            assert same(part, mine), dtype
            tensor = place(N, dtype=dtype)
            bits(tensor).copy_(bits(mine))
            ctx.ccl.broadcast(tensor, src=world - 1)
            assert same(tensor, at(world - 1, N, dtype)), dtype
            ctx.ccl.all_to_all(whole, everybodys)
            assert same(whole, torch.cat([bits(mine)] * world).view(dtype)), dtype
        heap, copy = ctx.empty(N, dtype=dtype), torch.empty(N, dtype=dtype)
        ctx.put(heap, mine, following)
        ctx.barrier()
        assert same(heap, at(preceding, N, dtype)), dtype
        ctx.get(copy, heap, following)
        assert same(copy, mine), dtype
        if world > 1:
            ctx.ccl.send(mine, following)
            ctx.ccl.recv(copy, preceding)
            assert same(copy, at(preceding, N, dtype)), dtype
        assert heap.dtype == ctx.allocate((1,), str(dtype)).dtype == dtype
        assert same(ctx.zeros(N, dtype=dtype), torch.zeros(N, dtype=dtype)), dtype
        assert same(ctx.full((N,), 1, dtype=dtype), torch.ones(N, dtype=dtype)), dtype
        ctx.barrier()


@ranks(1, 2, 3, 4)
def test_reductions(ctx):
    world, rank = ctx.world_size, ctx.rank
    device = torch.get_default_device()
    for salt, n in enumerate((1, 15, 16, 37, 4099)):
        for dtype in RARE:
            mine = dtypes.values(rank, n, dtype, salt).to(device)
            whole = dtypes.values(rank, world * n, dtype, salt).to(device)
            for op in cases.REDUCTIONS:
                if dtype == torch.bool and op == "avg":
                    continue
                output = (ctx.empty if salt % 2 else torch.empty)(n, dtype=dtype)
                bits(output).fill_(0x55)
                ctx.ccl.all_reduce(output, mine, op)
                dtypes.check(output, world, dtype, op, salt, f"all_reduce on rank {rank} of {n}")
                in_place = ctx.empty(n, dtype=dtype)
                in_place.copy_(mine)
                ctx.ccl.all_reduce(in_place, in_place, op)
                assert same(in_place, output), f"in place: {dtype} {op}"
                bits(output).fill_(0x55)
                ctx.ccl.reduce(output if rank == world - 1 else None, mine, world - 1, op)
                if rank == world - 1:
                    assert same(output, in_place), f"reduce: {dtype} {op}"
                ctx.ccl.reduce_scatter(output, whole, op)
                joined = torch.empty(world * n, dtype=dtype)
                ctx.ccl.all_gather(joined, output)
                dtypes.check(joined, world, dtype, op, salt, f"reduce_scatter of {n}")


@ranks(2)
def test_nan_stays(ctx):
    output, mine = torch.empty(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    if ctx.rank == 1:
        mine[1] = torch.nan
    for op in cases.REDUCTIONS:
        ctx.ccl.all_reduce(output, mine, op)
        assert output.isnan().tolist() == [False, True], op


@ranks(1, 2)
def test_what_there_is_no_kernel_for_is_refused(ctx):
    n = 4
    for dtype in RARE:
        for variant in cases.ALL_REDUCE_VARIANTS:
            config = iris_c.ccl.Config(all_reduce_variant=variant)
            tensors = ctx.zeros(n, dtype=dtype), torch.zeros(n, dtype=dtype)
            if variant == "two_shot":
                ctx.ccl.all_reduce(*tensors, config=config)
                continue
            with pytest.raises(ValueError, match="all_reduce_variant: expected 'two_shot' for"):
                ctx.ccl.all_reduce(*tensors, config=config)
    for dtype in set(MOVABLE) - set(RARE):
        output, given = torch.zeros(n, dtype=dtype), torch.zeros(n * ctx.world_size, dtype=dtype)
        with pytest.raises(ValueError, match=r"^input: expected dtype .* or bool, got"):
            ctx.ccl.all_reduce(output, output.clone())
        with pytest.raises(ValueError, match=r"^input: expected dtype .* or bool, got"):
            ctx.ccl.reduce_scatter(output, given)
    flags = torch.zeros(n, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^op: expected 'sum', 'max', 'min' or 'prod' for bool"):
        ctx.ccl.all_reduce(flags, flags.clone(), "avg")
    lazy = torch.ones(n, dtype=torch.complex64).conj()
    with pytest.raises(ValueError, match=r"^tensor: .* pending conjugation; call its resolve_conj"):
        ctx.ccl.broadcast(lazy)
    ctx.ccl.broadcast(lazy.resolve_conj())
