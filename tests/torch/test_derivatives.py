# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Derivatives of any order, against those of one process that has the whole tensors.

A case is a function of shards and the same function of whole tensors. Which part of a whole tensor
a rank has is a dimension that is divided, or None where it is replicated.
"""

from __future__ import annotations

from typing import NamedTuple

import cases
import numpy
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import iris_c.torch
from iris_c.testing import ranks
from iris_c.torch import _operations

Given = tuple[tuple[int, ...], int | None]  # the shape of a whole tensor, the dimension divided


class Case(NamedTuple):
    name: str
    function: object  # of this rank's tensors
    whole: object
    given: list[Given]
    result: int | None


def product(a, b, bias):
    return a @ b + bias


def rows_of_all(world):
    """Each rank's product of its own, one below the other."""

    def whole(a, b, bias):
        parts = (x.chunk(world) for x in (a, b, bias))
        return torch.cat([product(*own) for own in zip(*parts, strict=True)])

    return whole


def several(world, A, n):
    """Products of one operand: of two widths, one without a bias, and some that nothing uses."""
    functions, k = iris_c.torch, A[1]
    given = [((k, n), 1), ((k, 2 * n), 1), ((n,), 0), ((k, n), 1), ((n,), 0)]

    def combined(products, b, d, e):
        first, second, third = products
        return (first * third + second[:, : first.shape[1]].sin()) / 8

    def whole(a, b, c, d, e, f):
        n = b.shape[1] // world
        wide = torch.cat([part[:, :n] for part in (a @ c).chunk(world, 1)], 1)
        return ((a @ b + d) * (a @ e + f) + wide.sin()) / 8

    def gathered(dim, with_joined=False):
        def function(a, b, c, d, e, f):
            products, joined = functions.all_gather_matmul(a, [b, c, e], [d, None, f], dim)
            result = combined(products, b, d, e)
            return result * (joined.sin() @ b) if with_joined else result

        return function

    def replicated(a, b, c, d, e, f):
        return combined(functions.matmul_replicated(a, [b, c, e], (d, None, f)), b, d, e)

    def alone(a, b, c):
        return functions.all_gather_matmul(a, (b, c))[0][1] + 0 * b.sum()

    return [
        Case("all_gather_matmul, several", gathered(0), whole, [(A, 0), *given], 1),
        Case("all_gather_matmul columns, several", gathered(1), whole, [(A, 1), *given], 1),
        Case("all_gather_matmul, several and the operand", gathered(0, True),
             lambda a, b, *rest: whole(a, b, *rest) * (a.sin() @ b), [(A, 0), *given], 1),
        Case("matmul_replicated, several", replicated, whole, [(A, None), *given], 1),
        Case("all_gather_matmul, one of several", alone,
             lambda a, b, c: a @ c + 0 * b.sum(), [(A, 0), *given[:2]], 1),
    ]  # fmt: skip


def moves(world, A):
    """Between own and replicated tensors, along either dimension, in parts of equal sizes and
    others."""
    functions = iris_c.torch

    def summed_parts(x):
        return x.unflatten(0, (world, x.shape[0] // world)).sum(0)

    for more in (0, 1, world + 1):
        for dim in (0, 1):
            size = (A[0] + more, A[1]) if dim == 0 else (A[0], A[1] + more)
            name = f"dim {dim} of {size}"
            yield from [
                Case(f"all_gather, {name}", lambda x, dim=dim: functions.all_gather(x, dim).cos(),
                     lambda x: torch.cat([x.cos()] * world), [(size, dim)], 0),
                Case(f"all_gather replicated, {name}",
                     lambda x, dim=dim: functions.all_gather(x, dim, replicated=True),
                     lambda x: x, [(size, dim)], None),
                Case(f"scatter, {name}", lambda x, dim=dim: functions.scatter(x, dim),
                     lambda x: x, [(size, None)], dim),
                Case(f"reduce_scatter, {name}",
                     lambda x, dim=dim: functions.reduce_scatter(x, dim - 2),
                     summed_parts, [((world * size[0], size[1]), 0)], dim),
            ]  # fmt: skip


def all_cases(world, extents=(2, 3, 2)):
    """`extents`: M, K and N, as multiples of `world`."""
    functions = iris_c.torch
    m, k, n = (extent * world for extent in extents)
    A, B, bias = (m, k), (k, n), (n,)

    def scattered(dim):
        return lambda a, b, c: functions.matmul_reduce_scatter(a, b, c, dim)

    def gathered(dim):
        return lambda a, b, c: functions.all_gather_matmul(a, b, c, dim)[0]

    def gathered_alone(dim):
        return lambda a, b, c: functions.gathered_matmul(a, b, c, dim)

    def gathered_twice(a, b, c):
        """The joined operand is used as well."""
        result, joined = functions.all_gather_matmul(a, b, c, 0)
        return result * (joined.sin() @ b)

    def joined_alone(a):
        return functions.all_gather_matmul(a, a.new_ones(k, 1), None, 0)[1].cos()

    def summed(op):
        return lambda x: functions.all_reduce(x, op)

    def summed_whole(x):
        return x.unflatten(0, (world, x.shape[0] // world)).sum(0)

    return [
        Case("matmul_all_reduce", functions.matmul_all_reduce, product,
             [(A, 1), (B, 0), (bias, None)], None),
        Case("matmul_reduce_scatter rows", scattered(0), product,
             [(A, 1), (B, 0), (bias, None)], 0),
        Case("matmul_reduce_scatter rows, bias of one row", scattered(0), product,
             [(A, 1), (B, 0), ((1, n), None)], 0),
        Case("matmul_reduce_scatter rows, bias of own rows", scattered(0), product,
             [(A, 1), (B, 0), ((m, 1), 0)], 0),
        Case("matmul_reduce_scatter columns", scattered(1), product,
             [(A, 1), (B, 0), (bias, 0)], 1),
        Case("matmul_reduce_scatter columns, bias of one column", scattered(1), product,
             [(A, 1), (B, 0), ((m, 1), None)], 1),
        Case("all_gather_matmul rows", gathered(0), product, [(A, 0), (B, 1), (bias, 0)], 1),
        Case("all_gather_matmul columns", gathered(1), product, [(A, 1), (B, 1), (bias, 0)], 1),
        Case("gathered_matmul rows", gathered_alone(0), product, [(A, 0), (B, 1), (bias, 0)], 1),
        Case("gathered_matmul columns", gathered_alone(1), product,
             [(A, 1), (B, 1), (bias, 0)], 1),
        Case("all_gather_matmul and its operand", gathered_twice,
             lambda a, b, c: product(a, b, c) * (a.sin() @ b), [(A, 0), (B, 1), (bias, 0)], 1),
        Case("all_gather_matmul's operand alone", joined_alone,
             lambda a: torch.cat([a.cos()] * world), [(A, 0)], 0),
        *several(world, (m, k), n),
        Case("matmul_all_gather", functions.matmul_all_gather, rows_of_all(world),
             [(A, 0), ((world * k, n), 0), ((m, n), 0)], None),
        Case("matmul_replicated", functions.matmul_replicated, product,
             [(A, None), (B, 1), (bias, 0)], 1),
        Case("all_reduce sum", summed("sum"), summed_whole, [(A, 0)], None),
        Case("all_reduce avg", summed("avg"), lambda x: summed_whole(x) / world, [(A, 0)], None),
        Case("copy_to_ranks", lambda x, w: x * functions.copy_to_ranks(w).sin(),
             lambda x, w: x * w.sin(), [(A, 0), ((k,), None)], 0),
        *moves(world, (m, k)),
        Case("one after the other",
             lambda a, b: functions.matmul_all_reduce(
                 functions.matmul_replicated(a, b).sin(), b.t()),
             lambda a, b: (a @ b).sin() @ b.t(), [(A, None), (B, 1)], None),
    ]  # fmt: skip


def mixed(case):
    """The case, and after it what makes every element of a derivative depend on all others: an
    error in one that reached its own part of the tensors alone would cancel."""

    def squares(result):  # small ones: their sines' derivatives lose digits otherwise
        return (result @ result.t() if case.result == 1 else result.t() @ result) / 16

    def function(*tensors):
        result = squares(case.function(*tensors))
        return result if case.result is None else iris_c.torch.all_reduce(result)

    def whole(*tensors):
        return squares(case.whole(*tensors))

    return Case(f"{case.name}, mixed", function, whole, case.given, None)


def drawn(name, *shape):
    """The same on all ranks, in float64, on the cpu."""
    generator = numpy.random.default_rng(cases.zlib.crc32(name.encode()))
    return torch.from_numpy(generator.standard_normal(shape)) / 2


def result_shape(case):
    """Of the whole result."""
    return case.whole(*(torch.zeros(shape, device="cpu") for shape, _ in case.given)).shape


def part(tensor, ctx, dim):
    """This rank's, as torch.chunk divides, and none where that has no more chunks."""
    size = tensor.shape[dim]
    step = -(-size // ctx.world_size)
    start = min(ctx.rank * step, size)
    return tensor.narrow(dim, start, min(step, size - start))


class Side:
    """What differs between one process and the ranks: which part of a tensor is at hand."""

    def __init__(self, ctx=None):
        self.ctx = ctx

    def part(self, tensor, dim):
        if self.ctx is None:
            return tensor
        own = tensor if dim is None else part(tensor, self.ctx, dim)
        return torch.empty(own.shape, dtype=torch.float32).copy_(own)  # where the ranks compute

    def tensors(self, case):
        """The arguments, each a leaf."""
        return [
            self.part(drawn(f"{case.name} {i}", *shape), dim).clone().requires_grad_()
            for i, (shape, dim) in enumerate(case.given)
        ]

    def number(self, name, tensors, shapes, dims):
        """One number of them all, to which every element adds with a weight of its own."""
        total = 0
        for i, (tensor, shape, dim) in enumerate(zip(tensors, shapes, dims, strict=True)):
            total = total + (self.part(drawn(f"{name} {i}", *shape), dim) * tensor.sin()).sum()
        return total

    def first(self, case, tensors):
        function = case.function if self.ctx else case.whole
        shape = result_shape(case)
        return self.number(f"{case.name} result", [function(*tensors)], [shape], [case.result])

    def derivatives(self, case, tensors, order):
        """Those of a number of those of a number ... of the result."""
        shapes, dims = zip(*case.given, strict=True)
        number = self.first(case, tensors)
        for turn in range(1, order):
            grads = torch.autograd.grad(number, tensors, create_graph=True)
            number = self.number(f"{case.name} order {turn}", grads, shapes, dims)
        return torch.autograd.grad(number, tensors)


def check(ctx, got, expected, dims, what):
    for index, (mine, whole, dim) in enumerate(zip(got, expected, dims, strict=True)):
        size = whole.abs().max().item() if whole.numel() > 0 else 0.0
        torch.testing.assert_close(
            mine.detach(), Side(ctx).part(whole.detach(), dim), rtol=1e-4,
            atol=1e-5 * max(1.0, size),
            msg=lambda text, index=index: f"{what}, argument {index}: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("order", [1, 2, 3])
@ranks(1, 2, 3, deadline=180)
def test_derivatives_are_the_whole_products(ctx, order):
    iris_c.torch.register(ctx)
    plain = all_cases(ctx.world_size)
    for case in [*plain, *map(mixed, plain)]:
        expected, got = (
            side.derivatives(case, side.tensors(case), order) for side in (Side(), Side(ctx))
        )
        dims = [dim for _, dim in case.given]
        check(ctx, got, expected, dims, f"{case.name}, order {order}")


@pytest.mark.parametrize("extents", [(0, 3, 2), (2, 0, 2), (2, 3, 0), (0, 0, 0)], ids=str)
@ranks(1, 2, 3, deadline=180)
def test_derivatives_of_what_has_no_elements(ctx, extents):
    """Zeros of the right shapes, and what is left of the others; forward mode too."""
    iris_c.torch.register(ctx)
    for case in all_cases(ctx.world_size, extents):
        dims = [dim for _, dim in case.given]
        for order in (1, 2):
            expected, got = (
                side.derivatives(case, side.tensors(case), order) for side in (Side(), Side(ctx))
            )
            check(ctx, got, expected, dims, f"{case.name}, order {order}")
        whole, mine = Side().tensors(case), Side(ctx).tensors(case)
        _, expected = torch.func.jvp(case.whole, tuple(whole), tuple(whole))
        _, got = torch.func.jvp(case.function, tuple(mine), tuple(mine))
        check(ctx, [got], [expected], [case.result], f"{case.name}, torch.func.jvp")


@ranks(1, 2, 3, deadline=180)
def test_gradients_have_the_slope_of_the_number(ctx):
    """By differences, with no derivative of torch's in it: the first, and a gradient penalty's."""
    iris_c.torch.register(ctx)
    side, step = Side(ctx), 1e-2
    for case in all_cases(ctx.world_size):
        shapes, dims = zip(*case.given, strict=True)

        def penalty(tensors, case=case, shapes=shapes, dims=dims):
            grads = torch.autograd.grad(side.first(case, tensors), tensors, create_graph=True)
            return side.number("penalty", grads, shapes, dims)

        def of_all(value, is_replicated):
            value = value.detach().clone()
            return value.item() if is_replicated else iris_c.torch.all_reduce(value).item()

        def number(tensors, case=case, shapes=shapes, dims=dims):
            """The penalty of all ranks: each one's own gradients, and once the replicated ones."""
            grads = torch.autograd.grad(side.first(case, tensors), tensors)
            return sum(
                of_all((side.part(drawn(f"penalty {i}", *shape), dim) * g.sin()).sum(), dim is None)
                for i, (g, shape, dim) in enumerate(zip(grads, shapes, dims, strict=True))
            )

        at = side.tensors(case)
        ways = [
            side.part(drawn(f"way {i}", *shape), dim) for i, (shape, dim) in enumerate(case.given)
        ]
        grads = torch.autograd.grad(penalty(at), at)
        slope = sum(
            of_all((g * way).sum(), dim is None)
            for g, way, dim in zip(grads, ways, dims, strict=True)
        )
        ahead, behind = (
            number(
                [
                    (x + sign * way).detach().requires_grad_()
                    for x, way in zip(at, ways, strict=True)
                ]
            )
            for sign in (step, -step)
        )
        assert slope == pytest.approx((ahead - behind) / (2 * step), rel=2e-2, abs=2e-2), case.name


@ranks(1, 2, 3, deadline=180)
def test_forward_mode(ctx):
    """Tangents of all arguments and of each alone, with torch.func and without."""
    iris_c.torch.register(ctx)
    forward = torch.autograd.forward_ad
    for case in all_cases(ctx.world_size):
        whole, mine = Side().tensors(case), Side(ctx).tensors(case)
        tangents = [drawn(f"tangent {i}", *shape) for i, (shape, _) in enumerate(case.given)]
        own = [Side(ctx).part(t, dim) for t, (_, dim) in zip(tangents, case.given, strict=True)]
        _, expected = torch.func.jvp(case.whole, tuple(whole), tuple(tangents))
        _, got = torch.func.jvp(case.function, tuple(mine), tuple(own))
        check(ctx, [got], [expected], [case.result], f"{case.name}, torch.func.jvp")
        for index in range(len(whole)):

            def run(function, tensors, ways, index=index):
                with torch.no_grad(), forward.dual_level():
                    duals = list(tensors)
                    duals[index] = forward.make_dual(tensors[index], ways[index])
                    return forward.unpack_dual(function(*duals)).tangent

            expected, got = run(case.whole, whole, tangents), run(case.function, mine, own)
            check(ctx, [got], [expected], [case.result], f"{case.name}, tangent of {index}")


@ranks(1, 2, deadline=240)
def test_transforms_of_torch_func(ctx):
    """Gradients, of gradients, Hessians times a vector both ways round, and batches."""
    iris_c.torch.register(ctx)
    func = torch.func
    for case in all_cases(ctx.world_size):
        shape, dim = case.given[0]

        def transformed(side, case=case, shape=shape, dim=dim):
            first, *others = (x.detach() for x in side.tensors(case))
            way = side.part(drawn("way", *shape), dim)

            def number(x):
                return side.first(case, [x, *others])

            def penalty(x):
                return side.number("penalty", [func.grad(number)(x)], [shape], [dim])

            batch = torch.stack([first, first + way])
            return [
                func.grad(number)(first),
                func.grad(penalty)(first),
                func.jvp(func.grad(number), (first,), (way,))[1],
                func.grad(lambda x: func.jvp(penalty, (x,), (way,))[1])(first),
                *func.vmap(func.grad(number))(batch),
                *func.vmap(func.grad(penalty))(batch),
            ]

        expected, got = transformed(Side()), transformed(Side(ctx))
        count = len(expected)
        check(ctx, got, expected, [dim] * count, f"{case.name}, transforms")


@ranks(2, deadline=120)
def test_gradients_of_some_arguments_need_no_more_than_those(ctx, monkeypatch):
    """Neither calls nor saved tensors."""
    iris_c.torch.register(ctx)
    calls = []

    class Counted:
        """A context that notes which operations are called."""

        def __init__(self, real, of_operations=False):
            self.real, self.of_operations = real, of_operations

        def __getattr__(self, name):
            value = getattr(self.real, name)
            if name in ("ops", "ccl"):
                return Counted(value, True)
            if self.of_operations and callable(value):
                calls.append(name)
            return value

    real = _operations.context
    monkeypatch.setattr(_operations, "context", lambda name: Counted(real(name)))
    monkeypatch.setattr(_operations, "ops", {"default": Counted(real("default")).ops})
    A, B, C = "matmul_all_reduce", "matmul_reduce_scatter", "all_gather_matmul_hbm_buffer"
    expected = {  # calls of the gradients of each argument alone
        "matmul_all_reduce": ([], [], []),
        "matmul_reduce_scatter rows": ([C], ["all_gather"], ["all_reduce"]),
        "matmul_reduce_scatter columns": ([C], ["all_gather"], []),
        "all_gather_matmul rows": ([B], [], []),
        "gathered_matmul rows": ([B], ["all_gather"], []),
        "gathered_matmul columns": ([B], ["all_gather"], []),
        "matmul_all_gather": ([], [], []),
        "matmul_replicated": ([A], [], []),
        "all_reduce sum": ([],),
    }
    seen = set()
    for case in all_cases(ctx.world_size):
        for wanted in range(len(case.given)):
            tensors = [x.requires_grad_(i == wanted) for i, x in enumerate(Side(ctx).tensors(case))]
            saved = []
            with torch.autograd.graph.saved_tensors_hooks(
                lambda x, saved=saved: (saved.append(x), x)[1], lambda x: x
            ):
                result = case.function(*tensors)
            if case.name in expected:
                seen.add(case.name)
                # The other factor, or none.
                assert len(saved) == (wanted < 2 and case.name != "all_reduce sum"), case.name
                calls.clear()
                result.sum().backward()
                assert calls == list(expected[case.name][wanted]), (case.name, wanted, calls)
            else:
                result.sum().backward()
            assert [x.grad is not None for x in tensors] == [x.requires_grad for x in tensors]
    assert seen == set(expected)


@ranks(2, deadline=120)
def test_gradients_of_all_layouts(ctx):
    """That come expanded, transposed or with gaps, and go to views and shared tensors."""
    iris_c.torch.register(ctx)

    def of_penalty(grads, tensors):
        penalty = sum(g.square().sum() for g in grads)
        if not penalty.requires_grad:  # of what is linear
            return [None] * len(tensors)
        return torch.autograd.grad(penalty, tensors, allow_unused=True)

    numbers = [
        lambda y: y.sum(),
        lambda y: (y.t() * torch.arange(y.numel(), device=y.device).view(y.t().shape)).sum(),
        lambda y: y[::2].square().sum(),
        lambda y: y.new_zeros(y.shape[0], 2 * y.shape[1]).index_add(
            1, torch.arange(y.shape[1], device=y.device) * 2, y).sin().sum(),
    ]  # fmt: skip
    for case in all_cases(ctx.world_size):
        if case.result is not None:
            continue  # a number of a part is not a part of the number
        for number in numbers:
            results = []
            for side in (Side(), Side(ctx)):
                function = case.function if side.ctx else case.whole
                tensors = side.tensors(case)
                # The same values, by views: of a wider tensor, and transposed twice.
                views = [x.t().contiguous().t() if x.dim() == 2 else x for x in tensors]
                grads = torch.autograd.grad(number(function(*views)), tensors, create_graph=True)
                results.append([*grads, *of_penalty(grads, tensors)])
            dims = [dim for _, dim in case.given] * 2
            pairs = [
                (mine, whole, dim)
                for whole, mine, dim in zip(*results, dims, strict=True)
                if whole is not None
            ]
            check(ctx, *zip(*pairs, strict=True), case.name)


@ranks(2, deadline=120)
def test_checkpoints(ctx):
    """What is computed again in the backward pass is the same collective call again."""
    iris_c.torch.register(ctx)
    for case in all_cases(ctx.world_size):
        tensors = Side(ctx).tensors(case)
        shape = result_shape(case)
        grads = []
        for run in (case.function, lambda *x: checkpoint(case.function, *x, use_reentrant=False)):
            number = Side(ctx).number("weights", [run(*tensors)], [shape], [case.result])
            first = torch.autograd.grad(number, tensors, create_graph=True)
            penalty = sum(g.square().sum() for g in first)
            grads.append([*first, *torch.autograd.grad(penalty, tensors)])
        for mine, expected in zip(*grads, strict=True):
            torch.testing.assert_close(mine, expected)


@ranks(2, deadline=120)
def test_autocast(ctx):
    """Gradients have their tensors' dtypes, inside and out; an operation keeps what it is given."""
    iris_c.torch.register(ctx)
    device = torch.empty(0).device.type
    for case in all_cases(ctx.world_size):
        tensors = Side(ctx).tensors(case)
        result = case.function(*tensors).sin().sum()
        exact = torch.autograd.grad(result, tensors, create_graph=True)
        penalty = sum(g.square().sum() for g in exact)
        exact = [g.detach() for g in (*exact, *torch.autograd.grad(penalty, tensors))]
        for inside in (False, True):
            with torch.autocast(device, torch.bfloat16):
                result = case.function(*tensors).float().sin().sum()
                with torch.autocast(device, torch.bfloat16, enabled=inside):
                    grads = torch.autograd.grad(result, tensors, create_graph=True)
                    penalty = sum(g.square().sum() for g in grads)
                    seconds = torch.autograd.grad(penalty, tensors)
            for grad, expected in zip([*grads, *seconds], exact, strict=True):
                bound = 0.2 * max(1.0, expected.abs().max().item())  # of second gradients
                torch.testing.assert_close(grad, expected, rtol=0, atol=bound)
    A, B = torch.randn(4, 64), torch.randn(64, 4).requires_grad_()
    for name in ("matmul_all_reduce", "matmul_replicated", "matmul_all_gather"):
        operation = getattr(torch.ops.iris_c, name)
        (expected,) = torch.autograd.grad(operation(A, B, None, "default").sin().sum(), B)
        with torch.autocast(device, torch.bfloat16):
            result = operation(A, B, None, "default")
            assert result.dtype == torch.float32, name
            (grad,) = torch.autograd.grad(result.sin().sum(), B)
        torch.testing.assert_close(grad, expected)  # not with bfloat16's eight bits


def forward_derivative(function, x):
    """In the direction of `x`."""
    forward = torch.autograd.forward_ad
    with forward.dual_level():
        return forward.unpack_dual(function(forward.make_dual(x, x))).tangent


@ranks(2, deadline=120)
def test_what_has_no_derivative_says_so(ctx):
    iris_c.torch.register(ctx)
    ops, functions = torch.ops.iris_c, iris_c.torch
    A, B = torch.ones(4, 3), torch.ones(3, 4)
    needing = A.clone().requires_grad_()
    tall = torch.empty(8, 4)
    given = {
        "matmul_all_reduce": lambda a: functions.matmul_all_reduce(a, B, out=torch.empty(4, 4)),
        "matmul_reduce_scatter": lambda a: functions.matmul_reduce_scatter(
            a, B, out=torch.empty(2, 4)),
        "matmul_all_gather": lambda a: functions.matmul_all_gather(a, B, out=tall),
        "gathered_matmul": lambda a: functions.gathered_matmul(a, B, out=tall),
        "all_reduce": lambda a: functions.all_reduce(a, out=torch.empty(4, 3)),
        "all_gather_matmul": lambda a: ops.all_gather_matmul_out(tall, None, a, B, None, 0,
                                                                  "default"),
    }  # fmt: skip
    for name, call in given.items():
        argument = "input" if name == "all_reduce" else "A"
        message = rf"^{argument}(_shard)?: expected a tensor that does not require grad"
        with pytest.raises(RuntimeError, match=message):
            call(needing)
        with pytest.raises(RuntimeError, match=message):
            torch.func.jvp(lambda a, call=call: call(a) or a, (A,), (A,))
        with torch.no_grad():
            call(needing)
        call(A)
    with pytest.raises(RuntimeError, match=r"^C: expected a tensor that does not require grad"):
        functions.matmul_all_reduce(A, B, out=torch.empty(4, 4, requires_grad=True))
    for op in ("max", "min", "prod"):
        message = f"op: a gradient exists for 'sum' and 'avg', not for '{op}'"
        with pytest.raises(NotImplementedError, match=message):
            functions.all_reduce(needing, op).sum().backward()
        with pytest.raises(NotImplementedError, match=message):
            torch.func.jvp(lambda a, op=op: functions.all_reduce(a, op), (A,), (A,))
    # What was saved and has been written since is noticed, also where an operation wrote it.
    right = B.clone().requires_grad_()
    result = functions.matmul_replicated(needing, right)
    with torch.no_grad():
        functions.all_reduce(B, out=right)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()
    # A compiled gradient has no second one: torch says so. Tangents go through the compiler.
    compiled = torch.compile(functions.matmul_all_reduce, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad(compiled(needing, B).sin().sum(), needing, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        grad.sum().backward()
    ways = [
        torch.compile(run, fullgraph=True, backend="aot_eager")(A)
        for run in (
            lambda a: torch.func.jvp(lambda x: functions.matmul_all_reduce(x, B), (a,), (a,))[1],
            lambda a: forward_derivative(lambda x: functions.matmul_all_reduce(x, B), a),
        )
    ]
    for way in ways:
        torch.testing.assert_close(way, functions.matmul_all_reduce(A, B))
