# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Producers of tensor descriptions that say what a test wants them to say, right or wrong."""

from __future__ import annotations

import ctypes
import importlib.util
import sysconfig

import programs

CPU, CUDA = 1, 2
INT, UINT, FLOAT, BFLOAT, COMPLEX, BOOL = 0, 1, 2, 4, 5, 6
READ_ONLY, IS_COPIED = 1, 2


class Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("type_code", ctypes.c_uint8), ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


class Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = [("tensor", Tensor), ("owner", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("owner", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", Tensor),
    ]  # fmt: skip


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def _int64s(values):
    return None if values is None else (ctypes.c_int64 * max(len(values), 1))(*values)


class DLPack:
    """Exports the memory at `data`, row-major float32 unless the fields say otherwise."""

    def __init__(self, data, shape, strides=None, *, versioned=True, name=None, major=1, minor=0,
                 flags=0, ndim=None, type_code=FLOAT, type_bits=32, type_lanes=1, byte_offset=0,
                 device_type=CPU, device_id=0):  # fmt: skip
        self._arrays = _int64s(shape), _int64s(strides)
        pointers = [
            ctypes.cast(array, ctypes.POINTER(ctypes.c_int64)) if array else None
            for array in self._arrays
        ]
        tensor = Tensor(
            data, device_type, device_id, len(shape or ()) if ndim is None else ndim, type_code,
            type_bits, type_lanes, *pointers, byte_offset,
        )  # fmt: skip
        if versioned:
            self._managed = Versioned(major, minor, None, None, flags, tensor)
        else:
            self._managed = Managed(tensor, None, None)
        self._name = name or (b"dltensor_versioned" if versioned else b"dltensor")

    def __dlpack__(self, **_):
        return _new_capsule(ctypes.addressof(self._managed), self._name, None)


def buffer_exporter(folder):
    """The type `Exporter` of buffer_exporter.c, compiled into the folder."""
    library = folder / f"buffer_exporter{sysconfig.get_config_var('EXT_SUFFIX')}"
    source = programs.ROOT / "tests/native/buffer_exporter.c"
    include = sysconfig.get_paths()["include"]
    programs.run(
        [*programs.compilers()[0], "-shared", "-fPIC", "-O1", f"-I{include}", str(source)]
        + ["-o", str(library)]
    )
    spec = importlib.util.spec_from_file_location("buffer_exporter", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Exporter
