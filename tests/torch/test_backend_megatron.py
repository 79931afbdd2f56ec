# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Megatron-core's own tensor-parallel layers on the torch.distributed backend, beside the same
layers in one process."""

import functools
import warnings
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from descriptors import ON_GPU
from process_groups import distributed, starts_ranks

import iris_c.torch.backend  # noqa: F401 - it is the backend's registration
from iris_c.testing import run_ranks

pytest.importorskip("megatron.core", reason="of requirements-dev.txt")
pytestmark = starts_ranks
close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
PARALLEL = 2  # ranks of a model


def drawn(seed, *shape):
    return torch.randn(
        *shape, generator=torch.Generator(torch.get_default_device()).manual_seed(seed)
    )


@distributed(backend="iris", timeout=timedelta(seconds=30))
def _layers(rank):
    warnings.simplefilter("ignore")  # Transformer Engine and Apex are not there
    from megatron.core import ModelParallelConfig, parallel_state, tensor_parallel

    if not ON_GPU:
        torch.cuda.current_device = lambda: "cpu"  # it makes its buffers there
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=PARALLEL)
    part = parallel_state.get_tensor_model_parallel_rank()
    x, target = drawn(1, 4, 2, 8), torch.arange(8).view(4, 2)

    def whole(parameter):
        parts = [torch.empty_like(parameter) for _ in range(PARALLEL)]
        group = parallel_state.get_tensor_model_parallel_group()
        dist.all_gather(parts, parameter.detach().contiguous(), group)
        return parts

    for sequence_parallel in (False, True):
        config = ModelParallelConfig(
            tensor_model_parallel_size=PARALLEL,
            sequence_parallel=sequence_parallel,
            use_cpu_initialization=True,
            params_dtype=torch.float32,
        )
        options = {"config": config, "init_method": torch.nn.init.xavier_normal_}
        torch.manual_seed(0)
        up = tensor_parallel.ColumnParallelLinear(8, 16, gather_output=False, **options)
        down = tensor_parallel.RowParallelLinear(
            16, 8, bias=True, input_is_parallel=True, skip_bias_add=False, **options
        )
        given = (x.chunk(PARALLEL)[part] if sequence_parallel else x).clone().requires_grad_()
        result = down(torch.relu(up(given)[0]))[0]
        result.sin().sum().backward()
        weights = [
            torch.cat(whole(up.weight)).requires_grad_(),
            torch.cat(whole(down.weight), 1).requires_grad_(),
        ]
        alone = x.clone().requires_grad_()
        expected = torch.relu(alone @ weights[0].t()) @ weights[1].t()
        expected.sin().sum().backward()
        mine = (lambda t: t.chunk(PARALLEL)[part]) if sequence_parallel else (lambda t: t)
        close(result, mine(expected))
        close(given.grad, mine(alone.grad))
        close(up.weight.grad, weights[0].grad.chunk(PARALLEL)[part])
        close(down.weight.grad, weights[1].grad.chunk(PARALLEL, 1)[part])
    table = tensor_parallel.VocabParallelEmbedding(12, 8, **options_without_sequence(options))
    logits = torch.cat(whole(table.weight))
    close(table(target), logits[target])
    own = drawn(3, 4, 2, 12).chunk(PARALLEL, -1)[part].clone().requires_grad_()
    loss = tensor_parallel.vocab_parallel_cross_entropy(own.clone(), target)
    expected = torch.nn.functional.cross_entropy(
        drawn(3, 4, 2, 12).view(-1, 12), target.view(-1), reduction="none"
    )
    close(loss.view(-1), expected)
    loss.sum().backward()
    assert own.grad.shape == (4, 2, 6)
    parallel_state.destroy_model_parallel()


def options_without_sequence(options):
    options["config"].sequence_parallel = False
    return options


@pytest.mark.parametrize("world_size", [2, 4])
def test_layers(world_size, tmp_path):
    run_ranks((__name__, "_layers"), world_size, str(tmp_path / "store"), deadline=120)
