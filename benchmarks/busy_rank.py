# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""One rank of bench_busy.py: makes the calls that it is told to, and says how long they took.

python busy_rank.py iris_c|mpich ADDRESS

It connects to the Unix socket at ADDRESS and sends its rank. A command is a line of JSON with the
fields of ``Command``, the answer the seconds that the calls took here. Between commands a rank is
blocked in a read and takes no time from anybody. Of the two libraries only the one that is measured
is imported, so that MPICH may live in an environment of its own.
"""

import contextlib
import json
import os
import socket
import sys
import time


def be_nice() -> None:
    """Takes the niceness that bench_busy.py was given: this process, and its process session, among
    which Linux may share cores."""
    nice = int(os.environ.get("BENCH_BUSY_NICE", "0"))
    if nice == 0:
        return
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as autogroup:
        autogroup.write(str(nice))


class IrisRank:
    """The calls on the cpu backend; outputs lie on the heap."""

    def __init__(self):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        import torch

        import iris_c

        torch.set_num_threads(1)
        self.torch = torch
        self.ctx = iris_c.init(heap_size=64 << 20, backend="cpu")
        self.rank, self.world = self.ctx.rank, self.ctx.world_size
        self.kept = {}

    def call(self, name: str, size: int):
        """The call as a function, checked; `size` is in bytes, of a product its M = N = K."""
        if (name, size) not in self.kept:
            self.kept[name, size] = getattr(self, name)(size)
        return self.kept[name, size]

    def _tensors(self, n: int, outputs: int):
        given = self.torch.full((n,), float(self.rank + 1))
        return given, self.ctx.zeros(outputs, dtype=self.torch.float32)

    def all_reduce(self, nbytes: int):
        given, output = self._tensors(nbytes // 4, nbytes // 4)
        run = lambda: self.ctx.ccl.all_reduce(output, given)  # noqa: E731
        run()
        assert (output == self.world * (self.world + 1) / 2).all()
        return run

    def all_gather(self, nbytes: int):
        given, output = self._tensors(nbytes // 4, self.world * nbytes // 4)
        output = output.view(self.world, -1)
        run = lambda: self.ctx.ccl.all_gather(output, given.view(1, -1))  # noqa: E731
        run()
        assert (output[:, 0] == self.torch.arange(1.0, self.world + 1)).all()
        return run

    def broadcast(self, nbytes: int):
        given, output = self._tensors(nbytes // 4, nbytes // 4)
        output.copy_(given)
        run = lambda: self.ctx.ccl.broadcast(output, 0)  # noqa: E731
        run()
        assert (output == 1).all()
        return run

    def barrier(self, _size: int):
        return self.ctx.device_barrier

    def host_barrier(self, _size: int):
        return self.ctx.barrier

    def matmul_all_reduce(self, size: int):
        A = self.torch.ones(size, size)
        C = self.ctx.zeros(size, size, dtype=self.torch.float32)
        run = lambda: self.ctx.ops.matmul_all_reduce(C, A, A)  # noqa: E731
        run()
        assert (C == self.world * size).all()
        return run

    def close(self):
        self.ctx.close()


class MpichRank:
    """The same calls by mpi4py, on buffers of NumPy."""

    def __init__(self):
        import numpy
        from mpi4py import MPI

        self.numpy, self.comm = numpy, MPI.COMM_WORLD
        self.rank, self.world = self.comm.rank, self.comm.size

    def call(self, name: str, size: int):
        comm = self.comm
        given = self.numpy.full(max(size // 4, 1), self.rank + 1, self.numpy.float32)
        output = self.numpy.zeros((self.world, given.size), self.numpy.float32)
        return {
            "all_reduce": lambda: comm.Allreduce(given, output[0]),
            "all_gather": lambda: comm.Allgather(given, output),
            "broadcast": lambda: comm.Bcast(given, 0),
            "barrier": comm.Barrier,
            "host_barrier": comm.Barrier,
        }[name]

    def close(self):
        pass


WARM_UP = 3


def seconds(run, calls: int) -> float:
    for _ in range(WARM_UP):
        run()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


def main() -> None:
    library, address = sys.argv[1:]
    be_nice()
    with socket.socket(socket.AF_UNIX) as parent:
        parent.connect(address)
        rank = {"iris_c": IrisRank, "mpich": MpichRank}[library]()
        lines = parent.makefile("rw")
        print(rank.rank, file=lines, flush=True)
        for line in lines:
            name, size, calls = json.loads(line)
            print(seconds(rank.call(name, size), calls), file=lines, flush=True)
        rank.close()


if __name__ == "__main__":
    main()
