# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Times of calls in a CUDA graph, one body at a time; harness.py alternates several."""

import statistics

import torch
import torch.distributed as dist

CALLS, REPLAYS = 20, 15


def captured(body):
    """A graph of CALLS calls of the body."""
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            body()
    torch.cuda.synchronize()
    dist.barrier()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            body()
    return graph


def microseconds(ctx, graph) -> float:
    """Of one of the graph's bodies on this rank: the median of replays that all ranks begin
    together."""
    times = []
    for _ in range(REPLAYS):
        torch.cuda.synchronize()
        dist.barrier()
        ctx.device_barrier()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / CALLS)
    return statistics.median(times)
