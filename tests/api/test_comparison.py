# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Times of a user's own shapes beside torch: ctx.bench, testing.benchmark, bench --op."""

import json

import pytest
import torch
from one_rank import run_python
from process_groups import distributed, starts_ranks

import iris_c.torch
from iris_c import comparison, testing
from iris_c.testing import ranks, run_ranks

QUICK = {"repeats": 1, "seconds": 1e-5}


def cases(world):
    for operation in comparison.PRODUCTS:
        yield operation, (20 * world, 18, 9)
    for operation in comparison.COLLECTIVES:
        yield operation, (33 * world,)


@ranks(1, 2, 3, deadline=120)
def test_every_operation_is_checked_and_timed(ctx):
    for operation, shape in cases(ctx.world_size):
        for dtype in ("float32", torch.bfloat16):
            row = ctx.bench(operation, shape, dtype=dtype, **QUICK)
            assert row.wrong == 0, row
            assert row.seconds > 0
            assert (row.peer, row.peer_seconds, row.ratio) == ("", None, None)
            assert (
                ctx._exchange(int(1e12 * row.seconds))
                == (int(1e12 * row.seconds),) * ctx.world_size
            )
            elements = {
                "matmul_reduce_scatter": 20 * 18, "reduce_scatter": 33,
            }.get(operation, shape[0] * (shape[1] if len(shape) == 3 else 1))  # fmt: skip
            assert row.checked == elements * ctx.world_size, operation


@ranks(2, deadline=120)
def test_what_is_wrong_is_counted(ctx, monkeypatch):
    """On whichever rank; what nobody has written too, and a missing rank's part."""
    real = {kind: kind.ours for kind in (comparison._Product, comparison._Collective)}
    for spoil, count in (
        (lambda case: case.output.view(-1)[-1:].mul_(1.01), 1),
        (lambda case: case.output.view(-1)[:2].fill_(float("nan")), 2),
    ):
        for kind in real:

            def ours(case, kind=kind, spoil=spoil):
                real[kind](case)
                if ctx.rank == 1:
                    spoil(case)

            monkeypatch.setattr(kind, "ours", ours)
        for operation, shape in cases(ctx.world_size):
            row = ctx.bench(operation, shape, **QUICK)
            assert row.wrong == count, (operation, row)
    monkeypatch.setattr(comparison._Product, "ours",
                        lambda case: torch.mm(case.A, case.B, out=case.output))  # fmt: skip
    assert ctx.bench("matmul_all_reduce", (40, 18, 9), **QUICK).wrong > 1400
    monkeypatch.setattr(comparison._Product, "ours", lambda case: None)
    row = ctx.bench("matmul_all_reduce", (40, 18, 9), **QUICK)
    assert row.wrong == row.checked == 2 * 40 * 18


@ranks(2)
def test_large_products_are_sampled(ctx, monkeypatch):
    monkeypatch.setattr(comparison, "MOST_CHECKED", {False: 1, True: 1})
    for operation in comparison.PRODUCTS:
        row = ctx.bench(operation, (200, 18, 9), **QUICK)
        assert row.wrong == 0
        assert 16 * 18 * 2 <= row.checked <= 18 * 18 * 2


@ranks(1, 2)
def test_mistakes_are_named(ctx):
    for arguments, message in (
        (("matmul", (1, 2, 3)), "op: expected one of matmul_all_reduce, .*, got 'matmul'"),
        (("all_reduce", (1, 2, 3)), "shape: expected one number of elements"),
        (("matmul_all_reduce", 4), "shape: expected M, N and K"),
        (("matmul_all_reduce", (4, 0, 4)), "shape: expected M, N and K, at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ctx.bench(*arguments, **QUICK)
    with pytest.raises(ValueError, match="dtype: expected float32, float16 or bfloat16"):
        ctx.bench("all_reduce", 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="peer: expected 'torch' or None, got 'nccl'"):
        ctx.bench("all_reduce", 4, peer="nccl")
    with pytest.raises(ValueError, match=r"peer: expected torch.distributed to be initialised"):
        ctx.bench("all_reduce", 4, peer="torch")
    with pytest.raises(ValueError, match="repeats, seconds: expected more than 0"):
        ctx.bench("all_reduce", 4, repeats=0)
    if ctx.world_size == 2:
        with pytest.raises(ValueError, match="shape: expected a multiple of 2 ranks in front"):
            ctx.bench("all_gather", 5)


@distributed
def _beside_torch(rank):
    with iris_c.torch.init(heap_size=16 << 20) as ctx:
        for operation, shape in cases(ctx.world_size):
            for dtype in ("float32", "bfloat16"):
                row = ctx.bench(operation, shape, dtype=dtype, peer="torch", **QUICK)
                assert (row.wrong, row.peer_wrong) == (0, 0), row
                assert row.peer == ("torch + gloo" if len(shape) == 3 else "gloo")
                assert row.ratio == row.peer_seconds / row.seconds > 0
        ctx.barrier()


@starts_ranks
def test_beside_torch(tmp_path):
    run_ranks((__name__, "_beside_torch"), 3, str(tmp_path / "store"), deadline=120)


def test_bandwidths_are_as_nccl_tests_has_them():
    """Its documentation's factors, of sizes and counts that it prints."""
    for operation, count, factor in (
        ("all_reduce", 4096, 2 * 3 / 4), ("reduce_scatter", 1024, 3 / 4),
        ("all_gather", 1024, 3 / 4), ("all_to_all", 1024, 3 / 4), ("broadcast", 4096, 1.0),
    ):  # fmt: skip
        row = comparison.Row(operation, (4096,), "bfloat16", 4, "cpu", 1e-6, 0, 4096)
        assert (row.nbytes, row.count) == (8192, count)
        assert row.bandwidths(1e-6) == pytest.approx((8.192, 8.192 * factor))
    row = comparison.Row("matmul_all_gather", (8, 4, 2), "float32", 4, "cpu", 1.0, 0, 1)
    assert row.teraflops(1.0) == pytest.approx(2 * 2 * 4 * 2 / 1e12)


def test_every_row_is_printed():
    """Also those that lose, and what is wrong; each number under its title."""
    rows = [
        comparison.Row(
            "all_reduce", (1024 * n,), "float32", 2, "cpu", 4e-6 * n, n - 1, 1024, "gloo", 2e-6, 0
        )
        for n in (1, 2)
    ]
    lines = comparison.table(rows).splitlines()
    assert [line.split() for line in lines if not line.startswith("#")] == [
        ["4096", "1024", "float32", "sum", "4.00", "1.02", "1.02", "0", "2.00", "2.05", "2.05", "0",
         "0.50x"],
        ["8192", "2048", "float32", "sum", "8.00", "1.02", "1.02", "1", "2.00", "4.10", "4.10", "0",
         "0.25x"],
    ]  # fmt: skip
    titles = "# size count type redop time algbw busbw #wrong time algbw busbw #wrong".split()
    assert ["#", *lines[2][1:].split()] == titles
    assert lines[-1] == "# Avg bus bandwidth    : 1.024"
    for title in ("count", "busbw"):
        end = lines[2].index(title) + len(title)
        assert all(line[end - 1].isdigit() and line[end] == " " for line in lines[4:6])


@pytest.mark.slow
def test_on_the_command_line():
    command = ["-m", "iris_c", "bench", "--backend", "cpu", "--ranks", "2", "--repeats", "1"]

    def run(*arguments):
        return run_python([*command, *arguments], capture_output=True, text=True, timeout=120,
                          check=False, cwd="/")  # fmt: skip

    done = run("--op", "matmul_all_reduce", "--shape", "64x48x32", "8x8x8", "--dtype", "bfloat16",
               "--peer", "torch")  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    assert [line[:4] for line in numbers] == [["64", "48", "32", "bfloat16"],
                                              ["8", "8", "8", "bfloat16"]]  # fmt: skip
    done = run("--op", "all_gather", "--min-bytes", "8", "--max-bytes", "2K", "--factor", "16",
               "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row["shape"] for row in json.loads(done.stdout)] == [[2], [32], [512]]
    for arguments, message in (
        (("--op", "all_reduce"), "shape: expected one or more, by --shape or --max-bytes"),
        (("--op", "sum", "--shape", "4"), "op: expected one of"),
        (("--op", "all_reduce", "--shape", "4x"), "expected sizes, as 4096x8192x1024"),
        (("--op", "all_reduce", "--max-bytes", "2T"), "expected bytes, as 8, 64K or 128M"),
        (
            ("--op", "all_reduce", "--max-bytes", "2K", "--factor", "1"),
            "expected an int, 2 or more",
        ),
    ):
        done = run(*arguments)
        assert done.returncode != 0
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_benchmark_starts_ranks():
    rows = testing.benchmark("all_reduce", [64, (128,)], ranks=2, backend="cpu", **QUICK)
    assert [(row.shape, row.ranks, row.wrong) for row in rows] == [((64,), 2, 0), ((128,), 2, 0)]
    assert testing.benchmark("all_reduce", []) == []
    with pytest.raises(ValueError, match="shape: expected a multiple of 3 ranks"):
        testing.benchmark("all_gather", [64], ranks=3)
