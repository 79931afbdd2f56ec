# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Trains on several ranks, data-parallel, and goes on when one of them dies.

    python docs/examples/train_through_failures.py --ranks 4

torchrun, and mpirun, end all processes when one ends, so this program starts its ranks itself. The
last one is killed in the middle of the training. The others get an error from the sum that it does
not come to, make the context of those who are left, agree on the step to go on with, and train on;
the gradient is the mean over whoever is there. Each prints what it sees, and the loss at the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: ranks share the machine's cores

import torch
from torch import nn

import iris_c.torch


def batch(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The step's share of the data for the rank that was `rank` at the start."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    x = torch.randn(16, 4, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]]) + 1


def catch_up(ctx, model: nn.Module, step: int) -> int:
    """Some ranks may have finished a step that others have not: all take the furthest one's
    weights. A real program has its optimizer's state and its data's position here, too."""
    steps = torch.empty(ctx.world_size, dtype=torch.int64)
    ctx.ccl.all_gather(steps, torch.tensor([step]))
    furthest = int(steps.argmax())
    with torch.no_grad():
        for parameter in model.parameters():
            ctx.ccl.broadcast(parameter, src=furthest)
    return int(steps[furthest])


def train_step(ctx, model: nn.Module, step: int) -> float:
    x, y = batch(ctx.ranks[ctx.rank], step)  # ranks: what we were called at the start
    loss = nn.functional.mse_loss(model(x), y)
    model.zero_grad()
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    for gradient in gradients:  # changes nothing of the model: a step is done, or not begun
        ctx.ccl.all_reduce(gradient, gradient.clone(), op="avg")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    return loss.item()


def train(rank: int, options) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(options.ranks), LOCAL_RANK=str(rank))
    ctx = iris_c.torch.init(backend="cpu", heap_size=1 << 24)
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    step, lost = 0, False
    while step < options.steps:
        try:
            if lost:
                ctx = iris_c.torch.register(ctx.survivors())  # layers find it by the old name
                step = catch_up(ctx, model, step)
                lost = False
                print(f"rank {rank} is now {ctx.rank} of {ctx.ranks}, step {step}", flush=True)
            if rank == options.ranks - 1 and step == options.steps // 2:
                os.kill(os.getpid(), signal.SIGKILL)  # the failure
            loss = train_step(ctx, model, step)
            step += 1
        except (iris_c.PeerError, iris_c.SignalTimeout) as error:
            print(f"rank {rank}, step {step}: {error}", flush=True)
            if error.rank == ctx.rank:
                raise  # the others have gone on without this rank
            lost = True
    total = sum(parameter.sum().item() for parameter in model.parameters())
    print(f"rank {rank} is done: loss {loss:.6f}, weights {total:.9f}", flush=True)
    ctx.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    start = multiprocessing.get_context("spawn")
    os.environ["TORCHELASTIC_RUN_ID"] = f"example-{os.getpid()}"
    ranks = [start.Process(target=train, args=(rank, options)) for rank in range(options.ranks)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode != 0 for process in ranks[:-1]):
        raise SystemExit("a rank that was to survive did not")


if __name__ == "__main__":
    main()
