# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Neighbouring ranks that have one part of a parameter between them: the ranks 0 and 1, 2 and 3 ...
of a context, for two copies of each part. Such ranks have a context of their own, which is a group
of theirs, and torch.distributed's names for it where that knows the ranks."""

from __future__ import annotations

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

import iris_c
from iris_c.torch import _groups
from iris_c.torch._nodes import Nodes

__all__ = ["mesh_of_copies", "name_of_copies"]

# By the name of a context and the number of copies; forgotten when the context is closed.
_meshes: dict[tuple[str, int], DeviceMesh] = {}


def _name(group: str, copies: int) -> str:
    return f"{group}/{copies} copies"


def name_of_copies(group: str, copies: int) -> str:
    """The name of the context of the ranks that have copies of this rank's part.

    Collective over a context's ranks where it is not known yet.
    """
    own, name = _groups.context(group), _name(group, copies)
    if isinstance(own, Nodes):
        raise NotImplementedError(
            f"heads: expected as many as ranks, {own.world_size}, or more, over several nodes"
        )
    first = own.rank // copies * copies
    members = own.group(range(first, first + copies))
    if not _groups.is_name_of(name, members):
        _meshes.pop((group, copies), None)  # of a context that had the name before
        _groups.register(members, name, process_group=_process_group(own, group, copies))
    return name


def _process_group(own: iris_c.Context, group: str, copies: int) -> dist.ProcessGroup | None:
    """torch.distributed's group of the ranks that have copies of this rank's part, if it knows the
    ranks; makes the mesh too."""
    mesh = _groups.mesh(group)
    if mesh is None:
        return None
    ranks = dist.get_process_group_ranks(mesh.get_group())
    first = own.rank // copies * copies
    across: dist.ProcessGroup
    copies_of_this: dist.ProcessGroup
    across, copies_of_this = (
        dist.new_group(members, use_local_synchronization=True)
        for members in (ranks[own.rank % copies :: copies], ranks[first : first + copies])
    )
    layout = [ranks[i : i + copies] for i in range(0, len(ranks), copies)]
    made = _meshes[group, copies] = DeviceMesh.from_group(
        [across, copies_of_this], mesh.device_type, mesh=layout, mesh_dim_names=("part", "copy")
    )

    def forget() -> None:
        if _meshes.get((group, copies)) is made:
            del _meshes[group, copies]

    own._when_closed(forget)
    return copies_of_this


def mesh_of_copies(group: str, copies: int) -> DeviceMesh | None:
    """The mesh of (parts, copies of each), if torch.distributed knows the ranks."""
    name_of_copies(group, copies)
    return _meshes.get((group, copies))
