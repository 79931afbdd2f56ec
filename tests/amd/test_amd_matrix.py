# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""MFMA's layouts against tables that were made by others.

RESULT_ROWS spells out what the description of AMDMfmaEncodingAttr in Triton's TritonGPUAttrDefs.td
prints: which lane holds an element of the result, row by row. Lanes count along columns; the rows
that one lane holds are its registers in order. Operands as in AMD's "Matrix cores" (AMD lab notes,
gpuopen.com): lane l of the first operand holds row l mod n, of the second one column l mod n, and
the lanes l / n share K, in equal runs of consecutive elements.
"""

import itertools
import struct

import machine
import numpy
import pytest
import torch

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
# Of 8 bits: the operands' kinds apart, and as modifiers of one name.
CODES = {"fp8": 0, "bf8": 1}
PAIRS = [f"{a}_{b}" for a, b in itertools.product(CODES, repeat=2)]
FLOAT8_NAMES = {
    (pair, n, k): f"v_mfma_f32_{n}x{n}x{k}_{pair}"
    for pair in PAIRS
    for n, k in ((32, 16), (16, 32))
}
LONG_NAMES = {
    (pair, n, k): f"v_mfma_f32_{n}x{n}x{k}_f8f6f4"
    for pair in PAIRS
    for n, k in ((32, 64), (16, 128))
}
INSTRUCTIONS = {
    "gfx90a": OLD_NAMES,
    "gfx942": {**NAMES, **FLOAT8_NAMES},
    "gfx950": {**NAMES, **NEW_NAMES, **FLOAT8_NAMES, **LONG_NAMES},
}
FLOAT8 = {
    "gfx942": {"fp8": torch.float8_e4m3fnuz, "bf8": torch.float8_e5m2fnuz},
    "gfx950": {"fp8": torch.float8_e4m3fn, "bf8": torch.float8_e5m2},
}
SECOND_AT, ADDEND_AT, RESULT_AT = 0x800, 0x1000, 0x2000


def span(letter, first, count):
    return f"{letter}{first}" if count == 1 else f"{letter}[{first}:{first + count - 1}]"


def kinds_of(kind):
    """Of the two operands."""
    return kind.split("_") if "_" in kind else (kind, kind)


def modifiers_of(kind, name):
    a, b = kinds_of(kind)
    return f" cbsz:{CODES[a]} blgp:{CODES[b]}" if name.endswith("_f8f6f4") else ""


def body(name, operand_registers, result_registers, modifiers=""):
    """Loads A to v[8..], B to a[16..], C to v[48..], and stores v[32..]."""
    registers = operand_registers
    lines = ["s_load_dwordx2 s[4:5], s[0:1], 0x0", "s_waitcnt lgkmcnt(0)",
             "v_lshlrev_b32_e32 v1, 2, v0", f"v_add_u32_e32 v2, {ADDEND_AT:#x}, v1"]  # fmt: skip
    for i in range(registers):
        lines.append(f"global_load_dword v{8 + i}, v1, s[4:5] offset:{256 * i}")
        lines.append(f"global_load_dword v3, v1, s[4:5] offset:{SECOND_AT + 256 * i}")
        lines += ["s_waitcnt vmcnt(0)", f"v_accvgpr_write_b32 a{16 + i}, v3"]
    for i in range(result_registers):
        lines.append(f"global_load_dword v{48 + i}, v2, s[4:5] offset:{256 * (i % 8)}")
        if i % 8 == 7:
            lines.append("v_add_u32_e32 v2, 0x800, v2")
    operands = ", ".join([span("v", 32, result_registers), span("v", 8, registers),
                          span("a", 16, registers), span("v", 48, result_registers)])  # fmt: skip
    lines += ["s_waitcnt vmcnt(0)",
              "s_mov_b64 exec, 1", "s_nop 7",  # the unit works on all lanes whatever the mask
              f"{name} {operands}{modifiers}", "s_nop 15", "s_nop 3",
              "s_mov_b64 exec, -1", f"v_add_u32_e32 v2, {RESULT_AT:#x}, v1"]  # fmt: skip
    for i in range(result_registers):
        lines.append(f"global_store_dword v2, v{32 + i}, s[4:5] offset:{256 * (i % 8)}")
        if i % 8 == 7:
            lines.append("v_add_u32_e32 v2, 0x800, v2")
    return "\n".join([*lines, "s_endpgm"])


def bits_of(values, kind, arch):
    """Elements as unsigned integers of their size."""
    if kind in CODES:
        return torch.tensor(values).float().to(FLOAT8[arch][kind]).view(torch.uint8).numpy()
    if kind == "f32":
        return values.astype(numpy.float32).view(numpy.uint32)
    if kind == "f16":
        return values.astype(numpy.float16).view(numpy.uint16)
    return (values.astype(numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def operand_words(bits, n, k):
    """Registers (register, lane) of an operand given as n rows of K elements."""
    run = k * n // 64
    per_lane = numpy.empty((64, run), dtype=bits.dtype)
    for lane in range(64):
        first = lane // n * run
        per_lane[lane] = bits[lane % n, first : first + run]
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


def registers_of(kind, n, k):
    """That an operand takes in a lane."""
    nbytes = 1 if kind in PAIRS else 4 if kind == "f32" else 2
    return k * n // 64 * nbytes // 4


def run(gpu, path, kernel, memory, first, second, addend=None):
    """The result's registers, (register, lane), of operands and an addend given likewise."""
    memory[:] = 0
    memory[: first.size] = first.ravel()
    memory[SECOND_AT // 4 :][: second.size] = second.ravel()
    if addend is not None:
        memory[ADDEND_AT // 4 :][: addend.size] = addend.astype(numpy.float32).view("u4").ravel()
    gpu.launch(path, kernel, struct.pack("<Q", machine.address(memory)))
    gpu.synchronize()
    return memory[RESULT_AT // 4 :].view(numpy.float32).reshape(-1, 64)


def test_layouts(gpu, tmp_path):
    """Small integers, so that the result is exact in whatever order it is summed."""
    path = tmp_path / "matrix.hsaco"
    kernels = {}
    for (kind, n, k), name in INSTRUCTIONS[gpu.arch].items():
        code = body(name, registers_of(kind, n, k), n * n // 64, modifiers_of(kind, name))
        kernels[kind, n, k] = (f"mfma_{kind}_{n}_{k}", code)
    machine.assemble(machine.object_text(kernels.values(), gpu.arch), gpu.arch, path)
    random = numpy.random.default_rng(5)
    memory = gpu.array(numpy.zeros(0x4000 // 4, dtype=numpy.uint32))
    for (kind, n, k), (kernel, _) in kernels.items():
        A, B = random.integers(-8, 9, (n, k)), random.integers(-8, 9, (k, n))
        C = random.integers(-99, 99, (n, n))
        of_a, of_b = kinds_of(kind)
        places = result_places(n)
        addend = numpy.empty((n * n // 64, 64))
        for place, at in places.items():
            addend[at] = C[place]
        out = run(gpu, path, kernel, memory, operand_words(bits_of(A, of_a, gpu.arch), n, k),
                  operand_words(bits_of(B.T.copy(), of_b, gpu.arch), n, k), addend)  # fmt: skip
        expected = A @ B + C
        for place, at in places.items():
            assert out[at] == expected[place], (kernel, place)


def test_float8_values(gpu, tmp_path):
    """All 256 codes of both formats are what PyTorch takes them for, in each operand: NaN,
    infinities, subnormals and the sign of zero too."""
    if gpu.arch == "gfx90a":
        assert not any(kind in PAIRS for kind, *_ in INSTRUCTIONS[gpu.arch])
        return
    n, k = (32, 64) if gpu.arch == "gfx950" else (32, 16)
    path = tmp_path / "float8.hsaco"
    named = {pair: INSTRUCTIONS[gpu.arch][pair, n, k] for pair in PAIRS}
    code = [(pair, body(name, registers_of(pair, n, k), 16, modifiers_of(pair, name)))
            for pair, name in named.items()]  # fmt: skip
    machine.assemble(machine.object_text(code, gpu.arch), gpu.arch, path)
    memory = gpu.array(numpy.zeros(0x4000 // 4, dtype=numpy.uint32))
    places = result_places(n)
    for pair, first in itertools.product(PAIRS, range(0, 256, n)):
        of_a, of_b = kinds_of(pair)
        codes, ones = numpy.zeros((2, n, k), dtype=numpy.uint8)
        codes[:, 0] = numpy.arange(first, first + n)
        ones[:, 0] = bits_of(numpy.ones(1), of_b, gpu.arch)
        out = run(gpu, path, pair, memory, operand_words(codes, n, k), operand_words(ones, n, k))
        values = torch.tensor(codes[:, 0]).view(FLOAT8[gpu.arch][of_a]).float().numpy()
        result = numpy.array([out[places[i, 0]] for i in range(n)])
        numpy.testing.assert_array_equal(result, values, err_msg=f"{pair} from {first}")


def test_subnormal_inputs(gpu, tmp_path):
    """MI200 takes them for zero, MI300 and MI350 do not (AMD's note on MI200 in MIOpen's docs)."""
    path = tmp_path / "subnormal.hsaco"
    name = INSTRUCTIONS[gpu.arch]["f16", 32, 8]
    machine.assemble(
        machine.object_text([("subnormal", body(name, 2, 16))], gpu.arch), gpu.arch, path
    )
    memory = gpu.array(numpy.zeros(0x4000 // 4, dtype=numpy.uint32))
    A = bits_of(numpy.full((32, 8), 2.0**-20), "f16", gpu.arch)
    B = bits_of(numpy.ones((32, 8)), "f16", gpu.arch)
    out = run(gpu, path, "subnormal", memory, operand_words(A, 32, 8), operand_words(B, 32, 8))
    assert (out[:16] == (0.0 if gpu.arch == "gfx90a" else 8 * 2.0**-20)).all()
