# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Products by a vendor's library, with stand-ins for cuBLASLt and hipBLASLt over host memory."""

import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = (
    "csrc/device/gpu_blas.c",
    "csrc/device/blas_library.c",
    "csrc/device/gpu_device.c",
    "csrc/device/gpu_driver.c",
    "csrc/device/mapped_library.c",
    "csrc/base/process.c",
    "csrc/base/status.c",
)


@pytest.mark.parametrize(
    ("platform", "name"), [("cuda", "libcublasLt.so.13"), ("hip", "libhipblaslt.so.1")]
)
def test_products_of_a_vendors_library(tmp_path, platform, name):
    native = ROOT / "tests/native"
    defines = ["-DHIP"] if platform == "hip" else []
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", *defines, f"-Wl,-soname,{name}",
         str(native / "blas_stand_in.c"), "-o", str(tmp_path / name)],
        check=True,
    )  # fmt: skip
    program = tmp_path / "program"
    subprocess.run(
        ["cc", "-std=c11", "-D_GNU_SOURCE", "-g1", "-O1", "-Wall", "-Wextra", "-Werror",
         "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", f"-I{ROOT / 'csrc'}",
         str(native / "test_gpu_blas.c"), *(str(ROOT / part) for part in PARTS), "-pthread",
         "-ldl", "-o", str(program)],
        check=True,
    )  # fmt: skip
    subprocess.run([str(program), str(tmp_path / name), platform], check=True, timeout=100)
