# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Tests that run on several ranks.

``@ranks(1, 2, 4)`` turns a function whose first argument is a context into a pytest test that runs
in 1, 2 and 4 fresh processes. A rank that raises fails the test with its traceback; ranks that are
not done at the deadline are killed and reported as a possible deadlock, with their stacks.

The processes come from a fork server that has imported torch and iris_c, so a rank starts in a few
tens of milliseconds. Under torchrun with ``IRIS_C_TEST_TORCHRUN=1`` the same tests run in the
processes that torchrun has started; those for other world sizes are skipped.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib
import inspect
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from iris_c.comparison import Row
    from iris_c.context import Context

__all__ = ["RankFailure", "benchmark", "preload", "ranks", "run_ranks", "seed_of", "use_device"]

_context = multiprocessing.get_context("forkserver")
_preloaded = ["numpy", "torch", "pytest", "iris_c", "iris_c._C"]
_context.set_forkserver_preload(_preloaded)
# Of torch and of numpy. More threads per rank than cores spin waiting for each other.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_runs = 0

# A body: a function, or the names of its module and of itself.
Body: TypeAlias = Callable[..., Any] | tuple[str, str]
# Arguments of iris_c.init.
_Init: TypeAlias = Mapping[str, Any]


def preload(*modules: str) -> None:
    """Import these modules in the fork server, so that ranks have them when they start.

    Call it before the first run.
    """
    _preloaded.extend(module for module in modules if module not in _preloaded)
    _context.set_forkserver_preload(_preloaded)


class RankFailure(AssertionError):
    """At least one rank failed. The message has the tracebacks, or the stacks, of the ranks."""


def seed_of(name: str) -> int:
    """Return a seed made of the name: equal on all ranks and in every run."""
    return zlib.crc32(name.encode())


def _resolve(module: str, name: str) -> Callable[..., Any]:
    body: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return getattr(body, "rank_body", body)


def use_device(ctx: Context) -> None:
    """Make the context's device torch's default for this thread, so that one body serves all
    backends. Bodies that are given their context need not: it has been done."""
    if ctx.backend == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        return  # tensors come from elsewhere
    torch.cuda.set_device(ctx.device)
    torch.set_default_device(ctx.device)


def _rank_main(
    pipe: Connection,
    stacks: str,
    environment: Mapping[str, str],
    module: str,
    name: str,
    args: Sequence[Any],
    init: _Init | None,
) -> None:
    with open(stacks, "w") as file:
        faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
        os.environ.update(environment)
        try:
            import torch

            torch.set_num_threads(1)
        except ImportError:
            pass
        try:
            body = _resolve(module, name)
            if init is None:
                result = body(*args)
            else:
                import iris_c

                with iris_c.init(**init) as ctx:
                    use_device(ctx)
                    result = body(ctx, *args)
            pipe.send(("ok", result))
        except BaseException:  # the parent reports it, whatever it is
            pipe.send(("error", traceback.format_exc()))
        finally:
            pipe.close()
            faulthandler.unregister(signal.SIGUSR1)


def _start_fork_server() -> None:
    """With one thread per rank: libraries read the number when they are loaded, in the server."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Rank:
    """A rank's process, as its parent sees it."""

    def __init__(
        self,
        directory: str,
        rank: int,
        environment: Mapping[str, str],
        module: str,
        name: str,
        args: Sequence[Any],
        init: _Init | None,
    ) -> None:
        self.rank = rank
        self.stacks = os.path.join(directory, f"rank{rank}.stacks")
        self.outcome: tuple[str, Any] | None = None  # ok, error or died; and what belongs to it
        self.pipe, theirs = _context.Pipe(duplex=False)
        environment = dict(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        self.process = _context.Process(
            target=_rank_main,
            args=(theirs, self.stacks, environment, module, name, args, init),
            daemon=True,
        )
        self.process.start()
        theirs.close()

    def poll(self) -> bool:
        """Whether the rank has finished; collects what it sent."""
        if self.outcome is None and self.pipe.poll():
            try:
                self.outcome = self.pipe.recv()
            except EOFError:
                self.outcome = ("died", None)
        if self.outcome is None and not self.process.is_alive():
            self.outcome = ("died", None)
        return self.outcome is not None

    def stack_text(self) -> str:
        pid = self.process.pid
        assert pid is not None  # it has been started
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGUSR1)
        time.sleep(0.3)
        with open(self.stacks) as file:
            return file.read()

    def end(self) -> None:
        if self.outcome is not None:
            self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        if self.outcome == ("died", None):
            self.outcome = ("died", self.process.exitcode)
        self.pipe.close()
        self.process.close()


def _wait(running: list[_Rank], deadline: float) -> list[_Rank]:
    """Waits until all ranks are done or the time is up; returns those that are not done."""
    until = time.monotonic() + deadline
    waiting = [rank for rank in running if not rank.poll()]
    while waiting and time.monotonic() < until:
        sources = [rank.pipe for rank in waiting] + [rank.process.sentinel for rank in waiting]
        multiprocessing.connection.wait(sources, timeout=min(1.0, until - time.monotonic()))
        waiting = [rank for rank in waiting if not rank.poll()]
    return waiting


def run_ranks(
    body: Body,
    world_size: int,
    *args: Any,
    init: _Init | None = None,
    deadline: float = 60.0,
    expect_killed: tuple[int, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> list[Any]:
    """Run ``body(*args)`` in a new process for each rank; return their results in rank order.

    Parameters
    ----------
    body : function or (str, str)
        A function of a module, or the names of the module and of the function.
    world_size : int
    *args
        Arguments of the body. They and the results must pickle.
    init : dict or None
        Arguments of `iris_c.init`: each rank makes a context and passes it to the body as first
        argument. None: the body makes its own, for which RANK, WORLD_SIZE and the name of the run
        are in the environment.
    deadline : float
        Seconds after which ranks that are not done are killed.
    expect_killed : tuple of int
        Ranks that the body kills; their results are None.
    environment : dict or None
        Further environment variables of the ranks.

    Raises
    ------
    RankFailure
        A rank raised, died or missed the deadline.
    """
    global _runs
    _runs += 1
    module, name = body if isinstance(body, tuple) else (body.__module__, body.__name__)
    shared = {
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": f"iris_c-test-{os.getpid()}-{_runs}",
        **_ONE_THREAD,
        **(environment or {}),
    }
    _start_fork_server()
    with tempfile.TemporaryDirectory(prefix="iris_c-test-") as directory:
        running = [
            _Rank(directory, rank, shared, module, name, args, init) for rank in range(world_size)
        ]
        try:
            late = _wait(running, deadline)
            stacks = [f"rank {rank.rank} is at\n{rank.stack_text()}" for rank in late]
        finally:
            for rank in running:
                rank.end()
        return _verdict(running, late, stacks, deadline, expect_killed)


def _verdict(
    running: list[_Rank],
    late: list[_Rank],
    stacks: list[str],
    deadline: float,
    expect_killed: tuple[int, ...],
) -> list[Any]:
    complaints = []
    for rank in running:
        kind, value = rank.outcome or ("late", None)
        if kind == "error":
            complaints.append(f"rank {rank.rank} raised\n{value}")
        elif kind == "died" and rank.rank not in expect_killed:
            complaints.append(f"rank {rank.rank} died with exit code {value}")
        elif kind == "ok" and rank.rank in expect_killed:
            complaints.append(f"rank {rank.rank} was to be killed, and ended by itself")
    if late:
        names = ", ".join(str(rank.rank) for rank in late)
        complaints.append(f"possible deadlock: rank(s) {names} not done after {deadline} s")
        complaints.extend(stacks)
    if complaints:
        raise RankFailure("\n\n".join(complaints))
    return [rank.outcome[1] for rank in running if rank.outcome is not None]


def _bench_body(
    ctx: Context, op: str, shapes: Sequence[tuple[int, ...]], options: dict[str, Any], store: str
) -> list[Row]:
    """A rank of `benchmark`: its rows."""
    if options["peer"] is None:
        return [ctx.bench(op, shape, **options) for shape in shapes]
    import torch.distributed as dist

    backend = "gloo" if ctx.backend == "cpu" else "nccl"
    dist.init_process_group(backend, f"file://{store}", rank=ctx.rank, world_size=ctx.world_size)
    try:
        options["process_group"] = dist.group.WORLD
        return [ctx.bench(op, shape, **options) for shape in shapes]
    finally:
        dist.destroy_process_group()


def benchmark(
    op: str,
    shapes: Sequence[int | Sequence[int]],
    *,
    ranks: int = 2,
    dtype: Any = "float32",
    peer: str | None = None,
    backend: str | None = None,
    timeout: float = 30.0,
    repeats: int = 5,
    seconds: float = 0.02,
    deadline: float = 600.0,
) -> list[Row]:
    """Time an operation of several shapes on new processes, one for each rank.

    Parameters
    ----------
    op, dtype, peer, repeats, seconds
        Those of `Context.bench`; torch.distributed is initialised for `peer`.
    shapes : sequence
        Shapes as `Context.bench` takes them.
    ranks : int
    backend : str or None
        'cpu', 'cuda' or 'hip'. None: what is there.
    timeout : float
        As in `iris_c.init`.
    deadline : float
        Seconds after which ranks that are not done are killed.

    Returns
    -------
    list of iris_c.comparison.Row
        For each shape; ``print(iris_c.comparison.table(rows))`` prints them.

    Raises
    ------
    ValueError
        What is asked for cannot be timed.
    RankFailure
        A rank raised, died or missed the deadline.
    """
    from iris_c import comparison

    given = [(shape,) if isinstance(shape, int) else tuple(shape) for shape in shapes]
    dtype = str(dtype).rpartition(".")[2]
    for shape in given:
        comparison.check_case(op, shape, dtype, ranks)
    if not given:
        return []
    options = {"dtype": dtype, "peer": peer, "repeats": repeats, "seconds": seconds}
    init = {"heap_size": comparison.heap_size_of(given, ranks), "timeout": timeout}
    environment = {} if backend is None else {"IRIS_C_BACKEND": backend}
    with tempfile.TemporaryDirectory(prefix="iris_c-bench-") as directory:
        store = os.path.join(directory, "store")
        rows: list[Row] = run_ranks(
            _bench_body, ranks, op, given, options, store, init=init, deadline=deadline,
            environment=environment,
        )[0]  # fmt: skip
        return rows


def _run_in_this_process(
    body: Callable[..., Any], world_size: int, args: Sequence[Any], init: _Init
) -> None:
    import pytest

    import iris_c

    if int(os.environ["WORLD_SIZE"]) != world_size:
        pytest.skip(f"for {world_size} ranks; torchrun started {os.environ['WORLD_SIZE']}")
    with iris_c.init(**init) as ctx:
        use_device(ctx)
        body(ctx, *args)


def ranks(
    *world_sizes: int, deadline: float = 60.0, heap_size: int = 64 << 20, timeout: float = 20.0
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Make a pytest test of ``body(ctx, ...)`` that runs once for each world size.

    The body's other arguments come from pytest's parametrisation; they must pickle.

    Parameters
    ----------
    *world_sizes : int
    deadline : float
        Seconds after which ranks that are not done are killed, and the test fails.
    heap_size, timeout
        As in `iris_c.init`.
    """
    import pytest

    init = {"heap_size": heap_size, "timeout": timeout}

    def decorate(body: Callable[..., Any]) -> Callable[..., None]:
        names = list(inspect.signature(body).parameters)[1:]

        @functools.wraps(body)
        def test(world_size: int, **parameters: Any) -> None:
            args = tuple(parameters[name] for name in names)
            if os.environ.get("IRIS_C_TEST_TORCHRUN") == "1":
                _run_in_this_process(body, world_size, args, init)
                return
            run_ranks(
                (body.__module__, body.__name__), world_size, *args, init=init, deadline=deadline
            )

        signature = inspect.Signature(
            [
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
                for name in ["world_size", *names]
            ]
        )
        vars(test).update(rank_body=body, __signature__=signature)
        parametrized: Callable[..., None] = pytest.mark.parametrize(
            "world_size", world_sizes, ids="world{}".format
        )(test)
        return parametrized

    return decorate
