# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Fused operations: a matrix product and a collective in one launch.

Every function takes the context first; ``ctx.ops`` is this module bound to a context.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from iris_c import _C, _checks
from iris_c._C import (
    FusedWorkspace,
    _auto_config,
    _explain,
    all_gather_matmul,
    all_gather_matmul_hbm_buffer,
    all_gather_matmul_hbm_buffer_preamble,
    all_gather_matmul_preamble,
    matmul_all_gather,
    matmul_all_gather_preamble,
    matmul_all_reduce,
    matmul_all_reduce_preamble,
    matmul_reduce_scatter,
    matmul_reduce_scatter_preamble,
)
from iris_c.config import Config, FusedConfig
from iris_c.explanation import Explanation, from_extension
from iris_c.typing import DType

__all__ = [
    "FusedConfig",
    "FusedWorkspace",
    "all_gather_matmul",
    "all_gather_matmul_hbm_buffer",
    "all_gather_matmul_hbm_buffer_preamble",
    "all_gather_matmul_preamble",
    "auto_config",
    "explain",
    "matmul_all_gather",
    "matmul_all_gather_preamble",
    "matmul_all_reduce",
    "matmul_all_reduce_preamble",
    "matmul_reduce_scatter",
    "matmul_reduce_scatter_preamble",
    "select_config",
]


def select_config(
    ctx: _C.Context,
    M: int,
    N: int,
    K: int,
    dtype: DType,
    config: FusedConfig | None = None,
    operation: str = "matmul_all_reduce",
) -> FusedConfig:
    """Return the config with which a call of this shape would run on the context's device.

    Parameters
    ----------
    ctx : Context
    M, N, K : int
        Rows, columns and inner size of the product, as in the `shape` of a workspace.
    dtype : torch.dtype, numpy.dtype or str
        Of A, B and C.
    config : FusedConfig or None
        Its fields that are not None are kept.
    operation : str
        The name of a fused operation.

    Returns
    -------
    FusedConfig
    """
    config = FusedConfig() if config is None else config
    return _config_of(
        _checks.context("ctx", ctx)._select_config(operation, M, N, K, dtype, _fields(config))
    )


def auto_config(
    op: str, M: int, N: int, K: int, dtype: DType, world_size: int, arch: str
) -> FusedConfig:
    """Return the config that a call without one would have on a chip, present or not.

    It follows from a model of the chip and its links, see :func:`explain`. No device is looked at.

    Parameters
    ----------
    op : str
        The name of a fused operation.
    M, N, K : int
        Rows, columns and inner size of the product, as in the `shape` of a workspace: M is the
        whole number of rows where they are gathered or divided among the ranks; N and K are this
        rank's where B is.
    dtype : torch.dtype, numpy.dtype or str
    world_size : int
    arch : str
        'sm_90a', 'gfx90a', 'gfx942', 'gfx950' or 'cpu'.

    Returns
    -------
    FusedConfig
        Its `num_sms` is None: all that there are. If its `overlap` is False, gathering first and
        multiplying then is faster.
    """
    return replace(_config_of(_auto_config(op, M, N, K, dtype, world_size, arch)), num_sms=None)


def explain(
    op: str,
    M: int,
    N: int,
    K: int,
    dtype: DType,
    world_size: int,
    arch: str,
    config: FusedConfig | Config | None = None,
) -> Explanation:
    """Return what a call would choose among, the time a model gives each, and the choice.

    Parameters
    ----------
    op : str
        A fused product, 'all_reduce' or 'all_gather' (of N elements of each rank, with
        M = K = 1).
    M, N, K : int
        As for :func:`auto_config`.
    dtype : torch.dtype, numpy.dtype or str
    world_size : int
    arch : str
        'sm_90a', 'gfx90a', 'gfx942', 'gfx950' or 'cpu'.
    config : FusedConfig, iris_c.ccl.Config or None
        Fields that are given are not weighed.

    Returns
    -------
    Explanation
        ``print`` shows it; its ``decisions`` have the figures.
    """
    if config is None:
        config = FusedConfig() if op in FUSED else Config()
    return from_extension(_explain(op, M, N, K, dtype, world_size, arch, _fields(config)))


def _fields(config: Any) -> tuple[Any, ...]:
    if not isinstance(config, FusedConfig | Config):
        raise TypeError(
            "config: expected iris_c.FusedConfig, iris_c.ccl.Config or None, got "
            f"{type(config).__name__}"
        )
    return config._as_tuple()


# The operations that take a FusedConfig.
FUSED = (
    "matmul_all_reduce",
    "matmul_reduce_scatter",
    "matmul_all_gather",
    "all_gather_matmul",
    "all_gather_matmul_hbm_buffer",
)


def _config_of(fields: tuple[Any, ...]) -> FusedConfig:
    """What the extension has chosen, in the order of FusedConfig._as_tuple."""
    names = (
        "block_size_m",
        "block_size_n",
        "block_size_k",
        "group_size_m",
        "num_sms",
        "num_xcds",
        "num_fetch_sms",
        "k_per_flag",
    )
    chosen = {name: value or None for name, value in zip(names, fields, strict=False)}
    variant, layout, overlap, form, invariant, prefetch_b = fields[len(names) :]
    return FusedConfig(
        **chosen,
        all_reduce_variant=variant,
        staged_a_layout=layout,
        overlap=overlap,
        form=form,
        batch_invariant=invariant,
        prefetch_b=prefetch_b,
    )
