# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch's own backends, for what this one does not do: on the cpu gloo, on GPUs NCCL or RCCL.

Each use is named by the logger "iris_c" at the level DEBUG.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

__all__ = ["Fallback", "logger"]

logger = logging.getLogger("iris_c")


class Fallback:
    """The backends of torch for the ranks of one process group.

    Gloo is set up at once, without waiting for anybody: connections are made when two ranks first
    talk, which messages between two ranks need.
    """

    def __init__(self, store: Store, rank: int, size: int, timeout: timedelta) -> None:
        self._store, self._rank, self._size, self._timeout = store, rank, size, timeout
        self._groups: dict[str, dist.ProcessGroup] = {}
        self._why_no_gloo: Exception | None = None
        try:
            self._groups["gloo"] = self._gloo()
        except Exception as error:  # no address of this host, say: only its use is an error
            self._why_no_gloo = error

    def group(self, backend: str, what: str, why: str) -> dist.ProcessGroup:
        """torch's process group of that backend.

        Parameters
        ----------
        backend : str
            "gloo" or "nccl"; another one that torch knows is an error.
        what, why : str
            For the log: the operation, and why it is not done here.
        """
        logger.debug("%s: by %s, %s", what, backend, why)
        if backend not in self._groups:
            if backend == "nccl":
                self._groups[backend] = self._nccl()
            elif backend == "gloo":
                raise RuntimeError(f"{what}: needs gloo, {why}") from self._why_no_gloo
            else:
                raise RuntimeError(
                    f"{what}: {why}; expected 'gloo' or 'nccl' beside 'iris', got {backend!r}"
                )
        return self._groups[backend]

    def _wrapped(self, device: str, backend: Any, kind: Any) -> dist.ProcessGroup:
        group = dist.ProcessGroup(self._store, self._rank, self._size)
        group._set_default_backend(kind)
        for each in (
            (device, "cpu", "cuda") if kind == dist.ProcessGroup.BackendType.GLOO else (device,)
        ):
            group._register_backend(torch.device(each), kind, backend)
        return group

    def _gloo(self) -> dist.ProcessGroup:
        gloo: Any = dist.ProcessGroupGloo
        options = gloo._Options()
        options._devices = [gloo.create_default_device(lazy_init=True)]
        options._timeout = self._timeout
        store = PrefixStore("gloo/", self._store)
        backend = gloo(store, self._rank, self._size, options)
        return self._wrapped("cpu", backend, dist.ProcessGroup.BackendType.GLOO)

    def _nccl(self) -> dist.ProcessGroup:
        if not dist.is_nccl_available():
            raise RuntimeError("nccl: this build of torch has none")
        nccl: Any = dist.ProcessGroupNCCL
        options = nccl.Options()
        options._timeout = self._timeout
        store = PrefixStore("nccl/", self._store)
        backend = nccl(store, self._rank, self._size, options)
        return self._wrapped("cuda", backend, dist.ProcessGroup.BackendType.NCCL)

    def shutdown(self) -> None:
        for group in self._groups.values():
            group.shutdown()
        self._groups.clear()

    def abort(self) -> None:
        for group in self._groups.values():
            group.abort()
        self._groups.clear()
