# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Random numbers of tensor-parallel models.

Where all ranks have equal activations they must draw equal numbers: a dropout's mask is one mask.
Where the activations are divided, equal numbers would repeat the mask of one part in each other.
So ranks begin with equal generators (`seed`), and regions of divided activations are marked
(`fork`); in them each rank draws numbers of its own.

The numbers of a region follow from the state of torch's generator where it begins, and from the
rank; the generator then goes on as if it had drawn one number, whatever was drawn within. There is
no other state, but for captured graphs. So what restores torch's generators, as the recomputation
of torch.utils.checkpoint does, or a training run's own checkpoint, has the same numbers again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import torch

import iris_c.torch._gradients  # noqa: F401  (the operations)
from iris_c.torch._groups import Named, context, name_of

__all__ = ["fork", "register_graph", "seed"]

# The groups whose regions this process is in.
_inside: set[str] = set()
# What regions draw from on GPUs, by group and device. A captured graph draws from the very object.
_generators: dict[tuple[str, int], torch.Generator] = {}


def seed(value: int | None = None, *, ctx: Named = None) -> int:
    """Seed torch's generators of all devices, equally on all ranks of a context.

    Ranks that train on different data, as those of a data-parallel dimension, may want different
    values; those of one context need equal ones.

    Parameters
    ----------
    value : int or None
        As torch.manual_seed takes it, equal on all ranks. None: one that rank 0 draws, which is
        collective.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.

    Returns
    -------
    int
        The value.
    """
    group = name_of(ctx)
    own = context(group)
    if value is None:
        drawn = torch.Generator().seed() % (1 << 62) if own.rank == 0 else 0
        sent = torch.tensor(drawn, dtype=torch.int64, device=own.device)
        value = int(torch.ops.iris_c.all_reduce(sent, "sum", group))
    torch.manual_seed(value)
    for (name, _), generator in _generators.items():
        generator.manual_seed(_own_seed(value, context(name).rank))
    return value


@contextlib.contextmanager
def fork(ctx: Named = None, *, enabled: bool = True) -> Iterator[None]:
    """Let this rank draw numbers of its own within a `with` statement.

    It is about torch's default generator of the context's device. Every rank of the context comes
    here with an equal state of it, and leaves with an equal one. A region within a region of the
    same context changes nothing.

    Parameters
    ----------
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.
    enabled : bool
        False: as if the statement were not there.

    Raises
    ------
    RuntimeError
        A graph is captured with which `register_graph` has not been called; raised here, or by
        torch where a number is drawn.
    """
    group = name_of(ctx)
    if not enabled or group in _inside:
        yield
        return
    own = context(group)
    region = _on_cpu(own.rank) if own.backend == "cpu" else _on_gpu(group, own.rank)
    _inside.add(group)
    try:
        with region:
            yield
    finally:
        _inside.discard(group)


def register_graph(graph: Any, ctx: Named = None) -> None:
    """Let a graph that is to be captured have regions of `fork`.

    A replay draws new numbers, as it does with torch's own generator. Those of the regions then
    depend on this rank, the seed and the replays before, not on where the region begins. On the cpu
    there is nothing to do.

    Parameters
    ----------
    graph : torch.cuda.CUDAGraph
        Before its capture begins.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.
    """
    group = name_of(ctx)
    if context(group).backend != "cpu":
        graph.register_generator_state(_generator(group, context(group).rank))


def _own_seed(*parts: int) -> int:
    """A seed that follows from these numbers; other numbers give one that is unlike it."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def _on_cpu(rank: int) -> Iterator[None]:
    generator = torch.default_generator
    with torch._C._DisableTorchDispatch():  # a number, also where tensors are merely traced
        drawn = int(torch.randint(1 << 62, (), generator=generator, device="cpu"))
    state = generator.get_state()
    generator.manual_seed(_own_seed(drawn, rank))
    try:
        yield
    finally:
        generator.set_state(state)


@contextlib.contextmanager
def _on_gpu(group: str, rank: int) -> Iterator[None]:
    """A generator's seed and offset are numbers of the host, so that no device is waited for. While
    a graph is captured neither may be asked for or changed: the region goes on where the generator
    of the last one has stopped."""
    capturing = torch.cuda.is_current_stream_capturing()
    if capturing and (group, _device_index(group)) not in _generators:
        raise RuntimeError(
            "fork: expected register_graph to be called with the graph before its capture begins"
        )
    inner = _generator(group, rank)
    generator = torch.cuda.default_generators[inner.device.index]
    if not capturing:
        offset = generator.get_offset()
        inner.manual_seed(_own_seed(generator.initial_seed(), offset, rank))
        generator.set_offset(offset + 4)  # a draw's least
    outer = generator.graphsafe_get_state()
    generator.graphsafe_set_state(inner)
    try:
        yield
    finally:
        generator.graphsafe_set_state(outer)


def _device_index(group: str) -> int:
    index = torch.device(context(group).device).index
    return torch.cuda.current_device() if index is None else index


def _generator(group: str, rank: int) -> torch.Generator:
    """What the regions of a group draw from on its GPU. A new one cannot be made in a capture."""
    index = _device_index(group)
    if (group, index) not in _generators:
        torch.cuda.init()
        made = torch.Generator(torch.device("cuda", index))
        made.manual_seed(_own_seed(torch.cuda.default_generators[index].initial_seed(), rank))
        _generators[group, index] = made
    return _generators[group, index]
