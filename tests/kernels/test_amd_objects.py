# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The AMD code objects, read: what cannot be run here is at least what was meant to be built."""

import hashlib
import importlib.util
import pathlib
import re
import shutil
import subprocess

import amd_objects
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _build_kernels():
    """The build's own module, without putting the root, and with it the sources of the package,
    before the installed one."""
    spec = importlib.util.spec_from_file_location("build_kernels", ROOT / "build_kernels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_kernels = _build_kernels()

pytestmark = pytest.mark.skipif(
    build_kernels.find_clang() is None or amd_objects.tool("llvm-objdump") is None,
    reason="needs clang 22 or newer and its LLVM tools",
)
TARGETS = build_kernels.GFX_TARGETS
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
}


def compiled(target, directory, source=build_kernels.SOURCE, root=ROOT):
    output = directory / build_kernels.object_name(target)
    subprocess.run(build_kernels.command(target, output, source, werror=True), cwd=root, check=True)
    return output


@pytest.fixture(scope="session")
def objects(tmp_path_factory):
    """All targets' objects, compiled once."""
    directory = tmp_path_factory.mktemp("objects")
    build_kernels.build(directory, TARGETS, werror=True)
    return {target: directory / build_kernels.object_name(target) for target in TARGETS}


@pytest.fixture(scope="session", params=TARGETS)
def read(request, objects):
    """(target, metadata, kernels)"""
    return request.param, *amd_objects.read(str(objects[request.param]))


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """Names of the rows of instances.def, and the sizes of their arguments as C lays them out."""
    directory = tmp_path_factory.mktemp("host")
    (directory / "sizes.c").write_text(
        "#include <stdio.h>\n"
        '#include "csrc/kernels/instances.h"\n'
        "#define IRIS_INSTANCE(operation, variant, dtype, arguments, kernel) \\\n"
        '    printf("iris_" #operation "_" #variant "_" #dtype " %zu\\n", \\\n'
        "           sizeof(struct arguments));\n"
        "int main(void)\n{\n"
        '#include "csrc/kernels/instances.def"\n'
        "    return 0;\n}\n"
    )
    program = directory / "sizes"
    subprocess.run(
        ["cc", "-std=c11", f"-I{ROOT}", str(directory / "sizes.c"), "-o", str(program)], check=True
    )
    text = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {name: int(size) for name, size in (line.split() for line in text.splitlines())}


def test_every_kernel_is_there_with_the_hosts_arguments(read, host):
    _, metadata, kernels = read
    assert set(metadata) == set(kernels) == set(host)
    for name, numbers in metadata.items():
        assert numbers["args"] == [(0, host[name], "by_value")], name
        assert numbers["kernarg_segment_size"] == host[name], "no hidden arguments"


def test_resources(read):
    """No spills, no scratch. LDS lets one block at a time onto a compute unit, whose waves then
    have up to 512 registers each; 320 leave room to notice growth."""
    _, metadata, _ = read
    for name, numbers in metadata.items():
        for spilled in ("vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size"):
            assert numbers[spilled] == 0, f"{name}: {spilled}"
        assert numbers["group_segment_fixed_size"] <= 65536, name
        assert numbers["vgpr_count"] <= 320, name
        assert numbers["wavefront_size"] == 64, name
        assert numbers["max_flat_workgroup_size"] == 256, name


def test_matrix_instructions_and_wide_accesses(read):
    target, _, kernels = read
    for name, kernel in kernels.items():
        names = kernel.names()
        match = re.fullmatch(r"iris_MATMUL_ALL_REDUCE_\w+?_(F32|F16|BF16)", name)
        if match:
            wanted = MATRIX_INSTRUCTIONS[match.group(1)][target]
            assert names[wanted] >= 8, f"{name}: {names[wanted]} of {wanted}"
            loop = main_loop(kernel, wanted)
            assert any(kernel.code[i].name == "ds_read_b128" for i in loop), name
            assert any(kernel.code[i].name == "global_load_dwordx4" for i in loop), name
            assert not any(kernel.code[i].name.startswith(("flat_", "scratch_")) for i in loop)
        if "REDUCE" in name or "GATHER" in name:
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


def test_memory_order(read):
    """Releases drain, write back and wait, acquires invalidate once, all at system scope."""
    target, _, kernels = read
    found = [text for kernel in kernels.values() for text in amd_objects.violations(kernel, target)]
    assert not found, "\n".join(found[:20])
    for name, kernel in kernels.items():
        if "CLEAR_SUMS" in name:
            continue
        assert amd_objects.write_backs(kernel), f"{name}: it never releases"
        assert amd_objects.polls(kernel, target == "gfx90a"), f"{name}: it never waits"


MUTANTS = {
    "drain": (
        '    asm volatile("s_waitcnt vmcnt(0)" ::: "memory");\n}\n\n/* What the group wrote',
        "}\n\n/* What the group wrote",
        "is not drained",
    ),
    "write-back": (
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");\n'
        '    asm volatile("s_waitcnt vmcnt(0)" ::: "memory");',
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");',
        "before the write-back is complete",
    ),
    "scope": (
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");',
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");',
        "scope: expected sc0 sc1",
    ),
    "acquire": (
        '    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "");\n}',
        "}",
        "no invalidate after the poll",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_breaks_the_rules(name, tmp_path):
    """Each rule, taken out of sync_amdgcn.h, is noticed in the code for gfx942."""
    before, after, complaint = MUTANTS[name]
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    header = tmp_path / "csrc/kernels/sync_amdgcn.h"
    text = header.read_text()
    assert before in text
    header.write_text(text.replace(before, after))
    # A few kernels are enough, and compile in a second.
    table = tmp_path / "csrc/kernels/instances.def"
    kept = [
        line
        for line in table.read_text().splitlines()
        if not re.match(r"IRIS_FLOAT_INSTANCES\((MATMUL|CLEAR|REDUCE_SCATTER)", line)
    ]
    table.write_text("\n".join(kept) + "\n")
    path = compiled("gfx942", tmp_path, root=tmp_path)
    _, kernels = amd_objects.read(str(path))
    found = [
        text for kernel in kernels.values() for text in amd_objects.violations(kernel, "gfx942")
    ]
    assert any(complaint in text for text in found), found[:5]


def test_the_same_source_gives_the_same_bytes(objects, tmp_path):
    shutil.copytree(ROOT / "csrc", tmp_path / "elsewhere/csrc")
    again = compiled("gfx942", tmp_path, root=tmp_path / "elsewhere")
    digests = {hashlib.sha256(p.read_bytes()).digest() for p in (again, objects["gfx942"])}
    assert len(digests) == 1
