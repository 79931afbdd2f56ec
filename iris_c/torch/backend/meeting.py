# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""How the ranks of a process group find each other's heaps, and barriers with a time of their own:
what goes through torch.distributed's store."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import Store

import iris_c
from iris_c.environment import context_options
from iris_c.torch.backend.options import Options

__all__ = ["MOST_SECONDS", "arrive", "make_context", "monitored_barrier"]

MOST_SECONDS = 1e9  # that a context may wait


def ranks_text(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def missing(store: Store, keys: Sequence[str], timeout: timedelta) -> list[int]:
    """The ranks whose keys are not in the store when the time has passed."""
    try:
        store.wait(list(keys), timeout)
    except RuntimeError:
        return [rank for rank, key in enumerate(keys) if not store.check([key])]
    return []


def arrive(store: Store, rank: int, size: int, timeout: timedelta) -> None:
    """Wait until all ranks have come to the making of the group. Collective.

    For "cpu:gloo,cuda:iris" torch has made a group of gloo's by then, which it drops at once: it
    must not do so while a peer still connects.
    """
    keys = [f"arrival/{each}" for each in range(size)]
    store.set(keys[rank], "")
    absent = missing(store, keys, timeout)
    if absent:
        raise dist.DistBackendError(
            f"iris: Timed out after {timeout.total_seconds():g} s: {ranks_text(absent)} of {size} "
            "did not come to the making of the process group"
        )


def make_context(
    store: Store,
    rank: int,
    size: int,
    kind: str,
    index: int | None,
    options: Options,
    timeout: timedelta,
    is_world: bool,
) -> iris_c.Context | list[str]:
    """The context of a process group's ranks. Collective.

    Parameters
    ----------
    store : torch.distributed.Store
        Of this group and this kind of device alone.
    kind, index
        "cpu", or "cuda" and the number of this rank's device.

    Returns
    -------
    Context or list of str
        The names of the ranks' nodes, if there are several: then no context can be.
    """
    own = f"{uuid.uuid4().hex} {socket.gethostname()}"
    keys = [f"meeting/{each}" for each in range(size)]
    store.set(keys[rank], own)
    absent = missing(store, keys, timeout)
    if absent:
        raise dist.DistBackendError(
            f"iris: Timed out after {timeout.total_seconds():g} s: {ranks_text(absent)} of {size} "
            f"did not come to the group's first collective of {kind} tensors"
        )
    everybody = [store.get(key).decode().partition(" ") for key in keys]
    nodes = sorted({node for _, _, node in everybody})
    if len(nodes) > 1:
        return nodes
    seconds = min(timeout.total_seconds(), MOST_SECONDS)
    heap_size = options.heap_size_of(is_world)
    arguments = context_options(
        heap_size, None, rank, size, seconds, dict(os.environ), options.local_size
    )
    if kind == "cpu":
        arguments["backend"] = "cpu"
    elif arguments["backend"] in (None, "cpu"):
        arguments["backend"] = gpu_backend()
    if index is not None:
        arguments["local_rank"] = index
    arguments["run_key"] = f"torch/{everybody[0][0]}/{kind}"
    arguments["source"] = "torch.distributed"
    return iris_c.Context(**arguments)


def gpu_backend() -> str:
    import torch

    return "hip" if torch.version.hip else "cuda"


def monitored_barrier(
    store: Store,
    rank: int,
    size: int,
    number: int,
    timeout: timedelta,
    wait_all_ranks: bool = False,
) -> None:
    """A barrier by the store, which tells who has not come. Collective.

    Rank 0 waits for the others, one after the other, and says how it went. Without
    `wait_all_ranks` it names the first that is missing.

    Parameters
    ----------
    number : int
        Of this barrier among those of the store, equal on all ranks.

    Raises
    ------
    torch.distributed.DistBackendError
        On all ranks that have come.
    """
    begun = time.monotonic()
    keys = [f"barrier/{number}/{each}" for each in range(size)]
    verdict = f"barrier/{number}/verdict"
    milliseconds = round(timeout.total_seconds() * 1000)
    if rank != 0:
        store.set(keys[rank], "")
        try:
            # Rank 0 says what it saw when its own time has passed.
            store.wait([verdict], timeout + timedelta(seconds=5))
        except RuntimeError:
            raise dist.DistBackendError(
                f"[Rank {rank}]: rank 0 failed to pass monitoredBarrier in {milliseconds} ms"
            ) from None
        said = store.get(verdict).decode()
    else:
        absent: list[int] = []
        for other in range(1, size):
            left = timeout - timedelta(seconds=time.monotonic() - begun)
            absent += [
                other for _ in missing(store, [keys[other]], max(left, timedelta(milliseconds=1)))
            ]
            if absent and not wait_all_ranks:
                break
        said = (
            f"{ranks_text(absent).capitalize()} failed to pass monitoredBarrier in "
            f"{milliseconds} ms"
            if absent
            else ""
        )
        store.set(verdict, said)
    if said:
        raise dist.DistBackendError(f"[Rank {rank}]: {said}")
