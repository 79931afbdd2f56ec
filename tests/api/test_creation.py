# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Tensors on the heap of one rank: torch's creation functions, and the memory that they take."""

import gc

import pytest
import torch
from one_rank import ALL_DTYPES

import iris_c


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_zeros_ones_full_of_every_dtype(ctx, dtype):
    for tensor, value in [
        (ctx.zeros(3, 5, dtype=dtype), 0),
        (ctx.ones((3, 5), dtype=dtype), 1),
        (ctx.full([3, 5], 1, dtype=dtype), 1),
    ]:
        assert isinstance(tensor, torch.Tensor)
        assert tensor.shape == (3, 5)
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()
        assert ctx.is_symmetric(tensor)
        assert torch.equal(tensor, torch.full((3, 5), value, dtype=dtype))


@pytest.mark.parametrize(
    ("size", "shape"),
    [((), ()), ((4,), (4,)), ((2, 3), (2, 3)), (((2, 3),), (2, 3)), (([[2, 3]],), (2, 3)),
     ((torch.Size([2, 3]),), (2, 3)), ((0,), (0,)), ((3, 0, 2), (3, 0, 2))],
)  # fmt: skip
def test_sizes_in_torchs_spellings(ctx, size, shape):
    assert ctx.empty(*size).shape == shape
    assert ctx.zeros(*size).shape == shape
    assert ctx.rand(*size).shape == shape


def test_full_infers_its_dtype(ctx):
    assert ctx.full((2,), 1).dtype == torch.int64
    assert ctx.full((2,), 1.0).dtype == torch.float32
    assert ctx.full((2,), True).dtype == torch.bool


def test_random_numbers_are_torchs(ctx):
    cases = [
        (lambda: ctx.rand(5, 7), lambda: torch.rand(5, 7)),
        (lambda: ctx.randn(5, 7), lambda: torch.randn(5, 7)),
        (lambda: ctx.randint(9, (5, 7)), lambda: torch.randint(9, (5, 7))),
        (lambda: ctx.randint(-3, 9, (5, 7)), lambda: torch.randint(-3, 9, (5, 7))),
        (lambda: ctx.uniform(5, 7, low=-2.0, high=3.0), lambda: torch.empty(5, 7).uniform_(-2, 3)),
    ]
    for ours, theirs in cases:
        torch.manual_seed(11)
        got = ours()
        torch.manual_seed(11)
        expected = theirs()
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
        assert ctx.is_symmetric(got)


@pytest.mark.parametrize("arguments", [(5,), (2, 9), (9, 2, -3), (0.0, 1.0, 0.3), (4, 4)], ids=str)
def test_arange(ctx, arguments):
    got, expected = ctx.arange(*arguments), torch.arange(*arguments)
    assert got.dtype == expected.dtype
    assert torch.equal(got, expected)


def test_linspace(ctx):
    assert torch.equal(ctx.linspace(-1, 1, 9), torch.linspace(-1, 1, 9))
    assert ctx.linspace(0, 1, 0).shape == (0,)


def test_like(ctx):
    source = torch.randn(4, 6, dtype=torch.float16).t()
    zeros = ctx.zeros_like(source)
    assert zeros.shape == source.shape
    assert zeros.dtype == source.dtype
    assert not zeros.any()
    assert ctx.empty_like(source, dtype=torch.int32).dtype == torch.int32
    copy = ctx.as_symmetric(source)
    assert torch.equal(copy, source)
    assert ctx.is_symmetric(copy)
    assert copy.is_contiguous()


def test_device_and_layout_may_only_agree(ctx):
    assert ctx.zeros(2, device="cpu", layout=torch.strided).shape == (2,)
    with pytest.raises(ValueError, match="device: expected cpu"):
        ctx.zeros(2, device="cuda")
    with pytest.raises(ValueError, match=r"layout: expected torch\.strided"):
        ctx.zeros(2, layout=torch.sparse_coo)


def test_torchs_default_device_is_another(ctx):
    """As where a model is built on the meta device: the heap's tensors are on the heap."""
    calls = (
        lambda: ctx.zeros(3),
        lambda: ctx.rand(3),
        lambda: ctx.randn(3),
        lambda: ctx.randint(0, 9, (3,)),
        lambda: ctx.uniform(3),
        lambda: ctx.arange(3),
        lambda: ctx.linspace(0, 1, 3),
        lambda: ctx.full((3,), 2.0),
        lambda: ctx.empty_like(ctx.zeros(3)).fill_(1),
        lambda: ctx.as_symmetric(torch.ones(3, device=ctx.device)),
        ctx.get_heap_bases,
    )
    for call in calls:
        torch.manual_seed(5)
        expected = call()
        torch.manual_seed(5)
        with torch.device("meta"):
            made = call()
        assert torch.equal(made, expected)


def test_requires_grad(ctx):
    assert ctx.randn(3, requires_grad=True).requires_grad
    assert not ctx.randn(3).requires_grad


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda ctx: ctx.zeros(-1), ValueError, "shape: expected sizes >= 0, got -1"),
        (lambda ctx: ctx.zeros("ab"), TypeError, "shape"),
        (lambda ctx: ctx.zeros(2, dtype=torch.complex32), ValueError, "dtype: expected"),
        (lambda ctx: ctx.zeros(*[1] * 9), ValueError, "at most 8 dimensions"),
        (lambda ctx: ctx.zeros(1 << 40, 1 << 40), ValueError, "more bytes than addresses"),
        (lambda ctx: ctx.randint(5, 5, (2,)), ValueError, "high: expected > low"),
        (lambda ctx: ctx.randint((2,)), TypeError, "randint"),
        (lambda ctx: ctx.arange(1, 5, 0), ValueError, "step"),
        (lambda ctx: ctx.arange(5, 1), ValueError, "does not lead from 5 to 1"),
        (lambda ctx: ctx.linspace(0, 1, -1), ValueError, "got -1"),
    ],
)
def test_creation_errors(ctx, call, error, message):
    with pytest.raises(error, match=message):
        call(ctx)


# ---- memory ----


def test_freed_memory_returns(ctx):
    before = ctx.heap_used
    tensor = ctx.empty(1000)
    view = tensor[10:20]
    assert ctx.heap_used > before
    del tensor
    assert ctx.heap_used > before, "a view keeps the memory"
    del view
    gc.collect()
    assert ctx.heap_used == before


def test_memory_is_reused_for_ever(ctx):
    for _ in range(50):
        ctx.empty(ctx.heap_size // 2, dtype=torch.uint8)
    assert ctx.heap_used == 0


def test_heap_exhausted(ctx):
    with pytest.raises(iris_c.HeapExhausted, match="heap") as caught:
        ctx.empty(ctx.heap_size + 1, dtype=torch.uint8)
    assert caught.value.asked >= ctx.heap_size + 1
    assert caught.value.heap_size == ctx.heap_size
    assert 0 <= caught.value.free <= ctx.heap_size
    assert ctx.zeros(4).shape == (4,), "the context still works"
