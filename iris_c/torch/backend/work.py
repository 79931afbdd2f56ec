# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What a collective returns: something to wait for, with a future that carries the tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["DeviceWork", "HostWork", "JoinedWork"]


class _Work(dist.Work):
    """What the works of both kinds answer. C++ asks through `wait` and `get_future` alone."""

    def __init__(self, name: str, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.name = name
        self.tensors = list(tensors)

    def result(self) -> list[torch.Tensor]:
        """The tensors that the collective writes."""
        return self.tensors

    def synchronize(self) -> None:
        self.wait()

    def block_current_stream(self) -> None:
        self.wait()

    def _get_op_type(self) -> str:
        return self.name

    def __repr__(self) -> str:
        state = "completed" if self.is_completed() else "under way"
        return f"<{self.name} of iris, {state}>"


class HostWork(_Work):
    """A collective on the cpu, which this thread or the group's worker carries out.

    `finish` and `fail` end it, once; what a waiter sees is what the thread that ended it wrote.

    Parameters
    ----------
    name : str
    tensors : sequence of torch.Tensor
        What it writes.
    before_waiting : function
        Called with the work by a thread that is about to wait for it.
    """

    def __init__(
        self,
        name: str,
        tensors: Sequence[torch.Tensor],
        before_waiting: Callable[[HostWork], object],
    ) -> None:
        super().__init__(name, tensors)
        self._before_waiting = before_waiting
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._future: torch.futures.Future[Any] | None = None

    def finish(self) -> None:
        self._end(None)

    def fail(self, error: BaseException) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._error = error
            self._ended.set()
            future = self._future
        if future is not None:
            self._resolve(future)

    def _resolve(self, future: torch.futures.Future[Any]) -> None:
        """Callbacks run here; what they raise is theirs (torch keeps it in their own future)."""
        if self._error is None:
            future.set_result(self.tensors)
        elif isinstance(self._error, Exception):
            future.set_exception(self._error)
        else:  # a future takes no KeyboardInterrupt
            future.set_exception(RuntimeError(f"{self.name}: {type(self._error).__name__}"))

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait for the end; raise what the collective raised.

        A `timeout` that passes raises torch.distributed.DistBackendError, and ends nothing.
        """
        self._before_waiting(self)
        seconds = timeout.total_seconds() if timeout else None
        if not self._ended.wait(seconds):
            raise dist.DistBackendError(
                f"{self.name}: Timed out waiting {seconds:g} s for its completion"
            )
        if self._error is not None:
            raise self._error
        return True

    def is_completed(self) -> bool:
        return self._ended.is_set()

    def is_success(self) -> bool:
        return self._ended.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        return self._error

    def get_future(self) -> torch.futures.Future[Any]:
        with self._lock:
            made = self._future is None
            if self._future is None:
                self._future = torch.futures.Future()
            resolve = made and self._ended.is_set()
        if resolve:
            self._resolve(self._future)
        return self._future


class DeviceWork(_Work):
    """A collective that is queued on a stream of a GPU: `wait` has the current stream wait for it.

    Parameters
    ----------
    stream : torch.cuda.Stream or None
        Where it is queued; None: on the stream that was current, whose order it keeps.
    """

    def __init__(self, name: str, tensors: Sequence[torch.Tensor], stream: Any = None) -> None:
        super().__init__(name, tensors)
        self._stream = stream
        self.event = None if stream is None else stream.record_event()
        self._future: torch.futures.Future[Any] | None = None

    def wait(self, timeout: timedelta | None = None) -> bool:
        """`timeout` is for the host, which does not wait here: waits inside kernels are bounded by
        the group's timeout."""
        if self.event is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self.event)
        return True

    def is_completed(self) -> bool:
        return self.event is None or bool(self.event.query())

    def is_success(self) -> bool:
        return self.is_completed()

    def exception(self) -> BaseException | None:
        return None

    def get_future(self) -> torch.futures.Future[Any]:
        """Completed as soon as it is made; it orders streams as `wait` does."""
        if self._future is None:
            devices: list[Any] = sorted({t.device for t in self.tensors if t.is_cuda}, key=str)
            future: torch.futures.Future[Any] = torch.futures.Future(devices=devices)
            if self._stream is None:
                future.set_result(self.tensors)
            else:
                with torch.cuda.stream(self._stream):
                    future.set_result(self.tensors)
            self._future = future
        return self._future


class JoinedWork(_Work):
    """Several works as one, complete when all are."""

    def __init__(self, works: Sequence[Any]) -> None:
        works = [work for work in works if work is not None]
        super().__init__("coalesced", [t for work in works for t in work.result()])
        self._works = works

    def wait(self, timeout: timedelta | None = None) -> bool:
        for work in self._works:
            if timeout:
                work.wait(timeout)
            else:
                work.wait()
        return True

    def is_completed(self) -> bool:
        return all(work.is_completed() for work in self._works)

    def is_success(self) -> bool:
        return all(work.is_success() for work in self._works)

    def exception(self) -> BaseException | None:
        return next((e for e in (work.exception() for work in self._works) if e), None)

    def get_future(self) -> torch.futures.Future[Any]:
        futures = [work.get_future() for work in self._works]
        return torch.futures.collect_all(futures).then(lambda _: self.tensors)
