# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""An operand that is gathered, then a product: all_gather_matmul, gathered_matmul. A product that
is gathered: matmul_all_gather.

torch gathers along the first dimension; where another one is meant, the parts are put beside each
other afterwards. A fused operation gathers rows, or columns, in the order of the ranks. So the rows
of its product are put in the order that the program has them in, where that is another one.

One gather serves one product, the largest that can have it, whose gathered operand the others, and
whoever else needs it, have. Gathers of one tensor are one gather.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
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
    hands_on,
    is_call,
    number_of,
    only_user,
    same_shape,
    sizes_from,
    sort,
    splits,
    stands_for,
    users,
    value,
    written_before,
)
from iris_c.torch._compile.groups import Ranks, ranks_of
from iris_c.torch._compile.products import (
    Product,
    fused_call,
    has_one,
    product_behind,
    product_of,
    scaled_product_of,
    with_sizes_of_operands,
)
from iris_c.torch._compile.reductions import parts_of

c10d = torch.ops._c10d_functional
iris_c = torch.ops.iris_c


class Gather(NamedTuple):
    """All ranks' `shard`, joined along `dim`, which is what `node` is; `wait`, one below the other.
    `between` are the nodes from one to the other, `node` among them, if it is not `wait`."""

    shard: Node
    wait: Node
    node: Node
    dim: int
    between: list[Node]
    ranks: Ranks


class Operand(NamedTuple):
    """A product that has a gathered tensor for an operand."""

    product: Product
    gather: Gather
    path: list[Node]  # from what is gathered to the operand
    is_A: bool
    transposed: bool  # the operand is the transpose of the gathered tensor as a matrix
    split: int  # the first dimension of the tensor that is in the matrix's columns

    @property
    def divides_columns(self) -> bool:
        """Whether it is the columns of the matrix that are gathered, not the rows."""
        return self.split == self.gather.dim

    @property
    def lies_as_gathered(self) -> bool:
        """Whether the fused operation gathers the matrix itself, not its transpose."""
        return self.is_A != self.transposed

    @property
    def dim(self) -> int:
        """Along which the fused operation gathers."""
        return int(self.divides_columns == self.lies_as_gathered)


def fuse_gathers(graph: Graph, later: set[Node]) -> None:
    """Replace the products of a graph with gathered operands, and those that are gathered.

    `later` are the nodes of a backward pass, if the graph has a forward pass besides.
    """
    _share(graph)
    for node in list(graph.nodes):
        if is_call(node, c10d.all_gather_into_tensor.default) and len(node.args) == 3:
            _fuse_operand(node, later) or _fuse_result(node)


def _share(graph: Graph) -> None:
    """Have equal gathers, and what divides and joins their results, be one."""
    first: dict[Any, Node] = {}
    descendants = set()
    for node in list(graph.nodes):
        gathers = is_call(node, c10d.all_gather_into_tensor.default)
        if not gathers and not any(before in descendants for before in node.all_input_nodes):
            continue
        shapes = RESHAPING | {aten.split.Tensor, aten.cat.default, aten.slice.Tensor}
        if not (gathers or is_call(node, c10d.wait_tensor.default, *shapes, operator.getitem)):
            continue
        descendants.add(node)
        key = (node.target, _key(node.args), _key(tuple(sorted(node.kwargs.items()))))
        same = first.setdefault(key, node)
        if same is not node and not written_before([same, *same.all_input_nodes], node):
            node.replace_all_uses_with(same)
            graph.erase_node(node)
            descendants.discard(node)


def _key(arguments: Any) -> Any:
    if isinstance(arguments, list | tuple):
        return tuple(_key(one) for one in arguments)
    return (type(arguments), arguments)


def _wait_of(collective: Node) -> Node | None:
    """The node that waits for a collective, if nobody else uses it."""
    waits = list(collective.users)
    return waits[0] if len(waits) == 1 and is_call(waits[0], c10d.wait_tensor.default) else None


def _sizes_of(build: Builder, shard: Node, dim: int, world_size: int) -> list[Any]:
    """The shape of what is gathered along `dim`, as arguments."""
    sizes = [build.size(shard, index) for index in range(value(shard).dim())]
    sizes[dim] = build.product([sizes[dim], world_size])
    return sizes


def _forms(collective: Node, wait: Node, ranks: Ranks) -> list[Gather]:
    """What a gather gives: the parts one below the other, and beside each other where they are put
    so."""
    shard = collective.args[0]
    assert isinstance(shard, Node)
    forms = [Gather(shard, wait, wait, 0, [], ranks)]
    joined = {
        user
        for divided in wait.users
        for piece in (divided, *divided.users)
        for user in piece.users
        if is_call(user, aten.cat.default)
    }
    for node in sorted(joined):
        pieces = node.args[0]
        dim = (node.args[1:] or (0,))[0]
        if node.kwargs or not isinstance(dim, int) or not isinstance(pieces, list | tuple):
            continue
        found = parts_of(list(pieces)) if len(pieces) == ranks.world_size else None  # type: ignore[arg-type]
        dim %= value(node).dim()
        if found is None or found[:2] != (wait, 0) or dim == 0:
            continue
        if equal(value(pieces[0]).shape[0], value(shard).shape[0]):  # type: ignore[arg-type]
            forms.append(Gather(shard, wait, node, dim, [*found[2], node], ranks))
    return forms


def _operands(gather: Gather) -> list[Operand]:
    """The products that have a gathered tensor for an operand."""
    found = []
    ways: list[tuple[list[Node], Layout]] = [([gather.node], Layout.of(value(gather.node).shape))]
    for path, layout in ways:
        last = path[-1]
        for user in users(last):
            if hands_on(user):
                following = layout.then(user)
                if following is not None:
                    ways.append(([*path, user], following))
                continue
            product = product_of(user, gather.ranks) or scaled_product_of(user, gather.ranks)
            if product is None or product.A is product.B or product.bias is last:
                continue
            operand = _operand(product, gather, path, layout)
            if operand is not None and product.scales is not None:
                operand = _with_scales_of_shard(operand)
            if operand is not None:
                found.append(operand)
    return found


def _operand(product: Product, gather: Gather, path: list[Node], layout: Layout) -> Operand | None:
    if len(layout.shape) != 2:
        return None
    shape = value(gather.node).shape
    places = splits(shape, *layout.shape)
    rows = [place for place in places if place > gather.dim]
    if not rows and gather.dim not in places:
        return None
    operand = Operand(
        product,
        gather,
        path,
        path[-1] is product.A,
        not layout.is_in_order,
        rows[0] if rows else gather.dim,
    )
    # Gathered along the inner dimension, both operands have it in the order of the ranks.
    in_order = operand.divides_columns or equal(number_of(shape[: gather.dim]), 1)
    return operand if in_order or operand.dim == 0 else None


def _with_scales_of_shard(operand: Operand) -> Operand | None:
    """The same with the scales of the shard, which are gathered with it; None if they are not to be
    found, or the operand is not just all ranks' rows."""
    product, gather = operand.product, operand.gather
    assert product.scales is not None
    scale_a, scale_b = product.scales
    lead = value(gather.node).shape[: gather.dim]
    if not (operand.is_A and not operand.transposed and not operand.divides_columns):
        return None
    if not equal(number_of(lead), 1):
        return None
    if not has_one(scale_a):
        own = _gathered_scale(scale_a, gather)
        if own is None:
            return None
        scales = (own, scale_b)
        return operand._replace(product=product._replace(scales=scales))
    return operand


def _gathered_scale(scale: Node, gather: Gather) -> Node | None:
    """What a scale of all ranks' rows has been gathered from by the ranks that gather the operand:
    one for each row of the shard."""
    node = scale
    while is_call(node, *RESHAPING) and isinstance(node.args[0], Node):
        node = node.args[0]
    if not is_call(node, c10d.wait_tensor.default):
        return None
    collective = node.args[0]
    if not is_call(collective, c10d.all_gather_into_tensor.default):
        return None
    assert isinstance(collective, Node)
    own, _, group = collective.args
    if not isinstance(own, Node) or ranks_of(group) != gather.ranks:
        return None
    shard, rows = value(gather.shard).shape, value(own).shape
    # One of each row, in the rows' order: nothing moves in a column.
    return own if same_shape(rows[:-1], shard[:-1]) and equal(rows[-1], 1) else None


def _has_other_users(operand: Operand) -> bool:
    """Whether what is gathered is needed besides in this product."""
    gather = operand.gather
    used = {gather.wait, *gather.between, *operand.path, operand.product.node}
    return any(user not in used for node in used - {operand.product.node} for user in users(node))


def _can_hand_on(operand: Operand) -> bool:
    """Whether the fused operation gives what is gathered as it is needed besides."""
    if not operand.lies_as_gathered:
        return False
    if operand.dim == 0:
        return True
    # Its columns are in place; it is not one part below the other any more.
    gather = operand.gather
    return gather.node is gather.wait or all(user in gather.between for user in users(gather.wait))


def _fuse_operand(collective: Node, later: set[Node]) -> bool:
    shard, group_size, group = collective.args
    ranks, wait = ranks_of(group), _wait_of(collective)
    if ranks is None or wait is None or not isinstance(shard, Node):
        return False
    if ranks.world_size != group_size or value(shard).dim() == 0:
        return False
    forms = _forms(collective, wait, ranks)
    operands = [operand for gather in forms for operand in _operands(gather)]
    operands.sort(key=lambda operand: (-operand.product.work, operand.dim))
    for operand in operands:
        others = _has_other_users(operand)
        if others and not _can_hand_on(operand):
            continue
        if others and operand.product.node in later and wait not in later:
            continue
        rest = [one for one in operand.product.operands if one is not operand.path[-1]]
        if any(depends(one, wait) for one in rest):
            continue
        if written_before([shard, wait, *operand.product.operands], operand.product.node):
            continue
        if _fuse(operand, others, forms):
            erase_unused(collective.graph, [collective, wait])
            sort(collective.graph)
            return True
    return False


def _fuse(operand: Operand, others: bool, forms: Sequence[Gather]) -> bool:
    product, gather = operand.product, operand.gather
    shard, ranks = gather.shard, gather.ranks
    build = Builder(product.node)
    shape = [build.size(shard, index) for index in range(value(shard).dim())]
    rows, columns = shape[: operand.split], shape[operand.split :]
    lead = shape[: gather.dim]
    if operand.divides_columns:
        matrix = build.reshaped(shard, [build.product(rows), -1])
    else:
        matrix = build.reshaped(shard, [-1, build.product(columns)])
    A = matrix if operand.lies_as_gathered else build.transposed(matrix)
    B, bias = (product.B if operand.is_A else build.transposed(product.A)), product.bias
    if bias is not None and not operand.is_A:
        bias = build.reshaped(bias, [-1, 1])
    product = product._replace(B=B)
    if product.scales is not None:
        product = product._replace(scales=_scales_in_place(build, product.scales))
    if others:
        both = fused_call(build, "all_gather_matmul", product, A, bias, operand.dim, ranks.name)
        result = build.call(operator.getitem, both, 0)
        joined = build.call(operator.getitem, both, 1)
    else:
        result = fused_call(build, "gathered_matmul", product, A, bias, operand.dim, ranks.name)
        joined = None
    if operand.dim == 0 and not equal(number_of(value(gather.node).shape[: gather.dim]), 1):
        N = build.size(B, 1)
        apart = [ranks.world_size, build.product(lead), -1, N]
        result = build.reshaped(build.exchanged(result, apart, 0), [-1, N])
    if not operand.is_A:
        result = build.contiguous(build.transposed(result))
    if not stands_for(result, product.node):
        build.take_back()
        return False
    for form in forms:
        sizes_from(form.node, partial(_sizes_of, build, shard, form.dim, ranks.world_size))
    product.node.replace_all_uses_with(result)
    if joined is not None:
        whole = gather.wait if operand.dim == 0 else gather.node
        sizes: list[Any] = list(shape)
        sizes[0 if operand.dim == 0 else gather.dim] = -1
        whole.replace_all_uses_with(build.reshaped(joined, sizes))
    erase_unused(product.node.graph, [product.node, *operand.path, *gather.between, gather.wait])
    return True


def _scales_in_place(build: Builder, scales: tuple[Node, Node]) -> tuple[Node, Node]:
    """Of a shard's rows, (rows, 1), and of B. One that all rows have is this rank's, whatever
    others have, as it was: it goes with B's."""
    scale_a, scale_b = scales
    if has_one(scale_a):
        both = build.call(aten.mul.Tensor, scale_b, build.reshaped(scale_a, [1, 1]))
        return build.call(aten.ones_like.default, scale_a), both
    return build.reshaped(scale_a, [-1, 1]), scale_b


# ---- the product is gathered ----


def _fuse_result(collective: Node) -> bool:
    shard, group_size, group = collective.args
    ranks, wait = ranks_of(group), _wait_of(collective)
    if ranks is None or wait is None or not isinstance(shard, Node):
        return False
    if ranks.world_size != group_size or only_user(shard) is not collective:
        return False
    if (found := product_behind(shard, ranks)) is None:
        return False
    product, path = found
    layout: Layout | None = Layout.of(value(product.node).shape)
    for node in path[1:]:
        if node is not product.place and layout is not None:
            layout = layout.then(node)
    sizes = list(value(shard).shape)
    if layout is None or not layout.is_in_order or not sizes:
        return False
    if not all(isinstance(size, int) for size in sizes[1:]) and len(path) > 1:
        return False
    if written_before([*product.operands, *path], collective):
        return False
    build = Builder(product.place)
    result = fused_call(build, "matmul_all_gather", product, product.A, product.bias, ranks.name)
    if len(path) > 1:
        result = build.reshaped(result, [-1, *sizes[1:]])
    if not stands_for(result, wait):
        build.take_back()
        return False
    with_sizes_of_operands(product)
    wait.replace_all_uses_with(result)
    erase_unused(collective.graph, [wait, collective, *path])
    return True
