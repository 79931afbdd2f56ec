# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Times of a user's own shapes, beside torch and the vendor's collectives: ``ctx.bench``,
``iris_c.testing.benchmark`` and ``python -m iris_c bench --op``.

Both sides compute one result from random inputs, which is compared with float64 before anything is
timed: element by element, of large products a sample of rows. The bound is derived, not tuned: a
rounding of each partial sum and one of the result in the dtype, and the accumulation in float32.
Then runs of calls of the two alternate. A time is the median of the runs, each as long as it took
on the slowest rank. Needs torch.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iris_c import _checks
from iris_c.testing import seed_of

if TYPE_CHECKING:
    from iris_c.context import Context

__all__ = ["COLLECTIVES", "PRODUCTS", "Row", "bench", "check_case", "heap_size_of", "table"]

PRODUCTS = ("matmul_all_reduce", "matmul_reduce_scatter", "all_gather_matmul", "matmul_all_gather")
# How many of the bytes cross a link, by the number of ranks: as nccl-tests has it.
COLLECTIVES: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda world: 2 * (world - 1) / world,
    "reduce_scatter": lambda world: (world - 1) / world,
    "all_gather": lambda world: (world - 1) / world,
    "all_to_all": lambda world: (world - 1) / world,
    "broadcast": lambda world: 1.0,
}
# Unit roundoff, and where results are subnormal.
DTYPES = {
    "float32": (2.0**-24, 2.0**-126),
    "float16": (2.0**-11, 2.0**-24),
    "bfloat16": (2.0**-8, 2.0**-126),
}
ACCUMULATED = DTYPES["float32"][0]
MOST_CALLS = 1000  # of a run
# Products in float64 that a check may take, by whether a GPU does it.
MOST_CHECKED = {False: 1 << 30, True: 1 << 38}


@dataclass(frozen=True)
class Row:
    """What was measured of one operation and shape; equal on all ranks.

    Attributes
    ----------
    operation : str
    shape : tuple of int
        M, N and K of the product; or the elements of the larger of a collective's two tensors.
    dtype : str
    ranks : int
    backend : str
    seconds : float
        Of one call.
    wrong, checked : int
        Elements beyond their bound on all ranks, and elements compared.
    peer : str
        What it is compared with, as 'torch + nccl', for a collective 'nccl'; '' for nothing.
    peer_seconds : float or None
    peer_wrong : int or None
    """

    operation: str
    shape: tuple[int, ...]
    dtype: str
    ranks: int
    backend: str
    seconds: float
    wrong: int
    checked: int
    peer: str = ""
    peer_seconds: float | None = None
    peer_wrong: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the larger of a collective's tensors, of a product's result."""
        return math.prod(self.shape[:2]) * (4 if self.dtype == "float32" else 2)

    @property
    def count(self) -> int:
        """Elements that a rank has, or sends to each other one: nccl-tests' count."""
        divided = self.operation in ("reduce_scatter", "all_gather", "all_to_all")
        return math.prod(self.shape[:2]) // (self.ranks if divided else 1)

    @property
    def ratio(self) -> float | None:
        """The peer's time by ours: more than 1 where iris_c is faster."""
        return None if self.peer_seconds is None else self.peer_seconds / self.seconds

    def bandwidths(self, seconds: float) -> tuple[float, float]:
        """GB/s in that time: of the algorithm, and of the bus."""
        rate = self.nbytes / seconds / 1e9
        return rate, rate * COLLECTIVES[self.operation](self.ranks)

    def teraflops(self, seconds: float) -> float:
        """TFLOP/s of each rank in that time."""
        share = self.ranks if self.operation == "matmul_all_gather" else 1
        return 2 * math.prod(self.shape) / share / seconds / 1e12


# ---- what is asked for ----


def check_case(operation: str, shape: Sequence[int], dtype: str, world_size: int) -> None:
    """Raise ValueError for what cannot be timed."""
    if operation not in (*PRODUCTS, *COLLECTIVES):
        known = ", ".join((*PRODUCTS, *COLLECTIVES))
        raise ValueError(f"op: expected one of {known}, got {operation!r}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected float32, float16 or bfloat16, got {dtype!r}")
    sizes = 3 if operation in PRODUCTS else 1
    if len(shape) != sizes or any(size < 1 for size in shape):
        expected = "M, N and K" if sizes == 3 else "one number of elements"
        raise ValueError(f"shape: expected {expected}, at least 1, for {operation}, got {shape}")
    if operation not in ("matmul_all_reduce", "all_reduce", "broadcast"):
        if shape[0] % world_size != 0:
            raise ValueError(
                f"shape: expected a multiple of {world_size} ranks in front for {operation}, got "
                f"{shape}"
            )


def heap_size_of(shapes: Iterable[Sequence[int]], world_size: int) -> int:
    """Bytes of a heap for results and for what the operations stage, of any variant."""
    most = max(shape[0] * max(1, *shape[1:], 1) for shape in shapes)
    return (64 << 20) + 4 * most * (2 * world_size + 4)


# ---- inputs, both sides' calls, and the comparison with float64 ----


class _Case:
    """One operation on this rank: `ours`, `peer`, and how many elements of a result are wrong."""

    output: Any
    peer_output: Any
    steps: tuple[Callable[[], object], ...]

    def __init__(
        self, ctx: Context, operation: str, shape: tuple[int, ...], dtype: str, group: Any
    ) -> None:
        import torch

        self.torch, self.ctx, self.operation, self.group = torch, ctx, operation, group
        self.shape, self.dtype, self.dtype_name = shape, getattr(torch, dtype), dtype
        self.world = ctx.world_size

    def drawn(self, rank: int, name: str, *shape: int) -> Any:
        """What a rank puts in; every rank can compute it."""
        device = self.ctx.device
        generator = self.torch.Generator(device)
        generator.manual_seed(seed_of(f"{rank}/{name}/{self.operation}/{self.shape}"))
        values = self.torch.randn(
            shape, generator=generator, device=device, dtype=self.torch.float32
        )
        return values.to(self.dtype)

    def empty(self, *shape: int) -> Any:
        return self.torch.empty(shape, dtype=self.dtype, device=self.ctx.device)

    def collective(self, name: str) -> Callable[..., Any]:
        """torch.distributed's function of that name, called with the group."""
        import torch.distributed as dist

        newer = {"reduce_scatter_tensor": "reduce_scatter_single",
                 "all_gather_into_tensor": "all_gather_single"}  # fmt: skip
        function = getattr(dist, newer.get(name, name), None) or getattr(dist, name)
        return lambda *tensors: function(*tensors, group=self.group)

    def count_wrong(self, got: Any, expected: Any, bound: Any) -> tuple[int, int]:
        wrong = ~((got.double() - expected).abs() <= bound)  # NaN is wrong
        return int(wrong.sum()), wrong.numel()


class _Product(_Case):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        M, N, K = self.shape
        gathers = self.operation in ("all_gather_matmul", "matmul_all_gather")
        self.rows = M // self.world if gathers else M
        own = M // self.world if self.operation == "matmul_reduce_scatter" else M
        self.A, self.B = self.inputs(self.ctx.rank)
        self.output = self.ctx.empty(own, N, dtype=self.dtype)
        if self.group is None:
            return
        self.peer_output = self.empty(own, N)
        if self.operation == "all_gather_matmul":
            self.between, gather = self.empty(M, K), self.collective("all_gather_into_tensor")
            self.steps = (
                lambda: gather(self.between, self.A),
                lambda: self.torch.mm(self.between, self.B, out=self.peer_output),
            )
            return
        name = {"matmul_all_reduce": "all_reduce", "matmul_all_gather": "all_gather_into_tensor"}
        exchange = self.collective(name.get(self.operation, "reduce_scatter_tensor"))
        in_place = self.operation == "matmul_all_reduce"
        self.between = self.peer_output if in_place else self.empty(self.rows, N)
        tensors = (self.between,) if in_place else (self.peer_output, self.between)
        self.steps = (
            lambda: self.torch.mm(self.A, self.B, out=self.between),
            lambda: exchange(*tensors),
        )

    def inputs(self, rank: int) -> tuple[Any, Any]:
        _, N, K = self.shape
        return self.drawn(rank, "A", self.rows, K), self.drawn(rank, "B", K, N)

    def ours(self) -> None:
        getattr(self.ctx.ops, self.operation)(self.output, self.A, self.B)

    def peer(self) -> None:
        for step in self.steps:
            step()

    def wrong(self, result: Any, roundings: int) -> tuple[int, int]:
        """Of a sample of rows, the first and the last among them."""
        torch, (_, N, K) = self.torch, self.shape
        most = MOST_CHECKED[result.is_cuda] // (N * K * self.world)
        last = result.shape[0] - 1
        generator = torch.Generator("cpu").manual_seed(1)
        sample = torch.randperm(last + 1, generator=generator, device="cpu")
        ends = torch.tensor([0, last], device="cpu")
        sample = torch.cat([sample[: max(16, most)], ends])
        sample = sample.unique().to(result.device)
        total, partials, products = torch.zeros(
            3, len(sample), N, dtype=torch.float64, device=result.device
        )
        first = self.ctx.rank * result.shape[0] if self.operation == "matmul_reduce_scatter" else 0
        for rank in range(self.world):
            A, B = self.inputs(rank)
            if self.operation == "all_gather_matmul":
                B = self.B
            rows, place = sample + first, slice(None)
            if self.rows < self.shape[0]:  # those that this rank has
                place = (sample // self.rows == rank).nonzero().squeeze(1)
                rows = sample[place] % self.rows
            a, b = A[rows].double(), B.double()
            product = a @ b
            total[place] += product
            partials[place] += product.abs()
            products[place] += a.abs() @ b.abs()
        unit, smallest = DTYPES[self.dtype_name]
        bound = 1.01 * unit * (roundings * partials + total.abs())
        bound += ACCUMULATED * (K + self.world + 2) * products + smallest * (self.world + 1)
        return self.count_wrong(result[sample], total, bound)


class _Collective(_Case):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        (n,) = self.shape
        part = n // self.world
        sizes = {"reduce_scatter": (n, part), "all_gather": (part, n)}
        self.taken, given = sizes.get(self.operation, (n, n))
        self.input = self.drawn(self.ctx.rank, "input", self.taken)
        self.output = self.ctx.empty(given, dtype=self.dtype)
        self.in_place = self.operation in ("all_reduce", "broadcast")
        self.peer_output = None if self.group is None else self.empty(given)
        if self.operation == "broadcast":
            self.output.copy_(self.input)
        if self.peer_output is not None and self.in_place:
            self.peer_output.copy_(self.input)

    def ours(self) -> None:
        if self.operation == "broadcast":
            self.ctx.ccl.broadcast(self.output)
        else:
            getattr(self.ctx.ccl, self.operation)(self.output, self.input)

    def peer(self) -> None:
        names = {"reduce_scatter": "reduce_scatter_tensor", "all_gather": "all_gather_into_tensor",
                 "all_to_all": "all_to_all_single"}  # fmt: skip
        function = self.collective(names.get(self.operation, self.operation))
        if self.operation == "broadcast":  # the source's number is in the world
            import torch.distributed as dist

            source = dist.get_global_rank(self.group, 0)
            dist.broadcast(self.peer_output, source, self.group)
        else:
            function(self.peer_output, *(() if self.in_place else (self.input,)))

    def wrong(self, result: Any, roundings: int) -> tuple[int, int]:
        torch, rank, n = self.torch, self.ctx.rank, result.numel()
        inputs = [self.drawn(r, "input", self.taken) for r in range(self.world)]
        if self.operation in ("all_gather", "all_to_all", "broadcast"):
            own = slice(rank * (n // self.world), (rank + 1) * (n // self.world))
            expected = {
                "all_gather": lambda: torch.cat(inputs),
                "all_to_all": lambda: torch.cat([x[own] for x in inputs]),
                "broadcast": lambda: inputs[0],
            }[self.operation]()
            return int((result != expected).sum()), n
        own = slice(rank * n, (rank + 1) * n) if self.operation == "reduce_scatter" else slice(n)
        total, magnitude = torch.zeros(2, n, dtype=torch.float64, device=result.device)
        for x in inputs:
            total += x[own].double()
            magnitude += x[own].double().abs()
        unit, smallest = DTYPES[self.dtype_name]
        bound = 1.01 * unit * (total.abs() + (roundings - 1) * magnitude) + smallest
        return self.count_wrong(result, total, bound + ACCUMULATED * self.world * magnitude)


# ---- the clock ----


def _run(ctx: Context, call: Callable[[], None], calls: int) -> float:
    """Seconds of a call in a run of them, as long as it took on the slowest rank."""
    ctx.barrier()
    started = time.perf_counter_ns()
    for _ in range(calls):
        call()
    ctx.barrier()  # waits for the device too
    return max(ctx._exchange(time.perf_counter_ns() - started)) / calls / 1e9


def _times(
    ctx: Context, calls: Sequence[Callable[[], None]], repeats: int, seconds: float
) -> list[float]:
    """The median of each call's runs, which alternate."""
    numbers = []
    for call in calls:
        call()
        once = _run(ctx, call, 1)
        numbers.append(min(MOST_CALLS, max(1, math.ceil(seconds / once))))
    runs: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, number, found in zip(calls, numbers, runs, strict=True):
            found.append(_run(ctx, call, number))
    return [statistics.median(found) for found in runs]


def _peer_group(ctx: Context, peer: str | None, process_group: Any) -> tuple[str, Any]:
    """What the peer is called, and torch.distributed's group of the context's ranks."""
    if peer is None:
        return "", None
    if peer != "torch":
        raise ValueError(f"peer: expected 'torch' or None, got {peer!r}")
    import torch
    import torch.distributed as dist

    from iris_c.torch import _groups

    group = _groups._process_group("process_group", process_group)
    if group is None:
        group = _groups.process_group(_groups.name_of(ctx))
    if group is None or dist.get_world_size(group) != ctx.world_size:
        raise ValueError(
            "peer: expected torch.distributed to be initialised, and to know the context's ranks; "
            "or a process_group of them"
        )
    name = dist.get_backend(group)
    return "rccl" if name == "nccl" and torch.version.hip else name, group


def bench(
    ctx: Context,
    operation: str,
    shape: int | Sequence[int],
    *,
    dtype: Any = "float32",
    peer: str | None = None,
    process_group: Any = None,
    repeats: int = 5,
    seconds: float = 0.02,
) -> Row:
    """See Context.bench."""
    _checks.context("ctx", ctx)
    sizes = (shape,) if isinstance(shape, int) else _checks.integers("shape", shape)
    dtype = str(dtype).rpartition(".")[2]
    check_case(operation, sizes, dtype, ctx.world_size)
    if repeats < 1 or not seconds > 0:
        raise ValueError(f"repeats, seconds: expected more than 0, got {repeats} and {seconds}")
    name, group = _peer_group(ctx, peer, process_group)
    import torch

    with torch.no_grad():
        kind = _Product if operation in PRODUCTS else _Collective
        case = kind(ctx, operation, sizes, dtype, group)
        calls, outputs = [case.ours], [case.output]
        if group is not None:
            calls.append(case.peer)
            outputs.append(case.peer_output)
        found = []
        for call, output, roundings in zip(calls, outputs, (1, ctx.world_size), strict=False):
            if operation != "broadcast" and not (operation == "all_reduce" and roundings > 1):
                output.fill_(math.nan)  # what nobody writes shows
            ctx.barrier()
            call()
            ctx.barrier()
            wrong, checked = case.wrong(output, roundings)
            found.append((sum(ctx._exchange(wrong)), sum(ctx._exchange(checked))))
        times = _times(ctx, calls, repeats, seconds)
    if name and operation in PRODUCTS:
        name = f"torch + {name}"
    (wrong, checked), *others = found
    return Row(
        operation, sizes, dtype, ctx.world_size, ctx.backend, times[0], wrong, checked, name,
        times[1] if others else None, others[0][0] if others else None,
    )  # fmt: skip


# ---- as text ----


def _collective_lines(rows: Sequence[Row]) -> list[str]:
    """In nccl-tests' columns; the peer's stand where it has those of calls in place."""
    peer = rows[0].peer
    columns = f"{'time':>9}{'algbw':>8}{'busbw':>8}{'#wrong':>8}"
    units = f"{'(us)':>9}{'(GB/s)':>8}{'(GB/s)':>8}{'':>8}"
    twice = 2 if peer else 1
    lines = [
        f"# {rows[0].operation}, {rows[0].ranks} ranks, backend {rows[0].backend}",
        f"#{'':>45}{'iris_c':>33}" + (f"{peer:>33}{'speedup':>9}" if peer else ""),
        f"#{'size':>12}{'count':>13}{'type':>10}{'redop':>10}" + columns * twice,
        f"#{'(B)':>12}{'(elements)':>13}{'':>20}" + units * twice,
    ]
    for row in rows:
        redop = "sum" if row.operation in ("all_reduce", "reduce_scatter") else "none"
        line = f"{row.nbytes:>13}{row.count:>13}{row.dtype:>10}{redop:>10}"
        for seconds, wrong in ((row.seconds, row.wrong), (row.peer_seconds, row.peer_wrong)):
            if seconds is not None:
                algorithm, bus = row.bandwidths(seconds)
                line += f"{1e6 * seconds:>9.2f}{algorithm:>8.2f}{bus:>8.2f}{wrong:>8}"
        lines.append(line + (f"{row.ratio:>8.2f}x" if row.ratio is not None else ""))
    average = statistics.fmean(row.bandwidths(row.seconds)[1] for row in rows)
    return [*lines, f"# Avg bus bandwidth    : {average:.6g}"]


def _product_lines(rows: Sequence[Row]) -> list[str]:
    peer = rows[0].peer
    columns = f"{'time':>11}{'TFLOP/s':>9}{'#wrong':>8}"
    twice = 2 if peer else 1
    lines = [
        f"# {rows[0].operation}, {rows[0].ranks} ranks, backend {rows[0].backend}",
        f"#{'':>36}{'iris_c':>28}" + (f"{peer:>28}{'speedup':>9}" if peer else ""),
        f"#{'M':>8}{'N':>9}{'K':>9}{'type':>10}" + columns * twice,
        f"#{'':>36}" + f"{'(us)':>11}{'a rank':>9}{'':>8}" * twice,
    ]
    for row in rows:
        line = "".join(f"{size:>9}" for size in row.shape) + f"{row.dtype:>10}"
        for seconds, wrong in ((row.seconds, row.wrong), (row.peer_seconds, row.peer_wrong)):
            if seconds is not None:
                line += f"{1e6 * seconds:>11.1f}{row.teraflops(seconds):>9.3g}{wrong:>8}"
        lines.append(line + (f"{row.ratio:>8.2f}x" if row.ratio is not None else ""))
    return lines


def table(rows: Sequence[Row]) -> str:
    """All rows as text: those of each operation, whoever is faster, in the order of the rows."""
    lines: list[str] = []
    for operation in dict.fromkeys(row.operation for row in rows):
        own = [row for row in rows if row.operation == operation]
        lines += (_product_lines if operation in PRODUCTS else _collective_lines)(own)
    return "\n".join(lines)
