# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Each of the emulator's checks on a few instructions that break its rule, and on as few that just
keep it. The wait states are those of the tables in chapter 4.5 of AMD's ISA documents of MI200 and
MI300; gfx950's are LLVM's."""

import ctypes
import os
import re
import struct

import gpus
import machine
import numpy
import pytest

POINTER = "s_load_dwordx2 s[4:5], s[0:1], 0x0\ns_waitcnt lgkmcnt(0)\nv_lshlrev_b32_e32 v1, 2, v0\n"
SEEDS = int(os.environ.get("IRIS_C_TEST_AMD_SEEDS", "1"))


def object_of(tmp_path, arch, bodies, lds=0):
    path = tmp_path / f"checks_{arch}.hsaco"
    kernels = [(f"k{i}", f"{POINTER}{body}\ns_endpgm") for i, body in enumerate(bodies)]
    machine.assemble(machine.object_text(kernels, arch, lds=lds), arch, path)
    return path


def outcome(library, programs, path, arch, number, capfd, block=64):
    """What the emulator says of the kernel; "" if it runs."""
    with machine.Machine(library, programs, arch) as gpu:
        memory = gpu.array(numpy.zeros(1024, dtype=numpy.uint32))
        try:
            gpu.launch(path, f"k{number}", struct.pack("<Q", machine.address(memory)), 1, block)
            gpu.synchronize()
        except machine.HipError:
            return capfd.readouterr().err
    return ""


LOAD = "global_load_dword v2, v1, s[4:5]\n"
TWO = LOAD + "global_load_dword v3, v1, s[4:5] offset:256\n"
WAITS = {
    "a load is read": (LOAD + "v_add_u32_e32 v4, 1, v2", "v_add_u32: it reads v2 before vmcnt"),
    "a load is stored": (LOAD + "global_store_dword v1, v2, s[4:5]", "it reads v2 before vmcnt"),
    "a load is overwritten": (LOAD + "v_mov_b32_e32 v2, 0", "it writes v2 before vmcnt"),
    "a load is overwritten from LDS": (LOAD + "ds_read_b32 v2, v1", "it writes v2 before vmcnt"),
    "a load is an address": (LOAD + "ds_read_b32 v3, v2", "it reads v2 before vmcnt"),
    "the newest of two": (TWO + "s_waitcnt vmcnt(1)\nv_mov_b32_e32 v4, v3", "v3 before vmcnt"),
    "the oldest of two": (TWO + "s_waitcnt vmcnt(1)\nv_mov_b32_e32 v4, v2", ""),
    "loads of one register": (LOAD + LOAD + "s_waitcnt vmcnt(0)\nv_mov_b32_e32 v4, v2", ""),
    "a wait for the other counter": (LOAD + "s_waitcnt lgkmcnt(0)\nv_mov_b32_e32 v4, v2",
                                     "it reads v2 before vmcnt"),
    "what an atomic brings back": ("v_mov_b32_e32 v3, 0\n"
                                   "global_atomic_add v2, v1, v3, s[4:5] {returns}\n"
                                   "v_mov_b32_e32 v4, v2", "it reads v2 before vmcnt"),
    "LDS is read": ("ds_read_b64 v[2:3], v1\nv_mov_b32_e32 v4, v3", "it reads v3 before lgkmcnt"),
    "LDS has been waited for": ("ds_read_b32 v2, v1\nds_read_b32 v3, v1\ns_waitcnt lgkmcnt(1)\n"
                                "v_mov_b32_e32 v4, v2", ""),
    "a scalar is read": ("s_load_dword s6, s[0:1], 0x0\ns_add_u32 s7, s6, 1",
                         r"it reads s6 before lgkmcnt\(0\)"),
    "scalars come in any order": ("s_load_dword s6, s[0:1], 0x0\ns_load_dword s7, s[0:1], 0x4\n"
                                  "s_waitcnt lgkmcnt(1)\ns_add_u32 s8, s6, 1",
                                  r"it reads s6 before lgkmcnt\(0\)"),
    "the clock": ("s_memrealtime s[6:7]\ns_add_u32 s8, s6, 1", "it reads s6 before lgkmcnt"),
    "a branch reads": ("s_load_dwordx2 vcc, s[0:1], 0x0\ns_cbranch_vccz over\nover:",
                       "it reads s106 before lgkmcnt"),
    "memory by scalars": ("s_load_dword s6, s[4:5], 0x0\ns_waitcnt lgkmcnt(0)",
                          "a scalar load of 4 bytes that are neither arguments nor constants"),
}  # fmt: skip


@pytest.mark.parametrize("arch", ["gfx90a", "gfx950"])
def test_waits(library, programs, tmp_path, capfd, arch):
    returns = "glc" if arch == "gfx90a" else "sc0"
    bodies = [body.replace("{returns}", returns) for body, _ in WAITS.values()]
    path = object_of(tmp_path, arch, bodies, lds=4096)
    for number, (name, (_, complaint)) in enumerate(WAITS.items()):
        said = outcome(library, programs, path, arch, number, capfd)
        assert bool(said) == bool(complaint), f"{name}: {said}"
        place = rf"k{number}: work-group 0 at 0x[0-9a-f]+ .*" if complaint else ""
        assert re.search(place + complaint, said), f"{name}: {said}"


WRITE, READ = "ds_write_b32 v1, v0\n", "ds_read_b32 v3, v2\n"
OTHERS = "v_xor_b32_e32 v2, 0x100, v1\n"  # what the other wave writes
DONE, BARRIER = "s_waitcnt lgkmcnt(0)\n", "s_barrier\n"
RACES = {
    "no barrier": (OTHERS + WRITE + DONE + READ + DONE, "byte [0-9a-fx]+ of LDS, which wave"),
    "a barrier": (OTHERS + WRITE + DONE + BARRIER + READ + DONE, ""),
    "a barrier before the wait": (OTHERS + WRITE + BARRIER + READ + DONE, "of LDS, which wave"),
    "reuse": (OTHERS + READ + DONE + WRITE + DONE, "byte [0-9a-fx]+ of LDS, which wave"),
    "reuse after a barrier": (OTHERS + READ + DONE + BARRIER + WRITE + DONE, ""),
    "reuse after a barrier before the wait": (OTHERS + READ + BARRIER + WRITE + DONE,
                                              "writes byte [0-9a-fx]+ of LDS, which wave . reads"),
    "both write": ("v_mov_b32_e32 v2, 0\nds_write_b32 v2, v0\n" + DONE, "LDS, which wave 0 writes"),
    "both write the same": ("v_mov_b32_e32 v2, 0\nds_write_b32 v2, v2\n" + DONE, ""),
    "neighbouring halves": ("v_lshlrev_b32_e32 v2, 1, v0\nds_write_b16 v2, v0\n" + DONE, ""),
}  # fmt: skip


def test_races(library, programs, tmp_path, capfd):
    path = object_of(tmp_path, "gfx942", [body for body, _ in RACES.values()], lds=4096)
    for number, (name, (_, complaint)) in enumerate(RACES.items()):
        said = outcome(library, programs, path, "gfx942", number, capfd, block=128)
        assert bool(said) == bool(complaint), f"{name}: {said}"
        assert re.search(complaint, said), f"{name}: {said}"


MFMA_NAMES = {  # of 32 and of 16 rows, of fp16 and of fp32
    "gfx90a": ("v_mfma_f32_32x32x8f16", "v_mfma_f32_16x16x16f16", "v_mfma_f32_32x32x2f32"),
    "gfx942": ("v_mfma_f32_32x32x8_f16", "v_mfma_f32_16x16x16_f16", "v_mfma_f32_32x32x2_f32"),
    "gfx950": ("v_mfma_f32_32x32x16_f16", "v_mfma_f32_16x16x32_f16", "v_mfma_f32_32x32x2_f32"),
}


def float8_hazards(arch):
    """As many as the compiler leaves: of 8 passes, and of 16 where an instruction takes 64 of K."""
    if arch == "gfx90a":
        return []
    short = "v_mfma_f32_32x32x16_fp8_bf8 v[32:47], v[4:5], v[8:9], v[64:79]"
    rows = [(short, "v_mov_b32_e32 v2, v33", 12 if arch == "gfx950" else 11)]
    if arch == "gfx950":
        long = "v_mfma_f32_32x32x64_f8f6f4 v[32:47], v[4:11], v[16:23], v[64:79] blgp:1"
        tiny = "v_mfma_f32_16x16x128_f8f6f4 v[32:35], v[4:11], v[16:23], v[64:67]"
        rows += [
            (long, "v_mov_b32_e32 v2, v33", 20),
            (long, "v_mov_b32_e32 v64, 0", 15),
            (tiny, "v_mov_b32_e32 v2, v33", 12),
        ]
    return rows


def hazards(arch):
    """What comes first, what comes next, and the wait states between them."""
    large, small, single = MFMA_NAMES[arch]
    old, newest = arch == "gfx90a", arch == "gfx950"
    inputs, more = ("v[4:7], v[8:11]", "v[24:27]") if newest else ("v[4:5], v[8:9]", "v[24:25]")
    first = f"{large} v[32:47], {inputs}, v[64:79]"
    tiny = f"{small} v[32:35], {inputs}, v[64:67]"
    slow = f"{single} v[32:47], v4, v8, v[64:79]"
    result = 19 if old else 12 if newest else 11
    tiny_result = 11 if old else 8 if newest else 7
    slow_result = 19 if old else 18
    as_a = f"{large} v[80:95], v[32:{35 if newest else 33}], {more}, v[80:95]"
    return [
        (first, "v_mov_b32_e32 v2, v33", result),
        (first, "v_mov_b32_e32 v33, v2", result),
        (first, "global_store_dword v1, v47, s[4:5]", result),
        (first, "ds_write_b32 v1, v40", result),
        (first, "ds_read_b32 v40, v1", result),
        (first, "v_mov_b32_e32 v64, 0", 15 if old else 7),
        (first, as_a, result),
        (first, f"{large} v[32:47], {inputs}, v[32:47]", 0),
        (first, f"{large} v[36:51], {inputs}, v[36:51]", 16 if old else 10 if newest else 9),
        (first, "s_add_u32 s8, s9, s9", 0),
        (tiny, "v_mov_b32_e32 v2, v33", tiny_result),
        (tiny, "v_mov_b32_e32 v64, 0", 7 if old else 3),
        (slow, "v_mov_b32_e32 v2, v33", slow_result),
        (slow, "v_mov_b32_e32 v64, 0", 15 if old else 0),
        (slow, f"{large} v[36:51], {inputs}, v[36:51]", 16 if old else 0),
        (slow, f"{single} v[36:51], v4, v8, v[36:51]", 16),
        ("v_mov_b32_e32 v4, 0", first, 2),
        ("v_mov_b32_e32 v64, 0", first, 2),
        ("v_readfirstlane_b32 s4, v0", "global_load_dword v2, v1, s[4:5]", 5),
        ("v_cmp_eq_u32_e64 s[6:7], v0, v1", "global_store_dword v1, v1, s[6:7]", 5),
        ("v_readfirstlane_b32 s6, v0", "v_readlane_b32 s7, v1, s6", 4),
        ("v_readfirstlane_b32 s6, v0", "v_writelane_b32 v9, 5, s6", 4),
        ("v_cmp_eq_u32_e32 vcc, v0, v1", "v_cndmask_b32_e32 v2, v0, v1, vcc", 0 if old else 2),
        ("v_readfirstlane_b32 s6, v0", "v_add_u32_e32 v2, s6, v0", 0 if old else 2),
        ("v_readfirstlane_b32 s6, v0", "s_add_u32 s7, s6, s6", 0),
        ("v_mov_b32_e32 v2, 0", "v_readfirstlane_b32 s6, v2", 0 if old else 1),
        ("v_rcp_f32_e32 v2, v0", "v_mul_f32_e32 v3, v2, v2", 0 if old else 1),
        ("v_rcp_f32_e32 v2, v0", "v_rsq_f32_e32 v3, v2", 0),
        ("v_or_b32_sdwa v2, v0, v1 dst_sel:WORD_1 dst_unused:UNUSED_PAD src0_sel:DWORD "
         "src1_sel:DWORD", "v_mov_b32_e32 v3, v2", 0 if old else 1),
        ("global_store_dwordx4 v1, v[12:15], s[4:5]", "v_mov_b32_e32 v13, 0", 1 if old else 2),
        ("global_store_dwordx2 v1, v[12:13], s[4:5]", "v_mov_b32_e32 v13, 0", 0),
        *float8_hazards(arch),
    ]  # fmt: skip


LEAST_NEEDED = {"gfx90a": 0.85, "gfx942": 0.7, "gfx950": 0.75}


def idle(states):
    """Wait states in s_nops of one cycle, and of up to eight."""
    return "".join(f"s_nop {min(left, 8) - 1}\n" for left in range(states, 0, -8))


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_wait_states(library, programs, tmp_path, capfd, arch):
    """Each hazard with just as many wait states as it needs, with one less, and across a branch."""
    rows, bodies, names = hazards(arch), [], []
    for first, second, needed in rows:
        for states in range(max(needed - 1, 0), needed + 1):
            bodies.append(f"s_nop 7\n{first}\n{idle(states)}{second}\ns_nop 15\ns_nop 15")
            names.append((f"{first} / {second} / {states}", needed if states < needed else 0))
        if needed > 1:  # the branch itself is one
            place = f"over_{len(bodies)}"
            way = f"s_cbranch_scc1 {place}\n{idle(30)}{place}:\n{idle(needed - 2)}"
            bodies.append(f"s_nop 7\n{first}\n{way}{second}\ns_nop 15\ns_nop 15")
            names.append((f"{first} / branch / {second}", needed))
    path = object_of(tmp_path, arch, bodies, lds=4096)
    with machine.Machine(library, programs, arch) as gpu:
        for number, (name, needed) in enumerate(names):
            function = ctypes.c_void_p()
            arguments = (ctypes.byref(function), gpu.module(path), f"k{number}".encode())
            refused = gpu.library.hipModuleGetFunction(*arguments) != 0
            said = capfd.readouterr().err
            assert refused == (needed > 0), f"{name}: {said}"
            assert f": {needed} wait states after" in said or not needed, f"{name}: {said}"


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_the_kernels_have_the_wait_states_that_they_need(emulated, library, programs, arch):
    """On all paths of all kernels. One less is found in nearly all s_nops of the compiler's; the
    rest it puts beside inline assembly, of which it does not know what it contains. The s_nops that
    inline assembly itself has after its stores do not count."""
    emulated(arch)
    path = gpus.KERNELS / f"iris_{arch}.hsaco"
    total = found = 0
    with machine.Machine(library, programs, arch) as gpu:
        for number, name in enumerate(machine.kernel_names(path)):
            function, needed = ctypes.c_void_p(), ctypes.c_uint32()
            gpu.call(
                "hipModuleGetFunction", ctypes.byref(function), gpu.module(path), name.encode()
            )
            if number % 6 == 0 or SEEDS > 1:  # the others take as long
                total += gpu.library.emulator_nops(function, ctypes.byref(needed))
                found += needed.value
    assert total > 10
    assert found > LEAST_NEEDED[arch] * total, f"{found} of {total}"
