# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Contexts by name, which stand for them in the operations' schemas; how they come from
torch.distributed, and which process group and mesh have the ranks of which context."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import uuid
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

import iris_c
from iris_c.environment import DEFAULT_TIMEOUT, context_options
from iris_c.torch._nodes import Nodes

__all__ = [
    "Named",
    "before_use",
    "context",
    "init",
    "mesh",
    "name_of",
    "name_of_torch_group",
    "ops",
    "process_group",
    "register",
    "registered",
    "torch_group",
    "world_size",
]

DEFAULT = "default"
# How functions and layers are told their context: as such, by name, as None for the default, or
# by the ranks that it has.
Named: TypeAlias = iris_c.Context | Nodes | dist.ProcessGroup | DeviceMesh | str | None


class _Contexts(dict[str, "iris_c.Context | Nodes"]):
    def __missing__(self, name: str) -> iris_c.Context | Nodes:
        return _found(name)


class _Bound(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        bound = context(name).ops
        if name not in _before_use:  # then it is to be missed again
            self[name] = bound
        return bound


# The open ones; what is asked for and not there is looked for. Of the closed ones only the names
# are left.
_contexts = _Contexts()
_closed: set[str] = set()
# The fused operations of those that have been asked for them, bound: to do so, or to call a
# function of Python that did, takes a part of a small call.
ops = _Bound()
# Of contexts whose ranks are known to be those of a process group, and of a mesh.
_process_groups: dict[str, dist.ProcessGroup] = {}
_meshes: dict[str, DeviceMesh] = {}
# What a context's other user has to do before an operation may use it.
_before_use: dict[str, Callable[[], object]] = {}
_numbers = itertools.count()
# What the name of a context begins with that is named after torch.distributed's process group.
_OF_TORCH = "process group "


def register(
    ctx: iris_c.Context | Nodes, name: str = DEFAULT, *, process_group: Any = None
) -> iris_c.Context | Nodes:
    """Give a context a name, by which operations and layers find it.

    A context that had the name before loses it; one that is closed has none.

    Parameters
    ----------
    ctx : Context or Nodes
    name : str
        Operations and layers without a `ctx` take the context named 'default'.
    process_group : torch.distributed.ProcessGroup, DeviceMesh or None
        The same ranks in the same order, for what torch.distributed does among them. None: those
        of the whole world, if the context has as many.

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
    group = _process_group("process_group", process_group)
    if group is not None and _place(group) != (ctx.rank, ctx.world_size):
        raise ValueError(
            "process_group: expected the context's ranks, of which this is {} of {}; there it is "
            "{} of {}".format(ctx.rank, ctx.world_size, *_place(group))
        )
    wait = next((_before_use.get(other) for other in _contexts if _contexts[other] is ctx), None)
    _drop(name)
    _contexts[name] = ctx
    if wait is not None:
        _before_use[name] = wait
    if group is not None:
        _process_groups[name] = group
    if isinstance(process_group, DeviceMesh):
        _meshes[name] = process_group
    _closed.discard(name)
    own._when_closed(functools.partial(_forget, name, weakref.ref(ctx)))
    return ctx


def _drop(name: str) -> None:
    """Let nothing be known of the context that has that name."""
    for known in (_contexts, ops, _process_groups, _meshes, _before_use):
        known.pop(name, None)


def _forget(name: str, closed: weakref.ref[iris_c.Context | Nodes]) -> None:
    if name in _contexts and _contexts[name] is closed():
        _drop(name)
        _closed.add(name)


def before_use(name: str, wait: Callable[[], object]) -> None:
    """Have `wait` called before an operation uses the context of that name: the calls that others
    make of it, in another thread or on another stream, come first on all ranks then."""
    _before_use[name] = wait
    ops.pop(name, None)


def context(name: str) -> iris_c.Context | Nodes:
    """The context of that name. One that is named after a process group is made at its first use,
    if the group has none yet, which is collective."""
    if name in _before_use:
        _before_use[name]()
    return _contexts[name]


def _found(name: str) -> iris_c.Context | Nodes:
    """The context of a name that none has."""
    group = torch_group(name)
    there = None if group is None else registered(group)
    if there is not None:
        return register(there, name, process_group=group)
    if name in _closed:
        raise RuntimeError(f"group: the context named {name!r} is closed")
    if group is not None:
        return _make(group, group, name)
    known = ", ".join(repr(known) for known in _contexts) or "none"
    raise ValueError(
        f"group: expected the name of a context (known: {known}), got {name!r}; call "
        "iris_c.torch.init or iris_c.torch.register first"
    )


def world_size(name: str) -> int:
    """The number of ranks of the context of that name, which need not have been made yet."""
    ctx = _contexts.get(name)
    if ctx is not None:
        return ctx.world_size
    group = torch_group(name)
    return context(name).world_size if group is None else dist.get_world_size(group)


def is_name_of(name: str, ctx: iris_c.Context | Nodes) -> bool:
    """Whether a context is known by this name."""
    return _contexts.get(name) is ctx


def name_of(ctx: Named) -> str:
    """The name of a context, given in one of the ways of `Named`.

    A context without a name gets one. A process group or mesh whose ranks no context has yet gets
    one of the default size, which is collective; `init` gives it another size.
    """
    if ctx is None:
        return DEFAULT
    if isinstance(ctx, str):
        return ctx
    if isinstance(ctx, dist.ProcessGroup | DeviceMesh):
        return _name_of_group(ctx)
    for name, known in _contexts.items():
        if known is ctx:
            return name
    name = f"context {next(_numbers)}"
    register(ctx, name)
    return name


def _name_of_group(given: dist.ProcessGroup | DeviceMesh) -> str:
    found = _process_group("ctx", given)
    assert found is not None
    name = _registered_name(found)
    if name is None:
        name = name_of_torch_group(found.group_name)
        _make(given, found, name)
    elif isinstance(given, DeviceMesh):
        _meshes[name] = given
    return name


def _make(given: Any, group: dist.ProcessGroup, name: str) -> iris_c.Context | Nodes:
    """The context of a process group, given as such or as a mesh, that has none. Collective."""
    own = getattr(group, "iris_context", None)  # of a group of this package's own backend
    return init(given, name=name) if own is None else register(own(), name, process_group=given)


def _registered_name(group: dist.ProcessGroup) -> str | None:
    for name, ctx in _contexts.items():
        known = process_group(name)
        # A group may have the name of an earlier one, of other ranks.
        if known is not None and known.group_name == group.group_name:
            if _place(group) == (ctx.rank, ctx.world_size):
                return name
    return None


def registered(group: dist.ProcessGroup) -> iris_c.Context | Nodes | None:
    """The context that has the ranks of a process group, if there is one."""
    own = name_of_torch_group(group.group_name)
    if own in _contexts and _process_groups.get(own) is not group:
        _drop(own)  # that of an earlier group, which is gone
    name = _registered_name(group)
    return None if name is None else _contexts[name]


def name_of_torch_group(group_name: str) -> str:
    """The name of the context of the process group that torch.distributed knows by that name, the
    same in each process and each run. `context` makes the context where there is none."""
    return _OF_TORCH + group_name


def name_of_either(name: str) -> str:
    """That of the context which has this name itself, or whose process group has."""
    own = name_of_torch_group(name)
    return own if name not in _contexts and torch_group(own) is not None else name


def torch_group(name: str) -> dist.ProcessGroup | None:
    """The process group that the context of that name is named after, if it is."""
    if not (name.startswith(_OF_TORCH) and dist.is_available() and dist.is_initialized()):
        return None
    try:
        resolve: Any = dist.distributed_c10d._resolve_process_group  # type: ignore[attr-defined]
        group: dist.ProcessGroup = resolve(name.removeprefix(_OF_TORCH))
    except (RuntimeError, ValueError):
        return None
    return group


def process_group(name: str) -> dist.ProcessGroup | None:
    """The process group that has the ranks of the context of that name, if there is one."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    ctx = _contexts[name]
    if name in _process_groups:
        return _process_groups[name]
    whole = isinstance(ctx, Nodes) or ctx.ranks == tuple(range(ctx.world_size))
    world = dist.group.WORLD
    return world if whole and _place(world) == (ctx.rank, ctx.world_size) else None


def mesh(name: str) -> DeviceMesh | None:
    """The one-dimensional mesh of the ranks of the context of that name: the one that it was made
    of, else a new one of its process group, if there is one."""
    group = process_group(name)
    if group is None:
        return None
    if name not in _meshes:
        device_type = "cpu" if _contexts[name].backend == "cpu" else "cuda"
        _meshes[name] = DeviceMesh.from_group(group, device_type)
    return _meshes[name]


def _place(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """This rank in a group, and the group's size."""
    return dist.get_rank(group), dist.get_world_size(group)


def _process_group(argument: str, group: Any) -> dist.ProcessGroup | None:
    """A process group, also of a DeviceMesh of one dimension."""
    if group is None or isinstance(group, dist.ProcessGroup):
        return group
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            names = group.mesh_dim_names or ("tp",)
            raise ValueError(
                f"{argument}: expected a DeviceMesh of one dimension, as mesh[{names[-1]!r}], "
                f"got one of {group.ndim}"
            )
        return group.get_group()
    raise TypeError(
        f"{argument}: expected a ProcessGroup, a DeviceMesh or None, got {type(group).__name__}"
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
    group = _process_group("process_group", process_group)
    rank, world_size = _place(group)
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
        return register(iris_c.Context(**options), name, process_group=process_group)
    if len({len(ranks) for ranks in members.values()}) > 1:
        raise ValueError(
            "process_group: expected as many ranks on each node, got "
            + ", ".join(f"{len(ranks)} on {node}" for node, ranks in sorted(members.items()))
        )
    world_ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
    peers = [world_ranks[ranks[own.index(rank)]] for ranks in members.values()]
    across = dist.new_group(sorted(peers), use_local_synchronization=True)
    nodes = Nodes(iris_c.Context(**options), across, list(members.values()), rank, peers)
    return register(nodes, name, process_group=process_group)
