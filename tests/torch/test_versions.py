# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What ctx.ops and ctx.ccl do to autograd: as torch's functions with out=, on every rank."""

import inspect
import os
import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

import iris_c
from iris_c.testing import ranks

N = 4


def square(value=1.0):
    return torch.full((N, N), float(value))


def peer_of(ctx):
    return (ctx.rank + 1) % ctx.world_size


def calls(ctx):
    """name: (call, its arguments by name, those that it writes). What is written has N * N
    elements, the inputs what the call asks for."""
    W, ops, ccl = ctx.world_size, ctx.ops, ctx.ccl
    tall = torch.ones(W * N, N)
    return {
        "matmul_all_reduce": (
            ops.matmul_all_reduce, {"C": square(), "A": square(), "B": square(),
                                    "bias": square()}, "C"),
        "matmul_reduce_scatter": (
            ops.matmul_reduce_scatter, {"C": square(), "A": tall, "B": square()}, "C"),
        "matmul_all_gather": (
            ops.matmul_all_gather, {"C": tall.clone(), "A": square(), "B": square()}, "C"),
        "all_gather_matmul": (
            ops.all_gather_matmul, {"C": tall.clone(), "A_shard": square(), "B": square(),
                                    "A_gathered": tall.clone()}, "C A_gathered"),
        "all_gather_matmul_hbm_buffer": (
            ops.all_gather_matmul_hbm_buffer,
            {"C": tall.clone(), "A_shard": square(), "B": square()}, "C"),
        "all_reduce": (ccl.all_reduce, {"output": square(), "input": square()}, "output"),
        "reduce_scatter": (ccl.reduce_scatter, {"output": square(), "input": tall}, "output"),
        "all_gather": (ccl.all_gather, {"output": tall.clone(), "input": square()}, "output"),
        "all_to_all": (ccl.all_to_all, {"output": tall.clone(), "input": tall}, "output"),
        "broadcast": (ccl.broadcast, {"tensor": square()}, "tensor"),
        "all_reduce_rmsnorm": (
            ccl.all_reduce_rmsnorm,
            {"output": square(), "residual_out": square(), "input": square(),
             "residual": square(), "weight": torch.ones(N)}, "output residual_out"),
        "reduce": (ccl.reduce, {"output": square(), "input": square()},
                   "output" if ctx.rank == 0 else ""),
        "gather": (ccl.gather, {"output": tall.clone(), "input": square()},
                   "output" if ctx.rank == 0 else ""),
        "scatter": (ccl.scatter, {"output": square(), "input": tall}, "output"),
        "get": (lambda dst, src: ctx.get(dst, src, peer_of(ctx)),
                {"dst": square(), "src": ctx.ones(N, N)}, "dst"),
        "put": (lambda dst, src: ctx.put(dst, src, peer_of(ctx)),
                {"dst": ctx.ones(N, N), "src": square()}, "dst" if W == 1 else ""),
    }  # fmt: skip


def ignored(ctx, name):
    """The argument that is looked at on one rank alone, where this is not that rank."""
    if ctx.rank == 0:
        return None
    return {"reduce": "output", "gather": "output", "scatter": "input"}.get(name)


@ranks(1, 2)
def test_what_is_written_has_a_new_version(ctx):
    for name, (call, arguments, written) in calls(ctx).items():
        before = {key: tensor._version for key, tensor in arguments.items()}
        call(**arguments)
        for key, tensor in arguments.items():
            grown = tensor._version - before[key]
            assert grown == (key in written.split()), f"{name}: {key} by {grown}"
        with torch.inference_mode():
            call(**{key: tensor.clone() for key, tensor in arguments.items()
                    if name not in ("get", "put")} or arguments)  # fmt: skip
    ctx.barrier()


@ranks(1, 2)
def test_what_requires_a_gradient_is_refused_by_name(ctx):
    for name, (call, arguments, _) in calls(ctx).items():
        for key in arguments:
            if key == ignored(ctx, name) or (ctx.world_size == 2 and name == "scatter"):
                continue
            wrong = {**arguments, key: arguments[key].detach().requires_grad_()}
            if ctx.world_size == 2 and name in ("reduce", "gather") and key == "output":
                continue  # the other rank has no say in it
            with pytest.raises(RuntimeError, match=rf"^{key}: functions with out=.* requires grad"):
                call(**wrong)
                pytest.fail(f"{name}: {key}")
            with torch.no_grad():
                call(**wrong)
    ctx.barrier()


@ranks(2)
def test_messages(ctx):
    sent, received = square(ctx.rank), square()
    version = received._version
    if ctx.rank == 0:
        with pytest.raises(RuntimeError, match=r"^tensor: functions with out="):
            ctx.ccl.send(square().requires_grad_(), 1)
        ctx.ccl.send(sent, 1)
    else:
        with pytest.raises(RuntimeError, match=r"^tensor: functions with out="):
            ctx.ccl.recv(square().requires_grad_(), 0)
        ctx.ccl.recv(received, 0)
    assert (sent._version, received._version) == (0, version + ctx.rank)
    there, back = square(ctx.rank), square()
    ctx.ccl.sendrecv(back, there, peer_of(ctx), peer_of(ctx))
    several = [square() for _ in range(20)]
    for tensor in several:  # more than there are parameters of any function
        assert tensor._version == 0
    sends = [iris_c.ccl.Send(there, peer_of(ctx)) for _ in several]
    ctx.ccl.batch([*sends, *(iris_c.ccl.Recv(tensor, peer_of(ctx)) for tensor in several)])
    assert (there._version, back._version) == (0, 1)
    assert [tensor._version for tensor in several] == [1] * len(several)
    with pytest.raises(RuntimeError, match=r"^recv_tensor: functions with out="):
        ctx.ccl.sendrecv(square().requires_grad_(), there, peer_of(ctx), peer_of(ctx))
    with pytest.raises(RuntimeError, match=r"^messages\[0\].tensor: functions with out="):
        ctx.ccl.batch([iris_c.ccl.Recv(square().requires_grad_(), peer_of(ctx))])
    word = ctx.zeros(1, dtype=torch.int32)
    version = word._version
    ctx.barrier()  # after the zeros
    ctx.signal(word, peer_of(ctx))
    ctx.wait(word)
    assert word._version == version
    ctx.wait(word, consume=True)
    assert word._version == version + 1
    ctx.barrier()


@ranks(1, 2)
def test_a_backward_pass_notices(ctx):
    for write in (
        lambda C: ctx.ops.matmul_all_reduce(C, square(9), torch.eye(N)),
        lambda C: ctx.ccl.all_reduce(C[:2], torch.full((2, N), 9.0)),  # through a view
        lambda C: ctx.ccl.broadcast(C),
    ):
        weight, C = square().requires_grad_(), ctx.ones(N, N)
        loss = (weight * C).sum()
        write(C)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@ranks(1)
def test_calls_that_are_refused_or_prepared_write_nothing(ctx):
    C = square()
    with pytest.raises(ValueError, match="B: expected 4 rows"):
        ctx.ops.matmul_all_reduce(C, square(), torch.ones(N + 1, N))
    ctx.ops.matmul_all_reduce_preamble(C, square().requires_grad_(), square())
    ctx.ccl.all_reduce_preamble(C, square())
    assert C._version == 0


@ranks(1)
def test_forward_gradients_are_refused(ctx):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(square(), square())
        with pytest.raises(RuntimeError, match=r"^A: functions with out=.* forward gradient"):
            ctx.ops.matmul_all_reduce(square(), dual, square())
        ctx.ops.matmul_all_reduce(square(), square(), square())


def test_every_call_is_tried():
    """So that a new one is not forgotten: those beside the calls above write no tensor."""
    with iris_c.init(heap_size=1 << 22, backend="cpu", rank=0, world_size=1) as ctx:
        tried = set(calls(ctx))
    others = {"barrier", "send", "recv", "sendrecv", "batch"}  # those of test_messages
    others |= {"auto_config", "select_config", "explain"}
    for module in (iris_c.ops, iris_c.ccl):
        for name, value in inspect.getmembers(module):
            if name not in module.__all__ or inspect.isclass(value) or not callable(value):
                continue
            assert name in tried | others or name.endswith("_preamble"), name


def test_torch_is_not_imported():
    code = (
        "import sys, numpy, iris_c\n"
        "sys.modules['torch'] = None\n"
        "with iris_c.init(heap_size=1 << 22, rank=0, world_size=1) as ctx:\n"
        "    a = numpy.ones(3, numpy.float32)\n"
        "    ctx.ccl.all_reduce(a, a)\n"
        "del sys.modules['torch']\n"
        "with iris_c.init(heap_size=1 << 22, rank=0, world_size=1) as ctx:\n"
        "    ctx.ccl.all_reduce(a, a)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120,
        cwd="/", check=False, env={**os.environ, "IRIS_C_BACKEND": "cpu"},
    )  # fmt: skip
    assert done.stdout.strip() == "False", done.stderr
