# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Traced calls: what they compute, what they record, and what is made of the records."""

import contextlib
import json
import os
import shutil
import tempfile
import time

import cases
import numpy
import pytest
import torch

import iris_c
from iris_c import tracing
from iris_c.testing import ranks

# Tiles for every rank; those of a GPU's kernels are large.
if os.environ.get("IRIS_C_BACKEND", "cpu") == "cpu":
    M, N, K, CONFIG = 96, 80, 64, {"block_size_m": 16, "block_size_n": 16}
else:
    M, N, K, CONFIG = 768, 640, 64, {}


def config(variant=None):
    return iris_c.FusedConfig(**CONFIG, all_reduce_variant=variant, form="tiles")


def operands(ctx, op, dtype):
    """Arguments of an operation, its output among them, and its keyword arguments."""
    shape = {
        "matmul_reduce_scatter": (M // ctx.world_size, N),
        "matmul_all_gather": (M * ctx.world_size, N),
    }.get(op, (M, N))
    rows = M // ctx.world_size if op.startswith("all_gather") else M
    A = cases.contribution(10 + ctx.rank, rows * K, dtype).view(rows, K)
    B = cases.contribution(20 + ctx.rank, K * N, dtype).view(K, N)
    return ctx.empty(*shape, dtype=dtype), A, B


def tiles_of(ctx, op, dtype):
    """How many tiles a rank multiplies."""
    chosen = iris_c.ops.select_config(ctx, M, N, K, dtype, config(), op)
    across = -(-N // chosen.block_size_n)
    if op in ("matmul_all_reduce", "matmul_all_gather"):
        return -(-M // chosen.block_size_m) * across
    return ctx.world_size * -(-M // ctx.world_size // chosen.block_size_m) * across


@contextlib.contextmanager
def directory_of_all(ctx):
    """An empty one, the same for all ranks; removed by the test's end."""
    name = f"iris_c-trace-{os.getppid()}-{os.environ.get('MASTER_PORT', '')}-{ctx.world_size}"
    path = os.path.join(tempfile.gettempdir(), name)
    if ctx.rank == 0:
        os.mkdir(path)
    ctx.barrier()
    try:
        yield path
    finally:
        ctx.barrier()
        if ctx.rank == 0:
            shutil.rmtree(path)


OPERATIONS = [("matmul_all_reduce", variant) for variant in cases.VARIANTS] + [
    (op, None) for op in cases.PRODUCTS[1:]
]


@pytest.mark.parametrize(("op", "variant"), OPERATIONS)
@ranks(1, 2, 3)
def test_traced_calls_compute_the_same_and_record_each_tile(ctx, op, variant):
    run = getattr(ctx.ops, op)
    for dtype in cases.DTYPES:
        C, A, B = operands(ctx, op, dtype)
        run(C, A, B, config=config(variant))
        expected = C.clone()
        ctx.barrier()
        tracing.clear(ctx)
        for call in range(2):
            cases.poisoned(C)
            run(C, A, B, config=config(variant), trace=True)
            if variant in ("atomic", "spinlock"):  # any order of the ranks
                torch.testing.assert_close(C, expected)
            else:
                assert torch.equal(C, expected), (dtype, call)
        run(C, A, B, config=config(variant))
        records = records_of(ctx)
        assert sorted(set(records["call"].tolist())) == [0, 1]
        gemm = records[records["kind"] == tracing.GEMM]
        for call in range(2):
            assert (gemm["call"] == call).sum() == tiles_of(ctx, op, dtype)
        assert (records["end"] >= records["begin"]).all()
        kinds = set(records["kind"].tolist())
        if ctx.world_size > 1 and op.startswith("all_gather"):
            assert {tracing.FETCH, tracing.SIGNAL} <= kinds
        elif ctx.rank > 0:  # the first of a ring adds nothing
            assert {tracing.REDUCE, tracing.SIGNAL} <= kinds
        ctx.barrier()


def records_of(ctx):
    data, dropped, *_ = ctx._trace()
    assert dropped == 0
    return numpy.frombuffer(data, tracing.RECORD)


@cases.cpu_only
@ranks(2, 4)
def test_records_lie_within_the_call(ctx):
    C, A, B = operands(ctx, "matmul_all_reduce", torch.float32)
    before = time.monotonic_ns()
    ctx.ops.matmul_all_reduce(C, A, B, trace=True)
    after = time.monotonic_ns()
    records = records_of(ctx)
    assert len(records) > 0
    assert (records["begin"] >= before).all()
    assert (records["end"] <= after).all()
    operation = set(records["operation"].tolist())
    ctx.ops.matmul_all_gather(ctx.empty(M * ctx.world_size, N), A, B, trace=True)
    assert len(operation) == 1
    assert len(set(records_of(ctx)["operation"].tolist())) == 2


@ranks(1, 2, 4)
def test_clocks_are_compared(ctx):
    for _ in range(3):
        _, _, offset, round_trip, ticks_per_second = trace_of_a_call(ctx)
        assert 0 <= round_trip < ticks_per_second
        if ctx.rank == 0:
            assert offset == round_trip == 0
        elif ctx.backend == "cpu":  # one clock for all
            assert round_trip > 0
            assert abs(offset) <= (round_trip + 1) // 2


def trace_of_a_call(ctx):
    C, A, B = operands(ctx, "matmul_all_reduce", torch.float32)
    ctx.ops.matmul_all_reduce(C, A, B, trace=True)
    return ctx._trace()


@ranks(2, 3)
def test_the_slowest_peer_is_named(ctx):
    late = ctx.world_size - 1
    C, A, B = operands(ctx, "matmul_all_reduce", torch.float32)
    ctx.ops.matmul_all_reduce(C, A, B, trace=True)
    ctx.barrier()
    tracing.clear(ctx)
    ctx.barrier()
    if ctx.rank == late:
        time.sleep(0.2)
    ctx.ops.matmul_all_reduce(C, A, B, trace=True)
    with directory_of_all(ctx) as directory:
        summary = tracing.export(os.path.join(directory, "trace.json"), ctx)
    assert [r.rank for r in summary.ranks] == list(range(ctx.world_size))
    for r in summary.ranks:
        assert r.records > 0
        assert r.dropped == 0
        assert r.clock_error < 0.05
        if r.rank != late:
            assert r.slowest_peer == late
            assert r.wait > 0.5
            assert 0.15 < r.seconds < 5.0
        else:
            assert r.seconds < 0.1
    assert str(summary).count("\n") == ctx.world_size
    ctx.barrier()


@ranks(2, 3)
def test_the_file_is_a_chrome_trace_of_all_ranks(ctx):
    C, A, B = operands(ctx, "all_gather_matmul_hbm_buffer", torch.float32)
    for _ in range(3):
        ctx.ops.all_gather_matmul_hbm_buffer(C, A, B, config=config(), trace=True)
    with directory_of_all(ctx) as directory:
        path = os.path.join(directory, "trace.json")
        tracing.export(path, ctx)
        assert os.listdir(directory) == ["trace.json"]
        with open(path, encoding="utf-8") as file:
            events = json.load(file)["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert {span["pid"] for span in spans} == set(range(ctx.world_size))
    assert (
        {"fetch", "gemm", "signal"}
        <= {span["name"] for span in spans}
        <= set(tracing.KINDS.values())
    )
    assert min(span["ts"] for span in spans) == 0.0
    assert all(span["dur"] >= 0 for span in spans)
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    tracks: dict = {}
    for span in spans:
        tracks.setdefault((span["pid"], span["tid"]), []).append(span)
    assert set(tracks) == named
    for track in tracks.values():
        check_nesting(track)
    ctx.barrier()


def check_nesting(track):
    """Viewers need spans of a thread that lie inside each other or apart."""
    open_until: list[float] = []
    for span in sorted(track, key=lambda span: (span["ts"], -span["dur"])):
        begin, end = span["ts"], span["ts"] + span["dur"]
        while open_until and open_until[-1] <= begin + 0.0015:  # rounded to nanoseconds
            open_until.pop()
        assert not open_until or end <= open_until[-1] + 0.0015, (span, open_until)
        open_until.append(end)


@cases.cpu_only
@ranks(2)
def test_records_without_room_are_counted(ctx):
    many = iris_c.FusedConfig(block_size_m=8, block_size_n=8)
    A, B = torch.randn(1024, 1), torch.randn(1, 1024)
    C = ctx.empty(1024, 1024)
    for _ in range(8):
        ctx.ops.matmul_all_reduce(C, A, B, config=many, trace=True)
    data, dropped, *_ = ctx._trace()
    assert dropped > 0
    count = len(data) // numpy.dtype(tracing.RECORD).itemsize
    assert count == 1 << 18
    assert count + dropped >= 8 * 128 * 128
    tracing.clear(ctx)
    ctx.barrier()
    ctx.ops.matmul_all_reduce(C, A, B, trace=True)
    assert 0 < len(records_of(ctx)) < count


@ranks(2)
def test_errors_are_all_ranks(ctx):
    with directory_of_all(ctx) as directory:
        path = os.path.join(directory, "trace.json")
        with pytest.raises(ValueError, match=r"export: expected records, got none"):
            tracing.export(path, ctx)
        trace_of_a_call(ctx)
        with pytest.raises(IsADirectoryError, match="path: expected a file, got the directory"):
            tracing.export(directory, ctx)
        with pytest.raises(FileNotFoundError):
            tracing.export(os.path.join(directory, "missing", "trace.json"), ctx)
        ctx.barrier()
        assert os.listdir(directory) == []
        ctx.barrier()
        tracing.export(path, ctx)


def write_rank_file(path, clock_offset, rows):
    """As `export` does; `rows` in nanoseconds of rank 0's clock: (begin, end, kind, role, rank)."""
    records = numpy.zeros(len(rows), tracing.RECORD)
    for record, (begin, end, kind, role, rank) in zip(records, rows, strict=True):
        record["begin"], record["end"] = begin + clock_offset, end + clock_offset
        record["kind"], record["role"], record["rank"] = kind, role, rank
    head = numpy.array([7, clock_offset, 600, 10**9], "<i8")
    path.write_bytes(head.tobytes() + records.tobytes())


def test_ranks_are_brought_onto_one_axis_and_summed_up(tmp_path):
    """With clocks that are far apart, as those of GPUs, and read nanoseconds since 1970."""
    now = 1_800_000_000_000_000_000
    files = [tmp_path / "0", tmp_path / "1"]
    gemm, wait, reduce = tracing.GEMM, tracing.WAIT, tracing.REDUCE
    write_rank_file(files[0], 0, [(now + 100, now + 1100, gemm, 4, 0)])
    rows = [
        (now + 600, now + 900, gemm, 4, 1),
        (now + 800, now + 1000, reduce, 3, 1),  # half of it beside the product
        (now + 1000, now + 1200, wait, 3, 0),  # side by side, so one wait, ...
        (now + 1010, now + 1400, wait, 3, 2),  # ... for who came last
        (now + 1500, now + 1550, wait, 3, 0),
        (now + 1500, now + 1600, gemm, 4, 1),
    ]
    write_rank_file(files[1], -987_654_321_987, rows[::-1])
    first, second = traces = tracing._read_all([str(file) for file in files])
    assert first.begin.tolist() == [0.0]
    assert first.end.tolist() == [1000e-9]
    assert second.begin.tolist() == pytest.approx([5e-7, 7e-7, 9e-7, 9.1e-7, 1.4e-6, 1.4e-6])
    summary = tracing._summary_of(second)
    assert summary.seconds == pytest.approx(900e-9)  # 600 to 1400, 1500 to 1600
    assert summary.gemm == pytest.approx(400 / 900)
    assert summary.overlap == pytest.approx(0.5)
    assert summary.wait == pytest.approx(400 / 900)  # the last wait lies beside a product
    assert summary.waiting == pytest.approx(450 / (2 * 900))
    assert summary.slowest_peer == 2
    assert (summary.records, summary.dropped) == (6, 7)
    assert summary.clock_error == pytest.approx(300e-9)
    events = tracing._chrome_trace(traces)["traceEvents"]
    waits = [event for event in events if event["name"] == "wait"]
    assert [(w["ts"], w["dur"], w["args"]["rank"]) for w in waits] == [
        (0.9, 0.4, 2),
        (1.4, 0.05, 0),
    ]


def test_a_closed_context_has_no_trace():
    ctx = iris_c.init(heap_size=1 << 20, rank=0, world_size=1)
    ctx.close()
    with pytest.raises(RuntimeError, match="closed"):
        tracing.clear(ctx)
    with pytest.raises(RuntimeError, match="closed"):
        ctx._trace()
