# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""How torch differentiates an operation of torch.ops.iris_c, given its formulas.

torch.library.register_autograd knows neither forward mode (a tangent would be dropped in silence)
nor torch.func. So each operation has a kernel of its own under the dispatcher's key Autograd. It
behaves as torch's built-in operations do: one level of differentiation at a time, the operation
itself below it, formulas of operations that can be differentiated again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from iris_c import _C
from iris_c.torch._autocast import without_autocast
from iris_c.torch._library import kernels, library

__all__ = ["differentiate", "differentiate_lists", "refuse_to_differentiate"]


def _bits(*keys: str) -> int:
    """Of dispatch keys."""
    bits = 0
    for key in keys:
        bits |= torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key)).raw_repr()
    return bits


# Below Autograd a call of ordinary tensors has no key but their device's. Each other one stands for
# something that comes before the kernel: a mode, a transform, a pending negation, a wrapper.
_ORDINARY = _bits("CPU", "CUDA", "ADInplaceOrView", "BackendSelect")
_EXTRAORDINARY = torch._C._after_autograd_keyset.raw_repr() & ~_ORDINARY


class _Call(NamedTuple):
    """What a kernel has to hand on besides the arguments."""

    keyset: torch._C.DispatchKeySet
    grad_mode: bool
    forward_mode: bool


def _register(name: str, kernel: Callable[..., Any]) -> None:
    """A function of a keyset and arguments, which calls come to that have more to pass than the
    operation's own kernel."""
    direct = _C._kernel(kernels[name], kernel, _EXTRAORDINARY)
    library.impl(name, direct, "Autograd", with_keyset=True)


def _below_autograd(name: str) -> Callable[[torch._C.DispatchKeySet, Sequence[Any]], Any]:
    """The rest of a call, of a keyset and arguments, after the key Autograd."""
    operation, run = getattr(torch.ops.iris_c, name).default, kernels[name]

    def below(keyset: torch._C.DispatchKeySet, arguments: Sequence[Any]) -> Any:
        if not keyset.raw_repr() & _EXTRAORDINARY:
            # Nothing is left but the kernel: to pass the dispatcher once more takes longer than
            # to run it.
            return run(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operation.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    return below


def differentiate(
    name: str,
    setup: Callable[..., None],
    backward: Callable[..., Sequence[Tensor | None]],
    jvp: Callable[..., Any],
) -> None:
    """Give an operation its derivatives.

    Parameters
    ----------
    name : str
        Of the operation, whose arguments are positional.
    setup : callable
        (ctx, wanted, result, *arguments): saves what `backward` and `jvp` need in torch's `ctx`;
        `wanted` says which arguments need a gradient.
    backward : callable
        (ctx, wanted, *grads) -> a gradient or None for each argument; a grad is None where a
        result has not been used.
    jvp : callable
        (ctx, *tangents) -> the results' tangents; a tangent is None where an argument has none.
    """
    below = _below_autograd(name)
    apply = _gradient(name, below, setup, backward, jvp)

    def kernel(keyset: torch._C.DispatchKeySet, *arguments: Any) -> Any:
        if _is_differentiated(arguments):
            return apply(keyset, arguments)
        return below(keyset, arguments)

    _register(name, kernel)


def differentiate_lists(
    name: str,
    setup: Callable[..., None],
    backward: Callable[..., Sequence[Any]],
    jvp: Callable[..., Any],
) -> None:
    """The same of an operation that takes lists of tensors, and returns one.

    The formulas have lists where the operation has: of arguments, of what is wanted, of gradients
    and of tangents. torch.autograd.Function knows tensors alone, so they pass it one by one.
    """
    run = _below_autograd(name)

    def below(keyset: torch._C.DispatchKeySet, arguments: Sequence[Any]) -> Any:
        lengths, *flat = arguments
        return tuple(run(keyset, _nested(lengths, flat)))

    def flat_setup(ctx: Any, wanted: Any, result: Any, lengths: Any, *flat: Any) -> None:
        ctx.lengths = lengths
        setup(ctx, _nested(lengths, wanted[1:]), result, *_nested(lengths, flat))

    def flat_backward(ctx: Any, wanted: Any, *grads: Any) -> Any:
        nested = backward(ctx, _nested(ctx.lengths, wanted[1:]), *grads)
        return None, *_flat(nested)[1]

    def flat_jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        return tuple(jvp(ctx, *_nested(ctx.lengths, tangents)))

    apply = _gradient(name, below, flat_setup, flat_backward, flat_jvp)

    def kernel(keyset: torch._C.DispatchKeySet, *arguments: Any) -> Any:
        lengths, flat = _flat(arguments)
        if _is_differentiated(flat):
            return list(apply(keyset, (lengths, *flat)))
        return run(keyset, arguments)

    _register(name, kernel)
    torch.library.register_vmap(f"iris_c::{name}", _one_by_one(name), lib=library)


def _one_by_one(name: str) -> Callable[..., tuple[list[Tensor], list[int]]]:
    """An operation over a batch, element by element, as torch has it of what takes no lists."""
    operation = getattr(torch.ops.iris_c, name)

    def run(info: Any, dims: Sequence[Any], *arguments: Any) -> tuple[list[Tensor], list[int]]:
        lengths, flat = _flat(arguments)
        # A tensor that is not of the batch has None; so has what stands for a list of such.
        flat_dims: list[Any] = []
        for dim, length in zip(dims, lengths, strict=True):
            if length is None:
                flat_dims.append(dim)
            else:
                flat_dims.extend([None] * length if dim is None else dim)
        results = []
        for i in range(info.batch_size):
            element = [
                x if dim is None else x.select(dim, i)
                for x, dim in zip(flat, flat_dims, strict=True)
            ]
            results.append(operation(*_nested(lengths, element)))
        stacked = [torch.stack(parts) for parts in zip(*results, strict=True)]
        return stacked, [0] * len(stacked)

    return run


# The lengths of lists among arguments; None: no list.
_Lengths: TypeAlias = tuple[int | None, ...]


def _flat(arguments: Sequence[Any]) -> tuple[_Lengths, list[Any]]:
    """The elements of lists in the place of the lists."""
    lengths = tuple(len(x) if isinstance(x, list | tuple) else None for x in arguments)
    flat: list[Any] = []
    for value, length in zip(arguments, lengths, strict=True):
        if length is None:
            flat.append(value)
        else:
            flat.extend(value)
    return lengths, flat


def _nested(lengths: _Lengths, flat: Sequence[Any]) -> list[Any]:
    """What _flat undoes."""
    rest = iter(flat)
    return [next(rest) if n is None else list(itertools.islice(rest, n)) for n in lengths]


def _gradient(
    name: str,
    below: Callable[[torch._C.DispatchKeySet, Sequence[Any]], Any],
    setup: Callable[..., None],
    backward: Callable[..., Sequence[Tensor | None]],
    jvp: Callable[..., Any],
) -> Callable[[torch._C.DispatchKeySet, Sequence[Any]], Any]:
    """A call of what is `below` Autograd that can be differentiated by these formulas."""

    class Gradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, call: _Call, *arguments: Any) -> Any:
            if torch._C._are_functorch_transforms_active():
                # Levels of torch.func below this one differentiate too.
                with (
                    torch.set_grad_enabled(call.grad_mode),
                    forward_ad._set_fwd_grad_enabled(call.forward_mode),
                ):
                    result = below(call.keyset, arguments)
            else:
                result = below(call.keyset, arguments)
            ctx.set_materialize_grads(False)
            setup(ctx, ctx.needs_input_grad[1:], result, *arguments)
            return result

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            given = [grad for grad in grads if grad is not None]
            if not given:
                return (None,) * len(ctx.needs_input_grad)
            # In the dtypes that the operation had, also where backward() is called under autocast.
            with without_autocast(given[0]):
                return (None, *backward(ctx, ctx.needs_input_grad[1:], *grads))

        @staticmethod
        def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Any:
            return jvp(ctx, *tangents)

    all_levels: Callable[..., Any] = Gradient.apply
    one_level: Callable[..., Any] = super(torch.autograd.Function, Gradient).apply
    Gradient.__name__ = Gradient.__qualname__ = f"GradientOf_{name}"

    def apply(keyset: torch._C.DispatchKeySet, arguments: Sequence[Any]) -> Any:
        call = _Call(keyset, torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled())
        if not torch._C._are_functorch_transforms_active():
            return all_levels(call, *arguments)
        # Function.apply would go through all levels of torch.func; the dispatcher has come to
        # this one, and goes on to those below by itself.
        with enable_single_level_autograd_function():
            return one_level(call, *arguments)

    return apply


_WRITES = "writes into a given tensor and has no gradient; leave out= away, or call it"


def refuse_to_differentiate(name: str, why: str = _WRITES) -> None:
    """Let an operation that writes into a given tensor raise where a derivative is asked for, as
    torch's out= does; or another one that has no gradient."""
    below = _below_autograd(name)
    schema = getattr(torch.ops.iris_c, name).default._schema

    def kernel(keyset: torch._C.DispatchKeySet, *arguments: Any) -> Any:
        if _is_differentiated(arguments):
            for spec, value in zip(schema.arguments, arguments, strict=True):
                if isinstance(value, Tensor) and (_wants_gradient(value) or _has_tangent(value)):
                    raise RuntimeError(
                        f"{spec.name}: expected a tensor that does not require grad, since "
                        f"{name} {why} under torch.no_grad()"
                    )
        return below(keyset, arguments)

    _register(name, kernel)


def _is_differentiated(arguments: Sequence[Any]) -> bool:
    """Whether torch wants a derivative, at the level that is at work."""
    if torch.is_grad_enabled():
        for value in arguments:
            if isinstance(value, Tensor) and value.requires_grad:
                return True
    return _in_forward_mode()


def _wants_gradient(tensor: Tensor) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad


def _in_forward_mode() -> bool:
    """Whether a tensor may have a tangent. To ask the tensors takes longer than a small call."""
    return torch._C._is_fwd_grad_enabled() and (
        forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0  # what is traced enters a level of its own
    )


def _has_tangent(tensor: Tensor) -> bool:
    return _in_forward_mode() and forward_ad.unpack_dual(tensor).tangent is not None
