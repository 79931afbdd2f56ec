# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Programs of torch.distributed that know nothing of iris_c, on its backend: what they train is
what one process with the whole batch does."""

import copy
import functools
import pathlib
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from process_groups import DEVICE, distributed, starts_ranks
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import iris_c.torch.backend  # noqa: F401 - it is the backend's registration
from iris_c.testing import run_ranks

pytestmark = starts_ranks
iris = functools.partial(distributed, backend="iris", timeout=timedelta(seconds=30))
close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 4)
    )


def batch(world, features=12, targets=4):
    generator = torch.Generator(torch.get_default_device()).manual_seed(1)
    rows = 4 * world
    return torch.randn(rows, features, generator=generator), torch.randn(
        rows, targets, generator=generator
    )


def train(module, optimizer, x, y, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x), y).backward()
        optimizer.step()


def alone(world):
    """The parameters that one process gets with all ranks' rows."""
    module = model()
    train(module, torch.optim.SGD(module.parameters(), 0.1), *batch(world))
    return dict(module.named_parameters())


def mine(rank, world):
    return [t.chunk(world)[rank] for t in batch(world)]


@iris
def _data_parallel(rank):
    world = dist.get_world_size()
    expected = alone(world)

    def check(module):
        for name, parameter in module.named_parameters():
            close(parameter, expected[name.removeprefix("module.")])

    # Buckets of one parameter each: several reductions are under way while backward goes on.
    for options in ({"bucket_cap_mb": 1e-4}, {"gradient_as_bucket_view": True},
                    {"static_graph": True}, {"find_unused_parameters": True}):  # fmt: skip
        module = DistributedDataParallel(model(), **options)
        train(module, torch.optim.SGD(module.parameters(), 0.1), *mine(rank, world))
        check(module)
    module = DistributedDataParallel(model())
    optimizer = ZeroRedundancyOptimizer(module.parameters(), torch.optim.SGD, lr=0.1)
    train(module, optimizer, *mine(rank, world))
    check(module)
    optimizer.consolidate_state_dict(0)
    if rank == 0:
        assert len(optimizer.state_dict()["param_groups"][0]["params"]) == 6
    hooks = (default_hooks.allreduce_hook, 1e-5), (default_hooks.fp16_compress_hook, 1e-2)
    for hook, tolerance in hooks:
        module = DistributedDataParallel(model(), bucket_cap_mb=1e-4)
        module.register_comm_hook(None, hook)
        train(module, torch.optim.SGD(module.parameters(), 0.1), *mine(rank, world))
        for name, parameter in module.module.named_parameters():
            torch.testing.assert_close(parameter, expected[name], rtol=tolerance, atol=tolerance)
    module = DistributedDataParallel(model(), bucket_cap_mb=1e-4)
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=4, start_powerSGD_iter=2,
                                        min_compression_rate=1)  # fmt: skip
    module.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    train(module, torch.optim.SGD(module.parameters(), 0.1), *mine(rank, world), steps=4)
    everybody = [torch.empty(24, 24) for _ in range(world)]
    dist.all_gather(everybody, module.module[2].weight.detach())
    assert all(torch.equal(everybody[0], other) for other in everybody)
    # Ranks with other numbers of batches.
    module = DistributedDataParallel(model())
    with module.join():
        for _ in range(rank + 1):
            module(batch(world)[0]).sum().backward()
    embedding = DistributedDataParallel(nn.Embedding(5, 3, sparse=True))
    embedding(torch.tensor([rank])).sum().backward()
    dense = embedding.module.weight.grad.to_dense()
    assert dense.sum().item() == pytest.approx(3.0)


@iris
def _sharded(rank, folder):
    world = dist.get_world_size()
    expected = alone(world)
    mesh = dist.init_device_mesh(DEVICE, (world,), mesh_dim_names=("dp",))

    def shard(module, **options):
        for layer in module[::2]:
            fully_shard(layer, mesh=mesh, **options)
        return fully_shard(module, mesh=mesh, **options)

    module = shard(model())
    train(module, torch.optim.SGD(module.parameters(), 0.1), *mine(rank, world))
    for name, parameter in module.named_parameters():
        close(parameter.full_tensor(), expected[name])
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, output_dtype=torch.float32)
    rough = shard(model(), mp_policy=policy, reshard_after_forward=False)
    train(rough, torch.optim.SGD(rough.parameters(), 0.1), *mine(rank, world))
    for name, parameter in rough.named_parameters():
        torch.testing.assert_close(parameter.full_tensor(), expected[name], rtol=0.1, atol=0.03)
    # A checkpoint, written by all and read into another division; also in the background.
    dcp.save({"model": module.state_dict()}, checkpoint_id=f"{folder}/sharded")
    whole = {name: torch.zeros_like(p) for name, p in expected.items()}
    dcp.load({"model": whole}, checkpoint_id=f"{folder}/sharded")
    for name, parameter in whole.items():
        close(parameter, expected[name].detach())
    blank = shard(model())
    state = {"model": blank.state_dict()}
    dcp.load(state, checkpoint_id=f"{folder}/sharded")
    for name, parameter in blank.named_parameters():
        close(parameter.full_tensor(), expected[name])
    saving = dcp.async_save(
        {"model": module.state_dict()},
        checkpoint_id=f"{folder}/async",
        process_group=dist.new_group(backend="gloo"),
    )
    train(blank, torch.optim.SGD(blank.parameters(), 0.1), *mine(rank, world), steps=1)
    saving.result()
    dist.barrier()
    assert (pathlib.Path(folder) / "async" / ".metadata").exists()


@iris
def _distributed_tensors(rank):
    world = dist.get_world_size()
    mesh = dist.init_device_mesh(DEVICE, (world // 2, 2), mesh_dim_names=("dp", "tp"))
    generator = torch.Generator(torch.get_default_device()).manual_seed(2)
    for shape in ((8, 8), (7, 5), (1, 3)):
        whole = torch.randn(shape, generator=generator)
        placements = [
            (a, b) for a in (Shard(0), Shard(1), Replicate()) for b in (Shard(0), Replicate())
        ]
        for begin in placements:
            tensor = distribute_tensor(whole, mesh, begin)
            for end in placements:
                assert torch.equal(tensor.redistribute(mesh, end).full_tensor(), whole)
    tp = mesh["tp"]
    partial = DTensor.from_local(torch.full((4, 4), rank % 2 + 1.0), tp, [Partial()])
    for end in (Shard(0), Shard(1), Replicate()):
        assert partial.redistribute(tp, [end]).full_tensor().unique().tolist() == [3]
    highest = DTensor.from_local(torch.full((4,), rank % 2 + 1.0), tp, [Partial("max")])
    assert highest.full_tensor().tolist() == [2] * 4
    A, B = (torch.randn(6, 6, generator=generator) for _ in range(2))
    a, b = distribute_tensor(A, tp, [Shard(1)]), distribute_tensor(B, tp, [Shard(0)])
    close((a @ b).full_tensor(), A @ B)
    close(torch.nn.functional.softmax(a, 1).full_tensor(), torch.softmax(A, 1))
    close(a.std().full_tensor(), A.std())

    # Tensor-parallel by torch's own styles, with sequence parallelism; data-parallel over the rest.
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x):
            return self.down(torch.relu(self.up(self.norm(x))))

    torch.manual_seed(3)
    block = Block()
    reference = copy.deepcopy(block)
    parallelize_module(block, tp, {
        "norm": SequenceParallel(sequence_dim=0),
        "up": ColwiseParallel(input_layouts=Shard(0)),
        "down": RowwiseParallel(output_layouts=Shard(0)),
    })  # fmt: skip
    x = torch.randn(4, 8, generator=generator)
    out = block(x.chunk(2)[rank % 2])
    out.sum().backward()
    reference(x).sum().backward()
    close(torch.cat([out, out])[:2], reference(x).chunk(2)[rank % 2])
    for name, parameter in block.named_parameters():
        close(parameter.grad.full_tensor(), dict(reference.named_parameters())[name].grad)
    twice = parallelize_module(
        copy.deepcopy(reference), tp, {"up": ColwiseParallel(), "down": RowwiseParallel()}
    )
    fully_shard(twice, mesh=mesh["dp"])
    twice(x).sum().backward()
    close(twice.up.weight.grad.full_tensor(), reference.up.weight.grad)
    replicated = distribute_module(nn.Linear(4, 4), tp)
    assert isinstance(replicated.weight, DTensor)


@pytest.mark.parametrize(
    ("body", "world_size"),
    [("_data_parallel", 2), ("_distributed_tensors", 4)],
)
def test_program(body, world_size, tmp_path):
    run_ranks((__name__, body), world_size, str(tmp_path / "store"), deadline=120)


def test_sharded(tmp_path):
    run_ranks((__name__, "_sharded"), 2, str(tmp_path / "store"), str(tmp_path), deadline=120)
