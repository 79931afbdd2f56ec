# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Which rank a process is, as torchrun, mpirun and srun say it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from iris_c.environment import context_options, place

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "3",
    "PMIX_NAMESPACE": "prterun-node-17@1",
}
MPICH = {
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
    "MPI_LOCALRANKID": "1",
    "MPI_LOCALNRANKS": "2",
    "PMI_FD": "9",
}
SRUN = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "8",  # the allocation's
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
BATCH = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "8",
    "SLURM_TASKS_PER_NODE": "8",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "ENVIRONMENT": "BATCH",
}


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        (OPEN_MPI, "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE"),
        (MPICH, "PMI_RANK and PMI_SIZE"),
        (SRUN, "SLURM_PROCID and SLURM_STEP_NUM_TASKS"),
    ],
    ids=["open-mpi", "mpich", "srun"],
)
def test_a_launchers_rank_counts(environ, names):
    cores = len(os.sched_getaffinity(0))
    options = context_options(1, environ=environ)
    assert (options["rank"], options["world_size"], options["local_rank"]) == (3, 4, 1)
    assert options["source"] == names
    assert options["num_threads"] == max(1, cores // 2)  # two ranks on this node
    own = dict(environ, LOCAL_RANK="5", LOCAL_WORLD_SIZE="1")
    assert context_options(1, environ=own)["local_rank"] == 5
    assert context_options(1, environ=own)["num_threads"] == max(1, cores)


@pytest.mark.parametrize(
    ("environ", "other"),
    [
        (OPEN_MPI, {"PMIX_NAMESPACE": "prterun-node-18@1"}),
        (SRUN, {"SLURM_STEP_ID": "3"}),
        (SRUN, {"SLURM_JOB_ID": "78"}),
        (SRUN, {"MASTER_PORT": "29501"}),
        (OPEN_MPI, {"MASTER_PORT": "29501"}),
        (dict(MPICH, PALS_APID="a"), {"PALS_APID": "b"}),
    ],
)
def test_ranks_of_a_run_share_a_key_and_other_runs_do_not(environ, other):
    rank = next(iter(name for name in environ if name.endswith(("_RANK", "_PROCID"))))
    peers = dict(environ, **{rank: "0"}, LOCAL_RANK="0")
    peers.pop("PMIX_RANK", None)
    key = context_options(1, environ=environ)["run_key"]
    assert context_options(1, environ=peers)["run_key"] == key
    assert context_options(1, environ={**environ, **other})["run_key"] != key
    # The same ranks told by the program, or by variables set by hand, are the launcher's ranks.
    assert context_options(1, rank=3, world_size=4, environ=environ)["run_key"] == key
    by_hand = dict(environ, RANK="3", WORLD_SIZE="4")
    assert context_options(1, environ=by_hand)["run_key"] == key


@pytest.mark.parametrize(
    "environ",
    [
        {},
        BATCH,
        {**BATCH, "SLURM_STEP_ID": "4294967291"},
        {**BATCH, "SLURM_STEP_ID": "batch", "ENVIRONMENT": ""},
        {**BATCH, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "8"},  # the shell of salloc
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"PMI_RANK": "0", "PMI_SIZE": "1"},
    ],
)
def test_one_process_is_a_world_of_one(environ):
    options = context_options(1, environ=environ)
    assert (options["rank"], options["world_size"]) == (0, 1)


def test_the_nearest_launcher_counts():
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "TORCHELASTIC_RUN_ID": "x"}
    for outer in (OPEN_MPI, MPICH, SRUN):
        assert place({**outer, **torchrun})[:3] == (5, 8, "RANK and WORLD_SIZE")
    # mpirun starts its helpers with srun: their variables are not the ranks'.
    assert place({**SRUN, **OPEN_MPI, "SLURM_PROCID": "0"})[:2] == (3, 4)
    assert place({**SRUN, **MPICH, "SLURM_PROCID": "0"})[:2] == (3, 4)
    # One process of a launcher may start ranks of its own.
    single = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}
    assert place({**single, "RANK": "1", "WORLD_SIZE": "2"})[:2] == (1, 2)
    assert place({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"})[:2] == (1, 2)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "2"]),
        ({"OMPI_COMM_WORLD_RANK": "1"}, ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "1"]),
        ({"PMI_SIZE": "2"}, ["PMI_RANK", "PMI_SIZE"]),
        ({"MV2_COMM_WORLD_SIZE": "2"}, ["MV2_COMM_WORLD_RANK"]),
        ({"PMIX_RANK": "1"}, ["PMIX_RANK"]),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}, ["SLURM_PROCID", "SLURM_NTASKS"]),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}, ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID"]),
        ({**OPEN_MPI, "PMIX_RANK": "2"}, ["PMIX_RANK", "OMPI_COMM_WORLD_RANK", "2", "3"]),
        ({**OPEN_MPI, **MPICH, "PMI_RANK": "1"}, ["PMI_RANK", "OMPI_COMM_WORLD_RANK"]),
        ({**OPEN_MPI, **MPICH, "PMI_SIZE": "5"}, ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"]),
        ({**OPEN_MPI, "RANK": "0", "WORLD_SIZE": "4"}, ["RANK", "OMPI_COMM_WORLD_RANK"]),
        ({**MPICH, "RANK": "3", "WORLD_SIZE": "8"}, ["WORLD_SIZE", "PMI_SIZE"]),
        ({"PMI_RANK": "2", "PMI_SIZE": "2"}, ["PMI_RANK", "PMI_SIZE"]),
        ({"PMI_RANK": "one", "PMI_SIZE": "2"}, ["PMI_RANK", "'one'"]),
        ({"RANK": str(2**70), "WORLD_SIZE": "2"}, ["RANK"]),
        ({"LOCAL_RANK": str(2**31)}, ["LOCAL_RANK"]),
    ],
)
def test_what_makes_no_sense_is_an_error_that_names_the_variables(environ, names):
    with pytest.raises(ValueError) as caught:
        context_options(1, environ=environ)
    for name in names:
        assert name in str(caught.value)


SCRIPT = """
import numpy, iris_c
with iris_c.init(heap_size=1 << 20, backend="cpu", timeout=60) as ctx:
    total = numpy.empty(1, "float32")
    ctx.ccl.all_reduce(total, numpy.ones(1, "float32"))
    print(ctx.rank, ctx.world_size, int(total[0]), ctx.source, "source='" in repr(ctx), flush=True)
"""


def clean_environment():
    """Without what may have come from a launcher of the tests."""
    prefixes = ("OMPI_", "PMI", "SLURM_", "MPI_", "RANK", "WORLD_SIZE", "LOCAL_", "TORCHELASTIC_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize("environ", [OPEN_MPI, MPICH, SRUN], ids=["open-mpi", "mpich", "srun"])
def test_processes_with_a_launchers_variables_meet(environ, tmp_path):
    rank_name, size_name = place(environ)[2].split(" and ")
    ranks = []
    for rank in range(2):
        own = {**clean_environment(), **environ, rank_name: str(rank), size_name: "2"}
        own.pop("PMIX_RANK", None)
        own["LOCAL_RANK"] = "0"
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT], env=own, cwd=tmp_path, text=True,
                stdout=subprocess.PIPE,
            )
        )  # fmt: skip
    for rank, process in enumerate(ranks):
        told, _ = process.communicate(timeout=120)
        assert told.split() == [
            str(rank), "2", "2", rank_name, "and", size_name, "True",
        ]  # fmt: skip


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="no mpiexec on the PATH")
def test_two_runs_of_mpiexec_side_by_side(tmp_path):
    runs = [
        subprocess.Popen(
            ["mpiexec", "-n", "2", sys.executable, "-c", SCRIPT],
            env=clean_environment(), cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for run in runs:
        told, _ = run.communicate(timeout=180)
        assert sorted(line.split()[:3] for line in told.splitlines()) == [
            ["0", "2", "2"],
            ["1", "2", "2"],
        ]


def test_the_report_says_which_rank_and_why(tmp_path):
    def report(environ):
        done = subprocess.run(
            [sys.executable, "-m", "iris_c", "info", "--json"],
            env={**clean_environment(), **environ}, cwd=tmp_path, capture_output=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)["rank"]

    assert report(MPICH) == "3 of 4, from PMI_RANK and PMI_SIZE"
    assert report({}) == "0 of 1, from nothing in the environment"
    assert "PMI_RANK" in report({"PMI_SIZE": "2"})
