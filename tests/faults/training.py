# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A data-parallel training loop, with random operations in every step, some of whose ranks die."""

import gc
import os
import random
import signal
import threading

import torch
from descriptors import open_descriptors

import iris_c
from iris_c.testing import use_device

# Each takes about half a second; `make survivors` runs a hundred.
ROUNDS = int(os.environ.get("IRIS_C_SURVIVOR_ROUNDS", "12"))

STEPS, MAX_STEPS = 20, 8192
WEIGHTS = 16
RATE = 0.125


def target(rank: int, step: int) -> torch.Tensor:
    """What rank `rank`, by its first number, has to learn in the step."""
    return torch.arange(WEIGHTS) * (rank + 1) / 8.0 + (step * 7 + rank * 3) % 5


def expected(history: list[int]) -> torch.Tensor:
    """The weights after steps that the ranks of `history`, a bit each, took part in."""
    weights = torch.zeros(WEIGHTS, dtype=torch.float64)
    for step, mask in enumerate(history):
        ranks = [rank for rank in range(32) if mask >> rank & 1]
        mean = sum(weights - target(rank, step) for rank in ranks) / len(ranks)
        weights = weights - RATE * mean
    return weights


def disturb(ctx, draw: random.Random) -> None:
    """A random operation, equal on all ranks, whose result is compared."""
    kind = draw.randrange(7)
    world, size = ctx.world_size, draw.choice((1, 30, 5000))
    if kind == 0:
        M, N, K = (draw.randrange(1, 40) for _ in range(3))
        C = ctx.empty(M, N) if draw.random() < 0.5 else torch.empty(M, N)
        ctx.ops.matmul_all_reduce(C, torch.ones(M, K), torch.ones(K, N))
        assert torch.equal(C, torch.full((M, N), float(world * K)))
    elif kind == 1:
        variant = draw.choice(("one_shot", "two_shot", "ring", "atomic", "ll"))
        config = iris_c.ccl.Config(all_reduce_variant=variant)
        total = torch.empty(size)
        ctx.ccl.all_reduce(total, torch.ones(size), config=config)
        assert torch.equal(total, torch.full((size,), float(world)))
    elif kind == 2:
        ctx.barrier()
    elif kind == 3:
        assert ctx.full((size,), 2.0)[0].item() == 2.0
    elif kind == 4:
        got = torch.empty(world, size)
        ctx.ccl.all_gather(got, torch.full((1, size), float(ctx.rank)))
        assert got[:, 0].tolist() == list(range(world))
    elif kind == 5:
        got = torch.empty(world * size)
        ctx.ccl.all_to_all(got, torch.full((world * size,), float(ctx.rank)))
        assert got[::size].tolist() == list(range(world))
    else:
        with ctx.group(range(world)) as group:
            group.barrier()
        ctx._groups.clear()


def catch_up(ctx, step: int, weights: torch.Tensor, history: torch.Tensor):
    """Some may have finished a step that others have not: all take what the furthest has."""
    steps = torch.empty(ctx.world_size, dtype=torch.int64)
    ctx.ccl.all_gather(steps, torch.tensor([step]))
    furthest = int(steps.argmax())
    ctx.ccl.broadcast(weights, src=furthest)
    ctx.ccl.broadcast(history, src=furthest)
    return int(steps[furthest])


def train(ctx, seed: int, survivors_left: int):
    weights, history = torch.zeros(WEIGHTS), torch.zeros(MAX_STEPS, dtype=torch.int64)
    step = 0
    lost = False
    while step < STEPS or ctx.world_size > survivors_left:
        try:
            if lost:
                ctx = ctx.survivors()
                step = catch_up(ctx, step, weights, history)
                lost = False
            disturb(ctx, random.Random(f"{seed} {step} {ctx.world_size}"))
            mean = torch.empty(WEIGHTS)
            gradient = weights - target(ctx.ranks[ctx.rank], step)
            ctx.ccl.all_reduce(mean, gradient, op="avg")
            weights -= RATE * mean
            history[step] = sum(1 << rank for rank in ctx.ranks)
            step += 1
        except iris_c.PeerError:
            lost = True
    return ctx, weights, history[:step].tolist()


def left_behind() -> list[str]:
    """What this process maps or has open of the package's."""
    with open("/proc/self/maps") as file:
        found = [line for line in file if "memfd:iris_c" in line]
    return found + open_descriptors()


def train_through_deaths(seed: int, delays: dict[int, float]):
    before = left_behind()
    ctx = iris_c.init(heap_size=1 << 22, timeout=20.0)
    use_device(ctx)
    ctx.barrier()
    world = ctx.world_size
    if ctx.rank in delays:
        threading.Timer(delays[ctx.rank], os.kill, (os.getpid(), signal.SIGKILL)).start()
    ctx, weights, history = train(ctx, seed, world - len(delays))
    assert ctx.ranks == tuple(rank for rank in range(world) if rank not in delays)
    assert history[-1] == sum(1 << rank for rank in ctx.ranks)
    error = (weights.double() - expected(history)).abs().max().item()
    assert error < 1e-4, (error, history)
    ctx.close()
    del ctx
    gc.collect()
    assert left_behind() == before
    return tuple(weights.tolist())
