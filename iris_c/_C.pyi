# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Types of the extension module."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, final

from iris_c.ccl import Recv, Send
from iris_c.config import Config, FusedConfig
from iris_c.typing import DType, Reduction, Tensor

MAX_RANKS: int

class _Config(Protocol):
    def _as_tuple(self) -> tuple[Any, ...]: ...

class HeapExhausted(MemoryError):
    asked: int | None
    free: int | None
    heap_size: int | None
    needed: int | None

class PeerError(RuntimeError):
    rank: int | None
    call: int | None

class SignalTimeout(TimeoutError):
    rank: int | None
    tile: int | None
    call: int | None
    wanted: int | None
    seen: int | None

class BackendError(RuntimeError): ...

@final
class Buffer:
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def offset(self) -> int: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...  # a PyCapsule
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def copy_from_host(self, source: Any, /) -> None: ...
    def copy_to_host(self, target: Any, /) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

@final
class FusedWorkspace:
    def __new__(cls, ctx: Context, operation: str = "matmul_all_reduce") -> Self: ...
    @property
    def operation(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def world_size(self) -> int: ...
    @property
    def variant(self) -> str: ...
    @property
    def call_counter(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def prepared(self) -> bool: ...
    def matches(
        self,
        operation: str,
        shape: Sequence[int],
        dtype: DType,
        world_size: int,
        variant: str = "",
    ) -> bool: ...
    def reset(self) -> None: ...
    def clear(self) -> None: ...
    def _set_calls(self, calls: int, /) -> None: ...

class Context:
    def __new__(
        cls,
        *,
        heap_size: int = 1073741824,
        local_size: int = 0,
        backend: str | None = None,
        rank: int = 0,
        world_size: int = 1,
        local_rank: int = 0,
        timeout: float = 30.0,
        run_key: str = "",
        num_threads: int = 0,
        debug: bool = False,
        kernel_directory: str = "",
        ranks: Sequence[int] | None = None,
        parent: Context | None = None,
    ) -> Self: ...
    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def backend(self) -> str: ...
    @property
    def device_id(self) -> int: ...
    @property
    def heap_size(self) -> int: ...
    @property
    def heap_used(self) -> int: ...
    @property
    def memory_kind(self) -> str: ...
    @property
    def local_size(self) -> int: ...
    @property
    def local_used(self) -> int: ...
    @property
    def _local_room(self) -> int: ...
    @property
    def ranks(self) -> tuple[int, ...]: ...
    @property
    def closed(self) -> bool: ...
    def get_rank(self) -> int: ...
    def get_num_ranks(self) -> int: ...
    def get_cu_count(self) -> int: ...
    def _heap_bases(self) -> tuple[int, ...]: ...
    @property
    def _run_key(self) -> str: ...
    def survivors(self, timeout: float | None = None) -> Self: ...
    def barrier(self, stream: Any = None) -> None: ...
    def device_barrier(self, stream: Any = None) -> None: ...
    def _exchange(self, value: int, /) -> tuple[int, ...]: ...
    def _broadcast(self, data: bytes | None, nbytes: int, src: int, /) -> bytes: ...
    def is_symmetric(self, tensor: Any, /) -> bool: ...
    def is_reachable(self, tensor: Any, /) -> bool: ...
    def allocate(self, shape: int | Sequence[int], dtype: Any = "uint8") -> Buffer: ...
    def _pool(self) -> int: ...
    def _capture(self) -> int: ...
    def _watch_capture(self) -> Callable[[], bool]: ...
    def allocate_local(
        self, shape: int | Sequence[int], dtype: Any = "uint8", stream: Any = None
    ) -> Buffer: ...
    def put(self, dst: Any, src: Any, peer: int, stream: Any = None) -> None: ...
    def get(self, dst: Any, src: Any, peer: int, stream: Any = None) -> None: ...
    def signal(
        self, word: Any, peer: int, value: int = 1, op: str = "set", stream: Any = None
    ) -> None: ...
    def wait(
        self,
        word: Any,
        value: int = 1,
        compare: str = "ge",
        consume: bool = False,
        stream: Any = None,
    ) -> None: ...
    def _select_config(
        self, operation: str, M: int, N: int, K: int, dtype: DType, fields: tuple[Any, ...], /
    ) -> tuple[Any, ...]: ...
    def _trace(self) -> tuple[bytes, int, int, int, int]: ...
    def _trace_clear(self) -> None: ...
    def _require_open(self) -> None: ...
    def _close_now(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...

def backends() -> list[str]: ...
def cpu_isa() -> str: ...
def _devices(
    backend: str, /
) -> tuple[str, list[tuple[str, str, str, int, tuple[bool, ...]]]] | None: ...
def _kernel(
    run: Callable[..., Any], otherwise: Callable[..., Any], keys: int, /
) -> Callable[..., Any]: ...
def _config_validate(fields: tuple[Any, ...], world_size: int, /) -> None: ...
def _set_batch_invariant(invariant: bool, /) -> bool: ...
def _set_prefetch_b(prefetch: bool, /) -> bool: ...
def _log_choices(on: bool, /) -> None: ...
def _explain(
    op: str,
    M: int,
    N: int,
    K: int,
    dtype: DType,
    world_size: int,
    arch: str,
    fields: tuple[Any, ...],
    /,
) -> list[tuple[str, int, list[tuple[int | str, float, dict[str, float]]]]]: ...
def _auto_config(
    op: str, M: int, N: int, K: int, dtype: DType, world_size: int, arch: str, /
) -> tuple[Any, ...]: ...

# ---- functions of csrc/python/ops.def, written by build_stubs.py ----
def matmul_all_reduce(
    ctx: Context,
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
    ctx: Context,
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
    ctx: Context,
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
    ctx: Context,
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
    ctx: Context,
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
    ctx: Context,
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
    ctx: Context,
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
    ctx: Context,
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
    ctx: Context,
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
    ctx: Context,
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
def all_reduce(
    ctx: Context,
    output: Tensor,
    input: Tensor,
    op: Reduction = "sum",
    async_op: bool = False,
    config: Config | None = None,
    workspace: FusedWorkspace | None = None,
    group: Sequence[int] | None = None,
) -> FusedWorkspace: ...
def all_reduce_preamble(
    ctx: Context,
    output: Tensor,
    input: Tensor,
    config: Config | None = None,
    workspace: FusedWorkspace | None = None,
    group: Sequence[int] | None = None,
) -> FusedWorkspace: ...
def all_reduce_rmsnorm(
    ctx: Context,
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
    ctx: Context,
    output: Tensor,
    input: Tensor,
    op: Reduction = "sum",
    async_op: bool = False,
    config: Config | None = None,
    workspace: FusedWorkspace | None = None,
    group: Sequence[int] | None = None,
) -> FusedWorkspace: ...
def all_gather(
    ctx: Context,
    output: Tensor,
    input: Tensor,
    async_op: bool = False,
    config: Config | None = None,
    workspace: FusedWorkspace | None = None,
    group: Sequence[int] | None = None,
) -> FusedWorkspace: ...
def all_to_all(
    ctx: Context,
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
    ctx: Context,
    tensor: Tensor,
    src: int = 0,
    async_op: bool = False,
    config: Config | None = None,
    workspace: FusedWorkspace | None = None,
    group: Sequence[int] | None = None,
) -> FusedWorkspace: ...
def reduce(
    ctx: Context,
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
    ctx: Context,
    output: Tensor | None,
    input: Tensor,
    dst: int = 0,
    async_op: bool = False,
    config: Config | None = None,
    workspace: FusedWorkspace | None = None,
    group: Sequence[int] | None = None,
) -> FusedWorkspace: ...
def scatter(
    ctx: Context,
    output: Tensor,
    input: Tensor | None,
    src: int = 0,
    async_op: bool = False,
    config: Config | None = None,
    workspace: FusedWorkspace | None = None,
    group: Sequence[int] | None = None,
) -> FusedWorkspace: ...
def send(ctx: Context, tensor: Tensor, dst: int, group: Sequence[int] | None = None) -> None: ...
def recv(ctx: Context, tensor: Tensor, src: int, group: Sequence[int] | None = None) -> None: ...
def sendrecv(
    ctx: Context,
    recv_tensor: Tensor,
    send_tensor: Tensor,
    dst: int,
    src: int,
    group: Sequence[int] | None = None,
) -> None: ...
def batch(
    ctx: Context, messages: Sequence[Send | Recv], group: Sequence[int] | None = None
) -> None: ...
