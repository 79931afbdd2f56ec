# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Nodes that are a product of matrices, with a bias or without, of dtypes that fused operations
have; and those of float8 matrices with scales (torch._scaled_mm)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.fx import Node

from iris_c.torch._compile.graphs import (
    RESHAPING,
    Builder,
    aten,
    equal,
    hint,
    is_call,
    number_of,
    only_user,
    same_shape,
    sizes_from,
    value,
)
from iris_c.torch._compile.groups import Ranks, gives, takes

iris_c = torch.ops.iris_c
DTYPES = {torch.float32, torch.float16, torch.bfloat16}


class Product(NamedTuple):
    """C = A @ B + bias. All are of one dtype and on one device; the bias has one number for each
    column. With scales A and B are float8: C = (A * scales[0]) @ (B * scales[1]) + bias."""

    node: Node
    A: Node
    B: Node
    bias: Node | None
    place: Node  # where all operands are there: the node itself, or where the bias is added
    scales: tuple[Node, Node] | None = None

    @property
    def operands(self) -> tuple[Node, ...]:
        bias = () if self.bias is None else (self.bias,)
        return (self.A, self.B, *bias, *(self.scales or ()))

    @property
    def work(self) -> float:
        """The number of multiplications, as far as it is known."""
        (M, K), N = value(self.A).shape, value(self.B).shape[1]
        return float(hint(M * K * N))


def product_of(node: Node, ranks: Ranks) -> Product | None:
    """The product that a node is, if it can be fused for these ranks."""
    if is_call(node, aten.mm.default) and len(node.args) == 2 and not node.kwargs:
        product = Product(node, *node.args, None, node)  # type: ignore[arg-type]
    elif is_call(node, aten.addmm.default) and len(node.args) == 3:
        if any(node.kwargs.get(name, 1) != 1 for name in ("alpha", "beta")):
            return None
        bias, A, B = node.args
        product = Product(node, A, B, bias, node)  # type: ignore[arg-type]
    else:
        return None
    return product if _fits(product, ranks) else None


def scaled_product_of(node: Node, ranks: Ranks) -> Product | None:
    """The product of float8 matrices that a node is, if it can be fused for these ranks."""
    if not is_call(node, aten._scaled_mm.default):
        return None
    names = ("self", "mat2", "scale_a", "scale_b", "bias", "scale_result")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    A, B, scale_a, scale_b, bias, result = (given.get(name) for name in names)
    if result is not None or not all(isinstance(x, Node) for x in (A, B, scale_a, scale_b)):
        return None
    product = Product(node, A, B, bias, node, (scale_a, scale_b))  # type: ignore[arg-type]
    return product if _scaled_fits(product, ranks) else None


def has_one(node: Node) -> bool:
    """Whether a tensor has one element."""
    return equal(number_of(value(node).shape), 1)


def _scaled_fits(product: Product, ranks: Ranks) -> bool:
    assert product.scales is not None
    results = [value(node) for node in (product.node, *product.operands)]
    if not all(isinstance(result, torch.Tensor) for result in results):
        return False
    C, A, B = results[:3]
    if C.dtype not in DTYPES or not gives(C.dtype, ranks):
        return False
    if not (takes(A.dtype, ranks) and takes(B.dtype, ranks)):
        return False
    if any(result.device.type != ranks.device_type for result in results):
        return False
    if product.bias is not None and (
        value(product.bias).dtype != C.dtype
        or not _is_of_columns(value(product.bias).shape, C.shape[1])
    ):
        return False
    # Others than these come in layouts of their own.
    shapes = ((A.shape[0], 1), (1, B.shape[1]))
    return all(
        value(scale).dtype == torch.float32
        and (has_one(scale) or same_shape(value(scale).shape, shape))
        for scale, shape in zip(product.scales, shapes, strict=True)
    )


def fused_call(
    build: Builder, name: str, product: Product, A: Node, bias: Node | None, *how: Any
) -> Node:
    """A call of a fused operation with the product's operands, but for these. `how` are the other
    arguments, of which the last is the ranks' name."""
    if product.scales is None:
        return build.fused(getattr(iris_c, name).default, A, product.B, bias, *how)
    *others, group = how
    target = getattr(iris_c, f"scaled_{name}").default
    dtype = value(product.node).dtype
    return build.fused(target, A, product.B, *product.scales, bias, *others, dtype, group)


def _fits(product: Product, ranks: Ranks) -> bool:
    results = [value(node) for node in (product.node, *product.operands)]
    if not all(isinstance(result, torch.Tensor) for result in results):
        return False
    first = results[0]
    if first.dtype not in DTYPES or first.device.type != ranks.device_type:
        return False
    for result in results:
        if (result.dtype, result.device, result.layout) != (
            first.dtype,
            first.device,
            torch.strided,
        ) or any(isinstance(size, int) and size == 0 for size in result.shape):
            return False
    if product.bias is None:
        return True
    return _is_of_columns(value(product.bias).shape, first.shape[1])


def _is_of_columns(shape: torch.Size, columns: int) -> bool:
    return len(shape) == 1 and equal(shape[0], columns)


def product_behind(node: Node, ranks: Ranks) -> tuple[Product, list[Node]] | None:
    """The product whose elements a node has, all of them and nothing else, and the nodes from it to
    this one. Nobody but each next one of them uses them. A bias may be added on the way."""
    path = [node]
    bias = place = None
    while not is_call(node, aten.mm.default, aten.addmm.default, aten._scaled_mm.default):
        if is_call(node, *RESHAPING):
            before = node.args[0]
        elif bias is None and (found := _added_bias(node)) is not None:
            (before, bias), place = found, node
        else:
            return None
        if not isinstance(before, Node) or only_user(before) is None:
            return None
        node = before
        path.insert(0, node)
    product = product_of(node, ranks) or scaled_product_of(node, ranks)
    if product is None:
        return None
    if bias is None or place is None:
        return product, path
    N = value(product.node).shape[1]
    # What is added to the last dimension belongs to the columns if nothing has divided them.
    if product.bias is not None or not _is_of_columns(value(bias).shape, N):
        return None
    product = product._replace(bias=bias, place=place)
    return (product, path) if _fits(product, ranks) else None


def _added_bias(node: Node) -> tuple[Node, Node] | None:
    """Of an addition to the last dimension: what is added to, what is added."""
    if not is_call(node, aten.add.Tensor) or node.kwargs.get("alpha", 1) != 1:
        return None
    first, second = node.args
    for tensor, bias in ((first, second), (second, first)):
        if (
            isinstance(tensor, Node)
            and isinstance(bias, Node)
            and is_call(tensor, aten.mm.default, *RESHAPING)
            and isinstance(value(bias), torch.Tensor)
            and value(bias).dim() == 1
            and value(tensor).dim() > 1
            and value(tensor).dtype == value(bias).dtype == value(node).dtype
            and equal(value(tensor).shape[-1], value(bias).shape[0])
            and _keeps_columns(tensor)
        ):
            return tensor, bias
    return None


def _keeps_columns(node: Node) -> bool:
    """Whether the last dimension is a product's columns."""
    while is_call(node, *RESHAPING):
        before = node.args[0]
        if not isinstance(before, Node) or not equal(
            value(before).shape[-1], value(node).shape[-1]
        ):
            return False
        if is_call(node, aten.permute.default, aten.transpose.int, aten.t.default):
            return False
        node = before
    return is_call(node, aten.mm.default)


def with_sizes_of_operands(product: Product) -> None:
    """Have those that ask for the product's size ask its operands."""
    build = Builder(product.node)
    sizes_from(product.node, lambda: (build.size(product.A, 0), build.size(product.B, 1)))
