# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Which products and collectives become one operation in compiled graphs, and that they compute
what they did: results and gradients beside the same function without compilation."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from compiled_graphs import Compiled, all_gather_single, reduce_scatter_single
from process_groups import DEVICE, distributed, starts_ranks
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import iris_c.torch
from iris_c.testing import run_ranks
from iris_c.torch import _groups
from iris_c.torch._compile.fusion import fuse, fused_operations

pytestmark = starts_ranks

AR, RS, MAG = "matmul_all_reduce", "matmul_reduce_scatter", "matmul_all_gather"
AGM, GM = "all_gather_matmul", "gathered_matmul"
CASES = {}


def case(shapes, hits, *, gradient_hits=None, dynamic=None, dtype=torch.float32, scale=1):
    """A function of tensors of these shapes, and what is to be in its graphs: without gradients,
    and with them. In shapes, "w" stands for the number of ranks."""

    def note(function):
        CASES[function.__name__] = function, shapes, hits, gradient_hits, dynamic, dtype, scale
        return function

    return note


def all_reduce(x, op="sum", group=None):
    return collectives.all_reduce(x, op, group or dist.group.WORLD)


def scatter(x, dim, op="sum", group=None):
    return reduce_scatter_single(x, op, dim, group or dist.group.WORLD)


def gather(x, dim, group=None):
    return all_gather_single(x, dim, group or dist.group.WORLD)


# ---- product, then all-reduce ----


@case([(6, 8), (8, 5)], {AR: 1}, gradient_hits={AR: 1})
def summed(x, w):
    return all_reduce(x @ w)


@case([(2, 3, 8), (8, 5)], {AR: 1}, gradient_hits={AR: 1}, dynamic=True)
def summed_3d(x, w):
    return all_reduce(x @ w) + 1


@case([(2, 3, 8), (5, 8), (5,)], {AR: 1}, gradient_hits={AR: 1})
def summed_with_bias(x, w, b):
    return all_reduce(F.linear(x, w, b))


@case([(2, 3, 8), (8, 5), (5,)], {AR: 1}, gradient_hits={AR: 1})
def summed_with_added_bias(x, w, b):
    return all_reduce(x @ w + b)


@case([(2, 3, 8), (6, 8)], {AR: 1}, gradient_hits={AR: 1})
def summed_in_another_shape(x, w):
    return all_reduce(F.linear(x, w).view(2, 3, 2, 3).permute(0, 2, 1, 3)).relu()


@case([(6, 8), (5, 8)], {AR: 1}, gradient_hits={AR: 1}, dtype=torch.bfloat16)
def summed_of_cast_weight(x, w):
    return all_reduce(F.linear(x, w.float().to(torch.bfloat16)).t())


@case([(6, 8), (8, 5)], {AR: 1})
def summed_in_place(x, w):
    y = x @ w
    dist.all_reduce(y)
    return y * 2


@case([(6, 8), (8, 8), (8, 5)], {AR: 2}, gradient_hits={AR: 3})
def summed_twice(x, w, v):
    return all_reduce(all_reduce(x @ w) @ v)


@case([(6, 8), (8, 5)], {AR: 1})
def summed_of_changed_input(x, w):
    x.add_(1)
    y = all_reduce(x @ w)
    x.mul_(2)
    return y


# ---- product, then reduce-scatter ----


@case([("w", 3, 8), (8, 5)], {RS: 1}, gradient_hits={RS: 1, AGM: 1})
def scattered_rows(x, w):
    return scatter(x @ w, 0)


@case([(2, "3w", 8), (4, 8), (4,)], {RS: 1}, gradient_hits={RS: 1, AGM: 1})
def scattered_sequence(x, w, b):
    return scatter(F.linear(x, w, b), 1)


@case([(1, "3w", 8), (4, 8)], {RS: 1}, gradient_hits={RS: 1, AGM: 1})
def scattered_sequence_of_one(x, w):
    return scatter(F.linear(x, w), 1)


@case([(2, 3, 8), (8, "2w"), ("2w",)], {RS: 1}, gradient_hits={RS: 1, AGM: 1})
def scattered_columns(x, w, b):
    return scatter(x @ w + b, 2)


@case([(6, 8), (8, "2w")], {RS: 1}, gradient_hits={RS: 1, AGM: 1})
def scattered_columns_as_rows(x, w):
    return scatter((x @ w).t(), 0)


@case([(2, "2w", 8), (8, 5)], {RS: 1}, dynamic=True)
def scattered_sequence_of_any_length(x, w):
    return scatter(x @ w, 1)


@case([("2w", 8), (8, 5)], {RS: 1}, dynamic=True)
def scattered_rows_of_any_number(x, w):
    return scatter(x @ w, 0)


# ---- sums of products ----


@case([(12, 2), (2, 16), (12, 3), (3, 16), (12, 2), (2, 16)], {AR: 1})
def sum_of_three_sums(x, w, y, v, z, u):
    return all_reduce(x @ w) + all_reduce(y @ v) + all_reduce(z @ u)


@case([(2, "8w", 2), (24, 2), (24,), (2, "8w", 2), (24, 2), (24,)], {RS: 1})
def sum_of_scattered_sequences(x, w, b, y, v, c):
    return (scatter(F.linear(x, w, b), 1) + scatter(F.linear(y, v, c), 1)).relu()


@case([(24, 8, 20), (20, 2), (20, 2), (20, 2)], {AGM: 1}, gradient_hits={AGM: 1, RS: 1})
def gathered_for_three_and_back(x, w, v, u):
    """The gradients of what is gathered are added up before they are scattered."""
    x = gather(x, 1)
    return (x @ w).sin() * (x @ v) + x @ u


@case([(12, 2), (2, 16), (12, 2), (2, 16), (16,)], {AR: 1}, dynamic=True)
def sum_of_products(x, w, y, v, b):
    return all_reduce(x @ w + torch.addmm(b, y, v)).relu()


@case([(12, 2), (2, 16), (12, 2), (2, 16), (12, 16)], {})
def sum_of_products_and_more(x, w, y, v, z):
    return all_reduce(x @ w + y @ v + z)


@case([(12, 2), (2, 16), (12, 2), (2, 16)], {AR: 2})
def sum_of_a_sum_and_one_turned_over(x, w, y, v):
    return all_reduce(x @ w).reshape(16, 12) + all_reduce(y @ v).t()


@case([(12, 2), (2, 16), (12, 2), (2, 16)], {AR: 2})
def sum_of_sums_used_besides(x, w, y, v):
    y = all_reduce(y @ v)
    return all_reduce(x @ w) + y, y


@case([(12, 2), (2, 16), (12, 2), (2, 16)], {AR: 2})
def scaled_sum_of_sums(x, w, y, v):
    return torch.add(all_reduce(x @ w), all_reduce(y @ v), alpha=2)


@case([(12, 2), (2, 16)], {AR: 1})
def sum_of_a_sum_and_itself(x, w):
    y = all_reduce(x @ w)
    return y + y


@case([(2, 64), (64, 3), (2, 64), (64, 3)], {AR: 2})
def sum_of_long_products(x, w, y, v):
    return all_reduce(x @ w) + all_reduce(y @ v)


# ---- gather, then product ----


@case([(3, 8), (8, 5)], {GM: 1}, gradient_hits={AGM: 1, RS: 1})
def gathered_rows(x, w):
    return gather(x, 0) @ w


@case([(2, 3, 8), (5, 8), (5,)], {GM: 1}, gradient_hits={AGM: 1, RS: 1})
def gathered_sequence(x, w, b):
    return F.linear(gather(x, 1), w, b)


@case([(2, 3, 4), ("4w", 5)], {GM: 1}, gradient_hits={AGM: 1, RS: 1})
def gathered_columns(x, w):
    return gather(x, 2) @ w


@case([(3, 8), (8, 5)], {GM: 1}, gradient_hits={AGM: 1, RS: 1}, dynamic=True)
def gathered_rows_of_any_number(x, w):
    return gather(x, 0) @ w


@case([(2, 3, 8), (8, 5)], {GM: 1}, dynamic=True)
def gathered_sequence_of_any_length(x, w):
    return gather(x, 1) @ w


@case([(6, 8), (3, 8), ("3w",)], {GM: 1}, gradient_hits={AGM: 1, RS: 1})
def gathered_weight(x, w, b):
    return F.linear(x, gather(w, 0), b)


@case([(6, "2w"), (2, 5)], {GM: 1}, gradient_hits={RS: 1})
def gathered_second_operand(x, w):
    return x @ gather(w, 0)


@case([(2, 3, 8), (8, 4), (8, 6)], {AGM: 1})
def gathered_for_two(x, w, v):
    x = gather(x, 1)
    return x @ w, x @ v


@case([(2, 3, 8), (8, 4), (8, 6)], {AGM: 1})
def gathered_twice_for_two(x, w, v):
    return gather(x, 1) @ w, gather(x, 1) @ v


@case([(2, 3, 4), ("4w", 4), ("4w", 6)], {AGM: 1})
def gathered_columns_for_two(x, w, v):
    x = gather(x, 2)
    return x @ w + 1, x @ v, x.sin()


@case([(3, 8), (8, 8)], {AGM: 1})
def gathered_and_used(x, w):
    x = gather(x, 0)
    return x.cos(), x @ w + x


@case([(3, 8), (8, 2), (2, 16)], {AGM: 1})
def gathered_for_one_after_another(x, w, v):
    """The larger product needs the smaller one's result, and what is gathered besides."""
    x = gather(x, 0)
    return x @ (x.t() @ (x @ w) @ v)


# ---- product, then gather ----


@case([(3, 8), (8, 5), (5,)], {MAG: 1})
def product_gathered(x, w, b):
    return gather(torch.addmm(b, x, w), 0)


@case([(2, 3, 8), (5, 8)], {MAG: 1})
def product_gathered_in_columns(x, w):
    return gather(F.linear(x, w), 2)


# ---- all of them ----


@case([(2, 2, 8), (8, 6), (6, 8)], {GM: 1, RS: 1}, gradient_hits={AGM: 2, RS: 2})
def a_sequence_parallel_mlp(x, w, v):
    return x + scatter(F.gelu(gather(x, 1) @ w) @ v, 1)


# ---- what is left as it is ----


@case([(6, 8), (8, 5)], {})
def product_used_besides(x, w):
    y = x @ w
    return all_reduce(y), y.sum()


@case([(6, 8), (8, 5)], {})
def view_of_product_used_besides(x, w):
    y = x @ w
    return all_reduce(y), y.view(5, 6) * 2


@case([(6, 8), (8, 5)], {})
def product_used_besides_its_view(x, w):
    y = x @ w
    return all_reduce(y.view(5, 6)), y.sin()


@case([(12, 2), (2, 16), (12, 2), (2, 16)], {AR: 2})
def sum_of_sums_of_other_dimensions(x, w, y, v):
    return all_reduce(x @ w).view(-1, 1) + all_reduce(y @ v).view(1, -1)


@case([(6, 8), (8, 5)], {})
def largest(x, w):
    return all_reduce(x @ w, "max")


@case([("w", 8), (8, 5)], {})
def least_scattered(x, w):
    return scatter(x @ w, 0, "min")


@case([(6, 8), (8, 5)], {}, dtype=torch.float64)
def of_float64(x, w):
    return all_reduce(x @ w)


@case([(6, 8), (8, 5)], {}, dtype=torch.int64, scale=9)
def of_integers(x, w):
    return all_reduce(x @ w)


@case([(2, 6, 8), (2, 8, 5)], {})
def of_batches(x, w):
    return all_reduce(torch.bmm(x, w))


@case([(6, 8), (8, 5)], {})
def changed_before_the_sum(x, w):
    return all_reduce((x @ w).relu())


@case([(6, 8), (8, 5)], {})
def cast_before_the_sum(x, w):
    return all_reduce((x @ w).double())


@case([(6, 8), (8, 5)], {})
def part_of_a_product(x, w):
    return all_reduce((x @ w)[1:])


@case([(6, 8), (8, 5), (6, 5)], {})
def with_a_whole_matrix_added(x, w, b):
    return all_reduce(torch.addmm(b, x, w))


@case([(6, 8), (8, 5), (5,)], {})
def with_a_scaled_bias(x, w, b):
    return all_reduce(torch.addmm(b, x, w, beta=2, alpha=0.5))


@case([(6, 6), (6, 6), (6,)], {})
def with_a_bias_of_rows(x, w, b):
    return all_reduce((x @ w).t() + b)


@case([(0, 8), (8, 5)], {})
def of_no_rows(x, w):
    return all_reduce(x @ w)


@case([(6, 8), (8, "4w")], {})
def heads_scattered_inside(x, w):
    """The parts are neither rows nor columns of the product."""
    return scatter((x @ w).view(6, 4, -1), 2)


@case([(2, 3, 8), (8, 5)], {})
def parts_put_together_in_another_order(x, w):
    parts = gather(x, 0).chunk(dist.get_world_size())
    return torch.cat(parts[::-1], 1) @ w


@case([("2w", "2w", 4), (4, 5)], {})
def parts_of_another_dimension(x, w):
    return scatter(torch.cat((x @ w).chunk(dist.get_world_size(), 0), 1), 0)


@case([(3, 8)], {})
def gathered_without_a_product(x):
    return gather(x, 0).sin()


@case([(3, 8)], {})
def times_itself(x):
    x = gather(x, 0)
    return x.t() @ x


@case([(2, 3, 4), (2, "3w", 5)], {})
def gathered_inner_dimension_in_another_order(x, y):
    """Rows that are not in the order of the ranks are what is summed over."""
    return gather(x, 1).flatten(0, 1).t() @ y.flatten(0, 1)


def sized(shape, world):
    return [size if isinstance(size, int) else int(size[:-1] or 1) * world for size in shape]


def tensors(name, world, gradient=False):
    _, shapes, _, _, _, dtype, scale = CASES[name]
    generator = torch.Generator(torch.get_default_device()).manual_seed(dist.get_rank() + 10)
    drawn = [torch.randn(sized(s, world), generator=generator, dtype=torch.float64) for s in shapes]
    return [(x * scale).to(dtype).requires_grad_(gradient) for x in drawn]


def close(actual, expected):
    tolerance = {torch.bfloat16: 0.2, torch.float16: 0.02, torch.float32: 1e-4}
    for one, other in zip(actual, expected, strict=True):
        limit = tolerance.get(other.dtype, 1e-9)
        torch.testing.assert_close(one, other, rtol=limit, atol=limit)


def outputs(result):
    return list(result) if isinstance(result, tuple) else [result]


def gradients(function, args):
    results = outputs(function(*args))
    generator = torch.Generator(torch.get_default_device()).manual_seed(dist.get_rank() + 50)
    weights = [torch.randn(x.shape, generator=generator).to(x.dtype) for x in results]
    found = torch.autograd.grad(results, args, weights)
    return [x.detach() for x in (*results, *found)]


def faults_of(name, world):
    """What is wrong with a case, if anything is."""
    function, _, hits, gradient_hits, dynamic, _, _ = CASES[name]
    compiled = Compiled(function, dynamic=dynamic)
    with torch.no_grad():
        close(outputs(compiled(*tensors(name, world))), outputs(function(*tensors(name, world))))
    found = []
    if compiled.hits != hits:
        found.append(f"{name}: {compiled.hits}, not {hits}, in\n{compiled}")
    if gradient_hits is not None:
        expected = gradients(function, tensors(name, world, True))
        compiled = Compiled(function, dynamic=dynamic)
        close(gradients(compiled, tensors(name, world, True)), expected)
        if compiled.hits != gradient_hits:
            found.append(f"{name}: {compiled.hits}, not {gradient_hits}, in\n{compiled}")
    return found


@distributed
def _results(rank, names):
    found = []
    for name in names:
        try:
            found += faults_of(name, dist.get_world_size())
        except AssertionError as error:
            raise AssertionError(name) from error
    assert not found, "\n".join(found)


def overwritten_before_the_product(x, w):
    gathered = gather(x, 0)
    x.zero_()
    return gathered @ w


def overwritten_before_the_sum(x, w):
    product = x @ w
    product.view(-1).zero_()
    return all_reduce(product)


def bias_overwritten_before_the_product(x, w, b):
    y = gather(x, 0)
    b[0].fill_(3)
    return torch.addmm(b, y, w), y


def overwritten_afterwards(x, w):
    y = all_reduce(x @ w)
    x.zero_()
    return y


@distributed
def _overwritten(rank):
    """In graphs that are not made functional, as compiled ones are."""
    for function, hits in (
        (overwritten_before_the_product, {}),
        (overwritten_before_the_sum, {}),
        (bias_overwritten_before_the_product, {}),
        (overwritten_afterwards, {AR: 1}),
    ):
        count = function.__code__.co_argcount
        args = [torch.randn(shape) for shape in ((6, 8), (8, 5), (5,))[:count]]
        traced = make_fx(function, tracing_mode="fake")(*[x.clone() for x in args])
        expected = traced(*[x.clone() for x in args])
        fuse(traced.graph)
        traced.graph.lint()
        traced.recompile()
        assert fused_operations(traced.graph) == hits, traced.graph
        close(outputs(traced(*[x.clone() for x in args])), outputs(expected))


def test_of_overwritten_operands(tmp_path):
    run_ranks((__name__, "_overwritten"), 2, str(tmp_path / "store"), deadline=120)


def test_of_two_ranks(tmp_path):
    run_ranks((__name__, "_results"), 2, str(tmp_path / "store"), list(CASES), deadline=300)


def _in_worlds_after_another(store):
    """The second world's group has the first one's name; there it is the other ranks' turn. In the
    third there is a context for it already, which is taken, and whose end is told."""
    rank = int(os.environ["RANK"])
    function, shapes = CASES["scattered_rows"][:2]
    torch.manual_seed(rank)
    args = [torch.randn(sized(shape, 2)) for shape in shapes]
    for turn in range(3):
        place = 1 - rank if turn == 1 else rank
        dist.init_process_group("gloo", f"file://{store}{turn}", rank=place, world_size=2)
        if turn == 2:
            ctx = iris_c.torch.init(heap_size=1 << 24)
            names = set(_groups._contexts)
        compiled = Compiled(function)
        close([compiled(*args)], [function(*args) + 0])
        assert compiled.hits == {RS: 1}
        if turn == 2:
            assert _groups.context("process group " + dist.group.WORLD.group_name) is ctx
            assert len(names | set(_groups._contexts)) <= len(names) + 1
            dist.barrier()
            ctx.close()
            with pytest.raises(RuntimeError, match=r"named 'process group .' is closed"):
                compiled(*args)
        dist.barrier()
        dist.destroy_process_group()


def test_of_groups_of_one_name(tmp_path):
    run_ranks((__name__, "_in_worlds_after_another"), 2, str(tmp_path / "store"), deadline=120)


FOR_FOUR = [
    "summed_with_bias",
    "scattered_sequence",
    "scattered_columns",
    "gathered_for_two",
    "gathered_weight",
    "product_gathered",
    "a_sequence_parallel_mlp",
    "parts_put_together_in_another_order",
]


@distributed
def _results_of_four(rank, names):
    _results.__wrapped__(rank, names)
    _in_groups_of_two(rank)
    _means(rank)


def _in_groups_of_two(rank):
    """Each group has its context; a gather by one, whose parts are those of another number of
    ranks, is none that a fused operation does."""
    mesh = dist.init_device_mesh(DEVICE, (2, 2), mesh_dim_names=("dp", "tp"))
    x, w = torch.randn(4, 8), torch.randn(8, 5)

    def of_both(x, w):
        y = all_reduce(x @ w, group=(mesh, 1))
        return all_reduce(y @ w.t(), group=mesh["dp"].get_group())

    compiled = Compiled(of_both)
    close([compiled(x, w)], [of_both(x, w)])
    assert compiled.hits == {AR: 2}
    names = sorted(name for name in _groups._contexts if name.startswith("process group"))
    assert len(names) == 3, names  # and the world's
    assert [_groups.context(name).world_size for name in names].count(2) == 2

    def in_other_parts(x, w):
        parts = gather(x, 0, mesh["tp"].get_group()).chunk(4)
        return torch.cat(parts, 1) @ torch.cat([w] * 4)

    compiled = Compiled(in_other_parts)
    close([compiled(x, w)], [in_other_parts(x, w)])
    assert compiled.hits == {}


def _means(rank):
    """A mean of float16 may be a number where the sum is none."""
    for dtype, hits in ((torch.float32, {AR: 1, RS: 1}), (torch.float16, {})):
        x, w = torch.randn(4, 8).to(dtype), torch.randn(8, 5).to(dtype)

        def function(x, w):
            return all_reduce(x @ w, "avg"), scatter(x @ w.abs(), 0, "avg")

        compiled = Compiled(function)
        close(compiled(x, w), function(x, w))
        assert compiled.hits == hits


def test_of_four_ranks(tmp_path):
    run_ranks((__name__, "_results_of_four"), 4, str(tmp_path / "store"), FOR_FOUR, deadline=300)
