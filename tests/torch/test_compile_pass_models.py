# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Models of DTensor under torch's own plans, compiled with the pass: their graphs, and the whole of
Inductor."""

import os

import torch
import torch.distributed as dist
from compiled_graphs import Compiled
from process_groups import DEVICE, distributed, starts_ranks
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import config
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn import functional as F

import iris_c.torch
from iris_c.testing import run_ranks

pytestmark = starts_ranks


class Mlp(nn.Module):
    def __init__(self, width=8, bias=True):
        super().__init__()
        self.up, self.down = nn.Linear(width, 16, bias), nn.Linear(16, width, bias)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class Rows(nn.Module):
    """The least that Inductor has to compile."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16, bias=False), nn.Linear(16, 8, bias=False)

    def forward(self, x):
        return self.down(self.up(x.flatten(0, 1)).relu())


class Block(nn.Module):
    """Attention and an MLP, with norms in front of both."""

    def __init__(self, width=8, heads=4):
        super().__init__()
        self.size = width // heads
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.mlp = Mlp(width)

    def forward(self, x):
        h = self.norm(x)
        query, key, value = (
            layer(h).unflatten(-1, (-1, self.size)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.mlp(self.second_norm(x))


SHARDED = Shard(1)
MLP = {"up": ColwiseParallel(), "down": RowwiseParallel()}
GATHERED_MLP = {
    "up": ColwiseParallel(input_layouts=SHARDED),
    "down": RowwiseParallel(output_layouts=SHARDED),
}
ROWS = {
    "up": ColwiseParallel(input_layouts=Shard(0)),
    "down": RowwiseParallel(output_layouts=Shard(0)),
}
OF_COLUMNS = {"up": ColwiseParallel(output_layouts=Replicate()), "down": ColwiseParallel()}
BLOCK = {
    "": PrepareModuleInput(
        input_layouts=(Replicate(),), desired_input_layouts=(SHARDED,), use_local_output=True
    ),
    "norm": SequenceParallel(),
    "second_norm": SequenceParallel(),
    **{name: ColwiseParallel(input_layouts=SHARDED) for name in ("query", "key", "value")},
    "out": RowwiseParallel(output_layouts=SHARDED),
    "mlp.up": ColwiseParallel(input_layouts=SHARDED),
    "mlp.down": RowwiseParallel(output_layouts=SHARDED),
}
AR, RS, MAG = "matmul_all_reduce", "matmul_reduce_scatter", "matmul_all_gather"
AGM, GM = "all_gather_matmul", "gathered_matmul"
# model, plan, whether each rank has a part of its input, operations without and with gradients
MODELS = {
    "mlp": (Mlp, MLP, False, {AR: 1}, {AR: 2}),
    "sequence": (Mlp, GATHERED_MLP, True, {GM: 1, RS: 1}, {AGM: 2, RS: 2}),
    "rows": (Rows, ROWS, True, {GM: 1, RS: 1}, {AGM: 2, RS: 2}),
    "columns": (Mlp, OF_COLUMNS, False, {MAG: 1}, None),
    "block": (Block, BLOCK, False, {AGM: 1, GM: 1, RS: 2}, {AGM: 4, RS: 6}),
}


def parallel(name):
    """A model in parts, and its input."""
    model, plan, divided, *_ = MODELS[name]
    world = dist.get_world_size()
    mesh = dist.init_device_mesh(DEVICE, (world,))
    torch.manual_seed(3)
    whole = model()
    x = torch.randn(2, 2 * world, 8)
    if divided:
        x = x.chunk(world, 1)[dist.get_rank()]
    return parallelize_module(whole, mesh, plan), x


def local(tensor):
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach().clone()


def step(run, model, x):
    """The result, and the gradients of the parameters and of the input."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    result = run(x)
    weights = torch.arange(result.numel(), dtype=torch.float32).view(result.shape).cos()
    (result * weights).sum().backward()
    return [local(one) for one in (result, x.grad, *(p.grad for p in model.parameters()))]


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@distributed
def _graphs(rank, names):
    for name in names:
        *_, hits, training_hits = MODELS[name]
        model, x = parallel(name)
        compiled = Compiled(model)
        with torch.no_grad():
            close(local(compiled(x)), local(model(x)))
        assert compiled.hits == hits, f"{name}: {compiled.hits} in\n{compiled}"
        if training_hits is not None:
            expected = step(model, model, x)
            compiled = Compiled(model)
            close(step(compiled, model, x), expected)
            assert compiled.hits == training_hits, f"{name}: {compiled.hits} in\n{compiled}"


# ---- by Inductor itself ----


class Noted(CustomGraphPass):
    """A pass of somebody else."""

    def __init__(self):
        self.calls = 0

    def __call__(self, graph):
        self.calls += 1

    def uuid(self):
        return "noted"


@distributed
def _inductor(rank, cache):
    """A step of training, compiled; then from the cache, which the ranks share: the second rank may
    have the first's graphs at once."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    other = Noted()
    settings = {
        "compile_threads": 1,
        "cpp.simdlen": 1,  # it would compile programs to find out
        "joint_custom_pre_pass": other,
    }
    model, x = parallel("rows")
    expected = step(model, model, x)
    with config.patch(settings):
        calls = []
        for _ in range(2):
            torch._dynamo.reset()
            with iris_c.torch.compile_pass() as hits:
                assert config.joint_custom_pre_pass[0] is other
                close(step(torch.compile(model, fullgraph=True), model, x), expected)
            assert hits == {AGM: 2, RS: 2}, hits
            assert config.joint_custom_pre_pass is other
            assert config.post_grad_custom_pre_pass is None
            calls.append(other.calls)
        assert calls[1] == calls[0] <= 1
        assert counters["inductor"]["fxgraph_cache_hit"] >= 2


def test_inductor(tmp_path):
    store, cache = str(tmp_path / "store"), str(tmp_path / "cache")
    run_ranks((__name__, "_inductor"), 2, store, cache, deadline=300)


def test_what_is_installed_is_taken_away():
    setting = "post_grad_custom_pre_pass"
    assert getattr(config, setting) is None
    outer, inner = iris_c.torch.compile_pass(), iris_c.torch.compile_pass()
    with config.patch({setting: [getattr(config, setting), other := Noted()]}):
        outer.remove()
        outer.remove()  # does nothing
        assert len(getattr(config, setting)) == 2  # the inner one is there
        inner.remove()
        assert getattr(config, setting) is other
    # What was put back is not wanted any more: it changes nothing, and no key of a cache.
    left = getattr(config, setting)
    assert left.uuid() == (setting,)
    setattr(config, setting, None)
    hits = iris_c.torch.compile_pass()
    assert dict(hits) == {} == hits
    assert "matmul_all_reduce" not in hits
    counters["inductor"]["iris_c_matmul_all_reduce"] += 2
    assert hits == {"matmul_all_reduce": 2}
    hits.remove()
    counters["inductor"]["iris_c_matmul_all_reduce"] += 1
    assert repr(hits) == "<iris_c.torch.compile_pass {'matmul_all_reduce': 2}>"


@distributed
def _lengths(rank):
    """One graph for inputs of several lengths, without recompilation."""
    for name, hits in (("mlp", {AR: 1}), ("sequence", {GM: 1, RS: 1})):
        model, x = parallel(name)
        compiled = Compiled(model)
        with torch.no_grad():
            for length in (1, 2, 3):
                longer = torch.cat([x] * length, 1)
                torch._dynamo.mark_dynamic(longer, 1)
                close(local(compiled(longer)), local(model(longer)))
        assert compiled.hits == hits, f"{name}: {compiled.hits} in\n{compiled}"
        assert len(compiled.graphs) == 1


def test_lengths(tmp_path):
    run_ranks((__name__, "_lengths"), 2, str(tmp_path / "store"), deadline=200)


def test_graphs_of_two_ranks(tmp_path):
    names = ["mlp", "sequence", "columns", "block"]
    run_ranks((__name__, "_graphs"), 2, str(tmp_path / "store"), names, deadline=300)


def test_graphs_of_four_ranks(tmp_path):
    run_ranks((__name__, "_graphs"), 4, str(tmp_path / "store"), ["sequence"], deadline=300)
