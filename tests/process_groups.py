# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Bodies of ranks that need torch.distributed, by gloo or another backend, and a file store."""

import functools
import os

import pytest
import torch.distributed as dist

BACKEND = os.environ.get("IRIS_C_BACKEND", "cpu")
# Of a module of tests that start such ranks.
starts_ranks = pytest.mark.skipif(
    BACKEND != "cpu" or os.environ.get("IRIS_C_TEST_TORCHRUN") == "1",
    reason="starts ranks of its own, on the cpu",
)


def distributed(body=None, *, backend="gloo", **options):
    """Makes of body(rank, *args) what run_ranks runs with the path of a new file and the args:
    the body, between the beginning and the end of torch.distributed."""
    if body is None:
        return functools.partial(distributed, backend=backend, **options)

    @functools.wraps(body)
    def run(store, *args):
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        place = {"rank": rank, "world_size": world}
        dist.init_process_group(backend, f"file://{store}", **place, **options)
        try:
            body(rank, *args)
            dist.barrier()
        finally:
            dist.destroy_process_group()

    return run
