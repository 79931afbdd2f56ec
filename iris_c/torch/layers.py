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

With sequence_parallel what stands between the pairs is divided along one dimension. Ranks exchange
rows of matrices, so it is moved in front of the others: of a column-parallel layer's input, a
rank's part, by a copy; its output is moved back as a view, without one, which a row-parallel layer
moves forth again. The row-parallel layer's output, a rank's part, is copied into order.

All ranks multiply matrices of equal sizes: where the ranks' parts of the weight differ in size, the
smaller ones are filled up with zeros as they are used. What the parameters are, _parameters.py
says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from iris_c.torch import functions
from iris_c.torch._groups import Named, context, name_of
from iris_c.torch._parameters import DividedModule
from iris_c.torch._parts import Sizes, agreed_sizes, bounds, checked_sequence_dim, filled, joined_of

__all__ = ["ColumnParallelLinear", "RowParallelLinear"]


class _ParallelLinear(DividedModule, nn.Linear):
    """What both have in common: a weight that is divided along one dimension."""

    divided: int  # the weight's dimension
    plan: str  # what transformers' plans call it
    input_format: Any = None  # what the input is quantised to

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        ctx: Named = None,
        sequence_parallel: bool = False,
        sequence_dim: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super(nn.Linear, self).__init__()  # nn.Linear's would make the whole weight
        self.in_features, self.out_features = in_features, out_features
        self.sequence_parallel = sequence_parallel
        self.sequence_dim = checked_sequence_dim(sequence_dim)
        self.group = name_of(ctx)
        shape = (out_features, in_features)
        self._divide("weight", shape, self.divided, device=device, dtype=dtype)
        self.register_parameter("bias", None)
        if bias:
            dim = 0 if self.divided == 0 else None
            self._divide("bias", (out_features,), dim, device=device, dtype=dtype)
        # The divided dimension of the largest part, to which all ranks' are filled up.
        parts = context(self.group).world_size // self.copies
        _, self._largest = bounds(shape[self.divided], parts, 0)
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
            dtype=self._drawn_dtype(),
        )
        for name, parameter in whole.named_parameters():
            self._take(name, parameter)

    def _drawn_dtype(self) -> torch.dtype | None:
        """Of what reset_parameters draws. None: torch's default."""
        return self.weight.dtype

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, ctx: Named = None, **options: Any) -> Self:
        """Return this rank's part of a layer that every rank has as a whole.

        Parameters that need no gradient there need none here.

        Parameters
        ----------
        linear : torch.nn.Linear
        ctx : Context, str, ProcessGroup, DeviceMesh or None
            The ranks. None: the context named 'default'.
        **options
            The constructor's: sequence_parallel, and gather_output or input_is_parallel.

        Raises
        ------
        TypeError
            It is no whole torch.nn.Linear, or one with a forward of its own.
        ValueError
            A parameter is computed (by parametrize, weight_norm or prune), or not there yet.
        """
        _check_whole(linear)
        layer = cls._shaped_as(linear, linear.weight, ctx=ctx, **options)
        for name, parameter in linear.named_parameters(recurse=False):
            layer._take(name, parameter)
            getattr(layer, name).requires_grad_(parameter.requires_grad)
        return layer.train(linear.training)

    @classmethod
    def _shaped_as(cls, linear: nn.Linear, weight: torch.Tensor, **options: Any) -> Self:
        """One of the shape of `linear`, of the weight's dtype and device, without values."""
        with torch.device("meta"):
            layer = cls(
                linear.in_features,
                linear.out_features,
                linear.bias is not None,
                dtype=weight.dtype,
                **options,
            )
        layer.to_empty(device=weight.device)
        return layer

    # PEFT asks a layer for these, by names that transformers gave them: how the layer is divided,
    # as transformers' plans call it, and among whom. Its LoRA divides itself alike.

    @property
    def _hf_tp_plan(self) -> str | None:
        return None if self._hf_device_mesh is None else self.plan

    @property
    def _hf_device_mesh(self) -> Any:
        """None where the products beside this one's need no division, or have another one."""
        mesh = getattr(self._parameters.get("weight"), "device_mesh", None)
        return mesh if mesh is not None and mesh.ndim == 1 and self._is_plain() else None

    def _rows(self, x: torch.Tensor, features: int) -> tuple[torch.Tensor, list[int]]:
        """`x` as a matrix of so many columns, also of no rows, and its dimensions but the last,
        with that of the sequence in front if it is divided: its rows are what ranks exchange. A
        matrix is itself: another view of it would take as long as a small product."""
        dim = self.sequence_dim
        least = (dim + 2 if dim >= 0 else -dim) if self.sequence_parallel else 1
        if x.dim() < least:
            which = f" and sequence_dim={dim}" if self.sequence_parallel and dim != 0 else ""
            raise ValueError(
                f"x: expected {least} or more dimensions with sequence_parallel="
                f"{self.sequence_parallel}{which}, got shape {tuple(x.shape)}"
            )
        if x.shape[-1] != features:
            raise ValueError(
                f"x: expected a last dimension of {features}, got shape {tuple(x.shape)}"
            )
        if x.dim() == 2:
            return x, [x.shape[0]]
        if self.sequence_parallel and dim != 0:
            x = x.movedim(dim, 0)
        lead = list(x.shape[:-1])
        return x.reshape(math.prod(lead), features), lead

    def _with_lead(self, y: torch.Tensor, lead: list[int]) -> torch.Tensor:
        """The matrix `y` with these dimensions instead of its rows, in the input's order."""
        if len(lead) == 1:
            return y
        y = y.view(*lead, y.shape[1])
        return y.movedim(0, self.sequence_dim) if self.sequence_parallel else y

    def _is_plain(self) -> bool:
        """Whether the whole input, or the whole output, is on each rank."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, world_size={context(self.group).world_size}, "
            f"sequence_parallel={self.sequence_parallel}"
            + (f", sequence_dim={self.sequence_dim}" if self.sequence_dim != 0 else "")
        )


def _check_whole(linear: Any) -> None:
    """Refuses what a layer could not take over, and would leave out in silence."""
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"linear: expected a torch.nn.Linear, got {type(linear).__name__}")
    if isinstance(linear, DividedModule):
        raise TypeError(
            f"linear: expected a whole torch.nn.Linear, got a {type(linear).__name__}, of which "
            "each rank has a part"
        )
    if type(linear).forward is not nn.Linear.forward or "forward" in vars(linear):
        raise TypeError(
            "linear: expected one that computes as torch.nn.Linear does, got "
            f"{type(linear).__name__}, which has a forward of its own"
        )
    for name in ("weight", "bias"):
        if name not in linear._parameters:
            raise ValueError(
                f"linear: expected parameters, got a {name} that is computed (by parametrize, "
                "weight_norm or prune); make it a parameter again first, as "
                "torch.nn.utils.parametrize.remove_parametrizations does"
            )
        parameter = linear._parameters[name]
        if parameter is not None and is_lazy(parameter):
            raise ValueError(f"linear: expected parameters, got a {name} that has no shape yet")


class ColumnParallelLinear(_ParallelLinear):
    """A linear layer y = x @ W^T + b whose output features are divided among the ranks.

    The input x (..., in_features) is the same on all ranks, and the output (..., this rank's
    out_features) is this rank's, which a row-parallel layer takes as its input. With
    `sequence_parallel` each rank passes its part of a dimension of x, the first by default, and the
    output has the whole dimension. Parts may differ in size, and be empty. It is an nn.Linear
    whose in_features and out_features, as the shapes of `weight` and `bias`, are those of the whole
    layer.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the whole layer. out_features is divided as torch.chunk does.
    bias : bool
        Whether the layer adds b.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.
    sequence_parallel : bool
        Whether a dimension of the input is divided among the ranks.
    sequence_dim : int
        Which one. Negative ones count from the last, which is that of the features.
    sequence_sizes : sequence of int, 'equal' or None
        All ranks' sizes of that dimension, as in iris_c.torch.all_gather: None finds them in each
        call, or under torch.compile takes them for equal.
    gather_output : bool
        Whether all ranks get the whole output (..., out_features), equal on all.
    device, dtype
        Device and dtype of the parameters.
    """

    divided = 0
    plan = "colwise"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        ctx: Named = None,
        sequence_parallel: bool = False,
        sequence_dim: int = 0,
        sequence_sizes: Sizes = None,
        gather_output: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            bias,
            ctx=ctx,
            sequence_parallel=sequence_parallel,
            sequence_dim=sequence_dim,
            device=device,
            dtype=dtype,
        )
        self.gather_output = gather_output
        self.sequence_sizes = sequence_sizes
        self._shared: Any = None  # see shared_inputs.py

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._shared is not None:
            output: torch.Tensor = self._shared.product(self, x)
            return output
        return column_products([self], x)[0]

    def _is_plain(self) -> bool:
        return not (self.sequence_parallel or self.gather_output)

    def _factors(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What an input is multiplied by, and what is added: of one size on all ranks."""
        weight, bias = self._local("weight"), self._local("bias")
        assert weight is not None
        if weight.shape[0] != self._largest:
            weight = filled(weight, 0, self._largest)
            bias = None if bias is None else filled(bias, 0, self._largest)
        return weight.t(), bias

    @staticmethod
    def _replicated_products(
        layers: Sequence[ColumnParallelLinear], rows: torch.Tensor
    ) -> list[torch.Tensor]:
        """Of the same `rows` on all ranks with the layers' parts of the weights."""
        weights, biases = _all_factors(layers)
        group = layers[0].group
        if len(layers) == 1:
            return [functions.matmul_replicated(rows, weights[0], biases[0], ctx=group)]
        return functions.matmul_replicated(rows, weights, biases, ctx=group)

    @staticmethod
    def _gathered_products(
        layers: Sequence[ColumnParallelLinear], rows: torch.Tensor
    ) -> list[torch.Tensor]:
        """Of all ranks' `rows`, joined, with the layers' parts of the weights."""
        weights, biases = _all_factors(layers)
        group = layers[0].group
        if len(layers) > 1:
            return functions.all_gather_matmul(rows, weights, biases, 0, ctx=group)[0]
        # The joined input, which takes time to store, is what the weight's gradient needs.
        if weights[0].requires_grad and torch.is_grad_enabled():
            return [functions.all_gather_matmul(rows, weights[0], biases[0], 0, ctx=group)[0]]
        return [functions.gathered_matmul(rows, weights[0], biases[0], 0, ctx=group)]

    def _finished(self, y: torch.Tensor, lead: list[int]) -> torch.Tensor:
        """The output, of a product and the input's dimensions but the last."""
        mine = self._local_shapes["weight"][0]
        if self.gather_output:
            y = torch.ops.iris_c.all_gather(y, 1, self.group)
            y = y[:, : self.out_features].contiguous()  # what has been filled up is at the end
        elif mine != self._largest:
            y = y[:, :mine].contiguous()
        return self._with_lead(y, lead)


def _all_factors(
    layers: Sequence[ColumnParallelLinear],
) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
    factors = [layer._factors() for layer in layers]
    return [weight for weight, _ in factors], [bias for _, bias in factors]


def column_products(layers: Sequence[ColumnParallelLinear], x: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of layers, alike but for their parameters, for one input. Each way there is one
    exchange for all of them."""
    first = layers[0]
    group = first.group
    rows, lead = first._rows(x, first.in_features)
    if not first.sequence_parallel:
        products = first._replicated_products(layers, rows)
        return [layer._finished(y, lead) for layer, y in zip(layers, products, strict=True)]
    sizes = agreed_sizes(x, lead[0], first.sequence_sizes, group)
    each = math.prod(lead[1:])  # rows of a token
    if sizes is None:
        lead[0] *= context(group).world_size
    else:
        rows = filled(rows, 0, max(sizes) * each)
        lead[0] = sum(sizes)
    products = first._gathered_products(layers, rows)
    if sizes is not None:
        products = [joined_of(y, 0, [size * each for size in sizes]) for y in products]
    return [layer._finished(y, lead) for layer, y in zip(layers, products, strict=True)]


class RowParallelLinear(_ParallelLinear):
    """A linear layer y = x @ W^T + b whose input features are divided among the ranks.

    The input is this rank's (..., its in_features), which a column-parallel layer returns; the
    output (..., out_features) is the same on all ranks. With `sequence_parallel` the output is this
    rank's part of a dimension, the first by default, which is divided as torch.chunk does, with
    empty parts for the last ranks where it has none. Every rank has the whole b.
    It is an nn.Linear whose in_features and out_features, as the shapes of `weight` and `bias`, are
    those of the whole layer.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the whole layer. in_features is divided as torch.chunk does.
    bias : bool
        Whether the layer adds b.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.
    sequence_parallel : bool
        Whether a dimension of the output is divided among the ranks.
    sequence_dim : int
        Which one. Negative ones count from the last, which is that of the features.
    input_is_parallel : bool
        Whether each rank passes its own input features. False: all pass the same x (...,
        in_features), of which each takes its own.
    device, dtype
        Device and dtype of the parameters.
    """

    divided = 1
    plan = "rowwise"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        ctx: Named = None,
        sequence_parallel: bool = False,
        sequence_dim: int = 0,
        input_is_parallel: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            bias,
            ctx=ctx,
            sequence_parallel=sequence_parallel,
            sequence_dim=sequence_dim,
            device=device,
            dtype=dtype,
        )
        self.input_is_parallel = input_is_parallel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._local("weight"), self._local("bias")
        assert weight is not None
        if self.input_is_parallel:
            rows, lead = self._rows(x, weight.shape[1])
            if weight.shape[1] != self._largest:
                rows = filled(rows, 1, self._largest)
        else:
            rows, lead = self._rows(x, self.in_features)
            rows = filled(rows, 1, self._largest * context(self.group).world_size)
            rows = torch.ops.iris_c.own_part(rows, 1, self.group)
        if weight.shape[1] != self._largest:
            weight = filled(weight, 1, self._largest)
        if self.sequence_parallel:
            y = self._scattered(rows, weight.t(), bias, lead)
            return self._with_lead(y, lead).contiguous()
        return self._with_lead(self._sum(rows, weight.t(), bias), lead)

    def _is_plain(self) -> bool:
        return self.input_is_parallel and not self.sequence_parallel

    def _sum(
        self, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Over the ranks, of their `rows` with their parts of the weight; plus the bias."""
        return functions.matmul_all_reduce(rows, weight, bias, ctx=self.group)

    def _share_of_sum(
        self, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """This rank's rows of it."""
        return functions.matmul_reduce_scatter(rows, weight, bias, 0, ctx=self.group)

    def _scattered(
        self,
        rows: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        lead: list[int],
    ) -> torch.Tensor:
        """This rank's part of the sum, by tokens. `lead` becomes its own."""
        ctx, total = context(self.group), lead[0]
        if total % ctx.world_size == 0:
            lead[0] = total // ctx.world_size
            return self._share_of_sum(rows, weight, bias)
        each = math.prod(lead[1:])  # rows of a token
        rows = filled(rows, 0, -(-total // ctx.world_size) * ctx.world_size * each)
        y = self._share_of_sum(rows, weight, bias)
        start, stop = bounds(total, ctx.world_size, ctx.rank)
        lead[0] = stop - start
        return y.narrow(0, 0, lead[0] * each)
