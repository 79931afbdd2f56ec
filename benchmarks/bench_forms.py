# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The forms of the fused products side by side, beside torch.mm and NCCL, for growing M, on GPUs.

torchrun --nproc-per-node 4 benchmarks/bench_forms.py --op matmul_all_reduce --N 8192 --K 28672

N and K are the whole layer's: of sums K is divided among the ranks, of what is gathered N. Times
are medians in microseconds of graphs of several calls, of the slowest rank, with all ranks begun
together; "chosen" is what a call without a config takes, after a check against NCCL's result.
"""

import argparse
import os

import torch
import torch.distributed as dist
from calibrate import FORMS, OPERATIONS, SUMS, Timer, tensors

import iris_c


def by_nccl(op, output, A, B):
    """A call of torch.mm and torch.distributed that does the same."""
    world = dist.get_world_size()
    if op == "matmul_all_reduce":

        def call():
            torch.mm(A, B, out=output)
            dist.all_reduce(output)

    elif op == "matmul_reduce_scatter":
        product = torch.empty(A.shape[0], B.shape[1], device=A.device, dtype=A.dtype)

        def call():
            torch.mm(A, B, out=product)
            dist.reduce_scatter_tensor(output, product)

    elif op == "matmul_all_gather":
        own = torch.empty(A.shape[0], B.shape[1], device=A.device, dtype=A.dtype)

        def call():
            torch.mm(A, B, out=own)
            dist.all_gather_into_tensor(output, own)

    else:
        whole = torch.empty(A.shape[0] * world, A.shape[1], device=A.device, dtype=A.dtype)

        def call():
            dist.all_gather_into_tensor(whole, A)
            torch.mm(whole, B, out=output)

    return call


def row(timer, op, M, N, K):
    """The time of each form that the call has, of NCCL, and the form that is chosen."""
    ctx = timer.ctx
    output, (A, B) = tensors(ctx, timer.device, op, M, N, K)
    expected = torch.empty_like(output)
    nccl = by_nccl(op, expected, A, B)
    nccl()
    chosen = ctx.ops.select_config(M, N, K, torch.bfloat16, operation=op).form
    calls, names, workspaces = [nccl], ["mm + NCCL"], []
    for form in (None, *FORMS):
        config = None if form is None else iris_c.FusedConfig(form=form)
        workspace = iris_c.FusedWorkspace(ctx, op)

        def call(config=config, workspace=workspace):
            getattr(ctx.ops, op)(output, A, B, config=config, workspace=workspace)

        try:
            output.fill_(float("nan"))
            call()
        except ValueError:  # on all ranks: the call has no such form
            continue
        torch.testing.assert_close(output, expected, rtol=3e-2, atol=3e-2, msg=f"{op} {form}")
        calls.append(call)
        names.append(form or "chosen")
        workspaces.append(workspace)
    times = dict(zip(names, timer.microseconds(calls), strict=True))
    for workspace in workspaces:
        workspace.clear()
    return times, chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--op", nargs="+", default=list(OPERATIONS), choices=OPERATIONS)
    parser.add_argument("--M", nargs="+", type=int, default=[4, 16, 64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--N", type=int, default=8192)
    parser.add_argument("--K", type=int, default=28672)
    options = parser.parse_args()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    with iris_c.init(heap_size=8 << 30) as ctx:
        torch.manual_seed(ctx.rank)
        timer = Timer(ctx, device)
        for op in options.op:
            if ctx.rank == 0:
                print(f"{op}, N={options.N}, K={options.K}, {ctx.world_size} ranks, bfloat16")
                print(f"{'M':>6} {'mm + NCCL':>10} {'tiles':>8} {'plain':>8} {'decode':>8} "
                      f"{'chosen':>8}", flush=True)  # fmt: skip
            for M in options.M:
                divided = options.N if op in SUMS else options.N // ctx.world_size
                inner = options.K // ctx.world_size if op in SUMS else options.K
                times, chosen = row(timer, op, M, divided, inner)
                if ctx.rank == 0:
                    cells = [f"{times[n]:8.1f}" if n in times else f"{'':8}" for n in
                             ("tiles", "plain", "decode", "chosen")]  # fmt: skip
                    print(f"{M:6} {times['mm + NCCL']:10.1f} {' '.join(cells)} {chosen}",
                          flush=True)  # fmt: skip
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
