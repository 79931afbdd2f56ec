# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Models of transformers with a tensor-parallel plan: logits, text, gradients, losses and saved
weights are those of one process, computed by fused products. The models are random and tiny."""

import os

import pytest
import torch
import torch.distributed as dist
from process_groups import distributed, starts_ranks
from torch.utils._python_dispatch import TorchDispatchMode

import iris_c.torch
from iris_c.testing import preload, run_ranks

pytest.importorskip("transformers", reason="transformers is not installed")
preload("transformers.trainer", "iris_c.torch.transformers")
pytestmark = starts_ranks
HEAP = 16 << 20
CLOSE = {"rtol": 1e-3, "atol": 1e-5}
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
# What a layer runs, without and with a gradient.
OPERATIONS = {
    "colwise": ("matmul_replicated", "matmul_replicated"),
    "colwise_gather_output": ("matmul_all_gather", "matmul_replicated"),
    "rowwise": ("matmul_all_reduce", "matmul_all_reduce"),
}


def save_models(folder):
    """One of each kind, in folders of their names."""
    import transformers
    from transformers import AutoModelForCausalLM

    for name, more in {
        "Llama": {"attention_bias": True, "mlp_bias": True},
        "Qwen2": {},
        "Qwen3": {"head_dim": 4, "tie_word_embeddings": True},
        "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    }.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**SIZES, **more)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.3)
        model.save_pretrained(f"{folder}/{name}")


def load(path, **options):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options).eval()


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class Seen(TorchDispatchMode):
    """Counts calls of an operation of iris_c."""

    def __init__(self, name):
        super().__init__()
        self.name, self.count = name, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is getattr(torch.ops.iris_c, self.name).default
        return func(*args, **(kwargs or {}))


def planned(model):
    """The linear layers that the model's plan divides, with their styles."""
    plan = {
        name: style
        for name, style in model._expand_parallel_plan(model.tp_plan).items()
        if isinstance(dict(model.named_modules()).get(name), torch.nn.Linear)
    }
    assert set(plan.values()) == OPERATIONS.keys()
    return plan


def check_calls(model, before, calls, gradient):
    """Each divided layer has run its operation that often since, and nothing else."""
    from iris_c.torch.transformers import calls as calls_of

    after = calls_of(model)
    assert after.keys() == planned(model).keys()
    for name, style in planned(model).items():
        ran = {k: n - before.get(name, {}).get(k, 0) for k, n in after[name].items()}
        ran = {k: n for k, n in ran.items() if n}
        assert ran == {OPERATIONS[style][gradient]: calls}, (name, ran)
    return after


def check_inference(model, reference, ids):
    """Logits, and greedy text with both kinds of cache."""
    with torch.no_grad(), Seen("matmul_all_reduce") as seen:
        logits = model(ids).logits
    assert seen.count == list(planned(model).values()).count("rowwise")
    torch.testing.assert_close(logits, reference(ids).logits.detach(), **CLOSE)
    ran = check_calls(model, {}, 1, gradient=False)
    for cache in ("dynamic", "static"):
        options = {"max_new_tokens": 6, "do_sample": False, "cache_implementation": cache}
        text = reference.generate(ids, **options)
        tied = model.config.tie_word_embeddings  # such a random model likes what it has said
        assert tied or len(set(text[0, ids.shape[1] :].tolist())) > 2, "always the same token"
        assert torch.equal(model.generate(ids, **options), text)
        ran = check_calls(model, ran, 6, gradient=False)


def check_gradients(model, reference, ids):
    from iris_c.torch.transformers import calls

    ran = calls(model)
    loss, expected = (m(ids, labels=ids).loss for m in (model, reference))
    torch.testing.assert_close(loss, expected, **CLOSE)
    loss.backward()
    expected.backward()
    for name, parameter in reference.named_parameters():
        grad = whole(model.get_parameter(name).grad)
        torch.testing.assert_close(grad, parameter.grad, **CLOSE, msg=name)
    check_calls(model, ran, 1, gradient=True)


def check_saved(model, reference, folder):
    """All ranks save; what is there is whole."""
    model.save_pretrained(folder)
    dist.barrier()
    saved = load(folder)
    for name, parameter in reference.named_parameters():
        assert torch.equal(saved.get_parameter(name), parameter), name


@distributed
def _models(rank, folder):
    import iris_c.torch.transformers as ours

    ids = torch.randint(
        2, 96, (2, 7), generator=torch.Generator(torch.get_default_device()).manual_seed(0)
    )
    with iris_c.torch.init(heap_size=HEAP) as ctx:
        styles = ours.enable()
        assert {*OPERATIONS, "colwise_rep", "rowwise_rep", "rowwise_split_input"} == {*styles}
        assert ours.enable() == styles
        for name in sorted(os.listdir(folder)):
            reference = load(f"{folder}/{name}")
            model = load(f"{folder}/{name}", tp_plan="auto")
            check_inference(model, reference, ids)
            check_gradients(model, reference, ids)
            check_saved(model, reference, f"{folder}/../saved {name}")
            if name == "Qwen2":
                compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
                with torch.no_grad():
                    expected = reference(ids).logits
                    torch.testing.assert_close(compiled(ids).logits, expected, **CLOSE)

        ours.disable()
        theirs = load(f"{folder}/{name}", tp_plan="auto")
        assert ours.calls(theirs) == {}
        assert ours.calls(model) != {}
        for own, their in zip(model.parameters(), theirs.parameters(), strict=True):
            assert getattr(own, "placements", None) == getattr(their, "placements", None)
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, theirs(ids).logits, **CLOSE)
        ctx.barrier()


@distributed
def _with_fsdp(rank, folder):
    """Two ranks for the plan, times two with other data, which transformers does by FSDP2."""
    from transformers.distributed import DistributedConfig

    import iris_c.torch.transformers as ours
    from iris_c.torch import _groups

    ours.enable()
    ids = torch.randint(
        2, 96, (4, 7), generator=torch.Generator(torch.get_default_device()).manual_seed(0)
    )
    reference = load(f"{folder}/Llama")
    model = load(f"{folder}/Llama", distributed_config=DistributedConfig(tp_size=2, fsdp_size=2))
    mesh = model._device_mesh["tp"]
    mine = ids.chunk(2)[rank // 2]
    model(mine, labels=mine).loss.backward()
    reference(ids, labels=ids).loss.backward()
    for name, parameter in reference.named_parameters():
        grad = whole(model.get_parameter(name).grad)
        torch.testing.assert_close(grad, parameter.grad, **CLOSE, msg=name)
    check_calls(model, {}, 1, gradient=True)
    ctx = _groups.context(_groups.name_of(mesh))  # which loading has made
    ctx.barrier()
    ctx.close()


def losses_of(model, folder):
    """Of ten steps of transformers' Trainer."""
    from transformers import Trainer, TrainingArguments

    rows = torch.randint(
        2, 96, (20, 9), generator=torch.Generator(torch.get_default_device()).manual_seed(0)
    )
    trainer = Trainer(
        model=model,
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        args=TrainingArguments(
            output_dir=folder,
            max_steps=10,
            per_device_train_batch_size=2,
            learning_rate=0.01,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=1,
        ),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def train_alone(folder):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        del os.environ[name]
    return losses_of(load(f"{folder}/Llama"), f"{folder}/../alone")


@distributed
def _train(rank, folder, expected):
    import accelerate

    import iris_c.torch.transformers as ours

    # accelerate lets only processes with accelerators have other than data parallelism; nothing
    # else in it, nor in the Trainer, asks for one.
    accelerate.ParallelismConfig._validate_accelerator = lambda *_: None
    with iris_c.torch.init(heap_size=HEAP) as ctx:
        ours.enable()
        model = load(f"{folder}/Llama", tp_plan="auto")
        losses = losses_of(model, f"{folder}/../trained")
        assert len(losses) == 10
        assert losses[-1] < losses[0]
        torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-4)
        check_calls(model, {}, 10, gradient=True)
        ctx.barrier()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("transformers") / "models"
    run_ranks((__name__, "save_models"), 1, str(path))
    return str(path)


@pytest.mark.parametrize("world_size", [2, 4])
def test_models_have_the_logits_text_and_gradients_of_one_process(world_size, folder, tmp_path):
    run_ranks((__name__, "_models"), world_size, str(tmp_path / "store"), folder, deadline=240)


def test_with_data_parallelism_of_transformers(folder, tmp_path):
    run_ranks((__name__, "_with_fsdp"), 4, str(tmp_path / "store"), folder, deadline=240)


def test_the_trainer_has_the_losses_of_one_process(folder, tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    (expected,) = run_ranks((__name__, "train_alone"), 1, folder, deadline=120)
    run_ranks((__name__, "_train"), 2, str(tmp_path / "store"), folder, expected, deadline=240)
