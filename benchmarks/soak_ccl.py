# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Very many calls of ccl.all_reduce, every element of every one checked on the device.

python benchmarks/soak_ccl.py --ranks 2 --number 2000
torchrun --nproc-per-node 4 benchmarks/soak_ccl.py --number 100000

Sizes, variants, dtypes, reductions, workspaces and, on GPUs, graph replays are drawn alike on all
ranks. Inputs are windows of a table of small integers, so that every rank knows every result
exactly, whatever order it was added in.
"""

import random
import sys

import harness
import torch

import iris_c

VARIANTS = (None, "ll", "ll_two_shot", "one_shot", "two_shot", "ring", "atomic", "spinlock")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64)
OPS = ("sum", "max", "min", "prod", "avg")
TABLE = 1 << 20
CHECK_EVERY = 500


class Tables:
    """What each rank puts in, and what comes out."""

    def __init__(self, ranks):
        world, device = ranks.ctx.world_size, ranks.device
        generator = torch.Generator().manual_seed(1)
        drawn = torch.randint(-4, 5, (world, 2 * TABLE), generator=generator).to(device)
        self.mine = {dtype: drawn[ranks.ctx.rank].to(dtype) for dtype in DTYPES}
        total = drawn.sum(0)
        exact = {"sum": total, "max": drawn.amax(0), "min": drawn.amin(0), "prod": drawn.prod(0)}
        self.expected = {(op, dtype): exact[op].to(dtype) for op in exact for dtype in DTYPES}
        for dtype in DTYPES:
            quotient = (
                total.float() * (1.0 / world)
                if dtype.is_floating_point
                else torch.div(total, world, rounding_mode="trunc")
            )
            self.expected["avg", dtype] = quotient.to(dtype)


def draw_call(chance, largest):
    dtype, op, variant = chance.choice(DTYPES), chance.choice(OPS), chance.choice(VARIANTS)
    if variant in ("atomic", "spinlock"):
        dtype = chance.choice(DTYPES[:3])
        op = chance.choice(("sum", "avg"))
    n = int(2 ** chance.uniform(0, largest))
    return dtype, op, variant, n, chance.randrange(TABLE), chance.randrange(4)


class Soak:
    def __init__(self, ranks, options):
        self.ctx, self.tables = ranks.ctx, Tables(ranks)
        self.gpu = ranks.device.type != "cpu"
        self.wrong = torch.zeros((), dtype=torch.int64, device=ranks.device)
        self.outputs = {dtype: self.ctx.empty(2 * TABLE, dtype=dtype) for dtype in DTYPES}
        self.workspaces = [iris_c.FusedWorkspace(self.ctx, "all_reduce") for _ in range(3)]
        self.largest = options.largest

    def call(self, dtype, op, variant, n, begin, which):
        output = self.outputs[dtype][begin % 7 : begin % 7 + n]
        self.ctx.ccl.all_reduce(
            output,
            self.tables.mine[dtype][begin : begin + n],
            op=op,
            config=iris_c.ccl.Config(all_reduce_variant=variant),
            workspace=self.workspaces[which % 3],
        )
        self.wrong += (output != self.tables.expected[op, dtype][begin : begin + n]).sum()
        output.fill_(-77)

    def graph(self, chance):
        """A few calls, captured once their workspaces have room."""
        calls = [draw_call(chance, self.largest) for _ in range(4)]
        for call in calls:
            self.call(*call)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for call in calls:
                self.call(*call)
        return graph

    def run(self, chance, calls):
        done = replays = 0
        graphs = []
        while done < calls:
            if self.gpu and done % 5000 < 4 and len(graphs) < 12:
                graphs.append(self.graph(chance))
                done += 4
            elif graphs and chance.random() < 0.3:
                chance.choice(graphs).replay()
                replays += 1
                done += 4
            else:
                self.call(*draw_call(chance, self.largest))
                done += 1
            if done % CHECK_EVERY < 4 and int(self.wrong) != 0:
                raise AssertionError(f"{int(self.wrong)} elements are wrong by call {done}")
        self.ctx.barrier()
        assert int(self.wrong) == 0, f"{int(self.wrong)} elements are wrong"
        return done, replays


def body(ranks, options):
    chance = random.Random(options.seed)
    done, replays = Soak(ranks, options).run(chance, options.number)
    if ranks.ctx.rank == 0:
        print(
            f"{done} calls, {replays} replays of four each, seed {options.seed}: no wrong element"
        )
    return []


def main() -> int:
    arguments = harness.parser(__doc__.splitlines()[0])
    arguments.add_argument("--number", type=int, default=2000, help="of calls")
    arguments.add_argument("--largest", type=float, default=20, help="log2 of the elements")
    arguments.add_argument("--seed", type=int, default=1)
    return harness.run(body, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
