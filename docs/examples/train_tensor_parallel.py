# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Trains a small transformer with tensor-parallel layers on iris_c.

    torchrun --nproc-per-node 2 docs/examples/train_tensor_parallel.py
    python docs/examples/train_tensor_parallel.py              # the same training in one process

Every rank holds half (a W-th) of each layer's heads and hidden units. The projections into a layer
are column-parallel and need no communication; the projections out of it are row-parallel, and
their product and its sum over ranks are one call of `matmul_all_reduce`. Embeddings, norms and the
output layer are replicated; they see equal numbers on all ranks, so they stay equal.

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
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import iris_c

# ---- the two parallel layers: all there is to know about iris_c here ----


class RowParallelProduct(torch.autograd.Function):
    """y = sum over ranks of x_r @ w_r^T; x (tokens, in / W), w (out, in / W), y (tokens, out)."""

    @staticmethod
    def forward(autograd, ctx, x, w):
        autograd.save_for_backward(x, w)
        y = ctx.empty(x.shape[0], w.shape[0], dtype=x.dtype)  # in the heap: peers write into it
        ctx.ops.matmul_all_reduce(y, x, w.t())
        return y

    @staticmethod
    def backward(autograd, grad_y):
        x, w = autograd.saved_tensors
        return None, grad_y @ w, grad_y.t() @ x  # y is the same on all ranks, so nothing to add up


class EnterParallelRegion(torch.autograd.Function):
    """The identity; its gradient is the sum of what the ranks' slices of the layer send back."""

    @staticmethod
    def forward(autograd, ctx, x):
        autograd.ctx = ctx
        return x.view_as(x)

    @staticmethod
    def backward(autograd, grad):
        total = torch.empty_like(grad, memory_format=torch.contiguous_format)
        autograd.ctx.ccl.all_reduce(total, grad.contiguous())
        return None, total


def slice_of(weight: torch.Tensor, dim: int, ctx) -> nn.Parameter:
    """This rank's part of a weight that is split along ``dim``."""
    return nn.Parameter(weight.chunk(ctx.world_size, dim)[ctx.rank].clone())


class ColumnParallel(nn.Module):
    """(tokens, in) -> (tokens, out / W): this rank's rows of the weight."""

    def __init__(self, ctx, weight):
        super().__init__()
        self.ctx, self.weight = ctx, slice_of(weight, 0, ctx)

    def forward(self, x):
        return EnterParallelRegion.apply(self.ctx, x) @ self.weight.t()


class RowParallel(nn.Module):
    """(tokens, in / W) -> (tokens, out), summed over the ranks: this rank's columns."""

    def __init__(self, ctx, weight):
        super().__init__()
        self.ctx, self.weight = ctx, slice_of(weight, 1, ctx)

    def forward(self, x):
        return RowParallelProduct.apply(self.ctx, x, self.weight)


# ---- an ordinary small transformer built of them ----


def full_weight(out_features: int, in_features: int, scale: float = 1.0) -> torch.Tensor:
    """Drawn whole on every rank from the common seed, so that slices fit together."""
    return torch.randn(out_features, in_features) * scale / in_features**0.5


class Block(nn.Module):
    def __init__(self, ctx, width: int, heads: int):
        super().__init__()
        self.heads = heads // ctx.world_size  # of this rank
        self.norm_attention = nn.LayerNorm(width)
        self.query = ColumnParallel(ctx, full_weight(width, width))
        self.key = ColumnParallel(ctx, full_weight(width, width))
        self.value = ColumnParallel(ctx, full_weight(width, width))
        self.attention_out = RowParallel(ctx, full_weight(width, width, 0.5))
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = ColumnParallel(ctx, full_weight(4 * width, width))
        self.mlp_out = RowParallel(ctx, full_weight(width, 4 * width, 0.5))

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


def train(ctx, options) -> list[float]:
    torch.manual_seed(options.seed)
    model = LanguageModel(ctx, options.width, options.heads, options.layers, options.time)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, eps=1e-5)
    data = batches(standard_library_text(), options.batch, options.time, options.seed)
    losses = []
    progress = tqdm(range(options.steps), disable=ctx.rank != 0, desc=f"{ctx.world_size} ranks")
    for _ in progress:
        text, following = next(data)
        loss = F.cross_entropy(model(text), following)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
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
    arguments.add_argument("--lr", type=float, default=2e-3)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    options = arguments.parse_args()

    torch.set_num_threads(1)
    with iris_c.init(heap_size=1 << 26) as ctx:
        if options.heads % ctx.world_size != 0:
            raise SystemExit(f"--heads: expected a multiple of {ctx.world_size} ranks")
        losses = train(ctx, options)
        if ctx.rank == 0:
            save(losses, ctx.world_size, options.out)
        ctx.barrier()


if __name__ == "__main__":
    main()
