# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch.compile as far as its graphs, which run as they are: what Inductor would compile, with the
fused operations in it, without the minutes that it takes to compile it."""

from collections import Counter

import torch
import torch.distributed._functional_collectives as collectives
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table

from iris_c.torch._compile.fusion import fuse, fused_operations

# As torch calls them, and as it did before 2.13.
all_gather_single = getattr(collectives, "all_gather_single", None) or collectives.all_gather_tensor
reduce_scatter_single = (
    getattr(collectives, "reduce_scatter_single", None) or collectives.reduce_scatter_tensor
)


class Compiled:
    """A compiled function; `hits` says what is in its graphs, `graphs` are they."""

    def __init__(self, function, *, dynamic=None, passes=("joint", "last")):
        torch._dynamo.reset()
        self.passes, self.graphs = passes, []
        backend = aot_autograd(
            fw_compiler=self._compile,
            partition_fn=self._partition,
            decompositions=select_decomp_table,
        )
        self.function = torch.compile(function, backend=backend, fullgraph=True, dynamic=dynamic)

    def __call__(self, *args):
        return self.function(*args)

    @property
    def hits(self):
        return dict(sum((fused_operations(graph) for graph in self.graphs), Counter()))

    def __str__(self):
        return "\n".join(map(str, self.graphs))

    def _fuse(self, module, name):
        if name in self.passes:
            fuse(module.graph)
            module.graph.lint()
            module.recompile()

    def _partition(self, joint, inputs, **options):
        self._fuse(joint, "joint")
        return min_cut_rematerialization_partition(joint, inputs, compiler="inductor", **options)

    def _compile(self, module, inputs):
        self._fuse(module, "last")
        self.graphs.append(module.graph)
        return torch._functorch.aot_autograd.make_boxed_func(module.forward)
