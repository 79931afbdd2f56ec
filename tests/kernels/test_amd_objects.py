# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The package's AMD code objects, read: kernels and their arguments, resources, the instructions
that products and packets are made of, and on all paths, whether tests run them or not, the rules of
amd_objects.py and of scalar loads. Mutants, of the source and of the code, show each rule."""

import os
import pathlib
import re

import amd_build
import amd_objects
import control_flow
import mutants
import pytest
import scalar_loads

import iris_c

KERNELS = pathlib.Path(iris_c.__file__).parent / "kernels"
TARGETS = amd_build.build_kernels.GFX_TARGETS


def path_of(target, traced=False):
    return KERNELS / amd_build.build_kernels.object_name(target, traced)


pytestmark = pytest.mark.skipif(
    amd_build.build_kernels.find_clang() is None
    or amd_objects.tool("llvm-objdump") is None
    or not all(path_of(target).exists() for target in TARGETS),
    reason="needs the gfx code objects, clang 22 or newer and its LLVM tools",
)
MATRIX_INSTRUCTIONS = {
    "F32": {
        "gfx90a": "v_mfma_f32_32x32x2f32",
        "gfx942": "v_mfma_f32_32x32x2_f32",
        "gfx950": "v_mfma_f32_32x32x2_f32",
    },
    "F16": {
        "gfx90a": "v_mfma_f32_32x32x8f16",
        "gfx942": "v_mfma_f32_32x32x8_f16",
        "gfx950": "v_mfma_f32_32x32x16_f16",
    },
    "BF16": {
        "gfx90a": "v_mfma_f32_32x32x8bf16_1k",
        "gfx942": "v_mfma_f32_32x32x8_bf16",
        "gfx950": "v_mfma_f32_32x32x16_bf16",
    },
    "SCALED": {
        "gfx942": "v_mfma_f32_32x32x16_fp8_fp8",
        "gfx950": "v_mfma_f32_32x32x64_f8f6f4",
    },
}


@pytest.fixture(scope="session", params=TARGETS)
def read(request):
    """(target, metadata, kernels)"""
    return request.param, *amd_objects.read(str(path_of(request.param)))


def test_every_kernel_is_there_with_the_hosts_arguments(read, host, scaled_host):
    target, metadata, kernels = read
    host = host if target == "gfx90a" else scaled_host
    assert set(metadata) == set(kernels) == set(host)
    for name, numbers in metadata.items():
        assert numbers["args"] == [(0, host[name], "by_value")], name
        assert numbers["kernarg_segment_size"] == host[name], "no hidden arguments"


def test_resources(read):
    """No scratch memory and no spilled vector registers. LDS lets one block at a time onto a
    compute unit, so each of its waves may have up to 512 registers. The limits below that, 360 and
    for products of few rows 416, are there to notice growth; float8 products have twice as many
    sums, and 480. A few scalar registers may be spilled into vector registers: in float8 products
    between tiles, and in sums by packets, up to 12. On gfx90a one vector register of products of
    few rows may lie in an accumulation register."""
    target, metadata, _ = read
    room = 163840 if target == "gfx950" else 65536
    for name, numbers in metadata.items():
        scaled, few_rows = "_SCALED_" in name, name.startswith("iris_MATMUL_ALL_REDUCE_LL_")
        for spilled in ("vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size"):
            # Sums by packets wait more than they compute.
            most = {"sgpr_spill_count": 28 if scaled else 12 if "_LL_" in name else 0,
                    "vgpr_spill_count": int(few_rows and target == "gfx90a")}  # fmt: skip
            assert numbers[spilled] <= most.get(spilled, 0), f"{name}: {spilled}"
        assert numbers["group_segment_fixed_size"] <= room, name
        assert numbers["vgpr_count"] <= (480 if scaled else 416 if few_rows else 360), name
        assert numbers["wavefront_size"] == 64, name
        threads = 512 if "RMSNORM" in name else 256
        assert numbers["max_flat_workgroup_size"] == threads, name


def test_matrix_instructions_and_wide_accesses(read):
    target, _, kernels = read
    for name, kernel in kernels.items():
        names = kernel.names()
        match = re.fullmatch(r"iris_MATMUL_\w+?_(SCALED|F32|F16|BF16)(?:_B?F16)?", name)
        if match:
            wanted = MATRIX_INSTRUCTIONS[match.group(1)][target]
            assert names[wanted] >= 8, f"{name}: {names[wanted]} of {wanted}"
            loop = main_loop(kernel, wanted)
            scaled = match.group(1) == "SCALED"  # some scalars of theirs wait in vector registers
            assert scaled or not any(kernel.code[i].name == "v_readlane_b32" for i in loop), name
            # A loop that comes first may be one of operands that lie across K.
            reads = ("ds_read_b128", "ds_read_b64_tr_b")
            assert any(kernel.code[i].name.startswith(reads) for i in loop), name
            direct = target == "gfx950" and "_LL_" not in name  # but for products of few rows
            loads = "global_load_lds_dwordx4" if direct else "global_load_dwordx4"
            assert any(kernel.code[i].name == loads for i in loop), name
            assert not any(kernel.code[i].name.startswith(("flat_", "scratch_")) for i in loop)
        if "_LL_" in name:  # a packet is 16 bytes, and what it carries eight
            assert names["buffer_load_dwordx4"] > 0, name
            assert names["global_store_dwordx4"] > 0, name
        elif "REDUCE" in name or "GATHER" in name:
            assert names["global_load_dwordx4"] > 0, name
            assert names["global_store_dwordx4"] > 0, name
        assert not any(x.name.startswith("scratch_") for x in kernel.code), name


def main_loop(kernel, instruction) -> set[int]:
    """What lies on a way from a matrix instruction back to it through one barrier a round."""
    first = next(i for i, x in enumerate(kernel.code) if x.name == instruction)
    leave = lambda x: x.name.startswith(("buffer_wbl2", "buffer_inv")) or x.name == "s_endpgm"  # noqa: E731
    loop = kernel.within(first, leave)
    assert first in loop, "the matrix instructions are not in a loop"
    return loop


def complaints(kernel, target) -> list[str]:
    """What breaks the rules, and whether the kernel synchronises at all, as all but a few do."""
    found = amd_objects.violations(kernel, target)
    if any(name in kernel.name for name in ("CLEAR_SUMS", "PUT", "COPY_MATRIX")):
        return found
    if not amd_objects.write_backs(kernel):  # on gfx942 when it gives up, at least
        found.append(f"{kernel.name}: it never releases")
    if "SIGNAL" not in kernel.name and not amd_objects.polls(kernel, target == "gfx90a"):
        found.append(f"{kernel.name}: it never waits")
    return found


def idle(is_gone):
    """An edit of code: what `is_gone` holds for does nothing."""
    return lambda code: [x._replace(name="s_nop", operands="0") if is_gone(x) else x for x in code]


# Changes of a kernel's code, and what the rules say. On gfx942 only a fault is written back, by the
# thread that found it.
BARRIERS = (mutants.MUTANTS["barriers"], "no barrier before the write-back")
EVERYWHERE = [
    (idle(lambda x: amd_objects.STORE.match(x.name)), "it publishes nothing"),
    (mutants.MUTANTS["flag loads"], "it never waits"),
    (mutants.MUTANTS["wait for the write-back"], "before the write-back is complete"),
]
SCOPES = (mutants.MUTANTS["flag stores"], "a signal without sc0 sc1")
EDITS = {
    "gfx90a": [*EVERYWHERE, BARRIERS,
               (idle(lambda x: x.name == "buffer_wbinvl1_vol"), "without buffer_wbinvl1_vol"),
               (idle(lambda x: x.name == "buffer_invl2"), "no invalidate after the poll")],
    "gfx942": [*EVERYWHERE, SCOPES],
    "gfx950": [*EVERYWHERE, BARRIERS, SCOPES],
}  # fmt: skip


def test_memory_order(read):
    """Releases drain, write back and wait, acquires invalidate once, all at system scope."""
    target, _, kernels = read
    found = [text for kernel in kernels.values() for text in complaints(kernel, target)]
    assert not found, "\n".join(found[:20])


def test_packets_have_system_scope(read):
    """All words of packets; in no kernel is it overlooked that they have not."""
    target, _, kernels = read
    senders = [kernel for name, kernel in kernels.items() if "_LL_" in name]
    assert len(senders) > 10
    for kernel in senders:
        found = amd_objects.packet_violations(kernel, target)
        assert not found, "\n".join(found[:5])
        for name in ("packet loads", "packet stores"):
            if (target, name) == ("gfx90a", "packet stores"):
                continue  # they have no scope there
            changed = control_flow.Kernel(kernel.name, mutants.MUTANTS[name](kernel.code))
            assert amd_objects.packet_violations(changed, target), f"{kernel.name}: {name}"


def test_changed_code_breaks_the_rules(read):
    """What no change of the source brings about, or only on a chip that it is not compiled for."""
    target, _, kernels = read
    name = "iris_ALL_REDUCE_TWO_SHOT_F32"
    assert complaints(kernels[name], target) == []
    for edit, complaint in EDITS[target]:
        changed = control_flow.Kernel(name, edit(kernels[name].code))
        found = complaints(changed, target)
        assert any(complaint in text for text in found), (complaint, found[:5])


@pytest.mark.parametrize("name", amd_build.MUTANTS)
def test_a_mutant_breaks_the_rules(name, tmp_path):
    """What is taken out of sync_cdna.h is noticed in the code for gfx950. gfx942 writes nothing
    back, and what it stores for others the emulator looks at (tests/amd)."""
    path = amd_build.mutant(name, "gfx950", tmp_path)
    complaint = amd_build.MUTANTS[name].complaint
    _, kernels = amd_objects.read(str(path))
    found = [text for kernel in kernels.values() for text in complaints(kernel, "gfx950")]
    assert any(complaint in text for text in found), found[:5]


def test_the_same_source_gives_the_same_bytes(tmp_path):
    """Wherever it lies."""
    objects = []
    for place in (tmp_path / "here", tmp_path / "elsewhere/deeper"):
        amd_build.copy_sources(place)
        objects.append(
            amd_build.compiled("gfx942", place, root=place, extra=amd_build.FEW).read_bytes()
        )
    assert objects[0] == objects[1]


@pytest.mark.skipif("IRIS_C_TEST_AMD_SEEDS" not in os.environ, reason="of `make test-amd`: minutes")
def test_the_packages_objects_are_those_of_this_source(tmp_path):
    again = amd_build.compiled("gfx942", tmp_path)
    assert again.read_bytes() == path_of("gfx942").read_bytes()


@pytest.mark.parametrize("target", TARGETS)
def test_traced_kernels_are_the_products(target, host):
    """And keep out of scratch memory; a few scalars may lie in vector registers."""
    path = path_of(target, traced=True)
    metadata, kernels = amd_objects.metadata(path), amd_objects.instructions(path)
    products = {
        name for name in host if re.match(r"iris_(MATMUL|ALL_GATHER_MATMUL)_(?!.*_LL_)", name)
    }
    assert set(metadata) == set(kernels) == products
    for name, numbers in metadata.items():
        assert numbers["kernarg_segment_size"] == host[name], name
        assert numbers["vgpr_spill_count"] == numbers["private_segment_fixed_size"] == 0, name
        clock = "s_memrealtime"
        assert any(x.name == clock for x in kernels[name]), f"{name}: it reads no clock"


def test_scalar_loads_read_arguments_and_constants(read):
    """On all paths, whether a test runs them or not."""
    _, _, kernels = read
    loads = 0
    for kernel in kernels.values():
        found = scalar_loads.violations(kernel)
        assert not found, "\n".join(found[:5])
        loads += sum(x.name.startswith("s_load_") for x in kernel.code)
    assert loads > len(kernels) // 2


def test_other_scalar_loads_are_noticed(read):
    """Of what a scalar load has brought, and of what a lane holds."""
    _, _, kernels = read
    kernel = kernels["iris_ALL_REDUCE_TWO_SHOT_F32"]
    last = next(
        i for i, x in reversed(list(enumerate(kernel.code))) if x.name == "v_readfirstlane_b32"
    )
    register = kernel.code[last].operands.split(",")[0]
    pair = f"s[{register[1:]}:{int(register[1:]) + 1}]"
    stray = kernel.code[last + 1]._replace(name="s_load_dword", operands=f"s90, {pair}, 0x0")
    code = [*kernel.code[: last + 1], stray, *kernel.code[last + 2 :]]
    assert scalar_loads.violations(control_flow.Kernel("stray", code))
