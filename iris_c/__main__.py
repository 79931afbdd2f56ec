# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""``python -m iris_c``: prints the environment, for bug reports."""

import os
import platform
import sys
from importlib import metadata

import iris_c
from iris_c import _C
from iris_c.environment import KERNEL_DIRECTORY, default_num_threads


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _code_objects() -> str:
    """The GPU code objects that this build has."""
    names = os.listdir(KERNEL_DIRECTORY) if os.path.isdir(KERNEL_DIRECTORY) else []
    return ", ".join(sorted(names)) or "none: this build has the cpu backend only"


def report() -> dict:
    """What a bug report should say, in order."""
    try:
        threads = str(default_num_threads(1))
    except ValueError as error:
        threads = str(error)
    return {
        "iris_c": iris_c.__version__,
        "extension": _C.__file__,
        "backends": ", ".join(_C.backends()),
        "code objects": _code_objects(),
        "cpu ISA": _C.cpu_isa(),
        "cpu threads": threads,
        "python": f"{platform.python_version()} ({sys.executable})",
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "system": f"{platform.platform()}, {os.cpu_count()} cores",
        "environment": " ".join(
            f"{name}={value}"
            for name, value in sorted(os.environ.items())
            if name.startswith(("IRIS_C_", "TORCHELASTIC_"))
            or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
        )
        or "-",
    }


if __name__ == "__main__":
    for key, value in report().items():
        print(f"{key:<12} {value}")
