# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Every rank of these tests wants what takes seconds to import."""

from iris_c.testing import preload

preload("torch._dynamo", "iris_c.torch")
