# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Traces of fused operations: which work-group did what, and when.

A call with ``trace=True`` runs a kernel that records what its work-groups do, with the device's
clock; other calls run kernels without any code for tracing. ``export`` brings the records of all
ranks onto one time axis, writes them for a viewer of Chrome traces (Perfetto, chrome://tracing) and
sums them up::

    ctx.ops.matmul_all_reduce(C, A, B, trace=True)
    print(iris_c.tracing.export("trace.json", ctx))

Records are kept until ``clear``. A call that was captured in a graph records in every replay.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from iris_c import _checks

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from iris_c.context import Context

    # Times in seconds, and intervals as the times at which they begin and end.
    _Array: TypeAlias = NDArray[Any]
    _Intervals: TypeAlias = tuple[_Array, _Array]

__all__ = ["RankSummary", "Summary", "clear", "export"]

# enum iris_trace_kind, enum iris_trace_role.
FETCH, GEMM, WAIT, REDUCE, SIGNAL = range(1, 6)
KINDS = {FETCH: "fetch", GEMM: "gemm", WAIT: "wait", REDUCE: "reduce", SIGNAL: "signal"}
ROLES = ("", "loader", "storer", "exchange", "math")

# struct iris_trace_record, little endian.
RECORD = [
    ("begin", "<u8"),
    ("end", "<u8"),
    ("kind", "u1"),
    ("role", "u1"),
    ("operation", "u1"),
    ("pad", "u1"),
    ("group", "<u2"),
    ("rank", "<i2"),
    ("index", "<i4"),
    ("call", "<u4"),
]
HEAD_NBYTES = 32  # of a rank's file: what `Context._trace` returns beside the records


@dataclass(frozen=True)
class RankSummary:
    """What the work-groups of one rank did.

    Attributes
    ----------
    rank : int
    seconds : float
        The time in which at least one work-group recorded something.
    gemm : float
        The share of `seconds` in which at least one work-group multiplied.
    wait : float
        The share of `seconds` in which a work-group waited and none multiplied.
    overlap : float
        The share of the time for moving data (fetch, reduce, signal) in which a work-group
        multiplied as well.
    waiting : float
        The share of its time that a work-group waited, on average over the work-groups.
    slowest_peer : int or None
        The rank whose signals this rank waited for the longest; None if it never waited.
    records, dropped : int
        The number of records, and of those for which there was no room.
    clock_error : float
        The largest error, in seconds, of this rank's times beside those of rank 0.
    """

    rank: int
    seconds: float
    gemm: float
    wait: float
    overlap: float
    waiting: float
    slowest_peer: int | None
    records: int
    dropped: int
    clock_error: float


@dataclass(frozen=True)
class Summary:
    """A `RankSummary` for each rank. Its text, ``str(summary)``, is a table."""

    ranks: tuple[RankSummary, ...]

    def __str__(self) -> str:
        lines = ["rank        us   gemm   wait  overlap  waiting  slowest peer  records  dropped"]
        lines += [
            f"{r.rank:>4} {r.seconds * 1e6:>9.1f} {r.gemm:>6.1%} {r.wait:>6.1%} {r.overlap:>8.1%} "
            f"{r.waiting:>8.1%} {'-' if r.slowest_peer is None else r.slowest_peer:>13} "
            f"{r.records:>8} {r.dropped:>8}"
            for r in self.ranks
        ]
        return "\n".join(lines)


def clear(ctx: Context) -> None:
    """Delete the records of this rank. Waits for the device; not collective."""
    _checks.context("ctx", ctx)._trace_clear()


def export(path: str | os.PathLike[str], ctx: Context) -> Summary:
    """Write the records of all ranks to one file and sum them up. Collective.

    It waits for the devices first, and compares their clocks.

    Parameters
    ----------
    path : path-like
        The file's name, equal on all ranks. Rank 0 writes the file, and replaces one that is
        there. Each rank keeps a temporary file beside it meanwhile.
    ctx : Context
        The context whose calls were traced.

    Returns
    -------
    Summary
        The same on all ranks.

    Raises
    ------
    ValueError
        No call had ``trace=True``.
    OSError
        The file cannot be written.
    """
    import numpy

    _checks.context("ctx", ctx)
    path = os.fspath(path)
    data, dropped, clock_offset, round_trip, ticks_per_second = ctx._trace()
    head = numpy.array([dropped, clock_offset, round_trip, ticks_per_second], "<i8")
    path = os.fspath(path)
    own = f"{path}.rank{ctx.rank}"
    if os.path.isdir(path):  # which rank 0 alone would find out
        raise IsADirectoryError(f"path: expected a file, got the directory {path!r}")
    try:
        with open(own, "wb") as file:
            file.write(head.tobytes() + data)
        ctx.barrier()
        traces = _read_all([f"{path}.rank{rank}" for rank in range(ctx.world_size)])
        ctx.barrier()
        if ctx.rank == 0 and any(len(trace.records) for trace in traces):
            with open(own, "w", encoding="utf-8") as file:
                json.dump(_chrome_trace(traces), file)
            os.replace(own, path)
    finally:
        if os.path.exists(own):
            os.unlink(own)
    if not any(len(trace.records) for trace in traces):
        raise ValueError("export: expected records, got none: no call had trace=True")
    ctx.barrier()
    return Summary(tuple(_summary_of(trace) for trace in traces))


@dataclass(frozen=True)
class _RankTrace:
    rank: int
    dropped: int
    clock_error: float  # seconds
    records: Any  # numpy array of RECORD, by begin
    begin: numpy.ndarray  # of the records, in seconds from the first of all ranks
    end: numpy.ndarray


def _read_all(files: list[str]) -> list[_RankTrace]:
    import numpy

    heads, records, begins, ends = [], [], [], []
    for file in files:
        data = numpy.fromfile(file, "u1").tobytes()
        head = numpy.frombuffer(data[:HEAD_NBYTES], "<i8").tolist()
        rows = numpy.sort(numpy.frombuffer(data[HEAD_NBYTES:], RECORD), order="begin")
        heads.append(head)
        records.append(rows)
        begins.append(rows["begin"].astype("<i8") - head[1])
        ends.append(rows["end"].astype("<i8") - head[1])
    # In ticks up to here: seconds since a clock began are too many digits for a double.
    zero = min((int(begin[0]) for begin in begins if len(begin)), default=0)
    return [
        _RankTrace(
            rank=rank,
            dropped=dropped,
            clock_error=round_trip / 2 / ticks_per_second,
            records=records[rank],
            begin=(begins[rank] - zero) / ticks_per_second,
            end=(ends[rank] - zero) / ticks_per_second,
        )
        for rank, (dropped, _, round_trip, ticks_per_second) in enumerate(heads)
    ]


# ---- waits ----


def _waits(trace: _RankTrace) -> list[tuple[int, int, int, int]]:
    """The waits as (first, last, peer, record): threads of a work-group that wait side by side are
    one wait, for the peer that came last. `first` and `last` index records by begin and by end."""
    latest: dict[tuple[int, int], int] = {}
    waits: list[tuple[int, int, int, int]] = []
    records = trace.records
    for i in (records["kind"] == WAIT).nonzero()[0].tolist():
        track = (int(records["group"][i]), int(records["role"][i]))
        at = latest.get(track)
        if at is not None and trace.begin[i] < trace.end[waits[at][1]]:
            first, last, _, _ = waits[at]
            if trace.end[i] > trace.end[last]:
                waits[at] = (first, i, int(records["rank"][i]), i)
        else:
            latest[track] = len(waits)
            waits.append((i, i, int(records["rank"][i]), i))
    return waits


# ---- sums ----


def _union(begin: _Array, end: _Array) -> _Intervals:
    """Disjoint intervals that cover the same; `begin` ascending."""
    import numpy

    if len(begin) == 0:
        return begin, end
    reach = numpy.maximum.accumulate(end)
    opens = numpy.concatenate(([True], begin[1:] > reach[:-1]))
    closes = numpy.concatenate((opens[1:], [True]))
    return begin[opens], reach[closes]


def _length(intervals: _Intervals) -> float:
    return float((intervals[1] - intervals[0]).sum())


def _common(a: _Intervals, b: _Intervals) -> float:
    """Length of what two sets of disjoint intervals have in common: |a| + |b| - |a or b|."""
    import numpy

    begin, end = (numpy.concatenate(pair) for pair in zip(a, b, strict=True))
    order = begin.argsort()
    return _length(a) + _length(b) - _length(_union(begin[order], end[order]))


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _summary_of(trace: _RankTrace) -> RankSummary:
    import numpy

    kind = trace.records["kind"]

    def of(*kinds: int) -> _Intervals:
        chosen = numpy.isin(kind, kinds)
        return _union(trace.begin[chosen], trace.end[chosen])

    busy, gemm, moved, waited = of(*KINDS), of(GEMM), of(FETCH, REDUCE, SIGNAL), of(WAIT)
    seconds = _length(busy)
    waits = _waits(trace)
    tracks = len(
        set(zip(trace.records["group"].tolist(), trace.records["role"].tolist(), strict=True))
    )
    by_peer: dict[int, float] = {}
    total = 0.0
    for first, last, peer, _ in waits:
        length = float(trace.end[last] - trace.begin[first])
        total += length
        if peer != trace.rank:
            by_peer[peer] = by_peer.get(peer, 0.0) + length
    return RankSummary(
        rank=trace.rank,
        seconds=seconds,
        gemm=_share(_length(gemm), seconds),
        wait=_share(_length(waited) - _common(waited, gemm), seconds),
        overlap=_share(_common(moved, gemm), _length(moved)),
        waiting=_share(total, seconds * tracks),
        slowest_peer=max(by_peer, key=by_peer.__getitem__) if by_peer else None,
        records=len(trace.records),
        dropped=trace.dropped,
        clock_error=trace.clock_error,
    )


# ---- the file ----


def _chrome_trace(traces: list[_RankTrace]) -> dict[str, Any]:
    """In the Trace Event Format: a process for each rank, a thread for each work-group and role."""
    events: list[dict[str, Any]] = []
    for trace in traces:
        events.append(_name("process_name", trace.rank, 0, f"rank {trace.rank}"))
        spans = [(i, i, i) for i in (trace.records["kind"] != WAIT).nonzero()[0].tolist()]
        spans += [(first, last, record) for first, last, _, record in _waits(trace)]
        tracks = set()
        for first, last, record in spans:
            row = trace.records[record]
            tracks.add((int(row["group"]), int(row["role"])))
            events.append(
                {
                    "name": KINDS[int(row["kind"])],
                    "ph": "X",
                    "pid": trace.rank,
                    "tid": _thread(int(row["group"]), int(row["role"])),
                    "ts": round(float(trace.begin[first]) * 1e6, 3),
                    "dur": round(float(trace.end[last] - trace.begin[first]) * 1e6, 3),
                    "args": {name: int(row[name]) for name in ("rank", "index", "call")},
                }
            )
        for group, role in sorted(tracks):
            name = f"group {group} {ROLES[role]}".rstrip()
            events.append(_name("thread_name", trace.rank, _thread(group, role), name))
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _thread(group: int, role: int) -> int:
    return group * len(ROLES) + role


def _name(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
