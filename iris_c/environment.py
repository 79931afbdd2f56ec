# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Environment variables: torchrun's and other launchers', which describe the run, iris_c's own.

======================  ==========================================================================
RANK, WORLD_SIZE        this rank and the number of ranks; without them what mpirun or srun has set
                        (launchers.py), else a world of one
LOCAL_RANK              the rank on this node, which is the number of its device
LOCAL_WORLD_SIZE        ranks that share the node's cores
MASTER_ADDR,            distinguish the run from others of the same user, together with
MASTER_PORT             TORCHELASTIC_RUN_ID and TORCHELASTIC_RESTART_COUNT
IRIS_C_BACKEND          cpu, cuda or hip, whatever the program asks for
IRIS_C_NUM_THREADS      threads of a rank on the cpu; without it OMP_NUM_THREADS, else the cores
                        divided by the ranks on this node
IRIS_C_TIMEOUT          seconds of the timeout where the program leaves it at its default
IRIS_C_LOCAL_SIZE       bytes of the local arena where the program leaves them open
IRIS_C_GROUP_HEAP_SIZE  bytes of the heap of a process group of iris_c.torch.backend
IRIS_C_DEBUG            0, 1 or config; 1: the ranks compare every call before it starts;
                        config: calls write to stderr what they have chosen, and among what
IRIS_C_CPU_ISA          avx512, avx2 or generic: at most this instruction set on the cpu
======================  ==========================================================================
"""

from __future__ import annotations

import os
from typing import Any

from iris_c import _C, _checks
from iris_c.launchers import Environ, Launched, integer, launched

__all__ = [
    "DEFAULT_TIMEOUT",
    "context_options",
    "default_local_size",
    "default_num_threads",
    "place",
    "run_key",
]

DEFAULT_TIMEOUT = 30.0
MOST_LOCAL = 2 << 30  # bytes of a local arena whose size is left open
MOST_SECONDS = 1e9  # of a timeout
MOST_THREADS = 256  # of a rank on the cpu
BACKENDS = ("cpu", "cuda", "hip")
INSTRUCTION_SETS = ("avx512", "avx2", "generic")  # that IRIS_C_CPU_ISA may ask for
KERNEL_DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernels")


def _seconds(environ: Environ, name: str) -> float | None:
    text = environ.get(name)
    if text is None or text.strip() == "":
        return None
    try:
        value = float(text if text.isascii() and "_" not in text else "")
    except ValueError:
        raise ValueError(f"{name}: expected seconds, got {text!r}") from None
    if not 0 < value <= MOST_SECONDS:
        raise ValueError(f"{name}: expected seconds > 0, at most {MOST_SECONDS:g}, got {text!r}")
    return value


def _one_of(environ: Environ, name: str, values: tuple[str, ...]) -> str | None:
    """The variable's value, one of `values`; None if it is not set, or empty."""
    text = environ.get(name, "").strip()
    if text not in ("", *values):
        expected = f"{', '.join(values[:-1])} or {values[-1]}"
        raise ValueError(f"{name}: expected {expected}, got {text!r}")
    return text or None


def default_num_threads(local_world_size: int, environ: Environ | None = None) -> int:
    """Return the threads of a rank on the cpu, if `local_world_size` ranks share the node."""
    environ = os.environ if environ is None else environ
    value = integer(environ, "IRIS_C_NUM_THREADS", 1, MOST_THREADS)
    if value is None:  # of OpenMP's list the first: the threads of the outermost region
        outermost = environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        value = integer({"OMP_NUM_THREADS": outermost}, "OMP_NUM_THREADS", 1)
    if value is None:
        value = max(1, len(os.sched_getaffinity(0)) // max(1, local_world_size))
    return min(value, MOST_THREADS)


def default_local_size(heap_size: int, environ: Environ | None = None) -> int:
    """Return the bytes of the local arena beside a heap of `heap_size`."""
    environ = os.environ if environ is None else environ
    value = integer(environ, "IRIS_C_LOCAL_SIZE", 0, 1 << 46)
    if value is not None:
        return value
    # A heap_size that is no size is refused by the extension.
    return min(heap_size // 2, MOST_LOCAL) if isinstance(heap_size, int) and heap_size > 0 else 0


def run_key(environ: Environ | None = None, job: str = "") -> str:
    """Return a name that all ranks of this run share and no other run has at the same time.

    `job` is the name that the run's launcher gives it.
    """
    environ = os.environ if environ is None else environ
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    return "/".join([*(environ.get(name, "") for name in names), *([job] if job else [])])


def _from_variables(environ: Environ) -> tuple[int, int] | None:
    """RANK and WORLD_SIZE, if they are set."""
    rank, world_size = integer(environ, "RANK", 0), integer(environ, "WORLD_SIZE", 1)
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        given, missing = ("WORLD_SIZE", "RANK") if rank is None else ("RANK", "WORLD_SIZE")
        raise ValueError(f"{given}: set without {missing} in the environment")
    if rank >= world_size:
        raise ValueError(f"RANK: expected 0 <= rank < {world_size} (WORLD_SIZE), got {rank}")
    return rank, world_size


def _check_launcher(rank: int, world_size: int, launcher: Launched | None) -> None:
    """RANK set by hand goes with what the launcher of several ranks says."""
    if launcher is None or launcher.size == 1:
        return
    for name, value, their_name, theirs in (
        ("RANK", rank, launcher.names[0], launcher.rank),
        ("WORLD_SIZE", world_size, launcher.names[1], launcher.size),
    ):
        if value != theirs:
            raise ValueError(
                f"{name}: expected {theirs}, which {their_name} says, got {value}; unset one of "
                "them, or pass rank and world_size to init"
            )


def place(environ: Environ | None = None) -> tuple[int, int, str, Launched | None]:
    """(rank, world_size, where they come from, what the launcher says) of this process.

    Raises
    ------
    ValueError
        Variables that contradict each other, or are missing; names them.
    """
    environ = os.environ if environ is None else environ
    given = _from_variables(environ)
    if given is not None and environ.get("TORCHELASTIC_RUN_ID"):
        # torchrun, which a launcher may have started in its turn, with other ranks and sizes.
        return *given, "RANK and WORLD_SIZE", None
    launcher = launched(environ)
    if given is not None:
        _check_launcher(*given, launcher)
        same = launcher is not None and given == (launcher.rank, launcher.size)
        return *given, "RANK and WORLD_SIZE", launcher if same else None
    if launcher is not None:
        return launcher.rank, launcher.size, launcher.source, launcher
    return 0, 1, "nothing in the environment", None


def _launcher_of(environ: Environ, rank: int, world_size: int) -> Launched | None:
    """The launcher, if it says what the caller says."""
    try:
        launcher = launched(environ)
    except ValueError:
        return None
    same = launcher is not None and (rank, world_size) == (launcher.rank, launcher.size)
    return launcher if same else None


def context_options(
    heap_size: int,
    backend: str | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    environ: Environ | None = None,
    local_size: int | None = None,
) -> dict[str, Any]:
    """Complete the arguments of `iris_c.init` from the environment, and check them.

    Returns
    -------
    dict
        The keyword arguments of the extension's context type.
    """
    environ = os.environ if environ is None else environ
    _one_of(environ, "IRIS_C_CPU_ISA", INSTRUCTION_SETS)  # the extension reads it
    own_timeout = _seconds(environ, "IRIS_C_TIMEOUT")
    launcher: Launched | None
    if rank is None and world_size is None:
        rank, world_size, source, launcher = place(environ)
    elif rank is None or world_size is None:
        given, missing = ("world_size", "rank") if rank is None else ("rank", "world_size")
        raise ValueError(f"{given}: given without {missing}; give both or neither")
    else:
        rank = _checks.integer("rank", rank)
        world_size = _checks.integer("world_size", world_size)
        if world_size < 1:
            raise ValueError(f"world_size: expected >= 1, got {world_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: expected 0 <= rank < {world_size} (world_size), got {rank}")
        source, launcher = "arguments", _launcher_of(environ, rank, world_size)
    debug = _one_of(environ, "IRIS_C_DEBUG", ("0", "1", "config"))
    _C._log_choices(debug == "config")
    local_rank = integer(environ, "LOCAL_RANK", 0)
    local_world_size = integer(environ, "LOCAL_WORLD_SIZE", 1)
    if launcher is not None:
        local_rank = launcher.local_rank if local_rank is None else local_rank
        local_world_size = local_world_size or launcher.local_size
    if isinstance(timeout, int | float) and timeout == DEFAULT_TIMEOUT:
        timeout = own_timeout or DEFAULT_TIMEOUT
    return {
        "heap_size": heap_size,
        "local_size": default_local_size(heap_size, environ) if local_size is None else local_size,
        "backend": _one_of(environ, "IRIS_C_BACKEND", BACKENDS) or backend,
        "rank": rank,
        "world_size": world_size,
        "local_rank": rank if local_rank is None else local_rank,
        "timeout": timeout,
        "run_key": run_key(environ, launcher.job if launcher is not None else ""),
        "num_threads": default_num_threads(local_world_size or world_size, environ),
        "debug": debug == "1",
        "kernel_directory": KERNEL_DIRECTORY,
        "source": source,
    }
