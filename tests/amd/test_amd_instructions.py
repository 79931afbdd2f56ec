# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The emulator's instructions one by one, against references in Python.

Each is assembled into a kernel of its own, which loads v2 to v5 of each lane and s4 to s9, runs the
instruction on part of the lanes, and stores v10, v11, s[10:11] and SCC. What the instructions do is
told by AMD's ISA documents of MI200, MI300 and MI350.
"""

import math
import struct
from fractions import Fraction

import machine
import numpy
import pytest
import torch

LANES = 64
EXEC = 0xF0F0_1234_5678_FFFF
SENTINEL = 0x5EA1ED
M32, M64 = (1 << 32) - 1, (1 << 64) - 1

KERNEL = """
s_load_dwordx2 s[2:3], s[0:1], 0x0
s_waitcnt lgkmcnt(0)
s_load_dwordx4 s[4:7], s[2:3], 0x400
s_load_dwordx2 s[8:9], s[2:3], 0x410
v_lshlrev_b32_e32 v1, 2, v0
global_load_dword v2, v1, s[2:3]
global_load_dword v3, v1, s[2:3] offset:256
global_load_dword v4, v1, s[2:3] offset:512
global_load_dword v5, v1, s[2:3] offset:768
v_mov_b32_e32 v10, {sentinel}
v_mov_b32_e32 v11, {sentinel}
s_mov_b32 s10, {sentinel}
s_mov_b32 s11, {sentinel}
s_mov_b32 exec_lo, {low}
s_mov_b32 exec_hi, {high}
s_mov_b32 vcc_lo, s8
s_mov_b32 vcc_hi, s9
s_waitcnt vmcnt(0) lgkmcnt(0)
s_cmp_lg_u32 s4, s4
{instruction}
s_cselect_b32 s12, 1, 0
s_mov_b64 exec, -1
v_mov_b32_e32 v12, s10
v_mov_b32_e32 v13, s11
v_mov_b32_e32 v14, s12
global_store_dword v1, v10, s[2:3] offset:1280
global_store_dword v1, v11, s[2:3] offset:1536
global_store_dword v1, v12, s[2:3] offset:1792
global_store_dword v1, v13, s[2:3] offset:2048
global_store_dword v1, v14, s[2:3] offset:2304
s_endpgm
"""


def signed(value, bits=32):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def signed_field(value, width):
    """The lowest bits, the uppermost of them the sign."""
    return signed(value, width) if width else 0


def to_float(bits):
    return struct.unpack("<f", struct.pack("<I", bits & M32))[0]


def to_bits(value):
    return int(numpy.float32(value).view(numpy.uint32))


def half_bits(value):
    with numpy.errstate(over="ignore"):
        return int(numpy.float16(numpy.float32(value)).view(numpy.uint16))


def bfloat16_bits(value):
    return torch.tensor(float(value)).bfloat16().view(torch.int16).item() & 0xFFFF


def half_value(bits):
    return float(numpy.uint16(bits & 0xFFFF).view(numpy.float16))


def wide(low, high):
    return low | high << 32


# ---- vector instructions: v10 (and v11) of a lane from its a, b, c, d (v2 to v5) ----

INTEGER = {
    "v_mov_b32_e32 v10, v2": lambda a, b, c, d: a,
    "v_mov_b32_e32 v10, -5": lambda a, b, c, d: -5,
    "v_not_b32_e32 v10, v2": lambda a, b, c, d: ~a,
    "v_bfrev_b32_e32 v10, v2": lambda a, b, c, d: int(f"{a:032b}"[::-1], 2),
    "v_add_u32_e32 v10, v2, v3": lambda a, b, c, d: a + b,
    "v_sub_u32_e32 v10, v2, v3": lambda a, b, c, d: a - b,
    "v_subrev_u32_e32 v10, v2, v3": lambda a, b, c, d: b - a,
    "v_and_b32_e32 v10, 0x12345678, v3": lambda a, b, c, d: 0x12345678 & b,
    "v_or_b32_e32 v10, v2, v3": lambda a, b, c, d: a | b,
    "v_xor_b32_e32 v10, v2, v3": lambda a, b, c, d: a ^ b,
    "v_lshlrev_b32_e32 v10, v3, v2": lambda a, b, c, d: a << (b & 31),
    "v_lshrrev_b32_e32 v10, v3, v2": lambda a, b, c, d: a >> (b & 31),
    "v_ashrrev_i32_e32 v10, v3, v2": lambda a, b, c, d: signed(a) >> (b & 31),
    "v_mul_lo_u32 v10, v2, v3": lambda a, b, c, d: a * b,
    "v_mul_hi_u32 v10, v2, v3": lambda a, b, c, d: a * b >> 32,
    "v_mul_u32_u24_e32 v10, v2, v3": lambda a, b, c, d: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "v_min_u32_e32 v10, v2, v3": lambda a, b, c, d: min(a, b),
    "v_max_u32_e32 v10, v2, v3": lambda a, b, c, d: max(a, b),
    "v_min_i32_e32 v10, v2, v3": lambda a, b, c, d: min(signed(a), signed(b)),
    "v_max_i32_e32 v10, v2, v3": lambda a, b, c, d: max(signed(a), signed(b)),
    "v_add_u16_e32 v10, v2, v3": lambda a, b, c, d: a + b & 0xFFFF,
    "v_lshrrev_b16_e32 v10, v3, v2": lambda a, b, c, d: (a & 0xFFFF) >> (b & 15),
    "v_add3_u32 v10, v2, v3, v4": lambda a, b, c, d: a + b + c,
    "v_or3_b32 v10, v2, v3, v4": lambda a, b, c, d: a | b | c,
    "v_and_or_b32 v10, v2, v3, v4": lambda a, b, c, d: a & b | c,
    "v_lshl_or_b32 v10, v2, v3, v4": lambda a, b, c, d: a << (b & 31) | c,
    "v_lshl_add_u32 v10, v2, v3, v4": lambda a, b, c, d: (a << (b & 31)) + c,
    "v_add_lshl_u32 v10, v2, v3, v4": lambda a, b, c, d: (a + b & M32) << (c & 31),
    "v_xad_u32 v10, v2, v3, v4": lambda a, b, c, d: (a ^ b) + c,
    "v_mad_u32_u24 v10, v2, v3, v4": lambda a, b, c, d: (a & 0xFFFFFF) * (b & 0xFFFFFF) + c,
    "v_mad_i32_i24 v10, v2, v3, v4": lambda a, b, c, d: signed(a, 24) * signed(b, 24) + c,
    "v_bfe_i32 v10, v2, v3, v4": lambda a, b, c, d: signed_field(a >> (b & 31), c & 31),
    "v_bfe_u32 v10, v2, v3, v4": lambda a, b, c, d: a >> (b & 31) & ((1 << (c & 31)) - 1),
    "s_mov_b32 s12, 0x05040100\nv_perm_b32 v10, v2, v3, s12":
        lambda a, b, c, d: a << 16 | b & 0xFFFF,
    "s_mov_b32 s12, 0x0c070302\nv_perm_b32 v10, v2, v3, s12":
        lambda a, b, c, d: b >> 16 | a >> 24 << 16,
    "v_pack_b32_f16 v10, v2, v3": lambda a, b, c, d: a & 0xFFFF | b << 16,
    "v_alignbit_b32 v10, v2, v3, v4": lambda a, b, c, d: wide(b, a) >> (c & 31),
    "v_min_u32_sdwa v10, v2, v3 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_1 src1_sel:DWORD":
        lambda a, b, c, d: min(a >> 16, b),
    "v_or_b32_sdwa v10, v2, v3 dst_sel:WORD_1 dst_unused:UNUSED_PAD src0_sel:DWORD src1_sel:DWORD":
        lambda a, b, c, d: ((a | b) & 0xFFFF) << 16,
    "v_or_b32_sdwa v10, v2, v3 dst_sel:WORD_0 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_1 "
    "src1_sel:WORD_0": lambda a, b, c, d: (a >> 8 & 0xFF) | (b & 0xFFFF) | SENTINEL & ~0xFFFF,
    "v_and_b32_sdwa v10, v2, v3 dst_sel:BYTE_3 dst_unused:UNUSED_PAD src0_sel:DWORD "
    "src1_sel:BYTE_2": lambda a, b, c, d: (a & b >> 16 & 0xFF) << 24,
    "v_or_b32_sdwa v10, v2, v3 dst_sel:BYTE_1 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_3 "
    "src1_sel:BYTE_0": lambda a, b, c, d: ((a >> 24 | b) & 0xFF) << 8 | SENTINEL & ~0xFF00,
    "v_accvgpr_write_b32 a7, v2\nv_accvgpr_read_b32 v10, a7": lambda a, b, c, d: a,
    "v_accvgpr_write_b32 a7, v2\nv_accvgpr_mov_b32 a3, a7\nv_accvgpr_read_b32 v10, a3":
        lambda a, b, c, d: a,
}  # fmt: skip

WIDE = {
    "v_mad_u64_u32 v[10:11], s[10:11], v2, v3, v[4:5]":
        lambda a, b, c, d: (a * b + wide(c, d), a * b + wide(c, d) >> 64),
    "v_mad_i64_i32 v[10:11], s[10:11], v2, v3, v[4:5]":
        lambda a, b, c, d: (signed(a) * signed(b) + signed(wide(c, d), 64), None),
    "v_lshlrev_b64 v[10:11], v2, v[4:5]": lambda a, b, c, d: (wide(c, d) << (a & 63), None),
    "v_lshrrev_b64 v[10:11], v2, v[4:5]": lambda a, b, c, d: (wide(c, d) >> (a & 63), None),
    "v_ashrrev_i64 v[10:11], v2, v[4:5]":
        lambda a, b, c, d: (signed(wide(c, d), 64) >> (a & 63), None),
    "v_pk_mov_b32 v[10:11], v[2:3], v[4:5] op_sel:[0,1]": lambda a, b, c, d: (wide(a, d), None),
    "v_pk_mov_b32 v[10:11], v[2:3], v[4:5] op_sel:[1,0]": lambda a, b, c, d: (wide(b, c), None),
    "v_add_co_u32_e64 v10, s[10:11], v2, v3": lambda a, b, c, d: (a + b, a + b >> 32),
    "v_sub_co_u32_e64 v10, s[10:11], v2, v3": lambda a, b, c, d: (a - b, a < b),
    "v_subrev_co_u32_e64 v10, s[10:11], v2, v3": lambda a, b, c, d: (b - a, b < a),
}  # fmt: skip
NEW_WIDE = {  # not on gfx90a
    "v_lshl_add_u64 v[10:11], v[2:3], 3, v[4:5]":
        lambda a, b, c, d: ((wide(a, b) << 3) + wide(c, d), None),
    "v_mov_b64_e32 v[10:11], v[4:5]": lambda a, b, c, d: (wide(c, d), None),
    "v_mov_b64_e32 v[10:11], -3": lambda a, b, c, d: (-3, None),
    "v_mov_b64_e32 v[10:11], 0x30d40": lambda a, b, c, d: (0x30D40, None),
}  # fmt: skip
# With the lane's bit of the carry (vcc) as fifth argument.
CARRIES = {
    "v_addc_co_u32_e64 v10, s[10:11], v2, v3, vcc":
        lambda a, b, c, d, k: (a + b + k, a + b + k >> 32),
    "v_subb_co_u32_e64 v10, s[10:11], v2, v3, vcc": lambda a, b, c, d, k: (a - b - k, a < b + k),
    "v_subbrev_co_u32_e64 v10, s[10:11], v2, v3, vcc":
        lambda a, b, c, d, k: (b - a - k, b < a + k),
    "v_cndmask_b32_e32 v10, v2, v3, vcc": lambda a, b, c, d, k: (b if k else a, None),
}  # fmt: skip
RELATIONS = {
    "lt": int.__lt__, "eq": int.__eq__, "le": int.__le__,
    "gt": int.__gt__, "ne": int.__ne__, "ge": int.__ge__,
}  # fmt: skip

# Operands between 1 and 2 in magnitude: a product and its sum are exact in float64.
FLOAT = {
    "v_add_f32_e32 v10, v2, v3": lambda a, b, c: a + b,
    "v_sub_f32_e32 v10, v2, v3": lambda a, b, c: a - b,
    "v_mul_f32_e32 v10, v2, v3": lambda a, b, c: a * b,
    "v_mul_f32_e32 v10, 0.5, v3": lambda a, b, c: 0.5 * b,
    "v_fma_f32 v10, v2, v3, v4": lambda a, b, c: a * b + c,
    "v_trunc_f32_e32 v10, v2": lambda a, b, c: float(int(a)),
    "v_rcp_f32_e32 v10, v2": lambda a, b, c: 1.0 / a,
    "v_rcp_iflag_f32_e32 v10, v2": lambda a, b, c: 1.0 / a,
    "v_mul_f32_e32 v10, v2, v2\nv_rsq_f32_e32 v10, v10": lambda a, b, c: (
        1.0 / math.sqrt(float(numpy.float32(a * a)))
    ),
    "v_mov_b32_e32 v10, v4\nv_fmac_f32_e32 v10, v2, v3": lambda a, b, c: a * b + c,
}
GFX90A_FLOAT = {
    "v_mov_b32_e32 v10, v4\nv_mac_f32_e32 v10, v2, v3":
        lambda a, b, c: float(numpy.float32(a * b)) + c,
    "v_madmk_f32 v10, v2, 0x3fc00000, v4": lambda a, b, c: float(numpy.float32(a * 1.5)) + c,
}  # fmt: skip
GFX94_FLOAT = {"v_fmamk_f32 v10, v2, 0x3fc00000, v4": lambda a, b, c: a * 1.5 + c}

# Of v[2:3] and v[4:5]; conversions of v2.
DOUBLE = {
    "v_add_f64 v[10:11], v[2:3], v[4:5]": lambda a, b, x: a + b,
    "v_mul_f64 v[10:11], v[2:3], v[4:5]": lambda a, b, x: a * b,
    "v_fma_f64 v[10:11], v[2:3], v[4:5], 2.0": lambda a, b, x: float(Fraction(a) * Fraction(b) + 2),
    "v_cvt_f64_f32_e32 v[10:11], v2": lambda a, b, x: to_float(x),
    "v_cvt_f64_i32_e32 v[10:11], v2": lambda a, b, x: float(signed(x)),
}
DOUBLE_RELATIONS = {
    "v_cmp_ge_f64_e64 s[10:11], v[2:3], v[4:5]": lambda a, b: a >= b,
    "v_cmp_le_f64_e64 s[10:11], v[2:3], v[4:5]": lambda a, b: a <= b,
    "v_cmp_u_f64_e64 s[10:11], v[2:3], v[4:5]": lambda a, b: a != a or b != b,
}
PACKED = {
    "v_pk_fma_f32 v[10:11], v[2:3], v[4:5], 0": lambda a, b: a * b + numpy.float32(0),
    "v_pk_add_f32 v[10:11], v[2:3], v[4:5]": numpy.add,
    "v_pk_mul_f32 v[10:11], v[2:3], v[4:5]": numpy.multiply,
    "v_pk_fma_f32 v[10:11], v[2:3], v[4:5], v[4:5]": lambda a, b: numpy.float32(
        numpy.float64(a) * numpy.float64(b) + numpy.float64(b)
    ),
}

SPECIAL = [0.0, -0.0, 1.5, -1.5, 0.99, 65504.0, 65520.0, 1e30, -1e30, 6e-8, 3e-8, 2.0**-15, 5e9,
           4294967040.0, float("inf"), float("-inf"), float("nan")]  # fmt: skip
CONVERSIONS = {
    "v_cvt_f32_u32_e32 v10, v2": lambda a: to_bits(numpy.uint32(a).astype(numpy.float32)),
    "v_cvt_f32_i32_e32 v10, v2": lambda a: to_bits(numpy.int32(signed(a)).astype(numpy.float32)),
    "v_cvt_u32_f32_e32 v10, v2": lambda a: (
        0 if not to_float(a) > 0 else min(M32, int(min(to_float(a), 1e10)))
    ),
    "v_cvt_f16_f32_e32 v10, v2": lambda a: half_bits(to_float(a)),
    "v_cvt_f32_f16_e32 v10, v2": lambda a: to_bits(half_value(a)),
    "v_cvt_f32_f16_sdwa v10, v2 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_1":
        lambda a: to_bits(half_value(a >> 16)),
    "v_cvt_f16_f32_sdwa v10, v2 dst_sel:WORD_1 dst_unused:UNUSED_PAD src0_sel:DWORD":
        lambda a: half_bits(to_float(a)) << 16,
}  # fmt: skip
GFX950_CONVERSION = "v_cvt_pk_f16_f32 v10, v2, v3"
GFX950_BFLOAT16 = "v_cvt_pk_bf16_f32 v10, v2, v3"
FLOAT_RELATIONS = {
    "v_cmp_ge_f32_e64 s[10:11], v2, v3": lambda a, b: a >= b,
    "v_cmp_le_f32_e64 s[10:11], v2, v3": lambda a, b: a <= b,
    "v_cmp_u_f32_e64 s[10:11], v2, v3": lambda a, b: a != a or b != b,
}

# ---- scalar instructions: s10 (or s[10:11]) and SCC, which is 0 before, from s4 to s9 ----


def carried(value):
    return value, value >> 32 != 0


def overflowed(value):
    return value, signed(value) != value


SCALAR_32 = {
    "s_add_u32 s10, s4, s5": lambda a, b: carried(a + b),
    "s_sub_u32 s10, s4, s5": lambda a, b: (a - b, a < b),
    "s_add_i32 s10, s4, s5": lambda a, b: overflowed(signed(a) + signed(b)),
    "s_sub_i32 s10, s4, s5": lambda a, b: overflowed(signed(a) - signed(b)),
    "s_add_u32 s11, s4, s4\ns_addc_u32 s10, s4, s5": lambda a, b: carried(a + b + (a >> 31)),
    "s_sub_u32 s11, s4, s5\ns_subb_u32 s10, s5, s4":
        lambda a, b: (b - a - (a < b), b < a + (a < b)),
    "s_mul_i32 s10, s4, s5": lambda a, b: (a * b, 0),
    "s_mul_hi_u32 s10, s4, s5": lambda a, b: (a * b >> 32, 0),
    "s_and_b32 s10, s4, s5": lambda a, b: (a & b, a & b != 0),
    "s_or_b32 s10, s4, 0": lambda a, b: (a, a != 0),
    "s_xor_b32 s10, s4, s4": lambda a, b: (0, 0),
    "s_andn2_b32 s10, s4, s5": lambda a, b: (a & ~b, a & ~b & M32 != 0),
    "s_lshl_b32 s10, s4, s5": lambda a, b: (a << (b & 31), a << (b & 31) & M32 != 0),
    "s_lshr_b32 s10, s4, s5": lambda a, b: (a >> (b & 31), a >> (b & 31) != 0),
    "s_ashr_i32 s10, s4, s5": lambda a, b: (signed(a) >> (b & 31), signed(a) >> (b & 31) != 0),
    "s_bfe_u32 s10, s4, 0x80008": lambda a, b: (a >> 8 & 255, a >> 8 & 255 != 0),
    "s_bfe_u32 s10, s4, 0x20001e": lambda a, b: (a >> 30, a >> 30 != 0),
    "s_bfe_u32 s10, s4, 5": lambda a, b: (0, 0),
    "s_min_u32 s10, s4, s5": lambda a, b: (min(a, b), a < b),
    "s_max_u32 s10, s4, s5": lambda a, b: (max(a, b), a > b),
    "s_min_i32 s10, s4, s5": lambda a, b: (min(signed(a), signed(b)), signed(a) < signed(b)),
    "s_max_i32 s10, s4, s5": lambda a, b: (max(signed(a), signed(b)), signed(a) > signed(b)),
    "s_cselect_b32 s10, s4, s5": lambda a, b: (b, 0),
    "s_brev_b32 s10, s4": lambda a, b: (int(f"{a:032b}"[::-1], 2), 0),
    "s_mov_b32 s10, 0xdeadbeef": lambda a, b: (0xDEADBEEF, 0),
    "s_movk_i32 s10, 0xffe0": lambda a, b: (-32, 0),
    "s_mov_b32 s10, s4\ns_sext_i32_i16 s10, s5": lambda a, b: (signed(b << 16 & M32) >> 16, 0),
    "s_not_b32 s10, s4": lambda a, b: (~a, ~a & M32 != 0),
    "s_abs_i32 s10, s4": lambda a, b: (abs(signed(a)), a != 0),
    "s_mov_b32 s10, s4\ns_addk_i32 s10, 0x8000": lambda a, b: overflowed(signed(a) - 32768),
    "s_mov_b32 s10, s4\ns_mulk_i32 s10, 0x9000": lambda a, b: (signed(a) * -28672, 0),
    "s_mov_b32 s10, s4\ns_bitset1_b32 s10, s5": lambda a, b: (a | 1 << (b & 31), 0),
    "s_lshl3_add_u32 s10, s4, s5": lambda a, b: carried((a << 3) + b),
    "s_cmp_gt_i32 s4, s5\ns_cselect_b32 s10, s4, s5":
        lambda a, b: (max(signed(a), signed(b)), signed(a) > signed(b)),
    "s_cmpk_gt_i32 s4, 0x8fff\ns_movk_i32 s10, 0x7": lambda a, b: (7, signed(a) > 0x8FFF - 0x10000),
    "s_cmpk_gt_u32 s4, 0x8fff\ns_movk_i32 s10, 0x7": lambda a, b: (7, a > 0x8FFF),
    "s_cmpk_lt_u32 s4, 0x8fff\ns_movk_i32 s10, 0x7": lambda a, b: (7, a < 0x8FFF),
    "s_bitcmp1_b32 s4, s5\ns_movk_i32 s10, 0x7": lambda a, b: (7, a >> (b & 31) & 1),
    "s_bitcmp0_b32 s4, s5\ns_movk_i32 s10, 0x7": lambda a, b: (7, not a >> (b & 31) & 1),
    "v_readfirstlane_b32 s10, v2": None,
}  # fmt: skip
WRITE_LANES = "v_writelane_b32 v10, s4, 5\ns_mov_b32 s10, 63\nv_writelane_b32 v10, 7, s10"
READ_LANES = {lane: f"v_readlane_b32 s10, v2, {lane}" for lane in (0, 5, 63)}
SCALAR_64 = {
    "s_and_b64 s[10:11], s[4:5], s[6:7]": lambda a, b: (a & b, a & b != 0),
    "s_or_b64 s[10:11], s[4:5], s[6:7]": lambda a, b: (a | b, a | b != 0),
    "s_xor_b64 s[10:11], s[4:5], -1": lambda a, b: (~a, ~a & M64 != 0),
    "s_andn2_b64 s[10:11], s[4:5], s[6:7]": lambda a, b: (a & ~b, a & ~b != 0),
    "s_orn2_b64 s[10:11], s[4:5], s[6:7]": lambda a, b: (a | ~b, 1),
    "s_nor_b64 s[10:11], s[4:5], s[6:7]": lambda a, b: (~(a | b), ~(a | b) & M64 != 0),
    "s_cselect_b64 s[10:11], s[4:5], s[6:7]": lambda a, b: (b, 0),
    "s_mov_b64 s[10:11], s[6:7]": lambda a, b: (b, 0),
    "s_mov_b64 s[10:11], 0x80000000": lambda a, b: (0x80000000, 0),
    "s_not_b64 s[10:11], s[4:5]": lambda a, b: (~a, ~a & M64 != 0),
    "s_lshl_b64 s[10:11], s[4:5], s6":
        lambda a, b: (a << (b & 63), a << (b & 63) & M64 != 0),
    "s_lshr_b64 s[10:11], s[4:5], s6": lambda a, b: (a >> (b & 63), a >> (b & 63) != 0),
    "s_ashr_i64 s[10:11], s[4:5], s6":
        lambda a, b: (signed(a, 64) >> (b & 63), signed(a, 64) >> (b & 63) != 0),
    "s_bfe_i64 s[10:11], s[4:5], 0x200000": lambda a, b: (signed(a), a & M32 != 0),
    "s_bfe_i64 s[10:11], s[4:5], 0x140007":
        lambda a, b: (signed((a >> 7) << 12) >> 12, a >> 7 & 0xFFFFF != 0),
    "s_bcnt1_i32_b64 s10, s[4:5]": lambda a, b: (a.bit_count() | SENTINEL << 32, a != 0),
    "s_cmp_eq_u64 s[4:5], s[4:5]\ns_mov_b64 s[10:11], 1": lambda a, b: (1, 1),
    "s_cmp_lg_u64 s[4:5], s[6:7]\ns_mov_b64 s[10:11], 1": lambda a, b: (1, a != b),
    "s_and_saveexec_b64 s[10:11], s[4:5]": lambda a, b: (EXEC, a & EXEC != 0),
    "s_or_saveexec_b64 s[10:11], s[4:5]": lambda a, b: (EXEC, 1),
    "s_andn2_saveexec_b64 s[10:11], s[4:5]": lambda a, b: (EXEC, a & ~EXEC != 0),
    "s_and_saveexec_b64 s[10:11], s[4:5]\ns_mov_b64 s[10:11], exec":
        lambda a, b: (a & EXEC, a & EXEC != 0),
    "s_andn2_saveexec_b64 s[10:11], s[4:5]\ns_mov_b64 s[10:11], exec":
        lambda a, b: (a & ~EXEC, a & ~EXEC != 0),
}  # fmt: skip
# Comparisons give SCC alone; a branch skips what would write s10.
SCALAR_RELATIONS = {
    "eq": int.__eq__, "lg": int.__ne__, "gt": int.__gt__,
    "ge": int.__ge__, "lt": int.__lt__, "le": int.__le__,
}  # fmt: skip
for _name, _relation in SCALAR_RELATIONS.items():
    SCALAR_32[f"s_cmp_{_name}_u32 s4, s5"] = lambda a, b, r=_relation: (SENTINEL, r(a, b))
    SCALAR_32[f"s_cmp_{_name}_i32 s4, s5"] = lambda a, b, r=_relation: (
        SENTINEL, r(signed(a), signed(b)),
    )  # fmt: skip
BRANCHES = {
    "s_branch over": True,
    "s_cbranch_scc0 over": True,
    "s_cbranch_scc1 over": False,
    "s_cbranch_execz over": False,
    "s_cbranch_execnz over": True,
    "s_mov_b64 exec, 0\ns_cbranch_execz over": True,
    "s_mov_b64 exec, 0\ns_cbranch_execnz over": False,
    "s_mov_b64 vcc, 0\ns_cbranch_vccz over": True,
    "s_mov_b64 vcc, 0\ns_cbranch_vccnz over": False,
    "s_mov_b64 vcc, 0\ns_mov_b32 vcc_hi, 1\ns_cbranch_vccnz over": True,
    "s_mov_b64 vcc, 4\ns_cbranch_vccz over": False,
}
for _branch, _taken in BRANCHES.items():
    SCALAR_32[f"{_branch}\ns_movk_i32 s10, 0x7\nover:"] = lambda a, b, t=_taken: (
        SENTINEL if t else 7, 0,
    )  # fmt: skip
EDGES = [0, 1, 2, 31, 32, 63, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0xFFFF, 0x10000]


class Bench:
    """Runs instructions on given registers."""

    def __init__(self, gpu, instructions, path):
        self.gpu, self.path, self.memory = gpu, path, None
        self.names = {text: f"k{number}" for number, text in enumerate(instructions)}
        bodies = []
        for text, name in self.names.items():
            body = KERNEL.format(
                instruction=text.replace("over", f"over_{name}"), sentinel=hex(SENTINEL),
                low=hex(EXEC & M32), high=hex(EXEC >> 32),
            )  # fmt: skip
            bodies.append((name, body))
        machine.assemble(machine.object_text(bodies, gpu.arch), gpu.arch, path)

    def run(self, text, lanes, scalars):
        """v10 and v11 per lane, s10, s11 and SCC."""
        if self.memory is None:
            self.memory = self.gpu.array(numpy.zeros(1024, dtype=numpy.uint32))
        memory = self.memory
        memory[: 4 * LANES] = numpy.array(lanes, dtype=numpy.uint32).T.ravel()
        memory[256:262] = scalars
        argument = struct.pack("<Q", machine.address(memory))
        self.gpu.launch(self.path, self.names[text], argument)
        self.gpu.synchronize()
        out = [memory[320 + 64 * i : 384 + 64 * i].tolist() for i in range(5)]
        return out[0], out[1], out[2][0], out[3][0], out[4][0]


def tables(arch):
    vector = {**INTEGER, **FLOAT}
    vector.update(GFX90A_FLOAT if arch == "gfx90a" else GFX94_FLOAT)
    wide_table = WIDE if arch == "gfx90a" else {**WIDE, **NEW_WIDE}
    return vector, wide_table


def comparisons():
    for relation in RELATIONS:
        for kind in ("u32", "i32"):
            yield f"v_cmp_{relation}_{kind}_e64 s[10:11], v2, v3", relation, kind
        for kind in ("u64", "i64"):
            yield f"v_cmp_{relation}_{kind}_e64 s[10:11], v[2:3], v[4:5]", relation, kind


@pytest.fixture(scope="module", params=machine.ARCHES)
def bench(request, library, programs, tmp_path_factory):
    arch = request.param
    vector, wide_table = tables(arch)
    texts = [*vector, *wide_table, *CARRIES, *CONVERSIONS, *SCALAR_64]
    texts += [*SCALAR_32, *FLOAT_RELATIONS]
    texts += [text for text, _, _ in comparisons()]
    texts += ["v_mbcnt_lo_u32_b32 v10, s4, v2", "v_mbcnt_hi_u32_b32 v10, s5, v2",
              *PACKED, *DOUBLE, *DOUBLE_RELATIONS]  # fmt: skip
    texts += [WRITE_LANES, *READ_LANES.values()]
    if arch == "gfx950":
        texts += [GFX950_CONVERSION, GFX950_BFLOAT16]
        texts.append("v_bitop3_b32 v10, v2, v3, v4 bitop3:0xc8")
    # Each is followed at once by what reads its results, and operands are loaded from memory.
    with machine.Machine(library, programs, arch, EMULATOR_CHECKS="0") as gpu:
        yield Bench(gpu, texts, tmp_path_factory.mktemp("bench") / f"{arch}.hsaco")


@pytest.fixture
def numbers():
    """64 lanes of four registers and six scalars: edges and random bits."""
    random = numpy.random.default_rng(7)
    lanes = random.integers(0, 1 << 32, (LANES, 4), dtype=numpy.uint32)
    for lane in range(0, LANES, 2):
        lanes[lane] = random.choice(EDGES, 4)
    lanes[:8, 1] = lanes[:8, 0]
    return lanes.tolist(), random.integers(0, 1 << 32, 6, dtype=numpy.uint32).tolist()


def enabled(lane):
    return EXEC >> lane & 1


def check_lanes(text, got, expected):
    for lane in range(LANES):
        wanted = expected(lane) & M32 if enabled(lane) else None
        if wanted is not None:
            assert got[lane] == wanted, f"{text}: lane {lane}: {got[lane]:#x}, not {wanted:#x}"
        elif not text.startswith("v_mov_b32_e32 v10, v4"):
            assert got[lane] == SENTINEL, f"{text}: lane {lane} is not enabled"


def mask_of(expected):
    return sum(1 << lane for lane in range(LANES) if enabled(lane) and expected(lane))


def test_integers(bench, numbers):
    lanes, scalars = numbers
    for text, reference in INTEGER.items():
        v10, _, _, _, _ = bench.run(text, lanes, scalars)
        check_lanes(text, v10, lambda lane: reference(*lanes[lane]))


def test_pairs_and_carries(bench, numbers):
    lanes, scalars = numbers
    carry_in = wide(scalars[4], scalars[5])
    _, wide_table = tables(bench.gpu.arch)
    for text, reference in {**wide_table, **CARRIES}.items():
        extra = text in CARRIES

        def result(lane):
            return reference(*lanes[lane], *((carry_in >> lane & 1,) if extra else ()))

        v10, v11, s10, s11, _ = bench.run(text, lanes, scalars)
        check_lanes(text, v10, lambda lane: result(lane)[0])
        if "v[10:11]" in text:
            check_lanes(text, v11, lambda lane: result(lane)[0] >> 32)
        if result(0)[1] is not None:
            assert wide(s10, s11) == mask_of(lambda lane: result(lane)[1]), text


def test_comparisons(bench, numbers):
    lanes, scalars = numbers
    for text, relation, kind in comparisons():
        bits = int(kind[1:])

        def result(lane):
            a, b, c, d = lanes[lane]
            x, y = (a, b) if bits == 32 else (wide(a, b), wide(c, d))
            if kind[0] == "i":
                x, y = signed(x, bits), signed(y, bits)
            return RELATIONS[relation](x, y)

        _, _, s10, s11, _ = bench.run(text, lanes, scalars)
        assert wide(s10, s11) == mask_of(result), text


def test_float_comparisons(bench):
    values = [to_bits(x) for x in SPECIAL]
    lanes = [[values[lane % 8], values[(lane * 7 + lane // 8) % len(values)], 0, 0]
             for lane in range(LANES)]  # fmt: skip
    lanes[1][:2] = lanes[2][:2] = [values[-1], values[3]]
    for text, reference in FLOAT_RELATIONS.items():
        _, _, s10, s11, _ = bench.run(text, lanes, [0] * 6)
        assert wide(s10, s11) == mask_of(
            lambda lane: reference(to_float(lanes[lane][0]), to_float(lanes[lane][1]))
        ), text


def test_pair_conversion(bench):
    if bench.gpu.arch != "gfx950":
        pytest.skip("gfx950 only")
    lanes = [[to_bits(SPECIAL[lane % 16]), to_bits(SPECIAL[lane // 4]), 0, 0]
             for lane in range(LANES)]  # fmt: skip
    for text, bits in ((GFX950_CONVERSION, half_bits), (GFX950_BFLOAT16, bfloat16_bits)):
        v10, _, _, _, _ = bench.run(text, lanes, [0] * 6)
        check_lanes(
            text, v10,
            lambda lane, bits=bits: bits(to_float(lanes[lane][0]))
            | bits(to_float(lanes[lane][1])) << 16,
        )  # fmt: skip


def test_floats(bench):
    random = numpy.random.default_rng(3)
    values = random.uniform(1, 2, (LANES, 4)).astype(numpy.float32)
    values *= random.choice([-1, 1], (LANES, 4))
    values = values.astype(numpy.float32)
    lanes = values.view(numpy.uint32).tolist()
    vector, _ = tables(bench.gpu.arch)
    for text in vector.keys() - INTEGER.keys():
        v10, _, _, _, _ = bench.run(text, lanes, [0] * 6)
        check_lanes(
            text, v10, lambda lane: to_bits(vector[text](*(float(x) for x in values[lane, :3])))
        )
    for text, operation in PACKED.items():
        v10, v11, _, _, _ = bench.run(text, lanes, [0] * 6)
        check_lanes(text, v10, lambda lane: to_bits(operation(values[lane, 0], values[lane, 2])))
        check_lanes(text, v11, lambda lane: to_bits(operation(values[lane, 1], values[lane, 3])))


def test_doubles(bench):
    random = numpy.random.default_rng(5)
    values = random.uniform(1, 2, (LANES, 2)) * random.choice([-1, 1], (LANES, 2))
    lanes = values.view(numpy.uint32).tolist()
    for text, reference in DOUBLE.items():
        v10, v11, _, _, _ = bench.run(text, lanes, [0] * 6)
        for lane in filter(enabled, range(LANES)):
            wanted = reference(*(float(x) for x in values[lane]), lanes[lane][0])
            got = struct.unpack("<d", struct.pack("<II", v10[lane], v11[lane]))[0]
            assert got == wanted or (got != got and wanted != wanted), (
                f"{text}: {got}, not {wanted}"
            )
    special = numpy.array([SPECIAL[lane % len(SPECIAL)] for lane in range(2 * LANES)])
    special = special.reshape(LANES, 2)
    special[:20, 1] = special[:20, 0]
    for text, reference in DOUBLE_RELATIONS.items():
        _, _, s10, s11, _ = bench.run(text, special.view(numpy.uint32).tolist(), [0] * 6)
        assert wide(s10, s11) == mask_of(lambda lane: reference(*special[lane].tolist())), text


def test_conversions(bench, numbers):
    lanes, scalars = numbers
    for lane, value in enumerate(SPECIAL):
        lanes[lane][0] = to_bits(value)
    for lane in range(len(SPECIAL), 40):
        lanes[lane][0] = half_bits(SPECIAL[lane % len(SPECIAL)]) * 0x10001
    for text, reference in CONVERSIONS.items():
        v10, _, _, _, _ = bench.run(text, lanes, scalars)
        for lane in filter(enabled, range(LANES)):
            got, wanted = v10[lane], reference(lanes[lane][0]) & M32
            if "f16_f32" in text and to_float(lanes[lane][0]) != to_float(lanes[lane][0]):
                assert half_value(got | got >> 16) != half_value(got | got >> 16), text  # NaN
            elif "f32_f16" in text and to_float(wanted) != to_float(wanted):
                assert to_float(got) != to_float(got), text
            else:
                assert got == wanted, f"{text}: {lanes[lane][0]:#x}: {got:#x}, not {wanted:#x}"


def test_scalars(bench, numbers):
    lanes, _ = numbers
    random = numpy.random.default_rng(11)
    for text, reference in {**SCALAR_32, **SCALAR_64}.items():
        for _ in range(6):
            s = [int(x) for x in random.choice([*EDGES, *random.integers(0, 1 << 32, 8)], 6)]
            _, _, s10, s11, scc = bench.run(text, lanes, s)
            if reference is None:  # readfirstlane
                assert s10 == lanes[(EXEC & -EXEC).bit_length() - 1][0]
                continue
            if text in SCALAR_32:
                value, condition = reference(s[0], s[1])
                got, bits = s10, 32
            else:
                value, condition = reference(wide(s[0], s[1]), wide(s[2], s[3]))
                got, bits = wide(s10, s11), 64
            assert got == value & ((1 << bits) - 1), f"{text} {s}: {got:#x}"
            assert scc == int(bool(condition)), f"{text} {s}: SCC"


def test_lane_counts_and_tables(bench, numbers):
    lanes, scalars = numbers
    for text, shift in (
        ("v_mbcnt_lo_u32_b32 v10, s4, v2", 0),
        ("v_mbcnt_hi_u32_b32 v10, s5, v2", 32),
    ):
        mask = scalars[0 if shift == 0 else 1] << shift
        v10, _, _, _, _ = bench.run(text, lanes, scalars)
        check_lanes(text, v10, lambda lane: (mask & ((1 << lane) - 1)).bit_count() + lanes[lane][0])
    # Lanes that EXEC leaves out, too.
    v10, _, _, _, _ = bench.run(WRITE_LANES, lanes, scalars)
    assert (v10[5], v10[63]) == (scalars[0], 7)
    for lane, text in READ_LANES.items():
        _, _, s10, _, _ = bench.run(text, lanes, scalars)
        assert s10 == lanes[lane][0]
    if bench.gpu.arch == "gfx950":
        text = "v_bitop3_b32 v10, v2, v3, v4 bitop3:0xc8"  # 0xc8: b and (a or c)
        v10, _, _, _, _ = bench.run(text, lanes, scalars)
        check_lanes(text, v10, lambda lane: lanes[lane][1] & (lanes[lane][0] | lanes[lane][2]))
