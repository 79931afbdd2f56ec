# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Compiles the GPU kernels: one code object per target, and one with the traced products.

    python build_kernels.py iris_c/kernels                 whatever there are compilers for
    python build_kernels.py iris_c/kernels gfx942 sm_90a   these, or an error

The same source with the same compiler gives the same bytes, whatever the directory.

Environment:
    IRIS_C_GPU_TARGETS   "all" that there is a compiler for (default), "none", or a list as above
    IRIS_C_CLANG         clang++ for the gfx targets: 22 or newer, or ROCm's
    IRIS_C_NVCC          nvcc for sm_90a: 12.3 or newer; requirements-cuda.txt has one of PyPI
"""

from __future__ import annotations

import glob
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent
SOURCE = "csrc/kernels/gpu/gpu_kernels.hip"
GFX_TARGETS = ("gfx90a", "gfx942", "gfx950")
SM_TARGETS = ("sm_90a",)
TARGETS = (*GFX_TARGETS, *SM_TARGETS)
CUDA = "/usr/local/cuda"

# Code object version 5 is what ROCm 6 and 7 load. No device library is needed or used; without a
# fixed compilation unit id the object would carry a hash of the path.
CLANG_FLAGS = (
    "-x hip --offload-device-only --no-gpu-bundle-output -nogpulib -nogpuinc -std=c++17 -O3 "
    "-mcode-object-version=5 -fuse-cuid=none -Wall -Wextra"
).split()
NVCC_FLAGS = (
    "-x cu -cubin -gencode=arch=compute_90a,code=sm_90a -std=c++17 -O3 -Wno-deprecated-gpu-targets"
).split()
TRACED_FLAGS = ("-DIRIS_TRACED=1",)  # see csrc/kernels/protocol/trace.h


def find_clang() -> str | None:
    """The newest clang++ that knows all gfx targets."""
    if os.environ.get("IRIS_C_CLANG"):
        return os.environ["IRIS_C_CLANG"]
    names = [f"clang++-{version}" for version in range(30, 21, -1)]
    for name in (*names, "/opt/rocm/llvm/bin/clang++"):
        if shutil.which(name):
            return name
    return None


def find_cuda_tool(name: str) -> str | None:
    """Of the PATH, of CUDA's usual place, or of NVIDIA's packages on PyPI where this Python finds
    packages (requirements-cuda.txt)."""
    packaged = (
        found for place in sys.path for found in glob.glob(f"{place}/nvidia/cu[0-9]*/bin/{name}")
    )
    candidates = (name, f"{CUDA}/bin/{name}", *packaged)
    return next((candidate for candidate in candidates if shutil.which(candidate)), None)


def find_nvcc() -> str | None:
    return os.environ.get("IRIS_C_NVCC") or find_cuda_tool("nvcc")


def object_name(target: str, traced: bool = False) -> str:
    suffix = "cubin" if target in SM_TARGETS else "hsaco"
    return f"iris_{target}{'.traced' if traced else ''}.{suffix}"


def command(target: str, output, source=SOURCE, werror: bool = False, extra=()) -> list[str]:
    """The compiler's command line; relative paths are relative to the root of the tree."""
    if target in SM_TARGETS:
        compiler, flags = (
            find_nvcc(),
            [*NVCC_FLAGS, *(["-Werror", "all-warnings"] if werror else [])],
        )
    else:
        compiler = find_clang()
        flags = [*CLANG_FLAGS, f"--offload-arch={target}", *(["-Werror"] if werror else [])]
    if compiler is None:
        wanted = "nvcc 12.3" if target in SM_TARGETS else "clang++ 22"
        raise RuntimeError(f"{target}: no compiler; install {wanted} or newer")
    return [compiler, *flags, *extra, "-Icsrc", str(source), "-o", str(output)]


def chosen_targets() -> tuple[str, ...]:
    """What the environment asks for, else what there are compilers for."""
    asked = os.environ.get("IRIS_C_GPU_TARGETS", "all").replace(",", " ").split()
    if asked == ["none"]:
        return ()
    if asked == ["all"]:
        return (*(GFX_TARGETS if find_clang() else ()), *(SM_TARGETS if find_nvcc() else ()))
    unknown = [target for target in asked if target not in TARGETS]
    if unknown:
        raise ValueError(f"IRIS_C_GPU_TARGETS: expected some of {TARGETS}, got {unknown}")
    return tuple(asked)


def build(directory, targets=None, werror: bool = False, jobs: int | None = None) -> list[str]:
    """Compiles `targets` into `directory`; returns the files' names. Raises RuntimeError."""
    targets = chosen_targets() if targets is None else tuple(targets)
    directory = pathlib.Path(directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)

    def compile_one(job: tuple[str, bool]) -> str:
        target, traced = job
        name = object_name(target, traced)
        extra = TRACED_FLAGS if traced else ()
        line = command(target, directory / name, werror=werror, extra=extra)
        print(shlex.join(line), flush=True)
        if subprocess.run(line, cwd=ROOT).returncode != 0:
            raise RuntimeError(f"{target}: the compiler failed")
        return name

    # nvcc, the slowest, first.
    order = sorted(targets, key=lambda target: target not in SM_TARGETS)
    objects = [(target, traced) for target in order for traced in (False, True)]
    with ThreadPoolExecutor(max_workers=jobs or os.cpu_count() or 1) as pool:
        return list(pool.map(compile_one, objects))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print("built:", *build(sys.argv[1], sys.argv[2:] or None) or ["nothing: no GPU compiler"])
