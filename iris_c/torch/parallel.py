# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch.distributed.tensor.parallel, with the products of a plan fused with their collectives.

A plan for torch's parallelize_module works by changing the import:

>>> from iris_c.torch.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
>>> parallelize_module(model, mesh["tp"], {
...     "w1": ColwiseParallel(), "w2": RowwiseParallel()})  # doctest: +SKIP

Parameters become the DTensors that torch makes of them; layouts and `use_local_output` mean what
they mean there. How a layer runs is in _linear.py; what it cannot fuse runs as torch has it. The
logger "iris_c.torch.parallel" says at level DEBUG what each layer runs, and why torch's code where
that is so; `calls` counts it.

A mesh whose ranks no context has yet gets one of the default size; iris_c.torch.init(mesh["tp"],
heap_size) before parallelize_module gives it another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, distribute_module
from torch.distributed.tensor.parallel import (
    ParallelStyle,
    PrepareModuleOutput,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
    style,
)
from torch.distributed.tensor.placement_types import Placement, Shard

from iris_c.torch._linear import (
    Column,
    Linear,
    Row,
    calls_of,
    column_of,
    layer_of,
    log,
    place,
    reason,
)

__all__ = [
    "ColwiseParallel",
    "ParallelStyle",
    "PrepareModuleInput",
    "PrepareModuleInputOutput",
    "PrepareModuleOutput",
    "RowwiseParallel",
    "SequenceParallel",
    "calls",
    "loss_parallel",
    "parallelize_module",
]


def calls(model: nn.Module) -> dict[str, dict[str, int]]:
    """Count what the parallel layers of a model have run.

    Returns
    -------
    dict
        For each layer's name, how often it has called which operation: "matmul_all_reduce", for
        example. "linear" is a product whose gradient is added up with those of other layers;
        "torch" is torch's own code; "redistribution by torch" comes before a product. Calls that
        torch.compile has traced are not counted.
    """
    return calls_of(model)


_PARTS = ("_prepare_input_fn", "_partition_linear_fn", "_prepare_output_fn")


def _fuse(
    given: Any, torchs: type[ParallelStyle], kind: type[Linear], module: nn.Module, mesh: DeviceMesh
) -> bool:
    """Apply a style that is one of torch's to a linear layer, which will run as `kind`; False if it
    is none that may."""
    why = reason(module)
    for part in _PARTS:
        if getattr(type(given), part) is not getattr(torchs, part):
            why = f"it has a {part}() of its own"
    if why is not None:
        log.debug("%s: torch's code for %s, since %s", type(given).__name__, module, why)
        return False
    assert isinstance(module, nn.Linear)
    desired = (Replicate(),) if kind is Column else (Shard(-1),)

    def as_torch_does(module: nn.Linear, input: Tensor) -> Tensor:
        prepared = given._prepare_input_fn(given.input_layouts, desired, module, (input,), mesh)
        output = nn.Linear.forward(module, prepared)
        result: Tensor = given._prepare_output_fn(
            given.output_layouts, given.use_local_output, module, output, mesh
        )
        return result

    (input_layout,), (output_layout,) = given.input_layouts, given.output_layouts
    linear = kind(mesh, input_layout, output_layout, given.use_local_output, as_torch_does)
    distribute_module(module, mesh, given._partition_linear_fn)
    place(linear, module)
    return True


class ColwiseParallel(style.ColwiseParallel):
    """torch's ColwiseParallel; a torch.nn.Linear gathers its input while it multiplies.

    With an input that is Shard along any dimension the layer is an all_gather_matmul, with a
    replicated one that is no DTensor a matmul_replicated, whose gradient is a matmul_all_reduce.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if _fuse(self, style.ColwiseParallel, Column, module, device_mesh):
            return module
        return super()._apply(module, device_mesh)


class RowwiseParallel(style.RowwiseParallel):
    """torch's RowwiseParallel; a torch.nn.Linear adds up its output while it multiplies.

    With a replicated output the layer is a matmul_all_reduce, with one that is Shard along any
    dimension a matmul_reduce_scatter.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if _fuse(self, style.RowwiseParallel, Row, module, device_mesh):
            return module
        return super()._apply(module, device_mesh)


class PrepareModuleInput(style.PrepareModuleInput):
    """torch's PrepareModuleInput; an input is gathered beside the product that it is for.

    Where an input is to become Replicate from Shard, and the module has layers that a
    ColwiseParallel of this package was applied to, it is gathered by the all_gather_matmul of the
    first such layer and of those beside it that have as many input features: queries, keys and
    values, for example. They have their results when they are called with the very tensor; all
    else takes the gathered input as torch's would.

    Parameters
    ----------
    fuse : bool
        False: the input is gathered alone, for modules whose column-parallel layers take something
        else. A warning names those.
    **layouts
        As of torch's PrepareModuleInput.
    """

    def __init__(self, *, fuse: bool = True, **layouts: Any) -> None:
        super().__init__(**layouts)
        self.fuse = fuse

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        fused = self.fuse and not self.use_local_output
        prepared: Any = self._prepare_input_fn
        prepared_with_kwargs: Any = self._prepare_input_kwarg_fn

        def prepare(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if fused and not torch.compiler.is_compiling():
                args, kwargs = self._gathered(module, args, kwargs, device_mesh)
            if not self.with_kwargs:
                return prepared(args, device_mesh), kwargs
            return prepared_with_kwargs(args, kwargs, device_mesh)

        def forget(module: nn.Module, args: Any, output: Any) -> None:
            layers = _columns(module, device_mesh)
            unused = [layer for layer in layers if column_of(layer).forget()]
            if unused:
                _warn_of_unused(module, unused)

        module.register_forward_pre_hook(prepare, with_kwargs=True)
        vars(module)[_PREPARED] = True
        if fused:
            module.register_forward_hook(forget, always_call=True)
        return module

    def _prepare_input_arg(
        self,
        input: Any,
        mesh: DeviceMesh,
        input_layout: Placement | None,
        desired_layout: Placement | None,
    ) -> Any:
        if isinstance(input, DTensor) and input.placements == (desired_layout,):
            # Another DTensor of the same would not be what the product was computed for.
            return input.to_local() if self.use_local_output else input
        return super()._prepare_input_arg(input, mesh, input_layout, desired_layout)

    def _gathered(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], mesh: DeviceMesh
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, one of which may have been gathered beside a product."""
        layers = _columns(module, mesh)
        if not layers:
            return args, kwargs
        ahead = column_of(layers[0]).ahead
        for key, layout in self._to_gather(kwargs):
            positional: dict[int | str, Any] = dict(enumerate(args))
            input = (positional | kwargs).get(key)
            whole = ahead(layers, input, layout) if isinstance(input, Tensor) else None
            if whole is not None and isinstance(key, str):
                return args, kwargs | {key: whole}
            if whole is not None:
                return tuple((positional | {key: whole}).values()), kwargs
        return args, kwargs

    def _to_gather(self, kwargs: dict[str, Any]) -> Iterator[tuple[int | str, Placement]]:
        """The arguments that are to be replicated, with their layouts."""
        layouts, desired = self.input_layouts or (), self.desired_input_layouts or ()
        for i, (layout, wanted) in enumerate(zip(layouts, desired, strict=True)):
            if layout is not None and wanted == Replicate():
                yield i, layout
        for name in kwargs:
            if self.desired_input_kwarg_layouts.get(name) == Replicate():
                yield name, self.input_kwarg_layouts[name]


_PREPARED, _WARNED = "_iris_c_prepared", "_iris_c_warned"


def _columns(module: nn.Module, mesh: DeviceMesh) -> list[nn.Linear]:
    """The first column-parallel layer among a module's parts that takes a replicated input, and
    those beside it with as many input features; but none of a part that prepares its inputs."""
    found: list[nn.Linear] = []
    for child in module.children():
        linear = layer_of(child)
        if isinstance(child, nn.Linear) and isinstance(linear, Column):
            if isinstance(linear.input_layout, Replicate) and linear.mesh == mesh:
                if not found or child.in_features == found[0].in_features:
                    found.append(child)
        elif not found and _PREPARED not in vars(child):
            nested = _columns(child, mesh)
            if nested:
                return nested
    return found


def _warn_of_unused(module: nn.Module, layers: list[nn.Linear]) -> None:
    """Once for each module."""
    if _WARNED not in vars(module):
        vars(module)[_WARNED] = True
        log.warning(
            "%s: what it was given was multiplied in %s while it was gathered, for nothing, since "
            "they took something else; give its PrepareModuleInput fuse=False",
            type(module).__name__,
            layers,
        )


class PrepareModuleInputOutput(style.PrepareModuleInputOutput):
    """torch's PrepareModuleInputOutput, of this package's PrepareModuleInput.

    Parameters
    ----------
    fuse : bool
        As of PrepareModuleInput.
    **layouts
        As of torch's PrepareModuleInputOutput.
    """

    def __init__(self, *, fuse: bool = True, **layouts: Any) -> None:
        super().__init__(**layouts)
        given = self.prepare_module_input
        self.prepare_module_input = PrepareModuleInput(
            fuse=fuse,
            input_layouts=given.input_layouts,
            desired_input_layouts=given.desired_input_layouts,
            input_kwarg_layouts=given.input_kwarg_layouts if given.with_kwargs else None,
            desired_input_kwarg_layouts=given.desired_input_kwarg_layouts,
            use_local_output=given.use_local_output,
        )
