# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Symmetric heap and fused matrix-product collectives over the GPUs of one node.

>>> import iris_c
>>> ctx = iris_c.init(heap_size=1 << 28)
>>> C = ctx.zeros(128, 64)
>>> workspace = ctx.ops.matmul_all_reduce(C, A, B)  # doctest: +SKIP

Importing this package imports neither torch nor numpy; creating a tensor does.
"""

try:
    import iris_c._C  # noqa: F401
except ModuleNotFoundError as missing:
    if missing.name != "iris_c._C":
        raise
    raise ModuleNotFoundError(
        f"the extension iris_c._C is not beside {__file__}, which looks like the source folder: "
        "start Python in another folder to use the package that is installed, or build it here "
        "with pip install -e .",
        name="iris_c._C",
    ) from None

from iris_c import ccl, ops, tracing
from iris_c._C import Buffer
from iris_c.config import FusedConfig, set_batch_invariant, set_prefetch_b
from iris_c.context import Context, init
from iris_c.errors import BackendError, HeapExhausted, PeerError, SignalTimeout
from iris_c.ops import FusedWorkspace

__version__ = "0.1.0"

iris = init

__all__ = [
    "BackendError",
    "Buffer",
    "Context",
    "FusedConfig",
    "FusedWorkspace",
    "HeapExhausted",
    "PeerError",
    "SignalTimeout",
    "__version__",
    "ccl",
    "init",
    "iris",
    "ops",
    "set_batch_invariant",
    "set_prefetch_b",
    "tracing",
]
