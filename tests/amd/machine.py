# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The emulated GPU from Python: builds the test double of libamdhip64, and drives it by itself."""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import subprocess
import tempfile

import amd_objects
import numpy
import program

HERE = pathlib.Path(__file__).resolve().parent
ARCHES = ("gfx90a", "gfx942", "gfx950")
FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-march=native", "-ffp-contract=off",
    "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden",
    "-shared", "-Wl,-z,defs",
)  # fmt: skip
# What a process that has it open loads by HIP's name, and what it does not.
HIP_LIBRARY, OWN_LIBRARY = "libamdhip64.so", "libemulator.so"


def build(directory) -> pathlib.Path:
    """HIP_LIBRARY in the folder, made from emulator/, and OWN_LIBRARY beside it."""
    cc = os.environ.get("CC", "cc")
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    objects = []
    for source in sorted((HERE / "emulator").glob("*.c")):
        objects.append(str(directory / f"{source.stem}.o"))
        subprocess.run([cc, *FLAGS[:-2], "-c", str(source), "-o", objects[-1]], check=True)
    for name in (HIP_LIBRARY, OWN_LIBRARY):
        subprocess.run(
            [cc, *FLAGS, f"-Wl,-soname,{name}", *objects, "-o", str(directory / name),
             "-lm", "-lpthread"],
            check=True,
        )  # fmt: skip
    return directory / HIP_LIBRARY


def assemble(text: str, arch: str, path) -> None:
    """Assembles a code object."""
    with tempfile.TemporaryDirectory() as directory:
        compiled = os.path.join(directory, "object.o")
        subprocess.run(
            [amd_objects.tool("llvm-mc"), "-triple=amdgcn-amd-amdhsa", f"-mcpu={arch}",
             "-filetype=obj", "-o", compiled],
            input=text, text=True, check=True,
        )  # fmt: skip
        subprocess.run(
            [amd_objects.tool("ld.lld"), "-shared", compiled, "-o", str(path)], check=True
        )


def object_text(kernels, arch: str, arguments: int = 8, lds: int = 0) -> str:
    """Assembly of an object with kernels given as (name, body): s[0:1] point to `arguments` bytes
    of arguments, s2 is the work-group's number, v0 the work-item's."""
    code, metadata = [], []
    for name, body in kernels:
        code.append(f"""
.text
.globl {name}
.p2align 8
.type {name},@function
{name}:
{body}
.size {name}, .-{name}
.rodata
.p2align 6
.amdhsa_kernel {name}
.amdhsa_group_segment_fixed_size {lds}
.amdhsa_kernarg_size {arguments}
.amdhsa_user_sgpr_count 2
.amdhsa_user_sgpr_kernarg_segment_ptr 1
.amdhsa_next_free_vgpr 512
.amdhsa_next_free_sgpr 96
.amdhsa_accum_offset 256
.end_amdhsa_kernel
""")
        metadata.append(f"""  - .agpr_count: 0
    .args:
      - .offset: 0
        .size: {arguments}
        .value_kind: by_value
    .group_segment_fixed_size: {lds}
    .kernarg_segment_align: 8
    .kernarg_segment_size: {arguments}
    .max_flat_workgroup_size: 1024
    .name: {name}
    .private_segment_fixed_size: 0
    .sgpr_count: 96
    .symbol: {name}.kd
    .vgpr_count: 512
    .wavefront_size: 64
""")
    return (
        f'.amdgcn_target "amdgcn-amd-amdhsa--{arch}"\n'
        + "".join(code)
        + ".amdgpu_metadata\n---\namdhsa.version: [1, 2]\namdhsa.kernels:\n"
        + "".join(metadata)
        + "...\n.end_amdgpu_metadata\n"
    )


def kernel_names(path) -> list[str]:
    return list(amd_objects.metadata(path))


class HipError(RuntimeError):
    """A HIP call did not succeed."""


class Machine:
    """An emulated GPU in this process."""

    def __init__(self, library, programs, arch: str, **environment):
        self.arch, self.programs = arch, str(programs)
        self.environment = {
            "EMULATOR_ARCH": arch,
            "EMULATOR_PROGRAMS": self.programs,
            "EMULATOR_ADVERSARIAL": "0",
            "EMULATOR_ORDER": "",
            "EMULATOR_SEED": "1",
            "EMULATOR_IDLE_ROUNDS": "2000",
            **environment,
        }
        # By a name of its own, lest the backends of this process find a GPU.
        self.library = ctypes.CDLL(str(pathlib.Path(library).with_name(OWN_LIBRARY)))
        self.library.hipGetErrorName.restype = ctypes.c_char_p
        self.allocations, self.modules = [], []
        os.environ.update(self.environment)
        self.library.emulator_reset()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.library.hipDeviceSynchronize()
        for address in self.allocations:
            self.library.hipFree(ctypes.c_void_p(address))
        for module in self.modules:
            self.library.hipModuleUnload(module)
        self.library.emulator_reset()
        for name in self.environment:
            os.environ.pop(name, None)

    def call(self, name: str, *arguments) -> None:
        result = getattr(self.library, name)(*arguments)
        if result != 0:
            raise HipError(f"{name}: {self.library.hipGetErrorName(result).decode()}")

    def array(self, values) -> numpy.ndarray:
        """A copy of the values in device memory, as an array over it."""
        values = numpy.ascontiguousarray(values)
        pointer = ctypes.c_void_p()
        self.call("hipMalloc", ctypes.byref(pointer), ctypes.c_size_t(max(values.nbytes, 1)))
        self.allocations.append(pointer.value)
        memory = (ctypes.c_ubyte * max(values.nbytes, 1)).from_address(pointer.value)
        array = numpy.frombuffer(memory, dtype=values.dtype, count=values.size)
        array = array.reshape(values.shape)
        array[...] = values
        return array

    @functools.cache  # noqa: B019 - lives as long as the test
    def module(self, path):
        program.prepare(path, self.programs)
        module = ctypes.c_void_p()
        image = ctypes.create_string_buffer(pathlib.Path(path).read_bytes())
        self.call("hipModuleLoadData", ctypes.byref(module), image)
        self.modules.append(module)
        return module

    def launch(self, path, name: str, arguments: bytes, groups: int = 1, block: int = 64) -> None:
        """Queues a kernel with one argument, these bytes."""
        function = ctypes.c_void_p()
        self.call("hipModuleGetFunction", ctypes.byref(function), self.module(path), name.encode())
        content = ctypes.create_string_buffer(arguments, len(arguments))
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(content))
        self.call(
            "hipModuleLaunchKernel", function, groups, 1, 1, block, 1, 1, 0, None, parameters, None
        )

    def synchronize(self) -> None:
        self.call("hipDeviceSynchronize")


def address(array: numpy.ndarray) -> int:
    return array.__array_interface__["data"][0]
