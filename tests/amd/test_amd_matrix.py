# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""MFMA's layouts against tables that were made by others.

RESULT_ROWS spells out what the description of AMDMfmaEncodingAttr in Triton's TritonGPUAttrDefs.td
prints: which lane holds an element of the result, row by row. Lanes count along columns; the rows
that one lane holds are its registers in order. Operands as in AMD's "Matrix cores" (AMD lab notes,
gpuopen.com): lane l of the first operand holds row l mod n, of the second one column l mod n, and
the lanes l / n share K, in equal runs of consecutive elements.
"""

import struct

import machine
import numpy
import pytest

LOW, HIGH = range(32), range(32, 64)
RESULT_ROWS = {
    32: [LOW] * 4 + [HIGH] * 4 + [LOW] * 4 + [HIGH] * 4
        + [LOW] * 4 + [HIGH] * 4 + [LOW] * 4 + [HIGH] * 4,
    16: [range(16)] * 4 + [range(16, 32)] * 4 + [range(32, 48)] * 4 + [range(48, 64)] * 4,
}  # fmt: skip
OLD_NAMES = {
    ("f32", 32, 2): "v_mfma_f32_32x32x2f32", ("f32", 16, 4): "v_mfma_f32_16x16x4f32",
    ("f16", 32, 8): "v_mfma_f32_32x32x8f16", ("f16", 16, 16): "v_mfma_f32_16x16x16f16",
    ("bf16", 32, 8): "v_mfma_f32_32x32x8bf16_1k",
    ("bf16", 16, 16): "v_mfma_f32_16x16x16bf16_1k",
}  # fmt: skip
NAMES = {key: f"v_mfma_f32_{key[1]}x{key[1]}x{key[2]}_{key[0]}" for key in OLD_NAMES}
WIDER = [("f16", 32, 16), ("f16", 16, 32), ("bf16", 32, 16), ("bf16", 16, 32)]
NEW_NAMES = {key: f"v_mfma_f32_{key[1]}x{key[1]}x{key[2]}_{key[0]}" for key in WIDER}
INSTRUCTIONS = {"gfx90a": OLD_NAMES, "gfx942": NAMES, "gfx950": {**NAMES, **NEW_NAMES}}
OPERAND_AT, RESULT_AT = 0x1000, 0x2000


def span(letter, first, count):
    return f"{letter}{first}" if count == 1 else f"{letter}[{first}:{first + count - 1}]"


def body(name, operand_registers, result_registers):
    """Loads A to v[8..], B to a[16..], C to v[48..], and stores v[32..]."""
    registers = operand_registers
    lines = ["s_load_dwordx2 s[4:5], s[0:1], 0x0", "s_waitcnt lgkmcnt(0)",
             "v_lshlrev_b32_e32 v1, 2, v0", f"v_add_u32_e32 v2, {OPERAND_AT:#x}, v1"]  # fmt: skip
    for i in range(registers):
        lines.append(f"global_load_dword v{8 + i}, v1, s[4:5] offset:{256 * i}")
        lines.append(f"global_load_dword v3, v1, s[4:5] offset:{1024 + 256 * i}")
        lines += ["s_waitcnt vmcnt(0)", f"v_accvgpr_write_b32 a{16 + i}, v3"]
    for i in range(result_registers):
        lines.append(f"global_load_dword v{48 + i}, v2, s[4:5] offset:{256 * (i % 8)}")
        if i % 8 == 7:
            lines.append("v_add_u32_e32 v2, 0x800, v2")
    operands = ", ".join([span("v", 32, result_registers), span("v", 8, registers),
                          span("a", 16, registers), span("v", 48, result_registers)])  # fmt: skip
    lines += ["s_waitcnt vmcnt(0)",
              "s_mov_b64 exec, 1", "s_nop 7",  # the unit works on all lanes whatever the mask
              f"{name} {operands}", "s_nop 15", "s_nop 3",
              "s_mov_b64 exec, -1", f"v_add_u32_e32 v2, {RESULT_AT:#x}, v1"]  # fmt: skip
    for i in range(result_registers):
        lines.append(f"global_store_dword v2, v{32 + i}, s[4:5] offset:{256 * (i % 8)}")
        if i % 8 == 7:
            lines.append("v_add_u32_e32 v2, 0x800, v2")
    return "\n".join([*lines, "s_endpgm"])


def bits_of(values, kind):
    """Elements as unsigned integers of their size."""
    if kind == "f32":
        return values.astype(numpy.float32).view(numpy.uint32)
    if kind == "f16":
        return values.astype(numpy.float16).view(numpy.uint16)
    return (values.astype(numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def operand_words(rows, kind, n, k):
    """Registers (register, lane) of an operand given as n rows of K elements."""
    run = k * n // 64
    per_lane = numpy.empty((64, run), dtype=numpy.uint32 if kind == "f32" else numpy.uint16)
    for lane in range(64):
        first = lane // n * run
        per_lane[lane] = bits_of(rows, kind)[lane % n, first : first + run]
    return per_lane.view(numpy.uint32).T


def result_places(n):
    """(row, column) -> (register, lane), from the table."""
    held = dict.fromkeys(range(64), 0)
    places = {}
    for row, lanes in enumerate(RESULT_ROWS[n]):
        for column, lane in enumerate(lanes):
            places[row, column] = (held[lane], lane)
        for lane in lanes:
            held[lane] += 1
    return places


@pytest.fixture(scope="module", params=machine.ARCHES)
def gpu(request, library, programs):
    with machine.Machine(library, programs, request.param) as opened:
        yield opened


def test_layouts(gpu, tmp_path):
    """Small integers, so that the result is exact in whatever order it is summed."""
    path = tmp_path / "matrix.hsaco"
    instructions = INSTRUCTIONS[gpu.arch]
    kernels = {}
    for (kind, n, k), name in instructions.items():
        registers = k * n // 64 * (4 if kind == "f32" else 2) // 4
        kernels[kind, n, k] = (f"mfma_{kind}_{n}_{k}", body(name, registers, n * n // 64))
    machine.assemble(machine.object_text(kernels.values(), gpu.arch), gpu.arch, path)
    random = numpy.random.default_rng(5)
    memory = gpu.array(numpy.zeros(0x4000 // 4, dtype=numpy.uint32))
    for (kind, n, k), (kernel, _) in kernels.items():
        A, B = random.integers(-8, 9, (n, k)), random.integers(-8, 9, (k, n))
        C = random.integers(-99, 99, (n, n))
        a, b = operand_words(A, kind, n, k), operand_words(B.T.copy(), kind, n, k)
        memory[:] = 0
        memory[: a.size] = a.ravel()
        memory[256 : 256 + b.size] = b.ravel()
        places = result_places(n)
        for (row, column), (register, lane) in places.items():
            memory[OPERAND_AT // 4 + 64 * register + lane] = bits_of(C[row, column], "f32")
        gpu.launch(path, kernel, struct.pack("<Q", machine.address(memory)))
        gpu.synchronize()
        out = memory[RESULT_AT // 4 :].view(numpy.float32)
        expected = A @ B + C
        for (row, column), (register, lane) in places.items():
            assert out[64 * register + lane] == expected[row, column], (kernel, row, column)


def test_subnormal_inputs(gpu, tmp_path):
    """MI200 takes them for zero, MI300 and MI350 do not (AMD's note on MI200 in MIOpen's docs)."""
    path = tmp_path / "subnormal.hsaco"
    name = INSTRUCTIONS[gpu.arch]["f16", 32, 8]
    machine.assemble(
        machine.object_text([("subnormal", body(name, 2, 16))], gpu.arch), gpu.arch, path
    )
    memory = gpu.array(numpy.zeros(0x4000 // 4, dtype=numpy.uint32))
    A = numpy.full((32, 8), 2.0**-20)
    memory[:128] = operand_words(A, "f16", 32, 8).ravel()
    memory[256:384] = operand_words(numpy.ones((32, 8)), "f16", 32, 8).ravel()
    gpu.launch(path, "subnormal", struct.pack("<Q", machine.address(memory)))
    gpu.synchronize()
    result = memory[RESULT_AT // 4 : RESULT_AT // 4 + 1024].view(numpy.float32)
    assert (result == (0.0 if gpu.arch == "gfx90a" else 8 * 2.0**-20)).all()
