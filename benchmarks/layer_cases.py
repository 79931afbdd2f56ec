# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What bench_layers.py may measure, and in which order: any first part of it is evenly spread."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random

import models

ROWS = (
    1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768,
    1024, 1536, 2048, 4096, 8192, 16384,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Operation:
    """Something that users call. `exchange` is what the forward pass does with the product."""

    name: str
    exchange: str  # 'all_reduce', 'reduce_scatter', 'gather', 'all_gather', 'none'
    row_parallel: bool  # the layers whose sizes it has
    is_layer: bool = False

    @property
    def divides_rows(self) -> bool:
        """M is a multiple of the number of ranks."""
        return self.exchange in ("reduce_scatter", "gather", "all_gather")

    def sizes(self, layer: models.Layer, world: int) -> tuple[int, int]:
        """K and N of a rank's product."""
        if self.exchange == "all_gather":  # the ranks divide the rows alone
            return layer.inputs, layer.outputs
        return layer.share(world)


def _products(prefix: str, gathers: tuple[str, ...]) -> tuple[Operation, ...]:
    return (
        Operation(f"{prefix}.matmul_all_reduce", "all_reduce", True),
        Operation(f"{prefix}.matmul_reduce_scatter", "reduce_scatter", True),
        *(Operation(f"{prefix}.{name}", "gather", False) for name in gathers),
        Operation(f"{prefix}.matmul_all_gather", "all_gather", True),
    )


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("row", "all_reduce", True, is_layer=True),
        Operation("row_sp", "reduce_scatter", True, is_layer=True),
        Operation("column", "none", False, is_layer=True),
        Operation("column_sp", "gather", False, is_layer=True),
        *_products("torch", ("all_gather_matmul",)),
        *_products("ctx", ("all_gather_matmul", "all_gather_matmul_hbm_buffer")),
    )
}
LAYERS = tuple(name for name, operation in OPERATIONS.items() if operation.is_layer)


@dataclasses.dataclass(frozen=True)
class Case:
    operation: Operation
    backward: bool  # forward and backward, else forward alone
    mode: str  # 'eager' or 'graph'
    weights: str  # 'warm': the same in every call; 'cold': others, more than caches hold
    model: str
    layer: models.Layer
    M: int  # rows of x and y before they are divided among the ranks

    @property
    def group(self) -> tuple[str, str, str]:
        """Of rows whose mean is printed."""
        return self.operation.name, "forward+backward" if self.backward else "forward", self.mode


def cases(options, world: int, cache_bytes: int, itemsize: int) -> list[Case]:
    """All that the options select; cold weights only where warm ones stay in the cache."""
    found = []
    for name, passes, mode in itertools.product(options.ops, options.passes, options.modes):
        operation = OPERATIONS[name]
        if passes == "backward" and not operation.is_layer:
            continue
        for model, M, weights in itertools.product(options.models, options.ms, options.weights):
            if operation.divides_rows and M % world != 0:
                continue
            for layer in models.layers(models.MODELS[model]):
                K, N = operation.sizes(layer, world)
                if layer.row_parallel != operation.row_parallel or not layer.is_divisible(world):
                    continue
                stays = K * N * itemsize <= cache_bytes
                if weights == "cold" and not stays and "warm" in options.weights:
                    continue
                found.append(Case(operation, passes == "backward", mode, weights, model, layer, M))
    return found


def spread(found: list[Case]) -> list[Case]:
    """The cases in an order of which every beginning has all groups, and in each group all M,
    equally often, and models, layers and weights by chance; the same on all ranks."""
    chance = random.Random(0)
    by_rows = collections.defaultdict(list)
    for case in found:
        by_rows[case.group, case.M].append(case)
    for some in by_rows.values():
        chance.shuffle(some)
    rounds = itertools.zip_longest(*by_rows.values())
    ordered = []
    for one_of_each in rounds:
        present = [case for case in one_of_each if case is not None]
        chance.shuffle(present)
        ordered += present
    return ordered
