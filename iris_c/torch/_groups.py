# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Contexts by name, which stand for them in the operations' schemas, and how they come from
torch.distributed."""

from __future__ import annotations

import os
import socket
import uuid

import torch.distributed as dist

import iris_c
from iris_c.environment import DEFAULT_TIMEOUT, context_options

__all__ = ["context", "init", "name_of", "register"]

DEFAULT = "default"
_contexts: dict[str, iris_c.Context] = {}


def register(ctx: iris_c.Context, name: str = DEFAULT) -> iris_c.Context:
    """Let operations and layers find `ctx` by `name`, in place of what had the name before.

    Parameters
    ----------
    ctx : Context
    name : str
        'default' is what is taken where no context is given.

    Returns
    -------
    Context
        The same.
    """
    if not isinstance(ctx, iris_c.Context):
        raise TypeError(f"ctx: expected an iris_c.Context, got {type(ctx).__name__}")
    _contexts[name] = ctx
    return ctx


def context(name: str) -> iris_c.Context:
    """The context of that name."""
    try:
        return _contexts[name]
    except KeyError:
        known = ", ".join(repr(known) for known in _contexts) or "none"
        raise ValueError(
            f"group: expected the name of a context (known: {known}), got {name!r}; call "
            "iris_c.torch.init or iris_c.torch.register first"
        ) from None


def name_of(ctx) -> str:
    """The name of a context, given as such, by name, or as None for the default. One without a
    name gets one."""
    if ctx is None:
        return DEFAULT
    if isinstance(ctx, str):
        return ctx
    for name, known in _contexts.items():
        if known is ctx:
            return name
    name = f"context {len(_contexts)}"
    register(ctx, name)
    return name


def _process_group(group):
    """A process group, also of a DeviceMesh of one dimension."""
    if group is None or isinstance(group, dist.ProcessGroup):
        return group
    if hasattr(group, "get_group") and hasattr(group, "ndim"):
        if group.ndim != 1:
            raise ValueError(
                f"process_group: expected a DeviceMesh of one dimension, as mesh['tp'], got one of "
                f"{group.ndim}"
            )
        return group.get_group()
    raise TypeError(
        f"process_group: expected a ProcessGroup, a DeviceMesh or None, got {type(group).__name__}"
    )


def init(
    process_group=None,
    heap_size: int = 1 << 30,
    *,
    name: str = DEFAULT,
    backend: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> iris_c.Context:
    """Meet the other ranks, map the symmetric heap and register the context. Collective.

    Parameters
    ----------
    process_group : torch.distributed.ProcessGroup, DeviceMesh or None
        The ranks, all of one node: a tensor-parallel group, say, or the one-dimensional mesh of
        one. None: all of torch.distributed where it is initialised, else torchrun's.
    heap_size : int
        Bytes of the symmetric heap, equal on all ranks.
    name : str
        What operations find the context by; 'default' need not be said.
    backend : str or None
        'cpu', 'cuda' or 'hip'; None chooses what is present.
    timeout : float
        Seconds, for meeting and for every later wait.

    Returns
    -------
    Context

    Raises
    ------
    ValueError
        The group's ranks are on several nodes, or as iris_c.init.
    """
    if not (dist.is_available() and dist.is_initialized()):
        if process_group is not None:
            raise ValueError("process_group: expected None without torch.distributed initialised")
        return register(iris_c.init(heap_size, backend, timeout=timeout), name)
    group = _process_group(process_group)
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    # A name that only these ranks share, whatever the environment says, and where they are.
    token = uuid.uuid4().hex
    everybody = [None] * world_size
    dist.all_gather_object(everybody, (token, socket.gethostname()), group=group)
    nodes = {node for _, node in everybody}
    if len(nodes) > 1:
        raise ValueError(
            f"process_group: expected ranks of one node, got some of {len(nodes)}: "
            f"{', '.join(sorted(nodes))}"
        )
    options = context_options(heap_size, backend, rank, world_size, timeout, dict(os.environ))
    options["run_key"] = f"torch/{everybody[0][0]}"
    return register(iris_c.Context(**options), name)
