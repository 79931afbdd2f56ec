# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Contexts of torch.distributed's ranks, of its subgroups and of device meshes."""

import os

import pytest
import torch
import torch.distributed as dist

import iris_c.torch
from iris_c.testing import run_ranks
from iris_c.torch import _groups

BACKEND = os.environ.get("IRIS_C_BACKEND", "cpu")
pytestmark = pytest.mark.skipif(
    BACKEND != "cpu" or os.environ.get("IRIS_C_TEST_TORCHRUN") == "1",
    reason="starts ranks of its own, on the cpu",
)
HEAP = 16 << 20


def distributed(body):
    """Runs it between the beginning and the end of torch.distributed, by gloo."""

    def run(store):
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world)
        try:
            body(rank)
            dist.barrier()
        finally:
            dist.destroy_process_group()

    return run


def summed(ctx, value):
    return int(iris_c.torch.all_reduce(torch.full((5,), float(value)), ctx=ctx)[0])


@distributed
def _whole_world(rank):
    with iris_c.torch.init(heap_size=HEAP) as ctx:
        assert (ctx.rank, ctx.world_size) == (rank, 3)
        assert summed(None, rank + 1) == 6
        ctx.barrier()


@distributed
def _two_groups(rank):
    """Side by side, their ranks in another order than the world's."""
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    with iris_c.torch.init(groups[rank % 2], HEAP, name="tp") as ctx:
        assert (ctx.rank, ctx.world_size) == (rank // 2, 2)
        assert summed("tp", 10**rank) == (101 if rank % 2 == 0 else 1010)
        ctx.barrier()


@distributed
def _mesh(rank):
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    with pytest.raises(ValueError, match="expected a DeviceMesh of one dimension"):
        iris_c.torch.init(mesh, HEAP)
    with iris_c.torch.init(mesh["tp"], HEAP) as ctx:
        assert (ctx.rank, ctx.world_size) == (rank % 2, 2)
        assert summed(ctx, 10**rank) == (11 if rank < 2 else 1100)
        total = torch.full((1,), float(summed(ctx, 1)))
        dist.all_reduce(total, group=mesh["dp"].get_group())  # the other axis is torch's
        assert total == 4
        ctx.barrier()


@distributed
def _several_nodes(rank):
    _groups.socket.gethostname = lambda: f"node{rank}"
    with pytest.raises(ValueError, match="expected ranks of one node, got some of 2"):
        iris_c.torch.init(heap_size=HEAP)


@pytest.mark.parametrize(
    ("body", "world_size"),
    [("_whole_world", 3), ("_two_groups", 4), ("_mesh", 4), ("_several_nodes", 2)],
)
def test_init(body, world_size, tmp_path):
    run_ranks((__name__, body), world_size, str(tmp_path / "store"))


def test_without_torch_distributed():
    with iris_c.torch.init(heap_size=HEAP) as ctx:
        assert ctx.world_size == 1
        assert summed(None, 4) == 4
    with pytest.raises(ValueError, match="expected None without"):
        iris_c.torch.init(object())
