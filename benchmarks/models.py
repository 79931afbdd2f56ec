# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Sizes of published models' linear layers, as tensor parallelism divides them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Model:
    """A decoder of gated feed-forward layers."""

    hidden: int
    ffn: int
    heads: int
    kv_heads: int

    @property
    def head(self) -> int:
        return self.hidden // self.heads


# As their config.json says: hidden_size, intermediate_size, num_attention_heads,
# num_key_value_heads.
MODELS = {
    "7B": Model(4096, 11008, 32, 32),  # Llama 2
    "8B": Model(4096, 14336, 32, 8),  # Llama 3
    "14B": Model(5120, 13824, 40, 8),  # Qwen2.5
    "32B": Model(5120, 27648, 40, 8),  # Qwen2.5
    "70B": Model(8192, 28672, 64, 8),  # Llama 3
    "405B": Model(16384, 53248, 128, 8),  # Llama 3.1
    "tiny": Model(64, 192, 8, 8),  # for the cpu, and to try the benchmark itself
}
PUBLISHED = tuple(name for name in MODELS if name != "tiny")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A whole layer: y (M, outputs) = x (M, inputs) @ W^T."""

    name: str
    row_parallel: bool  # its inputs are divided among the ranks, else its outputs are
    inputs: int
    outputs: int

    def share(self, world: int) -> tuple[int, int]:
        """Inputs and outputs of a rank's part."""
        if self.row_parallel:
            return self.inputs // world, self.outputs
        return self.inputs, self.outputs // world

    def is_divisible(self, world: int) -> bool:
        return (self.inputs if self.row_parallel else self.outputs) % world == 0


def layers(model: Model) -> tuple[Layer, ...]:
    """The four layers of a decoder block: each pair has one exchange, or two with sequence
    parallelism."""
    return (
        Layer("qkv", False, model.hidden, (model.heads + 2 * model.kv_heads) * model.head),
        Layer("o", True, model.heads * model.head, model.hidden),
        Layer("gate_up", False, model.hidden, 2 * model.ffn),
        Layer("down", True, model.ffn, model.hidden),
    )
