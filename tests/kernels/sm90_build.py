# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Mutants of the memory order on sm_90a, compiled."""

import pathlib
import typing

from amd_build import FEW, compiled, copy_sources

SYNC = "csrc/kernels/gpu/sm90/sync_sm90.h"
PTX = "csrc/kernels/gpu/sm90/ptx_sm90.h"
# A product that stores by the bulk copy engine, alone.
PRODUCT = """\
IRIS_INSTANCE(MATMUL_ALL_REDUCE, ONE_SHOT, F16, iris_product_args,
              (iris::matmul_all_reduce<iris::half_t, IRIS_VARIANT_ONE_SHOT>))
"""


class Mutant(typing.NamedTuple):
    header: str
    before: str
    after: str
    complaint: str  # what the rules of sm90_objects.py say of it


MUTANTS = {
    "release": Mutant(SYNC, "st.release.sys.global.u32", "st.relaxed.sys.global.u32", "release: "),
    "release scope": Mutant(SYNC, "st.release.sys", "st.release.gpu", "scope: "),
    "added release": Mutant(SYNC, "red.release.sys", "red.relaxed.sys", "release: "),
    "count": Mutant(SYNC, "atom.acq_rel.sys", "atom.acquire.sys", "release: "),
    "count's acquire": Mutant(SYNC, "atom.acq_rel.sys", "atom.release.sys", "acquire: "),
    "lock": Mutant(SYNC, "atom.acquire.sys", "atom.relaxed.sys", "acquire: "),
    "poll's scope": Mutant(SYNC, "ld.relaxed.sys", "ld.relaxed.gpu", "scope: "),
    "acquire": Mutant(SYNC, "ld.acquire.sys", "ld.relaxed.sys", "no invalidation after the poll"),
    "acquire in the loop": Mutant(
        SYNC,
        '"ld.relaxed.sys.global.u32 %0, [%1];" : "=r"',
        '"ld.acquire.sys.global.u32 %0, [%1];" : "=r"',
        "every round",
    ),
    "publish": Mutant(
        SYNC,
        "group_publish(work_group wg)\n{\n    group_barrier(wg);",
        "group_publish(work_group)\n{",
        "publish: ",
    ),
    "bulk stores read": Mutant(
        PTX, "cp.async.bulk.wait_group 0;", "cp.async.bulk.wait_group.read 0;", "bulk: not complete"
    ),
    "bulk fence": Mutant(
        PTX, '0;\\n"\n                 "fence.proxy.async;"', '0;"', "bulk: not fenced"
    ),
}


def few(header: str, directory: pathlib.Path, before: str = "", after: str = "") -> pathlib.Path:
    """The object of the few kernels that show what `header` is for, with `after` in the place of
    `before` there."""
    copy_sources(directory)
    if header == PTX:
        (directory / "csrc/kernels/abi/instances.def").write_text(PRODUCT)
    path = directory / header
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after) if before else text)
    return compiled("sm_90a", directory, root=directory, extra=() if header == PTX else FEW)


def mutant(name: str, directory: pathlib.Path) -> pathlib.Path:
    header, before, after, _ = MUTANTS[name]
    return few(header, directory, before, after)
