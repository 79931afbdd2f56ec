# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The package's sm_90a code objects, read: what a GPU may take long to show is at least what was
meant to be built."""

import pathlib
import re

import pytest
import sm90_build
import sm90_objects
from amd_build import build_kernels
from control_flow import Kernel

import iris_c

PATH, TRACED = (
    pathlib.Path(iris_c.__file__).parent / "kernels" / build_kernels.object_name("sm_90a", traced)
    for traced in (False, True)
)
pytestmark = [
    pytest.mark.skipif(
        None in (sm90_objects.tool("cuobjdump"), sm90_objects.tool("nvdisasm")),
        reason="needs cuobjdump and nvdisasm (requirements-cuda.txt)",
    ),
    pytest.mark.skipif(build_kernels.find_nvcc() is None, reason="needs nvcc"),
]
needs_objects = pytest.mark.skipif(
    not PATH.exists() or not TRACED.exists(), reason="the package was built without sm_90a"
)
# Where a kernel's arguments lie in its constants; tensor maps are aligned to 64 bytes.
ARGUMENTS_AT = (0x210, 0x240)


def most_registers(name):
    """A multiprocessor has 64 Ki for the threads of a block: 384 in products of 16-bit elements
    and 256 in others, 512 in norms. Small reductions, which wait more than they compute, leave
    room for several blocks; the others have room to notice growth. Sums of bytes, which are rare,
    hold sixteen elements for each load."""
    if "MATMUL" in name:
        return 255 if name.endswith("_F32") else 168
    if "REDUCE" in name and name.endswith(("_U8", "_I8")):
        return 255
    return 128 if "_LL" in name else 192


def most_stack(name):
    """Bytes of a thread. Nothing is spilled, but for a scalar, or with traces a few, of the last
    rows of a tile in all_gather_matmul, once a tile; and once a tile of float8 products, whose
    sums take more of a block's registers than others'."""
    if "_SCALED_" in name:
        return 96 if "ALL_GATHER_MATMUL" in name else 24
    return 40 if "ALL_GATHER_MATMUL" in name else 0


def check_resources(path, names, host):
    resources = sm90_objects.resources(path)
    assert set(resources) == names
    for name, numbers in resources.items():
        assert numbers["CONSTANT[0]"] - host[name] in ARGUMENTS_AT, name
        assert numbers["REG"] <= most_registers(name), name
        assert numbers["STACK"] <= most_stack(name), name
        assert numbers["LOCAL"] == 0, name
        assert numbers["SHARED"] <= 48 << 10, f"{name}: more needs a launch attribute"


@needs_objects
def test_every_kernel_is_there_within_its_resources(scaled_host):
    check_resources(PATH, set(scaled_host), scaled_host)


@needs_objects
def test_traced_kernels_are_the_products(host):
    products = {
        name for name in host if re.match(r"iris_(MATMUL|ALL_GATHER_MATMUL)_(?!.*_LL_)", name)
    }
    check_resources(TRACED, products, host)


@needs_objects
def test_products_keep_their_sums_in_registers():
    """What is spilled is so once a tile: nothing in a loop of matrix instructions."""
    found = {"HGMMA": 0, "QGMMA": 0}
    for kernel in sm90_objects.read(PATH).values():
        ends = lambda x: x.name.startswith(("BAR.", "STL", "LDL")) or x.name == "EXIT"  # noqa: E731
        for unit in found:
            first = next((i for i, x in enumerate(kernel.code) if x.name.startswith(unit)), None)
            if first is not None:
                found[unit] += 1
                assert first in kernel.within(first, ends), f"{kernel.name}: no loop without spills"
    assert min(found.values()) >= 16, "products of elements of 16 and of 8 bits"


def complaints(kernel):
    """What breaks the rules, and whether the kernel synchronises at all, as all but a few do."""
    found = sm90_objects.violations(kernel)
    if any(name in kernel.name for name in ("CLEAR_SUMS", "PUT", "COPY_MATRIX")):
        return found
    if not sm90_objects.releases(kernel):
        found.append(f"{kernel.name}: it never releases")
    if "SIGNAL" not in kernel.name and not sm90_objects.naps(kernel):
        found.append(f"{kernel.name}: it never waits")
    return found


@needs_objects
def test_what_is_called_only_computes():
    """Stores, calls and a missing return are noticed in it, by whatever label it is called: that of
    a function or, as ptxas has it in float8 products, one in the midst."""
    inner = "iris_MATMUL_ALL_GATHER_TWO_SHOT_SCALED_BF16"
    kernel = sm90_objects.read(PATH)[inner]
    calls = {x.called: x.operands for x in kernel.code if x.name.startswith("CALL")}
    assert {".L_x_" in label for label in calls.values()} == {True, False}
    assert sm90_objects.violations(kernel) == []
    for address, label in calls.items():
        at = next(i for i, x in enumerate(kernel.code) if x.address == address)
        for name in ("STG.E", "CALL.REL.NOINC", "BAR.SYNC"):
            changed = [*kernel.code]
            changed[at + 1] = changed[at + 1]._replace(name=name)
            found = sm90_objects.violations(Kernel(inner, changed))
            assert any(label in text and f"a call of what has ['{name}']" in text for text in found)
    endless = [x._replace(name="BRA") if x.name.startswith("RET") else x for x in kernel.code]
    found = sm90_objects.violations(Kernel(inner, endless))
    assert any("a call of what does not return" in text for text in found)


@needs_objects
@pytest.mark.parametrize("path", [PATH, TRACED], ids=("plain", "traced"))
def test_memory_order(path):
    """Releases, acquires and bulk stores, all at system scope."""
    kernels = sm90_objects.read(path).values()
    found = [text for kernel in kernels for text in complaints(kernel)]
    assert not found, "\n".join(found[:20])
    with_bulk_stores = {kernel.name for kernel in kernels if sm90_objects.bulk_stores(kernel)}
    for variant in ("ONE_SHOT", "TWO_SHOT", "RING"):
        assert f"iris_MATMUL_ALL_REDUCE_{variant}_BF16" in with_bulk_stores


@pytest.mark.parametrize("name", sm90_build.MUTANTS)
def test_a_mutant_breaks_the_rules(name, tmp_path):
    """Each rule, taken out of the sources, is noticed in the code."""
    path = sm90_build.mutant(name, tmp_path)
    kernels = sm90_objects.disassemble(path).values()
    found = [text for kernel in kernels for text in complaints(kernel)]
    assert any(sm90_build.MUTANTS[name].complaint in text for text in found), found[:5]


@pytest.mark.parametrize("header", [sm90_build.SYNC, sm90_build.PTX])
def test_what_the_mutants_are_made_of_keeps_the_rules(header, tmp_path):
    kernels = sm90_objects.disassemble(sm90_build.few(header, tmp_path)).values()
    assert kernels
    assert [text for kernel in kernels for text in complaints(kernel)] == []
