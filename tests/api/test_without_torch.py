# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The package where torch cannot be imported: Buffers, filled by numpy."""

from one_rank import run_python

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it raises ImportError
import numpy as np
import iris_c

ctx = iris_c.init(1 << 22)
assert ctx.device == "cpu"
assert ctx.get_heap_bases().dtype == np.int64
for dtype in ("float32", "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"):
    buffer = ctx.ones(3, 5, dtype=dtype)
    assert type(buffer) is iris_c.Buffer and buffer.dtype == dtype
    array = np.asarray(buffer)
    assert array.shape == (3, 5) and array.dtype == dtype and (array == 1).all()
A, B = ctx.randn(8, 5), ctx.uniform(5, 6, low=-1, high=1)
C = ctx.full((8, 6), float("nan"))
workspace = ctx.ops.matmul_all_reduce(C, A, B)
assert workspace.dtype == "float32"
np.testing.assert_allclose(np.asarray(C), np.asarray(A) @ np.asarray(B), rtol=1e-5, atol=1e-5)
assert np.asarray(ctx.arange(2, 9, 2)).tolist() == [2, 4, 6, 8]
assert np.asarray(ctx.linspace(0, 1, 5)).tolist() == [0, 0.25, 0.5, 0.75, 1]
assert set(np.asarray(ctx.randint(3, 5, (100,))).tolist()) == {3, 4}
assert ctx.rand(0, 4).shape == (0, 4)
assert np.asarray(ctx.zeros_like(A)).any() == False
for value, bits in [
    (1.0, 0x3F80),
    (1 + 2**-8, 0x3F80),
    (1 + 3 * 2**-8, 0x3F82),
    (float("nan"), 0x7FC0),
    (float("-inf"), 0xFF80),
]:
    filled = ctx.full((2, 1), value, dtype="bfloat16")
    for buffer in (filled, ctx.as_symmetric(filled)):
        assert np.frombuffer(buffer, np.uint16).tolist() == [bits, bits], hex(bits)
for dtype in ("uint16", "uint32", "uint64", "complex64", "complex128"):
    assert (np.asarray(ctx.full((2,), 3, dtype=dtype)) == 3).all()
zeros = ctx.zeros(4, dtype="float8_e4m3fn")
bytes_of = bytearray(b"1234")
for buffer in (zeros, ctx.as_symmetric(zeros)):
    buffer.copy_to_host(bytes_of)
    assert bytes_of == bytes(4)
try:
    ctx.ones(4, dtype="float8_e5m2")
except ValueError as error:
    assert "float8_e5m2" in str(error)
else:
    raise AssertionError("float8 without torch")
try:
    ctx.zeros(2, requires_grad=True)
except ValueError as error:
    assert "torch" in str(error)
else:
    raise AssertionError("requires_grad without torch")
print("fine")
"""


def test_without_torch():
    result = run_python(["-c", WITHOUT_TORCH], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "fine", result.stderr
