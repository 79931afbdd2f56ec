# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Contexts of torch.distributed's ranks, of its subgroups and of device meshes."""

import pytest
import torch
import torch.distributed as dist
from process_groups import DEVICE, distributed, starts_ranks

import iris_c.torch
from iris_c.testing import run_ranks
from iris_c.torch import _groups

pytestmark = starts_ranks
HEAP = 16 << 20


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
    mesh = dist.init_device_mesh(DEVICE, (2, 2), mesh_dim_names=("dp", "tp"))
    with pytest.raises(ValueError, match=r"expected a DeviceMesh of one dimension, as mesh\['tp'"):
        iris_c.torch.init(mesh, HEAP)
    with iris_c.torch.init(mesh["tp"], HEAP) as ctx:
        assert (ctx.rank, ctx.world_size) == (rank % 2, 2)
        assert summed(ctx, 10**rank) == (11 if rank < 2 else 1100)
        total = torch.full((1,), float(summed(ctx, 1)))
        dist.all_reduce(total, group=mesh["dp"].get_group())  # the other axis is torch's
        assert total == 4
        ctx.barrier()


@distributed
def _by_group_and_mesh(rank):
    """Operations and layers take ranks as torch.distributed has them; the first use meets them."""
    mesh = dist.init_device_mesh(DEVICE, (2, 2), mesh_dim_names=("dp", "tp"))
    assert summed(mesh["tp"], 10**rank) == (11 if rank < 2 else 1100)
    assert summed(mesh["tp"].get_group(), 10**rank) == (11 if rank < 2 else 1100)
    assert summed(mesh["dp"].get_group(), 10**rank) == (101 if rank % 2 == 0 else 1010)
    tp = _groups.name_of(mesh["tp"])
    assert _groups.process_group(tp).group_name == mesh["tp"].get_group().group_name
    assert _groups.mesh(tp) == mesh["tp"]
    dp = _groups.name_of(mesh["dp"].get_group())
    assert _groups.mesh(dp).mesh.tolist() == ([0, 2] if rank % 2 == 0 else [1, 3])
    with pytest.raises(ValueError, match=r"ctx: expected a DeviceMesh of one dimension"):
        summed(mesh, 1)
    layer = iris_c.torch.ColumnParallelLinear(3, 4, ctx=mesh["tp"])
    assert (layer.weight.shape, layer.weight.to_local().shape) == ((4, 3), (2, 3))
    assert layer.weight.device_mesh == mesh["tp"]
    assert layer.group == tp
    with iris_c.Context(rank=rank, world_size=4, run_key="whole", heap_size=HEAP) as ctx:
        iris_c.torch.register(ctx, "whole")
        assert summed(dist.group.WORLD, 10**rank) == 1111
        assert _groups.name_of(dist.group.WORLD) == "whole"
        with pytest.raises(ValueError, match=r"process_group: expected the context's ranks"):
            iris_c.torch.register(ctx, "other", process_group=mesh["dp"])
        part = ctx.group([0, 1] if rank < 2 else [2, 3])
        iris_c.torch.register(part, "part")
        assert _groups.process_group("part") is None
        assert _groups.mesh("part") is None
        ctx.barrier()
    for name in (tp, dp):
        _groups.context(name).barrier()
        _groups.context(name).close()


def on_nodes(rank, size):
    """Makes believe that `size` ranks at a time share a node."""
    _groups.socket.gethostname = lambda: f"node{rank // size}"


@distributed
def _two_nodes(rank):
    """Sums over four ranks on two nodes, in a form for torch.compile and in layers."""
    on_nodes(rank, 2)
    with iris_c.torch.init(heap_size=HEAP) as nodes:
        assert isinstance(nodes, iris_c.torch.Nodes)
        assert (nodes.rank, nodes.world_size, nodes.ctx.world_size) == (rank, 4, 2)
        generator = torch.Generator(torch.get_default_device()).manual_seed(4)
        for M, N, K in ((5, 3, 8), (1, 7, 4), (8, 6, 12), (0, 3, 8), (5, 0, 8), (5, 3, 0)):
            A, B, bias = (torch.randn(s, generator=generator) for s in ((M, K), (K, N), (N,)))
            own = A.chunk(4, 1)[rank], B.chunk(4, 0)[rank]
            result = iris_c.torch.matmul_all_reduce(*own, bias)
            torch.testing.assert_close(result, A @ B + bias, rtol=1e-5, atol=1e-5)
            compiled = torch.compile(
                iris_c.torch.matmul_all_reduce, fullgraph=True, backend="aot_eager"
            )
            torch.testing.assert_close(compiled(*own, bias), result)
        for count in (0, 1, 7, 1000):
            x = torch.arange(count, dtype=torch.float32) + rank
            assert torch.equal(iris_c.torch.all_reduce(x), 4 * x - 4 * rank + 6)
            assert torch.equal(iris_c.torch.all_reduce(x, "max"), x - rank + 3)
            assert torch.equal(iris_c.torch.all_reduce(x, "avg"), x - rank + 1.5)
        for op, expected in ((dist.ReduceOp.PRODUCT, 24), ("MAX", 4), ("avg", -2)):
            x = torch.tensor([rank + 1 if op != "avg" else -rank - 1], dtype=torch.int32)
            nodes.ccl.all_reduce(x, x.clone(), op)  # -10 / 4 goes towards zero
            assert x.tolist() == [expected]
        with pytest.raises(ValueError, match=r"C: expected shape \(3, 4\), got \(2, 4\)"):
            nodes.ops.matmul_all_reduce(torch.empty(2, 4), torch.ones(3, 5), torch.ones(5, 4))
        with pytest.raises(ValueError, match=r"op: expected 'sum', .* got 'median'"):
            nodes.ccl.all_reduce(x, x.clone(), "median")
        linear = torch.nn.Linear(8, 12, dtype=torch.float32)
        for p in linear.parameters():
            dist.broadcast(p.data, 0)
        column = iris_c.torch.ColumnParallelLinear.from_linear(linear)
        x = torch.randn(3, 8, generator=generator).requires_grad_()
        column(x).sum().backward()
        expected = torch.autograd.grad(linear(x).sum(), x)[0]
        torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-5)
        row = iris_c.torch.RowParallelLinear.from_linear(linear)
        own = x.detach().chunk(4, 1)[rank].clone().requires_grad_()
        first = torch.autograd.grad(row(own).sin().sum(), own, create_graph=True)[0]
        penalty = torch.autograd.grad(first.square().sum(), row.weight)[0]
        whole = torch.autograd.grad(linear(x).sin().sum(), x, create_graph=True)[0]
        expected = torch.autograd.grad(whole.square().sum(), linear.weight)[0]
        torch.testing.assert_close(penalty.full_tensor(), expected, rtol=1e-4, atol=1e-5)
        nodes.barrier()


@distributed
def _a_group_on_two_nodes(rank):
    """Of four ranks, without the last of each node."""
    on_nodes(rank, 3)
    group = dist.new_group([0, 1, 3, 4])
    if rank in (2, 5):
        return
    with iris_c.torch.init(group, HEAP) as nodes:
        assert (nodes.world_size, nodes.ctx.world_size) == (4, 2)
        assert summed(None, 10**rank) == 11011
        nodes.barrier()


@distributed
def _uneven_nodes(rank):
    on_nodes(rank, 2)
    with pytest.raises(ValueError, match="as many ranks on each node, got 2 on node0, 1 on node1"):
        iris_c.torch.init(heap_size=HEAP)


@pytest.mark.parametrize(
    ("body", "world_size"),
    [
        ("_whole_world", 3),
        ("_two_groups", 4),
        ("_mesh", 4),
        ("_by_group_and_mesh", 4),
        ("_two_nodes", 4),
        ("_a_group_on_two_nodes", 6),
        ("_uneven_nodes", 3),
    ],
)
def test_init(body, world_size, tmp_path):
    run_ranks((__name__, body), world_size, str(tmp_path / "store"))


def test_without_torch_distributed():
    with iris_c.torch.init(heap_size=HEAP) as ctx, torch.device(ctx.device):
        assert ctx.world_size == 1
        assert summed(None, 4) == 4
    with pytest.raises(ValueError, match="expected None without"):
        iris_c.torch.init(object())
