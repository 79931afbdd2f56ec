# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Parts of parameters that are no DTensors, in torch's own hands: norms of all gradients, clipping,
GradScaler, copies, files, checkpoints; against the whole model."""

import copy
import io

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from process_groups import DEVICE
from torch import Tensor, nn

import iris_c.torch
from iris_c.testing import run_ranks
from iris_c.torch import ColumnParallelLinear, KVParallelLinear, RowParallelLinear

HEAP, WIDTH = 16 << 20, 8
ORDERS = (2.0, 1.0, 3.0, float("inf"), float("-inf"), 0.0)


def whole_model(hidden):
    torch.manual_seed(3)
    norm, up, down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, hidden), nn.Linear(hidden, WIDTH)
    return nn.Sequential(norm, up, nn.GELU(), down, nn.Linear(WIDTH, 4))


def parallel_model(whole):
    return nn.Sequential(
        copy.deepcopy(whole[0]),
        ColumnParallelLinear.from_linear(whole[1]),
        nn.GELU(),
        RowParallelLinear.from_linear(whole[3]),
        KVParallelLinear.from_linear(whole[4], heads=1),
    )


def batch():
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    return torch.randn(6, WIDTH, generator=generator)


def find_gradients(ctx, whole, model):
    """All ranks have a copy of the one head's output, of which each takes its share."""
    x = batch()
    whole.zero_grad()
    model.zero_grad()
    whole(x).square().sum().backward()
    (model(x).square().sum() / ctx.world_size).backward()


def close(got, expected):
    torch.testing.assert_close(got.detach(), expected.detach(), rtol=1e-4, atol=1e-5)


def _clips(ctx):
    iris_c.torch.register(ctx)
    clip = nn.utils.clip_grad_norm_
    for hidden in (13, 3, 1):  # parts of different sizes, and empty ones
        whole = whole_model(hidden)
        model = parallel_model(whole)
        for order in ORDERS:
            find_gradients(ctx, whole, model)
            close(clip(model.parameters(), 1e9, order), clip(whole.parameters(), 1e9, order))
        for foreach in (None, True, False):
            find_gradients(ctx, whole, model)
            norms = [clip(m.parameters(), 0.1, foreach=foreach) for m in (whole, model)]
            assert norms[0] > 0.1
            close(norms[1], norms[0])
            close(model[3].bias.grad, whole[3].bias.grad)  # equal on all ranks, scaled alike
            close(model[1].weight.grad, model[1].weight.part.of(whole[1].weight.grad))
        for norm in (torch.norm, Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm):
            close(norm(model[1].weight.grad), norm(whole[1].weight.grad))
        assert type(model[1].weight.grad * 2) is Tensor
    for given in (copy.deepcopy(model), through_a_file(model)):
        find_gradients(ctx, whole, given)
        close(clip(given.parameters(), 0.1), clip(whole.parameters(), 0.1))
    find_gradients(ctx, whole, model)
    twice = copy.deepcopy(model[1].weight.grad)
    close(torch.norm(twice), torch.norm(whole[1].weight.grad))
    with pytest.raises(NotImplementedError, match="p: expected a number or 'fro' for a gradient"):
        torch.norm(model[1].weight.grad, "nuc")


def through_a_file(value, weights_only=False):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


def _trains(ctx):
    """A number that is not finite on one rank is one on all; optimizers take such tensors."""
    iris_c.torch.register(ctx)
    x = batch()
    for options in ({}, {"foreach": True}, {"fused": True}):
        whole = whole_model(13)[:4]
        model = parallel_model(whole_model(13))[:4]
        scalers = [torch.amp.GradScaler(DEVICE, init_scale=4.0) for _ in range(2)]
        optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2, **options) for m in (whole, model)]
        for step in range(3):
            for m, scaler, optimizer in zip((whole, model), scalers, optimizers, strict=True):
                optimizer.zero_grad()
                scaler.scale(m(x).square().sum()).backward()
                if step == 1 and (m is whole or ctx.rank == 1):
                    m[1].weight.grad[0, 0] = float("inf")
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(m.parameters(), 1.0)
                scaler.step(optimizer)
                scaler.update()
            assert scalers[0].get_scale() == scalers[1].get_scale()
            close(model(x), whole(x))
    assert scalers[0].get_scale() == 2.0


def _compiles(ctx):
    iris_c.torch.register(ctx)
    torch.set_default_device(torch.get_default_device())  # torch's compiler has a mode for it
    whole = whole_model(13)[:4]
    model = parallel_model(whole_model(13))[:4]
    x = batch()
    clip = torch.compile(lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.1))
    run = torch.compile(model, fullgraph=True)
    for m in (whole, run):
        m(x).square().sum().backward()
    close(clip(model), nn.utils.clip_grad_norm_(whole.parameters(), 0.1))
    close(model[3].bias.grad, whole[3].bias.grad)


def _stores(ctx, directory):
    iris_c.torch.register(ctx)
    whole = whole_model(13)
    model = parallel_model(whole)[:4]
    whole = whole[:4]
    loaded = through_a_file(model.state_dict(), weights_only=True)
    assert type(loaded["1.weight"]) is Tensor
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    layer = model[1]
    layer.weight = nn.Parameter(layer.weight, requires_grad=False)
    assert isinstance(layer.weight, nn.Parameter)
    assert not layer.weight.requires_grad
    assert layer.weight.part.shape == (13, WIDTH)
    assert not isinstance(layer.weight.detach(), nn.Parameter)
    message = r"expected whole tensors, since torch\.distributed is not initialised, got this rank"
    for state in (model.state_dict(), {"weight": layer.weight}):
        with pytest.raises(dcp.api.CheckpointException, match=message):
            dcp.save(state, checkpoint_id=f"{directory}/{ctx.rank}", no_dist=True)
    row = ColumnParallelLinear(WIDTH, 1)  # all of which one rank has
    nn.utils.parametrize.register_parametrization(row, "weight", nn.Identity())
    with pytest.raises(RuntimeError, match="weight: expected a parameter, got a tensor that is"):
        row(torch.zeros(2, WIDTH))
    # Where it knows the ranks by then, it stores the parts as such.
    store = dist.FileStore(f"{directory}/store", ctx.world_size)
    dist.init_process_group("gloo", store=store, rank=ctx.rank, world_size=ctx.world_size)
    other = ColumnParallelLinear(WIDTH, 13).weight  # a DTensor
    dcp.save(dict(model.named_parameters()), checkpoint_id=f"{directory}/all")
    state = {key: torch.zeros_like(value) for key, value in whole.state_dict().items()}
    dcp.load(state, checkpoint_id=f"{directory}/all")
    for key, value in whole.state_dict().items():
        close(state[key], value)
    assert other.shape == (13, WIDTH)
    normed = nn.utils.parametrizations.weight_norm(RowParallelLinear(WIDTH, WIDTH))
    message = r"weight: expected to be computed from parameters .*original0 as \(_NormPartial"
    with pytest.raises(RuntimeError, match=message):
        normed(torch.zeros(2, WIDTH // 2))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("body", "world"), [(_clips, 2), (_clips, 4), (_trains, 2), (_compiles, 2)]
)
def test_torch_sees_parts_as_parts(body, world):
    run_ranks(body, world, init={"heap_size": HEAP}, deadline=240)


def test_parts_are_stored_as_parts(tmp_path):
    run_ranks(_stores, 2, str(tmp_path), init={"heap_size": HEAP}, deadline=120)
