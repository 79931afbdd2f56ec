# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Fused operations in what torch.compile compiles: a product and a collective of torch.distributed
beside it become one operation of torch.ops.iris_c.

    graphs.py      nodes, and how one tensor lies in another
    products.py    a node that is a product
    groups.py      which process groups have, or can have, a context
    reductions.py  product, then all-reduce or reduce-scatter
    sums.py        sums of products, and of such as one product
    gathers.py     all-gather, then products; product, then all-gather
    fusion.py      all of them, on a graph
    installed.py   the pass in Inductor's configuration

Nothing of Inductor is imported before `compile_pass` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iris_c.torch._compile.installed import CompilePass

__all__ = ["compile_pass"]


def compile_pass() -> CompilePass:
    """Let torch.compile use the fused operations in programs of torch.distributed's collectives.

    What Inductor compiles from now on has a matrix product and the collective before or after it
    as one operation, where they fit; docs/torch.md has the patterns. Results are those of the
    program as it is, but for rounding. Functions that are compiled already stay as they are.

    All ranks install it alike. A process group gets a context at the first use of a fused
    operation, which is collective, if none has its ranks; `init` gives a larger heap.

    Returns
    -------
    CompilePass
        A mapping from names of operations to how many of them have been put into graphs.
        ``remove()``, or the end of a ``with`` block, takes the pass away.

    Example
    -------
    >>> with iris_c.torch.compile_pass() as hits:  # doctest: +SKIP
    ...     torch.compile(model)(x)
    >>> hits  # doctest: +SKIP
    {'matmul_all_reduce': 2}
    """
    from iris_c.torch._compile.installed import CompilePass

    return CompilePass()
