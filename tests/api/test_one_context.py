# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A context of one rank: what it says of itself, closing, options."""

import time
import weakref

import numpy as np
import pytest
import torch

import iris_c


def test_context_attributes(ctx):
    assert (ctx.rank, ctx.world_size, ctx.backend) == (0, 1, "cpu")
    assert (ctx.get_rank(), ctx.get_num_ranks()) == (0, 1)
    assert ctx.get_cu_count() >= 1
    assert ctx.device == ctx.get_device() == torch.device("cpu")
    assert ctx.heap_size == 1 << 24
    assert ctx.heap_used == 0
    assert "rank=0" in repr(ctx)
    assert "world_size=1" in repr(ctx)


def test_heap_bases_locate_tensors(ctx):
    bases = ctx.get_heap_bases()
    assert bases.shape == (1,)
    assert bases.dtype == torch.int64
    tensor = ctx.empty(4)
    assert 0 <= tensor.data_ptr() - int(bases[0]) < ctx.heap_size


def test_barriers(ctx):
    """Alone there is nobody to wait for: they return at once, and the context goes on."""
    started = time.monotonic()
    for barrier in (ctx.barrier, ctx.device_barrier, ctx.ccl.barrier):
        assert barrier() is None
        assert barrier(stream=None) is None
    assert iris_c.ccl.barrier(ctx) is None
    assert time.monotonic() - started < 10.0, "far below the timeout"
    assert ctx.zeros(4).sum() == 0


def test_with_statement_closes():
    with iris_c.init(1 << 20) as context:
        assert not context.closed
    assert context.closed
    context.close()
    assert "closed" in repr(context)


def test_closed_context_refuses_and_tensors_stay_readable():
    context = iris_c.init(1 << 20)
    tensor = context.full((8,), 3.0)
    context.close()
    assert tensor.tolist() == [3.0] * 8
    with pytest.raises(RuntimeError):
        context.zeros(8)


def test_tensor_outlives_its_context():
    context = iris_c.init(1 << 20)
    tensor = context.full((1000,), 7.0)
    dead = weakref.ref(context)
    del context
    assert dead() is None, "a context must not be kept by a reference cycle"
    assert tensor.eq(7.0).all()


def test_contexts_side_by_side():
    contexts = [iris_c.init(1 << 20) for _ in range(3)]
    tensors = [context.full((4,), float(i)) for i, context in enumerate(contexts)]
    assert [tensor[0].item() for tensor in tensors] == [0.0, 1.0, 2.0]
    assert [c.is_symmetric(tensors[0]) for c in contexts] == [True, False, False]
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heap_size": 0}, "heap_size"),
        ({"backend": "abacus"}, "backend"),
        ({"timeout": 0.0}, "timeout"),
        ({"rank": 1, "world_size": 1}, "rank"),
        ({"world_size": 0}, "world_size"),
    ],
)
def test_context_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        iris_c.Context(**{"heap_size": 1 << 20, **options})


def test_is_symmetric(ctx):
    tensor = ctx.empty(6, 8)
    assert ctx.is_symmetric(tensor)
    assert ctx.is_symmetric(tensor.t()[2:, 1:4])
    assert ctx.is_symmetric(ctx.allocate(16))
    assert not ctx.is_symmetric(torch.empty(6, 8))
    assert not ctx.is_symmetric(np.empty(3))
