# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""An embedding that is divided by rows, against torch's: results, gradients, training, state."""

import pytest
import torch
from descriptors import ON_GPU
from process_groups import distributed, starts_ranks
from torch import nn
from torch.utils.checkpoint import checkpoint

import iris_c.torch
from iris_c.testing import ranks, run_ranks
from iris_c.torch import ColumnParallelLinear, VocabParallelEmbedding, vocab_parallel_cross_entropy

WIDTH = 6


def whole_table(size, padding_idx=None, dtype=None):
    torch.manual_seed(3)
    table = nn.Embedding(size, WIDTH, padding_idx, dtype=dtype)
    with torch.no_grad():
        table.weight[0] = float("inf")  # of a row that is not asked for, nothing may be left
    return table


def ids_of(size, *shape):
    """Each of 1 to size - 1 where there is room, and some more than once. On all ranks the same."""
    count = torch.Size(shape).numel()
    drawn = torch.randint(1, size, (count,), generator=torch.Generator().manual_seed(5),
                          device="cpu")  # fmt: skip
    if count >= size:
        drawn[: size - 1] = torch.arange(1, size, device="cpu")
    return torch.empty(shape, dtype=torch.int64).copy_(drawn.view(shape))


def part(tensor, ctx, dim=0):
    return tensor.chunk(ctx.world_size, dim)[ctx.rank]


def own_rows(tensor, ctx):
    """As torch.chunk has them, without rows where it has too few chunks."""
    chunks = tensor.chunk(ctx.world_size)
    return chunks[ctx.rank] if ctx.rank < len(chunks) else tensor[:0]


@ranks(1, 2, 3, 4, deadline=180)
def test_results_and_gradients_are_the_whole_tables(ctx):
    """Of even and uneven parts, parts without rows, padding on each rank, ids of any shape."""
    iris_c.torch.register(ctx)
    sizes = [(12, None), (13, 0), (13, 7), (13, -1), (5, 2), (2, None)]
    for size, padding_idx in sizes:
        for sequence_parallel in (False, True):
            for shape in ((12, 2), (24,), (0,)) if sequence_parallel else ((7, 3), (), (0, 2)):
                whole = whole_table(size, padding_idx)
                table = VocabParallelEmbedding.from_embedding(
                    whole, sequence_parallel=sequence_parallel
                )
                assert isinstance(table, nn.Embedding)
                assert torch.equal(table.weight, own_rows(whole.weight, ctx))
                ids = ids_of(size, *shape)
                if padding_idx is not None and ids.numel() > 1:
                    ids.view(-1)[1] = padding_idx % size or 1
                expected, got = whole(ids), table(ids)
                weights = torch.randn(expected.shape)
                (expected * weights).sum().backward()
                if sequence_parallel:
                    expected, weights = part(expected, ctx), part(weights, ctx)
                what = f"{size}, {padding_idx}, {sequence_parallel}, {shape}"
                assert torch.equal(got, expected), what
                (got * weights).sum().backward()
                torch.testing.assert_close(
                    table.weight.grad, own_rows(whole.weight.grad, ctx), msg=what
                )


@ranks(1, 2, 4, deadline=120)
def test_dtypes_and_derivatives(ctx):
    """Digits are kept, also of 16 bits; a penalty's gradient; ids of int32; recomputation."""
    iris_c.torch.register(ctx)
    ids = ids_of(11, 8, 2)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        whole = whole_table(11, dtype=dtype)
        table = VocabParallelEmbedding.from_embedding(whole)
        assert torch.equal(table(ids.int()), whole(ids))
        assert torch.equal(checkpoint(table, ids, use_reentrant=False), whole(ids))
    whole = nn.Embedding(11, WIDTH)
    with torch.no_grad():
        whole.weight.copy_(torch.arange(11 * WIDTH).view(11, WIDTH) / 10)
    for sequence_parallel in (False, True):
        table = VocabParallelEmbedding.from_embedding(whole, sequence_parallel=sequence_parallel)
        penalties = []
        for run in (whole, table):
            number = run(ids).sin().sum()
            (grad,) = torch.autograd.grad(number, run.weight, create_graph=True)
            penalties.append(torch.autograd.grad(grad.square().sum(), run.weight)[0])
        torch.testing.assert_close(penalties[1], own_rows(penalties[0], ctx))


class Model(nn.Module):
    """Looks up, mixes, and computes logits by the same table."""

    def __init__(self, table, mixer, head, loss):
        super().__init__()
        self.table, self.mixer, self.head, self.loss = table, mixer, head, loss
        head.weight = table.weight

    def forward(self, ids, target):
        logits = self.head(self.mixer(self.table(ids)).tanh())
        return self.loss(logits.flatten(0, 1), target.flatten())


@ranks(2, 3, 4, deadline=120)
def test_training_with_tied_weights_stays_the_whole_models(ctx):
    """Of a vocabulary that is not a multiple, and frequent padding."""
    iris_c.torch.register(ctx)
    torch.manual_seed(1)
    whole = Model(nn.Embedding(29, WIDTH, padding_idx=4), nn.Linear(WIDTH, WIDTH),
                  nn.Linear(WIDTH, 29), nn.functional.cross_entropy)  # fmt: skip
    mixer = nn.Linear(WIDTH, WIDTH)
    mixer.load_state_dict(whole.mixer.state_dict())
    table = VocabParallelEmbedding.from_embedding(whole.table)
    head = ColumnParallelLinear.from_linear(whole.head)
    model = Model(table, mixer, head, vocab_parallel_cross_entropy)
    assert model.head.weight is model.table.weight
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2) for m in (whole, model)]
    for _ in range(5):
        ids, target = torch.randint(29, (2, 3, 8))
        for run, optimizer in zip((whole, model), optimizers, strict=True):
            loss = run(ids, target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(
        model.table.weight, own_rows(whole.table.weight, ctx), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(model.mixer.weight, whole.mixer.weight, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.head.bias, own_rows(whole.head.bias, ctx), atol=1e-4, rtol=0)


@ranks(2, 3)
def test_state_is_taken_whole_or_in_parts(ctx):
    iris_c.torch.register(ctx)
    whole = whole_table(13)
    parts = VocabParallelEmbedding.from_embedding(whole).state_dict()
    table = VocabParallelEmbedding(13, WIDTH)
    for state in (whole.state_dict(), parts):
        nn.init.zeros_(table.weight)
        table.load_state_dict(state)
        assert torch.equal(table.weight, own_rows(whole.weight, ctx))
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        table.load_state_dict({"weight": torch.zeros(12, WIDTH)})


@ranks(2)
def test_how_tables_are_made(ctx):
    iris_c.torch.register(ctx)
    torch.manual_seed(7)
    table = VocabParallelEmbedding(13, WIDTH, padding_idx=-3, dtype=torch.float16)
    torch.manual_seed(7)
    whole = nn.Embedding(13, WIDTH, padding_idx=-3, dtype=torch.float16)
    assert torch.equal(table.weight, part(whole.weight, ctx))
    assert (table.num_embeddings, table.padding_idx) == (13, 10)
    assert "13, 6, padding_idx=10, world_size=2, sequence_parallel=False" in repr(table)
    frozen = VocabParallelEmbedding.from_pretrained(whole.weight.detach(), padding_idx=2)
    assert not frozen.weight.requires_grad
    assert not frozen(ids_of(13, 4)).requires_grad
    assert torch.equal(frozen.weight, part(whole.weight, ctx))
    large = VocabParallelEmbedding(50257, 2, device="meta")
    assert large.rows == (range(25129), range(25129, 50257))[ctx.rank]
    meta = VocabParallelEmbedding(13, WIDTH, device="meta")
    assert meta(torch.zeros(4, dtype=torch.int64, device="meta")).shape == (4, WIDTH)
    meta.to_empty(device=ctx.device).reset_parameters()
    assert meta.weight.isfinite().all()


@ranks(2, deadline=120)
def test_compiles(ctx):
    iris_c.torch.register(ctx)
    whole = whole_table(13, 3)
    ids = ids_of(13, 4, 2)
    for sequence_parallel in (False, True):
        table = VocabParallelEmbedding.from_embedding(whole, sequence_parallel=sequence_parallel)
        compiled = torch.compile(table, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(ids), table(ids))
        grads = [
            torch.autograd.grad(run(ids).sin().sum(), table.weight) for run in (table, compiled)
        ]
        torch.testing.assert_close(*grads)


class Scaled(nn.Embedding):
    """As some models have it."""

    def forward(self, input):
        return 8 * super().forward(input)


@ranks(2, 3)
def test_mistakes_are_named(ctx):
    """On every rank, whichever has the rows; and the context goes on."""
    iris_c.torch.register(ctx)
    table = VocabParallelEmbedding(5, WIDTH)
    # On GPUs what is no id is a device-side assertion, after which the process has no device.
    for wrong in () if ON_GPU else (5, -1, 1 << 40, -(1 << 40)):
        ids = torch.tensor([3, wrong])
        with pytest.raises(IndexError, match=f"input: expected ids from 0 to 4, got .*{wrong}"):
            table(ids)
    for dtype in (torch.bool, torch.uint8, torch.float32):
        with pytest.raises(TypeError, match="input: expected int64 or int32, got torch"):
            table(torch.zeros(3, dtype=dtype))
    divided = VocabParallelEmbedding(5, WIDTH, sequence_parallel=True)
    with pytest.raises(ValueError, match="input: expected 1 or more dimensions with sequence_par"):
        divided(torch.zeros((), dtype=torch.int64))
    for option in ({"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}):
        (name,) = option
        with pytest.raises(ValueError, match=f"{name}: expected .*, since the rows are divided"):
            VocabParallelEmbedding(5, WIDTH, **option)
        with pytest.raises(ValueError, match=f"{name}: expected .*, since the rows are divided"):
            VocabParallelEmbedding.from_embedding(nn.Embedding(5, WIDTH, **option))
    for wrong in (5, -6):
        with pytest.raises(ValueError, match=f"padding_idx: expected None or .* got {wrong}"):
            VocabParallelEmbedding(5, WIDTH, padding_idx=wrong)
    with pytest.raises(TypeError, match=r"embedding: expected .* got Scaled, which has a forward"):
        VocabParallelEmbedding.from_embedding(Scaled(5, WIDTH))
    with pytest.raises(TypeError, match="embedding: expected a whole"):
        VocabParallelEmbedding.from_embedding(table)
    assert table(torch.tensor([0, 4])).shape == (2, WIDTH)


@distributed
def _as_a_dtensor(rank):
    """Where torch.distributed knows the ranks the table is one tensor for all that asks."""
    from torch.distributed.tensor import DTensor, Shard

    with iris_c.torch.init(heap_size=16 << 20) as ctx:
        whole = whole_table(13, 3)
        with torch.no_grad():
            whole.weight[0] = 1.0
        for sequence_parallel in (False, True):
            table = VocabParallelEmbedding.from_embedding(
                whole, sequence_parallel=sequence_parallel
            )
            assert isinstance(table.weight, DTensor)
            assert table.weight.placements == (Shard(0),)
            assert torch.equal(table.weight.full_tensor(), whole.weight)
            ids = ids_of(13, 6, 2)
            whole.zero_grad()
            whole(ids).sin().sum().backward()
            table(ids).sin().sum().backward()
            torch.testing.assert_close(table.weight.grad.full_tensor(), whole.weight.grad)
            norms = [nn.utils.clip_grad_norm_(m.parameters(), 0.1) for m in (whole, table)]
            torch.testing.assert_close(norms[1].full_tensor(), norms[0])
            torch.optim.SGD(table.parameters(), 0.5).step()
            whole_state = {"weight": whole.weight - 0.5 * whole.weight.grad}
            torch.testing.assert_close(table.weight.full_tensor(), whole_state["weight"])
            nn.init.zeros_(table.weight)
            table.load_state_dict(whole_state)
            torch.testing.assert_close(table.weight.full_tensor(), whole_state["weight"])
        assert len(table.rows) == (5, 5, 3)[rank]
        ctx.barrier()


@starts_ranks
def test_tables_are_dtensors(tmp_path):
    run_ranks((__name__, "_as_a_dtensor"), 3, str(tmp_path / "store"), deadline=120)
