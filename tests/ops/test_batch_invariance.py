# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""batch_invariant: a row has the same bits whatever M it came in and whatever stood beside it."""

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks

INVARIANT = iris_c.FusedConfig(batch_invariant=True)
SIZES = (1, 2, 3, 7, 16, 33, 64, 130, 300)
ON_GPUS = (256, 520, 1024, 2048, 4096)


def rows_of(ctx, operation, options, rows, config, N=200, K=136, dtype=torch.bfloat16):
    """What becomes of the first `rows` of every rank's A, those of the first rank where results
    have those of all; of a scattered result this rank's."""
    world, rank = ctx.world_size, ctx.rank
    divides = operation == "matmul_reduce_scatter"
    cols = N * world if divides else N
    inner = K * world if options.get("gather_dim") == 1 else K
    most = max((*SIZES, *ON_GPUS)) * (world if options.get("dim") == 0 else 1)
    A = cases.contribution(rank, most * K, dtype).view(most, K)
    if options.get("dim") == 0:  # the rows of each rank's share are the first of its own part
        A = A.view(world, -1, K)[:, :rows].reshape(world * rows, K)
    A = torch.empty(A[: rows * (world if options.get("dim") == 0 else 1)].shape, dtype=dtype).copy_(
        A[: rows * (world if options.get("dim") == 0 else 1)]
    )
    B = torch.empty(inner, cols, dtype=dtype)
    B.copy_(cases.contribution(50 + rank, inner * cols, dtype).view(inner, cols))
    by_rows = operation == "matmul_all_gather" or options.get("gather_dim") == 0
    C = cases.poisoned(
        torch.empty(rows * world if by_rows else rows, cols // world if options.get("dim") == 1
                    else cols, dtype=dtype)
    )  # fmt: skip
    getattr(ctx.ops, operation)(C, A, B, config=config, **options)
    return C[:rows]


def same_bits(left, right):
    return torch.equal(left.contiguous().view(torch.int16), right.contiguous().view(torch.int16))


@pytest.mark.parametrize(("operation", "options"), cases.CALLS, ids=str)
@ranks(1, 2, 3, deadline=120)
def test_rows_do_not_depend_on_their_number(ctx, operation, options):
    sizes = SIZES if ctx.backend == "cpu" else (*SIZES, *ON_GPUS)
    for dtype in (torch.bfloat16, torch.float16):
        alone = [rows_of(ctx, operation, options, rows, INVARIANT, dtype=dtype) for rows in sizes]
        for rows, result in zip(sizes, alone, strict=True):
            assert same_bits(result, alone[-1][:rows]), (rows, dtype)


@ranks(2)
def test_the_process_can_be_told(ctx):
    """Then calls without a config are, and those that say otherwise are not."""
    wanted = rows_of(ctx, "matmul_all_reduce", {}, 33, INVARIANT)
    assert iris_c.set_batch_invariant(True) is False
    try:
        assert ctx.ops.select_config(8, 64, 64, "bfloat16").batch_invariant is True
        assert same_bits(rows_of(ctx, "matmul_all_reduce", {}, 33, None), wanted)
        with pytest.raises(ValueError, match=r"^form: expected 'tiles' or None with batch_inv"):
            rows_of(ctx, "matmul_all_reduce", {}, 2, iris_c.FusedConfig(form="plain"))
        own = iris_c.FusedConfig(form="plain", batch_invariant=False)
        rows_of(ctx, "matmul_all_reduce", {}, 2, own)
    finally:
        assert iris_c.set_batch_invariant(False) is True
    with pytest.raises(TypeError, match="invariant: expected a bool, got int"):
        iris_c.set_batch_invariant(1)
    with pytest.raises(TypeError, match="batch_invariant: expected a bool or None, got int"):
        iris_c.FusedConfig(batch_invariant=1).validate()


@ranks(2)
def test_what_cannot_be_invariant_is_refused(ctx):
    for variant in ("atomic", "spinlock"):
        config = iris_c.FusedConfig(all_reduce_variant=variant, batch_invariant=True)
        with pytest.raises(ValueError, match=r"^all_reduce_variant: expected 'two_shot', 'one_s"):
            rows_of(ctx, "matmul_all_reduce", {}, 2, config)


def test_one_form_and_one_width_for_any_number_of_rows():
    for operation, _ in cases.CALLS:
        chosen = set()
        for M in (8, 64, 512, 4096, 32768):
            for arch in ("sm_90a", "gfx942"):
                explanation = iris_c.ops.explain(
                    operation, M, 8192, 8192, "bfloat16", 4, arch, INVARIANT
                )
                fields = {d.field for d in explanation.decisions}
                assert not fields & {"form", "block_size_n"}, (operation, M, arch)
                chosen.add(tuple(fields))


@ranks(2, 4)
def test_collectives_reduce_an_element_alike_wherever_it_stands(ctx):
    values = cases.contribution(ctx.rank, 1 << 18, torch.bfloat16)
    source = torch.empty(1 << 18, dtype=torch.bfloat16).copy_(values)
    whole = torch.empty_like(source)
    ctx.ccl.all_reduce(whole, source)
    for n in (1, 7, 130, 5000, 70000):
        part = torch.empty(n, dtype=torch.bfloat16)
        ctx.ccl.all_reduce(part, source[100 : 100 + n].clone())
        assert same_bits(part, whole[100 : 100 + n]), n
