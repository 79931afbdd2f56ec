# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Makes tensors of heap memory and gives them their first values.

Two classes with the same methods: one for torch, one for numpy where torch is not installed. The
torch one calls torch's own creation functions with ``out=``, so that a seed gives the numbers it
gives there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from iris_c import _C
from iris_c.typing import DType, HeapTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

__all__ = ["NumpyFiller", "TorchFiller"]


class TorchFiller:
    """Symmetric torch.Tensors."""

    def __init__(self, torch: ModuleType) -> None:
        self.torch = torch

    def device(self, ctx: _C.Context) -> Any:  # a torch.device
        if ctx.backend == "cpu":
            return self.torch.device("cpu")
        return self.torch.device("cuda", ctx.device_id)

    def addresses(self, ctx: _C.Context, values: Sequence[int]) -> HeapTensor:
        return self.torch.tensor(values, dtype=self.torch.int64, device=self.device(ctx))

    def default_dtype(self) -> DType:
        return self.torch.get_default_dtype()

    def integer_dtype(self) -> DType:
        return self.torch.int64

    def dtype_of(self, value: Any) -> DType:
        if isinstance(value, bool):
            return self.torch.bool
        return self.torch.int64 if isinstance(value, int) else self.default_dtype()

    def tensor(
        self,
        ctx: _C.Context,
        size: Sequence[int],
        dtype: DType,
        device: Any,
        layout: Any,
        local: bool = False,
    ) -> HeapTensor:
        own = self.device(ctx)
        if device is not None:
            wanted = self.torch.device(device)
            if wanted.type != own.type or (wanted.index or 0) != (own.index or 0):
                raise ValueError(f"device: expected {own}, the context's, got {wanted}")
        if layout is not None and layout != self.torch.strided:
            raise ValueError(f"layout: expected torch.strided, got {layout}")
        allocate = ctx.allocate_local if local else ctx.allocate
        buffer = allocate(size, self.default_dtype() if dtype is None else dtype)
        return self.torch.from_dlpack(buffer)

    def finish(self, tensor: HeapTensor, requires_grad: bool) -> HeapTensor:
        return tensor.requires_grad_() if requires_grad else tensor

    def full(self, tensor: HeapTensor, value: Any) -> None:
        tensor.fill_(value)

    def source(self, tensor: Any) -> Any:
        """`tensor` as one that can be copied. TypeError, ValueError naming the argument."""
        if isinstance(tensor, self.torch.Tensor):
            if tensor.layout != self.torch.strided:
                raise ValueError(f"tensor: expected a strided tensor, got {tensor.layout}")
            return tensor
        if isinstance(tensor, type) or not hasattr(tensor, "__dlpack__"):
            raise TypeError(f"tensor: expected a tensor, got {type(tensor).__name__}")
        try:
            return self.torch.from_dlpack(tensor)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"tensor: expected one that torch can use, but: {reason}") from error

    def copy(self, tensor: HeapTensor, source: Any) -> None:
        with self.torch.no_grad():
            tensor.copy_(source)

    def uniform(self, tensor: HeapTensor, low: float, high: float, generator: Any) -> None:
        tensor.uniform_(low, high, generator=generator)

    def normal(self, tensor: HeapTensor, generator: Any) -> None:
        self.torch.randn(tensor.shape, generator=generator, out=tensor, device=tensor.device)

    def integers(self, tensor: HeapTensor, low: int, high: int, generator: Any) -> None:
        self.torch.randint(
            low, high, tensor.shape, generator=generator, out=tensor, device=tensor.device
        )

    def arange_count(self, start: float, end: float, step: float) -> int:
        return int(self.torch.arange(start, end, step, device="meta").numel())

    def arange(self, tensor: HeapTensor, start: float, end: float, step: float) -> None:
        self.torch.arange(start, end, step, out=tensor, device=tensor.device)

    def linspace(self, tensor: HeapTensor, start: float, end: float, steps: int) -> None:
        self.torch.linspace(start, end, steps, out=tensor, device=tensor.device)


class NumpyFiller:
    """Buffers, written through numpy arrays; what numpy lacks through its bits: bfloat16, and
    float8, of which only zeros can be made."""

    def __init__(self, numpy: ModuleType) -> None:
        self.numpy = numpy
        self.random = numpy.random.default_rng()

    def device(self, ctx: _C.Context) -> str:
        return ctx.backend if ctx.backend == "cpu" else f"{ctx.backend}:{ctx.device_id}"

    def addresses(self, ctx: _C.Context, values: Sequence[int]) -> Any:  # a numpy.ndarray
        return self.numpy.array(values, dtype=self.numpy.int64)

    def default_dtype(self) -> DType:
        return "float32"

    def integer_dtype(self) -> DType:
        return "int64"

    def dtype_of(self, value: Any) -> DType:
        if isinstance(value, bool):
            return "bool"
        return "int64" if isinstance(value, int) else "float32"

    def tensor(
        self,
        ctx: _C.Context,
        size: Sequence[int],
        dtype: DType,
        device: Any,
        layout: Any,
        local: bool = False,
    ) -> _C.Buffer:
        if device is not None and str(device) != self.device(ctx):
            raise ValueError(f"device: expected {self.device(ctx)}, the context's, got {device}")
        if layout is not None:
            raise ValueError("layout: needs torch")
        allocate = ctx.allocate_local if local else ctx.allocate
        return allocate(size, "float32" if dtype is None else dtype)

    def finish(self, tensor: _C.Buffer, requires_grad: bool) -> _C.Buffer:
        if requires_grad:
            raise ValueError("requires_grad: needs torch")
        return tensor

    def _name(self, buffer: _C.Buffer) -> str:
        """The dtype's name, also where torch is imported by somebody else."""
        return str(buffer.dtype).removeprefix("torch.")

    def _host_name(self, name: str) -> str:
        """The dtype of numpy that holds a dtype's bits."""
        if name == "bfloat16":
            return "uint16"
        return "uint8" if name.startswith("float8") else name

    def _bfloat16_bits(self, values: Any) -> Array:
        bits: Array = self.numpy.asarray(values, dtype=self.numpy.float32).view(self.numpy.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
        nan = (bits & 0x7FFFFFFF) > 0x7F800000
        chosen: Array = self.numpy.where(nan, 0x7FC0, rounded).astype(self.numpy.uint16)
        return chosen

    def _from_bfloat16_bits(self, bits: Array) -> Array:
        return (bits.astype(self.numpy.uint32) << 16).view(self.numpy.float32)

    def rounded(self, values: Any, dtype: str) -> Array:
        """The values that elements of the dtype take, as float32."""
        if dtype == "bfloat16":
            return self._from_bfloat16_bits(self._bfloat16_bits(values))
        exact: Array = self.numpy.asarray(values)
        return exact.astype(dtype).astype(self.numpy.float32)

    def read(self, buffer: _C.Buffer) -> Array:
        """A Buffer's elements on the host; bfloat16 as float32."""
        host = self._read(buffer)
        return self._from_bfloat16_bits(host) if self._name(buffer) == "bfloat16" else host

    def _store(self, buffer: _C.Buffer, values: Any) -> None:
        """Writes `values`, an array or a number, in the buffer's dtype."""
        name = self._name(buffer)
        if name == "bfloat16":
            values = self._bfloat16_bits(values)
        elif name.startswith("float8") and self.numpy.any(values):
            raise ValueError(f"dtype: expected one that numpy has, or torch, got {name}")
        self._write(buffer, values, self._host_name(name))

    def _write(self, buffer: _C.Buffer, values: Any, dtype: Any) -> None:
        if buffer.nbytes != 0:
            host = self.numpy.empty(buffer.shape, dtype=dtype)
            host[...] = values
            buffer.copy_from_host(host)

    def _read(self, buffer: _C.Buffer) -> Array:
        """A Buffer's elements; bfloat16 and float8 as unsigned integers."""
        host: Array = self.numpy.empty(buffer.shape, self._host_name(self._name(buffer)))
        if buffer.nbytes != 0:
            buffer.copy_to_host(host)
        return host

    def full(self, buffer: _C.Buffer, value: Any) -> None:
        self._store(buffer, value)

    def source(self, tensor: Any) -> Any:
        """`tensor`, if it can be copied. TypeError naming the argument."""
        if not hasattr(tensor, "shape") or not hasattr(tensor, "dtype"):
            raise TypeError(f"tensor: expected a tensor, got {type(tensor).__name__}")
        return tensor

    def copy(self, buffer: _C.Buffer, source: Any) -> None:
        if not hasattr(source, "copy_to_host"):
            self._store(buffer, self.numpy.asarray(source))
        elif self._name(buffer) == self._name(source):
            host = self._read(source)
            self._write(buffer, host, host.dtype)
        else:
            self._store(buffer, self.read(source))

    def uniform(self, buffer: _C.Buffer, low: float, high: float, generator: Any) -> None:
        self._store(buffer, (generator or self.random).uniform(low, high, buffer.shape))

    def normal(self, buffer: _C.Buffer, generator: Any) -> None:
        self._store(buffer, (generator or self.random).standard_normal(buffer.shape))

    def integers(self, buffer: _C.Buffer, low: int, high: int, generator: Any) -> None:
        self._store(buffer, (generator or self.random).integers(low, high, buffer.shape))

    def arange_count(self, start: float, end: float, step: float) -> int:
        return math.ceil((end - start) / step)

    def arange(self, buffer: _C.Buffer, start: float, end: float, step: float) -> None:
        self._store(buffer, start + step * self.numpy.arange(len(buffer)))

    def linspace(self, buffer: _C.Buffer, start: float, end: float, steps: int) -> None:
        self._store(buffer, self.numpy.linspace(start, end, steps))
