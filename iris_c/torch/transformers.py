# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Models of transformers, loaded with a tensor-parallel plan, with fused products.

>>> import iris_c.torch.transformers
>>> iris_c.torch.transformers.enable()
>>> model = AutoModelForCausalLM.from_pretrained(path, tp_plan="auto")  # doctest: +SKIP

transformers divides a model by a plan that names a style for each layer; a table has the styles by
name. `enable` puts styles of this package in the place of those that are a matrix product with a
collective: "colwise", "rowwise" and their variants. Everything else, experts and embeddings among
it, stays transformers' own; so do the parameters, which are its DTensors, and with them loading,
saving, caches and training. How a layer runs is in _linear.py.

The ranks of the plan's mesh get a context of the default size if they have none; to give them
another, initialise torch.distributed and call iris_c.torch.init before the model is loaded.
"""

from __future__ import annotations

from typing import Any

import transformers
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from iris_c.torch._linear import Column, Linear, Row, log, place, reason
from iris_c.torch.parallel import calls

try:
    from transformers.distributed import tensor_parallel as theirs

    _METHODS = (
        "transform_inputs_pre_forward",
        "context_around_forward",
        "transform_output_post_forward",
    )
    _known = all(hasattr(theirs.TensorParallelLayer, name) for name in _METHODS)
except ImportError:
    _known = False
if not _known:
    raise ImportError(
        "transformers: expected a version whose tensor-parallel layers are in "
        f"transformers.distributed.tensor_parallel, as 5.24.0, got {transformers.__version__}"
    )

__all__ = ["calls", "disable", "enable"]


def _install(style: Any, kind: type[Linear], module: nn.Module, mesh: DeviceMesh) -> bool:
    """Let a module that a style is for run as `kind`; False: it is none that may."""
    why = reason(module)
    if why is not None:
        log.debug("transformers' code for %s, since %s", module, why)
        return False
    assert isinstance(module, nn.Linear)

    def as_transformers_does(module: nn.Linear, input: Tensor) -> Tensor:
        args, kwargs = style.transform_inputs_pre_forward(module, (input,), {}, mesh)
        with style.context_around_forward(module, mesh):
            output = nn.Linear.forward(module, *args, **kwargs)
        result: Tensor = style.transform_output_post_forward(module, output, mesh)
        return result

    layouts = style.input_layouts, style.output_layouts
    place(kind(mesh, *layouts, style.use_local_output, as_transformers_does), module)
    return True


class _Colwise(theirs.ColwiseParallel):  # type: ignore[misc]
    def install_forward(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        if _install(self, Column, module, mesh):
            return module
        installed: nn.Module = super().install_forward(module, mesh)
        return installed


class _Rowwise(theirs.RowwiseParallel):  # type: ignore[misc]
    def install_forward(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        if _install(self, Row, module, mesh):
            return module
        installed: nn.Module = super().install_forward(module, mesh)
        return installed


_OURS: dict[type, type] = {
    theirs.ColwiseParallel: _Colwise,
    theirs.RowwiseParallel: _Rowwise,
}
# What has been in the table before, by name.
_replaced: dict[str, Any] = {}


def enable() -> list[str]:
    """Let models that are loaded with a tensor-parallel plan from now on have fused products.

    Returns
    -------
    list of str
        The names of the styles that are this package's.
    """
    table = theirs.ALL_PARALLEL_STYLES
    for name, style in list(table.items()):
        if type(style) in _OURS:
            ours: Any = object.__new__(_OURS[type(style)])
            vars(ours).update(vars(style))
            table.register(name, ours)
            _replaced[name] = style
    return [name for name, style in table.items() if type(style) in _OURS.values()]


def disable() -> None:
    """Let models that are loaded from now on have transformers' own styles again."""
    table = theirs.ALL_PARALLEL_STYLES
    for name, style in _replaced.items():
        if type(table[name]) in _OURS.values():
            table.register(name, style)
    _replaced.clear()
