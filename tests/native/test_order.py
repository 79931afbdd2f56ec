# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The order in which work-groups of a device in several XCDs take tiles."""

import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include "kernels/abi/schedule.h"

int main(int argc, char **argv)
{
    const int count = atoi(argv[1]), xcds = atoi(argv[argc - 1]);

    for (int i = 0; i < count; ++i)
        printf("%d ", iris_place_in_order(i, count, xcds));
    return 0;
}
"""


@pytest.fixture(scope="module")
def order(tmp_path_factory):
    directory = tmp_path_factory.mktemp("order")
    (directory / "order.c").write_text(PROGRAM)
    subprocess.run(
        ["cc", "-std=c11", "-D_GNU_SOURCE", "-I", str(ROOT / "csrc"), "order.c", "-o", "order"],
        cwd=directory, check=True,
    )  # fmt: skip

    def places(count, xcds):
        printed = subprocess.run(
            [str(directory / "order"), str(count), str(xcds)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return [int(word) for word in printed.stdout.split()]

    return places


@pytest.mark.parametrize(
    ("count", "xcds"), [(304, 8), (228, 6), (152, 4), (76, 2), (38, 1), (256, 8), (8, 8), (100, 8)]
)
def test_every_place_once_and_those_of_an_xcd_side_by_side(order, count, xcds):
    """MI300X, MI300A, their partitions, MI350X; a number that cannot be dealt evenly."""
    places = order(count, xcds)
    assert sorted(places) == list(range(count))
    for xcd in range(xcds):
        mine = places[xcd::xcds]  # the hardware deals work-groups in turn
        if count % xcds == 0:
            assert mine == list(range(mine[0], mine[0] + count // xcds))
