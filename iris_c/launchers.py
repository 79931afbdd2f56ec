# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Which rank of how many this process is, as the program that started it says in the environment.

==============  ==================================================================================
Open MPI        OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE; the run: PMIX_NAMESPACE,
                else OMPI_MCA_ess_base_jobid
MVAPICH         MV2_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
MPICH, Intel    PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS; the run: PALS_APID, else the
MPI, Cray       hydra_pmi_proxy or mpiexec among this process's ancestors
srun            SLURM_PROCID, SLURM_STEP_NUM_TASKS (else SLURM_NTASKS), SLURM_LOCALID,
                SLURM_STEP_TASKS_PER_NODE; the run: SLURM_JOB_ID, SLURM_STEP_ID
PMIx            PMIX_RANK, which must agree with the above; alone it does not say how many there are
==============  ==================================================================================

Slurm sets variables for the shell of salloc and sbatch too, where a command is one process whatever
SLURM_NTASKS says. A task of srun has a SLURM_STEP_ID that is an ordinary number. An mpirun inside
an allocation may have started its helpers with srun, so srun's variables count only where no other
launcher's are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["VARIABLES", "Environ", "Launched", "integer", "launched"]

Environ: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Launched:
    """What a launcher says: `names` are the variables of rank and size; `job` is what the ranks of
    its run share and other runs do not, '' if it does not tell."""

    names: tuple[str, str]
    rank: int
    size: int
    local_rank: int | None
    local_size: int | None
    job: str

    @property
    def source(self) -> str:
        return " and ".join(self.names)


@dataclass(frozen=True)
class _Family:
    rank: str
    size: str
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]
    job: tuple[str, ...]


_FAMILIES = (
    _Family(
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
        ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"),
    ),
    _Family(
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        ("MV2_COMM_WORLD_LOCAL_RANK",),
        ("MV2_COMM_WORLD_LOCAL_SIZE",),
        (),
    ),
    _Family(
        "PMI_RANK",
        "PMI_SIZE",
        ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
        ("PALS_APID",),
    ),
)
_SLURM_TASKS = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
_SLURM_TASKS_PER_NODE = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
# Steps that are no srun of the user's: 4294967290 interactive, ...91 batch script, ...92 extern.
_FIRST_SPECIAL_STEP = 0xFFFFFFF0
_PROXIES = ("hydra_pmi_proxy", "mpiexec", "mpirun", "mpiexec.hydra", "mpirun_rsh", "mpispawn")

VARIABLES = tuple(
    name
    for family in _FAMILIES
    for name in (
        family.rank, family.size, *family.local_rank, *family.local_size, *family.job
    )
) + (
    "PMIX_RANK", "SLURM_PROCID", *_SLURM_TASKS, "SLURM_LOCALID", *_SLURM_TASKS_PER_NODE,
    "SLURM_NODEID", "SLURM_JOB_ID", "SLURM_STEP_ID",
)  # fmt: skip


def integer(environ: Environ, name: str, least: int, most: int = 2**31 - 1) -> int | None:
    """The variable's value; None if it is not set, or empty."""
    text = environ.get(name)
    if text is None or text.strip() == "":
        return None
    if re.fullmatch(r"[+-]?[0-9]{1,4000}", text.strip()) is None:
        raise ValueError(f"{name}: expected an integer, got {text!r}")
    value = int(text)
    if not least <= value <= most:
        raise ValueError(
            f"{name}: expected >= {least}, got {value}"
            if value < least
            else f"{name}: expected <= {most}, got {value}"
        )
    return value


def _first(environ: Environ, names: Iterable[str], least: int) -> int | None:
    """The first of the variables that is set."""
    for name in names:
        value = integer(environ, name, least)
        if value is not None:
            return value
    return None


def _proxy() -> str:
    """The process of this node that has started the ranks, among the ancestors of this one."""
    pid = os.getppid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", errors="replace") as file:
                stat = file.read()
        except OSError:
            break
        # "pid (command) state parent ..."; the command is cut off after 15 characters
        command = stat[stat.index("(") + 1 : stat.rindex(")")]
        if any(name[:15] == command for name in _PROXIES):
            return f"pid {pid}"
        pid = int(stat[stat.rindex(")") + 1 :].split()[1])
    return ""


def _of_family(environ: Environ, family: _Family) -> Launched | None:
    rank, size = integer(environ, family.rank, 0), integer(environ, family.size, 1)
    if rank is None and size is None:
        return None
    if rank is None and size == 1:
        rank = 0
    if rank is None:
        raise ValueError(
            f"{family.rank}: expected the rank of this process, since {family.size} says that "
            f"there are {size}, got nothing"
        )
    if size is None:
        raise ValueError(
            f"{family.size}: expected the number of ranks, since {family.rank} is {rank}, got "
            "nothing"
        )
    job = next((environ[name] for name in family.job if environ.get(name)), "")
    if not job:
        job = _slurm_job(environ) if _is_slurm_task(environ) else _proxy()
    return Launched(
        (family.rank, family.size),
        rank,
        size,
        _first(environ, family.local_rank, 0),
        _first(environ, family.local_size, 1),
        job,
    )


# ---- Slurm ----


def _is_slurm_task(environ: Environ) -> bool:
    """Whether srun has started this process, or sbatch or salloc its shell."""
    step = environ.get("SLURM_STEP_ID", "").strip()
    if step:
        return step.isdigit() and int(step) < _FIRST_SPECIAL_STEP
    return environ.get("SLURM_PROCID", "") != "" and environ.get("ENVIRONMENT") != "BATCH"


def _slurm_job(environ: Environ) -> str:
    return f"{environ.get('SLURM_JOB_ID', '')}.{environ.get('SLURM_STEP_ID', '')}"


def _slurm_local_size(environ: Environ) -> int | None:
    """How many tasks are on this node: "2(x3),1" is two on each of three nodes, then one."""
    text = next((environ[name] for name in _SLURM_TASKS_PER_NODE if environ.get(name)), "")
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            return None
        counts += [int(match[1])] * int(match[2] or 1)
    node = integer(environ, "SLURM_NODEID", 0) or 0
    return counts[node] if node < len(counts) and counts[node] > 0 else None


def _of_slurm(environ: Environ) -> Launched | None:
    if not _is_slurm_task(environ):
        return None
    rank = integer(environ, "SLURM_PROCID", 0)
    size_name = next((name for name in _SLURM_TASKS if environ.get(name)), _SLURM_TASKS[0])
    size = integer(environ, size_name, 1)
    if rank is None and (size or 1) > 1:
        raise ValueError(
            f"SLURM_PROCID: expected the rank of this process, since {size_name} says that there "
            f"are {size}, got nothing"
        )
    if size is None and rank:
        raise ValueError(
            f"{size_name}: expected the number of ranks, since SLURM_PROCID is {rank}, got nothing"
        )
    return Launched(
        ("SLURM_PROCID", size_name),
        rank or 0,
        size or 1,
        integer(environ, "SLURM_LOCALID", 0),
        _slurm_local_size(environ),
        _slurm_job(environ),
    )


# ---- together ----


def _check_equal(first: Launched, second: Launched) -> None:
    for index, what in enumerate(("rank", "size")):
        ours, theirs = getattr(first, what), getattr(second, what)
        if ours != theirs:
            raise ValueError(
                f"{second.names[index]}: expected {ours}, which {first.names[index]} says, got "
                f"{theirs}; pass rank and world_size to init, or set RANK and WORLD_SIZE"
            )


def launched(environ: Environ) -> Launched | None:
    """What the launcher says; None if none has started this process.

    Raises
    ------
    ValueError
        It does not say which rank this is, or of how many, or two launchers say different things;
        names the variables.
    """
    found = [one for one in (_of_family(environ, family) for family in _FAMILIES) if one]
    result = found[0] if found else _of_slurm(environ)
    for other in found[1:]:
        _check_equal(found[0], other)
    pmix = integer(environ, "PMIX_RANK", 0)
    if pmix is not None and result is None:
        raise ValueError(
            f"PMIX_RANK: expected a variable that says of how many ranks this is number {pmix}, "
            "got none; set RANK and WORLD_SIZE"
        )
    if pmix is not None and result is not None and pmix != result.rank:
        raise ValueError(
            f"PMIX_RANK: expected {result.rank}, which {result.names[0]} says, got {pmix}; pass "
            "rank and world_size to init, or set RANK and WORLD_SIZE"
        )
    if result is not None and result.rank >= result.size:
        raise ValueError(
            f"{result.names[0]}: expected 0 <= rank < {result.size} ({result.names[1]}), got "
            f"{result.rank}"
        )
    return result
