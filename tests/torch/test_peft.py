# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""LoRA of PEFT on the layers: results, gradients and a step are the whole model's."""

import copy

import pytest
import torch
from process_groups import distributed, starts_ranks
from torch import nn

import iris_c.torch
from iris_c.testing import preload, run_ranks
from iris_c.torch import ColumnParallelLinear, RowParallelLinear

pytest.importorskip("peft", reason="PEFT is not installed")
preload("peft", "iris_c.torch")
pytestmark = starts_ranks
WIDTH = 8


class Block(nn.Module):
    def __init__(self, up, down):
        super().__init__()
        self.up, self.down = up, down

    def forward(self, x):
        return self.down(nn.functional.gelu(self.up(x)))


def models(hidden):
    torch.manual_seed(3)
    whole = Block(nn.Linear(WIDTH, hidden), nn.Linear(hidden, WIDTH))
    return whole, Block(
        ColumnParallelLinear.from_linear(whole.up), RowParallelLinear.from_linear(whole.down)
    )


def full(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def close(got, expected):
    torch.testing.assert_close(full(got).detach(), expected.detach(), rtol=1e-4, atol=1e-5)


@distributed
def _trains(rank):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["up", "down"], init_lora_weights=False)
    with iris_c.torch.init(heap_size=16 << 20):
        for hidden in (12, 13):
            adapted = []
            for model in models(hidden):
                torch.manual_seed(7)
                adapted.append(get_peft_model(model, copy.deepcopy(config)))
            torch.manual_seed(0)
            x = torch.randn(6, WIDTH)
            for model in adapted:
                model(x).square().sum().backward()
                trained = [p for p in model.parameters() if p.requires_grad]
                assert len(trained) == 4
                torch.optim.SGD(trained, lr=0.1).step()
            for got, expected in zip(*(m.parameters() for m in adapted[::-1]), strict=True):
                close(got, expected)
                assert (got.grad is None) == (expected.grad is None)
                if expected.grad is not None:
                    close(got.grad, expected.grad)
            close(adapted[1](x), adapted[0](x))
        for options, whole in (
            ({"gather_output": True}, True),
            ({"sequence_parallel": True}, False),
        ):
            layer = ColumnParallelLinear(WIDTH, 12, **options)
            adapted = get_peft_model(nn.Sequential(layer), LoraConfig(target_modules=["0"]))
            if whole:  # what is beside it has the whole output, as it has
                assert adapted(x).shape == (6, 12)
            else:
                with pytest.raises(RuntimeError, match="must match"):
                    adapted(x)


def test_lora_is_the_whole_models(tmp_path):
    run_ranks(_trains, 2, str(tmp_path / "store"), deadline=240)
