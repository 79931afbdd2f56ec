# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Plans of torch's parallelize_module with the styles of iris_c.torch.parallel: what comes out is
what the unsharded model and torch's own styles give, and fused operations compute it."""

import contextlib
import copy
import itertools
import logging
from collections import Counter

import pytest
import torch
import torch.distributed as dist
from process_groups import DEVICE, distributed, starts_ranks
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import iris_c.torch
from iris_c.testing import preload, run_ranks

preload("iris_c.torch.parallel", "torch.distributed.fsdp")
pytestmark = starts_ranks
HEAP = 16 << 20


class Seen(TorchDispatchMode):
    """Counts the operations of iris_c that are called, and torch's collectives."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "iris_c":
            self.count[func.__name__.partition(".")[0]] += 1
        elif func.namespace in ("c10d", "_c10d_functional") and "tensor.d" in func.__name__:
            self.count["torch " + func.__name__.partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


# ---- a layer, in all layouts ----


def expected_operation(kind, given, wanted, last, as_dtensor):
    """The operation of a layer in a training step, and whether torch redistributes its input."""
    from torch.distributed.tensor import Replicate, Shard

    if kind == "Colwise":
        if not isinstance(given, Replicate):
            return "all_gather_matmul", False
        # What else takes a DTensor has a part of its gradient; torch adds them up at once.
        return "linear" if as_dtensor else "matmul_replicated", False
    name = "matmul_all_reduce" if isinstance(wanted, Replicate) else "matmul_reduce_scatter"
    return name, given not in (Shard(last), Shard(-1))


def check_layer(mesh, kind, shape, given, wanted, as_dtensor, bias):
    """Output, without and with a gradient, and all gradients, of one layer."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    import iris_c.torch.parallel as styles

    def placed(tensor, layout):
        tensor = distribute_tensor(tensor, mesh, [layout], src_data_rank=None)
        return tensor if as_dtensor else tensor.to_local().contiguous()

    torch.manual_seed(3)
    layer = nn.Linear(shape[-1], 9, bias=bias)
    x, grad = torch.randn(shape, requires_grad=True), torch.randn(*shape[:-1], 9)
    y = layer(x)
    y.backward(grad)
    parallel = copy.deepcopy(layer).requires_grad_()
    parallel.zero_grad()
    style = getattr(styles, f"{kind}Parallel")
    styles.parallelize_module(
        parallel,
        mesh,
        style(input_layouts=given, output_layouts=wanted, use_local_output=not as_dtensor),
    )
    own = placed(x.detach(), given).requires_grad_()
    with torch.no_grad():
        assert not parallel(own).requires_grad
        outputs = [parallel(own)]
    before = Counter(styles.calls(parallel)[""])
    outputs.append(parallel(own))
    ran = Counter(styles.calls(parallel)[""]) - before
    outputs[-1].backward(placed(grad, wanted))

    def check(got, expected, layout):
        if isinstance(got, DTensor):
            torch.testing.assert_close(got.full_tensor(), expected, rtol=1e-4, atol=1e-4)
        else:
            torch.testing.assert_close(got, placed(expected, layout), rtol=1e-4, atol=1e-4)

    for output in outputs:
        assert isinstance(output, DTensor) is as_dtensor
        check(output.detach(), y.detach(), wanted)
        assert as_dtensor or output.is_contiguous()
    check(own.grad, x.grad, given)
    for got, parameter in zip(parallel.parameters(), layer.parameters(), strict=True):
        assert got.grad.placements == got.placements
        check(got.grad, parameter.grad, None)
    name, redistributed = expected_operation(kind, given, wanted, len(shape) - 1, as_dtensor)
    assert ran == Counter({name: 1, **({"redistribution by torch": 1} if redistributed else {})})


@distributed
def _layouts(rank):
    from torch.distributed.tensor import Replicate, Shard

    mesh = dist.init_device_mesh(DEVICE, (dist.get_world_size(),))
    shapes = ((8,), (5, 8), (8, 6), (2, 4, 8), (3, 5, 7))
    with iris_c.torch.init(mesh, HEAP) as ctx:
        for shape, as_dtensor in itertools.product(shapes, (False, True)):
            if mesh.size() == 4 and shape[:1] in ((8,), (2,)):
                continue  # enough on two ranks
            layouts = [Replicate(), *(Shard(dim) for dim in range(len(shape) - 1)), Shard(-1)]
            for n, (kind, given, wanted) in enumerate(
                itertools.product(("Colwise", "Rowwise"), layouts, layouts)
            ):
                uneven = isinstance(given, Shard) and shape[given.dim] % mesh.size() != 0
                if as_dtensor or not uneven:  # torch takes local parts for equal ones
                    check_layer(mesh, kind, shape, given, wanted, as_dtensor, n % 2 == 0)
        ctx.barrier()


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_layer_in_all_layouts(world_size, tmp_path):
    run_ranks((__name__, "_layouts"), world_size, str(tmp_path / "store"), deadline=240)


# ---- a model ----


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.size = width // heads
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width, bias=False) for _ in "qkvo")

    def forward(self, x):
        batch, time, _ = x.shape
        q, k, v = (
            layer(x).view(batch, time, -1, self.size).transpose(1, 2)
            for layer in (self.wq, self.wk, self.wv)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.wo(mixed.transpose(1, 2).reshape(batch, time, -1))


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.w2 = nn.Linear(2 * width, width)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention_norm, self.mlp_norm = Norm(width), Norm(width)
        self.attention, self.mlp = Attention(width, heads), MLP(width)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Llama(nn.Module):
    """The model of torch's tutorial on tensor parallelism, small."""

    def __init__(self, width=16, heads=4, layers=2, vocabulary=12):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.output = Norm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


def tutorial_plan(styles, last):
    """The tutorial's: what stands between the products is divided along the sequence."""
    from torch.distributed.tensor import Replicate, Shard

    gathered = {"input_layouts": (Shard(1),), "desired_input_layouts": (Replicate(),)}
    block = {
        "attention_norm": styles.SequenceParallel(),
        "attention": styles.PrepareModuleInput(**gathered),
        "attention.wq": styles.ColwiseParallel(),
        "attention.wk": styles.ColwiseParallel(),
        "attention.wv": styles.ColwiseParallel(),
        "attention.wo": styles.RowwiseParallel(output_layouts=Shard(1)),
        "mlp_norm": styles.SequenceParallel(),
        "mlp": styles.PrepareModuleInput(**gathered),
        "mlp.w1": styles.ColwiseParallel(),
        "mlp.w3": styles.ColwiseParallel(),
        "mlp.w2": styles.RowwiseParallel(output_layouts=Shard(1)),
    }
    return {
        "embedding": styles.RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "norm": styles.SequenceParallel(),
        "output": styles.ColwiseParallel(input_layouts=Shard(1), **last),
        **{f"layers.*.{name}": style for name, style in block.items()},
    }


def megatron_plan(styles, last):
    """All ranks have the whole sequence."""
    from torch.distributed.tensor import Replicate, Shard

    block = {
        **{f"attention.w{name}": styles.ColwiseParallel() for name in "qkv"},
        "attention.wo": styles.RowwiseParallel(),
        "mlp.w1": styles.ColwiseParallel(),
        "mlp.w3": styles.ColwiseParallel(),
        "mlp.w2": styles.RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
        "mlp": styles.PrepareModuleInputOutput(
            input_layouts=Replicate(),
            desired_input_layouts=Replicate(),
            use_local_input=True,
            output_layouts=Shard(1),
            desired_output_layouts=Replicate(),
        ),
    }
    return {
        "embedding": styles.ColwiseParallel(output_layouts=Replicate()),
        "output": styles.ColwiseParallel(**last),
        **{f"layers.*.{name}": style for name, style in block.items()},
    }


def new_model():
    torch.manual_seed(5)
    return Llama()


def step(model, ids, parallel_loss=False, clip=True):
    """A training step: the loss, the gradients' norm if it is to be clipped, the gradients."""
    from torch.distributed.tensor.parallel import loss_parallel

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, foreach=False)
    logits, targets = model(ids).flatten(0, 1), ids.roll(-1, 1).flatten()
    with loss_parallel() if parallel_loss else contextlib.nullcontext():
        loss = F.cross_entropy(logits, targets)
        loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1, foreach=False) if clip else None
    grads = {name: p.grad for name, p in model.named_parameters()}
    optimizer.step()
    return whole(loss.detach()), norm, grads


def check_step(model, reference, ids, mine=None, **options):
    """A step of both, of the model with `mine`, this rank's part of the batch: same loss,
    gradients, norm and parameters. Returns the operations seen."""
    loss, norm, grads = step(reference, ids, clip=options.get("clip", True))
    with Seen() as seen:
        results = step(model, ids if mine is None else mine, **options)
    got_loss = results[0].clone()
    if mine is not None:
        dist.all_reduce(got_loss)
        got_loss /= dist.get_world_size()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(got_loss, loss, **close)
    if norm is not None:
        torch.testing.assert_close(whole(results[1]), norm, **close)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(whole(results[2][name]), grads[name], **close, msg=name)
        own = whole(model.get_parameter(name))
        torch.testing.assert_close(own.detach(), parameter.detach(), **close, msg=name)
    return seen.count


def placements(model):
    return {name: getattr(p, "placements", None) for name, p in model.named_parameters()}


def parallelized(plan, styles, mesh, **last):
    model = new_model()
    styles.parallelize_module(model, mesh, plan(styles, last))
    return model


# Of a step of two layers in the tutorial's plan.
TUTORIAL_OPERATIONS = {
    # The input of attention, with queries, keys and values, and that of the MLP with w1 and w3.
    "all_gather_matmul_list": 2 + 2,
    # That of the output layer; the gradients of wo and w2.
    "all_gather_matmul": 1 + 4,
    # wo and w2; the gradients of what has been gathered.
    "matmul_reduce_scatter": 4 + 5,
    # The gradients of the biases of w2.
    "all_reduce": 2,
}


def check_tutorial(mesh, ids):
    import torch.distributed.tensor.parallel as torchs
    from torch.distributed.tensor import Replicate

    import iris_c.torch.parallel as ours

    for last in ({"output_layouts": Replicate()}, {"use_local_output": False}):
        model = parallelized(tutorial_plan, ours, mesh, **last)
        theirs = parallelized(tutorial_plan, torchs, mesh, **last)
        assert placements(model) == placements(theirs)
        parallel_loss = "use_local_output" in last
        count = check_step(model, new_model(), ids, parallel_loss=parallel_loss)
        step(theirs, ids, parallel_loss)
        for name, parameter in theirs.named_parameters():
            assert parameter.grad.placements == model.get_parameter(name).grad.placements, name
        ours_alone = {name: n for name, n in count.items() if not name.startswith("torch")}
        assert ours_alone == TUTORIAL_OPERATIONS
        ran = ours.calls(model)
        assert set(ran) == {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        for name, calls in ran.items():
            (operation,) = calls
            row = name.endswith(("wo", "w2"))
            assert operation == ("matmul_reduce_scatter" if row else "all_gather_matmul")
    return model


def check_megatron(mesh, ids):
    from torch.distributed.tensor import Replicate

    import iris_c.torch.parallel as ours

    model = parallelized(megatron_plan, ours, mesh, output_layouts=Replicate())
    count = check_step(model, new_model(), ids, clip=False)
    assert count["matmul_replicated"] == 2 * 5 + 1
    assert count["matmul_reduce_scatter"] == 2
    assert count["matmul_all_reduce"] == 2 + 2 * 5 + 1  # wo; the gradients of replicated inputs
    with torch.no_grad(), Seen() as seen:
        logits = model(ids)
    assert seen.count["matmul_all_gather"] == 1
    torch.testing.assert_close(logits, model(ids).detach(), rtol=1e-4, atol=1e-5)
    with Seen() as seen:
        assert torch.equal(model.requires_grad_(False)(ids), logits)
    assert seen.count["matmul_all_gather"] == 1


def check_checkpoint(mesh, model, folder):
    """What a model saves, a model of torch's styles loads."""
    import torch.distributed.checkpoint as dcp
    import torch.distributed.tensor.parallel as torchs
    from torch.distributed.tensor import Replicate

    dcp.save(model.state_dict(), checkpoint_id=folder)
    other = parallelized(tutorial_plan, torchs, mesh, output_layouts=Replicate())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    state = other.state_dict()
    dcp.load(state, checkpoint_id=folder)
    other.load_state_dict(state)
    for name, parameter in model.named_parameters():
        assert torch.equal(whole(parameter), whole(other.get_parameter(name))), name


def check_recomputed(mesh, ids):
    """Activation checkpoints run a module's hooks once more."""
    from torch.distributed.tensor import Replicate
    from torch.utils.checkpoint import checkpoint

    import iris_c.torch.parallel as ours

    model = parallelized(tutorial_plan, ours, mesh, output_layouts=Replicate())
    for layer in model.layers:
        forward = layer.forward
        layer.forward = lambda x, forward=forward: checkpoint(forward, x, use_reentrant=False)
    check_step(model, new_model(), ids)


def check_copies(mesh, ids):
    """A copy has parameters of its own, and uses them; one that is compiled does the same."""
    from torch.distributed.tensor import Replicate

    import iris_c.torch.parallel as ours

    model = parallelized(tutorial_plan, ours, mesh, output_layouts=Replicate())
    other = copy.deepcopy(model)
    logits = model(ids).detach()
    assert not any(ours.calls(other).values())
    torch.testing.assert_close(other(ids).detach(), logits)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(other(ids).detach(), logits)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids).detach(), logits, rtol=1e-4, atol=1e-5)
    compiled(ids).sum().backward()


@distributed
def _model(rank, folder):
    mesh = dist.init_device_mesh(DEVICE, (dist.get_world_size(),))
    ids = torch.randint(
        12, (2, 8), generator=torch.Generator(torch.get_default_device()).manual_seed(1)
    )
    with iris_c.torch.init(mesh, HEAP) as ctx:
        model = check_tutorial(mesh, ids)
        check_megatron(mesh, ids)
        if mesh.size() == 2:
            check_checkpoint(mesh, model, folder)
            check_recomputed(mesh, ids)
            check_copies(mesh, ids)
        ctx.barrier()


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_model_trains_as_torchs_styles_train_it(world_size, tmp_path):
    arguments = str(tmp_path / "store"), str(tmp_path / "checkpoint")
    run_ranks((__name__, "_model"), world_size, *arguments, deadline=240)


@distributed
def _fsdp(rank):
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate

    import iris_c.torch.parallel as ours

    mesh = dist.init_device_mesh(DEVICE, (2, 2), mesh_dim_names=("dp", "tp"))
    with pytest.raises(ValueError, match=r"device_mesh: expected one of one .* as mesh\['tp'\]"):
        ours.parallelize_module(nn.Linear(4, 4), mesh, ours.ColwiseParallel())
    ids = torch.randint(
        12, (4, 8), generator=torch.Generator(torch.get_default_device()).manual_seed(1)
    )
    with iris_c.torch.init(mesh["tp"], HEAP) as ctx:
        model = parallelized(tutorial_plan, ours, mesh["tp"], output_layouts=Replicate())
        for layer in model.layers:
            fully_shard(layer, mesh=mesh["dp"])
        fully_shard(model, mesh=mesh["dp"])
        mine = ids.chunk(2)[mesh["dp"].get_local_rank()]
        count = check_step(model, new_model(), ids, mine)
        for name, times in TUTORIAL_OPERATIONS.items():
            assert count[name] == times, name
        ctx.barrier()


def test_with_fsdp_on_the_other_dimension(tmp_path):
    run_ranks((__name__, "_fsdp"), 4, str(tmp_path / "store"), deadline=240)


# ---- what is not fused ----


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Twice(nn.Module):
    """Gives its layer something else than it is given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(2 * x)


@contextlib.contextmanager
def logged(level):
    """The messages of the styles' logger."""
    logger, messages = logging.getLogger("iris_c.torch.parallel"), []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(level)
    yield messages
    logger.removeHandler(handler)


@distributed
def _fallbacks(rank):
    """Each is right, counted, and said why."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    import iris_c.torch.parallel as ours

    mesh = dist.init_device_mesh(DEVICE, (2,))
    torch.manual_seed(2)
    x = torch.randn(4, 8)

    def check(layer, style, x=x):
        """The output, the count of what ran, and the messages."""
        expected = layer(x)
        with logged(logging.DEBUG) as messages, Seen() as seen:
            parallel = ours.parallelize_module(copy.deepcopy(layer), mesh, style)
            torch.testing.assert_close(whole(parallel(x)), expected)
        assert not seen.count.keys() & {"matmul_replicated", "matmul_all_reduce"}
        return ours.calls(parallel), " ".join(messages)

    with iris_c.torch.init(mesh, HEAP) as ctx:
        column = ours.ColwiseParallel(output_layouts=Replicate())
        doubles = nn.Linear(8, 6, dtype=torch.float64)
        calls, said = check(doubles, column, x.double())
        assert calls == {"": {"torch": 1}}
        assert "column-parallel: torch, since the input is of torch.float64" in said
        calls, said = check(Scaled(8, 6), column)
        assert calls == {}
        assert "torch's code for Scaled(in_features=8, out_features=6, bias=True), since" in said
        calls, said = check(nn.Embedding(8, 6), column, torch.tensor([[1, 7], [3, 0]]))
        assert calls == {}
        assert "it is no torch.nn.Linear but a Embedding" in said
        with pytest.raises(NotImplementedError, match=r"only support nn\.Linear and nn\.Embedding"):
            ours.parallelize_module(nn.Conv1d(2, 2, 1), mesh, column)

        linear = nn.Linear(8, 6)
        style = ours.RowwiseParallel(
            input_layouts=Replicate(), output_layouts=Partial(), use_local_output=False
        )
        calls, said = check(linear, style)
        assert calls == {"": {"torch": 1}}
        assert "row-parallel: torch, since the output is " in said

        row = ours.parallelize_module(copy.deepcopy(linear), mesh, ours.RowwiseParallel())
        with pytest.raises(ValueError, match=r"input: expected a last dimension of 4, .* \(4, 8\)"):
            row(x)
        with torch.autocast(DEVICE, torch.bfloat16):
            assert row(x[:, :4]).dtype == torch.bfloat16
        torch.testing.assert_close(row(torch.empty(0, 4)), torch.empty(0, 6))

        gather = {"input_layouts": Shard(0), "desired_input_layouts": Replicate()}
        for fuse in (True, False):
            module, mine = Twice(), x.chunk(2)[rank]
            ours.parallelize_module(module, mesh, ours.PrepareModuleInput(**gather, fuse=fuse))
            dist.broadcast(module.layer.weight.data, 0)
            expected = module.layer.weight.detach().chunk(2)[rank]
            style = ours.ColwiseParallel()
            ours.parallelize_module(module, mesh, {"layer": style})
            with logged(logging.WARNING) as messages:
                outputs = [module(mine), module(mine)]
            assert len(messages) == fuse
            assert not fuse or "give its PrepareModuleInput fuse=False" in messages[0]
            bias = module.layer.bias.to_local()
            for output in outputs:
                torch.testing.assert_close(output, 2 * x @ expected.t() + bias)
        ctx.barrier()


def test_what_is_not_fused_is_torchs(tmp_path):
    run_ranks((__name__, "_fallbacks"), 2, str(tmp_path / "store"), deadline=120)


def test_the_module_has_what_torchs_has():
    import torch.distributed.tensor.parallel as torchs

    import iris_c.torch.parallel as ours

    assert set(torchs.__all__) <= set(ours.__all__)
    for name in torchs.__all__:
        given, expected = getattr(ours, name), getattr(torchs, name)
        assert given is expected or issubclass(given, expected)
