# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""``python -m iris_c bench``: how long the operations take on this machine's devices.

Needs numpy, not torch, and compares with nothing: benchmarks/ of the source does. Each operation is
checked before it is timed. On GPUs calls are queued one behind the other, as a program queues them;
on the cpu each returns when it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from iris_c import Context
from iris_c._terminal import progress
from iris_c.selftest import SelfTestRank, check_product, check_sum
from iris_c.testing import RankFailure, run_ranks

__all__ = ["run"]

SIZES = tuple(1 << shift for shift in (10, 13, 16, 20, 24))  # bytes
PRODUCTS = ((512, 1024, 512), (2048, 2048, 1024))
CALLS, REPEATS = 10, 5


def _seconds(ctx: Context, call: Callable[[], object], calls: int = CALLS) -> float:
    """Of one call: the fastest of some runs of calls."""
    best = float("inf")
    for _ in range(REPEATS):
        ctx.barrier()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        ctx.barrier()  # waits for the device too
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def _body(ctx: Context, dtype: str) -> list[dict[str, Any]]:
    at, rows = SelfTestRank(ctx), []
    element = 4 if dtype == "float32" else 2
    for check in (
        partial(check_sum, operation="all_reduce", variant="two_shot"),
        partial(check_product, variant="two_shot"),
    ):
        if not check(at, dtype=dtype, turn=0) <= 1.0:
            raise AssertionError("a result is wrong; see python -m iris_c selftest")
        ctx.barrier()
    total = len(SIZES) + len(PRODUCTS)
    for number, nbytes in enumerate(SIZES):
        if ctx.rank == 0:
            progress(number, total, f"all_reduce of {nbytes} bytes")
        given, output = (at.buffer((nbytes // element,), dtype, 1.0) for _ in range(2))
        seconds = _seconds(ctx, partial(ctx.ccl.all_reduce, output, given))
        rows.append({
            "operation": "all_reduce", "what": f"{nbytes} bytes", "seconds": seconds,
            "rate": nbytes / seconds / 1e9, "unit": "GB/s",
        })  # fmt: skip
    # On the cpu, where nothing is queued, a product takes far longer than the barriers around it.
    calls = 1 if ctx.backend == "cpu" else CALLS
    for number, (M, N, K) in enumerate(PRODUCTS, len(SIZES)):
        if ctx.rank == 0:
            progress(number, total, f"matmul_all_reduce {M} x {N} x {K}")
        A, B, C = (at.buffer(shape, dtype, 1.0) for shape in ((M, K), (K, N), (M, N)))
        seconds = _seconds(ctx, partial(ctx.ops.matmul_all_reduce, C, A, B), calls)
        rows.append({
            "operation": "matmul_all_reduce", "what": f"{M} x {N} x {K}", "seconds": seconds,
            "rate": 2 * M * N * K / seconds / 1e9, "unit": "GFLOP/s",
        })  # fmt: skip
    if ctx.rank == 0:
        progress(total, total, "")
    return [{"backend": ctx.backend}, *rows]


def run(backend: str | None, ranks: int, timeout: float, dtype: str) -> dict[str, Any]:
    """Times the operations on `ranks` ranks.

    Returns
    -------
    dict
        backend, ranks, dtype, rows (the slowest rank's) and failure: the ranks' tracebacks or "".
    """
    environment = {} if backend is None else {"IRIS_C_BACKEND": backend}
    init = {"heap_size": 256 << 20, "timeout": timeout}
    result: dict[str, Any] = {
        "backend": backend, "ranks": ranks, "dtype": dtype, "rows": [], "failure": ""
    }  # fmt: skip
    try:
        results = run_ranks(_body, ranks, dtype, init=init, deadline=120 + 10 * timeout,
                            environment=environment)  # fmt: skip
    except RankFailure as failure:
        return {**result, "failure": str(failure)}
    rows = [
        max(same, key=lambda row: row["seconds"])
        for same in zip(*(r[1:] for r in results), strict=True)
    ]
    return {**result, "backend": results[0][0]["backend"], "rows": rows}
