# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Cross entropy of logits that are divided among the ranks along the vocabulary (Shoeybi et al.,
"Megatron-LM", 2019).

Nobody has a whole row of logits. With m the row's largest logit and t that of its target,

    cross entropy = log(sum of exp(x - m)) - (t - m)

where both terms are sums over the ranks, so the ranks exchange the maxima, and then, in one
message, the sums. How many logits each rank has goes along with the maxima: which of them is a
target's follows from that, on the device, however the vocabulary is divided.

The terms are an operation of its own, whose gradient each rank computes for itself. What follows
it, up to the mean over the rows, is torch's, of tensors that are equal on all ranks.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from iris_c.torch._autocast import without_autocast
from iris_c.torch._autograd import differentiate
from iris_c.torch._gradients import _own
from iris_c.torch._groups import Named, context, name_of
from iris_c.torch._library import operation

__all__ = ["vocab_parallel_cross_entropy"]

_ops = torch.ops.iris_c

# Sizes travel as float32.
MOST_LOGITS = 1 << 24

Terms: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def vocab_parallel_cross_entropy(
    logits_shard: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
    ctx: Named = None,
) -> Tensor:
    """Return torch's cross_entropy of logits whose last dimension is divided. Collective.

    The result is equal on all ranks; of logits of 16 bits it is float32, as is what it is computed
    in. The gradient of `logits_shard` is this rank's part; it needs no exchange.

    Parameters
    ----------
    logits_shard : Tensor
        This rank's part (..., V_r) of the logits: float32, float64, float16 or bfloat16. The ranks'
        parts follow each other in rank order and may be of any sizes, also 0.
    target : Tensor
        The right class of each row (...), of 0 to V - 1 or `ignore_index`: int64 or int32, equal on
        all ranks.
    ignore_index : int
        Rows with this target count for nothing.
    label_smoothing : float
        Of 0 to 1: how much of the target is spread evenly over all classes.
    reduction : 'mean', 'sum' or 'none'
        The mean is that of the rows that are not ignored.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.

    Raises
    ------
    IndexError
        A target is no class; on GPUs a failed device-side assertion. As torch's.
    """
    _check(logits_shard, target, label_smoothing, reduction)
    smoothed = label_smoothing > 0.0
    rows = logits_shard.reshape(target.numel(), logits_shard.shape[-1])
    log_sum, margin, mean, *_ = _ops.vocabulary_terms(
        rows, target.reshape(-1), ignore_index, smoothed, name_of(ctx)
    )
    loss: Tensor = log_sum - margin
    if smoothed:
        loss = (1.0 - label_smoothing) * loss + label_smoothing * (log_sum - mean)
    ignored = target.reshape(-1) == ignore_index
    loss = loss.masked_fill(ignored, 0.0)
    if reduction == "none":
        return loss.view(target.shape)
    total: Tensor = loss.sum()
    return total if reduction == "sum" else total / (~ignored).sum()


def _check(logits: Tensor, target: Tensor, label_smoothing: float, reduction: str) -> None:
    if logits.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        raise TypeError(
            f"logits_shard: expected float32, float64, float16 or bfloat16, got {logits.dtype}"
        )
    if target.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"target: expected int64 or int32, got {target.dtype}")
    if logits.dim() == 0 or logits.shape[:-1] != target.shape:
        raise ValueError(
            "target: expected the shape of logits_shard without its last dimension, got "
            f"{tuple(target.shape)} for {tuple(logits.shape)}"
        )
    if logits.device != target.device:
        raise ValueError(f"target: expected to be on {logits.device}, got {target.device}")
    if logits.shape[-1] >= MOST_LOGITS:
        raise ValueError(
            f"logits_shard: expected fewer than {MOST_LOGITS} logits in a row, got shape "
            f"{tuple(logits.shape)}"
        )
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing: expected 0 to 1, got {label_smoothing}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")


# ---- the terms ----


@operation("vocabulary_terms", mutates_args=())
def _vocabulary_terms(
    logits: Tensor, target: Tensor, ignore_index: int, smoothed: bool, group: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of rows of logits (N, V_r) and their targets (N,), equal on all ranks, in the dtype that
    `_computed` says:

    - the logarithm of the sum of exp(x - m), the target's x - m, and, if `smoothed`, the mean of
      x - m: (N,) each. The second is 0 where the target is `ignore_index`.
    - m, which counts as a constant.
    - the number of classes: ().

    And this rank's own: where its logits have the target, as an index of (N, V_r); V_r, one too
    many, where it does not. (N,)
    """
    with torch.no_grad(), without_autocast(logits):
        ctx, (count, own) = context(group), logits.shape
        x = logits.to(_computed(logits))
        # Largest logits, and sizes.
        news = x.new_zeros(count + ctx.world_size)
        news[count + ctx.rank] = own
        news[:count] = x.amax(1) if own > 0 else float("-inf")
        news = _reduced(news, "max", ctx)
        largest, sizes = news[:count], news[count:].double()  # whose sums are exact
        classes = sizes.sum()
        place = _place(target, ignore_index, own, sizes[: ctx.rank].sum(), classes)
        # Their sums.
        x = x - largest.unsqueeze(1)
        terms = x.new_zeros(3 if smoothed else 2, count)
        terms[1] = _chosen(x, place)
        if smoothed:
            terms[2] = x.sum(1) / classes.to(x.dtype)
        terms[0] = x.exp_().sum(1)
        terms = _reduced(terms, "sum", ctx)
        mean = terms[2].clone() if smoothed else terms.new_zeros(0)
        return terms[0].log(), terms[1].clone(), mean, largest.clone(), classes.to(x.dtype), place


@_vocabulary_terms.register_fake
def _(
    logits: Tensor, target: Tensor, ignore_index: int, smoothed: bool, group: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    count = logits.shape[0]
    sizes = ((count,), (count,), (count if smoothed else 0,), (count,), ())
    terms = [logits.new_empty(size, dtype=_computed(logits)) for size in sizes]
    return *terms, logits.new_empty(count, dtype=torch.int64)  # type: ignore[return-value]


def _computed(logits: Tensor) -> torch.dtype:
    """The dtype of what is computed of these logits."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _reduced(values: Tensor, op: str, ctx: Any) -> Tensor:
    result = torch.empty_like(values)
    ctx.ccl.all_reduce(result, values, op)
    return result


def _place(target: Tensor, ignore_index: int, own: int, first: Tensor, classes: Tensor) -> Tensor:
    """Which of this rank's `own` logits is the target's; `own` for none. Raises where a target is
    no class."""
    ignored = target == ignore_index
    wrong = ~ignored & ((target < 0) | (target >= classes))
    if target.is_cuda:  # without waiting for the device
        torch._assert_async(~wrong.any(), "target: expected classes, or ignore_index")
    elif wrong.any():
        raise IndexError(
            f"target: expected 0 to {int(classes) - 1} or ignore_index {ignore_index}, got "
            f"{int(target[wrong][0])}"
        )
    place = target.long() - first.long()
    return place.masked_fill(ignored | (place < 0) | (place >= own), own)


def _index(place: Tensor, own: int) -> tuple[Tensor, Tensor]:
    """The columns (N, 1) of a place, and where it is none. (N, 0) without columns: such a rank
    calls what the others call, also in gradients of gradients."""
    columns = min(1, own)
    elsewhere = (place == own).unsqueeze(1).expand(-1, columns)
    return place.clamp(max=own - 1).unsqueeze(1).expand(-1, columns), elsewhere


def _chosen(values: Tensor, place: Tensor) -> Tensor:
    """Each row's value at its place, or 0."""
    index, elsewhere = _index(place, values.shape[1])
    return values.gather(1, index).masked_fill(elsewhere, 0.0).sum(1)


# ---- their derivatives ----


def _setup(ctx: Any, wanted: Any, result: Terms, logits: Tensor, *options: Any) -> None:
    log_sum, _margin, _mean, largest, classes, place = result
    ctx.mark_non_differentiable(largest, classes, place)
    ctx.save_for_backward(logits, log_sum, largest, classes, place)
    ctx.save_for_forward(logits, log_sum, largest, classes, place)
    *_, ctx.smoothed, ctx.group = options


def _backward(
    ctx: Any,
    wanted: Any,
    grad_log_sum: Tensor | None,
    grad_margin: Tensor | None,
    grad_mean: Tensor | None,
    *_: None,
) -> tuple[Tensor | None, ...]:
    """exp(x - m - log_sum), 1 for the target, and 1 / V for the mean, each by its gradient. These
    and log_sum are replicated, and become operands of this rank's own."""
    logits, log_sum, largest, classes, place = ctx.saved_tensors

    def column(values: Tensor) -> Tensor:
        return _own(values, ctx.group).unsqueeze(1)

    if grad_log_sum is None:
        grad = torch.zeros_like(logits, dtype=log_sum.dtype)
    else:
        x = logits.to(log_sum.dtype)
        shares = (x - largest.unsqueeze(1) - column(log_sum)).exp()
        grad = shares * column(grad_log_sum)
        del shares  # as large as the logits
    if grad_mean is not None and grad_mean.shape[0] > 0:
        grad = grad + column(grad_mean) / classes
    if grad_margin is not None:
        index, elsewhere = _index(place, logits.shape[1])
        given = column(grad_margin).expand(-1, index.shape[1])
        grad = grad.scatter_add(1, index, given.masked_fill(elsewhere, 0.0))
    return grad.to(logits.dtype), None, None, None, None


def _jvp(ctx: Any, tangent: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    """The same by rows: sums over the ranks, in one message."""
    logits, log_sum, largest, classes, place = ctx.saved_tensors
    x, change = logits.to(log_sum.dtype), tangent.to(log_sum.dtype)
    shares = (x - largest.unsqueeze(1) - _ops.own_copy(log_sum, ctx.group).unsqueeze(1)).exp()
    terms = torch.stack([(shares * change).sum(1), _chosen(change, place), change.sum(1) / classes])
    log_sum, margin, mean = _ops.all_reduce(terms, "sum", ctx.group).unbind()
    return log_sum, margin, mean if ctx.smoothed else mean[:0], None, None, None


differentiate("vocabulary_terms", _setup, _backward, _jvp)
