# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""``python -m iris_c doctor``: whether this machine can run iris_c well, on one page.

It looks at the drivers, the limits that a container sets and the devices, then starts a rank for
each device, which writes to and reads from every other one, checks what arrives, and times it.
Needs numpy, not torch.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import time
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy

import iris_c
from iris_c import _C
from iris_c.environment import KERNEL_DIRECTORY
from iris_c.testing import RankFailure, run_ranks

__all__ = ["Finding", "run"]

PATTERN_COUNT = 4099  # words of a checked transfer
LINK_NBYTES = 64 << 20  # of a timed one
CPU_LINK_NBYTES = 4 << 20
TURNS, ROUND_TRIPS = 5, 50
# A link with less than this share of what the others carry is worth a look.
SLOW_SHARE = 0.6
# Of /dev/shm, through which the ranks of the cpu backend and all ranks' control blocks are shared.
LEAST_SHARED_NBYTES = 1 << 30
LEAST_OPEN_FILES = 1024
Matrix: TypeAlias = list[list[float]]


@dataclass(frozen=True)
class Finding:
    """Something to know. With a remedy it is a problem, for which the command exits with 1."""

    what: str
    remedy: str = ""

    @property
    def is_problem(self) -> bool:
        return self.remedy != ""


# ---- what can be seen without a rank ----


def runtime_findings(driver: str, path: str) -> list[Finding]:
    """Of a driver's version, as "HIP 7.2.26015", and the file that the process has mapped."""
    found = [Finding(f"GPU driver: {driver}" + (f", {path}" if path else ""))]
    # The file of ROCm 7.2.3 is libamdhip64.so.7.2.70203.
    release = re.search(r"libamdhip64\.so\.\d+\.\d+\.(\d)(\d\d)(\d\d)$", path)
    patch = int(release[3]) if release else None
    if driver.startswith("HIP 7.2.") and (patch is None or patch <= 3):
        found.append(
            Finding(
                "ROCm 7.2.0 to 7.2.3 replay captured graphs wrongly now and then",
                "use another ROCm, or do not capture" if patch is not None else
                "make sure that it is 7.2.4 or newer, or do not capture",
            )
        )  # fmt: skip
    return found


def _mapped_file(stem: str) -> str:
    """The file of a library that this process has mapped; "" without one."""
    with open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if f"/{stem}" in line}
    return os.path.realpath(min(paths)) if paths else ""


def _driver_findings() -> list[Finding]:
    found = []
    for backend, stem in (("hip", "libamdhip64"), ("cuda", "libcuda.so")):
        if backend not in _C.backends():
            continue
        try:
            report = _C._devices(backend)
        except iris_c.BackendError as error:
            found.append(Finding(f"backend '{backend}': {error}", "see what the driver says"))
            continue
        if report is None:
            continue
        found += runtime_findings(report[0], _mapped_file(stem))
        objects = os.listdir(KERNEL_DIRECTORY) if os.path.isdir(KERNEL_DIRECTORY) else []
        found += device_findings(report[1], objects)
    if not found:
        found.append(Finding("no GPU driver sees a device: the cpu backend is what there is"))
    if os.path.exists("/dev/kfd") and not os.access("/dev/kfd", os.R_OK | os.W_OK):
        found.append(Finding("/dev/kfd is closed to this user", "join the groups video and render"))
    return found


def device_findings(devices: list[Any], objects: list[str]) -> list[Finding]:
    """Of rows (name, architecture, PCI address, compute units, which devices it reaches)."""
    found = []
    for number, (name, arch, pci, units, reaches) in enumerate(devices):
        found.append(Finding(f"device {number}: {name}, {arch}, {units} compute units, {pci}"))
        if not any(arch in file for file in objects):
            found.append(
                Finding(f"device {number}: this build has no code object for {arch}",
                        "build with IRIS_C_GPU_TARGETS, or take another wheel")
            )  # fmt: skip
        missing = [str(peer) for peer in range(len(devices)) if not reaches[peer]]
        if missing:
            found.append(
                Finding(f"device {number} does not reach {', '.join(missing)}",
                        "look for ACS or IOMMU settings that forbid peer access, or leave those "
                        "devices out by HIP_VISIBLE_DEVICES or CUDA_VISIBLE_DEVICES")
            )  # fmt: skip
    return found


def limit_findings(shared_nbytes: int, open_files: int, numa_balancing: str) -> list[Finding]:
    """Of the bytes free in /dev/shm, a process's open files, and the kernel's page balancing."""
    found = [Finding(f"/dev/shm: {shared_nbytes / 2**30:.1f} GiB free; open files: {open_files}")]
    if shared_nbytes < LEAST_SHARED_NBYTES:
        found.append(
            Finding(f"/dev/shm has {shared_nbytes >> 20} MiB free, less than a heap of 1 GiB",
                    "give the container more, as by docker run --shm-size=16g or --ipc=host")
        )  # fmt: skip
    if 0 <= open_files < LEAST_OPEN_FILES:
        found.append(Finding(f"{open_files} open files are few", f"ulimit -n {LEAST_OPEN_FILES}"))
    if numa_balancing == "1":
        found.append(
            Finding("the kernel moves pages between NUMA nodes, which disturbs GPUs; root turns it "
                    "off by `sysctl kernel.numa_balancing=0`")
        )  # fmt: skip
    return found


def _limits() -> list[Finding]:
    try:
        shm = os.statvfs("/dev/shm")
        shared = shm.f_bavail * shm.f_frsize
    except OSError:
        shared = 0
    try:
        with open("/proc/sys/kernel/numa_balancing") as file:
            balancing = file.read().strip()
    except OSError:
        balancing = ""
    return limit_findings(shared, resource.getrlimit(resource.RLIMIT_NOFILE)[0], balancing)


# ---- between the ranks ----


def _pattern(writer: int, reader: int) -> numpy.ndarray[Any, Any]:
    return numpy.random.default_rng(1 + 64 * writer + reader).integers(
        1, 2**31, PATTERN_COUNT, dtype=numpy.int32
    )


def _is_right(buffer: _C.Buffer, expected: numpy.ndarray[Any, Any]) -> bool:
    got = numpy.zeros_like(expected)
    buffer.copy_to_host(got)
    return bool(numpy.array_equal(got, expected))


def _check_links(ctx: iris_c.Context) -> list[str]:
    """What this rank reads wrongly, of every peer's memory and of its own after a peer's write."""
    rank, world, wrong = ctx.rank, ctx.world_size, []
    mine = ctx.allocate(PATTERN_COUNT, "int32")
    inbox = [ctx.allocate(PATTERN_COUNT, "int32") for _ in range(world)]
    fetched = ctx.allocate(PATTERN_COUNT, "int32")
    for peer in range(world):
        mine.copy_from_host(_pattern(rank, peer))
        ctx.barrier()
        ctx.put(inbox[rank], mine, peer)
        ctx.barrier()
        ctx.get(fetched, mine, peer)
        ctx.barrier()
        if not _is_right(fetched, _pattern(peer, peer)):
            wrong.append(f"rank {rank} reads the memory of rank {peer} wrongly")
    for peer in range(world):
        if not _is_right(inbox[peer], _pattern(peer, rank)):
            wrong.append(f"rank {rank} does not have what rank {peer} wrote")
    return wrong


def _rates(ctx: iris_c.Context) -> tuple[list[float], list[float]]:
    """GB/s of a put to each peer, one pair at a time, and us of a signal there and back."""
    nbytes = CPU_LINK_NBYTES if ctx.backend == "cpu" else LINK_NBYTES
    source, target = (ctx.allocate(nbytes, "uint8") for _ in range(2))
    word = ctx.allocate(1, "int32")
    word.copy_from_host(numpy.zeros(1, numpy.int32))
    rates, trips, count = [0.0] * ctx.world_size, [0.0] * ctx.world_size, 0
    for one in range(ctx.world_size):
        for other in range(ctx.world_size):
            if one == other:
                continue
            best = float("inf")
            for _ in range(TURNS):
                ctx.barrier()
                started = time.perf_counter()
                if ctx.rank == one:
                    ctx.put(target, source, other)
                ctx.barrier()
                best = min(best, time.perf_counter() - started)
            ctx.barrier()
            started = time.perf_counter()
            for number in range(count + 1, count + 1 + ROUND_TRIPS):
                if ctx.rank == one:
                    ctx.signal(word, other, number)
                    ctx.wait(word, number)
                elif ctx.rank == other:
                    ctx.wait(word, number)
                    ctx.signal(word, one, number)
            ctx.barrier()
            if ctx.rank == one:
                rates[other] = nbytes / best / 1e9
                trips[other] = (time.perf_counter() - started) / ROUND_TRIPS * 1e6
            count += ROUND_TRIPS
    return rates, trips


def _body(ctx: iris_c.Context) -> dict[str, Any]:
    wrong = _check_links(ctx)
    rates, trips = _rates(ctx)
    return {
        "backend": ctx.backend, "memory": ctx.memory_kind, "wrong": wrong, "rates": rates,
        "trips": trips,
    }  # fmt: skip


def link_findings(results: list[dict[str, Any]]) -> list[Finding]:
    """Of what each rank found; links that carry much less than the others are problems."""
    remedy = "do not trust this machine's results; look for driver updates, ACS, IOMMU settings"
    found = [Finding(text, remedy) for result in results for text in result["wrong"]]
    kinds = sorted({result["memory"] for result in results})
    found.append(Finding(f"the heap's memory: {', '.join(kinds)}"))
    if not {"shared", "device", "uncached"} >= set(kinds):
        found.append(
            Finding("nothing goes as packets, so small calls are slow: the runtime gave no "
                    "uncached memory", "use ROCm 6.4 or newer")
        )  # fmt: skip
    links = [(rate, one, other) for one, result in enumerate(results)
             for other, rate in enumerate(result["rates"]) if one != other]  # fmt: skip
    if links and results[0]["backend"] != "cpu":  # whose links are one memory
        usual = statistics.median(rate for rate, _, _ in links)
        for rate, one, other in links:
            if rate < SLOW_SHARE * usual:
                found.append(
                    Finding(f"rank {one} to rank {other}: {rate:.0f} GB/s, where {usual:.0f} are "
                            "usual", "look at the topology: a link may be down")
                )  # fmt: skip
    return found


def run(backend: str | None, ranks: int, timeout: float) -> dict[str, Any]:
    """Examines the machine with `ranks` ranks.

    Returns
    -------
    dict
        findings (each: what, remedy, "" where nothing is to be done), backend, and of each rank to
        each the rates in GB/s and the round trips of a signal in microseconds; none of those three
        if the ranks did not come to an end.
    """
    found = _driver_findings() + _limits()
    result: dict[str, Any] = {}
    try:
        results = run_ranks(
            _body, ranks, init={"heap_size": 2 * LINK_NBYTES + (32 << 20), "timeout": timeout},
            deadline=60 + 10 * timeout,
            environment={} if backend is None else {"IRIS_C_BACKEND": backend},
        )  # fmt: skip
    except RankFailure as failure:
        found.append(Finding(f"the ranks failed:\n{failure}", "see what they say"))
    else:
        found += link_findings(results)
        result = {
            "backend": results[0]["backend"],
            "rates": [row["rates"] for row in results],
            "round_trips": [row["trips"] for row in results],
        }
    findings = [{"what": finding.what, "remedy": finding.remedy} for finding in found]
    return {"findings": findings, "ranks": ranks, **result}
