# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""All fused operations that fit, put into a graph."""

from __future__ import annotations

from collections import Counter

from torch.fx import Graph, Node

import iris_c.torch._gradients
import iris_c.torch._scaled  # noqa: F401  (the operations)
from iris_c.torch._compile.gathers import fuse_gathers
from iris_c.torch._compile.graphs import FUSED, sort
from iris_c.torch._compile.reductions import fuse_reductions
from iris_c.torch._compile.sums import join_products, join_sums

__all__ = ["fuse", "fused_operations"]


def fuse(graph: Graph) -> None:
    """Put fused operations into a graph of aten and _c10d_functional, of one pass or of both."""
    join_products(graph)
    fuse_reductions(graph)
    join_sums(graph)
    fuse_gathers(graph, _backward(graph))
    sort(graph)


def fused_operations(graph: Graph) -> Counter[str]:
    """How many of each `fuse` has put there."""
    # A result that the backward pass is given has the meta data of what gave it.
    calls = (node for node in graph.nodes if node.op == "call_function")
    return Counter(node.meta[FUSED] for node in calls if FUSED in node.meta)


def _backward(graph: Graph) -> set[Node]:
    """The nodes that need a gradient that the backward pass is given."""
    found: set[Node] = set()
    for node in graph.nodes:
        given = node.op == "placeholder" and "tangents" in str(node.target)
        if given or any(before in found for before in node.all_input_nodes):
            found.add(node)
    return found
