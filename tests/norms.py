# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Calls of all_reduce_rmsnorm, checked against float64."""

import cases
import torch

import iris_c

EPS = 1e-5


def check(terms, weight, residual_out, output, dtype, what: str) -> None:
    """Both results, rows x columns, of the sum of `terms` (the ranks' inputs and the residual)."""
    columns = output.shape[-1]
    u, e = cases.UNIT_ROUNDOFF[dtype], cases.UNIT_ROUNDOFF[torch.float32]
    terms = [x.double().view(output.shape) for x in terms]
    total, magnitude = sum(terms), sum(x.abs() for x in terms)
    bound = 1.01 * u * total.abs() + e * len(terms) * magnitude + cases.SMALLEST[dtype]
    cases.check_close(residual_out, total, bound, f"residual_out {what}")
    # From what residual_out holds: one rounding, and an fp32 sum of squares.
    residual = residual_out.double()
    expected = residual * weight.double() / ((residual**2).mean(-1, keepdim=True) + EPS).sqrt()
    bound = (1.01 * u + e * (columns + 8)) * expected.abs() + cases.SMALLEST[dtype]
    cases.check_close(output, expected, bound, f"output {what}")


class Layer:
    """One call's tensors; inputs that every rank can compute."""

    def __init__(self, ctx, shape, dtype, variant, salt=0, has_residual=True):
        self.ctx, self.shape, self.dtype = ctx, shape, dtype
        self.config = iris_c.ccl.Config(all_reduce_variant=variant)
        self.output, self.residual_out = (torch.empty(shape, dtype=dtype) for _ in range(2))
        self.input, self.weight = (torch.empty(s, dtype=dtype) for s in (shape, shape[-1:]))
        self.residual = torch.empty(shape, dtype=dtype) if has_residual else None
        self.refill(salt)

    def drawn(self, rank, shape, salt):
        n = torch.Size(shape).numel()
        return cases.contribution(rank, n, self.dtype, salt).view(shape)

    def refill(self, salt):
        self.salt = salt
        self.input.copy_(self.drawn(self.ctx.rank, self.shape, salt))
        self.weight.copy_(self.drawn(20, self.shape[-1:], salt))
        if self.residual is not None:
            self.residual.copy_(self.drawn(21, self.shape, salt))
        cases.poisoned(self.output)
        cases.poisoned(self.residual_out)

    def call(self, **options):
        self.ctx.ccl.all_reduce_rmsnorm(
            self.output, self.residual_out, self.input, self.residual, self.weight, EPS,
            config=self.config, **options,
        )  # fmt: skip

    def check(self):
        terms = [self.drawn(r, self.shape, self.salt) for r in range(self.ctx.world_size)]
        if self.residual is not None:
            terms.append(self.drawn(21, self.shape, self.salt))
        if terms[0].numel():
            rows = (-1, self.shape[-1])
            check(terms, self.drawn(20, self.shape[-1:], self.salt), self.residual_out.view(rows),
                  self.output.view(rows), self.dtype,
                  f"{self.shape} {self.dtype} {self.config.all_reduce_variant}")  # fmt: skip
