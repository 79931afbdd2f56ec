# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Which process groups fused operations can serve, as far as it is known while a graph is compiled.

Nothing is asked of the other ranks here: some may have their graph from a cache. What all of them
do alike is to run it, so the context is made at the first call, by iris_c.torch._groups.
"""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

import iris_c
from iris_c.torch import _groups

__all__ = ["Ranks", "facts", "ranks_of"]


class Ranks(NamedTuple):
    """What a graph needs to know of a group."""

    name: str  # of its context
    world_size: int
    device_type: str  # where its tensors lie


def ranks_of(group_name: Any) -> Ranks | None:
    """Of the group that a functional collective names; None if there is none to serve."""
    if not isinstance(group_name, str):
        return None
    name = _groups.name_of_torch_group(group_name)
    group = _groups.torch_group(name)
    if group is None or dist.get_backend(group) == "fake":
        return None
    ctx = _groups.registered(group)
    if ctx is None:
        on_cpu = os.environ.get("IRIS_C_BACKEND") == "cpu" or not torch.cuda.is_available()
    else:
        on_cpu = ctx.backend == "cpu"
    return Ranks(name, dist.get_world_size(group), "cpu" if on_cpu else "cuda")


def takes(dtype: torch.dtype, ranks: Ranks) -> bool:
    """Whether products of these ranks' chip take operands of a float8 dtype."""
    return dtype.itemsize == 1 and dtype.is_floating_point and _takes(dtype, ranks.device_type)


def gives(dtype: torch.dtype, ranks: Ranks) -> bool:
    """Whether such products may have results of a dtype: on GPUs only of 16 bits."""
    return ranks.device_type == "cpu" or dtype.itemsize == 2


@functools.cache
def _takes(dtype: torch.dtype, device_type: str) -> bool:
    try:
        iris_c.ops.auto_config("matmul_all_reduce", 1, 1, 1, dtype, 1, _arch(device_type))
    except ValueError:
        return False
    return True


def _arch(device_type: str) -> str:
    if device_type == "cpu":
        return "cpu"
    properties = torch.cuda.get_device_properties()
    if torch.version.hip:
        return str(properties.gcnArchName).split(":")[0]
    return f"sm_{properties.major}{properties.minor}a"


def facts() -> tuple[Any, ...]:
    """All that is known of groups: what a compiled graph depends on besides the graph."""
    if not (dist.is_available() and dist.is_initialized()):
        return ()
    known = sorted(map(str, dist.distributed_c10d._world.pg_names.values()))
    return tuple((name, ranks_of(name)) for name in known)
