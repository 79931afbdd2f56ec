# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Survivors on GPUs that launch asynchronously: kernels that wait for the dead end first."""

import contextlib
import time

import machine
import pytest
import torch
from test_amd_collectives import Exchange

import iris_c


def survivors(ctx, memory):
    """Rank 1 closes its context while the others' kernels wait for it; then they go on."""
    exchange, team = Exchange(ctx, memory), ctx.group(range(3))
    kept = team.allocate(4, "float32")
    kept.copy_from_host(torch.full((4,), 5.0 + ctx.rank).numpy())
    given = exchange.tensor(64, torch.float32, False).fill_(float(ctx.rank))
    got = exchange.tensor(3 * 64, torch.float32, False)

    def call(group):
        output = got[: 64 * group.world_size]
        group.ccl.all_gather(memory.passed(output), memory.passed(given))

    def end(group):
        got.fill_(-1.0)
        call(group)
        assert memory.library.hipDeviceSynchronize() == 0
        for place, rank in enumerate(group.ranks):
            assert got[64 * place : 64 * place + 64].tolist() == [float(rank)] * 64
        group.barrier()

    end(team)
    if ctx.rank == 1:
        team.close()
        return
    start = time.monotonic()
    with contextlib.suppress(iris_c.PeerError):  # queued, unless the loss is known already
        call(team)
    with team.survivors() as left:
        assert time.monotonic() - start < 30  # the timeout alone would take 60 s
        assert left.ranks == (0, 2)
        end(left)
        host = torch.zeros(4)
        kept.copy_to_host(host.numpy())
        assert host.tolist() == [5.0 + ctx.rank] * 4


@pytest.mark.parametrize("arch", machine.ARCHES[:1])
def test_survivors_go_on(emulated, arch):
    emulated(arch).run(survivors, 3)
