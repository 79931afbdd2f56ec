# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""iris_c as a backend of torch.distributed: any program of it, DDP and FSDP too, unchanged.

>>> import torch.distributed as dist
>>> import iris_c.torch.backend
>>> dist.init_process_group("iris")  # doctest: +SKIP

"cpu:gloo,cuda:iris" and the like have other devices' tensors go elsewhere. Each process group has
a context of its own for the tensors of each device, made at the first collective with such
tensors. What it does not do itself, torch's own backends do (fallback.py), and the logger "iris_c"
says so at the level DEBUG. docs/torch.md has the list.
"""

import torch.distributed as _dist

from iris_c.torch.backend.group import ProcessGroupIris, create
from iris_c.torch.backend.options import Options

__all__ = ["Options", "ProcessGroupIris"]

NAME = "iris"
_dist.Backend.register_backend(NAME, create, extended_api=True, devices=["cpu", "cuda"])
