# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What the cost model says of the main loops stays as good as it is."""

import cost
import pytest
import torch

# MFMA's share of the loop's issue cycles.
LEAST = {
    ("gfx90a", torch.float32): 0.90,
    ("gfx90a", torch.float16): 0.85,
    ("gfx942", torch.float32): 0.90,
    ("gfx942", torch.float16): 0.75,
    ("gfx942", torch.bfloat16): 0.75,
    ("gfx950", torch.bfloat16): 0.60,
}


@pytest.mark.parametrize("transposed", [True, False], ids=["B(N,K)", "B(K,N)"])
@pytest.mark.parametrize(("arch", "dtype"), LEAST, ids=lambda x: str(x).removeprefix("torch."))
def test_matrix_unit_is_busy(emulated, tmp_path, arch, dtype, transposed):
    loop = cost.profile(emulated, arch, dtype, transposed, tmp_path)
    assert loop.matrix == (32 if dtype is torch.float32 else 8 if arch == "gfx950" else 16)
    assert loop.kinds["global"] == 4, "16-byte loads of a stage of A and of B by 256 threads"
    assert LEAST[arch, dtype] <= loop.utilisation < 1
    # The next stage is on its way for nearly all of this one.
    assert loop.load_distance > 0.7 * loop.matrix_cycles
