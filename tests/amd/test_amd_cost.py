# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The cost model counts what it says it counts, and what it says of the main loops stays as good
as it is."""

import pathlib
import re

import amd_objects
import control_flow
import cost
import gpus
import lds_banks
import pytest

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs/hip.md"
PRODUCTS = "iris_(MATMUL_|ALL_GATHER_MATMUL)(?!.*_LL_)(?!.*_SCALED_).*"
SCALED = "iris_MATMUL_ALL_REDUCE_TWO_SHOT_SCALED_BF16"
MFMA = "v_mfma_f32_32x32x8_f16"  # 32 cycles on gfx942


def code(*lines):
    return [
        amd_objects.Instruction(4 * i, *(line.split(" ", 1) + [""])[:2], None)
        for i, line in enumerate(lines)
    ]


def issued(*lines, lds=0, latency=500, groups=1, waves=1, arch="gfx942"):
    """The cycles in which each wave issues the lines, once."""
    trace = []
    operations = [cost.operation(x, arch, lds) for x in code(*lines)]
    cost.ComputeUnit(operations, groups, latency, waves, trace).play(rounds=1)
    found = [[] for _ in range(groups * waves)]
    for wave, _, start in trace:
        found[wave].append(start)
    return found


# ---- the mechanisms ----


def test_an_instruction_issues_every_four_cycles():
    assert issued("v_mov_b32_e32 v0, v1", "s_add_u32 s0, s0, s1", "s_nop 0") == [[0, 4, 8]]


@pytest.mark.parametrize(("arch", "passes"), [("gfx90a", 64), ("gfx942", 32)])
def test_the_matrix_unit_takes_its_time(arch, passes):
    lines = (f"{MFMA} v[0:15], v[40:41], v[42:43], v[0:15]",
             f"{MFMA} v[16:31], v[40:41], v[42:43], v[16:31]",
             "v_mov_b32_e32 v50, v51")  # fmt: skip
    assert issued(*lines, arch=arch) == [[0, passes, passes + 4]]


def test_a_sum_in_the_same_registers_only_waits_for_the_unit():
    line = f"{MFMA} v[0:15], v[40:41], v[42:43], v[0:15]"
    assert issued(line, line, "v_mov_b32_e32 v50, v51") == [[0, 32, 36]]


def test_what_reads_a_result_waits_for_it():
    first = f"{MFMA} v[0:15], v[40:41], v[42:43], v[0:15]"
    assert issued(first, "v_mov_b32_e32 v50, v15") == [[0, 32]]
    # Another unit would do it at 4; here both wait for the unit, so the result comes second.
    second = f"{MFMA} v[16:31], v[0:1], v[42:43], v[16:31]"
    assert issued(first, second, "ds_write_b64 v60, v[16:17]") == [[0, 32, 64]]


def test_waves_of_a_simd_share_its_matrix_unit_and_those_of_others_do_not():
    line = f"{MFMA} v[0:15], v[40:41], v[42:43], v[0:15]"
    assert issued(line, waves=5) == [[0], [0], [0], [0], [32]]


def test_a_wait_counts():
    load = "global_load_dwordx4 v[{}:{}], v0, s[0:1]"
    loads = load.format(4, 7), load.format(8, 11)
    assert issued(*loads, "s_waitcnt vmcnt(1)", "s_nop 0") == [[0, 4, 500, 504]]
    assert issued(*loads, "s_waitcnt vmcnt(0)", "s_nop 0") == [[0, 4, 504, 508]]
    assert issued(*loads, "s_waitcnt lgkmcnt(0)", "s_nop 0") == [[0, 4, 8, 12]]
    assert issued(*loads, "s_waitcnt vmcnt(0)", latency=900)[0][2] == 904


def test_lds_serves_one_access_after_the_other():
    lines = ("ds_read_b128 v[4:7], v0", "ds_read_b128 v[8:11], v0", "s_waitcnt lgkmcnt(1)",
             "s_waitcnt lgkmcnt(0)")  # fmt: skip
    there = cost.LDS_LATENCY
    assert issued(*lines, lds=8) == [[0, 4, 8 + there, 16 + there]]
    assert issued(*lines, lds=16) == [[0, 4, 16 + there, 32 + there]]
    # All four waves' first accesses come before any second one.
    assert [wave[2] for wave in issued(*lines, lds=8, waves=4)] == [
        8 + there, 16 + there, 24 + there, 32 + there,
    ]  # fmt: skip


def test_a_barrier_waits_for_the_waves_of_its_group():
    lines = ("ds_read_b128 v[4:7], v0", "s_waitcnt lgkmcnt(0)", "s_barrier ", "s_nop 0")
    slow, fast = 32 + cost.LDS_LATENCY, 16 + cost.LDS_LATENCY
    assert issued(*lines, lds=16, waves=2) == [
        [0, fast, fast + 4, slow + 8],
        [0, slow, slow + 4, slow + 8],
    ]
    two = issued(*lines, lds=16, waves=1, groups=2)
    assert two[0][3] == fast + 8, "the other group's wave is not waited for"


def test_rounds_repeat_and_a_taken_branch_costs_more():
    x = cost.Operation
    loop = [x("matrix", 32), x("branch")]
    replay = cost.ComputeUnit(loop, waves=1).run()
    assert replay.cycles == 32, "the branch is in the shadow of the matrix unit"
    loop = [x("matrix", 8), x("branch")]
    assert cost.ComputeUnit(loop, waves=1).run().cycles == cost.ISSUE + cost.TAKEN


def test_groups_fit_by_registers_and_lds():
    def fit(arch, registers, lds):
        numbers = {"vgpr_count": registers, "group_segment_fixed_size": lds}
        return cost.resident_groups(numbers, arch)

    assert fit("gfx942", 256, 32768) == 2
    assert fit("gfx942", 257, 32768) == 1
    assert fit("gfx942", 256, 32769) == 1
    assert fit("gfx950", 168, 40960) == 3


# ---- banks ----


@pytest.mark.parametrize(
    ("arch", "width", "reads", "stride", "expected"),
    [
        ("gfx942", 16, True, 16, 8),
        ("gfx942", 16, True, 128, 64),  # every lane the same four banks
        ("gfx942", 16, True, 80, 8),
        ("gfx950", 16, True, 80, 4),
        ("gfx950", 16, True, 128, 32),  # pairs of banks' halves
        ("gfx942", 16, False, 16, 8),
        ("gfx942", 4, False, 4, 2),
        ("gfx942", 4, False, 128, 64),
        ("gfx942", 4, True, 0, 2),  # one word for all
    ],
)
def test_cycles_by_banks(arch, width, reads, stride, expected):
    addresses = [stride * lane for lane in range(64)]
    assert lds_banks.cycles(arch, width, reads, addresses) == expected


def test_a_read_serves_the_lanes_that_amd_says():
    """Lanes 0 and 20 are served together, lanes 0 and 4 are not."""
    apart = [16 * (lane % 8) for lane in range(64)]  # of eight consecutive lanes each its banks
    clash = list(apart)
    clash[20] = apart[0] + 128
    assert lds_banks.cycles("gfx942", 16, True, clash) > lds_banks.cycles("gfx942", 16, True, apart)
    other = list(apart)
    other[16] = apart[0] + 128  # served with 4 to 7
    assert lds_banks.cycles("gfx942", 16, True, other) == lds_banks.cycles(
        "gfx942", 16, True, apart
    )


def test_every_lane_is_served_once():
    for arch in cost.RATES:
        for width in (4, 8, 16):
            for reads in (True, False):
                groups = lds_banks.groups(arch, width, reads)
                assert sorted(lane for group in groups for lane in group) == list(range(64))


def access(*lines, arch="gfx942"):
    kernel = control_flow.Kernel("toy", code(*lines))
    return lds_banks.access_cycles(arch, lds_banks.Addresses(kernel), len(lines) - 1)


def test_addresses_come_from_the_code():
    assert access("v_lshlrev_b32_e32 v1, 4, v0", "ds_read_b128 v[4:7], v1 offset:64") == 8
    assert access("v_lshlrev_b32_e32 v1, 7, v0", "ds_read_b128 v[4:7], v1") == 64
    assert access("v_lshlrev_b32_e32 v1, 7, v0", "v_add_u32_e32 v2, s3, v1",
                  "ds_write_b32 v2, v9") == 64  # fmt: skip
    assert access("v_lshlrev_b32_e32 v1, 2, v0", "ds_write2_b32 v1, v8, v9 offset1:1") == 4
    assert access("s_movk_i32 s4, 0x50", "v_mul_u32_u24_e32 v1, s4, v0",
                  "ds_read_b128 v[4:7], v1") == 8  # fmt: skip
    # A half-wave reads one place, the other one the same banks 128 bytes on.
    assert access("v_bfe_i32 v1, v0, 5, 1", "v_and_b32_e32 v1, 0x80, v1",
                  "ds_read_b128 v[4:7], v1") == 8  # fmt: skip
    assert lds_banks.ARITHMETIC["v_bfe_i32"](0x20, 5, 1) == 0xFFFFFFFF
    assert lds_banks.ARITHMETIC["v_bfe_i32"](0x20, 5, 2) == 1
    with pytest.raises(lds_banks.UnknownAddress, match="global_load_dword"):
        access("global_load_dword v1, v0, s[0:1]", "ds_read_b128 v[4:7], v1")
    with pytest.raises(lds_banks.UnknownAddress, match="s4"):
        access("s_load_dword s4, s[0:1], 0x0", "v_mul_u32_u24_e32 v1, s4, v0",
               "ds_read_b128 v[4:7], v1")  # fmt: skip


# ---- the shipped objects ----


@pytest.fixture(scope="module", params=list(cost.RATES))
def shipped(request):
    """(arch, metadata, the main loops of all products)"""
    path = gpus.KERNELS / f"iris_{request.param}.hsaco"
    metadata = amd_objects.metadata(path)
    return request.param, metadata, list(cost.loops(path, request.param, PRODUCTS))


def test_main_loops_meet_no_bank_twice_and_spill_nothing(shipped):
    arch, metadata, loops = shipped
    products = [name for name in metadata if re.fullmatch(PRODUCTS, name)]
    assert len(products) == 24
    for name in products:
        numbers = metadata[name]
        layouts = sorted(loop.transposed for loop in loops if loop.kernel == name)
        assert layouts == [0, 1, 1, 2], name
        for key in ("vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size"):
            assert numbers[key] == 0, (name, key)
    for loop in loops:
        wide = loop.kernel, loop.transposed
        # LDS transposes elements of 16 bits.
        direct = arch == "gfx950" and (loop.transposed == 0 or "F32" not in loop.kernel)
        assert loop.direct == direct, wide
        assert loop.stages == (4 if direct else 2), wide
        reads = {
            "ds_read_b128": 4 * loop.stages * (2 - loop.transposed if direct else 2),
            "ds_read_b64_tr_b16": 8 * loop.stages * loop.transposed if direct else 0,
        }
        for name, count in reads.items():
            cycles = {4 if arch == "gfx950" else 8} if count else set()
            assert set(loop.lds_cycles(name)) == cycles, (wide, name)
            assert len(loop.lds_cycles(name)) == count, (wide, name)
        assert len(loop.lds_cycles("ds_read")) == sum(reads.values()), wide
        assert set(loop.lds_cycles("ds_write_b128")) <= {8}, wide
        if arch != "gfx950" and "F32" not in loop.kernel:
            assert set(loop.lds_cycles("ds_write2_b32")) <= {4}, wide
        barriers = loop.stages // 2 if loop.direct else loop.stages
        assert loop.lds_waits <= (2 if loop.direct else 3) * barriers, wide
        assert loop.count("barrier") == barriers, wide


# Of the time the matrix unit is busy, at a latency of memory of 900 and of 1200 cycles: of operands
# whose runs all lie along K, of one that lies across, and of two.
LEAST = {
    ("gfx90a", 4): ((0.98, 0.98), (0.98, 0.98), (0.98, 0.98)),
    ("gfx90a", 2): ((0.98, 0.98), (0.98, 0.98), (0.98, 0.98)),
    ("gfx942", 4): ((0.98, 0.98), (0.98, 0.98), (0.98, 0.98)),
    ("gfx942", 2): ((0.93, 0.80), (0.93, 0.79), (0.93, 0.79)),
    ("gfx950", 4): ((0.98, 0.98), (0.98, 0.98), (0.98, 0.98)),
    ("gfx950", 2): ((0.92, 0.88), (0.78, 0.78), (0.65, 0.65)),
}
MEASURED = {f"iris_MATMUL_ALL_REDUCE_TWO_SHOT_{dtype}" for dtype in ("F32", "F16", "BF16")}
MEASURED |= {"iris_ALL_GATHER_MATMUL_NONE_BF16"}


def shown(shipped):
    arch, metadata, loops = shipped
    for loop in loops:
        if loop.kernel in cost.SHOWN and loop.transposed != 1:
            yield loop, cost.row(loop, cost.resident_groups(metadata[loop.kernel], arch))


def test_matrix_unit_is_busy_whatever_the_latency(shipped):
    arch, _, loops = shipped
    measured = [loop for loop in loops if loop.kernel in MEASURED]
    assert len(measured) == 4 * len(MEASURED)
    for loop in measured:
        least = LEAST[arch, 4 if "F32" in loop.kernel else 2][loop.transposed]
        busy = loop.replays[900].busy, loop.replays[1200].busy
        assert all(x <= y <= 1 for x, y in zip(least, busy, strict=True)), (loop.kernel, busy)
        assert loop.replays[500].cycles >= loop.matrix_cycles * loop.stages


def test_streams_of_weights_outrun_memory(shipped):
    """In the form decode, whatever the latency, and meet no bank twice."""
    arch = shipped[0]
    found = cost.streams(gpus.KERNELS / f"iris_{arch}.hsaco", arch)
    assert [(x.rows, x.across) for x in found] == [
        (32, False), (32, True), (64, False), (64, True),
    ]  # fmt: skip
    for stream in found:
        cycles = {(x.name, y.cycles) for x, y in zip(stream.code, stream.operations, strict=True)
                  if y.kind == "lds"}  # fmt: skip
        read = 4 if arch == "gfx950" else 8
        assert cycles == {("ds_read_b128", read), ("ds_write_b128", 8)}, (stream.rows, cycles)
        assert min(stream.rates.values()) > 1.2 * cost.wanted_rate(arch), stream.rates
    written = [line for line in DOCUMENT.read_text().splitlines() if f"| {arch} | up to" in line]
    assert len(written) == len(found)
    for line, stream in zip(written, found, strict=True):
        said = [cell.strip() for cell in line.strip("|").split("|")]
        assert said[:3] == list(cost.stream_row(stream)[:3])
        for ours, theirs in zip(said[3:], cost.stream_row(stream)[3:], strict=True):
            assert float(ours) == pytest.approx(float(theirs), rel=0.05), line


# Of float8 products: cycles of a stage at a latency of 700, of operands along K, of one that lies
# across, and of two.
FLOAT8 = {"gfx942": (540, 556, 600), "gfx950": (259, 320, 384)}


@pytest.mark.parametrize("arch", FLOAT8)
def test_float8_products_are_twice_as_fast_as_those_of_16_bits(arch):
    """Nearly: a stage multiplies twice as much of K. Of each pair of formats; the document has
    these numbers."""
    (told,) = (x for x in DOCUMENT.read_text().split("\n\n")
               if "float8" in x and "cycles a stage" in x)  # fmt: skip
    assert set(FLOAT8[arch]) <= {float(x) for x in re.findall(r"\d+(?:\.\d+)?", told)}
    path = gpus.KERNELS / f"iris_{arch}.hsaco"
    plain = {x.transposed: x for x in cost.loops(path, arch, SCALED.replace("SCALED_", ""))}
    scaled = list(cost.loops(path, arch, SCALED))
    assert [x.transposed for x in scaled].count(1) == 8
    assert len(scaled) == 16
    for loop in scaled:
        assert loop.direct == (arch == "gfx950")
        assert loop.stages == (4 if loop.direct else 2)
        assert set(loop.lds_cycles("ds_write_b128")) <= {8}
        assert set(loop.lds_cycles("ds_read")) == {4 if loop.direct else 8}
        for latency in cost.LATENCIES:
            like = plain[loop.transposed].replays[latency]
            rate = 2 * like.cycles / plain[loop.transposed].stages
            rate /= loop.replays[latency].cycles / loop.stages
            assert rate >= 1.75, (loop.transposed, latency, rate)
        cycles = loop.replays[700].cycles / loop.stages
        assert cycles == pytest.approx(FLOAT8[arch][loop.transposed], rel=0.05)


def numbers_of(cell):
    return [float(x) for x in re.findall(r"[\d.]+", cell)]


def test_the_document_says_what_the_model_says(shipped):
    arch = shipped[0]
    written = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith(f"| {arch} | ") and " up to " not in line
    ]
    rows = [cells for _, cells in shown(shipped)]
    assert [row[:3] for row in written] == [list(row[:3]) for row in rows]
    for said, is_so in zip(written, rows, strict=True):
        for name, ours, theirs in zip(cost.HEADINGS[3:], said[3:], is_so[3:], strict=True):
            # Another release of the compiler may take some instructions more or less.
            assert numbers_of(ours) == pytest.approx(numbers_of(theirs), rel=0.05), (said, name)


def test_the_document_says_what_whole_products_take(shipped):
    arch = shipped[0]
    chip = cost.PRODUCT_CHIPS[arch].name
    written = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| {chip} |")]
    (loop,) = [x for x, _ in shown(shipped)
               if x.transposed == 0 and "TWO_SHOT_BF16" in x.kernel]  # fmt: skip
    assert len(written) == len(cost.SIZES)
    for line, size in zip(written, cost.SIZES, strict=True):
        said = numbers_of(line.split("|")[3])
        is_so = [cost.product_teraflops(loop, size, latency) for latency in cost.LATENCIES]
        assert said == pytest.approx(is_so, rel=0.05), (line, is_so)


def test_a_whole_product_counts_rounds_of_tiles():
    """One tile more than there are units takes as long as twice as many."""
    loop = cost.Loop("BF16", "gfx942", [], [])
    loop.__dict__["replays"] = {700: cost.Replay(1024.0, 1.0)}
    loop.operations.extend([cost.Operation("memory")] * 4)
    units = cost.PRODUCT_CHIPS["gfx942"].units
    full = cost.product_teraflops(loop, (128, 128 * units, 1024), 700)
    more = cost.product_teraflops(loop, (128, 128 * (units + 1), 1024), 700)
    assert full / more == pytest.approx(2 * units / (units + 1))
    cycles = 1024 * 2 / 64 * 1024 + 800 * 4 + 3 * 700
    assert full == pytest.approx(2 * 128 * 128 * units * 1024 / cycles * 2.1e9 / 1e12)
