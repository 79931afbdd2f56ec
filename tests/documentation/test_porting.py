# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What docs/porting.md says of calls that are written as another system has them: which fail, and
that their messages name the argument. Its recipes run with the other examples."""

import pytest
import torch

import iris_c
from iris_c.testing import ranks


def full_size_reduce_scatter(ctx):
    ctx.ccl.reduce_scatter(torch.empty(4, 4), torch.ones(4, 4))


def full_size_product_reduce_scatter(ctx):
    ctx.ops.matmul_reduce_scatter(torch.empty(4, 4), torch.ones(4, 6), torch.ones(6, 4))


def gather_along_k_by_default(ctx):
    ctx.ops.all_gather_matmul(torch.empty(4, 4), torch.ones(4, 3), torch.ones(6, 4))


def reduce_scatter_in_place(ctx):
    x = torch.ones(4, 4)
    ctx.ccl.reduce_scatter(x[2 * ctx.rank : 2 * ctx.rank + 2], x)


def send_buffer_first(ctx):
    ctx.ccl.all_gather(torch.empty(4, 4), torch.empty(8, 4))


def norm_as_result(ctx):
    ctx.ccl.all_reduce_rmsnorm(torch.ones(4, 8), torch.ones(4, 8), torch.ones(8))


def group_as_op(ctx):
    ctx.ccl.all_reduce(torch.empty(4), torch.ones(4), [0, 1])


def group_third(ctx):
    ctx.ccl.all_gather(torch.empty(8), torch.ones(4), [0, 1])


def group_fourth(ctx):
    ctx.ccl.all_reduce(torch.empty(4), torch.ones(4), "sum", [0, 1])


def group_of_a_device_barrier(ctx):
    ctx.device_barrier([0, 1])


def tagged(ctx):
    ctx.ccl.send(torch.ones(4), 1 - ctx.rank, tag=0)


def asynchronous_in_the_place_of_bias(ctx):
    ctx.ops.matmul_all_reduce(ctx.empty(4, 4), torch.ones(4, 6), torch.ones(6, 4), True)


REFUSED = [
    (full_size_reduce_scatter, ValueError, "input: expected 32 elements"),
    (full_size_product_reduce_scatter, ValueError, r"C: expected shape \(2, 4\)"),
    (gather_along_k_by_default, ValueError, "B: expected 3 rows"),
    (reduce_scatter_in_place, ValueError, "output: expected memory apart from input"),
    (send_buffer_first, ValueError, "output: expected 64 elements"),
    (norm_as_result, TypeError, "'residual' and 'weight'"),
    (group_as_op, TypeError, "op: expected a str"),
    (group_third, TypeError, "async_op: expected a bool"),
    (group_fourth, TypeError, "async_op: expected a bool"),
    (group_of_a_device_barrier, TypeError, "stream: expected"),
    (tagged, TypeError, "tag"),
    (asynchronous_in_the_place_of_bias, TypeError, "bias: expected a tensor"),
]


@ranks(2)
def test_calls_of_other_systems_are_refused(ctx):
    for call, error, message in REFUSED:
        with pytest.raises(error, match=message):
            call(ctx)
    ctx.barrier()


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *((iris_c.FusedConfig, name) for name in ("allow_tf32", "chunk_size", "cache_modifier_a")),
        (iris_c.FusedConfig, "all_reduce_num_rings"),
        (iris_c.ccl.Config, "swizzle_size"),
    ],
)
def test_fields_that_are_not_here(kind, field):
    with pytest.raises(TypeError, match=field):
        kind(**{field: 1})
