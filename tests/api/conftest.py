# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The context of tests of one rank."""

import pytest

import iris_c


@pytest.fixture
def ctx():
    """A world of one rank."""
    context = iris_c.Context(
        heap_size=1 << 24, backend="cpu", num_threads=2, timeout=20.0, run_key="one rank"
    )
    yield context
    context.close()
