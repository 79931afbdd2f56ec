# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Calls of all_reduce_rmsnorm, checked against float64."""

import cases
import torch

import iris_c

EPS = 1e-5


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
        inputs = [self.drawn(r, self.shape, self.salt).double() for r in range(self.ctx.world_size)]
        if self.residual is not None:
            inputs.append(self.drawn(21, self.shape, self.salt).double())
        if not inputs[0].numel():
            return
        columns = self.shape[-1]
        u, e = cases.UNIT_ROUNDOFF[self.dtype], cases.UNIT_ROUNDOFF[torch.float32]
        total, magnitude = sum(inputs), sum(x.abs() for x in inputs)
        bound = 1.01 * u * total.abs() + e * len(inputs) * magnitude + cases.SMALLEST[self.dtype]
        residual = self.residual_out.double()
        what = f"{self.shape} {self.dtype} {self.config.all_reduce_variant}"
        cases.check_close(residual.view(-1, columns), total.view(-1, columns),
                          bound.view(-1, columns), f"residual_out {what}")  # fmt: skip
        # From what residual_out holds: one rounding, and an fp32 sum of squares.
        mean = (residual**2).mean(-1, keepdim=True) + EPS
        expected = residual * self.drawn(20, self.shape[-1:], self.salt).double() / mean.sqrt()
        bound = (1.01 * u + e * (columns + 8)) * expected.abs() + cases.SMALLEST[self.dtype]
        cases.check_close(self.output.view(-1, columns), expected.view(-1, columns),
                          bound.view(-1, columns), f"output {what}")  # fmt: skip
