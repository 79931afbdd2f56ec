# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Bodies of ranks that need torch.distributed, by gloo or another backend, and a file store. On a
machine with GPUs (IRIS_C_BACKEND=cuda or hip) each rank has one: gloo stands for its memory's
NCCL or RCCL too."""

import functools
import os

import pytest
import torch
import torch.distributed as dist
from descriptors import ON_GPU

import iris_c

# Of the default device of a rank, and so of its meshes.
DEVICE = "cuda" if ON_GPU else "cpu"

# Of a module of tests that start such ranks.
starts_ranks = pytest.mark.skipif(
    os.environ.get("IRIS_C_TEST_TORCHRUN") == "1", reason="starts ranks of its own"
)


def use_gpu(rank: int) -> None:
    """Make the rank's GPU what torch allocates from. Where one rank has none, no rank waits."""
    last, there = int(os.environ["WORLD_SIZE"]) - 1, torch.cuda.device_count()
    if last >= there:
        raise iris_c.BackendError(f"rank {last} has no device, the driver sees {there}")
    torch.cuda.set_device(rank)
    torch.set_default_device(f"cuda:{rank}")


def distributed(body=None, *, backend="gloo", **options):
    """Makes of body(rank, *args) what run_ranks runs with the path of a new file and the args:
    the body, between the beginning and the end of torch.distributed."""
    if body is None:
        return functools.partial(distributed, backend=backend, **options)

    @functools.wraps(body)
    def run(store, *args):
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        place = {"rank": rank, "world_size": world}
        if ON_GPU:
            use_gpu(rank)
        name = "cpu:gloo,cuda:nccl" if ON_GPU and backend == "gloo" else backend
        dist.init_process_group(name, f"file://{store}", **place, **options)
        try:
            body(rank, *args)
            dist.barrier()
        finally:
            dist.destroy_process_group()

    return run
