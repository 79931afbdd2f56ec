# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A cost model of the products' main loops, for machines that cannot be timed here.

python tests/amd/cost.py [--listing] [ARCH ...]

prints a table for all dtypes, and with --listing the loops, each instruction with the cycle in
which it issues.

The emulator counts how often each instruction runs in two products that differ in K alone; the
difference, per step of K, is the main loop as one wave executes it, in the order of the code. The
model issues it in order, one wave per SIMD: an instruction takes 4 cycles to issue (a product of
whole registers 16, a taken branch 16), MFMA occupies the matrix unit for as long as its peak rate
says, the next MFMA waits for the unit, and everything else runs in its shadow. Memory is free but
for its issue: what a wait would add is shown as the distance in cycles between the first load and
the wait for it, beside the latencies of L2 (about 500 cycles) and LDS (about 64).

MFMA of a 32 x 32 block, cycles: 2 M N K over the operations per cycle of a SIMD, which are AMD's
peak rates of a compute unit (CDNA 2, 3 and 4 white papers) over four.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import pathlib
import re
import sys
import tempfile

import amd_objects
import gpus
import machine
import program
import torch

# Operations per cycle of one SIMD.
RATES = {
    "gfx90a": {"f32": 64, "f16": 256, "bf16": 256},
    "gfx942": {"f32": 64, "f16": 512, "bf16": 512},
    "gfx950": {"f32": 64, "f16": 1024, "bf16": 1024},
}
WAVES = 4
STEP = {torch.float32: 16, torch.float16: 32, torch.bfloat16: 32}
ISSUE, SLOW, TAKEN = 4, 16, 16
SLOW_NAMES = re.compile(r"v_(mul_lo|mul_hi|mad_u64|mad_i64)")
WIDTH = {"ushort": 2, "ubyte": 1, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}


def product(ctx, memory, dtype, K, transposed):
    """One tile by one work-group."""
    A = memory.heap(128, K, dtype=dtype)
    B = memory.heap(128, K, dtype=dtype).t() if transposed else memory.heap(K, 128, dtype=dtype)
    C = memory.heap(128, 128, dtype=dtype)
    A.fill_(1)
    B.fill_(1)
    ctx.ops.matmul_all_reduce(*(memory.passed(t) for t in (C, A, B)))
    assert memory.library.hipDeviceSynchronize() == 0
    assert (C == K).all()


@dataclasses.dataclass
class Loop:
    """What one wave executes per step of K, and what the model says of it."""

    code: list  # (instruction, times per step)
    issued: list = dataclasses.field(default_factory=list)  # the cycle of each instruction
    matrix: int = 0
    matrix_cycles: int = 0
    cycles: int = 0
    instructions: float = 0
    lds_bytes: float = 0
    global_bytes: float = 0
    load_distance: int = 0
    kinds: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    @property
    def utilisation(self) -> float:
        return self.matrix_cycles / self.cycles


def _counts(path) -> tuple[set[str], collections.Counter]:
    """The kernels that ran, and how often the instruction at each address."""
    kernels, counts = set(), collections.Counter()
    for line in pathlib.Path(path).read_text().splitlines():
        kernel, address, count = line.split()
        kernels.add(kernel)
        counts[int(address, 16)] += int(count)
    return kernels, counts


def profile(make, arch, dtype, transposed, directory) -> Loop:
    """``make(arch, **behaviour)`` gives emulated GPUs."""
    step, steps = STEP[dtype], (10, 26)
    totals = []
    for count in steps:
        path = pathlib.Path(directory) / f"{arch}-{count}.profile"
        path.write_text("")
        make(arch, compute_units=1, profile=path).run(product, 1, dtype, step * count, transposed)
        kernels, counts = _counts(path)
        totals.append(counts)
    read = amd_objects.instructions(gpus.KERNELS / f"iris_{arch}.hsaco", "|".join(sorted(kernels)))
    code = {x.address: x for kernel in read.values() for x in kernel}
    more = (steps[1] - steps[0]) * WAVES
    loop = []
    for address in sorted(totals[1]):
        times = (totals[1][address] - totals[0][address]) / more
        if times > 0:
            loop.append((code[address], times))
    # Begin after the barrier, where all of the group's waves do.
    barrier = next(i for i, (x, _) in enumerate(loop) if x.name == "s_barrier")
    return estimate(Loop(loop[barrier + 1 :] + loop[: barrier + 1]), arch)


def _matrix_cycles(name: str, arch: str) -> int:
    m, n, k, kind = re.match(r"v_mfma_f32_(\d+)x(\d+)x(\d+)_?(bf16|f16|f32)", name).groups()
    return 2 * int(m) * int(n) * int(k) // RATES[arch][kind]


def _kind(name: str) -> str:
    for prefix, kind in (("v_mfma", "mfma"), ("ds_", "lds"), ("global_", "global"),
                         ("s_waitcnt", "wait"), ("s_", "scalar"), ("v_", "vector")):  # fmt: skip
        if name.startswith(prefix):
            return kind
    return "other"


def _bytes(name: str) -> int:
    """Of one lane."""
    match = re.match(r"ds_(?:read|write)(2?)_b(\d+)", name)
    if match:
        return int(match.group(2)) // 8 * (2 if match.group(1) else 1)
    match = re.match(r"global_(?:load|store)_(\w+)", name)
    return WIDTH.get(match.group(1), 0) if match else 0


def estimate(loop: Loop, arch: str) -> Loop:
    clock = unit_free = 0.0
    first_load = None
    for number, (x, times) in enumerate(loop.code):
        kind = _kind(x.name)
        loop.kinds[kind] += times
        loop.instructions += times
        if kind == "mfma":
            cycles = _matrix_cycles(x.name, arch)
            clock = max(clock, unit_free)
            unit_free = clock + cycles * times
            loop.matrix += times
            loop.matrix_cycles += cycles * times
        loop.issued.append(clock)
        following = loop.code[(number + 1) % len(loop.code)][0].address
        taken = x.target is not None and following == x.target != x.address + 4
        clock += times * (SLOW if SLOW_NAMES.match(x.name) else TAKEN if taken else ISSUE)
        if kind == "lds":
            loop.lds_bytes += 64 * times * _bytes(x.name)
        if kind == "global":
            loop.global_bytes += 64 * times * _bytes(x.name)
            if first_load is None:
                first_load = clock
    loop.cycles = max(clock, unit_free)
    if first_load is not None:  # to the first wait for it, perhaps in the next round
        clock, passed = 0.0, False
        doubled = [*loop.code, *loop.code]
        begin = next(i for i, (x, _) in enumerate(doubled) if _kind(x.name) == "global")
        unit_free = 0.0
        for x, times in doubled[begin:]:
            if x.name == "s_waitcnt" and "vmcnt" in x.operands and passed:
                break
            passed = True
            if _kind(x.name) == "mfma":
                clock = max(clock, unit_free)
                unit_free = clock + _matrix_cycles(x.name, arch) * times
            clock += ISSUE * times
        loop.load_distance = int(clock)
    return loop


def table(make, arches, dtypes, directory, listing=False):
    """Rows of text."""
    yield (
        f"{'arch':<7} {'dtype':<9} {'B':<5} {'instr':>6} {'mfma':>5} {'vector':>6} {'scalar':>6} "
        f"{'lds':>4} {'global':>6} {'wait':>4}  {'cycles':>6} {'mfma %':>6}  {'LDS B':>6} "
        f"{'mem B':>6}  {'load to wait':>12}"
    )
    for arch in arches:
        for dtype in dtypes:
            for transposed in (True, False):
                loop = profile(make, arch, dtype, transposed, directory)
                kinds = loop.kinds
                yield (
                    f"{arch:<7} {str(dtype).removeprefix('torch.'):<9} "
                    f"{'(N,K)' if transposed else '(K,N)':<5} {loop.instructions:>6.0f} "
                    f"{kinds['mfma']:>5.0f} {kinds['vector']:>6.0f} {kinds['scalar']:>6.0f} "
                    f"{kinds['lds']:>4.0f} {kinds['global']:>6.0f} {kinds['wait']:>4.0f}  "
                    f"{loop.cycles:>6.0f} {100 * loop.utilisation:>6.1f}  "
                    f"{loop.lds_bytes / loop.matrix:>6.0f} {loop.global_bytes / loop.matrix:>6.0f}"
                    f"  {loop.load_distance:>12}"
                )
                if listing:
                    for (x, times), clock in zip(loop.code, loop.issued, strict=True):
                        yield f"{clock:>8.0f} {times:>5.2f} {x.address:>8x}  {x.name} {x.operands}"


def main() -> int:
    parser = argparse.ArgumentParser(description="A cost model of the AMD main loops.")
    parser.add_argument("--listing", action="store_true", help="print the loops too")
    parser.add_argument("arches", nargs="*", default=machine.ARCHES, metavar="ARCH")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        library = machine.build(directory)

        def make(arch, **behaviour):
            program.prepare(gpus.KERNELS / f"iris_{arch}.hsaco", directory)
            return gpus.Gpus(library, directory, gpus.KERNELS, arch, **behaviour)

        for line in table(make, options.arches, tuple(STEP), directory, options.listing):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    # Ranks are forked by a server that imports test modules by name.
    sys.modules["cost"] = sys.modules["__main__"]
    product.__module__ = "cost"
    sys.exit(main())
