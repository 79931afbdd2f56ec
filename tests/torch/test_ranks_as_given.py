# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""`ctx=` of everything public: a context, its name, a process group or a mesh."""

import inspect
import types

import pytest
import torch
import torch.distributed as dist
from descriptors import ON_GPU
from process_groups import DEVICE, distributed, starts_ranks
from torch import nn

import iris_c.torch
from iris_c.testing import run_ranks
from iris_c.torch import random

LINEAR = nn.Linear(4, 4, device="cpu")


def token_gradients(ctx):
    taken = iris_c.torch.sequence_parallel(nn.LayerNorm(4), ctx=ctx)
    taken.remove()


def forked(ctx):
    with random.fork(ctx):
        return torch.rand(1)


class PerRow:
    """As torchao has it."""


def quantised():
    """A layer with what a weight of torchao's says of itself."""
    linear = nn.Linear(4, 4)
    linear.weight.qdata, linear.weight.scale = iris_c.torch.quantize_float8(linear.weight.detach())
    linear.weight.block_size = [1, 4]
    linear.weight.act_quant_kwargs = types.SimpleNamespace(
        granularity=PerRow(), float8_dtype=torch.float8_e4m3fn, hp_value_lb=None, hp_value_ub=None
    )
    return linear


def calls():
    """name: what calls it with a `ctx`."""
    A = torch.ones(4, 4)
    functions = {
        name: lambda ctx, name=name: getattr(iris_c.torch, name)(A, A, ctx=ctx)
        for name in ("matmul_all_reduce", "matmul_reduce_scatter", "all_gather_matmul",
                     "gathered_matmul", "matmul_all_gather", "matmul_replicated")
    }  # fmt: skip
    functions |= {
        name: lambda ctx, name=name: getattr(iris_c.torch, name)(A, ctx=ctx)
        for name in ("all_gather", "all_reduce", "copy_to_ranks", "reduce_scatter", "scatter")
    }
    low, one = A.to(torch.float8_e4m3fn), torch.ones(1)
    functions |= {
        name: lambda ctx, name=name: getattr(iris_c.torch, name)(low, low, one, one, ctx=ctx)
        for name in ("scaled_matmul_all_reduce", "scaled_matmul_reduce_scatter",
                     "scaled_all_gather_matmul", "scaled_gathered_matmul",
                     "scaled_matmul_all_gather")
    }  # fmt: skip
    functions["several products"] = lambda ctx: iris_c.torch.matmul_replicated(A, [A], ctx=ctx)
    layers = {
        "ColumnParallelLinear": {}, "RowParallelLinear": {}, "KVParallelLinear": {"heads": 1},
        "VocabParallelEmbedding": {}, "Float8ColumnParallelLinear": {},
        "Float8RowParallelLinear": {},
    }  # fmt: skip
    for name, options in layers.items():
        layer = getattr(iris_c.torch, name)
        functions[name] = lambda ctx, layer=layer, options=options: layer(4, 4, ctx=ctx, **options)
        if name != "VocabParallelEmbedding":
            functions[f"{name}.from_linear"] = lambda ctx, layer=layer, options=options: (
                layer.from_linear(LINEAR, ctx=ctx, **options)
            )
        if name.startswith("Float8"):
            functions[f"{name}.from_float8_linear"] = lambda ctx, layer=layer: (
                layer.from_float8_linear(quantised(), ctx=ctx)
            )
    embedding = iris_c.torch.VocabParallelEmbedding
    return {
        **functions,
        "VocabParallelEmbedding.from_embedding": lambda ctx: embedding.from_embedding(
            nn.Embedding(4, 4), ctx=ctx
        ),
        "VocabParallelEmbedding.from_pretrained": lambda ctx: embedding.from_pretrained(A, ctx=ctx),
        "vocab_parallel_cross_entropy": lambda ctx: iris_c.torch.vocab_parallel_cross_entropy(
            A, torch.arange(4), ctx=ctx
        ),
        "sequence_parallel": token_gradients,
        "random.fork": forked,
        "random.seed": lambda ctx: random.seed(ctx=ctx),
        "random.register_graph": lambda ctx: random.register_graph(
            torch.cuda.CUDAGraph() if ON_GPU else None, ctx
        ),
    }


def taking_ranks():
    """Names of all that is public and has a parameter `ctx` that names ranks."""
    for module, prefix in ((iris_c.torch, ""), (random, "random.")):
        for name in module.__all__:
            value = getattr(module, name)
            if name in ("Nodes", "register", "TokenGradients") or not callable(value):
                continue  # those are, or make, what `ctx` names
            if "ctx" in inspect.signature(value).parameters or name == "KVParallelLinear":
                yield prefix + name
            if inspect.isclass(value):
                for made, maker in inspect.getmembers(value, inspect.ismethod):
                    if made.startswith("from_") and "ctx" in inspect.signature(maker).parameters:
                        yield f"{prefix}{name}.{made}"


def test_everything_is_tried():
    """So that what is new is not forgotten."""
    assert set(taking_ranks()) == set(calls()) - {"several products"}


@distributed
def _as_given(rank):
    mesh = dist.init_device_mesh(DEVICE, (2, 2), mesh_dim_names=("dp", "tp"))
    with iris_c.torch.init(mesh["tp"], 16 << 20, name="tp") as ctx:
        for name, call in calls().items():
            if ON_GPU and name.startswith("scaled"):
                continue  # float8 operands of such sizes are of the cpu
            for given in (ctx, "tp", mesh["tp"], mesh["tp"].get_group()):
                call(given)
            for wrong in (5, object(), [0, 1], torch.ones(1)):
                with pytest.raises(TypeError, match=r"^ctx: expected"):
                    call(wrong)
                    pytest.fail(name)
            with pytest.raises(ValueError, match=r"^ctx: expected a DeviceMesh of one dimension"):
                call(mesh)
                pytest.fail(name)
            with pytest.raises(ValueError, match="expected the name of a context"):
                call("nobody")
                pytest.fail(name)
        assert set(iris_c.torch._groups._contexts) <= {"tp", "tp/2 copies"}
        ctx.barrier()


@starts_ranks
def test_ranks_are_taken_as_given(tmp_path):
    run_ranks((__name__, "_as_given"), 4, str(tmp_path / "store"), deadline=120)
