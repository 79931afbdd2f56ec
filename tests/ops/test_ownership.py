# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Handles that belong to another context: refused by name, on every rank, before anything is agreed
on; nothing is written, and the context goes on. Memory of another heap is ordinary memory."""

import inspect

import pytest
import torch

import iris_c
from iris_c.testing import ranks, run_ranks

HEAP = 1 << 22
GROUP_HEAP = 1 << 21
OWNERS = ["another context", "its group", "its parent", "a closed context", "another operation"]


def calls_with_a_workspace(ctx):
    """Every function that takes a workspace: name -> call(workspace)."""
    world, rank = ctx.world_size, ctx.rank
    n = 4 * world
    A, B, C = torch.ones(n, n), torch.ones(n, n), torch.zeros(n, n)
    share, wide = torch.zeros(4, n), torch.zeros(n * world, n)
    shard = torch.ones(4, n)
    x, y = torch.ones(n), torch.zeros(n)
    part, many = torch.zeros(4), torch.zeros(n * world)
    w, residual_out = torch.ones(n), torch.zeros(n)
    even = [4] * world
    ops, ccl = iris_c.ops, iris_c.ccl
    return {
        "matmul_all_reduce": lambda h: ops.matmul_all_reduce(ctx, C, A, B, workspace=h),
        "matmul_all_reduce_preamble": lambda h: ops.matmul_all_reduce_preamble(
            ctx, C, A, B, workspace=h
        ),
        "matmul_reduce_scatter": lambda h: ops.matmul_reduce_scatter(ctx, share, A, B, workspace=h),
        "matmul_reduce_scatter_preamble": lambda h: ops.matmul_reduce_scatter_preamble(
            ctx, share, A, B, workspace=h
        ),
        "matmul_all_gather": lambda h: ops.matmul_all_gather(ctx, wide, A, B, workspace=h),
        "matmul_all_gather_preamble": lambda h: ops.matmul_all_gather_preamble(
            ctx, wide, A, B, workspace=h
        ),
        "all_gather_matmul": lambda h: ops.all_gather_matmul(ctx, C, shard, B, workspace=h),
        "all_gather_matmul_preamble": lambda h: ops.all_gather_matmul_preamble(
            ctx, C, shard, B, workspace=h
        ),
        "all_gather_matmul_hbm_buffer": lambda h: ops.all_gather_matmul_hbm_buffer(
            ctx, C, shard, B, workspace=h
        ),
        "all_gather_matmul_hbm_buffer_preamble": lambda h: (
            ops.all_gather_matmul_hbm_buffer_preamble(ctx, C, shard, B, workspace=h)
        ),
        "all_reduce": lambda h: ccl.all_reduce(ctx, y, x, workspace=h),
        "all_reduce_preamble": lambda h: ccl.all_reduce_preamble(ctx, y, x, workspace=h),
        "all_reduce_rmsnorm": lambda h: ccl.all_reduce_rmsnorm(
            ctx, y, residual_out, x, None, w, workspace=h
        ),
        "reduce_scatter": lambda h: ccl.reduce_scatter(ctx, part, x, workspace=h),
        "all_gather": lambda h: ccl.all_gather(ctx, many, x, workspace=h),
        "all_to_all": lambda h: ccl.all_to_all(ctx, y, x, workspace=h),
        "all_to_all with sizes": lambda h: ccl.all_to_all(
            ctx, y, x, workspace=h, output_split_sizes=even, input_split_sizes=even
        ),
        "broadcast": lambda h: ccl.broadcast(ctx, x, workspace=h),
        "reduce": lambda h: ccl.reduce(ctx, y if rank == 0 else None, x, workspace=h),
        "gather": lambda h: ccl.gather(ctx, many if rank == 0 else None, x, workspace=h),
        "scatter": lambda h: ccl.scatter(ctx, part, x if rank == 0 else None, workspace=h),
    }


def operation_of(name: str) -> str:
    return name.removesuffix("_preamble").removesuffix(" with sizes")


class Fake:
    rank, world_size = 0, 1


NAMES = list(calls_with_a_workspace(Fake))


def test_every_function_with_a_workspace_is_here():
    public = {
        name: getattr(module, name)
        for module in (iris_c.ops, iris_c.ccl)
        for name in module.__all__
        if name[0].islower()
    }
    with_workspace = {
        name for name, call in public.items() if "workspace" in inspect.signature(call).parameters
    }
    assert with_workspace == {name.removesuffix(" with sizes") for name in NAMES}


def foreign_workspaces(owner: str, name: str, ctx):
    """The context to call, a workspace that is not its, used once, and what the error says."""
    operation, everybody = operation_of(name), list(range(ctx.world_size))

    def used(context):
        return calls_with_a_workspace(context)[name](iris_c.FusedWorkspace(context, operation))

    if owner == "another operation":
        other = "all_gather" if operation == "broadcast" else "broadcast"
        workspace = calls_with_a_workspace(ctx)[other](iris_c.FusedWorkspace(ctx, other))
        return ctx, workspace, rf"for {operation}, got one for {other}$"
    if owner == "its group":
        group = ctx.group(everybody, GROUP_HEAP)
        return (
            ctx,
            used(group),
            rf"got one for {operation} of context \d+ .*group \(0.*{GROUP_HEAP}",
        )
    if owner == "its parent":
        group = ctx.group(everybody, GROUP_HEAP)
        return group, used(ctx), rf"called, context \d+ .*group \(0.*got one for {operation} of"
    other = iris_c.init(heap_size=HEAP // 4, timeout=20)
    workspace = used(other)
    if owner == "a closed context":
        other.close()
        return ctx, workspace, r"got one for .* of context \d+ \(.*, closed\)$"
    ctx.kept.append(other)
    return ctx, workspace, rf"of context \d+ \(rank {ctx.rank} of .* {HEAP // 4} bytes\)$"


def workspaces_of_others(ctx, owner):
    ctx.kept = []
    bystander = ctx.zeros(HEAP // 16)  # a quarter of the heap
    for name in NAMES:
        called, workspace, message = foreign_workspaces(owner, name, ctx)
        beside = called.zeros(1 << 14)
        before, calls = called.heap_used, workspace.call_counter
        ctx.barrier()
        with pytest.raises(ValueError, match=r"^workspace: expected one .*" + message):
            calls_with_a_workspace(called)[name](workspace)
            pytest.fail(f"{name} took the workspace of {owner}")
        ctx.barrier()
        assert not bystander.any()
        assert not beside.any()
        assert called.heap_used == before
        assert workspace.call_counter == calls
        assert calls_with_a_workspace(called)[name](None).operation == operation_of(name)
        ctx.barrier()
        while ctx.kept:
            ctx.kept.pop().close()
        del beside, workspace
        ctx.barrier()


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("owner", OWNERS)
def test_workspaces_of_others(world_size, owner):
    init = {"heap_size": HEAP, "timeout": 20}
    run_ranks(workspaces_of_others, world_size, owner, init=init, deadline=120)


def other_contexts(ctx):
    """Name -> (context to call, context whose heap the tensor is in)."""
    everybody = list(range(ctx.world_size))
    other, closed = (iris_c.init(heap_size=1 << 20, timeout=20) for _ in range(2))
    group = ctx.group(everybody, GROUP_HEAP)
    contexts = {
        "another context": (ctx, other),
        "its group": (ctx, group),
        "its parent": (group, ctx),
        "a closed context": (ctx, closed),
    }
    tensors = {
        name: (owner.zeros(8), owner.zeros(1, dtype=torch.int32))
        for name, (_, owner) in contexts.items()
    }
    ctx.kept = (other, closed)
    closed.close()
    return {name: (called, *tensors[name]) for name, (called, _) in contexts.items()}


@ranks(1, 2)
def test_symmetric_memory_of_others(ctx):
    """Where a place in the heap is asked for, one in another heap is none."""
    peer = ctx.world_size - 1
    for owner, (called, tensor, word) in other_contexts(ctx).items():
        both = (
            r"in the context's symmetric heap, that of context \d+ \(.*\), "
            r"got one in that of context \d+ \(.*\)$"
        )
        calls = {
            "dst": lambda c=called, t=tensor: c.put(t, torch.ones(8), peer),
            "src": lambda c=called, t=tensor: c.get(torch.zeros(8), t, peer),
            "word": lambda c=called, w=word: c.signal(w, peer),
            "word ": lambda c=called, w=word: c.wait(w, 0),
        }
        for argument, call in calls.items():
            with pytest.raises(ValueError, match=rf"^{argument.strip()}: expected a tensor {both}"):
                call()
                pytest.fail(f"{argument} in the heap of {owner}")
        ctx.barrier()
        assert not tensor.any()
        assert not word.any()
        assert not called.is_symmetric(tensor)
    with pytest.raises(
        ValueError, match=r"^dst: expected a tensor .* got one in no context's heap"
    ):
        ctx.put(torch.zeros(8), torch.ones(8), peer)


@ranks(1, 2)
def test_memory_of_others_is_ordinary_memory(ctx):
    """Everywhere else it may be read and written, with the right result."""
    A = torch.arange(64.0).reshape(8, 8)
    for called, tensor, _ in other_contexts(ctx).values():
        called.ccl.all_reduce(tensor, torch.full((8,), float(ctx.rank + 1)))
        expected = sum(range(1, ctx.world_size + 1))
        assert tensor.tolist() == [expected] * 8
        gathered = torch.zeros(8 * ctx.world_size)
        called.ccl.all_gather(gathered, tensor)
        assert gathered.tolist() == [expected] * 8 * ctx.world_size
        result = tensor.view(8, 1)
        called.ops.matmul_all_reduce(result, A, torch.ones(8, 1))
        torch.testing.assert_close(result, A.sum(1, keepdim=True) * ctx.world_size)
        place = called.zeros(8)
        called.put(place, tensor, called.rank)
        assert torch.equal(place, tensor)
        ctx.barrier()


def test_workspaces_of_closed_contexts():
    with iris_c.init(heap_size=HEAP, rank=0, world_size=1) as ctx:
        x, y = torch.ones(4, device=ctx.device), torch.zeros(4, device=ctx.device)
        workspace = ctx.ccl.all_reduce(y, x)
        signature = ("all_reduce", workspace.shape, "float32", 1)
        assert workspace.prepared
        assert workspace.matches(*signature)
    assert not workspace.prepared
    assert not workspace.matches(*signature)
    assert workspace.call_counter == 1
    with pytest.raises(RuntimeError, match="closed"):
        ctx.ccl.all_reduce(y, x, workspace=workspace)
    with pytest.raises(RuntimeError, match="closed"):
        iris_c.FusedWorkspace(ctx, "all_reduce")
    workspace.reset()
    workspace.clear()
    assert workspace.nbytes == 0


@pytest.mark.parametrize(
    "operation", ["", "barrier", "send", "put", "clear_sums", "compare_clocks", "copy_matrix"]
)
def test_operations_without_a_workspace(operation):
    with iris_c.init(heap_size=HEAP, rank=0, world_size=1) as ctx:
        with pytest.raises(ValueError, match=rf"^operation: expected .*got '{operation}'"):
            iris_c.FusedWorkspace(ctx, operation)


@pytest.mark.parametrize("value", [None, 3, "default", iris_c.Context, ...], ids=repr)
def test_what_is_no_context(value, tmp_path):
    x = torch.ones(4)
    for call in (
        lambda: iris_c.ccl.all_reduce(value, x, x),
        lambda: iris_c.ccl.barrier(value),
        lambda: iris_c.ccl.send(value, x, 0),
        lambda: iris_c.ops.matmul_all_reduce(value, x, x, x),
        lambda: iris_c.ops.select_config(value, 4, 4, 4, "float32"),
        lambda: iris_c.FusedWorkspace(value, "all_reduce"),
        lambda: iris_c.tracing.export(str(tmp_path / "trace.json"), value),
        lambda: iris_c.tracing.clear(value),
    ):
        with pytest.raises(TypeError, match=r"^ctx: expected an iris_c\.Context, got "):
            call()
