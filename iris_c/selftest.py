# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""``python -m iris_c selftest``: every operation on this machine's devices, checked.

Needs numpy, not torch. The ranks are processes of this machine, one per device, or several per
device where there are fewer. Results are compared with float64; the bound of an element's error is
derived, not tuned: one rounding of each rank's product and one of the result in the dtype, and the
accumulation in fp32. A missing contribution of any rank is far outside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

import iris_c
from iris_c import _C
from iris_c._terminal import progress
from iris_c.fill import NumpyFiller
from iris_c.testing import RankFailure, run_ranks, seed_of

__all__ = ["VARIANTS", "SelfTestRank", "check_product", "check_sum", "run"]

VARIANTS = ("two_shot", "one_shot", "ring", "atomic", "spinlock")
UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SMALLEST = {"float32": 2.0**-126, "float16": 2.0**-24, "bfloat16": 2.0**-126}
SHAPE = (130, 260, 70)
COUNT = 4099
TURNS = 3
Array: TypeAlias = NDArray[Any]


class SelfTestRank:
    """One rank's buffers and inputs, which every rank can compute."""

    def __init__(self, ctx: iris_c.Context) -> None:
        self.ctx = ctx
        self.filler = NumpyFiller(numpy)

    def inputs(self, rank: int, name: str, shape: tuple[int, ...], dtype: str) -> Array:
        """What `rank` puts in, as float32 values that the dtype represents."""
        random = numpy.random.default_rng(seed_of(f"{rank}/{name}"))
        values = random.standard_normal(shape, dtype=numpy.float32)
        return self.filler.rounded(values, dtype)

    def buffer(self, shape: tuple[int, ...], dtype: str, values: Any = None) -> _C.Buffer:
        buffer = self.ctx.allocate(shape, dtype)
        self.filler.full(buffer, math.nan if values is None else values)
        return buffer

    def worst(self, buffer: _C.Buffer, expected: Array, bound: Array) -> float:
        """The largest error as a part of its bound; NaN or more than 1 is wrong."""
        error = numpy.abs(self.filler.read(buffer).astype(numpy.float64) - expected)
        return float(numpy.max(error / bound))


def check_product(at: SelfTestRank, variant: str, dtype: str, turn: int) -> float:
    M, N, K = SHAPE
    world, name = at.ctx.world_size, f"{variant}/{dtype}/{turn}"
    shapes = {"A": (M, K), "B": (K, N)}
    A, B = (at.buffer(s, dtype, at.inputs(at.ctx.rank, n + name, s, dtype))
            for n, s in shapes.items())  # fmt: skip
    C = at.buffer((M, N), dtype)
    config = iris_c.FusedConfig(all_reduce_variant=variant)
    at.ctx.ops.matmul_all_reduce(C, A, B, config=config)
    total, partials, products = (numpy.zeros((M, N)) for _ in range(3))
    for rank in range(world):
        a, b = (at.inputs(rank, n + name, s, dtype).astype(numpy.float64)
                for n, s in shapes.items())  # fmt: skip
        total += a @ b
        partials += numpy.abs(a @ b)
        products += numpy.abs(a) @ numpy.abs(b)
    bound = 1.01 * UNIT[dtype] * (partials + numpy.abs(total))
    bound += UNIT["float32"] * (K + world + 2) * products + SMALLEST[dtype] * (world + 1)
    return at.worst(C, total, bound)


def check_sum(at: SelfTestRank, operation: str, variant: str, dtype: str, turn: int) -> float:
    world, name = at.ctx.world_size, f"{operation}/{variant}/{dtype}/{turn}"
    scatters = operation == "reduce_scatter"
    count = COUNT * world if scatters else COUNT
    given = at.buffer((count,), dtype, at.inputs(at.ctx.rank, name, (count,), dtype))
    output = at.buffer((COUNT,), dtype)
    if scatters:
        at.ctx.ccl.reduce_scatter(output, given)
    elif operation == "reduce":
        at.ctx.ccl.reduce(output, given, dst=world - 1)
        if at.ctx.rank != world - 1:
            return 0.0
    else:
        config = iris_c.ccl.Config(all_reduce_variant=variant)
        at.ctx.ccl.all_reduce(output, given, config=config)
    inputs = [at.inputs(r, name, (count,), dtype).astype(numpy.float64) for r in range(world)]
    total, magnitude = numpy.sum(inputs, 0), numpy.sum(numpy.abs(inputs), 0)
    bound = 1.01 * UNIT[dtype] * numpy.abs(total) + SMALLEST[dtype]
    bound += UNIT["float32"] * world * magnitude
    first = at.ctx.rank * COUNT if scatters else 0
    return at.worst(output, total[first : first + COUNT], bound[first : first + COUNT])


def _move(at: SelfTestRank, operation: str, dtype: str, turn: int, variant: str = "") -> float:
    """Bytes that only move arrive unchanged: 0, else infinity."""
    world, self, name = at.ctx.world_size, at.ctx.rank, f"{operation}/{dtype}/{turn}"
    count = COUNT * world if operation.startswith(("all_to_all", "scatter")) else COUNT
    inputs = [at.inputs(rank, name, (count,), dtype) for rank in range(world)]
    given = at.buffer((count,), dtype, inputs[self])
    if operation == "broadcast":
        at.ctx.ccl.broadcast(given, src=world - 1)
        output, expected = given, inputs[world - 1]
    elif operation == "scatter":
        output = at.buffer((COUNT,), dtype)
        at.ctx.ccl.scatter(output, given, src=world - 1)
        expected = inputs[world - 1][self * COUNT : (self + 1) * COUNT]
    elif operation == "gather":
        output = at.buffer((COUNT * world,), dtype)
        at.ctx.ccl.gather(output, given, dst=world - 1)
        expected = numpy.concatenate(inputs)
        if self != world - 1:
            return 0.0
    else:
        output = at.buffer((COUNT * world,), dtype)
        options: dict[str, Any] = {}
        if operation.endswith("sizes"):
            options = dict.fromkeys(("output_split_sizes", "input_split_sizes"), [COUNT] * world)
        elif variant:
            options = {"config": iris_c.ccl.Config(all_reduce_variant=variant)}
        getattr(at.ctx.ccl, operation.partition(",")[0])(output, given, **options)
        own = slice(self * COUNT, (self + 1) * COUNT)
        expected = numpy.concatenate(inputs if operation == "all_gather"
                                     else [x[own] for x in inputs])  # fmt: skip
    return 0.0 if numpy.array_equal(at.filler.read(output), expected) else math.inf


def _share(at: SelfTestRank, operation: str, dtype: str, turn: int) -> float:
    """matmul_reduce_scatter by rows, and matmul_all_gather."""
    M, N, K = 37, 130, 70
    world, self, name = at.ctx.world_size, at.ctx.rank, f"{operation}/{dtype}/{turn}"
    scatters = operation == "matmul_reduce_scatter"
    shapes = {"A": (M * world if scatters else M, K), "B": (K, N)}
    A, B = (at.buffer(s, dtype, at.inputs(self, n + name, s, dtype)) for n, s in shapes.items())
    C = at.buffer((M if scatters else M * world, N), dtype)
    getattr(at.ctx.ops, operation)(C, A, B)
    products, magnitudes = [], []
    for rank in range(world):
        a, b = (at.inputs(rank, n + name, s, dtype).astype(numpy.float64)
                for n, s in shapes.items())  # fmt: skip
        products.append(a @ b)
        magnitudes.append(numpy.abs(a) @ numpy.abs(b))
    own = slice(self * M, (self + 1) * M)
    if scatters:
        expected, magnitude = numpy.sum(products, 0)[own], numpy.sum(magnitudes, 0)[own]
        rounded = numpy.sum(numpy.abs(products), 0)[own]
    else:
        expected, magnitude = numpy.concatenate(products), numpy.concatenate(magnitudes)
        rounded = numpy.abs(expected)
    bound = 1.01 * UNIT[dtype] * (rounded + numpy.abs(expected))
    bound += UNIT["float32"] * (K + world + 2) * magnitude + SMALLEST[dtype] * (world + 1)
    return at.worst(C, expected, bound)


def _join(at: SelfTestRank, operation: str, dtype: str, turn: int) -> float:
    """all_gather_matmul in both forms, along both dimensions."""
    M, N, K = 37, 130, 70
    world, self, name, dim = at.ctx.world_size, at.ctx.rank, f"{operation}/{dtype}/{turn}", turn % 2
    shards = [at.inputs(rank, "A" + name, (M, K), dtype) for rank in range(world)]
    right = at.inputs(self, "B" + name, (K * world if dim == 1 else K, N), dtype)
    joined = numpy.concatenate([x.astype(numpy.float64) for x in shards], dim)
    C = at.buffer((joined.shape[0], N), dtype)
    A, B = (at.buffer(x.shape, dtype, x) for x in (shards[self], right))
    getattr(at.ctx.ops, operation)(C, A, B, gather_dim=dim)
    expected = joined @ right.astype(numpy.float64)
    magnitude = numpy.abs(joined) @ numpy.abs(right.astype(numpy.float64))
    bound = 1.01 * UNIT[dtype] * numpy.abs(expected) + 2 * SMALLEST[dtype]
    return at.worst(C, expected, bound + UNIT["float32"] * (joined.shape[1] + 2) * magnitude)


def _ring(at: SelfTestRank, operation: str, dtype: str, turn: int) -> float:
    """From the left neighbour: a message, a put that a signal follows, or what is fetched there."""
    world, self, name = at.ctx.world_size, at.ctx.rank, f"{operation}/{dtype}/{turn}"
    right, left = (self + 1) % world, (self - 1) % world
    given = at.buffer((COUNT,), dtype, at.inputs(self, name, (COUNT,), dtype))
    output = at.buffer((COUNT,), dtype)
    if operation == "send, recv" and world > 1:
        at.ctx.ccl.send(given, right)  # buffered
        at.ctx.ccl.recv(output, left)
    elif operation == "send, recv":
        return 0.0
    elif operation == "get":
        at.ctx.barrier()  # it is there
        at.ctx.get(output, given, left)
    else:
        word = at.buffer((1,), "int32", numpy.zeros(1, numpy.int32))
        at.ctx.barrier()
        at.ctx.put(output, given, right)
        at.ctx.signal(word, right)
        at.ctx.wait(word)
    expected = at.inputs(left, name, (COUNT,), dtype)
    return 0.0 if numpy.array_equal(at.filler.read(output), expected) else math.inf


def _norm(at: SelfTestRank, dtype: str, turn: int) -> float:
    """all_reduce_rmsnorm of a few rows."""
    world, name, shape = at.ctx.world_size, f"rmsnorm/{dtype}/{turn}", (4, COUNT // 4)
    inputs = [at.inputs(rank, name, shape, dtype) for rank in (*range(world), world, world + 1)]
    weight = inputs[world + 1][0]
    given, residual, scale = (
        at.buffer(x.shape, dtype, x) for x in (inputs[at.ctx.rank], inputs[world], weight)
    )
    output, residual_out = (at.buffer(shape, dtype) for _ in range(2))
    at.ctx.ccl.all_reduce_rmsnorm(output, residual_out, given, residual, scale, 1e-5)
    terms = [x.astype(numpy.float64) for x in inputs[: world + 1]]
    total, magnitude = numpy.sum(terms, 0), numpy.sum(numpy.abs(terms), 0)
    bound = 1.01 * UNIT[dtype] * numpy.abs(total) + SMALLEST[dtype]
    worst = at.worst(residual_out, total, bound + UNIT["float32"] * (world + 1) * magnitude)
    x = at.filler.read(residual_out).astype(numpy.float64)
    mean = (x**2).mean(-1, keepdims=True) + 1e-5
    expected = x / numpy.sqrt(mean) * weight.astype(numpy.float64)
    bound = (1.01 * UNIT[dtype] + UNIT["float32"] * COUNT) * numpy.abs(expected) + SMALLEST[dtype]
    return max(worst, at.worst(output, expected, bound))


def _checks() -> Iterator[tuple[tuple[str, str, str], partial[float]]]:
    """((operation, variant, dtype), check(rank, turn=...)) in the order of the table. A check
    returns the error as a part of its bound."""
    for variant in VARIANTS:
        for dtype in UNIT:
            check = partial(check_product, variant=variant, dtype=dtype)
            yield ("matmul_all_reduce", variant, dtype), check
    for operations, body in (
        (("matmul_reduce_scatter", "matmul_all_gather"), _share),
        (("all_gather_matmul", "all_gather_matmul_hbm_buffer"), _join),
    ):
        for operation in operations:
            for dtype in UNIT:
                yield (operation, "", dtype), partial(body, operation=operation, dtype=dtype)
    for operation, variants in (
        ("all_reduce", ("ll", "ll_two_shot", *VARIANTS)),
        ("reduce_scatter", ("",)),
        ("reduce", ("",)),
    ):
        for variant in variants:
            for dtype in UNIT:
                check = partial(check_sum, operation=operation, variant=variant, dtype=dtype)
                yield (operation, variant, dtype), check
    for variant in ("ll", "two_shot"):
        for dtype in ("float32", "bfloat16"):
            check = partial(_move, operation="all_gather", variant=variant, dtype=dtype)
            yield ("all_gather", variant, dtype), check
    moves = ("all_to_all", "all_to_all, sizes", "broadcast", "gather", "scatter")
    for operation in (*moves, "send, recv", "put, signal, wait", "get"):
        for dtype in ("float32", "bfloat16"):
            body = _move if operation in moves else _ring
            yield (operation, "", dtype), partial(body, operation=operation, dtype=dtype)
    for dtype in UNIT:
        yield ("all_reduce_rmsnorm", "", dtype), partial(_norm, dtype=dtype)


def _body(ctx: iris_c.Context) -> list[dict[str, Any]]:
    """All checks on one rank: rows with the worst error of any turn."""
    at, rows, checks = SelfTestRank(ctx), [], list(_checks())
    for number, ((operation, variant, dtype), check) in enumerate(checks):
        if ctx.rank == 0:
            progress(number, len(checks), f"{operation} {variant} {dtype}")
        started, scores = time.perf_counter(), []
        for turn in range(TURNS):
            scores.append(check(at, turn=turn))
            ctx.barrier()  # nobody's next output is written before all have read this one
        worst = max(scores, key=lambda score: math.inf if math.isnan(score) else score)
        rows.append({
            "operation": operation, "variant": variant, "dtype": dtype, "error": worst,
            "ok": worst <= 1.0, "seconds": time.perf_counter() - started,
        })  # fmt: skip
    if ctx.rank == 0:
        progress(len(checks), len(checks), "")
    return [{"backend": ctx.backend}, *rows]


def run(backend: str | None, ranks: int, timeout: float) -> dict[str, Any]:
    """Runs the checks on `ranks` ranks.

    Returns
    -------
    dict
        backend, ranks, rows (the worst of all ranks) and failure: the ranks' tracebacks or "".
    """
    environment = {} if backend is None else {"IRIS_C_BACKEND": backend}
    init = {"heap_size": 64 << 20, "timeout": timeout}
    try:
        results = run_ranks(_body, ranks, init=init, deadline=60 + 10 * timeout,
                            environment=environment)  # fmt: skip
    except RankFailure as failure:
        return {"backend": backend, "ranks": ranks, "rows": [], "failure": str(failure)}
    rows = []
    for same in zip(*(result[1:] for result in results), strict=True):
        worst = max(same, key=lambda row: math.inf if math.isnan(row["error"]) else row["error"])
        rows.append({**worst, "seconds": max(row["seconds"] for row in same)})
    return {"backend": results[0][0]["backend"], "ranks": ranks, "rows": rows, "failure": ""}
