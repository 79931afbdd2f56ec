# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The torch.distributed backend: every collective beside what the ranks' inputs say it gives."""

import functools
import inspect
import logging
import operator
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from process_groups import DEVICE, distributed, starts_ranks
from torch._C._distributed_c10d import _make_nccl_premul_sum as premul_sum
from torch.distributed import _functional_collectives as functional
from torch.distributed import distributed_c10d as c10d

import iris_c.torch.backend
from iris_c.testing import run_ranks
from iris_c.torch import _groups
from iris_c.torch.backend import Options, options

pytestmark = starts_ranks
iris = functools.partial(distributed, backend="iris", timeout=timedelta(seconds=20))
SMALL = Options(heap_size=8 << 20, local_size=0)  # pieces of 128 KiB

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
COMPLEX = (torch.complex64, torch.complex128)
EVERYTHING = (*FLOATS, *FLOAT8, *INTEGERS, *UNSIGNED, *COMPLEX, torch.bool, torch.complex32)
OPS = {
    dist.ReduceOp.SUM: operator.add,
    dist.ReduceOp.PRODUCT: operator.mul,
    dist.ReduceOp.MAX: max,
    dist.ReduceOp.MIN: min,
    dist.ReduceOp.BAND: operator.and_,
    dist.ReduceOp.BOR: operator.or_,
    dist.ReduceOp.BXOR: operator.xor,
}


def numbers(rank, dtype, count=7, seed=0):
    """Small integers, which all dtypes have and whose sums and products are exact in all."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(100 * seed + rank)
    drawn = torch.randint(0, 3, (count,), generator=generator)
    if dtype is torch.bool:
        return drawn > 0
    if dtype.is_complex:
        return torch.complex(drawn.float(), drawn.flip(0).float()).to(dtype)
    return drawn.to(dtype)


def equal(got, expected):
    """Bitwise, also of dtypes that torch cannot compare."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    as_bytes = [t.contiguous().view(-1) for t in (got, expected)]
    as_bytes = [torch.view_as_real(t) if t.is_complex() else t for t in as_bytes]
    assert torch.equal(*(t.view(torch.uint8) for t in as_bytes)), (got, expected)


def reduced(op, dtype, world, count=7, seed=0):
    """What the ranks' `numbers` give, by Python's own arithmetic."""
    ranks = [numbers(r, dtype, count, seed).to(torch.complex128) for r in range(world)]
    if dtype.is_complex:
        return sum(ranks).to(dtype)
    columns = zip(*(row.real.long().tolist() for row in ranks), strict=True)
    result = torch.tensor([functools.reduce(OPS[op], column) for column in columns])
    return (result > 0 if dtype is torch.bool and op != dist.ReduceOp.BXOR else result).to(dtype)


@iris
def _reductions(rank):
    world = dist.get_world_size()
    for dtype in (*FLOATS, *FLOAT8, *INTEGERS, *UNSIGNED, *COMPLEX[:1], torch.bool):
        for op in OPS:
            bitwise = op in (dist.ReduceOp.BAND, dist.ReduceOp.BOR, dist.ReduceOp.BXOR)
            if (dtype.is_floating_point and bitwise) or (
                dtype.is_complex and op != dist.ReduceOp.SUM
            ):
                with pytest.raises(ValueError, match=r"Cannot use ReduceOp|does not support"):
                    dist.all_reduce(numbers(rank, dtype), op)
                continue
            expected = reduced(op, dtype, world)
            mine = numbers(rank, dtype)
            dist.all_reduce(mine, op)
            equal(mine, expected)
            if dtype.is_complex:
                continue  # torch turns only those of all_reduce into pairs
            mine = numbers(rank, dtype)
            dist.reduce(mine, 1, op)
            equal(mine, expected if rank == 1 else numbers(rank, dtype))
            everything = reduced(op, dtype, world, 5 * world, seed=1)
            out = torch.empty(5, dtype=dtype)
            dist.reduce_scatter_tensor(out, numbers(rank, dtype, 5 * world, seed=1), op)
            equal(out, everything.view(world, 5)[rank])
    for dtype in FLOATS:
        mine = torch.full((5,), 1.5 * (rank + 1), dtype=dtype)
        factor = premul_sum(2.0)
        dist.all_reduce(mine, factor)
        assert mine.tolist() == [1.5 * world * (world + 1)] * 5
        mine = torch.full((5,), rank, dtype=dtype)
        dist.all_reduce(mine, premul_sum(torch.tensor([0.5])))
        assert mine.tolist() == [world * (world - 1) / 4] * 5
        mine = torch.full((5,), rank + 1, dtype=dtype)
        dist.all_reduce(mine, dist.ReduceOp.AVG)
        assert mine.tolist() == [(world + 1) / 2] * 5
    for dtype in INTEGERS:  # towards zero
        mine = torch.full((3,), 5 + rank, dtype=dtype)
        dist.all_reduce(mine, dist.ReduceOp.AVG)
        assert mine.tolist() == [(5 * world + world * (world - 1) // 2) // world] * 3
    for op, expected in ((dist.ReduceOp.MAX, 2**63 + 5), (dist.ReduceOp.MIN, 1)):
        big = torch.tensor([rank or 2**63 + 5], dtype=torch.uint64)
        dist.all_reduce(big, op)
        assert big.tolist() == [expected]
    wrapping = torch.full((2,), 30000, dtype=torch.int16)
    dist.all_reduce(wrapping)
    assert wrapping.tolist() == [(30000 * world + 32768) % 65536 - 32768] * 2
    for bad, dtype in ((dist.ReduceOp.AVG, torch.bool), (dist.ReduceOp.AVG, torch.uint64)):
        with pytest.raises(ValueError, match=r"avg"):
            dist.all_reduce(torch.ones(3, dtype=dtype), bad)
    with pytest.raises(ValueError, match="expected a floating-point dtype for premul_sum"):
        dist.all_reduce(torch.ones(3, dtype=torch.int32), factor)


@iris
def _moves(rank):
    world = dist.get_world_size()
    for seed, dtype in enumerate(EVERYTHING):
        everybody = [numbers(r, dtype, 6, seed) for r in range(world)]
        mine = everybody[rank]
        for src in range(world):
            sent = mine.clone()
            dist.broadcast(sent, src)
            equal(sent, everybody[src])
        into = torch.empty(world * 6, dtype=dtype)
        dist.all_gather_into_tensor(into, mine)
        equal(into, torch.cat(everybody))
        parts = [torch.empty(2, 3, dtype=dtype) for _ in range(world)]
        dist.all_gather(parts, mine.view(2, 3))
        for part, expected in zip(parts, everybody, strict=True):
            equal(part, expected.view(2, 3))
        parts = [torch.empty(6, dtype=dtype) for _ in range(world)] if rank == 1 else None
        dist.gather(mine, parts, 1)
        for part, expected in zip(parts or [], everybody, strict=False):
            equal(part, expected)
        got = torch.empty(6, dtype=dtype)
        dist.scatter(got, everybody if rank == world - 1 else None, world - 1)
        equal(got, mine)
        if dtype is torch.complex32:
            continue
        tables = [numbers(r, dtype, 2 * world, seed + 50) for r in range(world)]
        got = torch.empty(2 * world, dtype=dtype)
        dist.all_to_all_single(got, tables[rank])
        equal(got, torch.cat([t.view(world, 2)[rank] for t in tables]))
    # Rank r sends r + s + 1 rows to s, and as a list tensors of other shapes.
    rows = [[(r + s) % 3 for s in range(world)] for r in range(world)]
    given = [numbers(r, torch.float32, 3 * sum(rows[r])).view(-1, 3) for r in range(world)]
    received = [rows[r][rank] for r in range(world)]
    out = torch.empty(sum(received), 3)
    dist.all_to_all_single(out, given[rank], received, rows[rank])
    expected = [g.split(rows[r])[rank] for r, g in enumerate(given)]
    equal(out, torch.cat(expected))
    outs = [torch.empty(n, 3) for n in received]
    dist.all_to_all(outs, list(given[rank].split(rows[rank])))
    equal(torch.cat(outs), torch.cat(expected))
    with pytest.raises(ValueError, match=r"from rank 0 to rank 1 on both, got 12 sent and 24 rec"):
        got = torch.empty(2 * world if rank == 1 else world, 3)
        dist.all_to_all_single(got, torch.empty(world, 3), [2 if rank == 1 else 1] * world,
                               [1] * world)  # fmt: skip
    # Parts of other sizes on each rank.
    uneven = [torch.empty(r + 1) for r in range(world)]
    dist.all_gather(uneven, torch.full((rank + 1,), float(rank)))
    equal(torch.cat(uneven), torch.cat([torch.full((r + 1,), float(r)) for r in range(world)]))
    out = torch.empty(rank + 1)
    dist.reduce_scatter(out, [torch.full((r + 1,), rank + 10.0 * r) for r in range(world)])
    equal(out, torch.full((rank + 1,), world * (10.0 * rank + (world - 1) / 2)))


@iris
def _shapes(rank):
    """Strides, emptiness, conjugates, aliases; tensors that require grad or are of inference mode;
    more than the heap has room for, in pieces."""
    world = dist.get_world_size()
    total = world * (world + 1) / 2
    strided = torch.zeros(4, 6)
    dist.all_reduce(strided[:, ::2].add_(rank + 1))
    assert strided.sum() == 12 * total
    turned = torch.full((3, 5), float(rank)).t()
    dist.broadcast(turned, 1)
    assert turned.unique().tolist() == [1]
    out = torch.zeros(world, 2, 3).transpose(1, 2)
    dist.all_gather_into_tensor(out, torch.arange(6.0).view(2, 3).t() + rank)
    for r in range(world):
        equal(out[r].contiguous(), torch.arange(6.0).view(2, 3).t().contiguous() + r)
    conjugate = torch.full((3,), complex(rank, 1)).conj()
    dist.group.WORLD.broadcast(conjugate, 2).wait()  # dist.broadcast refuses it
    assert conjugate.tolist() == [complex(2, -1)] * 3
    for empty in (torch.empty(0), torch.empty(3, 0, 2)):
        dist.all_reduce(empty)
        dist.broadcast(empty, 0)
        dist.all_gather_into_tensor(torch.empty(world * 3, *empty.shape[1:])[:0], empty)
        dist.all_to_all_single(torch.empty(0, 3), torch.empty(0, 3), [0] * world, [0] * world)
    own = torch.zeros(world, 5)
    own[rank] = rank
    dist.all_gather_into_tensor(own, own[rank])  # in place
    equal(own, torch.arange(float(world)).view(-1, 1).expand(-1, 5).contiguous())
    ahead = torch.zeros(world * 5 + 1)
    ahead[1:6] = rank
    dist.all_gather_into_tensor(ahead[:-1], ahead[1:6])  # another overlap
    equal(ahead[:-1].view(world, 5), own)
    shared = torch.ones(world, 4) * (rank + 1)
    dist.reduce_scatter_tensor(shared[rank], shared)
    assert shared[rank].unique().tolist() == [total]
    leaf = torch.full((3,), float(rank), requires_grad=True)
    dist.broadcast(leaf, 1)
    assert leaf.tolist() == [1] * 3
    assert leaf.requires_grad
    with torch.inference_mode():
        inference = torch.ones(4)[::2]
        work = dist.all_reduce(inference, async_op=True)
    work.wait()
    assert inference.tolist() == [world] * 2
    with pytest.raises(ValueError, match=r"output: expected 15 elements, as many as input on"):
        dist.group.WORLD.all_gather_single(torch.empty(4), torch.empty(5)).wait()
    group = dist.new_group(pg_options=SMALL)
    count = (4 << 20) + 5
    for op, expected in ((dist.ReduceOp.SUM, total), (dist.ReduceOp.BOR, 3)):
        large = torch.full((count,), rank + 1, dtype=torch.int32)
        dist.all_reduce(large, op, group)
        assert large.unique().tolist() == [expected]
    assert group.iris_context().heap_size == 8 << 20
    each = torch.full(((1 << 20) + 1,), rank, dtype=torch.int32)
    everybody = torch.empty(world * len(each), dtype=torch.int32)
    dist.all_gather_into_tensor(everybody, each, group)
    assert everybody.view(world, -1).unique(dim=1).flatten().tolist() == list(range(world))
    table = torch.arange(world, dtype=torch.int32).repeat_interleave(len(each))
    dist.all_to_all_single(everybody, table, group=group)
    assert everybody.unique().tolist() == [rank]
    dist.reduce_scatter_tensor(each, table, group=group)
    assert each.unique().tolist() == [world * rank]
    dist.reduce(each, 0, group=group)
    dist.broadcast(each, 0, group)
    assert each.unique().tolist() == [world * world * (world - 1) // 2]
    parts = list(everybody.chunk(world)) if rank == 0 else None
    dist.gather(each, parts, 0, group)
    dist.scatter(each, parts, 0, group)
    # As any ranks' heap it may be full for other reasons.
    held = group.iris_context().empty((group.iris_context().heap_size // 2) - (1 << 20),
                                      dtype=torch.uint8)  # fmt: skip
    dist.all_reduce(torch.ones(count), group=group)
    del held


@iris
def _groups_and_names(rank):
    """Subgroups of any ranks, by some alone, split ones, and their contexts in iris_c.torch."""
    if rank < 2:
        alone = dist.new_group([0, 1], use_local_synchronization=True)
        assert dist.get_rank(alone) == rank
        everybody = [None, None]
        dist.all_gather_object(everybody, rank, group=alone)
        assert everybody == [0, 1]
    odd = dist.new_group([3, 1])
    if rank % 2:
        value = torch.full((3,), float(rank))
        dist.all_reduce(value, group=odd)
        assert value.tolist() == [4] * 3
        dist.broadcast(value.fill_(rank), src=3, group=odd)
        assert value.tolist() == [3] * 3
    if "sort_ranks" in inspect.signature(dist.new_group).parameters:  # not in torch 2.11
        unsorted = dist.new_group([2, 0, 3, 1], sort_ranks=False)
        gathered = [torch.empty(1) for _ in range(4)]
        dist.all_gather(gathered, torch.tensor([float(rank)]), group=unsorted)
        assert [t.item() for t in gathered] == [2, 0, 3, 1]
    split = dist.group.WORLD.split_group([1, 2])
    assert (split is None) == (rank not in (1, 2))
    if split is not None:
        split.allreduce(value := torch.tensor([float(rank)])).wait()
        assert value == 3
        split.shutdown()
    ctx = dist.group.WORLD.iris_context()
    assert _groups.context(_groups.name_of(dist.group.WORLD)) is ctx
    assert iris_c.torch.all_reduce(torch.ones(3), ctx=dist.group.WORLD).tolist() == [4] * 3
    mesh = dist.init_device_mesh(DEVICE, (2, 2), mesh_dim_names=("dp", "tp"))
    for _ in range(2):  # the context is found, and made, and later used while a call is under way
        if rank % 2:
            time.sleep(0.3)
        work = dist.all_reduce(torch.ones(1 << 16), group=mesh["tp"].get_group(), async_op=True)
        product = iris_c.torch.matmul_all_reduce(torch.ones(2, 3), torch.ones(3, 2), ctx=mesh["tp"])
        assert product.unique().tolist() == [6]
        work.wait()
    name = _groups.name_of(mesh["tp"])
    assert _groups.mesh(name) == mesh["tp"]
    ctx = _groups.context(name)
    assert ctx is mesh["tp"].get_group().iris_context()
    dist.destroy_process_group(mesh["tp"].get_group())
    assert ctx.closed
    with pytest.raises(RuntimeError, match=r"the context named .* is closed"):
        _groups.context(name)
    with pytest.raises(TypeError, match=r"pg_options: expected iris_c\.torch"):
        dist.new_group(pg_options={})
    with pytest.raises(ValueError, match="heap_size: expected >= 1048576, got 1"):
        Options(heap_size=1)


@iris
def _works(rank):
    """async_op, futures, exceptions; works of several groups; calls of callbacks; coalescing."""
    world = dist.get_world_size()
    other = dist.new_group()
    # In another order on each rank: the groups' calls do not wait for each other.
    pending = {}
    for group in (other, dist.group.WORLD)[:: 1 if rank else -1]:
        pending[group] = torch.ones(1000)
        pending[group] = pending[group], dist.all_reduce(pending[group], group=group, async_op=True)
    for value, work in pending.values():
        assert work.wait()
        assert work.is_completed()
        assert work.is_success()
        assert work.exception() is None
        assert work.result()[0] is value
        assert value.unique().tolist() == [world]
    value = torch.ones(4)
    # What is called back makes a call of the same group itself, and waits for it.
    called = (
        dist.all_reduce(value, async_op=True)
        .get_future()
        .then(lambda done: (dist.all_reduce(done.value()[0]), done.value()[0])[1])
    )
    second = dist.all_reduce(torch.ones(2), async_op=True)
    assert called.wait().unique().tolist() == [world * world]
    second.wait()
    if rank == 1:
        time.sleep(0.3)  # it is called back, on the others, when the second is still in the queue
    first, second = (dist.all_reduce(torch.ones(2), async_op=True) for _ in range(2))
    assert first.get_future().then(lambda _: second.wait()).wait()
    seen = []
    callers = [
        threading.Thread(target=lambda g=g: seen.append(sums_of(g, 20))) for g in (None, other)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert seen == [20 * world] * 2
    bad = dist.group.WORLD.all_gather_single(torch.empty(3), torch.empty(2))
    with pytest.raises(ValueError, match="output: expected"):
        bad.wait()
    assert not bad.is_success()
    assert isinstance(bad.exception(), ValueError)
    with pytest.raises(Exception, match="output: expected"):
        bad.get_future().wait()
    tensors = [torch.full((n,), float(rank)) for n in (3, 0, 5)]
    with c10d._coalescing_manager():
        for tensor in tensors:
            dist.all_reduce(tensor)
    assert [t.sum().item() for t in tensors] == [n * world * (world - 1) / 2 for n in (3, 0, 5)]
    outs = [torch.empty(n * world) for n in (3, 5)]
    with c10d._coalescing_manager(async_ops=True) as manager:
        for out, n in zip(outs, (3, 5), strict=True):
            dist.all_gather_into_tensor(out, torch.full((n,), float(rank)))
    manager.wait()
    assert [out.sum() for out in outs] == [n * world * (world - 1) / 2 for n in (3, 5)]
    shares = [torch.empty(2), torch.empty(1)]
    with c10d._coalescing_manager():
        for share in shares:
            dist.reduce_scatter_tensor(share, torch.ones(world * len(share)))
    assert torch.cat(shares).unique().tolist() == [world]
    with c10d._coalescing_manager(device=torch.device(DEVICE)):
        dist.broadcast(tensors[0].fill_(rank), 1)
    assert tensors[0].unique().tolist() == [1]


def sums_of(group, times):
    value = torch.ones(())
    total = 0.0
    for _ in range(times):
        dist.all_reduce(value.fill_(1), group=group)
        total += value.item()
    return total


@iris
def _functional(rank):
    world = dist.get_world_size()
    group = dist.group.WORLD
    assert functional.all_reduce(torch.ones(3), "sum", group).tolist() == [world] * 3
    gathered = functional.all_gather_tensor(torch.full((2, 1), rank), 1, group)
    assert gathered.tolist() == [list(range(world))] * 2
    shares = functional.reduce_scatter_tensor(torch.ones(world, 2), "sum", 0, group)
    assert shares.tolist() == [[world] * 2]
    rows = functional.all_to_all_single(torch.arange(world), [1] * world, [1] * world, group)
    assert rows.tolist() == [rank] * world
    assert functional.broadcast(torch.tensor([rank]), 1, group).tolist() == [1]
    pair = functional.all_reduce_coalesced([torch.ones(1), torch.ones(2)], "avg", group)
    assert torch.cat(list(pair)).tolist() == [1] * 3
    pair = functional.all_gather_into_tensor_coalesced([torch.ones(1), torch.ones(2)], group)
    assert [t.shape[0] for t in pair] == [world, 2 * world]
    pair = functional.reduce_scatter_tensor_coalesced(
        [torch.ones(world), torch.ones(world)], "sum", [0, 0], group
    )
    assert torch.cat(list(pair)).tolist() == [world] * 2
    compiled = torch.compile(
        lambda t: functional.all_reduce(t * 2, "sum", group) + 1, backend="aot_eager",
        fullgraph=True,
    )  # fmt: skip
    assert compiled(torch.ones(2)).tolist() == [2 * world + 1] * 2


@iris
def _messages_and_objects(rank):
    world = dist.get_world_size()
    right, left = (rank + 1) % world, (rank - 1) % world
    large = torch.full((1 << 18,), float(rank))  # more than waits on the way
    got = torch.empty_like(large)
    requests = [dist.isend(large, right), dist.irecv(got, left)]
    for request in requests:
        request.wait()
    assert got.unique().tolist() == [left]
    batch = [dist.P2POp(dist.irecv, got, left), dist.P2POp(dist.isend, large, right)]
    for request in dist.batch_isend_irecv(batch):
        request.wait()
    if rank == 0:
        sent = [dist.isend(torch.tensor([float(tag)]), 1, tag=tag) for tag in (1, 2)]
        source = dist.recv(value := torch.empty(1))
        assert value == source
        for request in sent:
            request.wait()
    elif rank == 1:
        second, first = torch.empty(1), torch.empty(1)
        dist.recv(second, 0, tag=2)
        dist.recv(first, 0, tag=1)
        assert (first, second) == (1, 2)
    elif rank == 2:
        dist.send(torch.tensor([2.0]), 0)
    everybody = [None] * world
    dist.all_gather_object(everybody, {"rank": rank})
    assert everybody == [{"rank": r} for r in range(world)]
    gathered = [None] * world if rank == 1 else None
    dist.gather_object("x" * rank, gathered, 1)
    assert gathered in (None, ["x" * r for r in range(world)])
    objects = [rank, "a"] if rank == 0 else [None, None]
    dist.broadcast_object_list(objects, 0)
    assert objects == [0, "a"]
    mine = [None]
    dist.scatter_object_list(mine, list(range(world)) if rank == 2 else None, 2)
    assert mine == [rank]
    if rank == 0:
        dist.send_object_list([1, {}], 1)
    elif rank == 1:
        dist.recv_object_list(objects, 0)
        assert objects == [1, {}]


@distributed(backend="cpu:gloo,cuda:iris")
def _other_devices(rank):
    """What goes elsewhere is said: a device's own backend, sparse tensors, several nodes."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("iris_c").addHandler(handler)
    logging.getLogger("iris_c").setLevel(logging.DEBUG)
    value = torch.ones(3)
    dist.all_reduce(value)
    world = dist.get_world_size()
    assert value.tolist() == [world] * 3
    assert records.pop() == "allreduce: by gloo, the backend of cpu tensors"
    group = dist.new_group(backend="iris")
    sparse = torch.eye(3).to_sparse()
    dist.all_reduce(sparse, group=group)
    assert sparse.to_dense().sum() == 3 * world
    assert records.pop() == "allreduce: by gloo, a tensor is sparse or quantized"
    _groups.socket.gethostname = lambda: f"node{rank % 2}"
    group = dist.new_group(backend="iris")
    records.clear()
    dist.all_reduce(value, group=group)
    dist.barrier(group)
    assert value.tolist() == [world * world] * 3
    assert "its ranks are on several nodes, node0, node1; gloo carries out" in records[0]
    assert records[1] == "allreduce: by gloo, the ranks are on several nodes"
    with pytest.raises(RuntimeError, match="ranks have no context in common"):
        group.iris_context()
    with pytest.raises(ValueError, match="expected tensors on cpu or cuda, got meta"):
        dist.all_reduce(torch.ones(3, device="meta"), group=group)


@pytest.mark.parametrize(
    ("body", "world_size"),
    [
        ("_reductions", 3),
        ("_moves", 3),
        ("_shapes", 3),
        ("_groups_and_names", 4),
        ("_works", 3),
        ("_functional", 2),
        ("_messages_and_objects", 3),
        ("_other_devices", 3),
    ],
)
def test_backend(body, world_size, tmp_path):
    run_ranks((__name__, body), world_size, str(tmp_path / "store"))


def test_heap_size(monkeypatch):
    assert Options().heap_size_of(True) == options.WORLD_HEAP_SIZE
    assert Options().heap_size_of(False) == options.GROUP_HEAP_SIZE
    monkeypatch.setenv("IRIS_C_GROUP_HEAP_SIZE", "2097152")
    assert Options().heap_size_of(True) == 2 << 20
    assert Options(heap_size=4 << 20).heap_size_of(True) == 4 << 20
    monkeypatch.setenv("IRIS_C_GROUP_HEAP_SIZE", "7")
    with pytest.raises(ValueError, match="IRIS_C_GROUP_HEAP_SIZE: expected >= 1048576, got 7"):
        Options().heap_size_of(True)
