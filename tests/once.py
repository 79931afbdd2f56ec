# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What several of the processes that test need, and takes long to make, one of them makes."""

import fcntl
import pathlib


def made_once(target: pathlib.Path, make) -> pathlib.Path:
    """The file or folder `target`, which is there only when it is whole: make(path) makes it,
    unless another process has or is about to."""
    with open(target.with_name(f"{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            part = target.with_name(f"{target.name}.part")
            make(part)
            part.replace(target)
    return target
