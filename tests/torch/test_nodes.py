# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Products and collectives over the ranks of several nodes, which processes make believe to be.

test_network.py has nodes that are apart.
"""

import copy
import os

import pytest
import torch
import torch.distributed as dist

import iris_c.torch
from iris_c.testing import run_ranks
from iris_c.torch import _groups, _nodes_collectives, _nodes_products

BACKEND = os.environ.get("IRIS_C_BACKEND", "cpu")
pytestmark = pytest.mark.skipif(
    BACKEND != "cpu" or os.environ.get("IRIS_C_TEST_TORCHRUN") == "1",
    reason="starts ranks of its own, on the cpu",
)
HEAP = 32 << 20
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

# Of each rank its node: in order, dealt in turn, and in no order.
IN_ORDER = (0, 0, 1, 1)
LAYOUTS = {
    "two nodes of two": IN_ORDER,
    "dealt in turn": (0, 1, 0, 1),
    "no order": (0, 1, 1, 0),
    "three nodes of two": (0, 0, 1, 1, 2, 2),
    "two nodes of three": (0, 1, 1, 0, 0, 1),
    "nodes of one": (0, 1, 2),
}


def on_nodes(body):
    """Runs body(nodes, whole) on ranks that believe in the nodes of a layout."""

    def run(store, layout):
        rank, world = int(os.environ["RANK"]), len(layout)
        dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world)
        _groups.socket.gethostname = lambda: f"node{layout[rank]}"
        try:
            with iris_c.torch.init(heap_size=HEAP) as nodes:
                body(nodes)
                nodes.barrier()
            dist.barrier()
        finally:
            dist.destroy_process_group()

    return run


def close(result, expected, what):
    tolerance = TOLERANCE[result.dtype] * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(
        result.float(), expected.float(), rtol=0, atol=tolerance, msg=lambda m: f"{what}: {m}"
    )


def draw(world, seed, dtype, *shape):
    """What all ranks have of a tensor; float32 values that the dtype has."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(world)]


def check_products(nodes, M, N, K, dtype, seed):
    rank, world, fns = nodes.rank, nodes.world_size, iris_c.torch
    A, B = draw(world, seed, dtype, M * world, K), draw(world, seed + 1, dtype, K, N * world)
    what = (M, N, K, dtype)
    total = sum(a.float() @ b.float() for a, b in zip(A, B, strict=True))
    generator = torch.Generator().manual_seed(seed)
    shapes = ((N * world,), (1, N * world), (M * world, 1), (M * world, N * world))
    biases = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    for bias in (None, *biases):
        added = 0 if bias is None else bias.float()
        close(fns.matmul_all_reduce(A[rank], B[rank], bias), total + added, (*what, "all_reduce"))
    for dim in (0, 1):
        mine = total.chunk(world, dim)[rank]
        row = biases[0].chunk(world)[rank] if dim == 1 else biases[0]
        for bias in (None, row):
            share = fns.matmul_reduce_scatter(A[rank], B[rank], bias, dim)
            close(share, mine + (0 if bias is None else bias.float()), (*what, "scatter", dim))
    shards = [a[:M].contiguous() for a in A]
    joined, b = torch.cat(shards), B[rank]
    for bias in (None, biases[0], biases[3]):
        product, operand = fns.all_gather_matmul(shards[rank], b, bias)
        added = 0 if bias is None else bias.float()
        close(product, joined.float() @ b.float() + added, (*what, "gather"))
        assert torch.equal(operand, joined)
    close(fns.gathered_matmul(shards[rank], b), joined.float() @ b.float(), (*what, "gathered"))
    tall = torch.cat(B, 0)
    product, operand = fns.all_gather_matmul(A[rank], tall, biases[3], gather_dim=1)
    wide = torch.cat(A, 1)
    close(product, wide.float() @ tall.float() + biases[3].float(), (*what, "gather columns"))
    assert torch.equal(operand, wide)
    own = draw(world, seed + 2, dtype, N * world)
    products = [a.float() @ b.float() + o.float() for a, b, o in zip(shards, B, own, strict=True)]
    close(fns.matmul_all_gather(shards[rank], b, own[rank]), torch.cat(products), (*what, "all"))


def check_collectives(nodes):
    rank, world = nodes.rank, nodes.world_size
    for dtype in (torch.float32, torch.bfloat16, torch.int32):
        values = [
            (torch.arange(6 * world) % 5 + r - 2).view(2 * world, 3).to(dtype) for r in range(world)
        ]
        stacked = torch.stack(values)
        for op, expected in (
            ("sum", stacked.sum(0)), ("max", stacked.amax(0)), ("min", stacked.amin(0)),
            ("prod", stacked.prod(0)),
            ("avg", torch.div(stacked.sum(0), world, rounding_mode="trunc")
             if dtype == torch.int32 else stacked.float().mean(0).to(dtype)),
        ):  # fmt: skip
            output = torch.empty_like(values[0])
            nodes.ccl.all_reduce(output, values[rank], op)
            torch.testing.assert_close(output, expected.to(dtype))
            share = torch.empty(2, 3, dtype=dtype)
            nodes.ccl.reduce_scatter(share, values[rank], op)
            torch.testing.assert_close(share, expected.to(dtype).chunk(world)[rank])
        gathered = torch.empty(world * 2 * world, 3, dtype=dtype)
        nodes.ccl.all_gather(gathered, values[rank])
        assert torch.equal(gathered, torch.cat(values))
        # Tensors are of any shape, as a context's ccl takes them.
        stacked_parts = torch.empty(world, 2 * world, 3, dtype=dtype)
        nodes.ccl.all_gather(stacked_parts, values[rank])
        assert torch.equal(stacked_parts, stacked)
        nodes.ccl.reduce_scatter(share, values[rank].view(world, 2, 3))
        torch.testing.assert_close(share, stacked.sum(0).chunk(world)[rank].to(dtype))
        nodes.ccl.all_reduce(output.view(-1), values[rank])
        torch.testing.assert_close(output, stacked.sum(0).to(dtype))
    with pytest.raises(ValueError, match=r"output: expected shape \(\d+, 3\), got \(2, 3\)"):
        nodes.ccl.all_gather(torch.empty(2, 3), torch.empty(2, 3))


@on_nodes
def _everything(nodes):
    assert nodes.world_size == dist.get_world_size()
    check_collectives(nodes)
    # In pieces and in two steps too, as large results go.
    for limits in (None, (64, 64)):
        if limits is not None:
            _nodes_products.PIECE_NBYTES, _nodes_collectives.ONE_STEP_NBYTES = limits
        for number, (M, N, K) in enumerate(((3, 2, 5), (1, 1, 1), (4, 3, 8))):
            dtype = (torch.float32, torch.bfloat16, torch.float16)[number]
            check_products(nodes, M, N, K, dtype, seed=10 * number)
    x = torch.full((1,), float(nodes.rank + 1))
    assert iris_c.torch.all_reduce(x, ctx=nodes) == nodes.world_size * (nodes.world_size + 1) / 2
    with pytest.raises(NotImplementedError, match=r"all_to_all: works among ranks of one node"):
        nodes.ccl.all_to_all(x, x)
    with pytest.raises(ValueError, match=r"B: expected columns in a multiple of world_size"):
        nodes.ops.matmul_reduce_scatter(
            torch.empty(2, 1), torch.ones(2, 2), torch.ones(2, 1), dim=1
        )
    with pytest.raises(ValueError, match=r"C: expected shape \(\d+, 3\), got \(2, 3\)"):
        nodes.ops.matmul_all_gather(torch.empty(2, 3), torch.ones(2, 2), torch.ones(2, 3))


@on_nodes
def _layers(nodes):
    """With and without sequence parallelism, in training: as the whole model."""
    rank, world = nodes.rank, nodes.world_size
    torch.manual_seed(5)
    whole = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.GELU(), torch.nn.Linear(12, 8))
    x, weights = torch.randn(8, 3, 8), torch.randn(8, 3, 8)
    (whole(x) * weights).sum().backward()
    for sequence_parallel in (False, True):
        model = torch.nn.Sequential(
            iris_c.torch.ColumnParallelLinear.from_linear(
                whole[0], ctx=nodes, sequence_parallel=sequence_parallel
            ),
            torch.nn.GELU(),
            iris_c.torch.RowParallelLinear.from_linear(
                whole[2], ctx=nodes, sequence_parallel=sequence_parallel
            ),
        )
        part = (lambda t: t.chunk(world)[rank]) if sequence_parallel else (lambda t: t)
        y = model(part(x))
        torch.testing.assert_close(y, part(whole(x)), rtol=1e-5, atol=1e-5)
        (y * part(weights)).sum().backward()
        for name, dim in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
            expected = whole.get_parameter(name).grad.chunk(world, dim)[rank]
            grad = model.get_parameter(name).grad
            grad = grad.to_local() if hasattr(grad, "to_local") else grad
            torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-5)


def parts_of(tensor, dim, world):
    """As torch.chunk divides, with empty parts for the last ranks."""
    parts = list(tensor.chunk(world, dim)) if tensor.shape[dim] > 0 else []
    return parts + [tensor.narrow(dim, 0, 0)] * (world - len(parts))


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@on_nodes
def _sequences(nodes):
    """Numbers of tokens that the ranks do not divide, and layers of vocabularies."""
    fns, rank, world = iris_c.torch, nodes.rank, nodes.world_size

    def own(tensor, dim):
        return parts_of(tensor, dim, world)[rank]

    def equal(got, expected):
        torch.testing.assert_close(whole(got), expected, rtol=1e-4, atol=1e-4)

    for shape, dim in (((13, 8), 0), ((3, 8), 0), ((0, 8), 0), ((2, 6, 8), 1)):
        torch.manual_seed(3)
        layers = [torch.nn.LayerNorm(8), torch.nn.Linear(8, 13), torch.nn.Linear(13, 8)]
        options = {"sequence_parallel": True, "sequence_dim": dim}
        model = torch.nn.Sequential(
            copy.deepcopy(layers[0]),
            fns.ColumnParallelLinear.from_linear(layers[1], **options),
            fns.RowParallelLinear.from_linear(layers[2], **options),
        )
        fns.sequence_parallel(model)
        x = torch.randn(shape).requires_grad_()
        mine = own(x.detach(), dim).clone().requires_grad_()
        expected, result = torch.nn.Sequential(*layers)(x), model(mine)
        equal(result, own(expected, dim))
        expected.square().sum().backward()
        result.square().sum().backward()
        equal(mine.grad, own(x.grad, dim))
        for got, one in zip(
            model.parameters(), torch.nn.Sequential(*layers).parameters(), strict=True
        ):
            equal(got.grad, one.grad)
    table, head = torch.nn.Embedding(97, 8), torch.nn.Linear(8, 97, bias=False)
    head.weight = table.weight
    rows = fns.VocabParallelEmbedding.from_embedding(table, sequence_parallel=True)
    columns = fns.ColumnParallelLinear.from_linear(head, sequence_parallel=True)
    columns.weight = rows.weight
    ids, target = torch.randint(97, (2, 7))
    loss = fns.vocab_parallel_cross_entropy(columns(rows(ids)), target)
    expected = torch.nn.functional.cross_entropy(head(table(ids)), target)
    equal(loss, expected)
    loss.backward()
    expected.backward()
    equal(rows.weight.grad, table.weight.grad)
    gathering = fns.ColumnParallelLinear.from_linear(layers[1], gather_output=True)
    equal(gathering(torch.ones(3, 8)), layers[1](torch.ones(3, 8)))


def test_sequences_of_any_length(tmp_path):
    layout = LAYOUTS["dealt in turn"]
    run_ranks((__name__, "_sequences"), 4, str(tmp_path / "store"), layout, deadline=120)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_products_and_collectives(layout, tmp_path):
    run_ranks((__name__, "_everything"), len(layout), str(tmp_path / "store"), layout)


def test_layers(tmp_path):
    run_ranks((__name__, "_layers"), 4, str(tmp_path / "store"), IN_ORDER)
