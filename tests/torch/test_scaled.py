# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch.ops.iris_c's products of float8 operands: schemas, tracing, results beside those of the
operands widened, torch's schemas beside torch's own definitions of them, refusals."""

import itertools

import cases
import pytest
import torch

import iris_c.torch
from iris_c.testing import ranks

M, N, K = 12, 20, 256
FP8 = torch.float8_e4m3fn

# Not test_schema, which compares elements, as torch cannot in float8: see test_operands_stay.
CHECKS = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")

pytestmark = cases.cpu_only


def drawn(name, *shape, dtype=torch.float32):
    return torch.randn(shape, generator=cases.generator(name)).to(dtype)


def scale(name, *shape):
    return drawn(name, *shape).abs() + 0.1


def operands(rank, rows=M, kind="row"):
    A, B = drawn(f"A{rank}", rows, K, dtype=FP8), drawn(f"B{rank}", K, N, dtype=FP8)
    if kind == "row":
        return A, B, scale(f"a{rank}", rows, 1), scale(f"b{rank}", 1, N)
    if kind == "block":
        return A, B, scale(f"a{rank}", rows, K // 128), scale(f"b{rank}", K // 128, 1)
    return A, B, scale(f"a{rank}", 1), scale(f"b{rank}", 1)


def widened(A, scale):
    """The operand's values."""
    scale = scale.double()
    if scale.numel() > 1 and scale.dim() == 2 and scale.shape[-1] == K // 128:
        scale = scale.repeat_interleave(128, 1)
    elif scale.numel() > 1 and scale.dim() == 2 and scale.shape[0] == K // 128:
        scale = scale.repeat_interleave(128, 0)
    return A.double() * scale


def partial(rank, **which):
    A, B, a, b = operands(rank, **which)
    return widened(A, a) @ widened(B, b)


def close(actual, expected):
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual.double(), expected, rtol=2e-2, atol=2e-1)


def calls(ctx):
    A, B, a, b = operands(ctx.rank)
    bias, wide = drawn("bias", N, dtype=torch.bfloat16), (torch.bfloat16, "default")
    ops = torch.ops.iris_c
    return [
        (ops.scaled_matmul_all_reduce, (A, B, a, b, bias, *wide)),
        (ops.scaled_matmul_reduce_scatter, (A, B, a, b, None, 1, *wide)),
        (ops.scaled_matmul_all_gather, (A, B, a, b, bias, *wide)),
        (ops.scaled_all_gather_matmul, (A, B, a, b, bias, 0, *wide)),
        (ops.scaled_gathered_matmul, (A, B, a, b, None, 0, torch.float32, "default")),
        (ops.fused_scaled_matmul_reduce_scatter,
         (A, B, a, b, "avg", 0, 0, "default", [3, 4, N], None, None, torch.bfloat16))
        if ctx.world_size == 1 else
        (ops.fused_scaled_matmul_reduce_scatter,
         (A, B, a, b, "avg", 1, 0, "default", [3, 4, N], None, None, torch.bfloat16)),
        (ops.fused_all_gather_scaled_matmul,
         (A.view(3, 4, K), [B, B], a.view(3, 4, 1), [b, b], 1, "default", [None, bias],
          [None, None], [torch.float32, torch.bfloat16], [False, True])),
    ]  # fmt: skip


@ranks(1, 2, deadline=300)
def test_opcheck(ctx):
    iris_c.torch.register(ctx)
    for operation, args in calls(ctx):
        torch.library.opcheck(operation.default, args, test_utils=CHECKS)


@ranks(2)
def test_operands_stay(ctx):
    """Nothing of them is written, and no result is one of them."""
    iris_c.torch.register(ctx)
    for operation, args in calls(ctx):
        tensors = [x for x in torch.utils._pytree.tree_leaves(args) if isinstance(x, torch.Tensor)]
        before = [tensor.contiguous().view(torch.uint8).clone() for tensor in tensors]
        results = torch.utils._pytree.tree_leaves(operation(*args))
        for tensor, old in zip(tensors, before, strict=True):
            assert torch.equal(tensor.contiguous().view(torch.uint8), old)
        memory = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        assert not any(result.untyped_storage().data_ptr() in memory for result in results)


@ranks(2)
def test_schemas_are_those_of_torch(ctx):
    import torch.distributed._symmetric_memory

    for name in ("fused_scaled_matmul_reduce_scatter", "fused_all_gather_scaled_matmul"):
        ours, theirs = (
            getattr(library, name).default._schema
            for library in (torch.ops.iris_c, torch.ops.symm_mem)
        )
        assert str(ours).removeprefix("iris_c::") == str(theirs).removeprefix("symm_mem::")


@ranks(2, 3)
def test_results(ctx):
    iris_c.torch.register(ctx)
    world, rank = range(ctx.world_size), ctx.rank
    for kind in ("tensor", "row", "block"):
        arguments = operands(rank, kind=kind)
        parts = [partial(r, kind=kind) for r in world]
        for dtype in (torch.bfloat16, torch.float32):
            result = iris_c.torch.scaled_matmul_all_reduce(*arguments, out_dtype=dtype)
            assert result.dtype == dtype
            close(result, sum(parts))
        close(iris_c.torch.scaled_matmul_all_gather(*arguments), torch.cat(parts))
        share = iris_c.torch.scaled_matmul_reduce_scatter(*arguments)
        close(share, sum(parts).chunk(ctx.world_size)[rank])
        a = torch.cat([widened(*operands(r, kind=kind)[::2]) for r in world])
        expected = a @ widened(*arguments[1::2])
        C, joined = iris_c.torch.scaled_all_gather_matmul(*arguments)
        close(C, expected)
        shards = torch.cat([operands(r, kind=kind)[0].view(torch.uint8) for r in world])
        assert torch.equal(joined.view(torch.uint8), shards)
        close(iris_c.torch.scaled_gathered_matmul(*arguments), expected)


@ranks(2)
def test_scatters_as_torch_does(ctx):
    """Along each dimension of a result of three, whose rows A has one after the other or not."""
    iris_c.torch.register(ctx)
    shape = [4, 6, N]
    for kind, dim, op in itertools.product(("tensor", "row"), (0, 1, 2), ("sum", "avg")):
        A, B, a, b = operands(ctx.rank, rows=24, kind=kind)
        whole = sum(partial(r, rows=24, kind=kind) for r in range(2)).view(shape)
        if op == "avg":
            whole = whole / 2
        for flat in (True, False):
            left = A if flat else A.view(4, 6, K)
            scales = a if flat or a.numel() == 1 else a.view(4, 6, 1)
            result = torch.ops.iris_c.fused_scaled_matmul_reduce_scatter(
                left, B, scales, b, op, dim, dim, "default", shape if flat else None, None, None,
                torch.bfloat16,
            )  # fmt: skip
            close(result, whole.chunk(2, dim)[ctx.rank])


@ranks(2)
def test_gathers_as_torch_does(ctx):
    """Scales of the tensor, of this rank's rows, and of all ranks' rows, along each dimension."""
    iris_c.torch.register(ctx)
    B, b = operands(ctx.rank)[1::2]
    shards = [drawn(f"S{r}", 4, 6, K, dtype=FP8) for r in range(2)]
    rows = [scale(f"s{r}", 4, 6, 1) for r in range(2)]
    for dim in (0, 1):
        joined = torch.cat([shard.double() for shard in shards], dim)
        whole = torch.cat(rows, dim)
        for given, scales in (
            (torch.full((1,), 0.5), torch.full_like(whole, 0.5)),
            (rows[ctx.rank], whole),
            (whole, whole),
        ):
            A, (C, D) = torch.ops.iris_c.fused_all_gather_scaled_matmul(
                shards[ctx.rank], [B, B], given, [b, b], dim, "default", [None, None],
                [None, None], [torch.bfloat16, torch.float32], [False, False],
            )  # fmt: skip
            assert torch.equal(A.double(), joined)
            expected = (joined * scales.double()) @ widened(B, b)
            close(C, expected)
            close(D, expected)


@ranks(2, deadline=180)
def test_compiles_to_one_graph(ctx):
    iris_c.torch.register(ctx)
    for operation, args in calls(ctx):

        def function(*args, operation=operation):
            result = operation(*args)
            return (result[0] if isinstance(result, tuple) else result).float() + 1

        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(*args), function(*args))


@ranks(2)
def test_refusals(ctx):
    iris_c.torch.register(ctx)
    A, B, a, b = operands(ctx.rank)
    op = torch.ops.iris_c
    scatter = [A, B, a, b, "sum", 0, 0, "default", None, None, None, torch.bfloat16]
    gather = [A, [B], a, [b], 0, "default", [None], [None], [torch.bfloat16], [False]]

    def changed(arguments, index, value):
        return [*arguments[:index], value, *arguments[index + 1 :]]

    wrong = (
        (op.scaled_matmul_all_reduce, (A, B, a, b, None, FP8, "default"), "out_dtype: expected"),
        (op.scaled_matmul_all_reduce, (A, B[0], a, b, None, torch.half, "default"), "B: expected"),
        (op.scaled_matmul_all_reduce, (A, B, a.double(), b, None, torch.half, "default"),
         "scale_a: expected dtype float32"),
        (op.fused_scaled_matmul_reduce_scatter, changed(scatter, 9, b), "bias: expected None"),
        (op.fused_scaled_matmul_reduce_scatter, changed(scatter, 11, None), "out_dtype: expected"),
        (op.fused_scaled_matmul_reduce_scatter, changed(scatter, 4, "max"), "reduce_op: expected"),
        (op.fused_scaled_matmul_reduce_scatter, changed(scatter, 5, 2), "orig_scatter_dim: exp"),
        (op.fused_all_gather_scaled_matmul, changed(gather, 7, [a]), "result_scales.0.: expected"),
        (op.fused_all_gather_scaled_matmul, changed(gather, 8, [None]), "out_dtypes.0.: expected"),
        (op.fused_all_gather_scaled_matmul, changed(gather, 3, []), "B_scales: expected 1"),
    )  # fmt: skip
    for operation, arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            operation(*arguments)
    with pytest.raises(RuntimeError, match="scale_a: expected a tensor that does not require grad"):
        op.scaled_matmul_all_reduce(A, B, a.requires_grad_(), b, None, torch.bfloat16, "default")
