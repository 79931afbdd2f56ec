# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A case of bench_layers.py as functions to call: ours, the alternatives, and what the results
must be.

A run is called with the number of a weight and returns its results: y, or with the backward pass
y and the gradients of x and of the weight. `run.clear()`, where there is such a thing, wipes what a
call before has left in the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.distributed as dist
from layer_cases import Case
from layer_peers import Kit, Scratch

import iris_c
import iris_c.torch

# Elements of a product that are compared with float64: rows and columns, one at random from each
# of so many equal parts. So every tile is looked into; all elements are compared with a peer's.
SAMPLE_ROWS, SAMPLE_COLUMNS = 128, 256

Run = Callable[[int], tuple[torch.Tensor, ...]]


@dataclasses.dataclass
class Expected:
    """A result: left @ right; `how` says what becomes of that rank's product: 'own' nothing,
    'sum' the sum over ranks, 'share' this rank's rows of the sum, 'gathered' all ranks' rows."""

    left: torch.Tensor
    right: torch.Tensor
    how: str


class _Step(torch.autograd.Function):
    """A tensor-parallel layer made of a kit, differentiated as ours are."""

    @staticmethod
    def forward(ctx, x, weight, kit: Kit, exchange: str):
        result = getattr(kit, exchange)(x, weight.t())
        y, kept = result if exchange == "gather" else (result, x)
        ctx.save_for_backward(kept, weight)
        ctx.kit, ctx.exchange = kit, exchange
        return y

    @staticmethod
    def backward(ctx, grad):
        kept, weight = ctx.saved_tensors
        whole = grad
        if ctx.exchange == "all_reduce":
            grad_x = grad @ weight
        elif ctx.exchange == "none":
            grad_x = ctx.kit.all_reduce(grad, weight)
        elif ctx.exchange == "gather":
            grad_x = ctx.kit.reduce_scatter(grad, weight)
        else:
            grad_x, whole = ctx.kit.gather(grad, weight)
        return grad_x, whole.t() @ kept, None, None


# What a kit needs for a layer's backward pass, by the exchange of the forward pass.
_BACKWARD_NEEDS = {"all_reduce": "none", "none": "all_reduce", "gather": "reduce_scatter",
                   "reduce_scatter": "gather"}  # fmt: skip


def joined(x: torch.Tensor) -> torch.Tensor:
    """All ranks' rows."""
    whole = x.new_empty(x.shape[0] * dist.get_world_size(), x.shape[1])
    dist.all_gather_into_tensor(whole, x)
    return whole


class Setup:
    """The operands of a case. Every rank's are its own, but those that are one tensor for all."""

    def __init__(self, case: Case, ctx, dtype: torch.dtype, seed: int, weights: int):
        self.case, self.ctx, self.dtype = case, ctx, dtype
        self.device, self.world = torch.device(ctx.device), ctx.world_size
        self.K, self.N = case.operation.sizes(case.layer, self.world)
        exchange = case.operation.exchange
        self.common, self.mine = (
            torch.Generator(self.device).manual_seed(seed + own)
            for own in (0, 1_000_003 * (1 + ctx.rank))
        )
        rows = case.M // self.world if exchange in ("gather", "all_gather") else case.M
        self.x = self._random((rows, self.K), self.common if exchange == "none" else self.mine)
        # A layer has its weight as torch.nn.Linear does, the products take B as it lies.
        shape = (self.N, self.K) if case.operation.is_layer else (self.K, self.N)
        scale = self.K**-0.5
        self.weights = [self._random(shape, self.mine, scale) for _ in range(weights)]
        self.grad = None
        if case.backward:
            out_rows = case.M // self.world if exchange == "reduce_scatter" else case.M
            which = self.common if exchange == "all_reduce" else self.mine
            self.grad = self._random((out_rows, self.N), which)
            self.x.requires_grad_()
            for weight in self.weights:
                weight.requires_grad_()

    def _random(self, shape, generator, scale: float = 1.0) -> torch.Tensor:
        tensor = torch.empty(shape, dtype=self.dtype, device=self.device)
        return tensor.normal_(0.0, scale, generator=generator)

    def matrix(self, number: int) -> torch.Tensor:
        """The weight as a factor B (K, N)."""
        weight = self.weights[number]
        return weight.t() if self.case.operation.is_layer else weight

    # ---- ours ----

    def ours(self, scratch: Scratch, **config) -> Run:
        case, exchange = self.case, self.case.operation.exchange
        if case.operation.is_layer:
            return self._layer()
        prefix, name = case.operation.name.split(".")
        if prefix == "torch":
            operation = getattr(torch.ops.iris_c, name)
            dim = (0,) if exchange in ("reduce_scatter", "gather") else ()

            def run(number):
                result = operation(self.x, self.matrix(number), None, *dim, "default")
                return (result[0] if exchange == "gather" else result,)

            return run
        operation = getattr(self.ctx.ops, name)
        if exchange in ("all_reduce", "all_gather"):
            C = scratch.matrix(case.M, self.N)
        else:
            divided = self.world if exchange == "reduce_scatter" else 1
            C = self.x.new_empty(case.M // divided, self.N)
        chosen = {"config": iris_c.FusedConfig(**config)} if config else {}

        def run(number):
            operation(C, self.x, self.matrix(number), **chosen)
            return (C,)

        run.clear = lambda: C.fill_(float("nan"))  # what it leaves, it has written
        return run

    def _layer(self) -> Run:
        case, layer = self.case, self.case.layer
        kind = (
            iris_c.torch.RowParallelLinear
            if layer.row_parallel
            else iris_c.torch.ColumnParallelLinear
        )
        layers = []
        for weight in self.weights:
            made = kind(
                layer.inputs, layer.outputs, False, ctx=self.ctx, device="meta", dtype=self.dtype,
                sequence_parallel=case.operation.name.endswith("_sp"),
            )  # fmt: skip
            made.weight = torch.nn.Parameter(weight.detach(), requires_grad=case.backward)
            layers.append(made)
        if not case.backward:
            return lambda number: (layers[number](self.x),)
        return lambda number: self._with_gradients(layers[number](self.x), layers[number].weight)

    def _with_gradients(self, y, weight) -> tuple[torch.Tensor, ...]:
        return y.detach(), *torch.autograd.grad(y, (self.x, weight), self.grad)

    # ---- the alternatives ----

    def of_kit(self, kit: Kit) -> Run | None:
        """None: it has not got what this case needs."""
        exchange = self.case.operation.exchange
        if self.case.backward:
            if None in (getattr(kit, exchange), getattr(kit, _BACKWARD_NEEDS[exchange])):
                return None

            def run(number):
                weight = self.weights[number]
                y = _Step.apply(self.x, weight, kit, exchange)
                return self._with_gradients(y, weight)

            return run
        function = getattr(kit, exchange)
        if function is None:
            return None

        def run(number):
            result = function(self.x, self.matrix(number))
            return (result[0] if exchange == "gather" else result,)

        return run

    def alone(self) -> Run | None:
        if self.case.backward:
            return None
        x = joined(self.x) if self.case.operation.exchange == "gather" else self.x
        return lambda number: (torch.mm(x, self.matrix(number)),)

    # ---- what must come out ----

    def expected(self) -> list[Expected]:
        exchange = self.case.operation.exchange
        x, B = self.x.detach(), self.matrix(0).detach()
        whole = joined(x) if exchange == "gather" else x
        how = {"all_reduce": "sum", "reduce_scatter": "share", "all_gather": "gathered"}
        results = [Expected(whole, B, how.get(exchange, "own"))]
        if self.case.backward:
            grad = self.grad
            all_grad = joined(grad) if exchange == "reduce_scatter" else grad
            of_x = {"none": "sum", "gather": "share"}
            results.append(Expected(all_grad, B.t(), of_x.get(exchange, "own")))
            results.append(Expected(all_grad.t(), whole, "own"))
        return results


def _places(size: int, count: int, generator) -> torch.Tensor:
    """One at random from each of `count` equal parts of `size` places."""
    count = min(size, count)
    begins = torch.arange(count + 1) * size // count
    return begins[:-1] + (torch.rand(count, generator=generator) * begins.diff()).long()


def reference(expected: Expected, world: int, rank: int, seed: int):
    """(row and column numbers of the result, what lies there in float64, how large the error would
    be without one rank; infinite where ranks' products are not added)."""
    generator = torch.Generator().manual_seed(seed)
    left, right, how = expected.left, expected.right, expected.how
    device = left.device
    columns = _places(right.shape[1], SAMPLE_COLUMNS, generator).to(device)
    parts = world if how == "share" else 1
    size = left.shape[0] // parts
    rows = _places(size, max(1, SAMPLE_ROWS // parts), generator).to(device)
    taken = torch.cat([rows + part * size for part in range(parts)])
    partial = left[taken].double() @ right[:, columns].double()
    if how == "own":
        return rows, columns, partial, float("inf")
    if how == "gathered":
        values = torch.empty(world * len(rows), len(columns), dtype=partial.dtype, device=device)
        dist.all_gather_into_tensor(values, partial)
        rows = torch.cat([rows + part * size for part in range(world)])
        return rows, columns, values, float("inf")
    total = partial.clone()
    dist.all_reduce(total)
    missing = partial.abs().max() / total.abs().max() if world > 1 else float("inf")
    values = total.chunk(parts)[rank if how == "share" else 0]
    return rows, columns, values, missing
