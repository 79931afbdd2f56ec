# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Parts of parameters where torch.distributed has no DTensors for them, so that torch sees parts.

A DividedParameter and its gradient are ordinary tensors of this rank that know, by their attribute
`part`, what they are part of. Their elements are computed with as any tensor's. What is said of
all elements of a gradient is said of those of all ranks: its norm, which is how
torch.nn.utils.clip_grad_norm_ and others like it find the whole model's, and whether a number in it
is not finite, which is how torch.amp.GradScaler decides about a step. Both are collective calls, as
with DTensors. torch.distributed.checkpoint stores parts as parts, or says why it cannot.

Tensors become such in place, by their class, and so stay the objects that autograd, optimizers and
users hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.optim.optimizer import _foreach_supported_types as _of_optimizers
from torch.utils._foreach_utils import _foreach_supported_types as _of_clipping

from iris_c.torch._groups import context

if TYPE_CHECKING:
    from iris_c.torch._parameters import Part

__all__ = ["DividedGradient", "DividedParameter", "divided", "divided_parameter"]

# Parts are the same ranges of one number of ranks, whose context has that name.
_Ranks = tuple[str, int]


class _Stored:
    """What torch.distributed.checkpoint asks a tensor of which a rank has a part."""

    part: Part

    def __create_write_items__(self, fqn: str, tensor: Any) -> list[Any]:
        from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
        from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

        (chunk,) = self.__create_chunk_list__()
        return [
            WriteItem(
                index=MetadataIndex(fqn, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=chunk,
                    properties=TensorProperties.create_from_tensor(tensor),
                    size=torch.Size(self.part.shape),
                ),
            )
        ]

    def __create_chunk_list__(self) -> list[Any]:
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

        part = self.part
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                f"state_dict: expected whole tensors, since torch.distributed is not initialised, "
                f"got this rank's part, of shape {part.local_shape}, of one of shape {part.shape}; "
                "initialise torch.distributed before the layers are made"
            )
        assert part.dim is not None
        offsets = [0] * len(part.shape)
        offsets[part.dim] = part.start
        return [ChunkStorageMetadata(torch.Size(offsets), torch.Size(part.local_shape))]

    def __get_tensor_shard__(self, index: Any) -> Any:
        return self


class DividedGradient(_Stored, Tensor):
    """This rank's part of a gradient, or of a parameter in a state dict."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        about_all = _ABOUT_ALL.get(func)
        with torch._C.DisableTorchFunctionSubclass():
            if about_all is not None:
                return about_all(func, *args, **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    def detach(self) -> Any:
        """Of its own class, as nn.Parameter asks of what becomes one."""
        return divided(super().detach(), self.part)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As an ordinary tensor, which those load that do not know iris_c."""
        return self.as_subclass(Tensor).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        plain: Any = self.as_subclass(Tensor)
        copied = divided(plain.__deepcopy__(memo), self.part)
        del memo[id(plain)]  # which ends here: another object may get its number
        memo[id(self)] = copied
        return copied


class DividedParameter(_Stored, Tensor):
    """A parameter of which this rank has a part, without a DTensor.

    It is an nn.Parameter to isinstance, as any tensor with `_is_param` is; what is detached of it
    is not. Were it a subclass of nn.Parameter, nn.Parameter(layer.weight) would refuse it.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def grad(self) -> Tensor | None:
        """A DividedGradient."""
        grad: Tensor | None = _GRAD.__get__(self)
        return grad if grad is None else divided(grad, self.part)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        _GRAD.__set__(self, value)

    @grad.deleter
    def grad(self) -> None:
        _GRAD.__delete__(self)

    def detach(self) -> Any:
        return _become(super().detach(), DividedParameter, self.part)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """As nn.Parameter's."""
        if id(self) not in memo:
            copied: Any = nn.Parameter(
                self.data.clone(memory_format=torch.preserve_format), self.requires_grad
            )
            memo[id(self)] = divided_parameter(copied, self.part)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As an ordinary parameter, or tensor; the layer says again what it is part of."""
        if isinstance(self, nn.Parameter):
            return nn.Parameter(self.data, self.requires_grad).__reduce_ex__(protocol)
        return self.data.__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{type(self).__name__} of {self.part}:\n{self.data!r}"


_KINDS = (DividedParameter, DividedGradient)
_GRAD: Any = Tensor.grad

# Optimizers and clipping take lists of these types to one call for all.
_of_optimizers.extend(_KINDS)
_of_clipping.extend(_KINDS)


def _become(tensor: Any, kind: type[_Stored], part: Part) -> Any:
    tensor.__class__ = kind
    tensor.part = part
    return tensor


def divided(tensor: Any, part: Part) -> Any:
    """An ordinary tensor itself, which from now on is this part; others as they are."""
    if type(tensor) in (Tensor, *_KINDS):
        return _become(tensor, DividedGradient, part)
    return tensor


def divided_parameter(parameter: Any, part: Part) -> Any:
    """The parameter itself, which from now on is this part."""
    if part.dim is not None and type(parameter) in (nn.Parameter, *_KINDS):
        parameter._is_param = True
        return _become(parameter, DividedParameter, part)
    parameter.part = part
    return parameter


# ---- what is said of all elements ----

# Not compiled: generated code would hand such tensors to torch's kernels, which refuse subclasses.


def _ranks(tensor: Any) -> _Ranks | None:
    """Of whom a tensor is a part; None: it is no part of a greater one."""
    if not isinstance(tensor, DividedGradient):
        return None
    group, copies = tensor.part.group, tensor.part.copies
    return (group, copies) if context(group).world_size > copies else None


@_disable_dynamo
def _norm(func: Any, input: Any, *args: Any, **options: Any) -> Any:
    """The norm of all elements; norms along dimensions are left to each rank."""
    ranks, order = _ranks(input), _order(args, options)
    dim = args[1] if len(args) > 1 else options.get("dim")
    if ranks is None or dim is not None:
        return func(input, *args, **options)
    local = func(_with_elements(input, order), *args, **options)
    return _over_ranks([local], order, ranks)[0]


@_disable_dynamo
def _norms(func: Any, tensors: Sequence[Tensor], *args: Any, **options: Any) -> list[Tensor]:
    """The norm of each tensor; those of parts are exchanged at once."""
    order = _order(args, options)
    alike: dict[_Ranks, list[int]] = {}
    given = list(tensors)
    for i, tensor in enumerate(tensors):
        ranks = _ranks(tensor)
        if ranks is not None:
            given[i] = _with_elements(tensor, order)
            alike.setdefault(ranks, []).append(i)
    norms: list[Tensor] = list(func(given, *args, **options))
    for ranks, places in alike.items():
        whole = _over_ranks([norms[i] for i in places], order, ranks)
        for i, norm in zip(places, whole, strict=True):
            norms[i] = norm
    return norms


def _order(args: Any, options: dict[str, Any]) -> float:
    """Of a norm: torch's functions have it behind the tensor, or call it p or ord."""
    order = args[0] if args else options.get("p", options.get("ord"))
    if order is None or order == "fro":
        return 2.0
    if isinstance(order, str):
        raise NotImplementedError(
            f"p: expected a number or 'fro' for a gradient of which each rank has a part, got "
            f"{order!r}"
        )
    return float(order)


def _with_elements(tensor: Tensor, order: float) -> Tensor:
    """The tensor, or if it has no elements one that changes no norm: torch refuses some of none."""
    if tensor.numel() > 0:
        return tensor
    return tensor.new_full((1,), 0.0 if order >= 0 else math.inf)


def _over_ranks(norms: list[Tensor], order: float, ranks: _Ranks) -> list[Tensor]:
    """Of the norms of this rank's parts, those of the wholes."""
    group, copies = ranks
    wide = torch.float64 if any(norm.dtype == torch.float64 for norm in norms) else torch.float32
    own = torch.stack([norm.to(wide) for norm in norms])
    parts = torch.ops.iris_c.all_gather(own[None], 0, group)[::copies]
    whole = parts.sum(0) if order == 0 else torch.linalg.vector_norm(parts, order, dim=0)
    return [one.to(norm.dtype) for one, norm in zip(whole.unbind(), norms, strict=True)]


@_disable_dynamo
def _unscale(
    func: Any, tensors: Sequence[Tensor], found_inf: Tensor, inverse_scale: Tensor
) -> None:
    """GradScaler's: what is found on one rank is found on all, so all take the step or none."""
    func(tensors, found_inf, inverse_scale)
    for group in dict.fromkeys(ranks[0] for tensor in tensors if (ranks := _ranks(tensor))):
        found = torch.ops.iris_c.all_reduce(found_inf.reshape(1), "max", group)
        found_inf.copy_(found.reshape(found_inf.shape))


_ABOUT_ALL: dict[Any, Callable[..., Any]] = {
    torch.linalg.vector_norm: _norm,
    torch.linalg.norm: _norm,
    torch.norm: _norm,
    Tensor.norm: _norm,
    torch._foreach_norm: _norms,
    torch._amp_foreach_non_finite_check_and_unscale_: _unscale,
}
