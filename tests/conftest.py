# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Every test must leave the machine as it found it."""

import multiprocessing.util
import os
import shutil
import signal
import tempfile

import pytest
from descriptors import ON_GPU, open_descriptors

import iris_c
from iris_c.testing import RankFailure

# What a shell starts in the background ignores SIGINT, and so would all processes of this one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Folders with files that take minutes: begun late, one would leave the other processes idle.
FIRST = ("protocol", "native", "amd", "kernels", "examples")


def pytest_collection_modifyitems(items):
    def place(item):
        folder = item.path.parent.name
        return FIRST.index(folder) if folder in FIRST else len(FIRST)

    items.sort(key=place)
    # pytest-xdist's processes must name a test alike.
    addresses = [item.nodeid for item in items if " at 0x" in item.nodeid]
    assert not addresses, f"tests named by an object's address: {addresses[:3]}"


NO_DEVICE = "has no device, the driver sees"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A rank for which there is no GPU is no fault."""
    try:
        return (yield)
    except (RankFailure, iris_c.BackendError) as error:
        if ON_GPU and NO_DEVICE in str(error):
            pytest.skip("it takes more GPUs than there are, or one that all ranks share")
        raise


@pytest.fixture(autouse=True)
def enough_devices(request):
    """Saves the tests that say how many ranks they have the time that the others wait."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    if not ON_GPU or not isinstance(parameters.get("world_size"), int):
        return
    import torch

    if 1 < torch.cuda.device_count() < parameters["world_size"]:
        pytest.skip(f"for {parameters['world_size']} GPUs; there are {torch.cuda.device_count()}")


def _shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


@pytest.fixture(scope="session", autouse=True)
def driver_is_up():
    """Under torchrun the ranks are this process: what a GPU's driver opens, it opens for good."""
    if os.environ.get("IRIS_C_TEST_TORCHRUN") == "1" and os.environ.get("IRIS_C_BACKEND") == "cuda":
        import torch

        local_rank = int(os.environ["LOCAL_RANK"])
        torch.zeros(1, device=f"cuda:{local_rank % torch.cuda.device_count()}")


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all processes that test share: see once.py."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory, shared):
    """A folder for the temporary files of this process and of the processes that it starts. Its
    path is short because sockets lie in it, and their paths are limited. The workers of one run of
    pytest share one cache of torch.compile. An earlier run's cache is not used, since it could
    hold code for another version of iris_c. Under torchrun each rank is a process of its own, and
    the ranks have to share their temporary folder, so nothing is changed."""
    if os.environ.get("IRIS_C_TEST_TORCHRUN") == "1":
        yield None
        return
    folder = tempfile.mkdtemp(prefix="iris_c-tests-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(shared / "inductor"))
    # Nor does it compile programs to find out what the cpu's vectors can do.
    os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")
    # Behind multiprocessing, which takes its own folder away when the process ends.
    multiprocessing.util.Finalize(
        None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-200
    )
    yield folder


def _temporary_files(folder: str | None) -> set[str]:
    """But the folders of the fork server and of torch.compile's headers, which stay for the next
    test and go with the process."""
    if folder is None:
        return set()
    stays = ("pymp-", "torchinductor_")
    return {name for name in os.listdir(folder) if not name.startswith(stays)}


@pytest.fixture(autouse=True)
def nothing_left_behind(temporary):
    """No shared memory, no temporary files, and no growing number of file descriptors in this
    process."""
    shared, descriptors = _shared_memory(), len(open_descriptors())
    files = _temporary_files(temporary)
    yield
    left = _temporary_files(temporary) - files
    assert not left, f"left among the temporary files: {left}"
    # The fork server, started by the first multi-rank test, holds a few descriptors from then on.
    grown = len(open_descriptors()) - descriptors
    assert grown <= 8, f"{grown} file descriptors were left open"
    left = {name for name in _shared_memory() - shared if "iris" in name}
    assert not left, f"left in /dev/shm: {left}"
