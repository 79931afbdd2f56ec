# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Layers among torch's tools on 2 x 2 ranks, data-parallel times tensor-parallel: checkpoints,
clipping, optimizers, FSDP2, DistributedDataParallel, copies; against the whole model."""

import copy
import io
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from process_groups import DEVICE, distributed, starts_ranks
from torch import nn
from torch.distributed.checkpoint import state_dict as states
from torch.utils.checkpoint import checkpoint

import iris_c.torch
from iris_c.testing import run_ranks
from iris_c.torch import ColumnParallelLinear, RowParallelLinear

pytestmark = starts_ranks
HEAP, WIDTH, HIDDEN = 16 << 20, 8, 12
FULL = states.StateDictOptions(full_state_dict=True)


def whole_model(hidden=HIDDEN):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(WIDTH, hidden), nn.GELU(), nn.Linear(hidden, WIDTH))


def parallel_model(whole):
    return nn.Sequential(
        ColumnParallelLinear.from_linear(whole[0]),
        nn.GELU(),
        RowParallelLinear.from_linear(whole[2]),
    )


def models(hidden=HIDDEN):
    return whole_model(hidden), parallel_model(whole_model(hidden))


def batch(seed):
    return torch.randn(
        6, WIDTH, generator=torch.Generator(torch.get_default_device()).manual_seed(seed)
    )


def close(got, expected, tolerance=1e-4):
    got = got.full_tensor() if hasattr(got, "full_tensor") else got
    torch.testing.assert_close(got.detach(), expected.detach(), rtol=tolerance, atol=tolerance / 10)


def have_equal(model, whole, what=lambda parameter: parameter):
    for got, expected in zip(model.parameters(), whole.parameters(), strict=True):
        close(what(got), what(expected))


def on_a_mesh(body):
    """body(mesh, ...) where the context 'default' has the ranks of mesh['tp']."""

    @distributed
    def run(rank, *args):
        warnings.simplefilter("ignore")
        shape = (dist.get_world_size() // 2, 2)
        mesh = dist.init_device_mesh(DEVICE, shape, mesh_dim_names=("dp", "tp"))
        with iris_c.torch.init(mesh["tp"], HEAP) as ctx:
            body(mesh, *args)
            ctx.barrier()

    return run


@on_a_mesh
def _optimizers(mesh):
    """And the norm of all gradients, by which every rank scales its own."""
    for kind, options in (
        (torch.optim.AdamW, {}),
        (torch.optim.AdamW, {"foreach": True}),
        (torch.optim.AdamW, {"fused": True}),
        (torch.optim.SGD, {"momentum": 0.9}),
    ):
        whole, model = models(hidden=13)
        optimizers = [kind(m.parameters(), lr=1e-2, **options) for m in (whole, model)]
        for step in range(3):
            norms = []
            for m, optimizer in zip((whole, model), optimizers, strict=True):
                optimizer.zero_grad()
                m(batch(step)).square().sum().backward()
                norms.append(nn.utils.clip_grad_norm_(m.parameters(), 1.0))
                optimizer.step()
            assert norms[0] > 1
            close(norms[1], norms[0])
        have_equal(model, whole)


@on_a_mesh
def _fsdp(mesh):
    """From the meta device; full state dicts out and in."""
    from torch.distributed.fsdp import fully_shard

    whole = whole_model()
    with torch.device("meta"):
        model = nn.Sequential(
            ColumnParallelLinear(WIDTH, HIDDEN), nn.GELU(), RowParallelLinear(HIDDEN, WIDTH)
        )
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh["dp"])
    fully_shard(model, mesh=mesh["dp"])
    model.to_empty(device=DEVICE)
    torch.manual_seed(3)
    model[0].reset_parameters()
    model[2].reset_parameters()

    def holds(expected):
        full = states.get_model_state_dict(model, options=FULL)
        for key, value in expected.state_dict().items():
            close(full[key], value)

    holds(whole)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2) for m in (whole, model)]
    for step in range(2):
        batches = [batch(10 * step + replica) for replica in range(mesh["dp"].size())]
        (sum(whole(x).square().sum() for x in batches) / len(batches)).backward()
        model(batches[mesh["dp"].get_local_rank()]).square().sum().backward()
        norms = [nn.utils.clip_grad_norm_(m.parameters(), 1.0) for m in (whole, model)]
        close(norms[1], norms[0])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    holds(whole)
    other = whole_model()
    states.set_model_state_dict(model, other.state_dict(), options=FULL)
    holds(other)
    model.load_state_dict(whole.state_dict())
    holds(whole)
    broadcast = states.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    given = other.state_dict() if dist.get_rank() == 0 else {}
    states.set_model_state_dict(model, given, options=broadcast)
    holds(other)


@on_a_mesh
def _data_parallel(mesh):
    whole, model = models(hidden=13)
    model[2].bias.requires_grad_(False)
    whole[2].bias.requires_grad_(False)
    run = nn.parallel.DistributedDataParallel(model, device_mesh=mesh["dp"])
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2) for m in (whole, run)]
    for step in range(3):
        batches = [batch(10 * step + replica) for replica in range(mesh["dp"].size())]
        (sum(whole(x).square().sum() for x in batches) / len(batches)).backward()
        run(batches[mesh["dp"].get_local_rank()]).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for key, value in whole.state_dict().items():  # DTensors, though the parameters are none
        close(model.state_dict()[key], value)
    assert not model[2].bias.requires_grad
    assert len(list(model.parameters())) == 4
    assert model[0].weight.part.shape == (13, WIDTH)
    model.load_state_dict(whole_model(hidden=13).state_dict())
    close(model.state_dict()["2.weight"], whole_model(hidden=13)[2].weight)


@on_a_mesh
def _saves(mesh, directory):
    whole, model = models(hidden=13)
    dcp.save(model.state_dict(), checkpoint_id=directory)
    _restores(directory)
    for run in (copy.deepcopy(model), _through_a_file(model)):
        close(run(batch(0)), whole(batch(0)))
        assert type(run[0].weight) is type(model[0].weight)
    for part in (model[0], whole[0]):  # a state is taken whole, in parts and as DTensors
        other = parallel_model(whole_model(hidden=13))
        nn.init.zeros_(other[0].weight)
        other[0].load_state_dict(_through_a_file(part.state_dict()))
        close(other[0].weight, whole[0].weight)
    nn.init.zeros_(other[0].weight)
    other[0].load_state_dict({k: v.to_local() for k, v in model[0].state_dict().items()})
    close(other[0].weight, whole[0].weight)
    message = (
        r"size mismatch for weight: expected the whole parameter, of shape \(13, 8\), or this "
        r"rank's part of it, \(\d, 8\); got shape \(3, 3\)"
    )
    with pytest.raises(RuntimeError, match=message):
        other[0].load_state_dict({"weight": torch.zeros(3, 3)}, strict=False)
    large = nn.Linear(256, 256)
    for parameter in large.parameters():
        dist.broadcast(parameter.data, 0)
    with torch.device("meta"):
        assigned = ColumnParallelLinear(256, 256)
    assigned.load_state_dict(large.state_dict(), assign=True)
    for layer in (assigned, ColumnParallelLinear.from_linear(large)):
        local = layer.weight.to_local()
        assert local.untyped_storage().nbytes() == local.nbytes == 4 * 128 * 256
        close(layer.weight, large.weight)


def _through_a_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _restores(directory):
    """On any ranks, and in a plain model."""
    whole = whole_model(hidden=13)
    model = parallel_model(whole)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    state = model.state_dict()
    dcp.load(state, checkpoint_id=directory)
    have_equal(model, whole)


@on_a_mesh
def _loads(mesh, directory):
    _restores(directory)


@on_a_mesh
def _conversions(mesh):
    whole, model = models()
    assert all(isinstance(model[i], nn.Linear) for i in (0, 2))
    assert (model[0].out_features, model[0].weight.shape) == (HIDDEN, (HIDDEN, WIDTH))
    first = model[0].weight
    model.half().requires_grad_(False)
    assert model[0].weight is first
    assert (first.dtype, first.requires_grad) == (torch.half, False)
    model.float().requires_grad_(True)
    tied = nn.ModuleList([ColumnParallelLinear(WIDTH, WIDTH) for _ in range(2)])
    tied[1].weight = tied[0].weight
    for module in (tied.double(), copy.deepcopy(tied)):
        assert module[0].weight is module[1].weight
    with pytest.raises(ValueError, match=r"weight: expected this rank's part, of shape \(4, 8\)"):
        tied[1].weight = nn.Linear(WIDTH, WIDTH).weight
    with pytest.raises(RuntimeError, match=r"mixed torch\.Tensor and DTensor"):
        nn.functional.linear(batch(0), model[0].weight)
    for reentrant in (False, True):
        whole, model = models()
        x = batch(0).requires_grad_()
        checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
        whole(batch(0)).square().sum().backward()
        have_equal(model, whole, lambda parameter: parameter.grad)
    whole, model = models()
    for run in (whole, model):
        for i in (0, 2):
            nn.utils.parametrize.register_parametrization(run[i], "weight", nn.Tanh())
        run(batch(0)).square().sum().backward()
    have_equal(model, whole, lambda parameter: parameter.grad)
    for run in (whole, model):  # derivatives of gradients
        run.zero_grad()
        grads = torch.autograd.grad(
            run(batch(0)).sin().sum(), list(run.parameters()), create_graph=True
        )
        sum(grad.square().sum() for grad in grads).backward()
    have_equal(model, whole, lambda parameter: parameter.grad)


@on_a_mesh
def _clipping(mesh):
    """Of models whose other parameters are ordinary tensors, or FSDP2's on another mesh, or all
    ordinary ones of DistributedDataParallel."""
    from torch.distributed.fsdp import fully_shard

    for wrap in ("nothing", "fsdp", "ddp"):
        for order in (2.0, 3.0, float("inf")):
            whole, model = (nn.Sequential(nn.LayerNorm(WIDTH), *m) for m in models(hidden=5))
            if wrap == "fsdp":
                fully_shard(model, mesh=mesh["dp"])
            elif wrap == "ddp":
                model = nn.parallel.DistributedDataParallel(model, device_mesh=mesh["dp"])
            for m in (whole, model):
                m(batch(0)).square().sum().backward()
            norm = nn.utils.clip_grad_norm_(whole.parameters(), 0.5, order)
            assert norm > 0.5
            close(iris_c.torch.clip_grad_norm_(model.parameters(), 0.5, order), norm)
            close(iris_c.torch.clip_grad_norm_(model.parameters(), 0.5, order), 0 * norm + 0.5)


@on_a_mesh
def _traced(mesh):
    for dynamic in (None, True):
        whole, model = models(hidden=13)
        run = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        for m in (whole, run):
            m(batch(0)).square().sum().backward()
        have_equal(model, whole, lambda parameter: parameter.grad)
        close(run(batch(1)[:3]), whole(batch(1)[:3]))
    exported = torch.export.export(model.eval(), (batch(0),))
    close(exported.module()(batch(1)), whole(batch(1)))


@pytest.mark.parametrize(
    ("body", "world_size"),
    [
        ("_optimizers", 4),
        ("_fsdp", 4),
        ("_data_parallel", 4),
        ("_clipping", 4),
        ("_conversions", 2),
        ("_traced", 2),
    ],
)
def test_torchs_tools(body, world_size, tmp_path):
    run_ranks((__name__, body), world_size, str(tmp_path / "store"), deadline=240)


def test_checkpoints_go_to_other_numbers_of_ranks(tmp_path):
    """From 2 x 2 ranks to 1 x 2 and to a model in one process."""
    saved = str(tmp_path / "checkpoint")
    run_ranks((__name__, "_saves"), 4, str(tmp_path / "four"), saved, deadline=240)
    run_ranks((__name__, "_loads"), 2, str(tmp_path / "two"), saved, deadline=240)
    whole = whole_model(hidden=13)
    state = {key: torch.zeros_like(value) for key, value in whole.state_dict().items()}
    dcp.load(state, checkpoint_id=saved, no_dist=True)
    for key, value in whole.state_dict().items():
        close(state[key], value)


def _without_mesh(ctx):
    iris_c.torch.register(ctx)
    whole, model = (nn.Sequential(nn.LayerNorm(WIDTH), *m) for m in models(hidden=5))
    for m in (whole, model):
        m(batch(0)).square().sum().backward()
    expected = nn.utils.clip_grad_norm_(whole.parameters(), 0.5)
    close(iris_c.torch.clip_grad_norm_(model.parameters(), 0.5), expected)
    close(model[3].bias.grad, whole[3].bias.grad)
    model[0].weight.grad.fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"parameters: expected a finite norm of gradients"):
        iris_c.torch.clip_grad_norm_(model.parameters(), 0.5, error_if_nonfinite=True)
    with pytest.raises(ValueError, match=r"norm_type: expected more than 0, got 0"):
        iris_c.torch.clip_grad_norm_(model.parameters(), 0.5, 0)
    layer = ColumnParallelLinear(WIDTH, 5)
    for module in (layer, copy.deepcopy(layer), layer.half(), layer.to_empty(device=DEVICE)):
        part = module.weight.part
        assert (part.shape, part.dim) == ((5, WIDTH), 0)
        assert (part.start, part.stop) == ((0, 3) if ctx.rank == 0 else (3, 5))
    layer = RowParallelLinear(WIDTH, WIDTH)
    assert layer.bias.part.dim is None
    nn.utils.parametrizations.weight_norm(layer)
    with pytest.raises(RuntimeError, match="weight: expected a parameter, got a tensor that is"):
        layer(torch.zeros(2, WIDTH // 2))
    whole = nn.Linear(256, 256)
    layer = ColumnParallelLinear.from_linear(nn.Linear(256, 256))
    layer.load_state_dict(whole.state_dict(), assign=True)
    assert layer.weight.untyped_storage().nbytes() == layer.weight.nbytes == 4 * 128 * 256
    assert layer.weight.part.shape == (256, 256)


def test_parts_are_marked_without_torch_distributed():
    run_ranks(_without_mesh, 2, init={"heap_size": HEAP})
