# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Products of float8 operands with scales by the shipped code objects, on emulated GPUs: FNUZ
formats on gfx942, those of the OCP on gfx950, none on gfx90a."""

import itertools

import cases
import float8
import pytest
import torch

import iris_c

FORMATS = {"gfx942": float8.FNUZ, "gfx950": float8.OCP}
# Scales of A and of B: one, one for each row or column, of lines and of squares of 128.
KINDS = [("tensor", "tensor"), ("row", "row"), ("line", "square"), ("square", "line"),
         ("row", "line"), ("tensor", "square")]  # fmt: skip
SHAPES = [(1, 1, 1), (33, 47, 150), (130, 260, 200), (64, 144, 384), (128, 128, 64)]


class Operand:
    """A rank's A, or its B turned over, (mn, k), with its scales."""

    def __init__(self, name, mn, k, dtype, kind):
        self.values = float8.drawn(name, mn, k).to(dtype)
        self.scale = float8.drawn_scale(f"scale {name}", kind, mn, k)
        self.exact = self.values.double() * float8.spread(self.scale, mn, k)


def passed(memory, values, layout="row"):
    return memory.passed(
        cases.laid_out(*values.shape, layout, lambda *s: memory.ordinary(*s, dtype=values.dtype))
        .view(torch.uint8 if values.dtype.itemsize == 1 else values.dtype)
        .copy_(values.view(torch.uint8) if values.dtype.itemsize == 1 else values)
        .view(values.dtype)
    )


def check(ctx, memory, operation, shape, kinds, formats, dtype, number=0, variant="two_shot",
          layouts=None):  # fmt: skip
    """One call and its result, on this rank; A's and B's layouts unless they are given, bias and
    C's place by the number."""
    (M, N, K), world = shape, ctx.world_size
    dim = number // 2 % 2 if "scatter" in operation or operation in cases.GATHERED else 0
    if operation == "matmul_reduce_scatter":
        M, N = (M * world, N) if dim == 0 else (M, N * world)
    by_k = operation in cases.GATHERED and dim == 1
    if by_k and kinds[1] in ("line", "square"):
        K = float8.BLOCK * float8.blocks(K)
    inner = K * world if by_k else K
    name = f"{operation}{shape}{kinds}{formats}"
    A = [Operand(f"A{r}{name}", M, K, formats[0], kinds[0]) for r in range(world)]
    # B is each rank's own, but for a gathered A, whose product all ranks have alike.
    B = [Operand(f"B{0 if by_k else r}{name}", N, inner, formats[1], kinds[1])
         for r in range(world)]  # fmt: skip
    expected, sizes, partials = float8.reference(
        operation, ctx.rank, [x.exact for x in A], [x.exact.t() for x in B], dim
    )
    if operation == "matmul_all_gather":
        partials = expected.abs()  # rounded before the bias is added
    keywords = {"config": iris_c.FusedConfig(form="tiles")}
    if operation == "matmul_all_reduce":
        keywords["config"] = iris_c.FusedConfig(form="tiles", all_reduce_variant=variant)
    elif operation == "matmul_reduce_scatter":
        keywords["dim"] = dim
    elif operation != "matmul_all_gather":
        keywords["gather_dim"] = dim
    if number % 2 == 0 and operation != "matmul_reduce_scatter":
        bias = float8.drawn("bias", 1, N).to(dtype)
        keywords["bias"] = passed(memory, bias)
        expected = expected + bias.double()
    place = memory.heap if number % 3 else memory.ordinary
    C = place(*expected.shape, dtype=dtype)
    cases.poisoned(C)
    if layouts is None:
        each = ("row", "transposed", "strided")
        layouts = each[number % 3], each[(number + 1) % 3]
    getattr(ctx.ops, operation)(
        memory.passed(C),
        passed(memory, A[ctx.rank].values, layouts[0]),
        passed(memory, B[ctx.rank].values.t(), layouts[1]),
        scale_a=passed(memory, A[ctx.rank].scale), scale_b=passed(memory, B[ctx.rank].scale.t()),
        **keywords,
    )  # fmt: skip
    memory.library.hipDeviceSynchronize()
    bound = float8.bound(partials, sizes, expected, dtype, inner, world)
    cases.check_close(C, expected, bound, f"rank {ctx.rank} {dim} {variant} {dtype} {name}")
    ctx.barrier()
    memory.release()


def every_kind(ctx, memory, formats, operations):
    """All kinds of scales with shapes, formats and dtypes of C in turn."""
    pairs = itertools.cycle(itertools.product(formats, formats))
    shapes, dtypes = itertools.cycle(SHAPES), itertools.cycle((torch.bfloat16, torch.float16))
    number = 0
    for operation in operations:
        for kinds in KINDS:
            check(ctx, memory, operation, next(shapes), kinds, next(pairs), next(dtypes), number)
            number += 1


def every_variant(ctx, memory, formats):
    for number, variant in enumerate(cases.VARIANTS):
        for kinds in (("row", "row"), ("line", "square")):
            check(ctx, memory, "matmul_all_reduce", (70, 150, 200), kinds, formats,
                  torch.bfloat16, number, variant)  # fmt: skip


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("arch", FORMATS)
def test_matches_float64(emulated, arch, world_size):
    emulated(arch, adversarial=0).run(every_kind, world_size, FORMATS[arch], cases.PRODUCTS)


@pytest.mark.parametrize("arch", FORMATS)
def test_memory_may_be_as_late_as_it_can(emulated, arch):
    gpus = emulated(arch, adversarial=1, order="random", seed=3)
    gpus.run(every_kind, 2, FORMATS[arch], cases.PRODUCTS[::2])
    gpus.run(every_variant, 2, FORMATS[arch])


def refused(ctx, memory, wrong):
    """Calls with (dtypes of A, B and C, trace), and what each is refused with; C stays."""
    one = passed(memory, torch.ones(1, 1))
    M, N, K = 4, 4 * ctx.world_size, 8
    for (a, b, c, trace), words in wrong:
        A = passed(memory, float8.drawn("A", M, K).to(a))
        B = passed(memory, float8.drawn("B", K, N).to(b))
        for operation, name in (("matmul_all_reduce", "A"), ("all_gather_matmul", "A_shard")):
            rows = M * ctx.world_size if name == "A_shard" else M
            C = cases.poisoned(memory.heap(rows, N, dtype=c))
            with pytest.raises(ValueError) as error:
                getattr(ctx.ops, operation)(
                    memory.passed(C), A, B, scale_a=one, scale_b=one, trace=trace
                )
            assert str(error.value) == words.replace("{A}", name), str(error.value)
            assert C.isnan().all()
    ctx.barrier()


@pytest.mark.parametrize("arch", ["gfx90a", *FORMATS])
def test_what_a_chip_does_not_take_is_refused(emulated, arch):
    """By name: gfx90a takes no float8 at all, each of the others one kind of it, into no float32
    and without traces."""
    taken, formats = FORMATS.get(arch, ()), float8.FORMATS
    bf16, f32 = torch.bfloat16, torch.float32
    names = {dtype: str(dtype).removeprefix("torch.") for dtype in (*formats, bf16)}
    listed = " or ".join(names[dtype] for dtype in taken)
    every = f"float32, float16, bfloat16, {listed}" if taken else "float32, float16 or bfloat16"
    wrong = []
    for a in formats:
        if a not in taken:
            what = f"{{A}}: expected dtype {every} on {arch}, got {names[a]}"
            wrong += [((a, a, c, trace), what) for c in (bf16, f32) for trace in (False, True)]
            continue
        wrong += [
            ((a, b, bf16, False),
             f"B: expected dtype {listed}, as {{A}} is {names[a]}, got {names[b]}")
            for b in names if b not in taken
        ]  # fmt: skip
        where = f"{arch}, as {{A}} is {names[a]}"
        what = f"C: expected dtype float16 or bfloat16 on {where}, got float32"
        wrong.append(((a, taken[0], f32, False), what))
        what = f"trace: expected False on {where}, of which it has no traced kernels, got True"
        wrong.append(((a, taken[1], bf16, True), what))
    emulated(arch).run(refused, 2 if arch == "gfx942" else 1, wrong)
