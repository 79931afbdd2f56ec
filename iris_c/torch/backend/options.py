# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What a process group of the backend may be told: `pg_options` of torch.distributed."""

from __future__ import annotations

import dataclasses
import os

from iris_c import _checks
from iris_c.launchers import integer

__all__ = ["Options"]

WORLD_HEAP_SIZE = 1 << 30  # as iris_c.init has it
GROUP_HEAP_SIZE = 256 << 20  # as Context.group has it
LEAST_HEAP_SIZE = 1 << 20


@dataclasses.dataclass
class Options:
    """Options of a process group: ``dist.new_group(ranks, pg_options=Options(heap_size=1 << 26))``.

    Equal on all ranks of the group.

    Attributes
    ----------
    heap_size : int or None
        Bytes of the symmetric heap of the group's context, 1 MiB at least. What does not fit goes
        in pieces. None: IRIS_C_GROUP_HEAP_SIZE, else 1 GiB for the default group and 256 MiB for
        others. On the cpu untouched pages cost nothing.
    local_size : int or None
        Bytes of the local arena, as in `iris_c.init`.
    """

    heap_size: int | None = None
    local_size: int | None = None

    def __post_init__(self) -> None:
        if self.heap_size is not None:
            self.heap_size = _checks.integer("heap_size", self.heap_size)
            if self.heap_size < LEAST_HEAP_SIZE:
                raise ValueError(f"heap_size: expected >= {LEAST_HEAP_SIZE}, got {self.heap_size}")
        if self.local_size is not None:
            self.local_size = _checks.integer("local_size", self.local_size)
            if self.local_size < 0:
                raise ValueError(f"local_size: expected >= 0, got {self.local_size}")

    def heap_size_of(self, is_world: bool) -> int:
        """Bytes of the heap, of the default group or another one."""
        if self.heap_size is not None:
            return self.heap_size
        asked = integer(os.environ, "IRIS_C_GROUP_HEAP_SIZE", LEAST_HEAP_SIZE)
        return asked or (WORLD_HEAP_SIZE if is_world else GROUP_HEAP_SIZE)


def checked(options: object) -> Options:
    """`pg_options` as it was given."""
    if options is None:
        return Options()
    if not isinstance(options, Options):
        raise TypeError(
            "pg_options: expected iris_c.torch.backend.Options or None, got "
            f"{type(options).__name__}"
        )
    return options
