# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Several products of one operand: how often the ranks exchange, compilation, autocast, mistakes.
Their derivatives are in test_derivatives.py."""

import pytest
import torch
from noted_calls import noted_calls

import iris_c.torch
from iris_c.testing import ranks

M, K, N = 6, 4, 3
GATHER, SCATTER, SUM = "all_gather_matmul_hbm_buffer", "matmul_reduce_scatter", "matmul_all_reduce"


def drawn(*shape):
    return torch.randn(shape, requires_grad=True)


@ranks(2, deadline=120)
def test_one_exchange_each_way(ctx, monkeypatch):
    """Whatever of the factors need a gradient."""
    iris_c.torch.register(ctx)
    calls = noted_calls(monkeypatch)
    A, B, biases = drawn(M, K), [drawn(K, N), drawn(K, 2 * N), drawn(K, N)], [drawn(N), None, None]
    for wanted in range(8):
        for i in range(3):
            B[i].requires_grad_(bool(wanted & 1 << i))
        calls.clear()
        products, joined = iris_c.torch.all_gather_matmul(A, B, biases)
        assert calls == [GATHER]
        assert [y.shape for y in products] == [(2 * M, N), (2 * M, 2 * N), (2 * M, N)]
        expected = [joined @ b for b in B]
        expected[0] = expected[0] + biases[0]
        for y, reference in zip(products, expected, strict=True):
            torch.testing.assert_close(y, reference, rtol=1e-4, atol=1e-5)
        calls.clear()
        sum(y.sum() for y in products).backward()
        assert calls == [SCATTER]
        calls.clear()
        sum(y.sum() for y in iris_c.torch.matmul_replicated(A, B, biases)).backward()
        assert calls == [SUM]
    calls.clear()
    iris_c.torch.all_gather_matmul(A, B)[0][2].sum().backward()  # one that is used of three
    assert calls == [GATHER, SCATTER]
    A.requires_grad_(False)
    B[1].requires_grad_(True)
    calls.clear()
    iris_c.torch.all_gather_matmul(A, B)[0][1].sum().backward()
    iris_c.torch.matmul_replicated(A, B)[1].sum().backward()
    assert calls == [GATHER]


@ranks(2, deadline=180)
def test_compiles_to_one_graph(ctx):
    iris_c.torch.register(ctx)
    A, B, biases = drawn(M, K), [drawn(K, N), drawn(K, 2 * N)], [None, drawn(2 * N)]
    given = [A, *B, biases[1]]

    def function(A):
        (first, second), joined = iris_c.torch.all_gather_matmul(A, B, biases)
        third, fourth = iris_c.torch.matmul_replicated(A, B, biases)
        return sum(x.sin().sum() for x in (first, second, joined, third, fourth))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for got, expected in zip(
        torch.autograd.grad(compiled(A), given),
        torch.autograd.grad(function(A), given),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)
    with torch.autocast(A.device.type, torch.bfloat16):
        (first, _), joined = iris_c.torch.all_gather_matmul(A, B, biases)
        third, _ = iris_c.torch.matmul_replicated(A, B, biases)
        assert {x.dtype for x in (first, joined, third)} == {torch.bfloat16}
    grads = torch.autograd.grad(first.float().sum() + third.float().sum(), [A, B[0]])
    assert {x.dtype for x in grads} == {torch.float32}


@ranks(2)
def test_mistakes_are_named(ctx):
    iris_c.torch.register(ctx)
    A, B = torch.ones(M, K), torch.ones(K, N)
    functions = (iris_c.torch.all_gather_matmul, iris_c.torch.matmul_replicated)
    for function in functions:
        with pytest.raises(ValueError, match="B: expected one tensor or more, got an empty list"):
            function(A, [])
        with pytest.raises(ValueError, match="bias: expected 2, one for each of B, got 1"):
            function(A, [B, B], [None])
        with pytest.raises(TypeError, match="bias: expected a list beside a list of B, or None"):
            function(A, [B, B], torch.ones(N))
        with pytest.raises(ValueError, match=r"B\[1\]: expected a 2-D tensor, got 1-D"):
            function(A, [B, torch.ones(K)])
        with pytest.raises((ValueError, RuntimeError), match=r"B\[1\]: expected 4 rows, the col"):
            function(A, [B, torch.ones(K + 1, N)])
        assert len(function(A.to("meta"), [B.to("meta")] * 2)) == 2
    assert torch.equal(iris_c.torch.matmul_replicated(A, [B])[0], A @ B)
