# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""How an operation is to run: tile sizes, work-group counts, algorithm.

A config is a frozen value. A field that is None is chosen by the runtime, for the shape, dtype,
device and world size of each call. The extension reads a config object once and remembers it by
identity, so reuse the object in a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from iris_c import _C

__all__ = ["Config", "FusedConfig"]


def _check_positive(name: str, value: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int or None, got {type(value).__name__}")
    if value <= 0:
        raise ValueError(f"{name}: expected > 0 or None, got {value}")


@dataclass(frozen=True)
class FusedConfig:
    """Configuration of a fused operation.

    Parameters
    ----------
    block_size_m, block_size_n, block_size_k : int or None
        The tile of C that a work-group computes, and its step in K.
    group_size_m : int or None
        Rows of tiles that are computed together for the sake of the cache.
    num_sms : int or None
        Work-groups; on the cpu, threads.
    num_xcds : int or None
        XCDs of an AMD GPU; each gets neighbouring tiles, which share operands in its L2.
    all_reduce_variant : str or None
        'atomic', 'spinlock', 'one_shot', 'two_shot' or 'ring'; None chooses.
    num_fetch_sms : int or None
        Of a gathered operand: work-groups that do nothing but send; on sm_90a, in 16 bits, where
        each has warps for it, those that send at all: if there are as many without a tile to
        multiply, these, with all their warps.
    k_per_flag : int or None
        Of a gathered operand: steps of block_size_k in the pieces that it is sent in.
    staged_a_layout : str or None
        'k_contiguous', which None means, or 'm_contiguous': how a gathered operand lies in the
        receiver's buffers; best as it lies in the sender's memory.
    overlap : bool or None
        Of all_gather_matmul_hbm_buffer: whether what has arrived is multiplied while the rest is
        under way; False: the product begins when everything is there.
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

    def validate(self, world_size: int | None = None) -> None:
        """Raise ValueError, naming field and value, if no operation could run like this.

        Without `world_size`, what depends on it is not checked.
        """
        _C._config_validate(self._as_tuple(), world_size or 0)

    def _as_tuple(self) -> tuple:
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
        'one_shot_legacy'; None chooses.
    """

    block_size_m: int | None = None
    block_size_n: int | None = None
    comm_sms: int | None = None
    num_xcds: int | None = None
    all_reduce_variant: str | None = None

    def validate(self, world_size: int | None = None) -> None:
        """Raise ValueError, naming field and value, if no collective could run like this."""
        _C._config_validate(self._as_tuple(), world_size or 0)

    def _as_tuple(self) -> tuple:
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
        )
