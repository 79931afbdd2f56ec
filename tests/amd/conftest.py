# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The emulator, built once, and the code objects of the installed package, decoded once."""

import os
import pathlib
import shutil
import tempfile

import amd_objects
import gpus
import instruction_table
import machine
import program
import pytest
from once import made_once


def pytest_configure(config):
    """`make test-amd` counts what runs: the processes that test inherit the folder's name."""
    if "IRIS_C_TEST_AMD_SEEDS" in os.environ and not hasattr(config, "workerinput"):
        os.environ["EMULATOR_COUNTS"] = tempfile.mkdtemp(prefix="iris_c-counts-")


def pytest_terminal_summary(terminalreporter, config):
    counts = os.environ.get("EMULATOR_COUNTS")
    if counts is None or hasattr(config, "workerinput"):
        return
    if os.listdir(counts):
        library = machine.build(pathlib.Path(counts) / "hip")
        terminalreporter.section("instructions that ran on emulated GPUs")
        for line in instruction_table.lines(counts, library):
            terminalreporter.write_line(line)
    shutil.rmtree(counts)


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
def library(shared):
    """The test double of libamdhip64."""
    return made_once(shared / "hip", machine.build) / machine.HIP_LIBRARY


@pytest.fixture(scope="session")
def programs(shared):
    """The folder of decoded code objects."""
    folder = shared / "programs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def emulated(library, programs):
    """``emulated(arch, **behaviour)``: GPUs that run the installed package's code objects, or what
    a `mutated` folder of programs makes of them."""

    def make(arch, mutated=None, **behaviour):
        if mutated is None:
            program.prepare(gpus.KERNELS / f"iris_{arch}.hsaco", programs)
        return gpus.Gpus(library, mutated or programs, gpus.KERNELS, arch, **behaviour)

    return make
