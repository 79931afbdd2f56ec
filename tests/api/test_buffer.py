# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""iris_c.Buffer: attributes, dtypes, DLPack and the buffer protocol."""

import gc
import weakref

import numpy as np
import pytest
import torch
from one_rank import ALL_DTYPES, NOT_OF_NUMPY


def test_buffer_attributes(ctx):
    first = ctx.allocate(100)
    buffer = ctx.allocate((3, 4), torch.float16)
    assert (first.shape, first.nbytes, first.dtype) == ((100,), 100, torch.uint8)
    assert buffer.shape == (3, 4)
    assert buffer.strides == (4, 1)
    assert buffer.ndim == 2
    assert (buffer.dtype, buffer.nbytes, len(buffer)) == (torch.float16, 24, 3)
    assert buffer.offset == torch.from_dlpack(buffer).data_ptr() - int(ctx.get_heap_bases()[0])
    assert buffer.offset != first.offset
    assert "shape=(3, 4), dtype=float16" in repr(buffer)
    assert weakref.ref(buffer)() is buffer
    with pytest.raises(TypeError):
        type(buffer)()
    with pytest.raises(TypeError, match="0-dimensional"):
        len(ctx.allocate(()))


@pytest.mark.parametrize(
    "dtype", ["float16", "torch.float16", torch.float16, np.float16, np.dtype("float16")], ids=str
)
def test_dtypes_in_every_spelling(ctx, dtype):
    assert ctx.allocate(2, dtype).dtype == torch.float16


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_dlpack_to_torch_shares_memory(ctx, dtype):
    buffer = ctx.allocate((2, 3), dtype)
    one, two = torch.from_dlpack(buffer), torch.from_dlpack(buffer)
    one.fill_(1)
    assert two.dtype == dtype
    assert two.eq(1).all()
    assert one.data_ptr() == two.data_ptr()


@pytest.mark.parametrize("dtype", [d for d in ALL_DTYPES if d not in NOT_OF_NUMPY], ids=str)
def test_numpy_shares_memory(ctx, dtype):
    buffer = ctx.allocate((2, 3), dtype)
    view, imported = np.asarray(buffer), np.from_dlpack(buffer)
    view[...] = 1
    assert str(view.dtype) == str(dtype).removeprefix("torch.")
    assert view.dtype == imported.dtype
    assert (imported == 1).all()
    assert torch.from_dlpack(buffer).eq(1).all()


@pytest.mark.parametrize("dtype", NOT_OF_NUMPY, ids=str)
def test_some_dtypes_have_no_buffer_format(ctx, dtype):
    buffer = ctx.allocate((2, 3), dtype)
    with pytest.raises(BufferError, match="use DLPack"):
        memoryview(buffer)


def test_memoryview(ctx):
    view = memoryview(ctx.allocate((2, 3), "int32"))
    assert (view.shape, view.strides, view.format) == ((2, 3), (12, 4), "i")
    view[1, 2] = 5
    assert view.tolist()[1][2] == 5
    assert view.c_contiguous
    assert not view.readonly


def test_dlpack_capsules(ctx):
    before = ctx.heap_used
    buffer = ctx.allocate(16, "int64")
    assert buffer.__dlpack_device__() == (1, 0)
    assert '"dltensor"' in repr(buffer.__dlpack__())
    assert '"dltensor"' in repr(buffer.__dlpack__(max_version=(0, 8)))
    versioned = buffer.__dlpack__(max_version=(1, 0), dl_device=(1, 0), copy=False, stream=None)
    assert '"dltensor_versioned"' in repr(versioned)
    del buffer
    assert ctx.heap_used > before, "an unused capsule keeps the memory"
    del versioned
    assert ctx.heap_used == before


def test_dlpack_copy_is_separate(ctx):
    buffer = ctx.allocate(4, "int32")
    original = np.asarray(buffer)
    original[...] = 1
    copy = np.from_dlpack(buffer, copy=True)
    original[...] = 2
    assert copy.tolist() == [1] * 4


def test_dlpack_refusals(ctx):
    buffer = ctx.allocate(4)
    with pytest.raises(BufferError, match="dl_device: expected"):
        buffer.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="stream"):
        buffer.__dlpack__(stream=1)
    with pytest.raises(TypeError, match="max_version"):
        buffer.__dlpack__(max_version=1)


@pytest.mark.parametrize("export", [torch.from_dlpack, np.from_dlpack, np.asarray, memoryview])
def test_exports_keep_the_memory(ctx, export):
    before = ctx.heap_used
    buffer = ctx.allocate(64, "float32")
    exported = export(buffer)
    del buffer
    assert ctx.heap_used > before
    del exported
    gc.collect()
    assert ctx.heap_used == before
