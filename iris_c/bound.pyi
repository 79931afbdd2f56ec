# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
# Written by build_stubs.py, of csrc/python/ops.def.
from collections.abc import Sequence

from iris_c._C import Context, FusedWorkspace
from iris_c.ccl import Recv, Send
from iris_c.config import Config, FusedConfig
from iris_c.typing import DType, Reduction, Tensor

class BoundOps:
    def __init__(self, ctx: Context) -> None: ...
    def matmul_all_reduce(
        ctx,
        C: Tensor,
        A: Tensor,
        B: Tensor,
        bias: Tensor | None = None,
        async_op: bool = False,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        trace: bool = False,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def matmul_all_reduce_preamble(
        ctx,
        C: Tensor,
        A: Tensor,
        B: Tensor,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        bias: Tensor | None = None,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def matmul_reduce_scatter(
        ctx,
        C: Tensor,
        A: Tensor,
        B: Tensor,
        bias: Tensor | None = None,
        dim: int = 0,
        async_op: bool = False,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        trace: bool = False,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def matmul_reduce_scatter_preamble(
        ctx,
        C: Tensor,
        A: Tensor,
        B: Tensor,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        bias: Tensor | None = None,
        dim: int = 0,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def matmul_all_gather(
        ctx,
        C: Tensor,
        A: Tensor,
        B: Tensor,
        bias: Tensor | None = None,
        async_op: bool = False,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        trace: bool = False,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def matmul_all_gather_preamble(
        ctx,
        C: Tensor,
        A: Tensor,
        B: Tensor,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        bias: Tensor | None = None,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def all_gather_matmul(
        ctx,
        C: Tensor,
        A_shard: Tensor,
        B: Tensor,
        bias: Tensor | None = None,
        gather_dim: int = 0,
        async_op: bool = False,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        A_gathered: Tensor | None = None,
        trace: bool = False,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def all_gather_matmul_preamble(
        ctx,
        C: Tensor,
        A_shard: Tensor,
        B: Tensor,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        gather_dim: int = 0,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def all_gather_matmul_hbm_buffer(
        ctx,
        C: Tensor,
        A_shard: Tensor,
        B: Tensor,
        bias: Tensor | None = None,
        gather_dim: int = 0,
        async_op: bool = False,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        A_gathered: Tensor | None = None,
        trace: bool = False,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def all_gather_matmul_hbm_buffer_preamble(
        ctx,
        C: Tensor,
        A_shard: Tensor,
        B: Tensor,
        config: FusedConfig | None = None,
        workspace: FusedWorkspace | None = None,
        *,
        gather_dim: int = 0,
        scale_a: Tensor | None = None,
        scale_b: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def select_config(
        ctx,
        M: int,
        N: int,
        K: int,
        dtype: DType,
        config: FusedConfig | None = None,
        operation: str = "matmul_all_reduce",
    ) -> FusedConfig: ...

class BoundCcl:
    def __init__(self, ctx: Context) -> None: ...
    def all_reduce(
        ctx,
        output: Tensor,
        input: Tensor,
        op: Reduction = "sum",
        async_op: bool = False,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        group: Sequence[int] | None = None,
    ) -> FusedWorkspace: ...
    def all_reduce_preamble(
        ctx,
        output: Tensor,
        input: Tensor,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        group: Sequence[int] | None = None,
    ) -> FusedWorkspace: ...
    def all_reduce_rmsnorm(
        ctx,
        output: Tensor,
        residual_out: Tensor,
        input: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        eps: float = 1e-06,
        async_op: bool = False,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        group: Sequence[int] | None = None,
        *,
        output_scale: Tensor | None = None,
    ) -> FusedWorkspace: ...
    def reduce_scatter(
        ctx,
        output: Tensor,
        input: Tensor,
        op: Reduction = "sum",
        async_op: bool = False,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        group: Sequence[int] | None = None,
    ) -> FusedWorkspace: ...
    def all_gather(
        ctx,
        output: Tensor,
        input: Tensor,
        async_op: bool = False,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        group: Sequence[int] | None = None,
    ) -> FusedWorkspace: ...
    def all_to_all(
        ctx,
        output: Tensor,
        input: Tensor,
        async_op: bool = False,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        output_split_sizes: Sequence[int] | None = None,
        input_split_sizes: Sequence[int] | None = None,
        group: Sequence[int] | None = None,
    ) -> FusedWorkspace: ...
    def broadcast(
        ctx,
        tensor: Tensor,
        src: int = 0,
        async_op: bool = False,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        group: Sequence[int] | None = None,
    ) -> FusedWorkspace: ...
    def reduce(
        ctx,
        output: Tensor | None,
        input: Tensor,
        dst: int = 0,
        op: Reduction = "sum",
        async_op: bool = False,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        group: Sequence[int] | None = None,
    ) -> FusedWorkspace: ...
    def gather(
        ctx,
        output: Tensor | None,
        input: Tensor,
        dst: int = 0,
        async_op: bool = False,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        group: Sequence[int] | None = None,
    ) -> FusedWorkspace: ...
    def scatter(
        ctx,
        output: Tensor,
        input: Tensor | None,
        src: int = 0,
        async_op: bool = False,
        config: Config | None = None,
        workspace: FusedWorkspace | None = None,
        group: Sequence[int] | None = None,
    ) -> FusedWorkspace: ...
    def send(ctx, tensor: Tensor, dst: int, group: Sequence[int] | None = None) -> None: ...
    def recv(ctx, tensor: Tensor, src: int, group: Sequence[int] | None = None) -> None: ...
    def sendrecv(
        ctx,
        recv_tensor: Tensor,
        send_tensor: Tensor,
        dst: int,
        src: int,
        group: Sequence[int] | None = None,
    ) -> None: ...
    def batch(ctx, messages: Sequence[Send | Recv], group: Sequence[int] | None = None) -> None: ...
    def barrier(ctx, stream: object = None, group: Sequence[int] | None = None) -> None: ...
