# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The emulated machine: memory instructions, waves and work-groups, and what it refuses."""

import re
import struct

import gpus
import instruction_table
import machine
import numpy
import program
import pytest

POINTER = "s_load_dwordx2 s[4:5], s[0:1], 0x0\ns_waitcnt lgkmcnt(0)\nv_lshlrev_b32_e32 v1, 4, v0\n"


@pytest.fixture
def gpu(library, programs):
    with machine.Machine(library, programs, "gfx942") as opened:
        yield opened


@pytest.fixture
def gfx950(library, programs):
    with machine.Machine(library, programs, "gfx950") as opened:
        yield opened


def run(gpu, tmp_path, body, memory, groups=1, block=64, lds=0, name="kernel"):
    path = tmp_path / f"{name}.hsaco"
    machine.assemble(machine.object_text([(name, body)], gpu.arch, lds=lds), gpu.arch, path)
    gpu.launch(path, name, struct.pack("<Q", machine.address(memory)), groups, block)
    gpu.synchronize()


LOADS = {
    "ubyte": (1, "global_store_byte"), "ushort": (2, "global_store_short"),
    "dword": (4, "global_store_dword"), "dwordx2": (8, "global_store_dwordx2"),
    "dwordx3": (12, "global_store_dwordx3"), "dwordx4": (16, "global_store_dwordx4"),
}  # fmt: skip


@pytest.mark.parametrize("width", LOADS)
def test_global_accesses(gpu, tmp_path, width):
    """Each width, by a pair of registers and by scalar base and offset, on some of the lanes."""
    nbytes, store = LOADS[width]
    last = (nbytes + 3) // 4 - 1
    data = "v8" if last == 0 else f"v[8:{8 + last}]"
    body = (
        POINTER
        + f"""
    s_mov_b32 exec_lo, 0xfff0ffff
    global_load_{width} {data}, v1, s[4:5] offset:16
    v_mov_b32_e32 v2, s4
    v_mov_b32_e32 v3, s5
    v_add_co_u32_e32 v2, vcc, v2, v1
    s_nop 1
    v_addc_co_u32_e32 v3, vcc, 0, v3, vcc
    s_waitcnt vmcnt(0)
    {store} v[2:3], {data}, off offset:2048
    s_endpgm
    """
    )
    memory = numpy.random.default_rng(1).integers(0, 255, 4096, dtype=numpy.uint8)
    before = memory.copy()
    memory = gpu.array(memory)
    run(gpu, tmp_path, body, memory)
    for lane in range(64):
        if lane in range(16, 20):
            continue
        at = 2048 + 16 * lane
        before[at : at + nbytes] = before[16 * lane + 16 : 16 * lane + 16 + nbytes]
    assert (memory == before).all()


BUFFER = (
    POINTER
    + """
s_mov_b32 s8, s4
s_mov_b32 s9, s5
s_mov_b32 s10, -1
s_mov_b32 s11, {flags}
s_mov_b32 s12, 0x100
s_mov_b32 exec_lo, 0xfff0ffff
{load}
s_waitcnt vmcnt(0)
global_store_dwordx4 v1, v[8:11], s[4:5] offset:2048
s_endpgm
"""
)


@pytest.mark.parametrize(
    "load", ["buffer_load_dwordx4 v[8:11]", "v_mov_b32_e32 v11, -1\nbuffer_load_dwordx3 v[8:10]"]
)
def test_loads_by_a_descriptor(gpu, tmp_path, load):
    """The descriptor's address, a vector register's offset, a scalar one and the instruction's."""
    whole = "dwordx4" in load
    load += ", v1, s[8:11], s12 offen offset:16 sc0 sc1"
    memory = numpy.random.default_rng(1).integers(0, 1 << 32, 1024, dtype=numpy.uint32)
    before = memory.copy()
    memory = gpu.array(memory)
    run(gpu, tmp_path, BUFFER.format(flags="0x27000", load=load), memory)
    for lane in (*range(16), *range(20, 64)):
        at = 512 + 4 * lane
        before[at : at + 4] = before[4 * lane + 68 : 4 * lane + 72]
        if not whole:
            before[at + 3] = (1 << 32) - 1
    assert (memory == before).all()


DIRECT = (
    POINTER
    + """
s_mov_b32 m0, {place}
s_nop 0
global_load_lds_dwordx4 v1, s[4:5] offset:16
{wait}
v_mov_b32_e32 v2, v1
ds_read_b128 v[8:11], v2 offset:{read}
s_waitcnt lgkmcnt(0)
global_store_dwordx4 v1, v[8:11], s[4:5] offset:2048
s_endpgm
"""
)
ARRIVE_LATE = "global_load_dword v20, v1, s[4:5]\n"  # every second access does


@pytest.mark.parametrize("before", ["", ARRIVE_LATE])
def test_loads_to_lds(gfx950, tmp_path, before):
    """Lane after lane, from m0 and the offset on; there once they have been waited for."""
    memory = numpy.random.default_rng(1).integers(0, 1 << 32, 1024, dtype=numpy.uint32)
    expected = memory.copy()
    expected[512:768] = memory[4:260]
    memory = gfx950.array(memory)
    body = DIRECT.format(place="0x100", wait="s_waitcnt vmcnt(0)", read="272")
    run(gfx950, tmp_path, body.replace("s_mov_b32 m0", before + "s_mov_b32 m0"), memory, lds=2048)
    assert (memory == expected).all()


def test_loads_to_lds_that_nobody_waits_for(gfx950, tmp_path):
    memory = gfx950.array(numpy.arange(1, 1025, dtype=numpy.uint32))
    body = DIRECT.format(place="0x100", wait="", read="272")
    run(
        gfx950,
        tmp_path,
        body.replace("s_mov_b32 m0", ARRIVE_LATE + "s_mov_b32 m0"),
        memory,
        lds=2048,
    )
    assert not numpy.isin(memory[512:768], memory[:512]).any()


def test_loads_to_lds_beyond_its_end_are_a_fault(gfx950, tmp_path, capfd):
    body = DIRECT.format(place="0x400", wait="", read="0")
    with pytest.raises(machine.HipError):
        run(gfx950, tmp_path, body, gfx950.array(numpy.zeros(1024)), lds=2048)
    assert "of LDS" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "load"),
    [
        ("0x24000", "buffer_load_dwordx4 v[8:11], v1, s[8:11], 0 offen"),
        ("0x27000", "buffer_load_dwordx4 v[8:11], off, s[8:11], 0"),
        ("0x27000", "buffer_load_dwordx4 v[8:11], v1, s[4:7], 0 offen"),
    ],
)
def test_other_descriptors_are_refused(gpu, tmp_path, capfd, flags, load):
    with pytest.raises(machine.HipError):
        run(gpu, tmp_path, BUFFER.format(flags=flags, load=load), gpu.array(numpy.zeros(1024)))
    assert "a descriptor that the emulator does not know" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("store", "stored"),
    [("global_store_short_d16_hi", 0x1234), ("global_store_byte_d16_hi", 0x34)],
)
def test_high_half_is_stored(gpu, tmp_path, store, stored):
    memory = gpu.array(numpy.zeros(512, dtype=numpy.uint32))
    body = POINTER + f"v_mov_b32_e32 v8, 0x12345678\n{store} v1, v8, s[4:5]\ns_endpgm"
    run(gpu, tmp_path, body, memory)
    assert (memory[:256:4] == stored).all()


def test_atomics(gpu, tmp_path):
    """Four waves add to one counter and each lane gets another value; one lane wins the lock."""
    body = (
        POINTER
        + """
    v_mov_b32_e32 v2, 0
    v_mov_b32_e32 v8, 3
    v_mov_b32_e32 v4, 1
    v_mov_b32_e32 v5, 0
    global_atomic_add v9, v2, v8, s[4:5] sc0 sc1
    global_atomic_cmpswap v10, v2, v[4:5], s[4:5] offset:8 sc0 sc1
    global_atomic_or v2, v4, s[4:5] offset:12 sc1
    s_waitcnt vmcnt(0)
    v_cmp_eq_u32_e32 vcc, 0, v10
    s_and_saveexec_b64 s[6:7], vcc
    global_atomic_add v2, v8, s[4:5] offset:4 sc1
    s_mov_b64 exec, s[6:7]
    v_lshlrev_b32_e32 v1, 2, v0
    global_store_dword v1, v9, s[4:5] offset:64
    s_endpgm
    """
    )
    memory = gpu.array(numpy.zeros(1024, dtype=numpy.uint32))
    run(gpu, tmp_path, body, memory, block=256)
    assert memory[:4].tolist() == [768, 3, 1, 1]
    assert sorted(memory[16:272].tolist()) == list(range(0, 768, 3))


LDS = """
v_lshlrev_b32_e32 v2, 5, v0
v_add_u32_e32 v8, 1, v0
v_add_u32_e32 v9, 2, v0
v_add_u32_e32 v10, 3, v0
v_add_u32_e32 v11, 4, v0
"""
LDS_CASES = {
    "b32": ("ds_write_b32 v2, v11 offset:4", "ds_read_b32 v12, v2 offset:4", [4]),
    "b16": ("ds_write_b32 v2, v11 offset:4\nv_or_b32_e32 v10, 0x10000, v11\n"
            "ds_write_b16 v2, v10 offset:4", "ds_read_b32 v12, v2 offset:4", [4]),
    "b16 of the high half": (
        "ds_write_b32 v2, v8 offset:4\nv_lshl_or_b32 v10, v11, 16, v9\n"
        "ds_write_b16_d16_hi v2, v10 offset:4", "ds_read_b32 v12, v2 offset:4", [4],
    ),
    "b64": ("ds_write_b64 v2, v[8:9] offset:8", "ds_read_b64 v[12:13], v2 offset:8", [1, 2]),
    "b96": ("ds_write_b96 v2, v[8:10]", "ds_read_b96 v[12:14], v2", [1, 2, 3]),
    "b128": ("ds_write_b128 v2, v[8:11] offset:16", "ds_read_b128 v[12:15], v2 offset:16",
             [1, 2, 3, 4]),
    "2 b32": ("ds_write2_b32 v2, v8, v11 offset0:1 offset1:7",
              "ds_read2_b32 v[12:13], v2 offset0:7 offset1:1", [4, 1]),
    "2 b64": ("ds_write2_b64 v2, v[8:9], v[10:11] offset0:0 offset1:3",
              "ds_read2_b64 v[12:15], v2 offset0:3 offset1:0", [3, 4, 1, 2]),
    "mixed": ("ds_write_b64 v2, v[8:9]", "ds_read2_b32 v[12:13], v2 offset1:1", [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize("name", LDS_CASES)
def test_lds(gpu, tmp_path, name):
    write, read, expected = LDS_CASES[name]
    last = len(expected) - 1
    data = "v12" if last == 0 else f"v[12:{12 + last}]"
    store = ["global_store_dword", "global_store_dwordx2", "global_store_dwordx3",
             "global_store_dwordx4"][last]  # fmt: skip
    body = (
        POINTER
        + LDS
        + f"""
    {write}
    {read}
    s_waitcnt lgkmcnt(0)
    {store} v1, {data}, s[4:5]
    s_endpgm
    """
    )
    memory = gpu.array(numpy.zeros(256, dtype=numpy.uint32))
    run(gpu, tmp_path, body, memory, lds=2048)
    got = memory.reshape(64, 4)[:, : last + 1]
    assert (got == numpy.arange(64)[:, None] + numpy.array(expected)).all()


# A matrix of K by 16 of M is read transposed by two instructions, the second by rows that lie
# `second` of K behind the first's. For each bit of a lane's number, and of an element's number in
# what a lane reads or receives, how far on in (M, K) it is. AMD's CDNA 4 ISA document, section
# 11.4, names the K that either instruction loads; the lanes are those of Triton's unit tests
# (LinearLayoutConversionsTest, mfma16_dot_op_lhs_trans: operands of 16 x 16 x 32 and, of 8 bits,
# 16 x 16 x 64), `received` those of MFMA's operands.
TRANSPOSED = {
    "ds_read_b64_tr_b16": {
        "read": ([(4, 0), (8, 0), (0, 1), (0, 2), (0, 8), (0, 16)], [(1, 0), (2, 0)]),
        "received": ([(1, 0), (2, 0), (4, 0), (8, 0), (0, 8), (0, 16)], [(0, 1), (0, 2)]),
        "second": 4,
        "K": 32,
    },
    "ds_read_b64_tr_b8": {
        "read": ([(8, 0), (0, 1), (0, 2), (0, 4), (0, 16), (0, 32)], [(1, 0), (2, 0), (4, 0)]),
        "received": ([(1, 0), (2, 0), (4, 0), (8, 0), (0, 16), (0, 32)], [(0, 1), (0, 2), (0, 4)]),
        "second": 8,
        "K": 64,
    },
}
TRANSPOSING = (
    POINTER
    + """
global_load_dwordx4 v[4:7], v1, s[4:5]
v_lshlrev_b32_e32 v2, 2, v0
global_load_dword v3, v2, s[4:5] offset:1024
s_waitcnt vmcnt(0)
ds_write_b128 v1, v[4:7]
{before}
{name} v[8:9], v3
{name} v[10:11], v3 offset:{offset}
s_waitcnt lgkmcnt(0)
global_store_dwordx4 v1, v[8:11], s[4:5] offset:2048
s_endpgm
"""
)


def place(layout, lane, element):
    """(M, K) of an element of a lane."""
    moved = [
        step for number, steps in zip((lane, element), layout, strict=True)
        for bit, step in enumerate(steps) if number >> bit & 1
    ]  # fmt: skip
    return sum(m for m, _ in moved), sum(k for _, k in moved)


def transpose(gpu, tmp_path, name, addresses, matrix, before=""):
    """What each lane receives."""
    body = TRANSPOSING.format(name=name, before=before, offset=TRANSPOSED[name]["second"] * 32)
    memory = numpy.zeros(4096, dtype=numpy.uint8)
    memory[:1024] = matrix.view(numpy.uint8).ravel()
    memory[1024:1280] = numpy.array(addresses, dtype=numpy.uint32).view(numpy.uint8)
    memory = gpu.array(memory)
    run(gpu, tmp_path, body, memory, lds=2048)
    return memory[2048:3072].view(matrix.dtype).reshape(64, -1)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_reads_that_transpose(gfx950, tmp_path, name):
    layout = TRANSPOSED[name]
    dtype = numpy.uint16 if name.endswith("b16") else numpy.uint8
    matrix = numpy.random.default_rng(1).integers(0, 1 << 16, (32, 16)).astype(numpy.uint16)
    matrix = matrix.view(dtype).reshape(-1)
    pitch = 32 // dtype().itemsize  # a row of K is 32 bytes: of 8-bit elements it has two halves
    addresses = [
        32 * k + m * dtype().itemsize
        for m, k in (place(layout["read"], lane, 0) for lane in range(64))
    ]
    # Rows of the second half of K lie in the second 16 bytes of those of the first one.
    addresses = [x if x < 1024 else x - 1024 + 16 for x in addresses]
    got = transpose(gfx950, tmp_path, name, addresses, matrix)
    half = got.shape[1] // 2
    for lane in range(64):
        for element in range(got.shape[1]):
            m, k = place(layout["received"], lane, element % half)
            k += element // half * layout["second"]
            expected = matrix[k % 32 * pitch + k // 32 * 16 + m]
            assert got[lane, element] == expected, (lane, element)


@pytest.mark.parametrize(
    ("before", "address", "complaint"),
    [
        ("s_mov_b32 exec_lo, 0x7fffffff", 0, "with lanes disabled"),
        ("", 4, "a transposing read at 0x4"),
        ("", 2048, "8 bytes at 0x800 of 2048 bytes of LDS"),
    ],
    ids=["lanes", "alignment", "past LDS"],
)
def test_reads_that_transpose_what_they_must_not(
    gfx950, tmp_path, capfd, before, address, complaint
):
    name, matrix = "ds_read_b64_tr_b16", numpy.zeros(512, dtype=numpy.uint16)
    with pytest.raises(machine.HipError):
        transpose(gfx950, tmp_path, name, [address] * 64, matrix, before)
    assert complaint in capfd.readouterr().err


# Each work-group waits for the one before it, adds one to what that wrote, and signals.
RING = """
s_load_dwordx2 s[4:5], s[0:1], 0x0
s_waitcnt lgkmcnt(0)
s_lshl_b32 s6, s2, 2
v_mov_b32_e32 v1, s6
wait:
s_sleep 1
global_load_dword v2, v1, s[4:5] sc0 sc1
s_waitcnt vmcnt(0)
v_readfirstlane_b32 s7, v2
s_cmp_eq_u32 s7, 0
s_cbranch_scc1 wait
v_add_u32_e32 v2, 1, v2
global_store_dword v1, v2, s[4:5] offset:4 sc0 sc1
s_endpgm
"""


@pytest.mark.parametrize("adversarial", ["0", "1"])
@pytest.mark.parametrize("order", ["", "reversed", "random"])
def test_work_groups_run_side_by_side(library, programs, tmp_path, order, adversarial):
    behaviour = {"EMULATOR_ORDER": order, "EMULATOR_ADVERSARIAL": adversarial}
    for arch in ("gfx942", "gfx950"):
        with machine.Machine(library, programs, arch, **behaviour) as gpu:
            memory = gpu.array(numpy.zeros(64, dtype=numpy.uint32))
            memory[0] = 5
            run(gpu, tmp_path, RING, memory, groups=9, name=f"ring_{arch}")
            assert memory[:10].tolist() == list(range(5, 15))


def test_a_deadlock_is_found(gpu, tmp_path, capfd):
    memory = gpu.array(numpy.zeros(64, dtype=numpy.uint32))
    with pytest.raises(machine.HipError, match="hipErrorLaunchTimeOut"):
        run(gpu, tmp_path, RING, memory, groups=2)
    assert "deadlock, waves are at 0.0:" in capfd.readouterr().err


def test_barriers(gpu, tmp_path):
    """Wave i writes, all read what wave i + 1 wrote."""
    body = (
        POINTER
        + """
    v_lshlrev_b32_e32 v2, 2, v0
    ds_write_b32 v2, v0
    s_waitcnt lgkmcnt(0)
    s_barrier
    v_add_u32_e32 v3, 64, v0
    v_and_b32_e32 v3, 0xff, v3
    v_lshlrev_b32_e32 v3, 2, v3
    ds_read_b32 v4, v3
    s_waitcnt lgkmcnt(0)
    global_store_dword v2, v4, s[4:5]
    s_endpgm
    """
    )
    memory = gpu.array(numpy.zeros(256, dtype=numpy.uint32))
    run(gpu, tmp_path, body, memory, block=256, lds=1024)
    assert memory.tolist() == [(i + 64) % 256 for i in range(256)]


@pytest.mark.parametrize(
    ("instruction", "complaint"),
    [
        ("global_load_dword v2, v[0:1], off", "4 bytes at 0x[0-9a-f]+ are no memory"),
        ("global_store_dword v1, v1, s[4:5] offset:4092", "are no memory of the device"),
        ("ds_read_b128 v[4:7], v1", r"16 bytes at 0x\w+ of 16 bytes of LDS"),
    ],
    ids=["wild load", "past the end", "past LDS"],
)
def test_what_is_out_of_range_is_a_fault(gpu, tmp_path, capfd, instruction, complaint):
    body = POINTER + f"v_mov_b32_e32 v1, 0x10\n{instruction}\ns_endpgm"
    memory = gpu.array(numpy.zeros(1024, dtype=numpy.uint32))
    with pytest.raises(machine.HipError, match="hipErrorLaunchFailure"):
        run(gpu, tmp_path, body, memory, lds=16)
    assert re.search(f"kernel: work-group 0 at .*{complaint}", capfd.readouterr().err)


def test_an_unknown_instruction_is_refused(gpu, tmp_path, capfd):
    memory = gpu.array(numpy.zeros(16, dtype=numpy.uint32))
    with pytest.raises(machine.HipError, match="hipErrorNoBinaryForGpu"):
        run(gpu, tmp_path, "v_sin_f32_e32 v1, v2\ns_endpgm", memory)
    assert "v_sin_f32: an instruction that the emulator does not know" in capfd.readouterr().err


@pytest.mark.parametrize(
    "instruction",
    [
        "v_add_f32_e64 v1, -v2, v3",
        "v_mul_f32_e64 v1, v2, v3 clamp",
        "v_mov_b32_dpp v1, v2 row_shr:1 row_mask:0xf bank_mask:0xf",
        "v_add_f32_e32 v1, 0.15915494, v2",
    ],
)
def test_unknown_operands_are_refused(gpu, tmp_path, instruction):
    memory = gpu.array(numpy.zeros(16, dtype=numpy.uint32))
    with pytest.raises(program.UnknownSyntax):
        run(gpu, tmp_path, f"{instruction}\ns_endpgm", memory)


def test_another_architecture_is_refused(library, programs, tmp_path):
    path = tmp_path / "other.hsaco"
    machine.assemble(machine.object_text([("kernel", "s_endpgm")], "gfx90a"), "gfx90a", path)
    with (
        machine.Machine(library, programs, "gfx950") as gpu,
        pytest.raises(machine.HipError, match="hipErrorNoBinaryForGpu"),
    ):
        gpu.module(path)


def test_every_instruction_of_the_objects_is_tested(programs):
    for arch in machine.ARCHES:
        names = program.names(program.prepare(gpus.KERNELS / f"iris_{arch}.hsaco", programs))
        untested = names - set(instruction_table.tests())
        assert not untested, sorted(untested)


def test_the_table_of_instructions(library, programs, tmp_path):
    """What ran, how often, and how true its emulation is."""
    counts = tmp_path / "counts"
    counts.mkdir()
    with machine.Machine(library, programs, "gfx942", EMULATOR_COUNTS=str(counts)) as gpu:
        body = "v_rcp_f32_e32 v1, v0\nv_mov_b32_e32 v2, 0\nv_mov_b32_e32 v3, 0\ns_endpgm"
        run(gpu, tmp_path, body, gpu.array(numpy.zeros(4, dtype=numpy.uint32)), block=128)
    lines = instruction_table.lines(counts, library)
    table = {line.split()[0]: line.split()[1:] for line in lines}
    assert table["v_mov_b32"] == ["4", "exact", "test_amd_instructions.py"]
    assert table["v_rcp_f32"][:2] == ["2", "approximate:"]
    assert instruction_table.status(library, "v_sin_f32") == "refused"
