# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Parameters of which each rank has a part, so that all of PyTorch can see what they are.

Where torch.distributed knows the ranks, such a parameter is a DTensor on their mesh: shape and
gradient are the whole parameter's, checkpoints, optimizers, FSDP2 and the clipping of gradients
treat it as one. Elsewhere it is an ordinary Parameter whose attribute `part` says which part of
what it is. Sizes that are no multiple of the number of ranks are divided as DTensor's Shard and
torch.chunk do: the last ranks have less, or nothing.

What a module computes with is the rank's own tensor. Its gradient is placed as the parameter is:
that of a divided parameter is this rank's own, that of a replicated one is replicated, see
_gradients.py, NOTE [own and replicated].
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from iris_c.torch import _groups
from iris_c.torch._divided_tensors import (
    DividedGradient,
    DividedParameter,
    divided,
    divided_parameter,
)
from iris_c.torch._parts import bounds
from iris_c.torch._replicas import mesh_of_copies

__all__ = ["DividedModule", "Part", "is_distributed"]

# Types of what a rank has as it is.
_PLAIN = (nn.Parameter, Tensor, DividedParameter, DividedGradient)


class Part(NamedTuple):
    """Which part of a whole parameter this rank has.

    Attributes
    ----------
    shape : tuple of int
        Of the whole parameter.
    dim : int or None
        The dimension that is divided. None: every rank has the whole.
    start, stop : int
        This rank's range of that dimension; 0 and 0 without one.
    group : str
        The name of the context whose ranks have the parts.
    copies : int
        How many neighbouring ranks have this very part.
    """

    shape: tuple[int, ...]
    dim: int | None
    start: int
    stop: int
    group: str
    copies: int = 1

    def of(self, whole: Tensor) -> Tensor:
        """This rank's part of a whole tensor, as a view."""
        return (
            whole
            if self.dim is None
            else whole.narrow(self.dim, self.start, self.stop - self.start)
        )

    @property
    def local_shape(self) -> tuple[int, ...]:
        """Of this rank's part."""
        shape = list(self.shape)
        if self.dim is not None:
            shape[self.dim] = self.stop - self.start
        return tuple(shape)


def is_distributed(tensor: Any) -> bool:
    """Whether it is a DTensor; imports nothing."""
    return type(tensor) not in _PLAIN and hasattr(tensor, "device_mesh")


# ---- a module that has such parameters ----


class DividedModule(nn.Module):
    """Keeps parameters of which each rank has a part. `group` names their ranks' context.

    A subclass calls `_divide` for each in its constructor and takes what it computes with from
    `_local`; `_take` gives a parameter its part of a whole tensor. load_state_dict accepts whole
    tensors, this rank's parts and DTensors.
    """

    group: str
    copies = 1  # of each part of what is divided, on neighbouring ranks
    _parts: dict[str, Part]
    _local_shapes: dict[str, tuple[int, ...]]
    _removed: dict[str, bool]  # requires_grad of parameters that have been removed

    def _divide(
        self,
        name: str,
        shape: tuple[int, ...],
        dim: int | None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Registers an uninitialised parameter of this whole shape, divided along `dim`."""
        if "_parts" not in self.__dict__:
            self._parts, self._local_shapes, self._removed = {}, {}, {}
        ctx = _groups.context(self.group)
        copies, start, stop = 1, 0, 0
        if dim is not None:
            copies = self.copies
            start, stop = bounds(shape[dim], ctx.world_size // copies, ctx.rank // copies)
        part = self._parts[name] = Part(shape, dim, start, stop, self.group, copies)
        self._local_shapes[name] = part.local_shape
        local = torch.empty(part.local_shape, device=device, dtype=dtype)
        mesh = _mesh(part)
        if mesh is not None:
            local = _distributed(local, shape, mesh, _placements(part))
        self.register_parameter(name, nn.Parameter(local))

    def _local(self, name: str) -> Tensor | None:
        """This rank's tensor of a parameter, for computation: the parameter gets its gradient."""
        value: Any = self._parameters.get(name)
        if value is None:
            if name in self._parameters:
                return None
            value = self._computed(name)
        if type(value) not in _PLAIN and hasattr(value, "device_mesh"):
            value = _to_local(value, self._parts[name])
        tensor: Tensor = value
        if type(value) is DividedParameter and torch.compiler.is_compiling():
            # Under a default device torch's compiler reads no attributes of such a class.
            tensor = torch.ops.aten.alias(value)
        if tensor.shape != self._local_shapes[name]:
            raise _not_a_part(name, value, self._parts[name])
        return tensor

    def _computed(self, name: str) -> Any:
        """What stands where the parameter was. Without a mesh it is made of parts that know
        nothing of one another: no norm of the weight, no share of its elements would be right."""
        source: Any
        for key, source in self.named_parameters():
            if is_distributed(source) and any(p.is_partial() for p in source.placements):
                raise RuntimeError(
                    f"{name}: expected to be computed from parameters that are divided or equal on "
                    f"all ranks, got {key} as {source.placements}, as a rank's norms of its part "
                    "are, which an optimizer would take for the whole's"
                )
        value, part = getattr(self, name), self._parts[name]
        # Also on a rank that has all of it, as of one row: the others have none.
        divided_among = _groups.context(self.group).world_size // part.copies
        if part.dim is not None and divided_among > 1 and not is_distributed(value):
            raise RuntimeError(
                f"{name}: expected a parameter, got a tensor that is computed (by parametrize, "
                "weight_norm or prune) from this rank's part alone; initialise torch.distributed "
                "before the layer is made: its parameters are DTensors then, of which whole ones "
                "are computed"
            )
        return value

    @torch.no_grad()
    def _take(self, name: str, whole: Tensor) -> None:
        """Gives a parameter its part of a whole tensor."""
        parameter = self._parameters[name]
        assert parameter is not None
        _stored(parameter).copy_(_own(parameter, self._parts[name], whole))

    def _mark(self) -> None:
        """Lets plain parameters say what they are part of."""
        for name, part in self.__dict__.get("_parts", {}).items():
            parameter = self._parameters.get(name)
            if parameter is not None and not is_distributed(parameter):
                divided_parameter(parameter, part)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As torch.nn.Module does. What is no part, and no whole DTensor, is refused."""
        part = self.__dict__.get("_parts", {}).get(name)
        if part is not None and param is not None:
            _check(name, param, part)
            if hasattr(param, "_st_info"):
                # DistributedDataParallel, which takes no DTensors, puts the parts in their place
                # and would let DTensors that are no parameters stand there after the first call,
                # and forgets which are frozen. The parts serve as they are.
                del param._st_info
                param.requires_grad_(self._removed.pop(name, True))
        super().register_parameter(name, param)
        self._mark()

    def __delattr__(self, name: str) -> None:
        parameter = self._parameters.get(name)
        if parameter is not None and name in self._parts:
            self._removed[name] = parameter.requires_grad
        super().__delattr__(name)

    def _apply(self, *args: Any, **options: Any) -> Any:
        result = super()._apply(*args, **options)  # type: ignore[no-untyped-call]
        self._mark()
        return result

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._mark()  # torch copies a Parameter without its attributes

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """DTensors also of parameters that are none, as DistributedDataParallel leaves them."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, part in self._parts.items():
            value = destination.get(prefix + name)
            if value is None or is_distributed(value) or value.shape != part.local_shape:
                continue
            mesh = _mesh(part)
            if mesh is None:
                if part.dim is not None and not keep_vars:
                    divided(value, part)
            else:
                whole = _distributed(value.detach(), part.shape, mesh, _placements(part))
                destination[prefix + name] = whole

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        assign = local_metadata.get("assign_to_params_buffers", False)
        loaded = dict(state_dict)
        for name, part in self._parts.items():
            key, parameter = prefix + name, self._parameters.get(name)
            given = loaded.get(key)
            if parameter is None or not isinstance(given, Tensor):
                continue  # as torch has it
            found = _loaded(parameter, part, given, assign)
            if found is None:
                error_msgs.append(_size_mismatch(key, parameter, part, given))
                found = parameter
            loaded[key] = found
        super()._load_from_state_dict(
            loaded, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._mark()


def _check(name: str, parameter: Any, part: Part) -> None:
    """What stands for a parameter is this rank's part of it or, as a DTensor, the whole; FSDP2 has
    DTensors that are parts of parts."""
    shapes = (part.local_shape, part.shape) if is_distributed(parameter) else (part.local_shape,)
    if parameter.shape not in shapes:
        raise _not_a_part(name, parameter, part)


def _not_a_part(name: str, value: Any, part: Part) -> ValueError:
    return ValueError(
        f"{name}: expected this rank's part, of shape {part.local_shape}, or a DTensor of the "
        f"whole, of shape {part.shape}, got a {type(value).__name__} of shape {tuple(value.shape)}"
    )


# ---- DTensors ----

# By the dimension that is divided, and whether a mesh has another one, of copies.
_known_placements: dict[tuple[int | None, bool], tuple[Any, ...]] = {}


def _mesh(part: Part) -> Any:
    """The mesh of the ranks that have the parts, where torch.distributed has one."""
    group = part.group
    mesh = _groups.mesh(group)
    if mesh is not None and part.copies > 1:
        return mesh_of_copies(group, part.copies)
    if mesh is None and dist.is_available() and dist.is_initialized():
        if _groups.context(group).world_size > 1:
            warnings.warn(
                f"torch.distributed does not know the ranks of the context named {group!r}: "
                "parameters are this rank's parts only, also for checkpoints, FSDP and the "
                "clipping of gradients; give iris_c.torch.register their process_group",
                stacklevel=4,
            )
    return mesh


def _placements(part: Part) -> tuple[Any, ...]:
    key = part.dim, part.copies > 1
    if key not in _known_placements:
        from torch.distributed.tensor import Replicate, Shard

        divided = Replicate() if part.dim is None else Shard(part.dim)
        _known_placements[key] = (divided, Replicate()) if part.copies > 1 else (divided,)
    return _known_placements[key]


def _distributed(local: Tensor, shape: tuple[int, ...], mesh: Any, placements: Any) -> Any:
    """A DTensor of this rank's tensor, where it is: DTensor.from_local would move it."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    meta = TensorMeta(torch.Size(shape), strides, local.dtype)
    return DTensor(local, DTensorSpec(mesh, placements, tensor_meta=meta), requires_grad=False)


def _stored(parameter: Any) -> Tensor:
    """The tensor of a parameter that this rank has in memory, without a gradient."""
    stored: Tensor = parameter._local_tensor if is_distributed(parameter) else parameter.detach()
    return stored


def _to_local(value: Any, part: Part) -> Tensor:
    """This rank's part of a DTensor, also of one that has been computed and lies elsewise."""
    placements = _placements(part)
    if value.placements != placements and value.device_mesh.ndim == len(placements):
        value = value.redistribute(placements=placements)
    from iris_c.torch._dtensors import local_of  # beside DTensors: it imports torch's

    return local_of(value, placements)


def _own(parameter: Any, part: Part, whole: Tensor) -> Tensor:
    """Of a whole tensor, what this rank has of the parameter: a view.

    FSDP2 divides further what is divided already. It says so by strided shards, which come after
    the others, the last one first.
    """
    if not is_distributed(parameter):
        return part.of(whole)
    if parameter.shape != whole.shape:
        whole = part.of(whole)  # FSDP2 divides what it takes for a whole
    mesh, placements = parameter.device_mesh, parameter.placements
    coordinate = mesh.get_coordinate()
    divided = [i for i, placement in enumerate(placements) if hasattr(placement, "dim")]
    strided = [i for i in divided if hasattr(placements[i], "split_factor")]
    for i in [i for i in divided if i not in strided] + strided[::-1]:
        dim = placements[i].dim
        start, stop = bounds(whole.shape[dim], mesh.size(i), coordinate[i])
        whole = whole.narrow(dim, start, stop - start)
    return whole


# ---- loading ----


def _loaded(parameter: Any, part: Part, given: Any, assign: bool) -> Tensor | None:
    """What torch may copy into, or put in the place of, a parameter; None: of another shape."""
    distributed = is_distributed(parameter)
    result: Tensor
    if is_distributed(given):
        if distributed and _is_alike(given, parameter):
            result = given
            return result
        given = given.full_tensor()
    if given.shape == part.shape:
        result = _own(parameter, part, given)
    elif given.shape == _stored(parameter).shape:
        result = given
    else:
        return None
    if assign and result.untyped_storage().nbytes() > result.nbytes:
        result = result.clone(memory_format=torch.contiguous_format)  # a view keeps all of it
    if distributed:
        mesh, placements = parameter.device_mesh, parameter.placements
        result = _distributed(result.detach(), parameter.shape, mesh, placements)
    return result


def _is_alike(given: Any, parameter: Any) -> bool:
    return all(
        getattr(given, name) == getattr(parameter, name)
        for name in ("shape", "device_mesh", "placements")
    )


def _size_mismatch(key: str, parameter: Any, part: Part, given: Tensor) -> str:
    local = tuple(_stored(parameter).shape)
    own = "" if local == part.shape else f", or this rank's part of it, {local}"
    return (
        f"size mismatch for {key}: expected the whole parameter, of shape {part.shape}{own}; got "
        f"shape {tuple(given.shape)}"
    )
