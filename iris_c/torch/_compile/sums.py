# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Sums of products, and sums of products that were each summed over ranks, as the gradient of what
several layers have read is: one product, of the factors side by side, is summed over ranks once.

    A @ B + C @ D = [A C] @ [B
                             D]

The factors are copied for it, which takes the memory's time. An exchange is saved, or happens while
the product is computed, which takes the links'. Where the factors are long and the product is
small, it stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch.fx import Graph, Node

from iris_c.torch._compile.graphs import (
    FUSED,
    RESHAPING,
    Builder,
    Layout,
    aten,
    erase_unused,
    hint,
    is_call,
    only_user,
    same_shape,
    sort,
    users,
    value,
    written_before,
)
from iris_c.torch._compile.groups import ranks_of
from iris_c.torch._compile.products import Product, product_of
from iris_c.torch._compile.reductions import ALL_REDUCES, c10d, iris_c, parts_behind
from iris_c.torch._groups import world_size

# Bytes that a GPU copies while one crosses its links to its peers.
COPIED = 4
# Of the results that each rank sends: an all-reduce has a reduce-scatter and a gather.
_EXCHANGES: dict[Any, int] = {
    **dict.fromkeys(ALL_REDUCES, 2),
    iris_c.matmul_all_reduce.default: 2,
    c10d.reduce_scatter_tensor.default: 1,
    iris_c.matmul_reduce_scatter.default: 1,
}
# In the meta data of a node: the dimension along which it has factors side by side.
_BESIDE = "iris_c_beside"


class _Term(NamedTuple):
    """A product that is added, and the nodes from it to the addition."""

    product: Product
    path: list[Node]
    layout: Layout


def join_products(graph: Graph) -> None:
    """Have sums of products of a graph that are summed over ranks be products, where that saves
    time."""
    for node in list(graph.nodes):
        if is_call(node, *ALL_REDUCES, c10d.reduce_scatter_tensor.default):
            _join_products(node)


def _join_products(collective: Node) -> None:
    input, op, *_, group = collective.args
    ranks = ranks_of(group)
    if ranks is None or op not in ("sum", "avg") or not isinstance(input, Node):
        return
    if only_user(input) is not collective:
        return
    addition = parts_behind(input, ranks.world_size)
    while is_call(addition, *RESHAPING):
        before = addition.args[0]
        if not isinstance(before, Node) or only_user(before) is None:
            return
        addition = before
    terms = _terms(addition, partial(product_of, ranks=ranks))
    if terms:
        _join(addition, terms, _EXCHANGES[collective.target], ranks.world_size)


def join_sums(graph: Graph) -> None:
    """Have sums of fused products of a graph be fused products, where that saves time."""
    for node in reversed(list(graph.nodes)):
        if node._erased:  # with the sum that it was a part of
            continue
        terms = _terms(node, _fused)
        if terms:
            first = terms[0].product.node
            _join(node, terms, _EXCHANGES[first.target], world_size(str(first.args[-1])))


def _fused(node: Node) -> Product | None:
    """The fused product that a node is, if it is one of those that are summed over ranks."""
    if FUSED not in node.meta or node.target not in _EXCHANGES:
        return None
    A, B, bias = node.args[:3]
    return Product(node, A, B, bias, node)  # type: ignore[arg-type]


def _terms(node: Node, product: Callable[[Node], Product | None]) -> list[_Term]:
    """The products that a node is the sum of, two or more, which lie in it alike and are not used
    besides; none if it is no such sum."""
    terms: list[_Term] = []
    waiting: list[Any] = [node]
    while waiting:
        one = waiting.pop()
        is_sum = is_call(one, aten.add.Tensor) and one.kwargs.get("alpha", 1) == 1
        if is_sum and (one is node or only_user(one) is not None):
            waiting.extend(reversed(one.args))
            continue
        term = None if one is node else _term(one, product)
        if term is None or (terms and not _are_alike(terms[0], term)):
            return []
        terms.append(term)
    return terms if len({term.product.node for term in terms}) > 1 else []


def _term(node: Any, product: Callable[[Node], Product | None]) -> _Term | None:
    path: list[Node] = []
    while is_call(node, *RESHAPING):
        path.insert(0, node)
        node = node.args[0]
    if not isinstance(node, Node) or (found := product(node)) is None:
        return None
    layout: Layout | None = Layout.of(value(node).shape)
    for one in path:
        layout = layout.then(one) if layout is not None else None
    if layout is None or any(only_user(one) is None for one in (node, *path)):
        return None
    return _Term(found, path, layout)


def _are_alike(first: _Term, second: _Term) -> bool:
    one, other = first.product.node, second.product.node
    if value(one).dtype != value(other).dtype or not same_shape(
        value(one).shape, value(other).shape
    ):
        return False
    if FUSED in one.meta and (one.target, one.args[3:]) != (other.target, other.args[3:]):
        return False
    if first.layout.order != second.layout.order:
        return False
    return same_shape(first.layout.shape, second.layout.shape)


def _join(addition: Node, terms: Sequence[_Term], exchanges: int, world: int) -> None:
    products = [term.product for term in terms]
    operands = [node for product in products for node in product.operands]
    if not _saves_time(products, exchanges * (world - 1) / world):
        return
    if written_before(operands, addition):
        return
    build = Builder(addition)
    A = _beside(build, [product.A for product in products], 1)
    B = _beside(build, [product.B for product in products], 0)
    bias = None
    for product in products:
        if product.bias is not None:
            more = product.bias
            bias = more if bias is None else build.call(aten.add.Tensor, bias, more)
    first = products[0].node
    if FUSED in first.meta:
        joined = build.fused(first.target, A, B, bias, *first.args[3:])
    elif bias is None:
        joined = build.call(aten.mm.default, A, B)
    else:
        joined = build.call(aten.addmm.default, bias, A, B)
    first.replace_all_uses_with(joined)
    result = terms[0].path[-1] if terms[0].path else joined
    additions = [addition]
    for one in additions:
        additions.extend(
            before for before in one.all_input_nodes if is_call(before, aten.add.Tensor)
        )
    addition.replace_all_uses_with(result)
    paths = [node for term in terms for node in (term.product.node, *term.path)]
    erase_unused(addition.graph, [*additions, *paths])
    erase_unused(addition.graph, [node for node in operands if _BESIDE in node.meta])
    sort(addition.graph)


def _beside(build: Builder, factors: Sequence[Node], dim: int) -> Node:
    """Factors side by side, and those that each of them has so."""
    pieces: list[Any] = []
    for factor in factors:
        made = factor.meta.get(_BESIDE) == dim and len(users(factor)) == 1
        pieces.extend(factor.args[0] if made else [factor])  # type: ignore[arg-type]
    node = build.call(aten.cat.default, pieces, dim)
    node.meta[_BESIDE] = dim
    return node


def _saves_time(products: Sequence[Product], sent: float) -> bool:
    """Whether to copy the factors, each read and written, takes less than to send the result, of
    which so much is `sent`."""
    M = hint(value(products[0].A).shape[0])
    N = hint(value(products[0].B).shape[1])
    length = sum(hint(value(product.A).shape[1]) for product in products)
    return 2 * (M + N) * length < COPIED * sent * M * N
