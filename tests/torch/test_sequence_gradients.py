# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""sequence_parallel: gradients of what each rank uses on its own tokens, against one process."""

import copy

import pytest
import torch
import torch.distributed as dist
from process_groups import DEVICE, distributed, starts_ranks
from torch import nn
from torch.utils.checkpoint import checkpoint

import iris_c.torch
from iris_c.testing import ranks, run_ranks
from iris_c.torch import ColumnParallelLinear, RowParallelLinear, _operations, sequence_parallel

WIDTH, HIDDEN, TOKENS = 8, 16, 8


class Block(nn.Module):
    """What a transformer's layer has: norms, a pair of layers, a bias and a scale of its own."""

    def __init__(self, recompute=None):
        super().__init__()
        self.before = nn.LayerNorm(WIDTH)
        self.first = nn.Linear(WIDTH, HIDDEN)
        self.second = nn.Linear(HIDDEN, WIDTH)
        self.scale = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.after = nn.RMSNorm(WIDTH)
        self.recompute = recompute

    def inside(self, x):
        x = x + self.second(nn.functional.gelu(self.first(self.before(x)))) * self.scale
        # A parameter that is used beside its module.
        return nn.functional.rms_norm(x, (WIDTH,), self.after.weight)

    def forward(self, x):
        if self.recompute is None:
            return self.inside(x)
        return checkpoint(self.inside, x, use_reentrant=self.recompute)


def whole_model(recompute=None):
    torch.manual_seed(2)
    model = nn.Sequential(Block(recompute), Block(recompute), nn.Linear(WIDTH, WIDTH))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def parallel_model(whole, ctx=None):
    model = copy.deepcopy(whole)
    for block in model[:2]:
        options = {"sequence_parallel": True, "ctx": ctx}
        block.first = ColumnParallelLinear.from_linear(block.first, **options)
        block.second = RowParallelLinear.from_linear(block.second, **options)
    return model


def part(tensor, ctx, dim=0):
    return tensor.chunk(ctx.world_size, dim)[ctx.rank]


def batch_of(turn, tokens=TOKENS):
    torch.manual_seed(50 + turn)
    return torch.randn(tokens, 3, WIDTH), torch.randn(tokens, 3, WIDTH)


def number(model, x, weights):
    return (model(x).sin() * weights).sum()


def own(name, tensor, ctx):
    """What this rank has of a whole parameter's gradient."""
    if "first" in name:
        return part(tensor, ctx)
    return part(tensor, ctx, 1) if name.endswith("second.weight") else tensor


def is_close(got, expected, what=""):
    bound = 2e-4 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(
        got.detach(), expected.detach(), rtol=1e-3, atol=bound, msg=lambda text: f"{what}: {text}"
    )


def local(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def check_gradients(model, whole, ctx, what=""):
    expected = {name: p.grad for name, p in whole.named_parameters()}
    for name, p in model.named_parameters():
        name = name.removeprefix("_orig_mod.")
        is_close(local(p.grad), own(name, expected[name], ctx), f"{what} {name}")


def sums_of(monkeypatch):
    """The numbers of elements of all all_reduces to come."""
    seen, real = [], _operations.context

    class Noted:
        def __init__(self, ctx):
            self.ctx, self.ccl = ctx, self

        def all_reduce(self, output, input, op):
            seen.append(input.numel())
            return self.ctx.ccl.all_reduce(output, input, op)

        def __getattr__(self, name):
            return getattr(self.ctx, name)

    monkeypatch.setattr(_operations, "context", lambda name: Noted(real(name)))
    return seen


@pytest.mark.parametrize("batch", [None, False])
@ranks(1, 2, 4, deadline=120)
def test_gradients_are_the_whole_models(ctx, monkeypatch, batch):
    """Of one backward pass, and added up over several; in one sum each pass, or one for each."""
    iris_c.torch.register(ctx)
    whole = whole_model()
    model = parallel_model(whole)
    handle = sequence_parallel(model, batch=batch)
    inner = {"before.weight", "before.bias", "scale", "after.weight"}
    names = {f"{i}.{name}" for i in (0, 1) for name in inner} | {"2.weight", "2.bias"}
    assert set(handle.names) == names
    sums = sums_of(monkeypatch)
    for turn in range(3):
        x, weights = batch_of(turn)
        number(whole, x, weights).backward()
        sums.clear()
        number(model, part(x, ctx), part(weights, ctx)).backward()
        if ctx.world_size > 1:
            biases = [WIDTH, WIDTH]  # of the row-parallel layers, which sum theirs
            small = [WIDTH] * 9
            own_sums = [sum(small) + WIDTH**2] if batch is None else [WIDTH**2, *small]
            assert sorted(sums) == sorted(biases + own_sums)
        check_gradients(model, whole, ctx, f"after {turn + 1}")
    # The optimizers' foreach, which want gradients of a kind, and go on alike.
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.01, foreach=True) for m in (whole, model)]
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    x, weights = batch_of(7)
    number(whole, x, weights).backward()
    number(model, part(x, ctx), part(weights, ctx)).backward()
    check_gradients(model, whole, ctx, "after a step")


@ranks(2, deadline=120)
def test_gradients_of_gradients(ctx):
    """By torch.autograd.grad and by backward(create_graph=True)."""
    iris_c.torch.register(ctx)
    whole = whole_model()
    model = parallel_model(whole)
    sequence_parallel(model)
    x, weights = batch_of(0)

    def derivatives(model, x, weights):
        parameters = list(model.parameters())
        grads = torch.autograd.grad(number(model, x, weights), parameters, create_graph=True)
        yield from grads
        penalty = sum(g.square().sum() for g in grads) / 100
        yield from torch.autograd.grad(penalty, parameters)

    names = 2 * [name for name, _ in whole.named_parameters()]
    expected = derivatives(whole, x, weights)
    for name, got, reference in zip(
        names, derivatives(model, part(x, ctx), part(weights, ctx)), expected, strict=True
    ):
        is_close(got, own(name, reference, ctx), name)
    for of_model, *given in ((whole, x, weights), (model, part(x, ctx), part(weights, ctx))):
        number(of_model, *given).backward(create_graph=True)
        penalty = sum(p.grad.square().sum() for p in of_model.parameters()) / 100
        penalty.backward()  # added to what is there
    check_gradients(model, whole, ctx, "penalty")


@pytest.mark.parametrize("recompute", [False, True])
@ranks(2, deadline=120)
def test_checkpoints(ctx, recompute):
    iris_c.torch.register(ctx)
    whole, model = whole_model(), parallel_model(whole_model(recompute))
    sequence_parallel(model)
    for turn in range(2):
        x, weights = batch_of(turn)
        number(whole, x, weights).backward()
        mine = part(x, ctx).requires_grad_()  # which the older way of checkpoints needs
        number(model, mine, part(weights, ctx)).backward()
    check_gradients(model, whole, ctx)


@ranks(2, deadline=180)
def test_compiled(ctx):
    iris_c.torch.register(ctx)
    whole = whole_model()
    model = parallel_model(whole)
    sequence_parallel(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for turn in range(2):
        x, weights = batch_of(turn)
        number(whole, x, weights).backward()
        number(compiled, part(x, ctx), part(weights, ctx)).backward()
    check_gradients(model, whole, ctx)


@ranks(2, deadline=120)
def test_what_is_taken_and_what_not(ctx):
    """Once, whoever takes it; what is frozen, put in another's place or copied; until it ends."""
    iris_c.torch.register(ctx)
    whole = whole_model()
    x, weights = batch_of(0)
    number(whole, x, weights).backward()

    def grads_of(model, *names):
        model.zero_grad()
        number(model, part(x, ctx), part(weights, ctx)).backward()
        return {name: model.get_parameter(name).grad for name in names}

    def alone(model):
        """What each rank finds without any sum."""
        return grads_of(model, "0.before.weight", "1.after.weight", "2.weight")

    model = parallel_model(whole)
    parts = alone(model)
    sums = {name: iris_c.torch.all_reduce(grad) for name, grad in parts.items()}
    assert not torch.allclose(parts["2.weight"], sums["2.weight"])

    def are(model, expected, *of_sums):
        for name, grad in alone(model).items():
            is_close(grad, sums[name] if name in of_sums else parts[name], name)

    every = tuple(sums)
    # Twice, and within: once. The last one to leave ends it.
    first, second = sequence_parallel(model), sequence_parallel(model[0])
    are(model, sums, *every)
    first.remove()
    first.remove()
    are(model, sums, "0.before.weight")
    second.remove()
    are(model, sums)
    # Chosen by modules, by parameters, by a function.
    with sequence_parallel(model, [model[0], model[2].weight]) as handle:
        assert "0.scale" in handle.names
        assert not [name for name in handle.names if "first" in name or "second" in name]
        are(model, sums, "0.before.weight", "2.weight")
    with sequence_parallel(model, lambda name, p: p.dim() == 1):
        are(model, sums, "0.before.weight", "1.after.weight")
    are(model, sums)
    # Frozen at first; another Parameter in its place; a copy of the model.
    model[2].weight.requires_grad_(False)
    with sequence_parallel(model):
        model[2].weight.requires_grad_(True)
        are(model, sums, *every)
        model[2].weight.requires_grad_(False)
        assert grads_of(model, "2.weight")["2.weight"] is None
        model[2].weight.requires_grad_(True)
        model[2].weight = nn.Parameter(model[2].weight.detach().clone())
        model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
        are(model, sums, *every)
        are(copy.deepcopy(model), sums, *every)
    # An optimizer's step in a hook sees the sum, also if the sums might have waited.
    seen = []
    with sequence_parallel(model):
        model[2].weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
        are(model, sums, *every)
    is_close(seen[0], sums["2.weight"])
    # A pass that fails leaves nothing to the next one.
    with sequence_parallel(model):
        model[0].before.weight.register_hook(lambda grad: 1 / len(failing))
        failing = []
        with pytest.raises(ZeroDivisionError):
            grads_of(model)
        failing = [1]
        model[0].before.weight._backward_hooks.popitem()
        are(model, sums, *every)
    for wrong, message in (
        ([nn.Linear(2, 2)], "parameters: expected modules of `module`, got"),
        ([nn.Parameter(torch.ones(2))], "parameters: expected parameters of `module`, got another"),
        ([model[0].first.weight], "parameters: expected none of iris_c's layers"),
    ):
        with pytest.raises(ValueError, match=message):
            sequence_parallel(model, wrong)
    with pytest.raises(TypeError, match="parameters: expected modules and parameters"):
        sequence_parallel(model, ["0.scale"])
    with pytest.raises(TypeError, match=r"module: expected an nn\.Module, got list"):
        sequence_parallel([model])
    with pytest.raises(TypeError, match="batch: expected a bool or None, got int"):
        sequence_parallel(model, batch=1)
    with pytest.raises(ValueError, match="group: expected the name of a context"):
        sequence_parallel(model, ctx="unknown")


def _data_parallel(rank, wrapped_by):
    """Two ranks of tensors, and two of data beside them, whose gradients are averaged."""
    mesh = dist.init_device_mesh(DEVICE, (2, 2), mesh_dim_names=("dp", "tp"))
    dp = mesh["dp"].get_local_rank()
    with iris_c.torch.init(mesh["tp"], 16 << 20, name="tp") as ctx:
        whole = whole_model()
        model = parallel_model(whole, ctx)
        if wrapped_by == "ddp":
            from torch.distributed.tensor.parallel.ddp import _pre_dp_module_transform

            sequence_parallel(model, ctx=ctx)
            _pre_dp_module_transform(model)  # DDP knows no DTensors, which the layers have
            run = nn.parallel.DistributedDataParallel(model, process_group=mesh["dp"].get_group())
        else:
            from torch.distributed.fsdp import fully_shard

            if wrapped_by == "fsdp2 before":
                sequence_parallel(model, ctx=ctx)
            for module in (*model[:2], model):
                fully_shard(module, mesh=mesh["dp"])
            if wrapped_by == "fsdp2 after":
                sequence_parallel(model, ctx=ctx)
            run = model
        for turn in range(2):  # the second one's are added
            for other in range(2):
                number(whole, *batch_of(2 * turn + other)).backward()
            x, weights = batch_of(2 * turn + dp)
            number(run, part(x, ctx), part(weights, ctx)).backward()
        expected = {name: p.grad / 2 for name, p in whole.named_parameters()}
        for name, p in model.named_parameters():
            grad = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
            if grad.shape != expected[name].shape:
                expected[name] = own(name, expected[name], ctx)
            is_close(grad, expected[name], f"{wrapped_by} {name}")
        ctx.barrier()


_data_parallel = distributed(_data_parallel)


@starts_ranks
@pytest.mark.parametrize("wrapped_by", ["ddp", "fsdp2 before", "fsdp2 after"])
def test_with_data_parallelism(wrapped_by, tmp_path):
    run_ranks((__name__, "_data_parallel"), 4, str(tmp_path / "store"), wrapped_by)
