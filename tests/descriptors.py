# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What a process has open. A GPU's driver opens files, pipes and events when it likes."""

import contextlib
import os

ON_GPU = os.environ.get("IRIS_C_BACKEND", "cpu") != "cpu"


def open_descriptors() -> list[str]:
    """What each descriptor stands for; beside a driver, of those that can only be the package's."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing is closed
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    if ON_GPU:
        links = [link for link in links if link.startswith(("socket:", "/memfd:iris_c"))]
    return sorted(links)
