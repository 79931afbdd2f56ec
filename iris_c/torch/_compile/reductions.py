# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A product, then a sum over ranks: matmul_all_reduce, matmul_reduce_scatter.

The elements of the product are summed one by one, so it does not matter in which shape; for a
reduce-scatter it matters which of them belong to which rank. torch scatters the first dimension:
where another one is meant, its parts are put one below the other first. Parts that are columns, or
one below the other in the product too, fused operations have as they are; otherwise the rows of A
are put in that order instead.

A bias is added by each rank, so the sum has the sum of the ranks' biases, which is summed apart.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from iris_c.torch._compile.graphs import (
    RESHAPING,
    Builder,
    Layout,
    aten,
    depends,
    equal,
    erase_unused,
    is_call,
    number_of,
    only_user,
    splits,
    stands_for,
    users,
    value,
    without_copies,
    written_before,
)
from iris_c.torch._compile.groups import Ranks, ranks_of
from iris_c.torch._compile.products import (
    Product,
    fused_call,
    has_one,
    product_behind,
    with_sizes_of_operands,
)

c10d = torch.ops._c10d_functional
iris_c = torch.ops.iris_c
ALL_REDUCES = {c10d.all_reduce.default, c10d.all_reduce_.default}
# Of these, a mean is a sum times a power of two, exactly: sums do not come near the largest number.
_EXACT_MEANS = {torch.float32, torch.bfloat16}


class Parts(NamedTuple):
    """What a reduce-scatter scatters: a dimension of a tensor, and how its parts are put together
    in between."""

    tensor: Node
    dim: int
    nodes: list[Node]


def fuse_reductions(graph: Graph) -> None:
    """Replace the products of a graph that are summed over ranks."""
    for node in list(graph.nodes):
        if is_call(node, *ALL_REDUCES) and len(node.args) == 3:
            _fuse_all_reduce(node)
        elif is_call(node, c10d.reduce_scatter_tensor.default) and len(node.args) == 4:
            _fuse_reduce_scatter(node)


def _waits(collective: Node) -> list[Node] | None:
    """The nodes that wait for a collective, if nobody else uses it."""
    waits = list(collective.users)
    return waits if all(is_call(node, c10d.wait_tensor.default) for node in waits) else None


def _scale(op: object, dtype: torch.dtype, ranks: Ranks) -> float | None:
    """What a sum is to be multiplied by to be the reduction, if it can be."""
    if op == "sum":
        return 1.0
    world = ranks.world_size
    if op == "avg" and world & (world - 1) == 0 and dtype in _EXACT_MEANS:
        return 1.0 / world
    return None


def _is_free(collective: Node, product: Product, path: list[Node]) -> bool:
    """Whether the collective can take place where the product does."""
    return not written_before([*product.operands, *path], collective)


def _finish(product: Product, path: list[Node], fused: Node) -> None:
    """Have the users of a product use the fused one, without the bias that came later."""
    if product.place is not product.node:
        kept = next(one for one in product.place.args if one in path)
        product.place.replace_all_uses_with(kept)  # type: ignore[arg-type]
    product.node.replace_all_uses_with(fused)


def _fuse_all_reduce(collective: Node) -> bool:
    input, op, group = collective.args
    ranks, waits = ranks_of(group), _waits(collective)
    if ranks is None or not waits or not isinstance(input, Node):
        return False
    if only_user(input) is not collective or (found := product_behind(input, ranks)) is None:
        return False
    product, path = found
    scale = _scale(op, value(input).dtype, ranks)
    if scale is None or not _is_free(collective, product, path):
        return False
    build = Builder(product.place)
    bias = product.bias
    if bias is not None:
        bias = build.call(iris_c.all_reduce.default, bias, "sum", ranks.name)
    fused = fused_call(build, "matmul_all_reduce", product, product.A, bias, ranks.name)
    if scale != 1:
        fused = build.call(aten.mul.Tensor, fused, scale)
    with_sizes_of_operands(product)
    for node in path:
        without_copies(node)
    for wait in waits:
        wait.replace_all_uses_with(input)
    _finish(product, path, fused)
    erase_unused(collective.graph, [*waits, collective, *path])
    return True


# ---- reduce-scatter ----


def _parts(node: Node, world_size: int) -> Parts:
    """What a node is the parts of, one below the other; if of nothing, of itself."""
    whole = Parts(node, 0, [])
    if not is_call(node, aten.cat.default) or (node.args[1:] or (0,))[0] != 0 or node.kwargs:
        return whole
    pieces = node.args[0]
    if not isinstance(pieces, list | tuple) or len(pieces) != world_size:
        return whole
    found = parts_of(list(pieces))  # type: ignore[arg-type]
    if found is None:
        return whole
    tensor, dim, nodes = found
    if any(only_user(piece) is not node for piece in pieces):  # type: ignore[arg-type]
        return whole
    return Parts(tensor, dim, [*nodes, node])


def parts_behind(node: Node, world_size: int) -> Node:
    """What a reduce-scatter of a node scatters, if nobody else uses it."""
    tensor, _, between = _parts(node, world_size)
    return tensor if all(user in between for user in users(tensor)) else node


def parts_of(pieces: list[Node]) -> tuple[Node, int, list[Node]] | None:
    """What these are the equal parts of, all of them and in order: the tensor, the dimension, and
    the nodes that divide it."""
    first = pieces[0]
    if is_call(first, operator.getitem) and is_call(
        first.args[0], aten.split.Tensor, aten.split_with_sizes.default
    ):
        split = first.args[0]
        assert isinstance(split, Node)
        if len(value(split)) != len(pieces) or not all(
            is_call(piece, operator.getitem) and piece.args == (split, index)
            for index, piece in enumerate(pieces)
        ):
            return None
        if any(user not in pieces for user in split.users):
            return None
        tensor = split.args[0]
        dim = split.args[2] if len(split.args) > 2 else split.kwargs.get("dim", 0)
        nodes = [split, *pieces]
    elif is_call(first, aten.slice.Tensor) and len(first.args) > 1:
        tensor, dim, nodes = first.args[0], first.args[1], list(pieces)
    else:
        return None
    if not isinstance(tensor, Node) or not isinstance(dim, int):
        return None
    dim %= value(tensor).dim()
    if nodes[0] is first and not _are_slices(pieces, tensor, dim):
        return None
    if nodes[0] is not first and not _are_equal(pieces, tensor, dim):
        return None
    return tensor, dim, nodes


def _are_equal(pieces: list[Node], tensor: Node, dim: int) -> bool:
    """Whether these parts, put together along another dimension, must have one size. In numbers it
    is seen; of symbols a concatenation says it."""
    sizes = [value(piece).shape[dim] for piece in pieces]
    if all(isinstance(size, int) for size in sizes):
        return len(set(sizes)) == 1
    return True


def _are_slices(pieces: list[Node], tensor: Node, dim: int) -> bool:
    whole, count = value(tensor).shape[dim], len(pieces)
    for index, piece in enumerate(pieces):
        if not is_call(piece, aten.slice.Tensor) or len(piece.args) < 4 or len(piece.args) > 5:
            return False
        source, along, start, end = piece.args[:4]
        if source is not tensor or not isinstance(along, int):
            return False
        if along % value(tensor).dim() != dim or piece.args[4:] not in ((), (1,)):
            return False
        start, end = (value(size) if isinstance(size, Node) else size for size in (start, end))
        size = value(piece).shape[dim]
        if not (equal(start, index * size) and equal(size * count, whole)):
            return False
        if index + 1 < count and not equal(end, (index + 1) * size):
            return False
    return True


def _layout_of(path: list[Node], product: Product) -> Layout | None:
    """How the last node of a path lies in the product that it begins with."""
    layout: Layout | None = Layout.of(value(product.node).shape)
    for node in path[1:]:
        if node is product.place:  # the bias is added: nothing moves
            continue
        assert is_call(node, *RESHAPING)
        layout = layout.then(node) if layout is not None else None
    return layout


def _sizes(
    build: Builder, path: list[Node], layout: Layout, product: Product, divided: int
) -> list[Any] | None:
    """A layout's shape as arguments, of which the divided dimension's is not needed. None: they are
    not known before the product is."""
    given: list[Any] = list(layout.shape)
    if len(given) == 2:
        given = [build.size(product.A, 0), build.size(product.B, 1)]
    for node in path[1:]:
        if is_call(node, aten.view.default, aten._unsafe_view.default, aten.reshape.default):
            given = list(node.args[1])  # type: ignore[arg-type]
    sizes = []
    for index, (size, argument) in enumerate(zip(layout.shape, given, strict=True)):
        if isinstance(size, int) or index == divided:
            sizes.append(size)
        elif isinstance(argument, Node) and not depends(argument, product.node):
            sizes.append(argument)
        else:
            return None
    return sizes


def _fuse_reduce_scatter(collective: Node) -> bool:
    input, op, group_size, group = collective.args
    ranks, waits = ranks_of(group), _waits(collective)
    if ranks is None or not waits or not isinstance(input, Node):
        return False
    if ranks.world_size != group_size or only_user(input) is not collective:
        return False
    tensor, dim, between = _parts(input, ranks.world_size)
    if between and len([user for user in users(tensor) if user not in between]) > 0:
        return False
    if (found := product_behind(tensor, ranks)) is None:
        return False
    product, path = found
    layout = _layout_of(path, product)
    scale = _scale(op, value(input).dtype, ranks)
    if layout is None or scale is None or not _is_free(collective, product, path):
        return False
    rows, columns = value(product.node).shape
    divided = layout.order[dim]
    places = splits(layout.shape, rows, columns)
    build = Builder(product.place)
    shape = _sizes(build, path, layout, product, divided)
    if not places or shape is None:
        build.take_back()
        return False
    A, bias = product.A, product.bias
    if max(places) > divided:
        scattered = 0
        if not equal(number_of(layout.shape[:divided]), 1):
            if product.scales is not None and not has_one(product.scales[0]):
                build.take_back()  # the scales' rows would have to be put in that order too
                return False
            lead = build.product(shape[:divided])
            K = build.size(A, 1)
            A = build.reshaped(
                build.exchanged(A, [lead, ranks.world_size, -1, K], 0),
                [build.size(product.A, 0), K],
            )
    elif divided in places:
        scattered = 1
    else:
        build.take_back()
        return False
    if bias is not None and scattered == 0:
        bias = build.call(iris_c.all_reduce.default, bias, "sum", ranks.name)
    elif bias is not None:
        bias = build.call(iris_c.reduce_scatter.default, bias, 0, ranks.name)
    share = fused_call(build, "matmul_reduce_scatter", product, A, bias, scattered, ranks.name)
    if scale != 1:
        share = build.call(aten.mul.Tensor, share, scale)
    result = build.reshaped(
        share, [-1 if index == divided else size for index, size in enumerate(shape)]
    )
    if not layout.is_in_order:
        result = build.contiguous(build.call(aten.permute.default, result, list(layout.order)))
    if not stands_for(result, waits[0]):
        build.take_back()
        return False
    with_sizes_of_operands(product)
    for node in (*path, *between):
        without_copies(node)
    for wait in waits:
        wait.replace_all_uses_with(result)
    erase_unused(collective.graph, [*waits, collective, *between, *path])
    return True
