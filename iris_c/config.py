# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""How an operation runs: tile sizes, numbers of work-groups, algorithm.

A config is a frozen value. The runtime chooses what is None, for the shape, dtype, device and
world size of each call. The extension reads a config object once and remembers it by identity, so
a loop should pass the same object again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iris_c import _C

__all__ = ["Config", "FusedConfig", "set_batch_invariant", "set_prefetch_b"]


def _check_positive(name: str, value: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int or None, got {type(value).__name__}")
    if value <= 0:
        raise ValueError(f"{name}: expected > 0 or None, got {value}")


@dataclass(frozen=True)
class FusedConfig:
    """How a fused operation runs.

    A field that is None is chosen for the shape, dtype, device and world size of each call. All
    ranks pass the same values, but for `num_sms`.

    Parameters
    ----------
    block_size_m, block_size_n, block_size_k : int or None
        Rows and columns of C that a work-group computes at a time (a tile), and the columns of A
        that it multiplies in one step. On a GPU the tiles are built into the kernels: 128 x 128,
        on sm_90a in 16 bits also 128 x 256.
    group_size_m : int or None
        Rows of tiles that work-groups compute side by side, so that they share columns of B in
        the cache.
    num_sms : int or None
        Work-groups of the kernel; on the cpu, threads.
    num_xcds : int or None
        Chiplets of the GPU (XCDs of an MI300) over which tiles are spread.
    all_reduce_variant : str or None
        The algorithm of matmul_all_reduce: 'two_shot', 'one_shot', 'ring', 'atomic' or
        'spinlock'; None chooses. The other operations have 'two_shot' alone.
    num_fetch_sms : int or None
        Only all_gather_matmul_hbm_buffer. How many work-groups send this rank's shard to the
        peers. They multiply nothing. On sm_90a in 16 bits every work-group has warps for
        sending beside those that multiply, and this many work-groups use them; where as many
        work-groups have no tile to multiply, it is those. On the cpu every thread sends first and
        multiplies then.
    k_per_flag : int or None
        Only all_gather_matmul_hbm_buffer. A shard is sent in pieces of `k_per_flag` *
        `block_size_k` columns, each followed by a signal; small pieces let the receiver begin
        sooner, large ones need fewer signals.
    staged_a_layout : str or None
        Only all_gather_matmul_hbm_buffer. The order of elements in the receive buffers:
        'k_contiguous' (rows contiguous, the default) or 'm_contiguous' (columns contiguous). It
        is fastest where the shard lies in memory in the same order.
    overlap : bool or None
        Only all_gather_matmul_hbm_buffer. True: a rank multiplies the pieces that have arrived
        while others are on their way. False: it begins when all have arrived.
    form : str or None
        How the product is joined with what goes on between the ranks. 'tiles': one kernel, whose
        tiles travel as they are made. 'decode': one kernel for up to 256 rows of 16-bit elements,
        whose words travel as packets; beside it `all_reduce_variant` may be 'll' (one hop) or
        'll_two_shot', for matmul_all_reduce; None chooses. 'plain': a product and
        then a collective. None chooses; it chooses 'tiles' where another field asks for what
        only tiles have: a block size, `group_size_m`, an `all_reduce_variant` but 'two_shot', or
        one of the fields of all_gather_matmul_hbm_buffer. Beside another form such a field is
        an error.
    batch_invariant : bool or None
        True: a row of the result has the same bits whatever M is and whatever stands in the other
        rows: one form, 'tiles', of one width, with K in one order. None: what
        :func:`iris_c.set_batch_invariant` has been told.
    prefetch_b : bool or None
        True: B may be read before what comes in front of the call on its stream has ended, and
        none of that writes B. On sm_90a the form 'decode' then loads the first part of B while the
        kernel in front ends; elsewhere it changes nothing. None: what
        :func:`iris_c.set_prefetch_b` has been told.
    """

    block_size_m: int | None = None
    block_size_n: int | None = None
    block_size_k: int | None = None
    group_size_m: int | None = None
    num_sms: int | None = None
    num_xcds: int | None = None
    all_reduce_variant: str | None = "two_shot"
    num_fetch_sms: int | None = None
    k_per_flag: int | None = None
    staged_a_layout: str | None = None
    overlap: bool | None = None
    form: str | None = None
    batch_invariant: bool | None = None
    prefetch_b: bool | None = None

    def validate(self, world_size: int | None = None) -> None:
        """Raise ValueError, which names the field and its value, if no operation could run so.

        What depends on the number of ranks is only checked if `world_size` is given.
        """
        _C._config_validate(self._as_tuple(), world_size or 0)

    def _as_tuple(self) -> tuple[Any, ...]:
        """What the extension reads, in its order."""
        return (
            self.block_size_m,
            self.block_size_n,
            self.block_size_k,
            self.group_size_m,
            self.num_sms,
            self.num_xcds,
            self.num_fetch_sms,
            self.k_per_flag,
            self.all_reduce_variant,
            self.staged_a_layout,
            self.overlap,
            self.form,
            self.batch_invariant,
            self.prefetch_b,
        )


@dataclass(frozen=True)
class Config:
    """Configuration of a collective (``iris_c.ccl.Config``).

    Parameters
    ----------
    block_size_m, block_size_n : int or None
        The tile that a work-group reduces at a time.
    comm_sms : int or None
        Work-groups; on the cpu, threads.
    num_xcds : int or None
        XCDs of an AMD GPU; each gets neighbouring tiles, which share operands in its L2.
    all_reduce_variant : str or None
        'll', 'll_two_shot', 'one_shot', 'two_shot', 'ring', 'atomic', 'spinlock' or
        'one_shot_legacy'; None chooses. all_gather has 'll' (packets) and 'two_shot' (copies) of
        these, and chooses where another is given.
    """

    block_size_m: int | None = None
    block_size_n: int | None = None
    comm_sms: int | None = None
    num_xcds: int | None = None
    all_reduce_variant: str | None = None

    def validate(self, world_size: int | None = None) -> None:
        """Raise ValueError, which names the field and its value, if no collective could run so."""
        _C._config_validate(self._as_tuple(), world_size or 0)

    def _as_tuple(self) -> tuple[Any, ...]:
        _check_positive("comm_sms", self.comm_sms)  # which the extension calls num_sms
        return (
            self.block_size_m,
            self.block_size_n,
            None,
            None,
            self.comm_sms,
            self.num_xcds,
            None,
            None,
            self.all_reduce_variant,
            None,
            None,
            None,
            None,
            None,
        )


def set_batch_invariant(invariant: bool) -> bool:
    """Say what `batch_invariant` means where a FusedConfig, or no config, leaves it open.

    For all contexts of the process; equal on all ranks. The collectives of ``iris_c.ccl`` are so in
    any case, but for the variants 'atomic' and 'spinlock'.

    Parameters
    ----------
    invariant : bool

    Returns
    -------
    bool
        What it was before.
    """
    return _C._set_batch_invariant(invariant)


def set_prefetch_b(prefetch: bool) -> bool:
    """Say what `prefetch_b` means where a FusedConfig, or no config, leaves it open.

    For all contexts of the process. A program may say True as long as its weights are not written,
    as while it serves a model: the last kernel that wrote them has ended before the one in front
    of a call began. Ranks may differ.

    Parameters
    ----------
    prefetch : bool

    Returns
    -------
    bool
        What it was before.
    """
    return _C._set_prefetch_b(prefetch)
