# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Tensors in an emulated GPU's memory, as a torch built for ROCm would pass them.

The memory is mapped into the process, so a torch.Tensor on the cpu can look at it; what is passed
to iris_c is a `DeviceTensor`, which says through DLPack's C exchange table that it lies on a ROCm
device, and which stream is the current one.
"""

from __future__ import annotations

import contextlib
import ctypes

import torch

ROCM = 10
CODES = {
    torch.float32: (2, 32), torch.float16: (2, 16), torch.bfloat16: (4, 16),
    torch.float64: (2, 64), torch.int32: (0, 32), torch.int64: (0, 64),
    torch.uint8: (1, 8), torch.bool: (6, 8), torch.int8: (0, 8), torch.complex64: (5, 64),
    torch.float8_e4m3fn: (10, 8), torch.float8_e4m3fnuz: (11, 8),
    torch.float8_e5m2: (12, 8), torch.float8_e5m2fnuz: (13, 8),
}  # fmt: skip


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


_DESCRIBE = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(_Tensor))
_STREAM = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p)
)
_current_stream = None


@_DESCRIBE
def _describe(tensor, out):
    view = tensor.view
    code, bits = CODES[view.dtype]
    out[0] = _Tensor(
        view.data_ptr(), ROCM, tensor.device_id, view.dim(), code, bits, 1,
        ctypes.addressof(tensor.sizes), ctypes.addressof(tensor.steps), 0,
    )  # fmt: skip
    return 0


@_STREAM
def _stream(device_type, device_id, out):
    out[0] = _current_stream
    return 0


class _Exchange(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("previous", ctypes.c_void_p),
        ("unused", ctypes.c_void_p * 3), ("describe", _DESCRIBE), ("stream", _STREAM),
    )  # fmt: skip


_exchange = _Exchange(1, 3, None, (ctypes.c_void_p * 3)(), _describe, _stream)
_name = ctypes.create_string_buffer(b"dlpack_exchange_api")  # a capsule keeps the pointer
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class DeviceTensor:
    """A view of device memory, named after the torch tensor that looks at it."""

    __dlpack_c_exchange_api__ = _new_capsule(
        ctypes.addressof(_exchange), ctypes.addressof(_name), None
    )

    def __init__(self, view: torch.Tensor, device_id: int):
        self.view, self.device_id = view, device_id
        self.sizes = (ctypes.c_int64 * max(view.dim(), 1))(*view.shape)
        self.steps = (ctypes.c_int64 * max(view.dim(), 1))(*view.stride())


@contextlib.contextmanager
def stream(handle):
    """Makes it the current one."""
    global _current_stream
    _current_stream = handle
    try:
        yield
    finally:
        _current_stream = None


def _look_at(address: int, sizes, dtype) -> torch.Tensor:
    count = 1
    for size in sizes:
        count *= size
    nbytes = max(count * dtype.itemsize, 1)
    memory = (ctypes.c_ubyte * nbytes).from_address(address)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(sizes) if count else (
        torch.empty(sizes, dtype=dtype)
    )  # fmt: skip


class Memory:
    """A rank's memory on its emulated GPU: the heap, the local arena, and ordinary allocations."""

    def __init__(self, ctx, library):
        self.ctx, self.library = ctx, library
        self.base = ctx._heap_bases()[ctx.rank]
        self.buffers, self.allocations = [], []

    def heap(self, *sizes, dtype) -> torch.Tensor:
        """Symmetric memory; collective."""
        buffer = self.ctx.allocate(sizes, dtype)
        self.buffers.append(buffer)
        return _look_at(self.base + buffer.offset, sizes, dtype)

    def local(self, *sizes, dtype) -> torch.Tensor:
        """Memory of this rank's arena."""
        buffer = self.ctx.allocate_local(sizes, dtype)
        self.buffers.append(buffer)
        return _look_at(self.base + buffer.offset, sizes, dtype)

    def ordinary(self, *sizes, dtype) -> torch.Tensor:
        pointer = ctypes.c_void_p()
        nbytes = dtype.itemsize
        for size in sizes:
            nbytes *= size
        result = self.library.hipMalloc(ctypes.byref(pointer), ctypes.c_size_t(max(nbytes, 1)))
        assert result == 0
        self.allocations.append(pointer)
        return _look_at(pointer.value, sizes, dtype)

    def passed(self, view: torch.Tensor | None) -> DeviceTensor | None:
        """What to give to iris_c for a view of this memory."""
        return None if view is None else DeviceTensor(view, self.ctx.device_id)

    def release(self) -> None:
        self.library.hipDeviceSynchronize()
        self.buffers.clear()
        for pointer in self.allocations:
            assert self.library.hipFree(pointer) == 0
        self.allocations.clear()
