# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A case of every operation on eight emulated GPUs: as many as a node has, each with seven peers.
The architectures take turns: what depends on the number of ranks is the same for all."""

import cases
import machine
import pytest
import test_amd_collectives
import test_amd_decode
import test_amd_messages
import test_amd_plain
import test_amd_products
import torch

F32, F16, BF16 = cases.DTYPES
CASE = cases.Case(33, 47, 29, a="transposed", bias="row")


def sums_of_products(ctx, memory):
    for number, variant in enumerate(cases.VARIANTS):
        dtype = (F16, BF16)[number % 2]
        test_amd_products.check_product(ctx, memory, CASE, variant, dtype, on_heap=number % 2 == 0)


def other_products(ctx, memory):
    test_amd_messages.scattered_products(ctx, memory, [(5, 13, 29, "transposed")], [F16])
    test_amd_messages.gathered_products(ctx, memory, [(33, 47, 29)], [BF16])
    test_amd_messages.joined_operands(ctx, memory, [(7, 20, 9, "row")] * 3, [F16])


def forms(ctx, memory):
    few = cases.Case(8, 70, 40, bias="row")
    for operation in test_amd_decode.OPERATIONS:
        test_amd_decode.check(ctx, memory, operation, few, BF16)
    for operation, options in test_amd_plain.CALLS:
        test_amd_plain.check(ctx, memory, operation, options, cases.Case(9, 31, 21), F16)


def collectives(ctx, memory):
    test_amd_collectives.sums(ctx, memory, [255], [F32, torch.int64])
    test_amd_collectives.moves(ctx, memory, [4099], [BF16])
    test_amd_messages.normalized_sums(ctx, memory, [(5, 129)], [F16])


def messages(ctx, memory):
    test_amd_messages.messages(ctx, memory, [5, test_amd_messages.CHUNK + 1])
    test_amd_messages.remote_memory(ctx, memory, [7001])


BODIES = (sums_of_products, other_products, forms, collectives, messages)
CALLS = [(body, machine.ARCHES[i % len(machine.ARCHES)]) for i, body in enumerate(BODIES)]


@pytest.mark.parametrize(("body", "arch"), CALLS, ids=lambda x: getattr(x, "__name__", x))
def test_eight_gpus(emulated, body, arch):
    emulated(arch, adversarial=0).run(body, 8, deadline=300.0)
