# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch's own tests of a backend, which come with torch, on this one.

They are written for one test in each set of processes; here all run in one, on a group that is made
once. What torch lets only gloo be tested by is run too: the module is told that it is gloo's.
"""

import contextlib
import functools
import io
import os
import pathlib
import random
import sys
import types
import unittest

import numpy
import torch
import torch.distributed as dist
from process_groups import distributed, starts_ranks

import iris_c.torch.backend  # noqa: F401 - it is the backend's registration
from iris_c.testing import run_ranks

pytestmark = starts_ranks

# Parts of names, and why those tests are not run. Others leave themselves out: they want GPUs, or
# are disabled by torch.
LEFT_OUT = {
    "cuda": "of GPUs",
    "nccl": "of NCCL alone",
    "batch_isend_irecv_mixed_backend_err": "it makes a group of NCCL's",
    "batch_isend_irecv_op_err": "of GPUs",
    "monitored_barrier": "torch refuses it on every backend but gloo: see test_backend_faults.py",
    "barrier_timeout_global": "it begins torch.distributed anew, on gloo",
    "get_backend": "it expects the name gloo",
    "SyncBatchNorm": "it wants torchvision",
}
LEAST = 115  # that have run: neither left out nor skipped


@functools.cache
def suite(folder):
    """torch's tests as methods of a class, which read what is to be tested in the environment."""
    os.environ.update(BACKEND="gloo", TEMP_DIR=folder)
    # torch's helpers import it; these tests do not use it.
    helper = types.ModuleType("expecttest")
    helper.TestCase = unittest.TestCase
    helper.assert_expected_inline = None
    sys.modules.setdefault("expecttest", helper)
    from torch.testing._internal.distributed import distributed_test

    os.environ["BACKEND"] = "mpi"  # else tests of subgroups want eight ranks
    base = distributed_test.DistributedTest._DistTestBase

    class Suite(distributed_test.TestDistBackend, base):
        def setUp(self):
            """Processes and folders are there already."""

        def run_one(self):
            getattr(base, self._testMethodName)(self)

    return Suite


@distributed(backend="iris")
def _all(rank, folder):
    outcomes = {}
    kind = suite(folder)
    for name in sorted(name for name in dir(kind) if name.startswith("test_")):
        if any(part in name for part in LEFT_OUT):
            continue
        test = kind(name)
        test.rank, test.file_name = rank, f"{folder}/file"
        torch.manual_seed(0)  # they count on equal numbers on all ranks
        numpy.random.seed(0)
        random.seed(0)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                test.run_one()
        except unittest.SkipTest:
            continue
        except SystemExit:  # torch's way to skip in a process that is the test's own
            continue
        except Exception as error:
            error.add_note(f"in {name}")
            raise
        assert dist.get_backend() == "iris", name
        dist.barrier()
        outcomes[name] = True
    (pathlib.Path(folder) / f"run by {rank}").write_text("\n".join(outcomes))


def test_torchs_own_tests(tmp_path):
    for name in ("barrier", "test_dir"):
        (tmp_path / name).mkdir()
    run_ranks((__name__, "_all"), 4, str(tmp_path / "store"), str(tmp_path), deadline=240)
    run = (tmp_path / "run by 0").read_text().split("\n")
    assert len(run) >= LEAST, run
    for part in ("all_reduce", "all_gather", "all_to_all", "all_gather_object",
                 "send_recv_any_source", "DistributedDataParallel"):  # fmt: skip
        assert any(part in name for name in run), part
