# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What the environment says about a run: torchrun's variables and iris_c's own.

======================  ==========================================================================
RANK, WORLD_SIZE        this rank and the number of ranks; a world of one without them
LOCAL_RANK              which device of the node
LOCAL_WORLD_SIZE        ranks that share the node's cores
MASTER_ADDR,            tell runs of one user apart, together with TORCHELASTIC_RUN_ID and
MASTER_PORT             TORCHELASTIC_RESTART_COUNT
IRIS_C_BACKEND          overrides the backend: cpu, cuda, hip
IRIS_C_NUM_THREADS      threads of the cpu backend, else OMP_NUM_THREADS, else cores / local ranks
IRIS_C_TIMEOUT          seconds, in place of the default timeout
IRIS_C_DEBUG            anything but empty or 0: compare every call on all ranks
======================  ==========================================================================
"""

from __future__ import annotations

import math
import os

__all__ = ["DEFAULT_TIMEOUT", "context_options", "default_num_threads", "run_key"]

DEFAULT_TIMEOUT = 30.0
KERNEL_DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernels")


def _integer(environ, name: str, least: int) -> int | None:
    text = environ.get(name)
    if text is None or text.strip() == "":
        return None
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{name}: expected an integer, got {text!r}") from None
    if value < least:
        raise ValueError(f"{name}: expected >= {least}, got {value}")
    return value


def _seconds(environ, name: str) -> float | None:
    text = environ.get(name)
    if text is None or text.strip() == "":
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name}: expected seconds, got {text!r}") from None
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}: expected seconds > 0, got {text!r}")
    return value


def _flag(environ, name: str) -> bool:
    return environ.get(name, "").strip() not in ("", "0")


def default_num_threads(local_world_size: int, environ=None) -> int:
    """Threads of the cpu backend for one of `local_world_size` ranks on this node."""
    environ = os.environ if environ is None else environ
    for name in ("IRIS_C_NUM_THREADS", "OMP_NUM_THREADS"):
        value = _integer(environ, name, 1)
        if value is not None:
            return value
    return max(1, len(os.sched_getaffinity(0)) // max(1, local_world_size))


def run_key(environ=None) -> str:
    """A name that the ranks of this run share, and other runs at the same time do not."""
    environ = os.environ if environ is None else environ
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    return "/".join(environ.get(name, "") for name in names)


def context_options(
    heap_size: int,
    backend: str | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    environ=None,
) -> dict:
    """Fill what `iris_c.init` was not told from the environment, and check it.

    Returns
    -------
    dict
        Keyword arguments of the context type.
    """
    environ = os.environ if environ is None else environ
    names, complaint = ("rank", "world_size"), "given without {}; give both or neither"
    if rank is None and world_size is None:
        rank, world_size = _integer(environ, "RANK", 0), _integer(environ, "WORLD_SIZE", 1)
        names, complaint = ("RANK", "WORLD_SIZE"), "set without {} in the environment"
        if rank is None and world_size is None:
            rank, world_size = 0, 1
    if rank is None or world_size is None:
        given, missing = reversed(names) if rank is None else names
        raise ValueError(f"{given}: {complaint.format(missing)}")
    if world_size < 1:
        raise ValueError(f"{names[1]}: expected >= 1, got {world_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"{names[0]}: expected 0 <= rank < {world_size} ({names[1]}), got {rank}")
    local_rank = _integer(environ, "LOCAL_RANK", 0)
    local_world_size = _integer(environ, "LOCAL_WORLD_SIZE", 1)
    if timeout == DEFAULT_TIMEOUT:
        timeout = _seconds(environ, "IRIS_C_TIMEOUT") or DEFAULT_TIMEOUT
    return {
        "heap_size": heap_size,
        "backend": environ.get("IRIS_C_BACKEND") or backend,
        "rank": rank,
        "world_size": world_size,
        "local_rank": rank if local_rank is None else local_rank,
        "timeout": timeout,
        "run_key": run_key(environ),
        "num_threads": default_num_threads(local_world_size or world_size, environ),
        "debug": _flag(environ, "IRIS_C_DEBUG"),
        "kernel_directory": KERNEL_DIRECTORY,
    }
