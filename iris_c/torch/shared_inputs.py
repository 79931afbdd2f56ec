# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Column-parallel layers that are called with one input, as those of queries, keys and values.

The first that is called computes the products of all, with one exchange, and keeps the others' for
them. A kept product is handed out once, and only where computing it would give the same: for the
same tensor object, unchanged since; the same parameters, unchanged since; and under the same modes.
So each rank decides alike, and a product of a forward pass never gets into the recomputation of a
checkpoint, nor one from before a graph's capture into the graph. Otherwise all are computed anew.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from iris_c.torch.layers import ColumnParallelLinear, column_products

__all__ = ["SharedInput", "fuse_inputs"]

# What layers with one input have in common.
_ALIKE = (
    "group",
    "in_features",
    "sequence_parallel",
    "sequence_dim",
    "sequence_sizes",
    "input_format",
)


def fuse_inputs(*layers: ColumnParallelLinear) -> SharedInput:
    """Let layers that are called with the same input compute their products together.

    Each stays a module with parameters, hooks and a state of its own, and is called as before. What
    is called with another input, or in inference mode, where tensors do not tell of changes, under
    torch.func, or under torch.compile, is computed by itself. With FSDP2 the layers are in one
    unit, so that all have their parameters when the first is called. A change of a tensor by way of
    its `.data` is not noticed, as autograd does not.

    Parameters
    ----------
    *layers : ColumnParallelLinear
        Two or more, of one context, one number of in_features, and alike in sequence_parallel,
        sequence_dim and sequence_sizes.

    Returns
    -------
    SharedInput
        Its remove() lets each compute its own again.

    Raises
    ------
    ValueError
        They are not alike, one is given twice, or shares an input already.
    """
    if len(layers) < 2:
        raise ValueError(f"layers: expected two or more, got {len(layers)}")
    for layer in layers:
        if not isinstance(layer, ColumnParallelLinear):
            raise TypeError(f"layers: expected ColumnParallelLinear, got {type(layer).__name__}")
        if layer._shared is not None:
            raise ValueError(f"layers: expected some that share no input yet, got {layer}")
    if len({id(layer) for layer in layers}) < len(layers):
        raise ValueError("layers: expected different ones, got one twice")
    for name in _ALIKE:
        values = [getattr(layer, name) for layer in layers]
        if any(value != values[0] for value in values):
            raise ValueError(f"layers: expected one {name}, got {values}")
    return SharedInput(layers)


class SharedInput:
    """What fuse_inputs has begun, until `remove()`."""

    def __init__(self, layers: tuple[ColumnParallelLinear, ...]) -> None:
        self.layers = list(layers)
        self._kept: _Kept | None = None
        for layer in layers:
            layer._shared = self

    def product(self, layer: ColumnParallelLinear, x: Tensor) -> Tensor:
        """The layer's output for `x`."""
        kept, self._kept = self._kept, None
        if not self._may_keep(x):
            return column_products([layer], x)[0]
        state = self._state(x)
        if kept is not None and kept.is_of(x, state):
            output = kept.outputs.pop(id(layer), None)
            if kept.outputs:
                self._kept = kept
            if output is not None:
                return output
        self._kept = None
        outputs = column_products(self.layers, x)
        by_layer = {id(one): output for one, output in zip(self.layers, outputs, strict=True)}
        mine = by_layer.pop(id(layer))
        self._kept = _Kept(x, state, by_layer)
        return mine

    def _may_keep(self, x: Tensor) -> bool:
        """Whether it could be told if a product were no longer the right one."""
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return False
        if not isinstance(x, Tensor) or x.is_inference() or forward_ad._current_level >= 0:
            return False
        first = self.layers[0]
        return all(
            getattr(layer, name) == getattr(first, name)
            for name in _ALIKE
            for layer in self.layers[1:]
        ) and not any(p.is_inference() for layer in self.layers for p in layer.parameters())

    def _state(self, x: Tensor) -> list[Any]:
        """All that a product depends on besides `x` itself; compared one by one."""
        device = x.device.type
        state: list[Any] = [
            x._version,
            x.requires_grad,
            torch.is_grad_enabled(),
            threading.get_ident(),
        ]
        if torch.is_autocast_enabled(device):
            state.append(torch.get_autocast_dtype(device))
        if x.is_cuda:
            state.append(torch.cuda.current_stream(x.device).cuda_stream)
            state.append(torch.cuda.is_current_stream_capturing())
        # A checkpoint, and each of its recomputations, saves tensors in a way of its own.
        state.extend(torch._C._autograd._top_saved_tensors_default_hooks(True) or ())
        for layer in self.layers:
            state.extend([layer.sequence_parallel, layer.gather_output])
            for parameter in layer._parameters.values():
                if parameter is None:
                    continue
                local = getattr(parameter, "_local_tensor", parameter)
                state.append(_Same(parameter))
                state.extend([parameter._version, local._version, parameter.requires_grad])
        return state

    def remove(self) -> None:
        """Let each layer compute its own output again."""
        self._kept = None
        for layer in self.layers:
            if layer._shared is self:
                layer._shared = None

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self.layers, "_kept": None}


class _Same:
    """An object that equals itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


class _Kept:
    """Products that are waiting for their layers to be called."""

    def __init__(self, x: Tensor, state: list[Any], outputs: dict[int, Tensor]) -> None:
        self.outputs, self.state = outputs, state
        this = weakref.ref(self)

        def forget(_: Any) -> None:
            """Nobody can ask for products of what is gone."""
            kept = this()
            if kept is not None:
                kept.outputs.clear()

        self.x = weakref.ref(x, forget)

    def is_of(self, x: Tensor, state: list[Any]) -> bool:
        return self.x() is x and self.state == state
