# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What ``python -m iris_c`` tells of GPUs, through the hip backend, of emulated ones."""

import pytest

from iris_c import _C, __main__


def report(ctx, memory, arch, world_size):
    driver, devices = _C._devices("hip")
    assert driver == "HIP 6.3.0"
    assert len(devices) >= world_size
    for number, (name, its_arch, pci, units, reaches) in enumerate(devices):
        assert (name, its_arch, units) == (f"emulated {arch}", arch, ctx.get_cu_count())
        assert pci
        missing = {0: 1, 1: 0}.get(number)
        assert reaches == tuple(peer != missing for peer in range(len(devices)))
    facts = __main__.report()
    assert driver in facts["GPU drivers"]
    assert [d["arch"] for d in facts["devices"] if d["backend"] == "hip"] == [arch] * len(devices)


@pytest.mark.parametrize("arch", ["gfx90a", "gfx950"])
def test_drivers_devices_and_links(emulated, arch):
    """Of which one is missing; the ranks' own devices, of a world of one, need none."""
    emulated(arch, no_link="0-1", devices=3).run(report, 1, arch, 1)
