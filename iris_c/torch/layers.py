# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Linear layers whose weight is divided among the ranks (Shoeybi et al., "Megatron-LM", 2019;
with sequence parallelism, Korthikanti et al., 2022).

A column-parallel layer holds some of the output features, a row-parallel one some of the input
features; the one in front of the other needs a single exchange:

    sequence_parallel   column-parallel                     row-parallel
    False               nothing, gradient: all-reduce       matmul_all_reduce, gradient: nothing
    True                all_gather_matmul                   matmul_reduce_scatter, and vice versa

Where no gradient of the weight will be wanted, gathered_matmul takes all_gather_matmul's place.

With sequence_parallel what stands between the pairs is divided along the first dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from iris_c.torch import functions
from iris_c.torch._groups import Named, context, name_of

__all__ = ["ColumnParallelLinear", "RowParallelLinear"]


class _ParallelLinear(nn.Module):
    """What both have in common: a weight that is divided along one dimension."""

    divided: int  # the weight's dimension

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        ctx: Named = None,
        sequence_parallel: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.sequence_parallel = sequence_parallel
        self.group = name_of(ctx)
        world_size = context(self.group).world_size
        name, size = (("out_features", out_features), ("in_features", in_features))[self.divided]
        if size % world_size != 0:
            raise ValueError(f"{name}: expected a multiple of world_size {world_size}, got {size}")
        shape = [out_features, in_features]
        shape[self.divided] //= world_size
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_parameter("bias", None)
        if bias:
            size = shape[0] if self.divided == 0 else out_features
            self.bias = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters as torch.nn.Linear does.

        Every rank draws the whole layer and keeps its part, so ranks with equal generators get
        parts of one layer, which does not depend on the number of ranks.
        """
        whole = nn.Linear(
            self.in_features,
            self.out_features,
            self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        self._take(whole)

    @torch.no_grad()
    def _take(self, whole: nn.Linear) -> None:
        self.weight.copy_(self._share("weight", whole.weight))
        if self.bias is not None:
            self.bias.copy_(self._share("bias", whole.bias))

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, *, ctx: Named = None, sequence_parallel: bool = False
    ) -> Self:
        """Return this rank's part of a layer that every rank has as a whole.

        Parameters that need no gradient there need none here.

        Parameters
        ----------
        linear : torch.nn.Linear
        ctx : Context, str or None
            The context, or the name of a registered one. None: the one named 'default'.
        sequence_parallel : bool
        """
        with torch.device("meta"):
            layer = cls(
                linear.in_features,
                linear.out_features,
                linear.bias is not None,
                ctx=ctx,
                sequence_parallel=sequence_parallel,
                dtype=linear.weight.dtype,
            )
        layer.to_empty(device=linear.weight.device)
        layer._take(linear)
        for name, parameter in linear.named_parameters(recurse=False):
            getattr(layer, name).requires_grad_(parameter.requires_grad)
        return layer.train(linear.training)

    def _share(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """This rank's part of a whole parameter."""
        if name == "bias" and self.divided == 1:
            return whole
        ctx = context(self.group)
        return whole.chunk(ctx.world_size, self.divided if name == "weight" else 0)[ctx.rank]

    def _rows(self, x: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """`x` as a matrix, also of no rows, and its dimensions but the last. A matrix is itself:
        another view of it would take as long as a small product."""
        if x.dim() == 2:
            return x, [x.shape[0]]
        least = 2 if self.sequence_parallel else 1
        if x.dim() < least:
            raise ValueError(
                f"x: expected {least} or more dimensions with sequence_parallel="
                f"{self.sequence_parallel}, got shape {tuple(x.shape)}"
            )
        lead = list(x.shape[:-1])
        return x.reshape(math.prod(lead), x.shape[-1]), lead

    @staticmethod
    def _with_lead(y: torch.Tensor, lead: list[int]) -> torch.Tensor:
        """The matrix `y` with these dimensions instead of its rows."""
        return y if len(lead) == 1 else y.view(*lead, y.shape[1])

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Takes parameters as this rank has them, or whole ones."""
        shapes = {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}
        whole = {}
        for name, shape in shapes.items():
            tensor = state_dict.get(prefix + name)
            if tensor is not None and tuple(tensor.shape) == shape:
                whole[prefix + name] = self._share(name, tensor)
        super()._load_from_state_dict({**state_dict, **whole}, prefix, *args)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, world_size={context(self.group).world_size}, "
            f"sequence_parallel={self.sequence_parallel}"
        )


class ColumnParallelLinear(_ParallelLinear):
    """A linear layer y = x @ W^T + b whose output features are divided among the ranks.

    The input x (..., in_features) is the same on all ranks, and the output is this rank's
    (..., out_features / world_size), which a row-parallel layer takes as its input. With
    `sequence_parallel` each rank passes its part of the first dimension of x, and the output has
    the whole dimension.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the whole layer. out_features is a multiple of world_size.
    bias : bool
        Whether the layer adds b.
    ctx : Context, str or None
        The context, or the name of a registered one. None: the one named 'default'.
    sequence_parallel : bool
        Whether the first dimension of the input is divided among the ranks.
    device, dtype
        Device and dtype of the parameters.
    """

    divided = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (rows, lead), weight = self._rows(x), self.weight.t()
        if self.sequence_parallel:
            # The joined input, which takes time to store, is what the weight's gradient needs.
            if self.weight.requires_grad and torch.is_grad_enabled():
                y, _ = functions.all_gather_matmul(rows, weight, self.bias, 0, ctx=self.group)
            else:
                y = functions.gathered_matmul(rows, weight, self.bias, 0, ctx=self.group)
            lead[0] *= context(self.group).world_size
        else:
            y = functions.matmul_replicated(rows, weight, self.bias, ctx=self.group)
        return self._with_lead(y, lead)


class RowParallelLinear(_ParallelLinear):
    """A linear layer y = x @ W^T + b whose input features are divided among the ranks.

    The input is this rank's (..., in_features / world_size), which a column-parallel layer returns;
    the output (..., out_features) is the same on all ranks. With `sequence_parallel` the output is
    this rank's part of the first dimension, whose size is then a multiple of world_size. Every rank
    has the whole b.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the whole layer. in_features is a multiple of world_size.
    bias : bool
        Whether the layer adds b.
    ctx : Context, str or None
        The context, or the name of a registered one. None: the one named 'default'.
    sequence_parallel : bool
        Whether the first dimension of the output is divided among the ranks.
    device, dtype
        Device and dtype of the parameters.
    """

    divided = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (rows, lead), weight = self._rows(x), self.weight.t()
        if self.sequence_parallel:
            world_size = context(self.group).world_size
            if lead[0] % world_size != 0:
                raise ValueError(
                    f"x: expected a first dimension in a multiple of world_size {world_size}, got "
                    f"shape {tuple(x.shape)}"
                )
            y = functions.matmul_reduce_scatter(rows, weight, self.bias, 0, ctx=self.group)
            lead[0] //= world_size
        else:
            y = functions.matmul_all_reduce(rows, weight, self.bias, ctx=self.group)
        return self._with_lead(y, lead)
