# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The emulator, built once, and the code objects of the installed package, decoded once."""

import os
import pathlib

import amd_objects
import gpus
import machine
import program
import pytest


def pytest_collection_modifyitems(items):
    """Without the tools or the code objects there is nothing to run."""
    missing = [tool for tool in ("llvm-objdump", "llvm-readelf", "llvm-mc", "ld.lld")
               if amd_objects.tool(tool) is None]  # fmt: skip
    missing += [
        f"iris_{arch}.hsaco" for arch in machine.ARCHES
        if not (gpus.KERNELS / f"iris_{arch}.hsaco").exists()
    ]  # fmt: skip
    here = pathlib.Path(__file__).parent
    for item in items:
        if missing and here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The test double of libamdhip64."""
    return machine.build(tmp_path_factory.mktemp("hip"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """The folder of decoded code objects, which all processes that test share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "programs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def emulated(library, programs):
    """``emulated(arch, **behaviour)``: GPUs that run the installed package's code objects."""

    def make(arch, kernels=gpus.KERNELS, **behaviour):
        program.prepare(pathlib.Path(kernels) / f"iris_{arch}.hsaco", programs)
        return gpus.Gpus(library, programs, kernels, arch, **behaviour)

    return make
