# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A cost model of the products' main loops, for machines that cannot be timed here.

python tests/amd/cost.py [--kernel REGEX] [--listing] [ARCH ...]

prints what the model says of the installed package's code objects: of the products in tiles, and of
the streams of weights in the form decode. It reads the loop over K of a kernel from the disassembly
and replays it for all waves of the work-groups on a compute unit:

issue     Each wave in order. A SIMD issues one instruction in 4 cycles, a taken branch in 16.
matrix    A SIMD has one matrix unit, which an MFMA holds for as long as its peak rate says. What
          reads a result, other than the next sum in the same registers, waits until it is there.
LDS       One for all waves, which serves one access after the other, each in the cycles that
          its bank conflicts take (lds_banks.py); the data is there LDS_LATENCY later.
memory    Loads answer in order after a latency that is given: how long it is on a chip at work
          nobody knows beforehand, so there are four of them. Bandwidth is unlimited. What goes
          to LDS directly keeps LDS busy for a while, taken from the time of its issue.
waits     s_waitcnt waits for its counts (vmcnt, lgkmcnt), s_barrier for the work-group's waves.

No chip has confirmed it: ratios are worth more than absolute numbers.

MFMA's cycles: 2 M N K over the operations per cycle of a SIMD, which are AMD's peak rates of a
compute unit (CDNA 2, 3 and 4 white papers) over four.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import pathlib
import re
import sys
import typing

import amd_objects
import control_flow
import lds_banks

# Operations per cycle of one SIMD.
RATES = {
    "gfx90a": {"f32": 64, "f16": 256, "bf16": 256},
    "gfx942": {"f32": 64, "f16": 512, "bf16": 512, "fp8": 1024},
    "gfx950": {"f32": 64, "f16": 1024, "bf16": 1024, "fp8": 1024, "f8f6f4": 2048},
}
LDS_BYTES = {"gfx90a": 65536, "gfx942": 65536, "gfx950": 163840}
REGISTERS = 512  # of a lane on a SIMD, vector and accumulation registers together
SIMDS = WAVES = 4  # a work-group has one wave on each SIMD
ISSUE, TAKEN = 4, 16
DIRECT_LDS = 8  # cycles in which LDS takes what a wave loads into it
LDS_LATENCY = 64
LATENCIES = (500, 700, 900, 1200)
LOAD = "global_load_dwordx4"
DIRECT_LOAD = "global_load_lds_dwordx4"
STAGGER = 200  # between the starts of two work-groups of a launch
ROUNDS, WARM_UP = 14, 6


class Operation(typing.NamedTuple):
    """What the model knows of an instruction."""

    kind: str  # matrix, lds, memory, wait, barrier, branch or other
    cycles: int = 0  # of the matrix unit or LDS
    results: frozenset = frozenset()  # registers of an MFMA's result
    operands: frozenset = frozenset()  # registers that must not wait for an MFMA's result
    vmcnt: int | None = None
    lgkmcnt: int | None = None


def matrix_cycles(name: str, arch: str) -> int:
    kinds = "bf16|f16|f32|fp8|bf8|f8f6f4"
    m, n, k, kind = re.match(rf"v_mfma_f32_(\d+)x(\d+)x(\d+)_?({kinds})", name).groups()
    return 2 * int(m) * int(n) * int(k) // RATES[arch]["fp8" if kind == "bf8" else kind]


def operation(instruction, arch: str, lds_cycles: int = 0) -> Operation:
    name, text = instruction.name, instruction.operands
    if name.startswith("v_mfma"):
        result, first, second, added = text.split(", ")[:4]
        # The sum before is passed on inside the unit, register by register.
        operands = [first, second] + ([] if added == result else [added])
        return Operation("matrix", matrix_cycles(name, arch),
                         frozenset(control_flow.registers(result, "av")),
                         frozenset(control_flow.registers(", ".join(operands), "av")))  # fmt: skip
    operands = frozenset(control_flow.registers(text, "av"))
    if name.startswith("ds_"):
        return Operation("lds", lds_cycles, operands=operands)
    if re.match(r"(global|buffer|flat|scratch)_(load|store|atomic)", name):
        return Operation("memory", DIRECT_LDS if "_lds_" in name else 0, operands=operands)
    if name == "s_waitcnt":
        counts = {key: int(value) for key, value in re.findall(r"(\w+cnt)\((\d+)\)", text)}
        return Operation("wait", vmcnt=counts.get("vmcnt"), lgkmcnt=counts.get("lgkmcnt"))
    if name == "s_barrier":
        return Operation("barrier")
    if instruction.target is not None:
        return Operation("branch")
    return Operation("other", operands=operands)


class Replay(typing.NamedTuple):
    cycles: float  # per round of the loop, of which each work-group does one
    busy: float  # the matrix units' part of the time


@dataclasses.dataclass
class _Wave:
    group: int
    simd: int
    clock: float
    place: int = 0
    step: int = 0
    waits: bool = False  # at a barrier
    memory: list = dataclasses.field(default_factory=list)  # when each access is complete
    lds: list = dataclasses.field(default_factory=list)
    results: dict = dataclasses.field(default_factory=dict)  # when MFMA's registers are there


def _counted(complete: list, count: int | None) -> float:
    """When no more than `count` accesses are outstanding."""
    return complete[-count - 1] if count is not None and len(complete) > count else 0.0


class ComputeUnit:
    """Replays a loop for `groups` work-groups of `waves` waves."""

    def __init__(self, loop, groups=1, latency=500, waves=WAVES, trace=None):
        self.loop, self.latency, self.trace = loop, latency, trace
        self.waves = [
            _Wave(group, wave % SIMDS, float(STAGGER * group))
            for group in range(groups)
            for wave in range(waves)
        ]
        self.issue_free = [0.0] * SIMDS
        self.matrix_free = [0.0] * SIMDS
        self.lds_free = 0.0
        self.ends = collections.defaultdict(list)  # of the steps of each wave

    def earliest(self, wave: _Wave) -> float:
        """When the wave's next instruction can issue."""
        x = self.loop[wave.place]
        start = max(wave.clock, self.issue_free[wave.simd])
        for register in x.operands & wave.results.keys():
            start = max(start, wave.results[register])
        if x.kind == "matrix":
            return max(start, self.matrix_free[wave.simd])
        if x.kind == "wait":
            return max(start, _counted(wave.memory, x.vmcnt), _counted(wave.lds, x.lgkmcnt))
        return start

    def issue(self, number: int, start: float) -> None:
        wave = self.waves[number]
        x = self.loop[wave.place]
        if self.trace is not None:
            self.trace.append((number, wave.place, start))
        last = wave.place + 1 == len(self.loop)
        taken = x.kind == "branch" and last
        wave.clock = self.issue_free[wave.simd] = start + ISSUE
        if taken:
            wave.clock = start + TAKEN
        if x.kind == "matrix":
            self.matrix_free[wave.simd] = start + x.cycles
            wave.results.update(dict.fromkeys(x.results, start + x.cycles))
        elif x.kind == "lds":
            self.lds_free = max(self.lds_free, start) + x.cycles
            wave.lds.append(self.lds_free + LDS_LATENCY)
        elif x.kind == "memory":
            wave.memory.append(start + self.latency)
            self.lds_free = max(self.lds_free, start) + x.cycles
        elif x.kind == "wait":
            for complete, count in ((wave.memory, x.vmcnt), (wave.lds, x.lgkmcnt)):
                if count is not None:
                    del complete[: max(0, len(complete) - count)]
        elif x.kind == "barrier":
            self._arrive(wave)
        wave.place += 1
        if last:
            wave.place, wave.step = 0, wave.step + 1
            self.ends[number].append(wave.clock)

    def _arrive(self, wave: _Wave) -> None:
        group = [other for other in self.waves if other.group == wave.group]
        wave.waits = True
        if all(other.waits for other in group):
            together = max(other.clock for other in group)
            for other in group:
                other.waits, other.clock = False, together

    def play(self, rounds: int) -> None:
        while True:
            ready = [
                (self.earliest(wave), number)
                for number, wave in enumerate(self.waves)
                if not wave.waits and wave.step < rounds
            ]
            if not ready:
                return
            start, number = min(ready)
            self.issue(number, start)

    def run(self, rounds=ROUNDS, warm_up=WARM_UP) -> Replay:
        """From the end of each wave's first `warm_up` rounds on."""
        self.play(rounds)
        per_step = [(ends[-1] - ends[warm_up - 1]) / (rounds - warm_up)
                    for ends in self.ends.values()]  # fmt: skip
        cycles = sum(per_step) / len(per_step)
        matrix = sum(x.cycles for x in self.loop if x.kind == "matrix")
        return Replay(cycles, matrix * len(self.waves) / SIMDS / cycles)


# ---- the loops of a code object ----


@dataclasses.dataclass
class Loop:
    """The loop over K of operands that lie in whole runs, a stage of LDS or more a round."""

    kernel: str
    arch: str
    code: list  # instructions
    operations: list

    @property
    def stages(self) -> int:
        """A thread loads two chunks of either operand's stage."""
        return self.count("memory") // 4

    @property
    def direct(self) -> bool:
        """Whether stages go to LDS without registers."""
        return any(x.name.startswith("global_load_lds_") for x in self.code)

    @property
    def transposed(self) -> int:
        """Operands whose runs do not lie along K."""
        if self.direct:
            return len(self.lds_cycles("ds_read_b64_tr_")) // (8 * self.stages)
        return 2 - len(self.lds_cycles("ds_write_b128")) // (2 * self.stages)

    @property
    def matrix_cycles(self) -> float:
        """Of a stage."""
        return sum(x.cycles for x in self.operations if x.kind == "matrix") / self.stages

    def count(self, kind: str) -> int:
        return sum(x.kind == kind for x in self.operations)

    def lds_cycles(self, name: str) -> list[int]:
        """Of each access whose name begins so."""
        return [
            operation.cycles
            for x, operation in zip(self.code, self.operations, strict=True)
            if x.name.startswith(name)
        ]

    @property
    def lds_waits(self) -> int:
        """Of a round."""
        return sum(x.kind == "wait" and x.lgkmcnt is not None for x in self.operations)

    @functools.cached_property
    def replays(self) -> dict[int, Replay]:
        """By latency, of the one work-group that is launched for a compute unit."""
        return {latency: ComputeUnit(self.operations, 1, latency).run() for latency in LATENCIES}


def _main_loops(code: list, barrier: bool = True) -> typing.Iterator[tuple[int, int]]:
    """First and last instruction of each innermost loop that multiplies what it loads, with a
    barrier or without."""
    place = {x.address: i for i, x in enumerate(code)}
    for last, x in enumerate(code):
        first = place.get(x.target, last + 1) if x.target is not None else last + 1
        if first > last or any(y.target is not None for y in code[first:last]):
            continue
        names = [y.name for y in code[first : last + 1]]
        multiplies = any(name.startswith("v_mfma") for name in names)
        if multiplies and ("s_barrier" in names) == barrier and {LOAD, DIRECT_LOAD} & set(names):
            yield first, last


def _operations(code, first, last, arch, addresses) -> list[Operation]:
    return [
        operation(x, arch, lds_banks.access_cycles(arch, addresses, i)
                  if x.name.startswith("ds_") else 0)
        for i, x in enumerate(code[first : last + 1], first)
    ]  # fmt: skip


def loops(path, arch: str, kernels: str = ".*") -> typing.Iterator[Loop]:
    """Of all kernels of the code object whose names match."""
    for name, code in amd_objects.instructions(path).items():
        found = list(_main_loops(code)) if re.fullmatch(kernels, name) else []
        addresses = lds_banks.Addresses(control_flow.Kernel(name, code)) if found else None
        for first, last in found:
            operations = _operations(code, first, last, arch, addresses)
            yield Loop(name, arch, code[first : last + 1], operations)


# ---- streams of weights: the form decode ----

STREAM = "iris_MATMUL_ALL_REDUCE_LL_BF16"
# Bytes of weights that a wave loads a round; rows of a block of tokens; compute units, and the
# published rates of the memory, bytes a second, and of the clock.
STREAM_NBYTES, TOKENS = 8192, 32
CHIPS = {"gfx90a": (104, 1.6e12, 1.7e9), "gfx942": (304, 5.3e12, 2.1e9),
         "gfx950": (256, 8e12, 2.4e9)}  # fmt: skip


@dataclasses.dataclass
class Stream:
    """A loop in which each wave streams weights: of so many rows, by runs along K or along N."""

    arch: str
    code: list
    operations: list

    @property
    def rows(self) -> int:
        """The rows of A that a round of the loop multiplies, found from its number of loads.

        A load brings 16 bytes to each of 64 lanes, 1024 bytes in all. A round loads
        STREAM_NBYTES of weights, and 4096 bytes of A for each block of TOKENS rows."""
        loads = sum(x.kind == "memory" for x in self.operations)
        return (loads * 1024 - STREAM_NBYTES) // 4096 * TOKENS

    @property
    def across(self) -> bool:
        """Whether the weights' runs lie along N, and are turned in registers."""
        return any(x.name.startswith("v_perm_b32") for x in self.code)

    @functools.cached_property
    def rates(self) -> dict[int, float]:
        """Bytes of weights a cycle of a compute unit, by latency."""
        return {
            latency: WAVES * STREAM_NBYTES / ComputeUnit(self.operations, 1, latency).run().cycles
            for latency in LATENCIES
        }


def wanted_rate(arch: str) -> float:
    """Bytes a cycle that the memory has for each compute unit."""
    units, memory, clock = CHIPS[arch]
    return memory / clock / units


def streams(path, arch: str, most_rows: int = 2 * TOKENS) -> list[Stream]:
    """Of up to so many rows: with more the matrix unit is what limits."""
    found = []
    for name, code in amd_objects.instructions(path, STREAM).items():
        addresses = lds_banks.Addresses(control_flow.Kernel(name, code))
        for first, last in _main_loops(code, barrier=False):
            loads = sum(x.name == LOAD for x in code[first : last + 1])
            if loads * 1024 <= STREAM_NBYTES + most_rows // TOKENS * 4096:
                operations = _operations(code, first, last, arch, addresses)
                found.append(Stream(arch, code[first : last + 1], operations))
    return sorted(found, key=lambda stream: (stream.rows, stream.across))


STREAM_HEADINGS = ("arch", "rows", "weights along", "memory's share",
                   *(f"at {latency} cycles" for latency in LATENCIES))  # fmt: skip


def stream_row(stream: Stream) -> tuple[str, ...]:
    rates = (f"{rate:.1f}" for rate in stream.rates.values())
    return (stream.arch, f"up to {stream.rows}", "N" if stream.across else "K",
            f"{wanted_rate(stream.arch):.1f}", *rates)  # fmt: skip


def resident_groups(metadata: dict, arch: str) -> int:
    """Work-groups that fit a compute unit at once, by registers and LDS."""
    rounded = (metadata["vgpr_count"] + 7) // 8 * 8
    return min(REGISTERS // rounded, LDS_BYTES[arch] // metadata["group_segment_fixed_size"])


# ---- whole products ----


class Chip(typing.NamedTuple):
    """What runs a code object, at its highest clock rate."""

    name: str
    units: int
    gigahertz: float


PRODUCT_CHIPS = {
    "gfx90a": Chip("MI250X, a die", 110, 1.7),
    "gfx942": Chip("MI300X", 304, 2.1),
    "gfx950": Chip("MI355X", 256, 2.4),
}
SIZES = ((8192, 8192, 8192), (4096, 4096, 1024))
TILE = 128
# Beside the loop over K a tile takes no more wave-instructions than test_amd_tiles.py allows, and
# waits for memory: for its first stages, for its stores, and for the flag behind them.
OUTSIDE, ROUND_TRIPS = 800, 3


def product_teraflops(loop: Loop, size, latency: int) -> float:
    """Of a product by itself, operands along K, on a chip whose units all compute one tile at a
    time, so that the last round of tiles leaves some of them without."""
    M, N, K = size
    chip = PRODUCT_CHIPS[loop.arch]
    element = 4 if "F32" in loop.kernel else 2
    rounds = -(-(-(-M // TILE) * -(-N // TILE)) // chip.units)
    stages = K * element / 64
    cycles = stages * loop.replays[latency].cycles / loop.stages
    cycles += OUTSIDE * ISSUE + ROUND_TRIPS * latency
    return 2 * M * N * K / (rounds * cycles / (chip.gigahertz * 1e9)) / 1e12


# ---- the table ----

# Kernels of whose main loops docs/hip.md shows what the model says: of those without and those with
# two operands to turn.
SHOWN = ("iris_MATMUL_ALL_REDUCE_TWO_SHOT_F32", "iris_MATMUL_ALL_REDUCE_TWO_SHOT_BF16",
         "iris_ALL_GATHER_MATMUL_NONE_BF16")  # fmt: skip
HEADINGS = ("arch", "kernel", "runs across K", "instructions", "MFMA", "ideal cycles",
            *(f"at {latency}" for latency in LATENCIES), "MFMA busy",
            "LDS cycles a read / write", "fit")  # fmt: skip


def row(loop: Loop, fit: int) -> tuple[str, ...]:
    """The cells of a loop, as in docs/hip.md."""
    replays = loop.replays.values()
    reads = loop.lds_cycles("ds_read")
    writes = loop.lds_cycles("global_load_lds" if loop.direct else "ds_write")
    return (
        loop.arch,
        loop.kernel.removeprefix("iris_").lower(),
        str(loop.transposed),
        f"{len(loop.code) / loop.stages:g}",
        f"{loop.count('matrix') / loop.stages:g}",
        f"{loop.matrix_cycles:g}",
        *(f"{replay.cycles / loop.stages:.0f}" for replay in replays),
        " / ".join(f"{100 * replay.busy:.0f}" for replay in replays) + " %",
        f"{max(reads)} / {max(writes)}",
        str(fit),
    )


def table(folder, arches, kernels: str) -> typing.Iterator[tuple[tuple[str, ...], Loop]]:
    for arch in arches:
        path = pathlib.Path(folder) / f"iris_{arch}.hsaco"
        metadata = amd_objects.metadata(path)
        for loop in loops(path, arch, kernels):
            yield row(loop, resident_groups(metadata[loop.kernel], arch)), loop


def markdown(cells) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    import gpus

    parser = argparse.ArgumentParser(description="A cost model of the AMD main loops.")
    parser.add_argument("--listing", action="store_true", help="print the loops too")
    parser.add_argument("--products", action="store_true", help="print whole products' rates too")
    parser.add_argument("--kernel", default="|".join(SHOWN), metavar="REGEX")
    parser.add_argument("--folder", default=gpus.KERNELS, help="of the code objects")
    parser.add_argument("arches", nargs="*", default=list(RATES), metavar="ARCH")
    options = parser.parse_args()
    print(markdown(HEADINGS), markdown(["---"] * len(HEADINGS)), sep="\n")
    for cells, loop in table(options.folder, options.arches, options.kernel):
        print(markdown(cells), flush=True)
        if options.products and loop.transposed == 0:
            for size in SIZES:
                each = [f"{product_teraflops(loop, size, x):.0f}" for x in LATENCIES]
                print(PRODUCT_CHIPS[loop.arch].name, size, " / ".join(each), "TFLOP/s")
        if options.listing:
            trace: list = []
            ComputeUnit(loop.operations, 1, LATENCIES[0], trace=trace).run()
            first = [x for x in trace if x[0] == 0][: len(loop.code)]
            for (_, place, start), x in zip(first, loop.code, strict=True):
                cycles = loop.operations[place].cycles or ""
                print(f"{start:>8.0f} {cycles:>4} {x.address:>8x}  {x.name} {x.operands}")
    print("", markdown(STREAM_HEADINGS), markdown(["---"] * len(STREAM_HEADINGS)), sep="\n")
    for arch in options.arches:
        for stream in streams(pathlib.Path(options.folder) / f"iris_{arch}.hsaco", arch):
            print(markdown(stream_row(stream)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
