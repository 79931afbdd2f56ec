# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The context as users see it: the extension's type, and functions that create tensors.

With torch installed they return `torch.Tensor`s whose storage lies on the symmetric heap; without
it `iris_c.Buffer`s, filled by numpy. Both libraries are imported when the first tensor is made.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import numbers
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from iris_c import _C, _checks, objects
from iris_c._logging import log
from iris_c.bound import BoundCcl, BoundOps
from iris_c.environment import DEFAULT_TIMEOUT, context_options
from iris_c.fill import NumpyFiller, TorchFiller
from iris_c.typing import DType, HeapTensor

if TYPE_CHECKING:
    from iris_c.comparison import Row

__all__ = ["Context", "init"]

GROUP_HEAP_SIZE = 256 << 20


@functools.cache
def _filler() -> TorchFiller | NumpyFiller:
    """Makes and fills tensors: with torch if it can be imported, else with numpy."""
    try:
        import torch
    except ImportError:
        import numpy

        return NumpyFiller(numpy)
    return TorchFiller(torch)


def _description(tensor: Any) -> tuple[tuple[int, ...], DType]:
    """Shape and dtype of what another tensor is to be like."""
    if isinstance(tensor, type) or not (hasattr(tensor, "shape") and hasattr(tensor, "dtype")):
        raise TypeError(f"tensor: expected a tensor, got {type(tensor).__name__}")
    return tuple(tensor.shape), tensor.dtype


class Context(_C.Context):
    """A rank's membership in a world of ranks, and its symmetric heap. `iris_c.init` makes it.

    The functions that create tensors, and `allocate`, are collective: all ranks call them, in the
    same order, with the same sizes. They have the arguments of torch's functions: sizes as numbers
    or as one sequence, `dtype`, `requires_grad`. `device` and `layout` are accepted where they
    name the context's device and torch.strided.
    """

    _options: dict[str, Any]
    _groups: dict[tuple[int, ...], Self]
    _pools: Any  # of the local arena, see _arena_pools: None before they are first asked for
    _at_close: list[Callable[[], object]]  # see _when_closed
    source: str  # where rank and world_size come from

    def __new__(cls, *, source: str = "arguments", **options: Any) -> Self:
        # Here, not in __init__, which a subclass may replace and __new__ alone does not call.
        self = super().__new__(cls, **options)
        options.pop("parent", None)  # a group does not keep what keeps it
        self._options = options
        self._groups = {}
        self._pools = None
        self._at_close = []
        self.source = source
        log(self, logging.DEBUG, "joined: backend %s, heap of %d bytes, ranks from %s",
            self.backend, self.heap_size, source)  # fmt: skip
        return self

    def __init__(self, **options: Any) -> None:
        """Nothing is left to do: `options` were __new__'s."""

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, source='{self.source}')"

    def group(
        self, ranks: Sequence[int], heap_size: int | None = None, local_size: int | None = None
    ) -> Self:
        """Return the context of some of this context's ranks.

        The first call with these ranks is collective over them: the members, and nobody else, make
        it together. Later calls return the same object. A group has all operations, and a
        symmetric heap of its own: a result in that heap is written directly, a result anywhere
        else is staged. Its members are numbered from 0 in ascending order, and its attribute
        `ranks` has their numbers in this context. A group closes with this context.

        Parameters
        ----------
        ranks : sequence of int
            Distinct ranks of this context, this rank among them.
        heap_size : int or None
            Bytes of the group's heap, for its tensors and workspaces, equal on all members. None:
            as many as this context's heap has, but at most 256 MiB.
        local_size : int or None
            Bytes of the group's local arena, equal on all members. None: as many as this
            context's has, but at most half the group's heap_size.

        Raises
        ------
        ValueError
            The ranks are not distinct ranks of this context that include this one; or the group
            has another heap or arena already.
        RuntimeError
            This context is closed, or the parent process's.
        PeerError
            A member did not arrive in time.
        """
        members = tuple(sorted(_checks.integers("group", ranks)))
        if heap_size is not None:
            heap_size = _checks.integer("heap_size", heap_size)
        self._require_open()  # reading the arguments may have run the caller's code
        if local_size is not None:
            local_size = _checks.integer("local_size", local_size)
        group = self._groups.get(members)
        if group is None:
            self._check_members(members)
            own_size = min(self.heap_size, GROUP_HEAP_SIZE) if heap_size is None else heap_size
            group = type(self)(
                **{
                    **self._options,
                    "rank": members.index(self.rank),
                    "world_size": len(members),
                    "heap_size": own_size,
                    "local_size": min(self.local_size, max(own_size, 0) // 2)
                    if local_size is None
                    else local_size,
                    "run_key": f"{self._options.get('run_key', '')}/group {members}",
                    "ranks": members,
                    "source": f"group {members}",
                    "parent": self,
                }
            )
            self._groups[members] = group
            group._when_closed(functools.partial(self._groups.pop, members, None))
            if self.closed:  # by another thread, or a signal's handler, while the members met
                group.close()
                self._require_open()
        else:
            given = {"heap_size": heap_size, "local_size": local_size}
            for name, size in given.items():
                has = getattr(group, name)
                if size not in (None, has):
                    raise ValueError(f"{name}: expected {has}, which the group has, got {size}")
        return group

    def _check_members(self, members: tuple[int, ...]) -> None:
        world = self.world_size
        if any(not 0 <= rank < world for rank in members) or len(set(members)) != len(members):
            raise ValueError(f"group: expected distinct ranks, 0 to {world - 1}, got {members}")
        if self.rank not in members:
            raise ValueError(f"group: expected this rank, {self.rank}, among {members}")

    def survivors(self, timeout: float | None = None) -> Self:
        """The context of the ranks that are left, after a `PeerError` or `SignalTimeout`, or when
        the framework says that a rank is lost. Collective over them; closes this context.

        Who they are is agreed on: the ranks that live, have not closed this context, and call
        this too. Ranks keep their order; `ranks` says what they are called in this context, or,
        if it has other names for them itself (survivors, a group), those. Heap size, timeout and
        the like are this context's. Its tensors stay readable, and its heap's memory goes with
        the last of them. Its groups are closed; a group may have survivors of its own.

        Parameters
        ----------
        timeout : float or None
            Seconds from this rank's call to wait for ranks that live and have not called it. They
            are left out then. None: this context's.

        Returns
        -------
        Context

        Raises
        ------
        PeerError
            This rank came too late: the others went on without it.
        RuntimeError
            This context is closed.
        """
        if not isinstance(timeout, numbers.Real | None):
            raise TypeError(f"timeout: expected seconds or None, got {type(timeout).__name__}")
        if timeout is not None and not 0 < timeout <= 1e9:
            raise ValueError(f"timeout: expected seconds in (0, 1e9] or None, got {timeout}")
        self._close_groups()
        self._groups.clear()  # their memory goes with their tensors, too
        survivors = super().survivors(timeout)
        self._forget()
        survivors._groups = {}
        survivors._pools = None
        survivors._at_close = []
        survivors._options = {
            **self._options,
            "rank": survivors.rank,
            "world_size": survivors.world_size,
            "run_key": survivors._run_key,
            "ranks": survivors.ranks,
        }
        survivors.source = f"survivors {survivors.ranks}"
        log(survivors, logging.WARNING, "ranks %s of %d go on", survivors.ranks, self.world_size)
        return survivors

    def close(self) -> None:
        """Leave the peers, in groups too. Tensors stay readable.

        Not collective. A second call does nothing.
        """
        if not self.closed:
            log(self, logging.DEBUG, "closes")
        try:
            self._close_groups()
            super().close()
            self._close_groups()  # one that another thread has made meanwhile
            self._forget()
        except BaseException:  # of a signal's handler
            self._close_now()
            raise

    def _close_groups(self) -> None:
        for group in tuple(self._groups.values()):
            group.close()

    def _close_now(self) -> None:
        for group in tuple(self._groups.values()):
            group._close_now()
        super()._close_now()
        self._forget()

    def _when_closed(self, callback: Callable[[], object]) -> None:
        """Have a registry that holds this context called when it is closed, to let go of it."""
        self._at_close.append(callback)

    def _forget(self) -> None:
        self._pools = None
        while self._at_close:
            self._at_close.pop()()

    @property
    def device(self) -> Any:
        """The device of the heap's tensors: a torch.device, or a str where torch is missing."""
        return _filler().device(self)

    @property
    def ops(self) -> BoundOps:
        """The fused operations of `iris_c.ops`, bound to this context."""
        return BoundOps(self)

    @property
    def ccl(self) -> BoundCcl:
        """The collectives of `iris_c.ccl`, bound to this context."""
        return BoundCcl(self)

    def get_device(self) -> Any:
        """The device of the heap's tensors."""
        return self.device

    def get_heap_bases(self) -> Any:
        """Address of each rank's heap as mapped in this process: int64, (world_size,)."""
        return _filler().addresses(self, self._heap_bases())

    def broadcast_object(self, obj: Any = None, src: int = 0) -> Any:
        """Return the object that rank `src` passes; what the others pass is not looked at.

        Collective. For small things that pickle: settings, paths, a seed. The hosts wait for each
        other, within the context's timeout, and for no device. On `src` the result is `obj` itself.

        Parameters
        ----------
        obj : object
        src : int
            Equal on all ranks.

        Raises
        ------
        ValueError, TypeError
            `src` is no rank, or not the same on all ranks.
        RuntimeError
            Another rank could not pickle the object, or make it of what arrived. The rank itself
            raises what pickle raised. The context goes on.
        PeerError
            A rank did not call it in time, or died.
        """
        return objects.broadcast(self, obj, src)

    def bench(
        self,
        op: str,
        shape: int | Sequence[int],
        *,
        dtype: DType = "float32",
        peer: str | None = None,
        process_group: Any = None,
        repeats: int = 5,
        seconds: float = 0.02,
    ) -> Row:
        """Time an operation of one shape, beside torch and torch.distributed if asked. Collective.

        Results of random inputs are compared with float64 first. Needs torch, and room in the heap
        for the result. Calls are queued one behind the other, as a program queues them.

        Parameters
        ----------
        op : str
            matmul_all_reduce, matmul_reduce_scatter, all_gather_matmul, matmul_all_gather,
            all_reduce, reduce_scatter, all_gather, all_to_all or broadcast.
        shape : int or sequence of int
            M, N and K of the product A (M, K) @ B (K, N): of matmul_all_reduce and
            matmul_reduce_scatter each rank's; of the others M are all ranks' rows. Of a collective,
            the elements of the larger of its two tensors.
        dtype : torch.dtype or str
            float32, float16 or bfloat16.
        peer : 'torch' or None
            What to time in turns with it: torch.mm, and the collective of torch.distributed, which
            is initialised (NCCL, RCCL or Gloo).
        process_group : torch.distributed.ProcessGroup or None
            For `peer`, this context's ranks. None: the group that iris_c.torch knows of.
        repeats : int
            Runs of calls; the time is the median of them, each that of the slowest rank.
        seconds : float
            How long a run takes about.

        Returns
        -------
        iris_c.comparison.Row
            Equal on all ranks.
        """
        from iris_c import comparison

        return comparison.bench(
            self, op, shape, dtype=dtype, peer=peer, process_group=process_group,
            repeats=repeats, seconds=seconds,
        )  # fmt: skip

    # ---- tensors in the heap ----

    def _tensor(
        self,
        size: Sequence[int],
        dtype: DType,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Without values, and without a gradient so far; `requires_grad` is only looked at."""
        _checks.flag("requires_grad", requires_grad)
        return _filler().tensor(self, size, dtype, device, layout)

    def empty(
        self,
        *size: Any,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return an uninitialised tensor on the heap. Collective."""
        tensor = self._tensor(_checks.sizes(size), dtype, device, layout, requires_grad)
        return _filler().finish(tensor, requires_grad)

    def local_empty(
        self,
        *size: Any,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return an uninitialised tensor in this rank's local arena. Not collective.

        Peers write results into it directly, wherever it lies on other ranks; for everything else
        it is ordinary memory. On a GPU its memory is used again once the device has done what it
        was given before the tensor was freed; a graph that uses the tensor must not outlive it.

        Raises
        ------
        HeapExhausted
            The arena has no room.
        """
        _checks.flag("requires_grad", requires_grad)
        tensor = _filler().tensor(self, _checks.sizes(size), dtype, device, layout, local=True)
        return _filler().finish(tensor, requires_grad)

    def _arena_pools(self) -> Any:
        """The local arena as pools of torch's allocator; on a GPU."""
        if self._pools is None:
            from iris_c.pools import Pools

            self._pools = Pools(self)
        return self._pools

    def pool(self) -> contextlib.AbstractContextManager[None]:
        """Have torch allocate in this rank's local arena: ``with ctx.pool(): ...``. Not collective.

        On a GPU the tensors that the calling thread makes inside lie in the arena, whoever makes
        them, and are freed as usual. torch.OutOfMemoryError when it has no room. What is made while
        a graph is captured is the graph's: its memory is used again by nothing else before the
        graph is gone. On the cpu torch has no pools, and nothing is changed; see `local_empty`.
        """
        self._require_open()
        if self.backend == "cpu":
            return contextlib.nullcontext()
        use: contextlib.AbstractContextManager[None] = self._arena_pools().use(self)
        return use

    def zeros(
        self,
        *size: Any,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return a tensor of zeros on the heap. Collective."""
        return self.full(
            _checks.sizes(size),
            0,
            dtype=_filler().default_dtype() if dtype is None else dtype,
            device=device,
            layout=layout,
            requires_grad=requires_grad,
        )

    def ones(
        self,
        *size: Any,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return a tensor of ones on the heap. Collective."""
        return self.full(
            _checks.sizes(size),
            1,
            dtype=_filler().default_dtype() if dtype is None else dtype,
            device=device,
            layout=layout,
            requires_grad=requires_grad,
        )

    def full(
        self,
        size: Any,
        fill_value: Any,
        *,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return a tensor on the heap whose elements are `fill_value`. Collective.

        The dtype is, as in torch.full, that of the value if `dtype` is None.
        """
        filler = _filler()
        if not isinstance(fill_value, numbers.Number) and not hasattr(fill_value, "__float__"):
            raise TypeError(f"fill_value: expected a number, got {type(fill_value).__name__}")
        if dtype is None:
            dtype = filler.dtype_of(fill_value)
        tensor = self._tensor(_checks.sizes((size,)), dtype, device, layout, requires_grad)
        try:
            filler.full(tensor, fill_value)
        except (RuntimeError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(
                f"fill_value: expected a value that {tensor.dtype} has, got {fill_value!r}"
            ) from error
        return filler.finish(tensor, requires_grad)

    def empty_like(
        self, tensor: Any, *, dtype: DType = None, requires_grad: bool = False
    ) -> HeapTensor:
        """Return an uninitialised row-major tensor of the same shape and dtype. Collective."""
        shape, own = _description(tensor)
        return self.empty(shape, dtype=own if dtype is None else dtype,
                          requires_grad=requires_grad)  # fmt: skip

    def zeros_like(
        self, tensor: Any, *, dtype: DType = None, requires_grad: bool = False
    ) -> HeapTensor:
        """Return a row-major tensor of zeros of the same shape and dtype. Collective."""
        shape, own = _description(tensor)
        return self.zeros(shape, dtype=own if dtype is None else dtype,
                          requires_grad=requires_grad)  # fmt: skip

    def as_symmetric(self, tensor: Any) -> HeapTensor:
        """Return a row-major copy of `tensor` on the heap. Collective.

        A tensor that lies on the heap already is copied too, since all ranks allocate together.
        """
        source = _filler().source(tensor)
        copy = self._tensor(tuple(source.shape), source.dtype)
        _filler().copy(copy, source)
        return copy

    def rand(
        self,
        *size: Any,
        generator: Any = None,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return uniform random numbers in [0, 1). Collective; each rank draws its own numbers."""
        tensor = self._tensor(_checks.sizes(size), dtype, device, layout, requires_grad)
        _filler().uniform(tensor, 0.0, 1.0, generator)
        return _filler().finish(tensor, requires_grad)

    def uniform(
        self,
        *size: Any,
        low: float = 0.0,
        high: float = 1.0,
        generator: Any = None,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return uniform random numbers in [low, high). Collective; each rank draws its own."""
        if not _checks.number("low", low) <= _checks.number("high", high):
            raise ValueError(f"high: expected >= low ({low}), got {high}")
        tensor = self._tensor(_checks.sizes(size), dtype, device, layout, requires_grad)
        _filler().uniform(tensor, low, high, generator)
        return _filler().finish(tensor, requires_grad)

    def randn(
        self,
        *size: Any,
        generator: Any = None,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return normal random numbers, mean 0, variance 1. Collective; each rank draws its own."""
        tensor = self._tensor(_checks.sizes(size), dtype, device, layout, requires_grad)
        _filler().normal(tensor, generator)
        return _filler().finish(tensor, requires_grad)

    def randint(
        self,
        *args: Any,
        low: int = 0,
        high: int | None = None,
        size: Any = None,
        generator: Any = None,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return random integers in [low, high): ``randint([low,] high, size)``. Collective."""
        bounds = list(args)
        if size is None and bounds:
            size = bounds.pop()
        if size is None or len(bounds) + (high is not None) not in (1, 2):
            raise TypeError("randint() takes (high, size) or (low, high, size)")
        if bounds:
            *first, high = (*bounds, high) if high is not None else bounds
            low = first[0] if first else low
        low, high = _checks.integer("low", low), _checks.integer("high", high)
        if not low < high:
            raise ValueError(f"high: expected > low ({low}), got {high}")
        filler = _filler()
        dtype = filler.integer_dtype() if dtype is None else dtype
        tensor = self._tensor(_checks.sizes((size,)), dtype, device, layout, requires_grad)
        filler.integers(tensor, low, high, generator)
        return filler.finish(tensor, requires_grad)

    def arange(
        self,
        start: float = 0,
        end: float | None = None,
        step: float = 1,
        *,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return start, start + step, ... below end: ``arange([start,] end, step)``. Collective."""
        start, end = (0, start) if end is None else (start, end)
        for name, value in (("start", start), ("end", end), ("step", step)):
            _checks.number(name, value)
        if step == 0:
            raise ValueError("step: expected other than 0, got 0")
        if (end - start) * step < 0:
            raise ValueError(f"end: step {step} does not lead from {start} to {end}")
        filler = _filler()
        if dtype is None:
            whole = all(isinstance(value, int) for value in (start, end, step))
            dtype = filler.integer_dtype() if whole else filler.default_dtype()
        try:
            count = filler.arange_count(start, end, step)
        except (RuntimeError, OverflowError, ValueError) as error:
            raise ValueError(
                f"end: expected a range of numbers that {dtype} has, got {start} to {end}"
            ) from error
        tensor = self._tensor((count,), dtype, device, layout, requires_grad)
        filler.arange(tensor, start, end, step)
        return filler.finish(tensor, requires_grad)

    def linspace(
        self,
        start: float,
        end: float,
        steps: int,
        *,
        dtype: DType = None,
        device: Any = None,
        layout: Any = None,
        requires_grad: bool = False,
    ) -> HeapTensor:
        """Return `steps` values at equal distances, from `start` to `end` inclusive. Collective."""
        _checks.number("start", start)
        _checks.number("end", end)
        steps = _checks.integer("steps", steps)
        if steps < 0:
            raise ValueError(f"steps: expected >= 0, got {steps}")
        filler = _filler()
        tensor = self._tensor((steps,), dtype, device, layout, requires_grad)
        filler.linspace(tensor, start, end, steps)
        return filler.finish(tensor, requires_grad)


def init(
    heap_size: int = 1 << 30,
    backend: str | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    local_size: int | None = None,
) -> Context:
    """Meet the other ranks of the run and map the symmetric heap. Collective.

    Parameters
    ----------
    heap_size : int
        Bytes of the symmetric heap, equal on all ranks.
    backend : str or None
        'hip', 'cuda' or 'cpu'; None takes the first of these that is present. The environment
        variable IRIS_C_BACKEND overrides it.
    rank, world_size : int or None
        Give both or neither. The default is RANK and WORLD_SIZE in the environment, which torchrun
        sets, else what mpirun or srun has set, else a world of one rank. The context's `source`
        says which.
    timeout : float
        Seconds that a rank waits for the others: here, in each host collective and in each wait
        inside a kernel. IRIS_C_TIMEOUT replaces the default.
    local_size : int or None
        Bytes of the local arena, equal on all ranks: memory behind the heap that a rank allocates
        alone, for results that its peers write. None: IRIS_C_LOCAL_SIZE, or half of heap_size, at
        most 2 GiB. 0: none.

    Returns
    -------
    Context

    Raises
    ------
    ValueError
        An argument or an environment variable is not valid, or differs between ranks.
    PeerError
        A rank did not arrive in time; `rank` says which.
    BackendError
        A driver or the operating system refused a call.
    """
    return Context(
        **context_options(heap_size, backend, rank, world_size, timeout, local_size=local_size)
    )
