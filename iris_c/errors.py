# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The exceptions that iris_c raises besides ValueError, TypeError, MemoryError and RuntimeError."""

from iris_c._C import BackendError, HeapExhausted, PeerError, SignalTimeout

__all__ = ["BackendError", "HeapExhausted", "PeerError", "SignalTimeout"]
