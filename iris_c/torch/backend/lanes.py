# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A process group's context on one device, and how calls are carried out on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

import iris_c
from iris_c.ccl import Recv, Send
from iris_c.torch.backend.collectives import Collectives
from iris_c.torch.backend.turns import Turns
from iris_c.torch.backend.work import DeviceWork, HostWork

__all__ = ["DeviceLane", "HostLane", "Lane"]

Call: TypeAlias = Callable[[Collectives], object]


class HostLane:
    """On the cpu: calls take turns, in the caller's thread or the worker's (turns.py).

    Parameters
    ----------
    meet : function
        Makes the context, collectively, in the first call's turn: a group's calls wait for nobody
        who is busy with another group. None if the ranks can have none.
    name : str
    """

    def __init__(self, meet: Callable[[], iris_c.Context | None], name: str) -> None:
        self.ctx: iris_c.Context | None = None
        self._meet: Callable[[], iris_c.Context | None] | None = meet
        self._collectives: Collectives | None = None
        self._turns = Turns(f"iris_c {name}")

    def run(
        self,
        name: str,
        call: Call | None,
        other: Callable[[], object],
        read: Sequence[torch.Tensor],
        written: Sequence[torch.Tensor],
        in_background: bool,
    ) -> HostWork:
        """Have `call` carried out, or `other` if there can be no context, or `call` is None.

        It reads and writes these tensors.
        """

        def carry_out() -> None:
            with torch.inference_mode():  # what autograd and the caller's own mode make of it
                own = None if call is None else self._met()
                if call is None or own is None:
                    other()
                else:
                    call(own)

        return self._turns.run(carry_out, HostWork(name, written, self._turns.help), in_background)

    def _met(self) -> Collectives | None:
        if self._meet is not None:
            self.ctx = self._meet()
            self._meet = None
            if self.ctx is not None:
                self._collectives = Collectives(self.ctx)
        return self._collectives

    def drain(self) -> None:
        """Wait for all calls, but for that of this thread."""
        self._turns.drain()

    def close(self) -> None:
        """After the calls that there are."""
        self._turns.drain()
        self._turns.end("the process group is destroyed")
        if self.ctx is not None:
            self.ctx.close()
        self._turns.join()

    def abort(self) -> None:
        """Now: a call that is under way fails, here and on the other ranks."""
        self._turns.end("the process group is aborted")
        if self.ctx is not None:
            self.ctx._close_now()
        self._turns.join()


class DeviceLane:
    """On a GPU: calls are queued on streams.

    A call that the caller waits for at once is queued on the current stream. Another one is queued
    on a stream of this lane, behind what the current one has now; messages have two more, so that
    a rank can receive while its own message waits to be taken.
    """

    def __init__(self, ctx: iris_c.Context) -> None:
        self.ctx = ctx
        self._collectives = Collectives(ctx)
        self._device = ctx.device
        self._streams: dict[str, torch.cuda.Stream] = {}
        self._lock = threading.RLock()  # calls of several threads, one after the other
        self._behind: torch.cuda.Event | None = None  # the last call of the stream "collectives"

    def run(
        self,
        name: str,
        call: Call,
        other: Callable[[], object],
        read: Sequence[torch.Tensor],
        written: Sequence[torch.Tensor],
        in_background: bool,
    ) -> DeviceWork:
        with self._lock:
            if not in_background:
                self.drain()
                with torch.cuda.device(self._device), torch.no_grad():
                    call(self._collectives)
                return DeviceWork(name, written)
            stream = self._stream("collectives")
            work = self._on(stream, name, call, read, written)
            self._behind = work.event
            return work

    def send(self, tensor: torch.Tensor, dst: int) -> DeviceWork:
        flat = tensor.detach().contiguous()

        def send(own: Collectives) -> None:
            own.send(flat, dst)

        with self._lock:
            return self._on(self._stream("sends"), "send", send, [flat], [])

    def receive(self, tensor: torch.Tensor, src: int) -> DeviceWork:
        def receive(own: Collectives) -> None:
            own.receive(tensor, src)

        with self._lock:
            return self._on(self._stream("receipts"), "recv", receive, [], [tensor])

    def exchange(self, messages: Sequence[Send | Recv]) -> DeviceWork:
        """Several messages at once, in whatever order."""

        def exchange(own: Collectives) -> None:
            own.exchange(messages)

        read = [m.tensor for m in messages if isinstance(m, Send)]
        written = [m.tensor for m in messages if isinstance(m, Recv)]
        with self._lock:
            return self._on(self._stream("sends"), "batch", exchange, read, written)

    def _stream(self, of: str) -> torch.cuda.Stream:
        if of not in self._streams:
            self._streams[of] = torch.cuda.Stream(self._device)
        return self._streams[of]

    def _on(
        self,
        stream: torch.cuda.Stream,
        name: str,
        call: Call,
        read: Sequence[torch.Tensor],
        written: Sequence[torch.Tensor],
    ) -> DeviceWork:
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream), torch.no_grad():
            call(self._collectives)
        for tensor in (*read, *written):
            if tensor.is_cuda:
                tensor.record_stream(stream)  # the allocator's: it is in use there
        return DeviceWork(name, written, stream)

    def drain(self) -> None:
        """Have the current stream wait for the collectives that are queued on the lane's.

        Each of two that are resident at once could hold the multiprocessors that the other needs
        on another rank. In a capture the caller's own wait() has joined what belongs to it.
        """
        if self._behind is not None and not torch.cuda.is_current_stream_capturing():
            torch.cuda.current_stream(self._device).wait_event(self._behind)
            self._behind = None

    def close(self) -> None:
        self.ctx.close()

    def abort(self) -> None:
        self.ctx._close_now()


Lane: TypeAlias = HostLane | DeviceLane
