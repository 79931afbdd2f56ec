# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What tests of one rank share: dtypes, and new interpreters."""

import os
import subprocess
import sys

import torch

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ALL_DTYPES = [
    *DTYPES,
    torch.float64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
NOT_OF_NUMPY = [dtype for dtype in ALL_DTYPES if "float8" in str(dtype) or dtype == torch.bfloat16]


def run_python(arguments, **options):
    """A new interpreter that imports what this one imports, not what lies in its directory."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, "-P", *arguments], env={**os.environ, "PYTHONPATH": path}, **options
    )
