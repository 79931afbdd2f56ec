# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Gradients of parameters that all ranks have alike and use on their own tokens.

Such a parameter is *replicated*, what it is used on is *own* (_gradients.py, NOTE [own and
replicated]): its gradient is the sum of what the ranks find. A hook on the parameter makes that sum
of each gradient on its way in, before anything else sees it: so it does not matter where the
parameter is used, whether the gradient is accumulated, and who takes it then (DDP, FSDP2,
torch.autograd.grad, an optimizer in a hook). What has been summed never comes by again.

NOTE [one sum a backward pass]
A sum for each parameter is many small ones. Where nobody looks at the gradients before the backward
pass ends, they are accumulated as they are, and when it ends one sum of all takes their place. It
must be known that nobody looks: the gradient is accumulated and not differentiated; the parameter
has no other hooks; and there are no ranks beside those of the context, over which DDP or FSDP2
would average what has not been summed. Each rank decides alike, since all run the same program.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

import iris_c.torch._gradients  # noqa: F401  (the operations, and their gradients)
from iris_c.torch._groups import Named, context, name_of, process_group
from iris_c.torch._parameters import is_distributed

__all__ = ["TokenGradients", "sequence_parallel"]

# What sequence_parallel is told to take.
Selection: TypeAlias = Callable[[str, nn.Parameter], bool] | Iterable[nn.Module | nn.Parameter]
# Where a parameter is: its module and its name there. What it is may change: FSDP2 puts another one
# in its place as long as a layer runs, and to_empty and load_state_dict(assign=True) for good.
Place: TypeAlias = tuple[nn.Module, str]


def sequence_parallel(
    module: nn.Module,
    parameters: Selection | None = None,
    *,
    batch: bool | None = None,
    ctx: Named = None,
) -> TokenGradients:
    """Sum, over the ranks, the gradients of parameters that each rank uses on its own tokens.

    They are what norms, and biases after a row-parallel layer, have under sequence parallelism: the
    same on all ranks, and each rank's gradient is of its own tokens alone. To be called once, on
    all ranks alike, before or after DDP or FSDP2 wraps the module.

    Parameters
    ----------
    module : nn.Module
        Whose parameters are meant, and in whose calls new ones in their places are noticed.
    parameters : callable, iterable of nn.Module and nn.Parameter, or None
        Which ones: those of which the callable, given name and parameter, says True; those given,
        and those of the modules given. None: all. In each case without those of iris_c's layers,
        whose gradients are right by themselves, and of DTensors on the context's ranks.
    batch : bool or None
        Whether there is one sum for all of them when a backward pass ends, and not one for each as
        it comes. None: where nothing can see a gradient before that. True: the caller knows that
        nothing does which sequence_parallel cannot know of, as DDP over other ranks.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks that the tokens are divided among. None: the context named 'default'.

    Returns
    -------
    TokenGradients
        Its remove() ends it. A parameter that has been taken already is summed once all the same.

    Raises
    ------
    ValueError
        A given module or parameter is not in `module`, or an iris_c layer's.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected an nn.Module, got {type(module).__name__}")
    if batch is not None and not isinstance(batch, bool):
        raise TypeError(f"batch: expected a bool or None, got {type(batch).__name__}")
    group = name_of(ctx)
    context(group)  # says so if there is none
    places = _select(module, parameters, group)
    return TokenGradients(module, places, group, batch)


# ---- which parameters ----


def _is_ours(module: nn.Module) -> bool:
    """Whether it is a layer of iris_c, or a subclass of one."""
    return any(kind.__module__.startswith("iris_c.") for kind in type(module).__mro__)


def _is_of_ranks(parameter: Any, group: str) -> bool:
    """Whether it is a DTensor over the context's ranks, which sums its gradients by itself."""
    if not is_distributed(parameter):
        return False
    ranks = process_group(group)
    mesh = parameter.device_mesh
    names = [mesh.get_group(i).group_name for i in range(mesh.ndim)]
    return ranks is not None and ranks.group_name in names


def _places(module: nn.Module) -> Iterator[tuple[str, Place, nn.Parameter]]:
    """All parameters, each once for every place that it has."""
    for prefix, owner in module.named_modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                yield f"{prefix}.{name}" if prefix else name, (owner, name), parameter


def _select(module: nn.Module, wanted: Selection | None, group: str) -> dict[str, Place]:
    """The places of the parameters that are meant, by name."""
    every = list(_places(module))
    by_themselves = {
        id(parameter)  # also where another module has it too
        for _, (owner, _), parameter in every
        if _is_ours(owner) or _is_of_ranks(parameter, group)
    }
    if wanted is None or callable(wanted):
        return {
            name: place
            for name, place, parameter in every
            if id(parameter) not in by_themselves and (wanted is None or wanted(name, parameter))
        }
    chosen: set[int] = set()
    known = {id(parameter) for _, _, parameter in every}
    modules = set(module.modules())
    for item in wanted:
        if isinstance(item, nn.Module):
            if item not in modules:
                raise ValueError(f"parameters: expected modules of `module`, got {item}")
            chosen |= {id(p) for p in item.parameters()} - by_themselves
        elif isinstance(item, nn.Parameter):
            if id(item) not in known:
                raise ValueError(
                    "parameters: expected parameters of `module`, got another one of shape "
                    f"{tuple(item.shape)}"
                )
            if id(item) in by_themselves:
                raise ValueError(
                    "parameters: expected none of iris_c's layers, which sum up themselves, got "
                    f"one of shape {tuple(item.shape)}"
                )
            chosen.add(id(item))
        else:
            raise TypeError(
                "parameters: expected modules and parameters, or a function of name and "
                f"parameter, got {type(item).__name__}"
            )
    return {name: place for name, place, parameter in every if id(parameter) in chosen}


# ---- the hooks ----


class TokenGradients:
    """What sequence_parallel has begun, until `remove()`, or the end of a with statement.

    Attributes
    ----------
    names : tuple of str
        The parameters, as the module names them.
    group : str
        The name of the context.
    """

    def __init__(
        self, module: nn.Module, places: dict[str, Place], group: str, batch: bool | None
    ) -> None:
        self.names, self.group, self.batch = tuple(places), group, batch
        self._begin()
        # Before a module runs, all that is below it has the parameters that it will run with.
        self._forward_hooks = []
        for prefix, part in module.named_modules(remove_duplicate=False):
            below = [p for name, p in places.items() if name.startswith(prefix and prefix + ".")]
            if below:
                self._forward_hooks.append(part.register_forward_pre_hook(_Before(self, below)))
        self._watch(list(places.values()))

    def _begin(self) -> None:
        self._hooked: Any = WeakIdKeyDictionary()  # the parameters that this one counts on
        self._removed = False

    def _watch(self, places: list[Place]) -> None:
        """Lets the gradients of the parameters that are there now be summed."""
        for owner, name in places:
            parameter = owner._parameters.get(name)
            if parameter is not None and parameter.requires_grad and parameter.is_leaf:
                if parameter not in self._hooked:
                    self._hooked[parameter] = None
                    _hook(parameter, self.group, self.batch)

    def remove(self) -> None:
        """Leave the gradients as they are from now on."""
        if self._removed:
            return
        self._removed = True
        for handle in self._forward_hooks:
            handle.remove()
        for parameter in list(self._hooked):
            _unhook(parameter, self.group)

    def __enter__(self) -> TokenGradients:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def __getstate__(self) -> dict[str, Any]:
        """A copied or loaded module has parameters of its own, which its first call finds."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_hooked", "_removed")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        return f"<TokenGradients of {len(self.names)} parameters, ctx={self.group!r}>"


class _Before:
    """What runs before a module does."""

    def __init__(self, gradients: TokenGradients, places: list[Place]) -> None:
        self.gradients, self.places = gradients, places

    def __call__(self, module: nn.Module, args: Any) -> None:
        if not torch.compiler.is_compiling():  # what is compiled has the parameters it had
            self.gradients._watch(self.places)


class _Hook:
    """Of one parameter and context: its hook, and how many count on it."""

    def __init__(self, handle: Any) -> None:
        self.handle, self.count = handle, 1


# By parameter and context.
_hooks: Any = WeakIdKeyDictionary()


def _hook(parameter: nn.Parameter, group: str, batch: bool | None) -> None:
    known = _hooks.setdefault(parameter, {})
    if group in known:
        known[group].count += 1
        return
    own = weakref.ref(parameter)
    known[group] = _Hook(parameter.register_hook(lambda grad: _summed(own(), grad, group, batch)))


def _unhook(parameter: nn.Parameter, group: str) -> None:
    known = _hooks[parameter]
    known[group].count -= 1
    if known[group].count == 0:
        known.pop(group).handle.remove()


# ---- the sums ----


def _summed(parameter: Any, grad: Any, group: str, batch: bool | None) -> Any:
    """The gradient to go on with; None: as it is."""
    if context(group).world_size == 1:
        return None
    if _may_wait(parameter, grad, group, batch):
        _Batch.of_this_pass(group).add(parameter, grad)
        return None
    if not is_distributed(grad):
        return torch.ops.iris_c.all_reduce(grad, "sum", group)
    from torch.distributed.tensor import DTensor

    local = torch.ops.iris_c.all_reduce(grad.to_local(), "sum", group)
    return DTensor.from_local(
        local, grad.device_mesh, grad.placements, shape=grad.shape, stride=grad.stride()
    )


def _may_wait(parameter: Any, grad: Any, group: str, batch: bool | None) -> bool:
    """NOTE [one sum a backward pass]."""
    if batch is False or parameter is None or torch.is_grad_enabled():
        return False
    if is_distributed(grad) or grad.layout != torch.strided:
        return False
    if len(parameter._backward_hooks or ()) > 1 or parameter._post_accumulate_grad_hooks:
        return False
    if batch is None and dist.is_available() and dist.is_initialized():
        if dist.get_world_size() != context(group).world_size:
            return False
    accumulation = torch.autograd.graph.get_gradient_edge(parameter).node
    try:
        return bool(torch._C._will_engine_execute_node(accumulation))
    except RuntimeError:  # torch.autograd.grad accumulates nothing
        return False


# By the number that the autograd engine gives the pass, and the context.
_batches: weakref.WeakValueDictionary[tuple[int, str], _Batch] = weakref.WeakValueDictionary()


class _Batch:
    """Gradients of one backward pass that are summed when it ends. The engine alone keeps it: a
    pass that fails takes it along."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.waiting: list[tuple[nn.Parameter, Tensor, Tensor | None]] = []

    @classmethod
    def of_this_pass(cls, group: str) -> _Batch:
        key = (torch._C._current_graph_task_id(), group)
        batch = _batches.get(key)
        if batch is None:
            batch = _batches[key] = cls(group)
            torch.autograd.Variable._execution_engine.queue_callback(batch.finish)
        return batch

    def add(self, parameter: nn.Parameter, grad: Tensor) -> None:
        """Notes a gradient that is about to be accumulated, and what it is added to."""
        before = None if parameter.grad is None else parameter.grad.clone()
        self.waiting.append((parameter, grad, before))

    @torch.no_grad()
    def finish(self) -> None:
        """Puts the sums where the gradients are."""
        alike: dict[Any, list[tuple[nn.Parameter, Tensor, Tensor | None]]] = {}
        for item in self.waiting:
            alike.setdefault((item[1].dtype, item[1].device), []).append(item)
        for items in alike.values():
            flat = torch.cat([grad.reshape(-1) for _, grad, _ in items])
            summed = torch.ops.iris_c.all_reduce(flat, "sum", self.group)
            parts = summed.split([grad.numel() for _, grad, _ in items])
            for (parameter, grad, before), part in zip(items, parts, strict=True):
                if parameter.grad is None:
                    continue
                total = part.view(grad.shape)
                parameter.grad.copy_(total if before is None else before + total)
