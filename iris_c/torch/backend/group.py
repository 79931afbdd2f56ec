# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The process group that torch.distributed calls.

It is a subclass of torch's ProcessGroup, whose methods Python and C++ (DDP's reducer, functional
collectives) call alike. Where tensors lie says who carries a call out: for each kind of device
there is a lane with a context of its own (lanes.py), or one of torch's own backends (fallback.py).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import (
    AllgatherOptions,
    AllreduceCoalescedOptions,
    AllreduceOptions,
    AllToAllOptions,
    BarrierOptions,
    BroadcastOptions,
    GatherOptions,
    PrefixStore,
    ReduceOptions,
    ReduceScatterOptions,
    ScatterOptions,
    Store,
)

import iris_c
from iris_c.ccl import Recv, Send
from iris_c.torch import _groups
from iris_c.torch.backend import meeting
from iris_c.torch.backend.fallback import Fallback, logger
from iris_c.torch.backend.lanes import Call, DeviceLane, HostLane, Lane
from iris_c.torch.backend.options import Options, checked
from iris_c.torch.backend.work import JoinedWork

__all__ = ["ProcessGroupIris", "create"]

NAME = "iris"
# torch's backend of each kind of device, for what is not done here.
OTHER = {"cpu": "gloo", "cuda": "nccl"}
UNSET = timedelta(milliseconds=-1)


def create(given: Any, options: Any) -> ProcessGroupIris:
    """What torch.distributed calls for a new process group of the backend."""
    timeout = given.timeout
    if isinstance(timeout, int | float):
        timeout = timedelta(seconds=timeout)
    options = checked(options)
    meeting.arrive(given.store, given.group_rank, given.group_size, timeout)
    return ProcessGroupIris(
        given.store,
        given.group_rank,
        given.group_size,
        timeout,
        options,
        is_world=not given.global_ranks_in_group,
    )


class ProcessGroupIris(dist.ProcessGroup):
    """Collectives of some ranks, by iris_c's heap where they are on one node.

    Parameters
    ----------
    store : torch.distributed.Store
        Of this group alone.
    rank, size : int
    timeout : timedelta
        Of the meeting, of each host's wait and of each wait inside a kernel.
    options : Options
    is_world : bool
        Whether it is the default group, whose heap is larger.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        timeout: timedelta,
        options: Options,
        is_world: bool = False,
    ) -> None:
        super().__init__(rank, size)  # with a store pybind makes no object that Python can extend
        self._store = store
        self._name = self._desc = ""
        self._timeout = timeout
        self.options = options
        self._is_world = is_world
        self._lanes: dict[str, Lane | None] = {}  # None: on several nodes
        self._fallback = Fallback(store, rank, size, timeout)
        self._making = threading.RLock()
        self._ended: str | None = None
        self._calls = 0
        self._barriers = 0
        self._coalesced: tuple[list[Any], list[Send | Recv]] | None = None

    def get_group_store(self) -> Store:
        return self._store

    # torch keeps the names of a group with its backends, of which this one has none. Python and C++
    # ask under different names.

    def getBackendName(self) -> str:
        return NAME

    def getGroupName(self) -> str:
        return self._name

    def setGroupName(self, name: str) -> None:
        self._name = name

    def getGroupDesc(self) -> str:
        return self._desc

    def setGroupDesc(self, desc: str) -> None:
        self._desc = desc

    group_name = property(getGroupName)
    group_desc = property(getGroupDesc)
    _set_group_name = setGroupName
    _set_group_desc = setGroupDesc

    def _get_backend_name(self) -> str:
        return NAME

    def __repr__(self) -> str:
        return f"<ProcessGroupIris {self.group_name!r}, rank {self.rank()} of {self.size()}>"

    # ---- who carries a call out ----

    def _devices(self) -> dict[str, str]:
        """The backend of each kind of device, as init_process_group was told."""
        if not self._is_listed():
            return dict.fromkeys(OTHER, NAME)
        return dict(pair.split(":") for pair in dist.get_backend_config(self).split(","))

    def _is_listed(self) -> bool:
        """Whether torch.distributed knows the group: `split_group` as a method tells it nothing."""
        try:
            return bool(dist.get_process_group_ranks(self))
        except KeyError:
            return False

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device(kind) for kind in self._devices()]

    def _lane(self, device: torch.device, what: str) -> Any:
        """The lane of a device, or torch's process group in its place."""
        self._require_open(what)
        kind = device.type
        if kind not in self._lanes:
            configured = self._devices().get(kind)
            if configured not in (None, NAME):
                return self._fallback.group(configured, what, f"the backend of {kind} tensors")
            if kind not in OTHER:
                raise ValueError(f"{what}: expected tensors on {' or '.join(OTHER)}, got {device}")
            self._make_lane(device)
        lane = self._lanes[kind]
        if lane is None:
            return self._elsewhere(kind, what)
        if isinstance(lane, DeviceLane) and device.index not in (None, lane.ctx.device.index):
            raise ValueError(
                f"{what}: expected a tensor on {lane.ctx.device}, where the group's first one was, "
                f"got one on {device}"
            )
        return lane

    def _elsewhere(self, kind: str, what: str) -> dist.ProcessGroup:
        """torch's process group where ranks of several nodes have no heap in common."""
        return self._fallback.group(OTHER[kind], what, "the ranks are on several nodes")

    def _make_lane(self, device: torch.device) -> None:
        kind = device.type
        with self._making:
            if kind in self._lanes:
                return
            if kind == "cpu":
                meet = functools.partial(self._meet, kind, None)
                self._lanes[kind] = HostLane(meet, f"group {self.group_name}")
                return
            index = torch.cuda.current_device() if device.index is None else device.index
            ctx = self._meet(kind, index)
            self._lanes[kind] = None if ctx is None else DeviceLane(ctx)

    def _meet(self, kind: str, index: int | None) -> iris_c.Context | None:
        """The context of the ranks' tensors on that kind of device, or None. Collective."""
        made = meeting.make_context(
            PrefixStore(f"{kind}/", self._store),
            self.rank(),
            self.size(),
            kind,
            index,
            self.options,
            self._timeout,
            self._is_world,
        )
        if isinstance(made, iris_c.Context):
            if kind == self._main_kind():
                self._register(made)
            return made
        logger.warning(
            "process group %r: its ranks are on several nodes, %s; %s carries out its collectives",
            self.group_name,
            ", ".join(made),
            OTHER[kind],
        )
        return None

    def _main_kind(self) -> str:
        """The kind of device whose context fused operations and layers find."""
        devices = self._devices()
        on_gpu = devices.get("cuda") == NAME and torch.cuda.is_available()
        return "cuda" if on_gpu else "cpu"

    def _register(self, ctx: iris_c.Context) -> None:
        """Have fused operations and layers find the context, after this group's calls of it."""
        if not self._is_listed():
            return
        name = f"process group {self.group_name}"
        _groups.register(ctx, name, process_group=self)
        _groups.before_use(name, self._drain)

    def _drain(self) -> None:
        for lane in tuple(self._lanes.values()):
            if lane is not None:
                lane.drain()

    def iris_context(self) -> iris_c.Context:
        """The context of the group's ranks, which fused operations and layers use too. Collective
        at the first call.

        Raises
        ------
        RuntimeError
            The ranks are on several nodes.
        """
        lane = self._lane(torch.device(self._main_kind()), "iris_context")
        if isinstance(lane, HostLane):
            lane.run("iris_context", _nothing, lambda: None, [], [], False).wait()
        ctx = getattr(lane, "ctx", None)
        if not isinstance(ctx, iris_c.Context):
            raise RuntimeError("iris_context: the process group's ranks have no context in common")
        return ctx

    def _require_open(self, what: str) -> None:
        if self._ended is not None:
            raise RuntimeError(f"{what}: {self._ended}")

    def _run(
        self,
        name: str,
        call: Call,
        opts: Any,
        read: Sequence[torch.Tensor],
        written: Sequence[torch.Tensor],
        other: tuple[Any, ...],
    ) -> Any:
        """Carry a collective out, here or with torch's method `name(*other)`."""
        tensors = [*read, *written]
        if not tensors:
            raise ValueError(f"{name}: expected tensors, got none")
        devices = {t.device for t in tensors}
        if len(devices) > 1:
            raise ValueError(
                f"{name}: expected tensors of one device, got {sorted(map(str, devices))}"
            )
        lane = self._lane(tensors[0].device, name)
        if isinstance(lane, HostLane | DeviceLane) and any(
            t.layout != torch.strided or t.is_quantized for t in tensors
        ):
            lane = self._fallback.group("gloo", name, "a tensor is sparse or quantized")
        self._calls += 1
        if not isinstance(lane, HostLane | DeviceLane):
            return self._noted(getattr(lane, name)(*other, opts))

        def elsewhere() -> None:
            getattr(self._elsewhere(tensors[0].device.type, name), name)(*other, opts).wait()

        return self._noted(lane.run(name, call, elsewhere, read, written, opts.asyncOp))

    def _noted(self, work: Any) -> Any:
        if self._coalesced is not None:
            self._coalesced[0].append(work)
        return work

    # ---- reductions ----

    def allreduce(self, tensors: Any, opts: Any = None, timeout: Any = None) -> Any:
        tensors, opts = _list(tensors), _options(AllreduceOptions, opts, "reduceOp")
        (tensor,) = _one("tensors", tensors)
        return self._run(
            "allreduce",
            lambda own: own.all_reduce(tensor, opts.reduceOp),
            opts,
            [],
            tensors,
            (tensors,),
        )

    def allreduce_coalesced(self, tensors: Any, opts: Any = None) -> Any:
        opts = _options(AllreduceCoalescedOptions, opts, "reduceOp")
        tensors = list(tensors)
        return self._run(
            "allreduce_coalesced",
            lambda own: own.all_reduce_coalesced(tensors, opts.reduceOp),
            opts,
            [],
            tensors,
            (tensors,),
        )

    def reduce(self, tensors: Any, opts: Any = None, op: Any = None, timeout: Any = None) -> Any:
        tensors, opts = _list(tensors), _options(ReduceOptions, opts, "rootRank")
        if op is not None:
            opts.reduceOp = op
        (tensor,) = _one("tensors", tensors)
        dst = self._rank_of("dst", opts.rootRank)
        return self._run(
            "reduce",
            lambda own: own.reduce(tensor, dst, opts.reduceOp),
            opts,
            [],
            tensors,
            (tensors,),
        )

    def reduce_scatter(
        self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None
    ) -> Any:
        outputs, inputs = _list(outputs), _lists(inputs)
        opts = _options(ReduceScatterOptions, opts, "reduceOp")
        (output,), (given,) = _one("outputs", outputs), _one("inputs", inputs)
        return self._run(
            "reduce_scatter",
            lambda own: own.reduce_scatter_list(output, given, opts.reduceOp),
            opts,
            given,
            outputs,
            (outputs, inputs),
        )

    def reduce_scatter_single(self, output: Any, input: Any, opts: Any = None) -> Any:
        opts = _options(ReduceScatterOptions, opts, "reduceOp")
        return self._run(
            "reduce_scatter_single",
            lambda own: own.reduce_scatter(output, input, opts.reduceOp),
            opts,
            [input],
            [output],
            (output, input),
        )

    def reduce_scatter_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        opts = _options(ReduceScatterOptions, opts, "reduceOp")
        outputs, inputs = list(outputs), list(inputs)

        def scatter(own: Any) -> None:
            for output, given in zip(outputs, inputs, strict=True):
                own.reduce_scatter(output, given, opts.reduceOp)

        name = "reduce_scatter_single_coalesced"
        return self._run(name, scatter, opts, inputs, outputs, (outputs, inputs))

    # ---- what moves ----

    def broadcast(self, tensors: Any, opts: Any = None, timeout: Any = None) -> Any:
        tensors, opts = _list(tensors), _options(BroadcastOptions, opts, "rootRank")
        (tensor,) = _one("tensors", tensors)
        src = self._rank_of("src", opts.rootRank)
        return self._run(
            "broadcast", lambda own: own.broadcast(tensor, src), opts, [], tensors, (tensors,)
        )

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None) -> Any:
        outputs, inputs = _lists(outputs), _list(inputs)
        opts = _options(AllgatherOptions, opts)
        (output,), (given,) = _one("outputs", outputs), _one("inputs", inputs)
        return self._run(
            "allgather",
            lambda own: own.all_gather_list(output, given),
            opts,
            inputs,
            output,
            (outputs, inputs),
        )

    def all_gather_single(self, output: Any, input: Any, opts: Any = None) -> Any:
        opts = _options(AllgatherOptions, opts)
        return self._run(
            "all_gather_single",
            lambda own: own.all_gather(output, input),
            opts,
            [input],
            [output],
            (output, input),
        )

    def all_gather_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        opts = _options(AllgatherOptions, opts)
        outputs, inputs = list(outputs), list(inputs)

        def gather(own: Any) -> None:
            for output, given in zip(outputs, inputs, strict=True):
                own.all_gather(output, given)

        name = "all_gather_single_coalesced"
        return self._run(name, gather, opts, inputs, outputs, (outputs, inputs))

    def allgather_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        """`outputs` has a list for each rank, of as many tensors as `inputs`."""
        opts = _options(AllgatherOptions, opts)
        outputs, inputs = list(outputs), list(inputs)

        def gather(own: Any) -> None:
            for each, given in enumerate(inputs):
                own.all_gather_list([of_rank[each] for of_rank in outputs], given)

        written = [tensor for of_rank in outputs for tensor in of_rank]
        return self._run("allgather_coalesced", gather, opts, inputs, written, (outputs, inputs))

    def gather(self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None) -> Any:
        outputs, inputs = _lists(outputs), _list(inputs)
        opts = _options(GatherOptions, opts, "rootRank")
        (given,) = _one("inputs", inputs)
        dst = self._rank_of("dst", opts.rootRank)
        output = outputs[0] if outputs else []
        return self._run(
            "gather",
            lambda own: own.gather(output, given, dst),
            opts,
            inputs,
            output,
            (outputs, inputs),
        )

    def scatter(self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None) -> Any:
        outputs, inputs = _list(outputs), _lists(inputs)
        opts = _options(ScatterOptions, opts, "rootRank")
        (output,) = _one("outputs", outputs)
        src = self._rank_of("src", opts.rootRank)
        given = inputs[0] if inputs else []
        return self._run(
            "scatter",
            lambda own: own.scatter(output, given, src),
            opts,
            given,
            outputs,
            (outputs, inputs),
        )

    def alltoall(self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None) -> Any:
        opts = _options(AllToAllOptions, opts)
        outputs, inputs = list(outputs), list(inputs)
        return self._run(
            "alltoall",
            lambda own: own.all_to_all_list(outputs, inputs),
            opts,
            inputs,
            outputs,
            (outputs, inputs),
        )

    def all_to_all_single(
        self,
        output: Any,
        input: Any,
        output_split_sizes: Any,
        input_split_sizes: Any,
        opts: Any = None,
        timeout: Any = None,
    ) -> Any:
        opts = _options(AllToAllOptions, opts)
        sizes = list(output_split_sizes or []), list(input_split_sizes or [])
        return self._run(
            "all_to_all_single",
            lambda own: own.all_to_all_single(output, input, *sizes),
            opts,
            [input],
            [output],
            (output, input, *sizes),
        )

    # ---- messages ----

    def send(self, tensors: Any, dst: int, tag: int = 0) -> Any:
        (tensor,) = _one("tensors", _list(tensors))
        dst = self._rank_of("dst", dst)
        lane = self._message_lane(tensor, "send")
        if not isinstance(lane, DeviceLane):
            return self._noted(lane.send([tensor], dst, tag))
        if self._coalesced is not None:
            self._coalesced[1].append(Send(tensor, dst))
            return None
        return lane.send(tensor, dst)

    def recv(self, tensors: Any, src: int, tag: int = 0) -> Any:
        (tensor,) = _one("tensors", _list(tensors))
        src = self._rank_of("src", src)
        lane = self._message_lane(tensor, "recv")
        if not isinstance(lane, DeviceLane):
            return self._noted(lane.recv([tensor], src, tag))
        if self._coalesced is not None:
            self._coalesced[1].append(Recv(tensor, src))
            return None
        return lane.receive(tensor, src)

    def recv_anysource(self, tensors: Any, tag: int = 0) -> Any:
        (tensor,) = _one("tensors", _list(tensors))
        lane = self._message_lane(tensor, "recv_anysource")
        if isinstance(lane, DeviceLane):
            raise ValueError("src: expected a rank for a tensor on a GPU, got none")
        return self._noted(lane.recv_anysource([tensor], tag))

    def _message_lane(self, tensor: torch.Tensor, what: str) -> Any:
        if tensor.device.type == "cpu":
            self._require_open(what)
            why = "messages on the cpu have tags, any source, and no order among peers"
            return self._fallback.group("gloo", what, why)
        return self._lane(tensor.device, what)

    def _start_coalescing(self, device: torch.device) -> None:
        if self._coalesced is not None:
            raise RuntimeError("coalescing: it has been started already")
        self._coalesced = [], []

    def _end_coalescing(self, device: torch.device) -> Any:
        if self._coalesced is None:
            raise RuntimeError("coalescing: it has not been started")
        (works, messages), self._coalesced = self._coalesced, None
        if messages:
            works.append(self._lane(messages[0].tensor.device, "batch").exchange(messages))
        return works[0] if len(works) == 1 else JoinedWork(works)

    # ---- barriers ----

    def barrier(self, opts: Any = None, timeout: Any = None) -> Any:
        """With a time of its own it is `monitored_barrier`, which says who has not come."""
        if isinstance(opts, timedelta):
            timeout, opts = opts, None
        opts = _options(BarrierOptions, opts)
        own_time = timeout or (opts.timeout if opts.timeout != UNSET else None)
        device = opts.device or torch.device(self._main_kind())
        lane = self._lane(device, "barrier")
        self._calls += 1
        if not isinstance(lane, HostLane | DeviceLane):
            return self._noted(lane.barrier(opts))

        if own_time is not None and isinstance(lane, HostLane):
            timed = self._monitored(own_time, True)  # which needs no context, nor waits for one
            return self._noted(lane.run("barrier", None, lambda: timed(None), [], [], opts.asyncOp))

        def elsewhere() -> None:
            self._elsewhere(device.type, "barrier").barrier(opts).wait()

        call = _host_barrier if own_time is None else self._monitored(own_time, True)
        return self._noted(lane.run("barrier", call, elsewhere, [], [], opts.asyncOp))

    def monitored_barrier(self, timeout: Any = None, wait_all_ranks: bool = False) -> None:
        """Raises on all ranks that have come if others have not within the time, and names them.

        torch.distributed.monitored_barrier refuses every backend but gloo; this is a method.
        """
        self._require_open("monitored_barrier")
        self._drain()
        self._monitored(timeout or self._timeout, wait_all_ranks)(None)

    def _monitored(self, timeout: timedelta, wait_all_ranks: bool) -> Any:
        number, self._barriers = self._barriers, self._barriers + 1
        store, rank, size = self._store, self.rank(), self.size()

        def barrier(own: Any) -> None:
            if own is not None and own.ctx.backend != "cpu":
                torch.cuda.current_stream(own.ctx.device).synchronize()
            meeting.monitored_barrier(store, rank, size, number, timeout, wait_all_ranks)

        return barrier

    def _set_sequence_number_for_group(self) -> None:
        self._calls = 0

    def _get_sequence_number_for_group(self) -> int:
        return self._calls

    # ---- subgroups, and what torch asks of a backend ----

    def _get_backend(self, device: torch.device) -> Any:
        """This group itself, or torch's for devices that another backend has."""
        configured = self._devices().get(torch.device(device).type)
        if configured is None:
            raise RuntimeError(f"No backend type associated with device type {device.type}")
        if configured == NAME:
            return self
        group = self._fallback.group(configured, "_get_backend", f"the backend of {device}")
        return group._get_backend(device)

    @property
    def supports_splitting(self) -> bool:
        return True

    @property
    def supports_coalescing(self) -> bool:
        return True

    @property
    def supports_time_estimate(self) -> bool:
        return False

    def supports_tensor_alloc(self, device: Any) -> bool:
        return False

    def eager_connect_single_device(self, device: torch.device) -> None:
        self._lane(torch.device(device), "eager_connect_single_device")

    def perform_nocolor_split(self, device: torch.device) -> None:
        """Ranks outside of a new group have nothing to do for it."""

    def split_group(
        self,
        new_ranks: Sequence[int],
        timeout: Any = None,
        opts: Any = None,
        group_name: Any = None,
        group_desc: Any = None,
        device_types: Any = None,
    ) -> ProcessGroupIris | None:
        """A group of some of this one's ranks, which alone need call it; None on others."""
        ranks = [self._rank_of("new_ranks", rank) for rank in new_ranks]
        if self.rank() not in ranks:
            return None
        name = group_name or f"{self.group_name}:split:{ranks}"
        group = ProcessGroupIris(
            PrefixStore(f"{name}/", self._store),
            ranks.index(self.rank()),
            len(ranks),
            timeout or self._timeout,
            self.options if opts is None else checked(opts),
        )
        group._set_group_name(name)
        group._set_group_desc(group_desc or f"{self.group_desc}:split")
        return group

    def set_timeout(self, timeout: timedelta) -> None:
        """Of contexts that are not made yet; those that are keep theirs."""
        self._timeout = timeout

    def _rank_of(self, argument: str, rank: int) -> int:
        if not 0 <= rank < self.size():
            raise ValueError(f"{argument}: expected 0 <= rank < {self.size()}, got {rank}")
        return rank

    # ---- the end ----

    def shutdown(self) -> None:
        """Carry out what has been asked for, and leave. Not collective."""
        self._end("the process group is destroyed", lambda lane: lane.close())
        self._fallback.shutdown()

    def abort(self) -> None:
        """Leave now: what is under way fails, here and on the other ranks."""
        self._end("the process group is aborted", lambda lane: lane.abort())
        self._fallback.abort()

    def _end(self, why: str, leave: Any) -> None:
        if self._ended is None:
            self._ended = why
        lanes, self._lanes = list(self._lanes.values()), {}
        for lane in lanes:
            if lane is not None:
                leave(lane)

    # Names of older versions of torch, and of its backends.
    _allgather_base = all_gather_single
    _reduce_scatter_base = reduce_scatter_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    alltoall_base = all_to_all_single


def _nothing(own: Any) -> None:
    """What is asked for is the meeting."""


def _host_barrier(own: Any) -> None:
    own.ctx.barrier()


def _list(tensors: Any) -> list[torch.Tensor]:
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)


def _lists(tensors: Any) -> list[list[torch.Tensor]]:
    tensors = list(tensors)
    return [tensors] if tensors and isinstance(tensors[0], torch.Tensor) else tensors


def _one(argument: str, values: list[Any]) -> list[Any]:
    if len(values) != 1:
        raise ValueError(f"{argument}: expected one for this rank's device, got {len(values)}")
    return values


def _options(kind: Any, given: Any, field: str | None = None) -> Any:
    """torch's options; where a value is given in their place, those with it in `field`."""
    if given is None:
        return kind()
    if field is not None and isinstance(given, int | dist.ReduceOp | dist.ReduceOp.RedOpType):
        options = kind()
        setattr(options, field, given)
        return options
    return given
