# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Generates text with a model of transformers that its tensor-parallel plan divides.

    torchrun --nproc-per-node 2 docs/examples/generate_with_transformers.py
    torchrun --nproc-per-node 4 docs/examples/generate_with_transformers.py --model FOLDER

Needs transformers (`pip install transformers accelerate`). Without --model, the folder of a model
as from_pretrained takes it, a small random Llama stands in. What is particular to iris_c is
`enable()`. The ranks write the same text, and one process without torchrun does too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: ranks share the machine's cores

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.distributed import DistributedConfig

import iris_c.torch
import iris_c.torch.transformers


def stand_in(folder: str) -> str:
    """The folder of a random model, which the first rank of all writes."""
    if int(os.environ.get("RANK", 0)) == 0:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=256,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=8,
            eos_token_id=None,
        )
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
        model.save_pretrained(folder)
    return folder


def load(path: str | None, world: int):
    options = {"distributed_config": DistributedConfig(tp_size=world)} if world > 1 else {}
    if path is not None:
        return AutoModelForCausalLM.from_pretrained(path, **options)
    folder = [tempfile.mkdtemp()]
    if world > 1:
        dist.broadcast_object_list(folder)
    stand_in(folder[0])
    if world > 1:
        dist.barrier()
    return AutoModelForCausalLM.from_pretrained(folder[0], **options)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", help="a folder as from_pretrained takes it")
    arguments.add_argument("--tokens", type=int, default=16)
    options = arguments.parse_args()
    world = int(os.environ.get("WORLD_SIZE", 1))

    ctx = None
    if world > 1:
        on_gpu = torch.cuda.is_available() and os.environ.get("IRIS_C_BACKEND") != "cpu"
        if on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if on_gpu else "gloo")
        ctx = iris_c.torch.init(heap_size=1 << 28)
        iris_c.torch.transformers.enable()
    model = load(options.model, world).eval()
    prompt = torch.arange(2, 10, device=model.device)[None]
    start = time.perf_counter()
    text = model.generate(prompt, max_new_tokens=options.tokens, do_sample=False)
    seconds = time.perf_counter() - start
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"tokens {text[0, prompt.shape[1] :].tolist()}")
        print(f"{options.tokens / seconds:.1f} tokens/s with {world} rank(s)")
        for name, calls in list(iris_c.torch.transformers.calls(model).items())[:7]:
            print(f"{name}: {', '.join(f'{n} {operation}' for operation, n in calls.items())}")
    if ctx is not None:
        ctx.barrier()
        ctx.close()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
