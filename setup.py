# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Builds iris_c._C, the one extension module of the package.

One cp311-abi3 library holds the CPython layer, the runtime, the devices and the host build of the
kernels. C and C++ need different flags, so build_ext compiles file by file (in parallel) before it
links. No GPU toolkit is needed: drivers are opened at run time. Where there are compilers for GPUs
the package also gets code objects (build_kernels.py); without, it has the cpu backend only.

Environment:
    IRIS_C_WERROR=1                      warnings are errors
    IRIS_C_SANITIZE=address,undefined    (or thread) instrument with sanitizers, -O1 -g1
    IRIS_C_BUILD_JOBS=N                  compile N files at a time (default: the number of cores)
    IRIS_C_GPU_TARGETS                   see build_kernels.py; "none" builds for the cpu alone
    CC, CXX, CFLAGS, LDFLAGS             as usual
"""

import glob
import os
import pathlib
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # not there in isolated builds
import build_kernels

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1 takes it from the wheel package
    from wheel.bdist_wheel import bdist_wheel

LIMITED_API = "0x030B0000"
COMMON_FLAGS = ["-O3", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"]
C_FLAGS = ["-std=c11", "-D_GNU_SOURCE"]
CXX_FLAGS = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"]
SOURCE_PATTERNS = ["csrc/**/*.c", "csrc/**/*.cpp"]
HEADER_PATTERNS = ["csrc/**/*.h", "csrc/**/*.hip", "csrc/**/*.def"]


def files(patterns):
    return sorted(path for pattern in patterns for path in glob.glob(pattern, recursive=True))


def build_type_flags():
    """Sanitized builds keep their assertions, others drop them."""
    sanitizers = os.environ.get("IRIS_C_SANITIZE", "")
    if not sanitizers:
        return ["-DNDEBUG"]
    # Line numbers are all that a report needs, and take half as long as -g.
    return [f"-fsanitize={sanitizers}", "-g1", "-O1", "-fno-omit-frame-pointer"]


class BuildExt(build_ext):
    """Compiles each source with its language's flags, several at a time."""

    def build_extensions(self):
        c = shlex.split(os.environ.get("CC", "cc"))
        cxx = shlex.split(os.environ.get("CXX", "c++"))
        extra = shlex.split(os.environ.get("CFLAGS", ""))
        werror = ["-Werror"] if os.environ.get("IRIS_C_WERROR", "0") not in ("", "0") else []
        common = [*COMMON_FLAGS, "-fPIC", *werror, *build_type_flags(), *extra]
        self.commands = {
            ".c": [*c, *C_FLAGS, *common],
            ".cpp": [*cxx, *CXX_FLAGS, *common],
        }
        link = [*c, "-shared", "-pthread", *build_type_flags()]
        self.compiler.set_executables(
            linker_so=link, linker_so_cxx=link, compiler_so=c, compiler_so_cxx=cxx
        )
        self.compiler._compile = self._compile_one
        self.compiler.compile = self._compile_all
        super().build_extensions()

    def run(self):
        super().run()
        self._build_kernels(os.environ.get("IRIS_C_WERROR", "0") not in ("", "0"))

    def _build_kernels(self, werror):
        """Code objects beside the extension, wherever that is."""
        root = pathlib.Path() if self.inplace else pathlib.Path(self.build_lib)
        directory = root / "iris_c" / "kernels"
        jobs = int(os.environ.get("IRIS_C_BUILD_JOBS") or 0) or None
        try:
            built = build_kernels.build(directory, werror=werror, jobs=jobs)
        except RuntimeError as error:
            raise CompileError(str(error)) from error
        names = ", ".join(built) if built else "none: this build has the cpu backend only"
        print(f"iris_c: GPU code objects: {names}", flush=True)

    def _compile_one(self, obj, src, ext, cc_args, extra_postargs, pp_opts):
        command = [*self.commands[ext], *pp_opts, "-c", src, "-o", obj, *(extra_postargs or [])]
        print(shlex.join(command), flush=True)
        try:
            subprocess.run(command, check=True)
        except (subprocess.CalledProcessError, OSError) as error:
            raise CompileError(str(error)) from error

    def _compile_all(self, sources, output_dir=None, macros=None, include_dirs=None, debug=0,
                     extra_preargs=None, extra_postargs=None, depends=None):  # fmt: skip
        macros, objects, extra_postargs, pp_opts, build = self.compiler._setup_compile(
            output_dir, macros, include_dirs, sources, depends, extra_postargs
        )
        jobs = int(os.environ.get("IRIS_C_BUILD_JOBS") or self.parallel or os.cpu_count() or 1)
        with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
            done = [
                pool.submit(self._compile_one, obj, *build[obj], [], extra_postargs, pp_opts)
                for obj in objects
                if obj in build
            ]
            for future in done:
                future.result()
        return objects


class BdistWheel(bdist_wheel):
    """Tags the wheel cp311-abi3: the extension uses the limited API only."""

    def get_tag(self):
        _, _, platform = super().get_tag()
        return "cp311", "abi3", platform


setup(
    ext_modules=[
        Extension(
            "iris_c._C",
            sources=files(SOURCE_PATTERNS),
            depends=files(HEADER_PATTERNS) + ["setup.py"],
            include_dirs=["csrc"],
            define_macros=[("Py_LIMITED_API", LIMITED_API)],
            py_limited_api=True,
            language="c",  # links with the C compiler: the kernels need no C++ library
            libraries=["dl", "rt", "m"],
        )
    ],
    cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
