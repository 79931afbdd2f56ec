# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The training example, shortened: two ranks under torchrun learn what one process learns.

The gradients are compared too: each rank's are its slice of the unsharded model's.
"""

import importlib.util
import json
import pathlib
import sys

import pytest
from launching import TORCHRUN, has_devices, output_of

import iris_c
from iris_c.testing import run_ranks

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/train_tensor_parallel.py"
SMALL = ["--steps", "30", "--batch", "4", "--time", "32", "--width", "64", "--layers", "2"]


def losses_of(command, directory, *options):
    output_of([*command, str(EXAMPLE), *SMALL, *options, "--out", str(directory)])
    assert (directory / "loss.png").stat().st_size > 1000
    return json.loads((directory / "losses.json").read_text())


@pytest.mark.slow
def test_losses_do_not_depend_on_the_number_of_ranks(tmp_path):
    pytest.importorskip("matplotlib")
    single = losses_of([sys.executable], tmp_path / "single")
    double = losses_of([*TORCHRUN, "2"], tmp_path / "double")
    runs = [single, double]
    if has_devices(4):
        mesh = [*TORCHRUN, "4"]
        runs.append(losses_of(mesh, tmp_path / "mesh", "--tensor-parallel", "2"))
    assert all(len(losses) == 30 for losses in runs)
    assert single[-1] < 0.75 * single[0], "it does not learn"
    for step, (one, *others) in enumerate(zip(*runs, strict=True)):
        for other in others:
            assert abs(one - other) < 1e-3 * one, f"step {step}: {one} against {other}"


def gradients_of(example, ctx):
    """Named gradients of one step of a small model, the same weights in any world."""
    import torch

    torch.manual_seed(7)
    model = example.LanguageModel(ctx, width=32, heads=4, layers=2, time=16).to(ctx.device)
    batch = next(example.batches(example.standard_library_text(), 2, 16, seed=7))
    text, following = (part.to(ctx.device) for part in batch)
    example.F.cross_entropy(model(text), following).backward()
    return {name: parameter.grad.cpu() for name, parameter in model.named_parameters()}


def split_dimension(name):
    """Along which dimension a parameter is split among the ranks; None if it is replicated."""
    if any(part in name for part in ("query", "key", "value", "mlp_in")):
        return 0
    into = any(f"{part}.weight" in name for part in ("attention_out", "mlp_out"))
    return 1 if into else None


def compare_gradients():
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    with (
        iris_c.init(heap_size=1 << 24) as ctx,
        iris_c.init(heap_size=1 << 24, rank=0, world_size=1) as alone,
    ):
        sharded, whole = gradients_of(example, ctx), gradients_of(example, alone)
        rank, world_size = ctx.rank, ctx.world_size
    assert sharded.keys() == whole.keys()
    differences = {}
    for name, gradient in sharded.items():
        expected, dim = whole[name], split_dimension(name)
        if dim is not None:
            expected = expected.chunk(world_size, dim)[rank]
        assert gradient.shape == expected.shape, name
        differences[name] = float((gradient - expected).abs().max() / expected.abs().max())
    return differences


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_gradients_are_slices_of_the_unsharded_models(world_size):
    pytest.importorskip("tqdm")
    for rank, differences in enumerate(run_ranks(compare_gradients, world_size)):
        for name, difference in differences.items():
            assert difference < 1e-4, f"rank {rank}: {name}: {difference:.2g}"
