# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Operands in float8 with scales, and what their products are: for tests on any backend.

With A' and B' the operands times their scales, S = sum_r |A'_r| @ |B'_r|, e the unit roundoff of
fp32 and u that of C's dtype, the bound is that of `cases`, with two roundings more for the scales
and one for each block of K:

    |C - sum_r A'_r @ B'_r - bias|  <=  u (sum_r |P_r| + |C|)  +  e (K + K / 128 + W + 5) S
"""

import cases
import torch

OCP = (torch.float8_e4m3fn, torch.float8_e5m2)
FNUZ = (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
FORMATS = (*OCP, *FNUZ)
BLOCK = 128
# Scales of an operand (mn, k): one; of each row; of each row's blocks of K; of squares.
KINDS = ("tensor", "row", "line", "square")


def blocks(size):
    return -(-size // BLOCK)


def drawn(name, rows, cols):
    return torch.randn(rows, cols, generator=cases.generator(name), device="cpu")


def drawn_scale(name, kind, mn, k):
    shape = {"tensor": (1, 1), "row": (mn, 1), "line": (mn, blocks(k)),
             "square": (blocks(mn), blocks(k))}[kind]  # fmt: skip
    return drawn(name, *shape).abs() + 0.1


def spread(scale, mn, k):
    """A scale of any kind for each element of an operand (mn, k), in float64."""
    rows = scale if scale.shape[0] in (1, mn) else scale.repeat_interleave(BLOCK, 0)[:mn]
    columns = rows if rows.shape[1] == 1 else rows.repeat_interleave(BLOCK, 1)[:, :k]
    return columns.expand(mn, k).double()


def reference(operation, rank, A, B, dim=0):
    """A rank's result without bias, S, and sum_r |P_r| of partial products that are rounded, of all
    ranks' A' and B' in float64; of a gathered A the rank's own B alone."""
    if operation in cases.GATHERED:
        a, b = torch.cat(A, dim), B[rank]
        expected = a @ b
        return expected, a.abs() @ b.abs(), torch.zeros_like(expected)
    parts = [a @ b for a, b in zip(A, B, strict=True)]
    sizes = [a.abs() @ b.abs() for a, b in zip(A, B, strict=True)]
    if operation == "matmul_all_gather":
        expected = torch.cat(parts)
        return expected, torch.cat(sizes), torch.zeros_like(expected)
    found = sum(parts), sum(sizes), sum(part.abs() for part in parts)
    if operation == "matmul_all_reduce":
        return found
    return tuple(x.chunk(len(A), dim)[rank] for x in found)


def bound(partials, sizes, expected, dtype, K, world):
    u, e = cases.UNIT_ROUNDOFF[dtype], 2.0**-24
    return (
        u * (partials + expected.abs()) * 1.01
        + e * (K + blocks(K) + world + 5) * sizes
        + (world + 1) * cases.SMALLEST[dtype]
    )
