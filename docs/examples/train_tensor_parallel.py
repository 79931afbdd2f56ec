# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Trains a small transformer with tensor-parallel layers, and data-parallel beside them.

    torchrun --nproc-per-node 2 docs/examples/train_tensor_parallel.py
    torchrun --nproc-per-node 4 docs/examples/train_tensor_parallel.py --tensor-parallel 2
    python docs/examples/train_tensor_parallel.py              # the same training in one process

The ranks are a mesh of data-parallel rows and tensor-parallel columns. In a column every rank holds
a part of each layer's heads and hidden units: the projections into a layer are column-parallel, the
projections out of it row-parallel, whose product and sum over ranks are one call of iris_c.
Embeddings, norms and the output layer are replicated. Along a row, ranks with equal parts see other
text and average their gradients by torch.distributed. On GPUs each rank takes its own.

The text is the Python standard library's own source. The losses go to losses.json, the curve to
loss.png; with equal seeds they do not depend on the number of ranks, up to rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sysconfig

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: ranks share the machine's cores

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from tqdm import tqdm

import iris_c.torch
from iris_c.torch import ColumnParallelLinear, RowParallelLinear

# ---- a small transformer, ordinary but for the kind of its linear layers ----


class Block(nn.Module):
    def __init__(self, ctx, width: int, heads: int):
        super().__init__()
        self.heads = heads // ctx.world_size  # of this rank
        self.norm_attention = nn.LayerNorm(width)
        self.query = ColumnParallelLinear(width, width, bias=False, ctx=ctx)
        self.key = ColumnParallelLinear(width, width, bias=False, ctx=ctx)
        self.value = ColumnParallelLinear(width, width, bias=False, ctx=ctx)
        self.attention_out = RowParallelLinear(width, width, ctx=ctx)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = ColumnParallelLinear(width, 4 * width, ctx=ctx)
        self.mlp_out = RowParallelLinear(4 * width, width, ctx=ctx)

    def attention(self, x, batch: int):
        def by_head(t):  # (batch * time, heads * size) -> (batch, heads, time, size)
            return t.view(batch, x.shape[0] // batch, self.heads, -1).transpose(1, 2)

        q, k, v = by_head(self.query(x)), by_head(self.key(x)), by_head(self.value(x))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.attention_out(mixed.transpose(1, 2).reshape(x.shape[0], -1))

    def forward(self, x, batch: int):
        x = x + self.attention(self.norm_attention(x), batch)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x))))


class LanguageModel(nn.Module):
    """Predicts the next byte. Activations are (batch * time, width)."""

    def __init__(self, ctx, width: int, heads: int, layers: int, time: int):
        super().__init__()
        self.tokens = nn.Embedding(256, width)
        self.positions = nn.Parameter(torch.randn(time, width) * 0.02)
        self.blocks = nn.ModuleList(Block(ctx, width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 256, bias=False)

    def forward(self, text):
        batch = text.shape[0]
        x = (self.tokens(text) + self.positions).flatten(0, 1)
        for block in self.blocks:
            x = block(x, batch)
        return self.output(self.norm(x))


# ---- training ----


def standard_library_text(nbytes: int = 1 << 20) -> torch.Tensor:
    """The sources of the standard library's top-level modules, in order of name."""
    text = b""
    for path in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text += path.read_bytes()
        if len(text) >= nbytes:
            break
    return torch.frombuffer(bytearray(text[:nbytes]), dtype=torch.uint8).long()


def batches(text, batch: int, time: int, seed: int):
    """Endless random windows of the text, the same on all ranks: inputs and next bytes."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(text) - time - 1, (batch,), generator=generator)
        windows = torch.stack([text[s : s + time + 1] for s in starts.tolist()])
        yield windows[:, :-1], windows[:, 1:].flatten()


def average(parameters, group) -> None:
    """Of the gradients, over the ranks that have the same parameters."""
    for parameter in parameters:
        grad = parameter.grad
        if isinstance(grad, DTensor):  # a parallel layer's, of which this is the rank's part
            grad = grad.to_local()
        dist.all_reduce(grad, dist.ReduceOp.SUM, group)
        grad /= dist.get_world_size(group)


def train(ctx, options, replicas=None) -> list[float]:
    """`replicas`: the process group of the ranks with the same parameters, if there are others."""
    count, index = (replicas.size(), replicas.rank()) if replicas else (1, 0)
    torch.manual_seed(options.seed)
    model = LanguageModel(ctx, options.width, options.heads, options.layers, options.time)
    model.to(ctx.device)
    # Some parameters are DTensors and some are not, which torch's loops over lists refuse.
    parameters = model.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, eps=1e-5, foreach=False)
    data = batches(standard_library_text(), options.batch, options.time, options.seed)
    losses = []
    progress = tqdm(range(options.steps), disable=ctx.rank + index != 0)
    for _ in progress:
        text, following = (part.chunk(count)[index].to(ctx.device) for part in next(data))
        loss = F.cross_entropy(model(text), following)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if replicas:
            average(model.parameters(), replicas)
            dist.all_reduce(loss.data, dist.ReduceOp.SUM, replicas)
        optimizer.step()
        losses.append(loss.item() / count)
        progress.set_postfix(loss=f"{losses[-1]:.4f}")
    return losses


def save(losses: list[float], world_size: int, directory: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "losses.json").write_text(json.dumps(losses))
    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.plot(losses)
    axes.set(xlabel="step", ylabel="loss (nats per byte)", title=f"{world_size} rank(s)")
    axes.grid(alpha=0.3)
    figure.savefig(directory / "loss.png", dpi=120, bbox_inches="tight")
    print(
        f"loss {losses[0]:.4f} -> {losses[-1]:.4f}; wrote losses.json and loss.png to {directory}"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--time", type=int, default=64, help="bytes of context")
    arguments.add_argument("--width", type=int, default=128)
    arguments.add_argument("--heads", type=int, default=4, help="a multiple of the ranks")
    arguments.add_argument("--layers", type=int, default=2)
    arguments.add_argument("--tensor-parallel", type=int, help="ranks of a model; None: all")
    arguments.add_argument("--lr", type=float, default=2e-3)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    options = arguments.parse_args()

    torch.set_num_threads(1)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    columns = options.tensor_parallel or world_size
    if world_size % columns != 0 or options.heads % columns != 0:
        raise SystemExit(f"--tensor-parallel: expected to divide {world_size} ranks and the heads")
    if options.batch % (world_size // columns) != 0:
        raise SystemExit(f"--batch: expected a multiple of {world_size // columns} replicas")
    if world_size == 1:
        with iris_c.torch.init(heap_size=1 << 26) as ctx:
            save(train(ctx, options), 1, options.out)
        return
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    shape = (world_size // columns, columns)
    mesh = dist.init_device_mesh(kind, shape, mesh_dim_names=("data", "tensor"))
    with iris_c.torch.init(mesh["tensor"], heap_size=1 << 26) as ctx:
        replicas = mesh["data"].get_group() if shape[0] > 1 else None
        losses = train(ctx, options, replicas)
        if dist.get_rank() == 0:
            save(losses, world_size, options.out)
        ctx.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
