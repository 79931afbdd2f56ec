# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Shapes, inputs, references and error bounds: one source for tests and benchmarks.

Tensors are made on torch's default device, which for a rank of a test is its context's. Inputs are
drawn on the cpu, from a seed that is a function of the case and the rank, so every rank can compute
every rank's inputs, and the float64 reference, by itself.

The bound is derived, not tuned. With u the unit roundoff of the dtype, e that of fp32, P_r the
exact partial products and S = sum_r |A_r| @ |B_r|:

    |C - sum_r P_r - bias|  <=  u (sum_r |P_r| + |C|)  +  e (K + W + 2) S  +  bias terms

element by element: the first term is one rounding of each partial and one of the result, the second
the fp32 accumulation. A dropped, doubled or stale contribution of any rank is far outside.
"""

from __future__ import annotations

import dataclasses
import os
import zlib

import pytest
import torch

import iris_c

# Tests of what only a synchronous device does, or that count on the cpu's small blocks.
cpu_only = pytest.mark.skipif(
    os.environ.get("IRIS_C_BACKEND", "cpu") != "cpu",
    reason="of the cpu backend; see test_graphs.py for asynchronous devices",
)
DETERMINISTIC = ("one_shot", "two_shot", "ring")
VARIANTS = (*DETERMINISTIC, "atomic", "spinlock")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GATHERED = ("all_gather_matmul", "all_gather_matmul_hbm_buffer")
PRODUCTS = ("matmul_all_reduce", "matmul_reduce_scatter", "matmul_all_gather", *GATHERED)
# Each product with each dimension that it scatters or gathers along.
CALLS = [
    ("matmul_all_reduce", {}),
    *(("matmul_reduce_scatter", {"dim": dim}) for dim in (0, 1)),
    ("matmul_all_gather", {}),
    *((operation, {"gather_dim": dim}) for operation in GATHERED for dim in (0, 1)),
]
UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
# fp16 results below this are subnormal, with an absolute error.
SMALLEST = {torch.float32: 2.0**-126, torch.float16: 2.0**-24, torch.bfloat16: 2.0**-126}


@dataclasses.dataclass(frozen=True)
class Case:
    """One product: C (M, N) = sum over ranks of A_r (M, K) @ B_r (K, N)."""

    M: int
    N: int
    K: int
    a: str = "row"  # layout of A, of B, and of C: see `laid_out`
    b: str = "row"
    c: str = "row"
    bias: str = ""  # "", "row" (N,), "column" (M, 1), "matrix" (M, N), "scalar" (1,)
    block: tuple[int, int, int] | None = None  # block_size_m, _n, _k

    def __str__(self) -> str:
        text = f"{self.M}x{self.N}x{self.K}-{self.a}-{self.b}-{self.c}"
        return text + (f"-bias_{self.bias}" if self.bias else "")


SHAPES = [
    Case(1, 1, 1),
    Case(1, 1, 300),
    Case(1, 257, 17),
    Case(257, 1, 5),
    Case(7, 13, 3),
    Case(64, 64, 64),
    Case(128, 64, 32, block=(128, 64, 32)),
    Case(97, 101, 103, block=(32, 32, 16)),
    Case(100, 36, 300, block=(64, 64, 32)),
    Case(3, 5, 2, block=(64, 64, 32)),
    Case(130, 520, 70),
]

LAYOUTS = [
    Case(33, 47, 29, a="transposed"),
    Case(33, 47, 29, b="transposed"),
    Case(33, 47, 29, a="transposed", b="transposed", c="transposed"),
    Case(33, 47, 29, a="padded", b="padded", c="padded"),
    Case(33, 47, 29, a="strided", b="strided", c="strided"),
    Case(33, 47, 29, a="repeated", b="repeated"),
    Case(80, 600, 300, b="transposed"),
    Case(80, 60, 600, a="transposed"),
    Case(300, 40, 520, a="transposed", b="strided"),
]

BIASES = [Case(33, 47, 29, bias=bias) for bias in ("row", "column", "matrix", "scalar")]


def config(ctx, variant, m=None, n=None, k=None) -> iris_c.FusedConfig:
    """A config with these blocks, which matter on the cpu; a GPU kernel has its own."""
    if ctx.backend != "cpu":
        m = n = k = None
    return iris_c.FusedConfig(
        block_size_m=m, block_size_n=n, block_size_k=k, all_reduce_variant=variant, form="tiles"
    )


def matmul_all_reduce() -> list[Case]:
    return SHAPES + LAYOUTS + BIASES


def laid_out(rows: int, cols: int, layout: str, allocate) -> torch.Tensor:
    """A (rows, cols) view with the layout's strides, in memory from ``allocate(*sizes)``."""
    if layout == "row":
        return allocate(rows, cols)
    if layout == "transposed":
        return allocate(cols, rows).t()
    if layout == "padded":
        return allocate(rows + 2, cols + 5)[1 : rows + 1, 3 : cols + 3]
    if layout == "strided":
        return allocate(2 * rows, 3 * cols)[::2, ::3]
    if layout == "repeated":  # every row is the same memory; for inputs only
        return allocate(1, cols).expand(rows, cols)
    raise ValueError(layout)


def generator(name: str) -> torch.Generator:
    """Of random numbers on the cpu, the same for the same name."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def _drawn(case: Case, rank: int, what: str, view: torch.Tensor) -> torch.Tensor:
    target = view[:1] if view.stride(0) == 0 else view
    named = generator(f"{case}/{rank}/{what}")
    target.copy_(torch.randn(target.shape, generator=named, device="cpu"))
    return view


def operands(case: Case, rank: int, dtype: torch.dtype, salt: str = "", allocate=None):
    """A and B of one rank with the case's layouts: ordinary tensors, or in memory from
    ``allocate(*sizes)``."""
    if allocate is None:

        def allocate(*sizes):
            return torch.empty(sizes, dtype=dtype)

    a = _drawn(case, rank, f"A{salt}", laid_out(case.M, case.K, case.a, allocate))
    b = _drawn(case, rank, f"B{salt}", laid_out(case.K, case.N, case.b, allocate))
    return a, b


def bias_of(case: Case, dtype: torch.dtype) -> torch.Tensor | None:
    """The bias, equal on all ranks."""
    shape = {
        "": None,
        "row": (case.N,),
        "column": (case.M, 1),
        "matrix": (case.M, case.N),
        "scalar": (1,),
    }[case.bias]
    if shape is None:
        return None
    drawn = torch.randn(shape, generator=generator(f"{case}/bias"), device="cpu")
    return drawn.to(torch.empty(0, dtype=dtype))


def reference(case: Case, world_size: int, dtype: torch.dtype, salt: str = "", drop=None):
    """The sum in float64 and the bound of the error; ``drop`` leaves a rank out of the sum."""
    total = torch.zeros(case.M, case.N, dtype=torch.float64)
    partials, products = total.clone(), total.clone()
    for rank in range(world_size):
        a, b = (t.double() for t in operands(case, rank, dtype, salt))
        partial = a @ b
        partials += partial.abs()
        products += a.abs() @ b.abs()
        if rank != drop:
            total += partial
    u, e = UNIT_ROUNDOFF[dtype], UNIT_ROUNDOFF[torch.float32]
    bias = bias_of(case, dtype)
    if bias is not None:
        total += bias.double()
        products += bias.double().abs()
    bound = 1.01 * u * (partials + total.abs()) + e * (case.K + world_size + 2) * products
    return total, bound + SMALLEST[dtype] * (world_size + 1)


def product(A, B, dtype, bias=None):
    """A @ B + bias in float64, and the error's bound with one rounding, after the bias."""
    A, B = A.double(), B.double()
    expected, magnitude = A @ B, A.abs() @ B.abs()
    if bias is not None:
        expected, magnitude = expected + bias.double(), magnitude + bias.double().abs()
    u, e = UNIT_ROUNDOFF[dtype], UNIT_ROUNDOFF[torch.float32]
    bound = 1.01 * u * expected.abs() + e * (A.shape[1] + 2) * magnitude + 2 * SMALLEST[dtype]
    return expected, bound


def gathered(case, world, dtype, salt="", bias=None):
    """All ranks' products one below the other, with ``bias(rank)``, and their errors' bound."""
    total, bounds = [], []
    u, e = UNIT_ROUNDOFF[dtype], UNIT_ROUNDOFF[torch.float32]
    for rank in range(world):
        a, b = (x.double() for x in operands(case, rank, dtype, salt))
        product, magnitude = a @ b, a.abs() @ b.abs()
        if bias is not None:
            product, magnitude = product + bias(rank), magnitude + bias(rank).abs()
        total.append(product)
        # Through its staging a product is rounded before the bias is added.
        bounds.append(1.01 * u * (product.abs() + (magnitude if bias is not None else 0))
                      + u * product.abs() + e * (case.K + 2) * magnitude
                      + 2 * SMALLEST[dtype])  # fmt: skip
    return torch.cat(total), torch.cat(bounds)


def check_close(actual: torch.Tensor, expected: torch.Tensor, bound: torch.Tensor, what="") -> None:
    """Raises AssertionError with the worst element, its values and how many are wrong."""
    error = (actual.double() - expected).abs()
    wrong = ~(error <= bound)  # NaN is wrong
    if not wrong.any():
        return
    score = torch.where(error.isnan(), torch.inf, error / bound.clamp_min(1e-300))
    worst = divmod(int(score.argmax()), actual.shape[-1])
    raise AssertionError(
        f"{what}: {int(wrong.sum())} of {wrong.numel()} elements are wrong, the worst at {worst}: "
        f"expected {expected[worst]:.9g} +- {bound[worst]:.3g}, got {actual[worst]:.9g}"
    )


def poisoned(tensor: torch.Tensor) -> torch.Tensor:
    """Fills with NaN, so that what nobody writes shows."""
    return tensor.fill_(float("nan"))


def contribution(rank: int, n: int, dtype: torch.dtype, salt: int = 0) -> torch.Tensor:
    """What ``rank`` puts in: every rank can compute it."""
    generator = torch.Generator().manual_seed(1000003 * rank + 17 * n + salt)
    if dtype.is_floating_point:
        return torch.randn(n, generator=generator, device="cpu").to(torch.empty(0, dtype=dtype))
    drawn = torch.randint(0, 2, (n,), generator=generator, device="cpu")
    return drawn.to(torch.empty(0, dtype=dtype))


def bytes_of(rank: int, n: int, salt: int = 0) -> torch.Tensor:
    """The same of n bytes, which take every value."""
    generator = torch.Generator().manual_seed(1000003 * rank + 17 * n + salt)
    drawn = torch.randint(0, 256, (n,), generator=generator, device="cpu")
    return drawn.to(torch.empty(0, dtype=torch.uint8))


def sums(world_size: int, n: int, dtype: torch.dtype, salt: int = 0):
    """The sum in float64 and the bound of its error (see cases.py: products of K = 1)."""
    inputs = [contribution(r, n, dtype, salt).double() for r in range(world_size)]
    total, magnitude = sum(inputs), sum(x.abs() for x in inputs)
    u, e = UNIT_ROUNDOFF[dtype], UNIT_ROUNDOFF[torch.float32]
    bound = 1.01 * u * total.abs() + e * world_size * magnitude + SMALLEST[dtype]
    return total[None], bound[None]


PERIOD = 4099


def repeated(values: torch.Tensor, n: int) -> torch.Tensor:
    """``n`` elements made of ``values`` again and again. Of a large tensor the reference is thus
    that of a period, which is a prime: no block of the tensor is like the one beside it."""
    return values.repeat(-(-n // values.numel()))[:n]


# ---- reductions of tensors ----

REDUCTIONS = ("sum", "max", "min", "prod", "avg")
REDUCIBLE = (*DTYPES, torch.int32, torch.int64)
ALL_REDUCE_VARIANTS = (
    "ll",
    "ll_two_shot",
    "one_shot",
    "two_shot",
    "ring",
    "atomic",
    "spinlock",
    "one_shot_legacy",
)


def reduces(variant: str, op: str, dtype: torch.dtype) -> bool:
    """Whether all_reduce offers that."""
    return variant not in ("atomic", "spinlock") or (
        op in ("sum", "avg") and dtype.is_floating_point
    )


def reduced_input(rank: int, n: int, dtype: torch.dtype, salt: int = 0) -> torch.Tensor:
    """What ``rank`` puts in: floating point around 1, integers of the whole range."""
    if dtype.is_floating_point:
        return contribution(rank, n, dtype, salt)
    generator = torch.Generator().manual_seed(1000003 * rank + 17 * n + salt)
    limits = torch.iinfo(dtype)
    return torch.randint(
        limits.min, limits.max, (n,), generator=generator, dtype=dtype, device="cpu"
    )


def reduction(world_size: int, n: int, dtype: torch.dtype, op: str, salt: int = 0):
    """The result and the bound of its error, which is 0 for integers: they wrap."""
    inputs = torch.stack([reduced_input(r, n, dtype, salt) for r in range(world_size)])
    if not dtype.is_floating_point:
        total = {
            "sum": lambda: inputs.sum(0, dtype=dtype),
            "max": lambda: inputs.amax(0),
            "min": lambda: inputs.amin(0),
            "prod": lambda: inputs.prod(0, dtype=dtype),
            "avg": lambda: torch.div(inputs.sum(0, dtype=dtype), world_size, rounding_mode="trunc"),
        }[op]()
        return total, torch.zeros_like(total)
    inputs = inputs.double()
    u, e = UNIT_ROUNDOFF[dtype], UNIT_ROUNDOFF[torch.float32]
    if op in ("max", "min"):
        total = inputs.amax(0) if op == "max" else inputs.amin(0)
        return total, torch.zeros_like(total)
    if op == "prod":
        total = inputs.prod(0)
        return total, (1.01 * u + e * world_size) * total.abs() + SMALLEST[dtype]
    scale = world_size if op == "avg" else 1
    total, magnitude = inputs.sum(0) / scale, inputs.abs().sum(0) / scale
    return total, 1.01 * u * total.abs() + e * (world_size + 2) * magnitude + SMALLEST[dtype]


def check_reduction(output: torch.Tensor, world_size: int, op: str, what: str, salt: int = 0):
    """Asserts that ``output`` is the reduction of the ranks' ``reduced_input``s."""
    n, dtype = output.numel(), output.dtype
    expected, bound = reduction(world_size, n, dtype, op, salt)
    if dtype.is_floating_point:
        check_close(output.reshape(1, -1), expected[None], bound[None], what)
    else:
        got = output.cpu().reshape(-1)
        wrong = (got != expected).nonzero().reshape(-1)
        assert wrong.numel() == 0, (
            f"{what}: {wrong.numel()} of {n} elements are wrong, the first, {int(wrong[0])}: "
            f"expected {int(expected[wrong[0]])}, got {int(got[wrong[0]])}"
        )


def check_repeated_reduction(output: torch.Tensor, world_size: int, op: str, what: str):
    """The same where the inputs are ``reduced_input``s of a period, repeated."""
    n, dtype = output.numel(), output.dtype
    expected, bound = reduction(world_size, PERIOD, dtype, op)
    if not dtype.is_floating_point:
        assert torch.equal(output.cpu(), repeated(expected.cpu(), n)), what
        return
    whole = n - n % PERIOD
    for part in (output[:whole].view(-1, PERIOD), output[whole:][None]):
        size = part.shape[-1]
        check_close(part, expected[:size].expand_as(part), bound[:size].expand_as(part), what)
