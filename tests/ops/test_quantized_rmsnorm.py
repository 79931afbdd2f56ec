# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""all_reduce_rmsnorm with an output in float8: rounding to the formats, scales of rows and of each
128, the error beside float64, what is refused, and a product of what comes out."""

import cases
import norms
import pytest
import torch
from float8 import FORMATS

from iris_c.testing import ranks

VARIANTS = ("ll", "ll_two_shot", "one_shot", "two_shot")

pytestmark = cases.cpu_only


class Quantized(norms.Layer):
    """The same with a float8 output and a scale for each row, or for each 128 of it."""

    def __init__(self, ctx, shape, dtype, variant, format, by_blocks, **options):
        super().__init__(ctx, shape, dtype, variant, **options)
        self.format, self.cols = format, 128 if by_blocks else max(shape[-1], 1)
        self.output = torch.zeros(shape, dtype=torch.uint8).view(format)
        blocks = -(-shape[-1] // self.cols)
        self.scale = cases.poisoned(torch.empty(*shape[:-1], blocks))

    def refill(self, salt):
        output, self.output = self.output, torch.empty(0)
        super().refill(salt)
        self.output = output

    def call(self, **options):
        super().call(output_scale=self.scale, **options)

    def check(self):
        """Within half a step of the format of the normed rows, and each scale that of its largest
        element."""
        plain = norms.Layer(self.ctx, self.shape, self.dtype, self.config.all_reduce_variant)
        plain.call()
        assert torch.equal(plain.residual_out, self.residual_out)
        x = plain.residual_out.double()
        normed = x * plain.weight.double() / ((x**2).mean(-1, keepdim=True) + norms.EPS).sqrt()
        scale = self.scale.double().repeat_interleave(self.cols, -1)[..., : self.shape[-1]]
        info = torch.finfo(self.format)
        values = self.output.double() * scale
        # torch.finfo tells half of it for float8_e5m2fnuz.
        eps = 2.0**-3 if "e4m3" in str(self.format) else 2.0**-2
        bound = (eps / 2 + 1e-4) * normed.abs() + scale * info.smallest_normal * eps
        rows = (x.view(-1, self.shape[-1]) for x in (values, normed, bound))
        cases.check_close(*rows, f"{self.shape} {self.format}")
        padded = torch.nn.functional.pad(normed.abs(), (0, -self.shape[-1] % self.cols))
        most = padded.unflatten(-1, (-1, self.cols)).amax(-1)
        torch.testing.assert_close(self.scale.double() * info.max, most, rtol=1e-4, atol=0)


@ranks(1, 2, 3)
def test_error(ctx):
    for number, variant in enumerate(VARIANTS):
        for shape in ((1, 1), (3, 129), (2, 5, 400), (9, 2200)):
            for by_blocks in (False, True):
                dtype = cases.DTYPES[number % 3]
                layer = Quantized(ctx, shape, dtype, variant, FORMATS[number], by_blocks)
                layer.call()
                layer.check()


@ranks(1)
def test_rounding(ctx):
    """To nearest, ties to even, as torch rounds; zeros, infinities and NaN; what is too large."""
    for format in FORMATS:
        largest = torch.finfo(format).max
        every = torch.arange(256, dtype=torch.uint8).view(format).float()
        every = every[every.isfinite()].sort().values
        below, above = every[:-1], every[1:]
        between = (above.double() + below.double()).float() / 2
        parts = (every, between, between.nextafter(above), between.nextafter(below))
        row = torch.cat([*parts, torch.zeros(3)])
        output = torch.zeros(1, row.numel(), dtype=torch.uint8).view(format)
        scale, out = torch.empty(1, 1), torch.empty(1, row.numel())
        # Beside an epsilon of 2**60 the row's squares are nothing, the norm is 2**-30, and what is
        # rounded are the values themselves: the largest is the format's, so the scale is 1.
        weight = torch.full((row.numel(),), 2.0**30)

        def normed(row, eps=2.0**60, output=output, scale=scale, out=out, weight=weight):
            ctx.ccl.all_reduce_rmsnorm(
                output, out, row.view(1, -1), None, weight, eps, output_scale=scale
            )
            return output[0].float()

        got = normed(row).split([part.numel() for part in parts] + [3])
        assert scale.item() == 1
        assert row.max() == largest
        assert torch.equal(output.view(torch.uint8)[0], row.to(format).view(torch.uint8))
        assert torch.equal(got[0], every)
        assert not (got[1].to(format).view(torch.uint8) % 2).any(), "a tie went to an odd mantissa"
        assert ((got[1] == below) | (got[1] == above)).all()
        assert torch.equal(got[2], above)
        assert torch.equal(got[3], below)
        assert not normed(torch.zeros_like(row)).any()
        assert scale.item() == 1
        # One NaN among those that share a scale makes NaN of the scale and of them all, wherever it
        # stands. A norm that is infinite makes it: of what is infinite, 0 times that.
        for place in (0, 7, -1):
            for value in (float("inf"), float("nan")):
                broken = row.clone()
                broken[place] = value
                assert normed(broken).isnan().all(), (place, value)
                assert scale.isnan()
            broken = weight.clone()
            broken[place] = float("nan")
            assert normed(row, weight=broken).isnan().all(), place
            assert scale.isnan()
        # What is beyond the format comes into it by its scale.
        assert normed(row, weight=weight * 2.0**20).abs().max() == largest
        assert scale.item() == 2.0**20


@ranks(2)
def test_goes_into_a_product(ctx):
    """Output and scales are operands of the next product as they are."""
    for by_blocks in (False, True):
        layer = Quantized(ctx, (6, 256), torch.bfloat16, "ll", FORMATS[0], by_blocks)
        layer.call()
        B, one = torch.randn(256, 5).to(FORMATS[0]), torch.ones(1)
        C = torch.empty(12, 5)
        ctx.ops.all_gather_matmul(C, layer.output, B, scale_a=layer.scale, scale_b=one)
        values = layer.output.double() * layer.scale.double().repeat_interleave(layer.cols, 1)
        own = C[6 * ctx.rank : 6 * ctx.rank + 6].double()
        torch.testing.assert_close(own, values @ B.double(), rtol=1e-4, atol=1e-3)


@ranks(2)
def test_refusals(ctx):
    def call(**changes):
        given = {
            "output": torch.empty(4, 256).to(FORMATS[0]), "residual_out": torch.empty(4, 256),
            "input": torch.ones(4, 256), "residual": None, "weight": torch.ones(256),
            "output_scale": torch.empty(4, 1),
        }  # fmt: skip
        given |= changes
        ctx.ccl.all_reduce_rmsnorm(**given)
        return given

    memory = torch.empty(4, 256)
    for changes, message in (
        ({"output_scale": None}, "output_scale: expected a float32 tensor, .* got None"),
        ({"output": torch.empty(4, 256)}, "output: expected dtype float8_e4m3fn, .* got float32"),
        ({"output_scale": torch.empty(4, 3)}, "output_scale: expected 4 elements, .* got 12"),
        ({"output_scale": torch.empty(4, 1).double()}, "output_scale: expected dtype float32, got"),
        ({"output_scale": torch.empty(8, 1)[::2]}, "output_scale: expected a contiguous tensor"),
        ({"output": torch.empty(3, 256).to(FORMATS[0])}, "output: expected 1024 elements"),
        ({"residual_out": memory, "output_scale": memory[0, :4]}, "output_scale: expected memory"),
    ):
        with pytest.raises(ValueError, match=message):
            call(**changes)
    given = call()
    assert (given["output"].float() == 448).all()
