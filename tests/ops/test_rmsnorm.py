# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""all_reduce_rmsnorm against float64."""

import os

import cases
import norms
import pytest
import torch

import iris_c
from iris_c.testing import ranks

SHAPES = [(1, 1), (1, 4096), (3, 129), (64, 256), (2, 5, 100), (0, 16), (700, 64), (7,)]
STEPS = ("one_shot", "two_shot") if os.environ.get("IRIS_C_BACKEND", "cpu") == "cpu" else ()
VARIANTS = ("ll", "ll_two_shot", *STEPS, None)


@pytest.mark.parametrize("variant", VARIANTS)
@ranks(1, 2, 3, 4)
def test_all_reduce_rmsnorm(ctx, variant):
    for salt, shape in enumerate(SHAPES):
        for dtype in cases.DTYPES:
            layer = norms.Layer(ctx, shape, dtype, variant, salt)
            layer.call()
            layer.check()


@ranks(2, 3)
def test_without_a_residual_and_in_place(ctx):
    for variant in VARIANTS:
        layer = norms.Layer(ctx, (5, 300), torch.bfloat16, variant, has_residual=False)
        layer.call()
        layer.check()
        layer = norms.Layer(ctx, (5, 300), torch.bfloat16, variant)
        layer.output, layer.residual_out = layer.input, layer.residual
        layer.call()
        layer.check()


@ranks(3)
def test_all_ranks_get_the_same_bits(ctx):
    for variant in VARIANTS:
        layer = norms.Layer(ctx, (33, 257), torch.float32, variant)
        layer.call()
        for result in (layer.output, layer.residual_out):
            everybody = torch.empty(3, *result.shape)
            ctx.ccl.all_gather(everybody, result)
            assert torch.equal(everybody[0], everybody[1])
            assert torch.equal(everybody[0], everybody[2])


@ranks(2)
def test_unaligned_tensors(ctx):
    layer = norms.Layer(ctx, (4, 64), torch.bfloat16, "ll")
    for name in ("input", "output", "residual", "residual_out", "weight"):
        old = getattr(layer, name)
        moved = torch.empty(old.numel() + 1, dtype=old.dtype)[1:].view(old.shape)
        setattr(layer, name, moved)
        layer.refill(3)
        layer.call()
        layer.check()


@ranks(2)
def test_mistakes_are_named(ctx):
    x, weight = (torch.zeros(shape) for shape in ((4, 8), (8,)))
    good = {"output": x.clone(), "residual_out": x.clone(), "input": x.clone(),
            "residual": x.clone(), "weight": weight}  # fmt: skip
    call = ctx.ccl.all_reduce_rmsnorm
    for change, message in (
        ({"weight": torch.zeros(4)}, "weight: expected 8 elements"),
        ({"residual": torch.zeros(4, 4)}, "residual: expected 32 elements"),
        ({"output": torch.zeros(4, 8, dtype=torch.float64)}, "input: expected dtype float64"),
        ({"residual_out": good["input"]}, "residual_out: expected memory apart from input"),
        ({"residual_out": good["output"]}, "residual_out: expected memory apart from output"),
        ({"input": torch.zeros(())}, "input: expected at least one dimension, got 0-D"),
        ({"eps": -1.0}, "eps: expected >= 0"),
        (
            {"config": iris_c.ccl.Config(all_reduce_variant="ring")},
            "expected 'll'.* or 'll_two_shot'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call(**{**good, **change})
    call(**good)
