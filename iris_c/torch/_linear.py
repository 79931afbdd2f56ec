# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A torch.nn.Linear whose parameters are DTensors, run as a product fused with its collective.

The plans of torch's parallelize_module and of transformers lay out a linear layer in the same two
ways; parallel.py and transformers.py say which layer has which layouts, and this file runs it:

    weight      input             output            what runs
    column      Replicate         Shard(-1)         matmul_replicated, gradient: matmul_all_reduce
    (Shard(0))  Shard(d)          Shard(-1)         all_gather_matmul, or gathered_matmul
                any               Replicate         matmul_all_gather, without a gradient
    row         Shard(-1)         Replicate         matmul_all_reduce
    (Shard(1))  Shard(-1)         Shard(d)          matmul_reduce_scatter

Other layouts on one side of the product are redistributed by torch. What the operations cannot
have (other dtypes, devices, meshes) runs as it would without iris_c: see `Linear.otherwise`.

Sizes that the ranks do not divide are laid out as by torch.chunk: all parts but the last ones have
the size of the first. The operations want equal parts, so the short ones are filled with zeros,
which come last, and are cut off the result. Nothing is copied where parts are equal.

Gradients follow NOTE [own and replicated] of _gradients.py: Shard is own, Replicate is replicated.
"""

from __future__ import annotations

import abc
import copy
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement
from torch.nn import functional as F

from iris_c.torch import functions
from iris_c.torch._autocast import dtype_of_product
from iris_c.torch._dtensors import local_of, with_local
from iris_c.torch._groups import context, name_of
from iris_c.torch._parts import bounds, filled
from iris_c.torch.sequence import scatter

__all__ = [
    "Column",
    "Linear",
    "Row",
    "calls_of",
    "column_of",
    "layer_of",
    "log",
    "place",
    "reason",
]

log = logging.getLogger("iris_c.torch.parallel")

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_STATE = "_iris_c_linear"

# What a layer would do without iris_c, and what it does at first with an input: (module, input).
Forward = Callable[[nn.Linear, Tensor], Tensor]


def reason(module: nn.Module) -> str | None:
    """Why a module is not one that `place` may be called with; None if it is one."""
    if not isinstance(module, nn.Linear):
        return f"it is no torch.nn.Linear but a {type(module).__name__}"
    if type(module).forward is not nn.Linear.forward or "forward" in vars(module):
        return f"{type(module).__name__} has a forward() of its own"
    return None


def place(linear: Linear, module: nn.Linear) -> None:
    """Let `linear` be how this torch.nn.Linear runs."""
    vars(module)[_STATE] = linear
    vars(module)["forward"] = _Forward(module)


def layer_of(module: nn.Module) -> Linear | None:
    """How a module runs that `place` has been called with."""
    return vars(module).get(_STATE)


def calls_of(model: nn.Module) -> dict[str, dict[str, int]]:
    """For each layer of a model that `place` has been called with, how often what has run."""
    return {
        name: dict(linear.calls)
        for name, module in model.named_modules()
        if (linear := layer_of(module)) is not None
    }


class _Forward:
    """A module's forward(). An object, so that a copy of a module is one that calls itself."""

    def __init__(self, module: nn.Linear) -> None:
        self.module = module

    def __call__(self, input: Tensor) -> Tensor:
        linear: Linear = getattr(self.module, _STATE)
        return linear(self.module, input)


class Linear(abc.ABC):
    """How a layer runs on a mesh of one dimension.

    Parameters
    ----------
    mesh : DeviceMesh
    input_layout, output_layout : Placement
        Of an input that is no DTensor, and of the output.
    use_local_output : bool
        Whether the output is this rank's tensor, or a DTensor.
    otherwise : callable
        (module, input) -> output, the same without iris_c.

    Attributes
    ----------
    calls : Counter
        How often which operation has run, without those that torch.compile has traced.
    """

    # The weight's, and its name in messages.
    weight_layout: Placement
    kind: str

    def __init__(
        self,
        mesh: DeviceMesh,
        input_layout: Placement,
        output_layout: Placement,
        use_local_output: bool,
        otherwise: Forward,
    ) -> None:
        if mesh.ndim != 1:
            names = mesh.mesh_dim_names or ("tp",)
            raise ValueError(
                f"device_mesh: expected one of one dimension, as mesh[{names[-1]!r}], got one of "
                f"{mesh.ndim}"
            )
        self.mesh, self.group = mesh, name_of(mesh)
        ctx = context(self.group)
        self.rank, self.world_size, self.device = ctx.rank, ctx.world_size, ctx.device
        self.input_layout, self.output_layout = input_layout, output_layout
        self.use_local_output, self.otherwise = use_local_output, otherwise
        self.calls: Counter[str] = Counter()
        # An input that was gathered before the layer is called with it, and the product.
        self._ahead: tuple[DTensor, Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of a model run on the same ranks, with counts of their own."""
        other = copy.copy(self)
        other.calls, other._ahead = Counter(), None
        return other

    # ---- what runs ----

    def __call__(self, module: nn.Linear, input: Tensor) -> Tensor:
        refused = self._refusal(module, input)
        if refused is not None:
            self._note("torch", module, refused)
            return self.otherwise(module, input)
        return self._run(module, input)

    @abc.abstractmethod
    def _run(self, module: nn.Linear, input: Tensor) -> Tensor:
        """The output for an input that `_refusal` lets pass."""

    def _refusal(self, module: nn.Linear, input: Tensor) -> str | None:
        """Why the operations cannot have this input and these parameters; None if they can."""
        if isinstance(input, DTensor) and input.device_mesh != self.mesh:
            return f"the input is on another mesh, {input.device_mesh}"
        dtype = dtype_of_product(input)
        if dtype not in _DTYPES:
            return f"the input is of {dtype}"
        if input.device != self.device:
            return f"the input is on {input.device}, the context on {self.device}"
        return self._refusal_of_weight(module)

    def _refusal_of_weight(self, module: nn.Linear) -> str | None:
        weight = module.weight
        if not isinstance(weight, DTensor):
            return "the weight is no DTensor"
        if weight.device_mesh != self.mesh or weight.placements != (self.weight_layout,):
            return f"the weight is {weight.placements} on {weight.device_mesh}"
        if weight.dtype not in _DTYPES:
            return f"the weight is of {weight.dtype}"
        return None

    def _note(self, operation: str, module: nn.Linear, why: str = "") -> None:
        """Counts what runs, and logs it the first time."""
        if torch.compiler.is_compiling():
            return
        if operation not in self.calls:
            log.debug("%s, %s: %s%s", module, self.kind, operation, why and f", since {why}")
        self.calls[operation] += 1

    # ---- parts ----

    def _part(self, size: int) -> int:
        """The size of the first rank's part of a dimension: the largest."""
        return -(-size // self.world_size)

    def _own_size(self, size: int) -> int:
        """The size of this rank's part of a dimension."""
        start, stop = bounds(size, self.world_size, self.rank)
        return stop - start

    def layout_of(self, input: Tensor) -> Placement:
        """Of what the layer is called with."""
        layout = input.placements[0] if isinstance(input, DTensor) else self.input_layout
        return _counted(layout, input.dim())

    def _with_equal_features(self, module: nn.Linear, local: Tensor) -> Tensor:
        """This rank's part of the input features, of the size of the first rank's part."""
        features = module.weight.shape[1]
        if local.shape[-1] != self._own_size(features):
            raise ValueError(
                f"input: expected a last dimension of {self._own_size(features)}, this rank's part "
                f"of {features} features, got shape {tuple(local.shape)}"
            )
        return filled(local, local.dim() - 1, self._part(features))

    def _with_layout(self, input: Tensor, layout: Placement) -> DTensor:
        """The input as a DTensor of that layout: redistributed by torch."""
        if not isinstance(input, DTensor):
            given = _counted(self.input_layout, input.dim())
            input = DTensor.from_local(input, self.mesh, (given,), run_check=False)
        return input.redistribute(placements=(layout,))

    def _output(self, local: Tensor, layout: Placement, shape: Sequence[int]) -> Tensor:
        """The output, of which `local` is this rank's part, as the caller wants it."""
        wanted = _counted(self.output_layout, len(shape))
        if layout == wanted and self.use_local_output:
            return local
        output = DTensor.from_local(
            local,
            self.mesh,
            (layout,),
            run_check=False,
            shape=torch.Size(shape),
            stride=_strides(shape),
        )
        if layout != wanted:
            output = output.redistribute(placements=(wanted,))
        # A linear layer's output is contiguous, and torch's is not where it cuts off uneven parts.
        return output.to_local().contiguous() if self.use_local_output else output


class Column(Linear):
    """A layer with some of the output features on each rank."""

    weight_layout = Shard(0)
    kind = "column-parallel"

    def _run(self, module: nn.Linear, input: Tensor) -> Tensor:
        if self._ahead is not None and self._ahead[0] is input:
            product = self._ahead[1]
            self._ahead = None
            return self._output_of(module, product)
        layout = self.layout_of(input)
        if isinstance(layout, Shard):
            (product,), _ = self._gathered([module], input, layout)
            return self._output_of(module, product)
        if not isinstance(layout, Replicate):
            self._note("redistribution by torch", module, f"the input is {layout}")
            input = self._with_layout(input, Replicate())
        local = input
        if isinstance(input, DTensor):
            # What else uses this tensor has a part of its gradient too: torch adds the parts up
            # when all are there, once.
            local = local_of(input, (Partial(),))
        if isinstance(self.output_layout, Replicate) and not _wants_gradient(module, input):
            return self._gathered_output(module, local)
        weight, bias = self._parameters(module)
        if isinstance(input, DTensor):
            self._note("linear", module)
            product = F.linear(local, weight, bias)
        else:
            self._note("matmul_replicated", module)
            product = functions.matmul_replicated(_rows(local), weight.t(), bias, ctx=self.group)
            product = product.view(*local.shape[:-1], product.shape[1])
        return self._output_of(module, product)

    def ahead(
        self, modules: Sequence[nn.Linear], input: Tensor, layout: Placement
    ) -> DTensor | None:
        """The whole of an input that the ranks have parts of, gathered beside its products with
        layers, which each keeps for when it is called with that tensor.

        None if that cannot be. `modules` run as this one does, which is the first one's.
        """
        if self._refusal(modules[0], input) is not None:
            return None
        layout = _counted(
            input.placements[0] if isinstance(input, DTensor) else layout, input.dim()
        )
        if not isinstance(layout, Shard) or layout.dim == input.dim() - 1:
            return None
        fit = [module for module in modules if self._refusal_of_weight(module) is None]
        products, joined = self._gathered(fit, input, layout, store=True)
        assert joined is not None
        # Each layer that takes it has a part of its gradient, which the products' adds up.
        whole = with_local(joined, self.mesh, (Replicate(),), (Partial(),))
        for module, product in zip(fit, products, strict=True):
            column_of(module)._ahead = whole, product
        return whole

    def forget(self) -> bool:
        """Let what `ahead` has kept go; whether it had not been used."""
        unused, self._ahead = self._ahead is not None, None
        return unused

    def _gathered(
        self, modules: Sequence[nn.Linear], input: Tensor, layout: Shard, store: bool = False
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        """This rank's output features of layers for an input that the ranks have parts of; and the
        whole input, this rank's own, if it is to be stored or a weight's gradient needs it."""
        local, dim = _local(input), layout.dim
        parameters = [self._parameters(module) for module in modules]
        weights, biases = [w for w, _ in parameters], [b for _, b in parameters]
        of_features = int(dim == local.dim() - 1)
        size = local.shape[dim] * self.world_size
        if isinstance(input, DTensor):
            size = input.shape[dim]
        if of_features:
            local = self._with_equal_features(modules[0], local)
            weights = [filled(weight, 1, local.shape[dim] * self.world_size) for weight in weights]
        else:
            local = filled(local, dim, self._part(size))
        stored = store or (torch.is_grad_enabled() and any(w.requires_grad for w in weights))
        for module in modules:
            column_of(module)._note("all_gather_matmul" if stored else "gathered_matmul", module)
        operands = [weight.t() for weight in weights], biases
        options: Any = {"gather_dim": of_features, "ctx": self.group}
        lead, joined = local.shape[:-1], None
        if len(modules) > 1:
            products, joined = functions.all_gather_matmul(_rows(local), *operands, **options)
        elif stored:
            ((weight,), (bias,)) = operands
            product, joined = functions.all_gather_matmul(_rows(local), weight, bias, **options)
            products = [product]
        else:
            ((weight,), (bias,)) = operands
            products = [functions.gathered_matmul(_rows(local), weight, bias, **options)]
        if of_features:
            return [product.view(*lead, product.shape[1]) for product in products], None
        if joined is not None:
            joined = self._in_order(joined, lead, dim, size)
        return [self._in_order(product, lead, dim, size) for product in products], joined

    def _in_order(self, rows: Tensor, lead: torch.Size, dim: int, size: int) -> Tensor:
        """Rows of all ranks' parts, rank after rank, as a tensor whose dimension `dim` is whole."""
        before, within = math.prod(lead[:dim]), math.prod(lead[dim:])
        shape = (*lead[:dim], lead[dim] * self.world_size, *lead[dim + 1 :], rows.shape[1])
        if before != 1:
            rows = rows.view(self.world_size, before, within, rows.shape[1])
            rows = rows.transpose(0, 1).contiguous()
        whole = rows.reshape(shape)
        return _cut(whole, dim, size)

    def _parameters(self, module: nn.Linear) -> tuple[Tensor, Tensor | None]:
        """This rank's, with as many output features as the first rank has."""
        part = self._part(module.weight.shape[0])
        bias = None if module.bias is None else filled(_local(module.bias), 0, part)
        return filled(_local(module.weight), 0, part), bias

    def _output_of(self, module: nn.Linear, product: Tensor) -> Tensor:
        features = module.weight.shape[0]
        local = _cut(product, product.dim() - 1, self._own_size(features))
        return self._output(local, Shard(local.dim() - 1), (*local.shape[:-1], features))

    def _gathered_output(self, module: nn.Linear, input: Tensor) -> Tensor:
        """All output features on all ranks: the transposed product's rows."""
        self._note("matmul_all_gather", module)
        weight, bias = self._parameters(module)
        column = None if bias is None else bias[:, None]
        transposed = functions.matmul_all_gather(weight, _rows(input).t(), column, ctx=self.group)
        features = module.weight.shape[0]
        output = transposed[:features].t().contiguous().view(*input.shape[:-1], features)
        return self._output(output, Replicate(), output.shape)


def column_of(module: nn.Linear) -> Column:
    """How a column-parallel layer runs."""
    linear = layer_of(module)
    assert isinstance(linear, Column)
    return linear


class Row(Linear):
    """A layer with some of the input features on each rank."""

    weight_layout = Shard(1)
    kind = "row-parallel"

    def _refusal(self, module: nn.Linear, input: Tensor) -> str | None:
        layout = _counted(self.output_layout, input.dim())
        if not isinstance(layout, Replicate | Shard):
            return f"the output is {layout}"
        return super()._refusal(module, input)

    def _run(self, module: nn.Linear, input: Tensor) -> Tensor:
        last = input.dim() - 1
        layout = self.layout_of(input)
        if layout != Shard(last):
            self._note("redistribution by torch", module, f"the input is {layout}")
            input = self._with_layout(input, Shard(last))
        local = self._with_equal_features(module, _local(input))
        weight = filled(_local(module.weight), 1, local.shape[last])
        bias = None if module.bias is None else _local(module.bias)
        wanted = _counted(self.output_layout, input.dim())
        if isinstance(wanted, Shard):
            return self._share(module, local, weight, bias, wanted)
        self._note("matmul_all_reduce", module)
        output = functions.matmul_all_reduce(_rows(local), weight.t(), bias, ctx=self.group)
        output = output.view(*local.shape[:-1], output.shape[1])
        return self._output(output, wanted, output.shape)

    def _share(
        self, module: nn.Linear, input: Tensor, weight: Tensor, bias: Tensor | None, wanted: Shard
    ) -> Tensor:
        """The output's part along one of its dimensions."""
        self._note("matmul_reduce_scatter", module)
        lead, dim = input.shape[:-1], wanted.dim
        shape = (*lead, weight.shape[0])
        of_features = int(dim == len(lead))
        part = list(shape)
        part[dim] = self._part(shape[dim])
        all_parts = part[dim] * self.world_size
        if not of_features:
            input = self._by_rank(filled(input, dim, all_parts), dim)
        else:
            weight = filled(weight, 0, all_parts)
            bias = None if bias is None else scatter(filled(bias, 0, all_parts), ctx=self.group)
        share = functions.matmul_reduce_scatter(
            _rows(input), weight.t(), bias, of_features, ctx=self.group
        )
        own = _cut(share.view(part), dim, self._own_size(shape[dim]))
        return self._output(own, wanted, shape)

    def _by_rank(self, whole: Tensor, dim: int) -> Tensor:
        """A tensor's rows, those of the first rank's part of a dimension first, and so on."""
        before, within = math.prod(whole.shape[:dim]), math.prod(whole.shape[dim:-1])
        if before == 1:
            return whole
        parts = (before, self.world_size, within // self.world_size, whole.shape[-1])
        return whole.reshape(parts).transpose(0, 1)


def _wants_gradient(module: nn.Linear, input: Tensor) -> bool:
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad
        for tensor in (input, module.weight, module.bias)
    )


def _counted(layout: Placement, dims: int) -> Placement:
    """A layout whose dimension is counted from the first one on."""
    if isinstance(layout, Shard) and layout.dim < 0:
        return Shard(layout.dim + dims)
    return layout


def _rows(tensor: Tensor) -> Tensor:
    """As a matrix, also one of no rows."""
    if tensor.dim() == 2:
        return tensor
    return tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1])


def _local(tensor: Tensor) -> Tensor:
    return local_of(tensor, tensor.placements) if isinstance(tensor, DTensor) else tensor


def _cut(tensor: Tensor, dim: int, size: int) -> Tensor:
    """The part of that size that comes first, contiguous as the whole is."""
    if tensor.shape[dim] == size:
        return tensor
    return tensor.narrow(dim, 0, size).contiguous()


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Of a contiguous tensor."""
    return torch.empty(tuple(shape), device="meta").stride()
