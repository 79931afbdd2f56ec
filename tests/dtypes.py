# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Inputs and references of dtypes that are seldom reduced, on the host."""

import torch

RARE = (torch.float64, torch.int8, torch.uint8, torch.bool)


def drawn(rank, n, dtype, salt=0):
    """Random bits, or what bool has."""
    generator = torch.Generator().manual_seed(1009 * rank + salt)
    high = 2 if dtype == torch.bool else 256
    values = torch.randint(
        0, high, (n * dtype.itemsize,), generator=generator, dtype=torch.uint8, device="cpu"
    )
    return values.view(dtype)


def reference(world, n, dtype, op, salt):
    """What the ranks' inputs are reduced to, and the bound of its error."""
    inputs = torch.stack([values(r, n, dtype, salt) for r in range(world)])
    if dtype == torch.bool:
        result = inputs.any(0) if op in ("sum", "max") else inputs.all(0)
        return result, torch.zeros(n, device="cpu")
    result = {
        "sum": lambda: inputs.sum(0, dtype=dtype),
        "max": lambda: inputs.amax(0),
        "min": lambda: inputs.amin(0),
        "prod": lambda: inputs.prod(0, dtype=dtype),
        "avg": lambda: (
            inputs.mean(0)
            if dtype == torch.float64
            else torch.div(inputs.long().sum(0), world, rounding_mode="trunc").to(dtype)
        ),
    }[op]()
    if dtype != torch.float64 or op in ("max", "min"):
        return result, torch.zeros(n, device="cpu")
    magnitude = result.abs() if op == "prod" else inputs.abs().sum(0)
    return result, 2.0**-52 * world * magnitude


def values(rank, n, dtype, salt):
    """Of the whole range, on the host; floating point around 1."""
    if dtype != torch.float64:
        return drawn(rank, n, dtype, salt)
    generator = torch.Generator().manual_seed(1009 * rank + salt)
    return 1.0 + torch.randn(n, generator=generator, dtype=dtype, device="cpu")


def check(output, world, dtype, op, salt, what):
    expected, bound = reference(world, output.numel(), dtype, op, salt)
    if dtype == torch.bool:  # whose true is 1, not any byte
        output, expected = output.view(torch.uint8), expected.view(torch.uint8)
    error = (output.cpu().double() - expected.double()).abs()
    wrong = (error > bound).nonzero().flatten()
    assert wrong.numel() == 0, (
        f"{what} {dtype} {op}: element {int(wrong[0])} is {output.cpu()[wrong[0]]}, expected "
        f"{expected[wrong[0]]}"
    )
