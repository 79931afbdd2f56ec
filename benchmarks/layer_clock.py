# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Times runs in turns, briefly: a row of bench_layers.py must take a tenth of a second.

A sample is a sequence of calls, eager or a replay of the graph that captured them, which all ranks
begin together; it lasts as long as the slowest rank's. All work is on one stream, and all graphs
share a pool of memory.
"""

from __future__ import annotations

import contextlib
import time

import harness
import torch
import torch.distributed as dist


class Clock:
    def __init__(self, ctx):
        self.ctx, self.device = ctx, torch.device(ctx.device)
        self.on_gpu = self.device.type != "cpu"
        self.stream = torch.cuda.Stream(self.device) if self.on_gpu else None
        self._pool = self._keeper = None

    def on_stream(self):
        """All work of the benchmark is done within this."""
        return torch.cuda.stream(self.stream) if self.on_gpu else contextlib.nullcontext()

    def agreed(self, values: list[float]) -> list[float]:
        """The largest of all ranks' values, each."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def sequence(self, run, mode: str, calls: int):
        """A function that makes `calls` calls, with a weight each, and returns the results of the
        last, whose weight is the first."""
        if mode == "eager":

            def repeat():
                for number in reversed(range(calls)):
                    results = run(number)
                return results

            return repeat
        graph, results = self._captured(run, calls)

        def replay():
            graph.replay()
            return results

        return replay

    def _captured(self, run, calls: int):
        if self._pool is None:
            # The pool lasts as long as a graph of it does.
            self._pool = torch.cuda.graph_pool_handle()
            self._keeper = self._graph(lambda _: torch.zeros(1, device=self.device), 1)
        return self._graph(run, calls)

    def _graph(self, run, calls: int):
        """As torch.cuda.graph, without its emptying of caches."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            for number in reversed(range(calls)):
                results = run(number)
        finally:
            graph.capture_end()
        return graph, results

    def samples(self, sequences: dict, calls: int, rounds: int, mode: str) -> dict:
        """Seconds of a call: name -> harness.Timing, the same on all ranks."""
        taken = {name: [] for name in sequences}
        names = list(sequences)
        for i in range(rounds + 1):  # the first is not counted: graphs are loaded by it
            for name in names if i % 2 == 0 else reversed(names):
                self.ctx.barrier()
                seconds = self._seconds(sequences[name], mode)
                if i > 0:
                    taken[name].append(seconds / calls)
        flat = self.agreed([seconds for name in names for seconds in taken[name]])
        return {
            name: harness.Timing.of(flat[i * rounds : (i + 1) * rounds])
            for i, name in enumerate(names)
        }

    def _seconds(self, sequence, mode: str) -> float:
        if not self.on_gpu:
            start = time.perf_counter()
            sequence()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if mode == "graph":  # until all hosts have queued the graph; eager calls show the host
            torch.cuda._sleep(harness.HEAD_START)
        self.ctx.device_barrier()
        begin.record()
        sequence()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3
