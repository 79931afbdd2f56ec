# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Measures the candidates among which a model chooses, side by side, on GPUs.

torchrun --nproc-per-node 2 benchmarks/calibrate.py --write tests/api/measured_choices.json

The figures of csrc/runtime/select/chips.c are fitted to these times by hand, and
tests/api/test_auto_config.py checks that choices are near the fastest. Times are medians
of graphs of several calls, of the slowest rank, with all ranks begun together. Results are compared
with the first candidate's before they are timed.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics

import torch
import torch.distributed as dist

import iris_c
from iris_c.ops import explain

SUMS = ("matmul_all_reduce", "matmul_reduce_scatter")
OPERATIONS = (*SUMS, "matmul_all_gather", "all_gather_matmul_hbm_buffer")
TILED = [
    (1024, 3584),
    (768, 4096),
    (1024, 2048),
    (2048, 2048),
    (512, 4096),
    (1536, 5120),
    (4096, 1792),
]
# Layers of models of 7 to 70 billion parameters on four GPUs: N and the whole K of sums, the K and
# the whole N of what is gathered.
LAYERS = [(4096, 4096), (4096, 14336), (8192, 8192), (8192, 28672), (5120, 27648)]
ROWS = (4, 16, 64, 128, 256, 512, 1024, 2048)
FORMS = ("tiles", "plain", "decode")
INNER = (512, 1024, 2048, 4096, 8192)
GATHERED = [(4096, 3584, 4096), (4096, 2752, 4096), (8192, 2048, 8192), (2048, 4096, 4096),
            (1024, 1792, 8192), (8192, 3584, 2048), (16384, 896, 8192)]  # fmt: skip
MESSAGES = [1 << k for k in range(10, 24)] + [3 << 19, 3 << 20]
VARIANTS = ("ll", "ll_two_shot", "two_shot")


class Timer:
    def __init__(self, ctx, device):
        self.ctx, self.device = ctx, device

    def _graph(self, call, calls):
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        dist.barrier()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for _ in range(calls):
                call()
        return graph

    def microseconds(self, candidates, calls=10, repeats=9):
        """Medians of the slowest rank, a candidate each; the candidates alternate."""
        graphs = [self._graph(call, calls) for call in candidates]
        times = [[] for _ in graphs]
        for repeat in range(repeats):
            order = list(range(len(graphs)))
            for k in order if repeat % 2 == 0 else reversed(order):
                torch.cuda.synchronize()
                dist.barrier()
                torch.cuda._sleep(300_000)
                self.ctx.device_barrier()
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                graphs[k].replay()
                end.record()
                end.synchronize()
                times[k].append(begin.elapsed_time(end) * 1e3 / calls)
        medians = torch.tensor([statistics.median(t) for t in times], device=self.device)
        dist.all_reduce(medians, op=dist.ReduceOp.MAX)
        return [round(x, 1) for x in medians.tolist()]


def measure(timer, op, output, arguments, field, configs):
    """A row's times: {value of the field: microseconds}."""
    ctx = timer.ctx
    function = getattr(ctx.ccl if op == "all_reduce" else ctx.ops, op)
    workspaces = [iris_c.FusedWorkspace(ctx, op) for _ in configs]

    def call(config, workspace):
        function(output, *arguments, config=config, workspace=workspace)

    expected = None
    for config, workspace in zip(configs.values(), workspaces, strict=True):
        output.fill_(float("nan"))
        call(config, workspace)
        expected = output.clone() if expected is None else expected
        torch.testing.assert_close(output, expected, rtol=2e-2, atol=2e-2)
    pairs = list(zip(configs.values(), workspaces, strict=True))
    times = timer.microseconds([lambda c=c, w=w: call(c, w) for c, w in pairs])
    for workspace in workspaces:
        workspace.clear()
    return dict(zip(map(str, configs), times, strict=True))


def forms(world):
    """The rows of the field "form"."""
    for op in OPERATIONS:
        for N, K in LAYERS:
            shape = (N, K // world) if op in SUMS else (K // world, N)
            for M in ROWS:
                few = M <= 256 and op in (*SUMS, "matmul_all_gather")
                values = FORMS if few else FORMS[:2]
                yield op, M, *shape, "form", {f: iris_c.FusedConfig(form=f) for f in values}


def shapes(world):
    """(op, M, N, K, field, configs) of every row."""
    for op in OPERATIONS:
        for M, N in TILED:
            for K in INNER:
                widths = {n: iris_c.FusedConfig(block_size_n=n) for n in (256, 128)}
                yield op, M, N, K, "block_size_n", widths
    yield from forms(world)
    for M, N, K in GATHERED:
        row = (OPERATIONS[-1], M, N, K, "bfloat16")
        (decision,) = (
            d
            for d in explain(*row, world, "sm_90a", iris_c.FusedConfig(form="tiles")).decisions
            if d.field == "num_fetch_sms"
        )
        values = sorted({c.value for c in decision.candidates} | {20, 33, 66, 99, 132})
        senders = {n: iris_c.FusedConfig(num_fetch_sms=n) for n in values}
        yield OPERATIONS[-1], M, N, K, "num_fetch_sms", senders
    for nbytes in sorted(MESSAGES):
        variants = {v: iris_c.ccl.Config(all_reduce_variant=v) for v in VARIANTS}
        yield "all_reduce", 1, nbytes // 2, 1, "all_reduce_variant", variants


def tensors(ctx, device, op, M, N, K):
    """The output and the inputs of a row, random and of unit scale."""

    def random(*shape):
        return torch.randn(*shape, device=device).to(torch.bfloat16)

    if op == "all_reduce":
        return ctx.empty(N, dtype=torch.bfloat16), (random(N),)
    rows = M // ctx.world_size if op == "matmul_reduce_scatter" else M
    own = M if op in SUMS else M // ctx.world_size
    B = random(K, N) / K**0.5
    return ctx.empty(rows, N, dtype=torch.bfloat16), (random(own, K), B)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--field", help="only the rows of this field, as form")
    parser.add_argument("--write", type=pathlib.Path, help="where the rows go, as JSON")
    options = parser.parse_args()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    rows = []
    with iris_c.init(heap_size=24 << 30) as ctx:
        torch.manual_seed(ctx.rank)
        timer = Timer(ctx, device)
        for op, M, N, K, field, configs in shapes(ctx.world_size):
            if options.field not in (None, field):
                continue
            output, inputs = tensors(ctx, device, op, M, N, K)
            row = {"op": op, "world_size": ctx.world_size, "M": M, "N": N, "K": K, "field": field}
            row["us"] = measure(timer, op, output, inputs, field, configs)
            rows.append(row)
            if ctx.rank == 0:
                print(json.dumps(row), flush=True)
        if ctx.rank == 0 and options.write:
            machine = f"{ctx.world_size} x {torch.cuda.get_device_name()}"
            head = {
                "what": "Microseconds of a call in a graph, by a config field's value; bfloat16",
                "command": f"torchrun --nproc-per-node {ctx.world_size} benchmarks/calibrate.py",
                "machine": f"{machine}, torch {torch.__version__}",
                "date": str(datetime.date.today()),
            }
            lines = ",\n".join("  " + json.dumps(row) for row in rows)
            text = json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n ]\n}}\n'
            options.write.write_text(text)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
