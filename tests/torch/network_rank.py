# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A rank of test_network.py: `network_rank.py NODE PLACE ADDRESS HEAP`, on a node of its own."""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist

import iris_c.torch

NODES, PLACES, DYING_NODE = 2, 2, 1


def say(text):
    """In one piece: the node's ranks share what they write to."""
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


def check(nodes):
    rank, world = nodes.rank, nodes.world_size
    generator = torch.Generator().manual_seed(7)
    A, B = (torch.randn(s, generator=generator) for s in ((8, 12), (12, 4)))
    own = A.chunk(world, 1)[rank], B.chunk(world, 0)[rank]
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(iris_c.torch.matmul_all_reduce(*own), A @ B, **close)
    share = iris_c.torch.matmul_reduce_scatter(*own)
    torch.testing.assert_close(share, (A @ B).chunk(world)[rank], **close)
    shard = A.chunk(world)[rank]
    product, joined = iris_c.torch.all_gather_matmul(shard, B)
    torch.testing.assert_close(product, A @ B, **close)
    assert torch.equal(joined, A)
    torch.testing.assert_close(iris_c.torch.matmul_all_gather(shard, B), A @ B, **close)


def main():
    node, place, address, heap = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    dist.init_process_group(
        "gloo", f"tcp://{address}:29500", rank=node * PLACES + place, world_size=NODES * PLACES
    )
    nodes = iris_c.torch.init(heap_size=heap, timeout=20)
    assert (len(nodes.members), nodes.ctx.world_size) == (NODES, PLACES)
    for _ in range(3):
        check(nodes)
    nodes.barrier()
    say("right")
    if node == DYING_NODE:
        os.kill(os.getpid(), signal.SIGKILL)
    started = time.monotonic()
    try:
        while time.monotonic() - started < 30:
            check(nodes)
    except (RuntimeError, iris_c.PeerError) as error:
        say(f"error after {time.monotonic() - started:.1f} s: {error}")
    os._exit(0)  # without its peers torch.distributed does not end in order


main()
