# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch.ops.iris_c: schemas, tracing, compilation, and gradients against the unsharded product."""

import cases
import pytest
import torch

import iris_c.torch
from iris_c.testing import ranks

M, K, N = 24, 16, 20


def drawn(name, *shape, requires_grad=True):
    """The same on all ranks."""
    generator = torch.Generator().manual_seed(cases.zlib.crc32(name.encode()))
    values = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    tensor = torch.empty(shape, dtype=torch.float32).copy_(values)
    return tensor.requires_grad_(requires_grad)


def own(tensor, ctx, dim):
    """This rank's part, a leaf of its own."""
    part = tensor.detach().chunk(ctx.world_size, dim)[ctx.rank]
    return part.clone().requires_grad_(tensor.requires_grad)


def calls(ctx):
    """(operation, arguments) of each, with tensors that need gradients."""
    iris_c.torch.register(ctx)
    ops, world = torch.ops.iris_c, ctx.world_size
    A, B, bias = drawn("A", M, K), drawn("B", K, N), drawn("bias", N)
    wide = drawn("wide", K * world, N)
    shards = [
        (ops.all_gather_matmul, (A, right, bias, dim, "default"))
        for dim, right in enumerate((B, wide))
    ]
    shards += [(ops.gathered_matmul, args) for _, args in shards]
    return [
        (ops.matmul_all_reduce, (A, B, bias, "default")),
        (ops.matmul_reduce_scatter, (A, B, bias, 0, "default")),
        (ops.matmul_reduce_scatter, (A, B, None, 1, "default")),
        *shards,
        (ops.matmul_all_gather, (A, B, bias, "default")),
        (ops.matmul_replicated, (A, B, bias, "default")),
        (ops.all_reduce, (A, "sum", "default")),
    ]


def calls_of_gradients(ctx):
    """The same of those that gradients are made of besides."""
    iris_c.torch.register(ctx)
    ops, A = torch.ops.iris_c, drawn("A", M, K)
    return [
        (ops.own_copy, (A, "default")),
        (ops.own_part, (A, 1, "default")),
        (ops.all_gather, (A, 1, "default")),
        *((ops.own_gathered, (A, dim, "default")) for dim in (0, 1)),
        *((ops.reduce_scatter, (A, dim, "default")) for dim in (0, 1)),
    ]


def calls_of_lists(ctx):
    """The same of several products of one operand."""
    ops, A = torch.ops.iris_c, drawn("A", M, K)
    Bs = [drawn("B", K, N), drawn("C", K, 2 * N, requires_grad=False)]
    wide = [drawn("D", K * ctx.world_size, N) for _ in Bs]
    biases = [drawn("bias", N), None]
    return [
        (ops.all_gather_matmul_list, (A, Bs, biases, 0, "default")),
        (ops.all_gather_matmul_list, (A, wide, [None, None], 1, "default")),
        (ops.matmul_replicated_list, (A, Bs, biases, "default")),
    ]


def calls_with_out(ctx):
    """The same of those that write into given tensors."""
    ops, world = torch.ops.iris_c, ctx.world_size
    A, B, bias = (x.detach() for x in (drawn("A", M, K), drawn("B", K, N), drawn("bias", N)))
    tall, gathered = torch.empty(world * M, N), torch.empty(world * M, K)
    return [
        (ops.matmul_all_reduce_out, (torch.empty(M, N), A, B, bias, "default")),
        (ops.matmul_reduce_scatter_out, (torch.empty(M // world, N), A, B, bias, 0, "default")),
        (ops.all_gather_matmul_out, (tall, gathered, A, B, bias, 0, "default")),
        (ops.all_gather_matmul_out, (tall, None, A, B, bias, 0, "default")),
        (ops.matmul_all_gather_out, (tall, A, B, bias, "default")),
        (ops.all_reduce_out, (torch.empty(M, K), A, "sum", "default")),
    ]


@pytest.mark.parametrize("made", [calls, calls_with_out, calls_of_gradients, calls_of_lists])
@ranks(1, 2, deadline=300)
def test_opcheck(ctx, made):
    iris_c.torch.register(ctx)
    for operation, args in made(ctx):
        torch.library.opcheck(operation.default, args)


@ranks(2, deadline=180)
def test_compiles_to_one_graph(ctx):
    for operation, args in calls(ctx):

        def function(*args, operation=operation):
            result = operation(*args)
            return (result[0] if isinstance(result, tuple) else result).square() + 1

        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*args), function(*args))
        grads = []
        for run in (function, compiled):
            tensors = [x for x in args if isinstance(x, torch.Tensor)]
            grads.append(torch.autograd.grad(run(*args).sum(), tensors))
        torch.testing.assert_close(*grads)


@pytest.mark.skipif(torch.version.cuda is None, reason="of GPUs: graphs")
@ranks(1, 2, 4, deadline=300)
def test_graphs_of_the_compiler(ctx):
    """Captured by torch.compile itself; inputs change between replays."""
    iris_c.torch.register(ctx)
    B, bias = drawn("B", K, N, requires_grad=False), drawn("bias", N, requires_grad=False)

    def function(A):
        C = torch.ops.iris_c.matmul_all_reduce(A, B, bias, "default")
        return torch.ops.iris_c.all_reduce(C.relu(), "sum", "default")

    compiled = torch.compile(function, mode="reduce-overhead", fullgraph=True)
    for turn in range(8):
        A = drawn(f"A{turn}", M, K, requires_grad=False)
        expected = (A.double() @ B.double() * ctx.world_size + bias.double()).relu()
        torch.testing.assert_close(
            compiled(A).double(), expected * ctx.world_size, rtol=1e-4, atol=1e-4
        )


def whole_gradients(function, *tensors):
    """function(*tensors), and the gradients of its weighted sum, of one process."""
    result = function(*tensors)
    weights = drawn("weights", *result.shape, requires_grad=False)
    return result.detach(), weights, torch.autograd.grad((result * weights).sum(), tensors)


@ranks(1, 2, 3, deadline=120)
def test_gradients_are_the_whole_products(ctx):
    """With the shares of A and B that an operation takes, against autograd on whole tensors."""
    iris_c.torch.register(ctx)
    world, rank = ctx.world_size, ctx.rank
    m, k, n = 8 * world, 6 * world, 4 * world
    A, B, bias = drawn("A", m, k), drawn("B", k, n), drawn("bias", n)
    whole, weights, grads = whole_gradients(lambda a, b, c: a @ b + c, A, B, bias)

    def check(result, upstream, tensors, expected):
        got = torch.autograd.grad((result * upstream).sum(), tensors)
        for tensor, reference in zip(got, expected, strict=True):
            torch.testing.assert_close(tensor, reference, rtol=1e-4, atol=1e-4)

    def share(tensor, dim):
        return tensor.chunk(world, dim)[rank]

    # K is divided; all have the result.
    a, b, c = own(A, ctx, 1), own(B, ctx, 0), bias.detach().clone().requires_grad_()
    result = iris_c.torch.matmul_all_reduce(a, b, c)
    torch.testing.assert_close(result, whole, rtol=1e-4, atol=1e-4)
    check(result, weights, (a, b, c), (share(grads[0], 1), share(grads[1], 0), grads[2]))

    # K is divided, and so is the result: by rows, with one bias on all ranks.
    result = iris_c.torch.matmul_reduce_scatter(a, b, c)
    torch.testing.assert_close(result, share(whole, 0), rtol=1e-4, atol=1e-4)
    check(result, share(weights, 0), (a, b, c), (share(grads[0], 1), share(grads[1], 0), grads[2]))

    # By columns, each with its part of the bias.
    own_bias = own(bias, ctx, 0)
    result = iris_c.torch.matmul_reduce_scatter(a, b, own_bias, dim=1)
    torch.testing.assert_close(result, share(whole, 1), rtol=1e-4, atol=1e-4)
    check(
        result, share(weights, 1), (a, b, own_bias),
        (share(grads[0], 1), share(grads[1], 0), share(grads[2], 0)),
    )  # fmt: skip

    # The columns of B are divided, and A by rows or by columns, or not at all.
    b = own(B, ctx, 1)
    for dim in (0, 1, None):
        a = own(A, ctx, dim) if dim is not None else A.detach().clone().requires_grad_()
        if dim is None:
            result = iris_c.torch.matmul_replicated(a, b, own_bias)
        else:
            result, joined = iris_c.torch.all_gather_matmul(a, b, own_bias, dim)
            assert torch.equal(joined, A.detach())
            alone = iris_c.torch.gathered_matmul(a, b, own_bias, dim)
            assert torch.equal(alone, result)
        torch.testing.assert_close(result, share(whole, 1), rtol=1e-4, atol=1e-4)
        grad_A = grads[0] if dim is None else share(grads[0], dim)
        check(
            result, share(weights, 1), (a, b, own_bias),
            (grad_A, share(grads[1], 1), share(grads[2], 0)),
        )  # fmt: skip

    # The rows of A are divided; all have the result, and B whole. Its gradients add up.
    a, b = own(A, ctx, 0), B.detach().clone().requires_grad_()
    result = iris_c.torch.matmul_all_gather(a, b)
    torch.testing.assert_close(result, whole - bias.detach(), rtol=1e-4, atol=1e-4)
    grad_a, grad_b = torch.autograd.grad((result * weights).sum(), (a, b))
    torch.testing.assert_close(grad_a, share(grads[0], 0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(iris_c.torch.all_reduce(grad_b), grads[1], rtol=1e-4, atol=1e-4)


@ranks(2)
def test_given_results_and_mistakes(ctx):
    iris_c.torch.register(ctx, "tensor parallel")
    A, B, C = torch.ones(4, 3), torch.ones(3, 6), torch.empty(4, 6)
    assert iris_c.torch.matmul_all_reduce(A, B, ctx=ctx, out=C) is C
    assert (C == 6).all()
    assert (iris_c.torch.matmul_all_reduce(A, B, ctx="tensor parallel") == 6).all()
    out = torch.empty(4, 3)
    assert (iris_c.torch.all_reduce(A, ctx=ctx, out=out) == 2).all()
    with pytest.raises(ValueError, match="group: expected the name of a context"):
        iris_c.torch.matmul_all_reduce(A, B, ctx="unknown")
    with pytest.raises(RuntimeError, match="A: expected rows in a multiple of world_size 2"):
        iris_c.torch.matmul_reduce_scatter(torch.ones(5, 3), B, ctx=ctx)
    with pytest.raises(ValueError, match="B: expected 3 rows, the columns of A"):
        iris_c.torch.matmul_all_reduce(A, torch.ones(4, 6), ctx=ctx)
    functions = iris_c.torch
    products = {
        functions.matmul_all_reduce: "A",
        functions.matmul_reduce_scatter: "A",
        functions.all_gather_matmul: "A_shard",
        functions.gathered_matmul: "A_shard",
        functions.matmul_all_gather: "A",
        functions.matmul_replicated: "A",
    }
    for function, name in products.items():
        for wrong in (torch.ones(()), torch.ones(3), torch.ones(1, 4, 3)):
            message = f"expected a 2-D tensor, got {wrong.dim()}-D with shape"
            with pytest.raises(ValueError, match=f"^{name}: {message}"):
                function(wrong, B, ctx=ctx)
            with pytest.raises(ValueError, match=f"^B: {message}"):
                function(A, wrong, ctx=ctx)
        with pytest.raises(RuntimeError, match=f"'Tensor' for argument '{name}' but instead found"):
            function([1.0], B, ctx=ctx)
        assert function(A.to("meta"), B.to("meta"), ctx=ctx) is not None  # shapes alone
    for function, name in ((functions.matmul_reduce_scatter, "dim"),
                           (functions.all_gather_matmul, "gather_dim"),
                           (functions.gathered_matmul, "gather_dim")):  # fmt: skip
        for wrong in (2, -1):
            with pytest.raises(ValueError, match=f"^{name}: expected 0 or 1, got {wrong}"):
                function(A, B, None, wrong, ctx=ctx)
        for wrong in (True, "0", None):
            with pytest.raises(TypeError, match=f"^{name}: expected an int, got"):
                function(A, B, None, wrong, ctx=ctx)
    with pytest.raises(ValueError, match=r"^A: "):
        functions.matmul_all_reduce(A.to_sparse(), B, ctx=ctx)
    with pytest.raises(ValueError, match=r"^input: "):
        functions.all_reduce(A.to_sparse(), ctx=ctx)
    with pytest.raises(TypeError, match=r"ctx: expected an iris_c\.Context"):
        iris_c.torch.register("ctx")
    with pytest.raises(NotImplementedError, match="'sum' and 'avg'"):
        iris_c.torch.all_reduce(A.clone().requires_grad_(), "max", ctx=ctx).sum().backward()
