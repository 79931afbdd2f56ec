# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Ctrl-C while the host waits for an emulated GPU, whose kernel waits for a peer."""

import ctypes
import os
import signal
import threading
import time

import pytest

import iris_c
import iris_c.environment
from iris_c.testing import run_ranks

# The emulator is slow, and so may be the machine.
LIMIT = 20.0


def interrupted(call):
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call()
    assert 0.9 < time.monotonic() - start < LIMIT


def wait_for_nobody(library, kernels, name):
    ctypes.CDLL(library)
    iris_c.environment.KERNEL_DIRECTORY = kernels
    with iris_c.init(heap_size=8 << 20, timeout=100) as ctx:
        assert ctx.backend == "hip"
        word = ctx.allocate(1, "int32")
        word.copy_from_host(bytes(4))
        calls = {
            "barrier": ctx.barrier,  # waits for its stream
            "allocate": lambda: ctx.allocate(1),  # for the whole device
            "copy_to_host": lambda: word.copy_to_host(bytearray(4)),
            "close": ctx.close,
        }
        ctx.barrier()
        start = time.monotonic()
        if ctx.rank == 0:
            ran = []
            signal.signal(signal.SIGALRM, lambda *_: ran.append(1))
            signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
            ctx.wait(word, 1)
            interrupted(calls[name])
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert len(ran) >= 2  # a handler that returns lets the wait go on
            ctx.close()
            assert ctx.closed
        else:
            with pytest.raises(iris_c.PeerError, match="rank 0 was interrupted"):
                ctx.barrier()
        assert time.monotonic() - start < LIMIT


@pytest.mark.parametrize("name", ["barrier", "allocate", "copy_to_host", "close"])
def test_the_host_waits_for_a_gpu_no_longer(emulated, name):
    gpus = emulated("gfx942")
    run_ranks(
        wait_for_nobody, 2, gpus.library, str(gpus.kernels), name,
        environment={**os.environ, **gpus.environment}, deadline=120,
    )  # fmt: skip
