# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The fused products beside torch.mm and torch.distributed's collective.

python benchmarks/bench_matmul.py                                 # matmul_all_reduce
python benchmarks/bench_matmul.py --op matmul_reduce_scatter      # or matmul_all_gather,
                    # all_gather_matmul, all_gather_matmul_hbm_buffer, the same with :1 (along K)
python benchmarks/bench_matmul.py --shape 512 4096 2048 --variant all --ranks 4
python benchmarks/bench_matmul.py --gemm                          # our product alone, one rank
python benchmarks/bench_matmul.py --layers --ranks 4 --dtype bfloat16                 # GPUs
python benchmarks/bench_matmul.py --dtype float8_e4m3fn --scales row    # or tensor, block
torchrun --nproc-per-node 2 benchmarks/bench_matmul.py

In float8 it is beside torch's in bfloat16, of the same values: scales are powers of two. "block" is
1 x 128 of A and 128 x 128 of B.

On GPUs torch's symmetric-memory operation for the same stands at the end of a row.

With --gemm the operation runs in a world of one: the time is of the whole call, the store of C
included, beside torch.mm.
"""

import os
import sys

import harness
import peers
import torch

import iris_c

# Tensor-parallel layers on GPUs: M, N and the K of all ranks together.
LAYERS = [
    (1024, 3584, 8192),
    (4096, 4096, 4096),
    (4096, 11008, 4096),
    (4096, 14336, 4096),
    (8192, 8192, 8192),
    (8192, 8192, 28672),
    (16384, 3584, 8192),
]
# Whole products, with --gemm on GPUs.
PRODUCTS = [
    (4096, 4096, 4096),
    (8192, 8192, 8192),
    (4096, 4096, 1024),
    (4096, 14336, 1024),
    (8192, 8192, 2048),
    (8192, 8192, 7168),
]
# What a GPU can send at best, in bytes a second: an H200's copy engine.
WIRE = 390e9
# The cpu: communication-bound, then arithmetic-bound; K is a rank's share.
SHAPES = [
    (2048, 2048, 64),
    (2048, 2048, 128),
    (2048, 2048, 1024),
    (512, 4096, 2048),
]
VARIANTS = ("two_shot", "one_shot", "ring", "atomic", "spinlock")
FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
# Relative to the largest element of the result: fp32 accumulation, one rounding per partial sum
# and one of the result, whose unit roundoff is 2**-24, 2**-11, 2**-8; four times as much at most.
BOUND = {torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


class AllReduce:
    """matmul_all_reduce and what it is compared with."""

    name = "matmul_all_reduce"
    crossings = 2  # how often a rank's part of the result crosses its links
    whole_K = False  # a layer's K is not divided among the ranks
    joins = False  # it joins its operand: a layer's N is divided, and there are no variants

    def __init__(self, ranks, A, B, dtype, config):
        self.take(ranks, A, B, config)
        self.workspace = iris_c.FusedWorkspace(ranks.ctx, self.name)
        self.out = torch.empty(A.shape[0], B.shape[1], dtype=dtype, device=A.device)
        self.C = ranks.ctx.empty(A.shape[0], B.shape[1], dtype=dtype)

    def take(self, ranks, A, B, config):
        """This rank's operands, which our operation multiplies as they are until `quantize`."""
        self.ctx, self.A, self.B, self.config = ranks.ctx, A, B, config
        self.operands, self.scales = (A, B), {}

    def quantize(self, dtype, kind):
        """Have our operation multiply float8; the values become those that float8 has."""
        a, scale_a = quantized(self.A, dtype, kind, 1)
        b, scale_b = quantized(self.B.t(), dtype, kind, 128)
        self.operands, self.scales = (a, b.t()), {"scale_a": scale_a, "scale_b": scale_b.t()}

    def run(self):
        self.ctx.ops.matmul_all_reduce(
            self.C, *self.operands, config=self.config, workspace=self.workspace, **self.scales
        )

    def peer(self):
        peers.matmul_all_reduce(self.out, self.A, self.B)

    def partial(self):
        return self.A.double() @ self.B.double()

    def others(self):
        symmetric = peers.symmetric_matmul_all_reduce(self.A, self.B)
        return {} if symmetric is None else {"mm+symm_mem": symmetric}

    def of_sum(self, total):
        return total

    def sent(self, M, N, K):
        """Elements that cross the links, but for a rank's own part of them."""
        return self.crossings * M * N


class ReduceScatter(AllReduce):
    """matmul_reduce_scatter by rows."""

    name = "matmul_reduce_scatter"
    crossings = 1

    def __init__(self, ranks, A, B, dtype, config):
        super().__init__(ranks, A, B, dtype, config)
        rows = A.shape[0] // ranks.ctx.world_size
        self.share = torch.empty(rows, B.shape[1], dtype=dtype, device=A.device)
        self.C = torch.empty_like(self.share)

    def run(self):
        self.ctx.ops.matmul_reduce_scatter(
            self.C, *self.operands, config=self.config, workspace=self.workspace, **self.scales
        )

    def peer(self):
        peers.matmul_reduce_scatter(self.share, self.out, self.A, self.B)

    def others(self):
        symmetric = peers.symmetric_matmul_reduce_scatter(self.A, self.B)
        return {} if symmetric is None else {"fused symm_mem": symmetric}

    def of_sum(self, total):
        return total.chunk(self.ctx.world_size)[self.ctx.rank]


class AllGather(AllReduce):
    """matmul_all_gather: M is the rows of all ranks together, K is whole."""

    name = "matmul_all_gather"
    crossings = 1
    whole_K = True

    def __init__(self, ranks, A, B, dtype, config):
        shard = A.chunk(ranks.ctx.world_size)[ranks.ctx.rank].clone()
        self.take(ranks, shard, B, config)
        self.workspace = iris_c.FusedWorkspace(ranks.ctx, self.name)
        rows = self.A.shape[0]
        self.share = torch.empty(rows, B.shape[1], dtype=dtype, device=A.device)
        self.out = torch.empty(A.shape[0], B.shape[1], dtype=dtype, device=A.device)
        self.C = ranks.ctx.empty(A.shape[0], B.shape[1], dtype=dtype)

    def run(self):
        self.ctx.ops.matmul_all_gather(
            self.C, *self.operands, config=self.config, workspace=self.workspace, **self.scales
        )

    def peer(self):
        peers.matmul_all_gather(self.out, self.share, self.A, self.B)

    def others(self):
        return {}

    def partial(self):
        """What, added over the ranks, is the result: this rank's rows among zeros."""
        partial = torch.zeros(self.out.shape, dtype=torch.float64, device=self.A.device)
        rows = partial.chunk(self.ctx.world_size)[self.ctx.rank]
        rows.copy_(self.A.double() @ self.B.double())
        return partial


class AllGatherMatmul(AllReduce):
    """all_gather_matmul along M: M and K are the joined operand's, N is this rank's."""

    name = "all_gather_matmul"
    crossings = 1
    whole_K = joins = True
    dim = 0

    def __init__(self, ranks, A, B, dtype, config):
        world, rank = ranks.ctx.world_size, ranks.ctx.rank
        self.take(ranks, A.chunk(world, self.dim)[rank].clone(), B, config)
        self.workspace = iris_c.FusedWorkspace(ranks.ctx, self.name)
        self.out = torch.empty(A.shape[0], B.shape[1], dtype=dtype, device=A.device)
        self.C = torch.empty_like(self.out)
        self.joined = torch.empty_like(A)

    def run(self):
        getattr(self.ctx.ops, self.name)(
            self.C, *self.operands, gather_dim=self.dim, config=self.config,
            workspace=self.workspace, **self.scales,
        )  # fmt: skip

    def peer(self):
        peers.all_gather_matmul(self.out, self.joined, self.A, self.B, self.dim)

    def others(self):
        symmetric = peers.symmetric_all_gather_matmul(self.A, self.B, self.dim)
        return {} if symmetric is None else {"fused symm_mem": symmetric}

    def partial(self):
        """What, added over the ranks, is the joined operand: this rank's shard among zeros."""
        partial = torch.zeros(self.joined.shape, dtype=torch.float64, device=self.A.device)
        partial.chunk(self.ctx.world_size, self.dim)[self.ctx.rank].copy_(self.A)
        return partial

    def of_sum(self, total):
        return total @ self.B.double()

    def sent(self, M, N, K):
        return M * K


class AllGatherMatmulHbmBuffer(AllGatherMatmul):
    """The same with transfer and product at once."""

    name = "all_gather_matmul_hbm_buffer"


class JoinedColumns(AllGatherMatmulHbmBuffer):
    """The same along K."""

    dim = 1


OPERATIONS = {
    operation.name: operation
    for operation in (
        AllReduce,
        ReduceScatter,
        AllGather,
        AllGatherMatmul,
        AllGatherMatmulHbmBuffer,
    )
}
OPERATIONS["all_gather_matmul_hbm_buffer:1"] = JoinedColumns  # gather_dim=1


def quantized(wide, dtype, kind, rows):
    """A matrix in float8 and its scales; `wide` gets their product's values, which it has exactly.
    Blocks have so many rows."""
    M, K = wide.shape
    size = {"tensor": (M, K), "row": (1, K), "block": (rows, 128)}[kind]
    padded = torch.nn.functional.pad(wide.float(), (0, -K % size[1], 0, -M % size[0]))
    blocks = padded.unflatten(1, (-1, size[1])).unflatten(0, (-1, size[0]))
    most = blocks.abs().amax((1, 3), keepdim=True).clamp_min(1e-30)
    scale = torch.exp2((most / torch.finfo(dtype).max).log2().ceil())
    narrow = (blocks / scale).to(dtype)
    wide.copy_((narrow.float() * scale).flatten(2, 3).flatten(0, 1)[:M, :K])
    # The bytes are moved, since torch does not move float8 everywhere.
    bytes_ = narrow.view(torch.uint8).flatten(2, 3).flatten(0, 1)[:M, :K].contiguous()
    return bytes_.view(dtype), scale[:, 0, :, 0].contiguous()


def measure(ranks: harness.Ranks, operation, shape, given, scales, variant) -> harness.Row:
    M, N, K = shape
    ctx, device = ranks.ctx, ranks.device
    dtype = torch.bfloat16 if given.itemsize == 1 else given
    A = torch.randn(M, K, device=device).to(dtype)
    B = torch.randn(K, N, device=device).to(dtype)
    kind = OPERATIONS[operation]
    variant = None if kind.joins else variant
    config = iris_c.FusedConfig(all_reduce_variant=variant, **ranks.config)
    case = kind(ranks, A, B, dtype, config)
    if given is not dtype:
        case.quantize(given, scales)
    flop = 2 * (M if kind.joins else case.A.shape[0]) * N * K
    others = case.others()
    if others:
        others = {"mm": lambda: torch.mm(A, B, out=case.out), **others}
    row = harness.Row(
        operation if ctx.world_size > 1 else "product alone",
        f"{M}x{N}x{K}",
        str(given).removeprefix("torch.") + (f" {scales}" if given is not dtype else ""),
        variant or " ".join(f"{name}={value}" for name, value in ranks.config.items()),
        flop,
        float("inf"),
        BOUND[dtype],
        peers.product_name(device),
        work=flop,
    )
    ranks.time(
        row,
        case.partial(),
        case.C,
        case.run,
        case.peer,
        others=others,
        of_sum=case.of_sum,
    )
    if "mm" in row.others:
        sent = (ctx.world_size - 1) / ctx.world_size * case.sent(M, N, K)
        sent *= (given if kind.joins else dtype).itemsize
        row.limit = max(row.others["mm"].median, sent / WIRE)
    return row


def setting(text: str) -> tuple[str, int | str]:
    """'name=value', of a field of FusedConfig."""
    name, _, value = text.partition("=")
    return name, int(value) if value.isdigit() else value


def body(ranks, options):
    return ranks.each(options.cases, measure)


def main() -> int:
    arguments = harness.parser(__doc__.splitlines()[0])
    arguments.add_argument("--op", choices=OPERATIONS, default=AllReduce.name)
    arguments.add_argument("--shape", type=int, nargs=3, metavar=("M", "N", "K"), action="append")
    arguments.add_argument("--dtype", choices=(*harness.DTYPES, *FLOAT8), default="float32")
    arguments.add_argument(
        "--scales", choices=("tensor", "row", "block"), default="row", help="of float8 operands"
    )
    arguments.add_argument("--variant", choices=(*VARIANTS, "all"), default="two_shot")
    arguments.add_argument(
        "--config", type=setting, nargs="*", default=[], metavar="FIELD=VALUE", help="FusedConfig's"
    )
    arguments.add_argument("--gemm", action="store_true", help="one rank against torch.mm")
    arguments.add_argument(
        "--layers", action="store_true", help="GPUs: the shapes of tensor-parallel layers"
    )
    arguments.add_argument(
        "--products", action="store_true", help="GPUs, with --gemm: large products"
    )
    options = arguments.parse_args()
    variants = VARIANTS if options.variant == "all" else (options.variant,)
    dtype = getattr(torch, options.dtype)
    options.ranks = 1 if options.gemm else options.ranks
    shapes = [tuple(shape) for shape in options.shape or SHAPES]
    if options.layers:
        ranks = int(os.environ.get("WORLD_SIZE", options.ranks))
        kind = OPERATIONS[options.op]
        shapes = [
            (M, N // (ranks if kind.joins else 1), K if kind.whole_K else K // ranks)
            for M, N, K in LAYERS
        ]
    elif options.products:
        shapes = PRODUCTS
    options.cases = [
        (options.op, shape, dtype, options.scales, variant)
        for shape in shapes
        for variant in variants
    ]
    return harness.run(body, options)


if __name__ == "__main__":
    sys.exit(main())
