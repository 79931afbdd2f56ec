# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Contexts by name, which stand for them in the operations' schemas, and how they come from
torch.distributed."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import uuid
import weakref
from typing import Any, TypeAlias

import torch.distributed as dist

import iris_c
from iris_c.environment import DEFAULT_TIMEOUT, context_options
from iris_c.torch._nodes import Nodes

__all__ = ["Named", "context", "init", "name_of", "ops", "register"]

DEFAULT = "default"
# How functions and layers are told their context: as such, by name, or as None for the default.
Named: TypeAlias = iris_c.Context | Nodes | str | None
# The open ones. Of the closed ones only the names are left.
_contexts: dict[str, iris_c.Context | Nodes] = {}
_closed: set[str] = set()
# The ops of those that have been asked for them: to bind them takes a part of a small call.
_ops: dict[str, Any] = {}
_numbers = itertools.count()


def register(ctx: iris_c.Context | Nodes, name: str = DEFAULT) -> iris_c.Context | Nodes:
    """Give a context a name, by which operations and layers find it.

    A context that had the name before loses it; one that is closed has none.

    Parameters
    ----------
    ctx : Context or Nodes
    name : str
        Operations and layers without a `ctx` take the context named 'default'.

    Returns
    -------
    Context or Nodes
        `ctx`.
    """
    if not isinstance(ctx, iris_c.Context | Nodes):
        raise TypeError(f"ctx: expected an iris_c.Context, got {type(ctx).__name__}")
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {type(name).__name__}")
    own = ctx.ctx if isinstance(ctx, Nodes) else ctx
    if own.closed:
        raise RuntimeError("ctx: it is closed")
    _contexts[name] = ctx
    _ops.pop(name, None)
    _closed.discard(name)
    own._when_closed(functools.partial(_forget, name, weakref.ref(ctx)))
    return ctx


def _forget(name: str, closed: weakref.ref[iris_c.Context | Nodes]) -> None:
    if name in _contexts and _contexts[name] is closed():
        del _contexts[name]
        _ops.pop(name, None)
        _closed.add(name)


def context(name: str) -> iris_c.Context | Nodes:
    """The context of that name."""
    try:
        return _contexts[name]
    except KeyError:
        if name in _closed:
            raise RuntimeError(f"group: the context named {name!r} is closed") from None
        known = ", ".join(repr(known) for known in _contexts) or "none"
        raise ValueError(
            f"group: expected the name of a context (known: {known}), got {name!r}; call "
            "iris_c.torch.init or iris_c.torch.register first"
        ) from None


def ops(name: str) -> Any:
    """The fused operations of the context of that name, bound to it."""
    try:
        return _ops[name]
    except KeyError:
        bound = _ops[name] = context(name).ops
        return bound


def name_of(ctx: Named) -> str:
    """The name of a context, given as such, by name, or as None for the default. One without a
    name gets one."""
    if ctx is None:
        return DEFAULT
    if isinstance(ctx, str):
        return ctx
    for name, known in _contexts.items():
        if known is ctx:
            return name
    name = f"context {next(_numbers)}"
    register(ctx, name)
    return name


def _process_group(group: Any) -> dist.ProcessGroup | None:
    """A process group, also of a DeviceMesh of one dimension."""
    if group is None or isinstance(group, dist.ProcessGroup):
        return group
    if hasattr(group, "get_group") and hasattr(group, "ndim"):
        if group.ndim != 1:
            names = group.mesh_dim_names or ("tp",)
            raise ValueError(
                f"process_group: expected a DeviceMesh of one dimension, as mesh[{names[-1]!r}], "
                f"got one of {group.ndim}"
            )
        found: dist.ProcessGroup = group.get_group()
        return found
    raise TypeError(
        f"process_group: expected a ProcessGroup, a DeviceMesh or None, got {type(group).__name__}"
    )


def init(
    process_group: Any = None,
    heap_size: int = 1 << 30,
    *,
    name: str = DEFAULT,
    backend: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    local_size: int | None = None,
) -> iris_c.Context | Nodes:
    """Meet the other ranks, map the symmetric heap and register the context. Collective.

    Parameters
    ----------
    process_group : torch.distributed.ProcessGroup, DeviceMesh or None
        The ranks, as a process group or a one-dimensional mesh. None: all ranks of
        torch.distributed if it is initialised, else those that torchrun started.
    heap_size : int
        Bytes of the symmetric heap, equal on all ranks.
    name : str
        The name by which operations and layers find the context; see `register`.
    backend : str or None
    timeout : float
    local_size : int or None
        As in `iris_c.init`.

    Returns
    -------
    Context or Nodes
        Nodes if the ranks are on several nodes; torch.distributed then carries sums between nodes.

    Raises
    ------
    ValueError
        The nodes have different numbers of ranks; or what `iris_c.init` raises it for.
    """
    if not (dist.is_available() and dist.is_initialized()):
        if process_group is not None:
            raise ValueError("process_group: expected None without torch.distributed initialised")
        return register(
            iris_c.init(heap_size, backend, timeout=timeout, local_size=local_size), name
        )
    group = _process_group(process_group)
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    # A name that only a node's ranks share, whatever the environment says.
    here = (uuid.uuid4().hex, socket.gethostname())
    everybody = [here] * world_size
    dist.all_gather_object(everybody, here, group=group)
    members: dict[str, list[int]] = {}
    for member, (_, node) in enumerate(everybody):
        members.setdefault(node, []).append(member)
    own = members[here[1]]
    options = context_options(
        heap_size, backend, own.index(rank), len(own), timeout, dict(os.environ), local_size
    )
    options["run_key"] = f"torch/{everybody[own[0]][0]}"
    options["source"] = "torch.distributed"
    if len(members) == 1:
        return register(iris_c.Context(**options), name)
    if len({len(ranks) for ranks in members.values()}) > 1:
        raise ValueError(
            "process_group: expected as many ranks on each node, got "
            + ", ".join(f"{len(ranks)} on {node}" for node, ranks in sorted(members.items()))
        )
    world_ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
    place = own.index(rank)
    peers = sorted(world_ranks[ranks[place]] for ranks in members.values())
    across = dist.new_group(peers, use_local_synchronization=True)
    return register(Nodes(iris_c.Context(**options), across, rank, world_size), name)
