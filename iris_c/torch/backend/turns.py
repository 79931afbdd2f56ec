# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Calls of a context on the cpu, one after the other in the order in which they were made.

A context carries a call out before it returns, in one thread at a time. A call that the caller
waits for at once runs in the caller's thread, if none is before it. Any other waits in a queue for
the worker, a thread that the first such call starts. So `async_op=True` returns at once, and the
ranks' calls still meet in the order in which each rank made them.

What a completed call's future calls back runs in the worker. A call that it makes runs there and
then, and one in the queue that it waits for is carried out meanwhile, with those before it: else
the worker would wait for itself.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from iris_c.torch.backend.work import HostWork

__all__ = ["Turns"]


class Turns:
    """The queue of one context.

    Parameters
    ----------
    name : str
        Of the worker, for debuggers.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[[], object], HostWork]] = deque()
        self._owner: int | None = None  # the thread that is in a call
        self._worker: threading.Thread | None = None
        self._ended: str | None = None  # why there are no further calls

    def run(self, call: Callable[[], object], work: HostWork, in_background: bool) -> HostWork:
        """Have `call` carried out, and `work` end with it.

        Errors are the work's. An interrupt of a call in this thread is raised, too.
        """
        me = threading.get_ident()
        with self._changed:
            if self._ended is not None:
                raise RuntimeError(f"{work.name}: {self._ended}")
            inside = self._owner == me
            here = inside or (not in_background and self._owner is None and not self._waiting)
            if here:
                self._owner = me
            else:
                self._waiting.append((call, work))
                self._start()
                self._changed.notify_all()
        if here:
            try:
                self._carry_out(call, work)
            finally:
                if not inside:
                    self._let_go()
        return work

    def help(self, work: HostWork) -> None:
        """Carry out what waits, up to `work`, if this thread is the one that would do so later."""
        while not work.is_completed():
            with self._changed:
                if self._owner != threading.get_ident() or not self._waiting:
                    return
                call, next_work = self._waiting.popleft()
            self._carry_out(call, next_work)

    def drain(self) -> None:
        """Wait until nothing is under way and nothing waits, but in a call of this thread."""
        with self._changed:
            if self._owner == threading.get_ident():
                return
            while self._owner is not None or self._waiting:
                self._changed.wait()

    def end(self, why: str) -> None:
        """Calls that wait fail, as do later ones; the worker ends."""
        with self._changed:
            self._ended = why
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for _, work in left:
            work.fail(RuntimeError(f"{work.name}: {why}"))

    def join(self) -> None:
        """Wait for the worker, which `end` ends."""
        worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join()

    def _start(self) -> None:
        if self._worker is None:
            # Whatever the worker waits for, the process may end without it.
            self._worker = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._worker.start()

    def _let_go(self) -> None:
        with self._changed:
            self._owner = None
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._owner is not None or not self._waiting:
                    if self._ended is not None and not self._waiting:
                        return
                    self._changed.wait()
                call, work = self._waiting.popleft()
                self._owner = threading.get_ident()
            try:
                self._carry_out(call, work)
            finally:
                self._let_go()
            del call, work  # tensors among it

    def _carry_out(self, call: Callable[[], object], work: HostWork) -> None:
        try:
            call()
        except Exception as error:
            work.fail(error)
        except BaseException as error:
            work.fail(error)
            raise
        else:
            work.finish()
