# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Values that come from Python code which callers may replace: methods of a subclass, properties,
__index__, sequences. None of it is trusted to have the right type, to keep what it returns alive,
or to leave the context as it was."""

import copy
import gc
import inspect
import pickle
import sys
import weakref

import pytest
import torch

import iris_c
from iris_c import _C
from iris_c.testing import ranks

HEAP = 1 << 22


class Chosen(iris_c.Context):
    """A context whose group() returns whatever it is told to."""

    def group(self, ranks, heap_size=None):
        return self.chosen()


@pytest.fixture
def ctx():
    with Chosen(heap_size=HEAP, backend="cpu", num_threads=2) as context:
        yield context


def calls_with_a_group(ctx):
    """Every function that has a group, as a call."""
    x, y, w = torch.ones(8), torch.zeros(8), torch.ones(8)
    ccl = iris_c.ccl
    return {
        "all_reduce": lambda g: ccl.all_reduce(ctx, y, x, group=g),
        "all_reduce_preamble": lambda g: ccl.all_reduce_preamble(ctx, y, x, group=g),
        "all_reduce_rmsnorm": lambda g: ccl.all_reduce_rmsnorm(
            ctx, y, torch.zeros(8), x, None, w, group=g
        ),
        "reduce_scatter": lambda g: ccl.reduce_scatter(ctx, y, x, group=g),
        "all_gather": lambda g: ccl.all_gather(ctx, y, x, group=g),
        "all_to_all": lambda g: ccl.all_to_all(ctx, y, x, group=g),
        "broadcast": lambda g: ccl.broadcast(ctx, x, group=g),
        "reduce": lambda g: ccl.reduce(ctx, y, x, group=g),
        "gather": lambda g: ccl.gather(ctx, y, x, group=g),
        "scatter": lambda g: ccl.scatter(ctx, y, x, group=g),
        "barrier": lambda g: ccl.barrier(ctx, group=g),
        "send": lambda g: ccl.send(ctx, x, 0, group=g),
        "recv": lambda g: ccl.recv(ctx, y, 0, group=g),
        "sendrecv": lambda g: ccl.sendrecv(ctx, y, x, 0, 0, group=g),
        "batch": lambda g: ccl.batch(ctx, [ccl.Send(x, 0), ccl.Recv(y, 0)], group=g),
    }


NAMES = list(calls_with_a_group(None))
MESSAGES = ("send", "recv")  # which a rank does not exchange with itself


def fresh():
    return iris_c.Context(heap_size=HEAP, backend="cpu", num_threads=1)


def test_every_function_with_a_group_is_here():
    public = [name for name in iris_c.ccl.__all__ if name[0].islower()]
    functions = {name: inspect.signature(getattr(iris_c.ccl, name)) for name in public}
    assert {name for name in public if "group" in functions[name].parameters} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value",
    [None, 7, "ops", _C.Context, object()],
    ids=["None", "int", "a namespace", "a type", "an object"],
)
def test_what_group_returns_must_be_a_context(ctx, name, value):
    ctx.chosen = lambda: ctx.ops if value == "ops" else value
    with pytest.raises(TypeError, match=r"^group: expected ctx.group\(\) to return an iris_c.Cont"):
        calls_with_a_group(ctx)[name]([0])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MESSAGES])
def test_a_group_that_nobody_keeps_lives_until_the_call_ends(ctx, name):
    made = []

    def chosen():
        group = fresh()
        made.append(weakref.ref(group))
        return group

    ctx.chosen = chosen
    for _ in range(3):
        workspace = calls_with_a_group(ctx)[name]([0])
        if workspace is not None:
            assert workspace.world_size == 1
            assert "FusedWorkspace" in repr(workspace)
    del workspace
    gc.collect()
    assert [ref() for ref in made] == [None] * 3


def test_the_error_of_a_call_in_a_group_that_nobody_keeps(ctx):
    ctx.chosen = fresh
    for name in MESSAGES:
        with pytest.raises(ValueError, match=r"^(dst|src): expected another rank"):
            calls_with_a_group(ctx)[name]([0])
    with pytest.raises(ValueError, match=r"^output: expected 8 elements"):
        iris_c.ccl.all_gather(ctx, torch.zeros(3), torch.ones(8), group=[0])


def test_a_group_that_is_closed(ctx):
    def closed():
        group = fresh()
        group.close()
        return group

    ctx.chosen = closed
    for call in calls_with_a_group(ctx).values():
        with pytest.raises(RuntimeError, match="closed"):
            call([0])


class Closing:
    """Closes the context wherever it is asked for a value."""

    def __init__(self, ctx, value=0):
        self.ctx, self.value = ctx, value

    def __index__(self):
        self.ctx.close()
        return self.value

    @property
    def cuda_stream(self):
        self.ctx.close()
        return 0

    def __len__(self):
        return 1

    def __getitem__(self, index):
        if index > 0:
            raise IndexError
        self.ctx.close()
        return 8


class ClosingConfig(iris_c.FusedConfig):
    ctx = None

    def __getattribute__(self, name):
        if name == "block_size_m":
            object.__getattribute__(self, "ctx").close()
        return super().__getattribute__(name)


def test_conversions_that_close_the_context():
    x, y = torch.ones(8), torch.zeros(8)
    square, out = torch.ones(4, 4), torch.zeros(4, 4)

    def with_config(ctx):
        ClosingConfig.ctx = ctx
        ctx.ops.matmul_all_reduce(out, square, square, config=ClosingConfig())

    for call in (
        lambda c: c.barrier(Closing(c)),
        lambda c: c.device_barrier(Closing(c)),
        lambda c: c.put(c.kept, x, Closing(c)),
        lambda c: c.get(x, c.kept, Closing(c)),
        lambda c: c.put(c.kept, x, 0, Closing(c)),
        lambda c: c.signal(c.kept_word, Closing(c)),
        lambda c: c.signal(c.kept_word, 0, Closing(c)),
        lambda c: c.wait(c.kept_word, Closing(c)),
        lambda c: c.ccl.broadcast(x, Closing(c)),
        lambda c: c.ccl.all_to_all(
            y, x, output_split_sizes=Closing(c), input_split_sizes=Closing(c)
        ),
        lambda c: c.ops.matmul_reduce_scatter(out, square, square, dim=Closing(c)),
        lambda c: c.ops.all_gather_matmul(out, square, square, gather_dim=Closing(c)),
        lambda c: c.allocate(Closing(c)),
        with_config,
    ):
        context = fresh()
        context.kept, context.kept_word = context.zeros(8), context.zeros(1, dtype=torch.int32)
        with pytest.raises(RuntimeError, match="closed"):
            call(context)


class Fresh:
    """A message whose tensor nobody else has."""

    dst = 1

    @property
    def tensor(self):
        return torch.full((1 << 21,), 7.0)


class Interrupting:
    @property
    def tensor(self):
        raise KeyboardInterrupt


@ranks(2)
def test_a_message_whose_tensor_nobody_keeps(ctx):
    if ctx.rank == 0:
        ctx.ccl.batch([Fresh()])
        with pytest.raises(KeyboardInterrupt):
            ctx.ccl.batch([Interrupting()])
        with pytest.raises(TypeError, match=r"^messages\[0\]: expected a ccl.Send or ccl.Recv"):
            ctx.ccl.batch([object()])
    else:
        received = torch.zeros(1 << 21)
        ctx.ccl.batch([iris_c.ccl.Recv(received, 0)])
        assert (received == 7).all()


def test_a_config_of_a_subclass_is_read_each_time(ctx):
    class Changing(iris_c.ccl.Config):
        variant = "two_shot"

        def __getattribute__(self, name):
            return type(self).variant if name == "all_reduce_variant" else super().__getattribute__(
                name
            )  # fmt: skip

    config, x, y = Changing(), torch.ones(8), torch.zeros(8)
    for Changing.variant in ("two_shot", "ring", "one_shot"):
        assert ctx.ccl.all_reduce(y, x, config=config).variant == Changing.variant
    config = iris_c.ccl.Config(all_reduce_variant="ring")
    assert ctx.ccl.all_reduce(y, x, config=config).variant == "ring"


@pytest.mark.parametrize("length", [-1, 3, 1 << 70])
def test_sequences_that_lie_about_their_length(ctx, length):
    class Lying:
        def __len__(self):
            return length

        def __getitem__(self, index):
            if index >= 1:
                raise IndexError(f"no element {index}")
            return 8

    for call in (
        lambda: ctx.allocate(Lying()),
        lambda: ctx.ccl.all_to_all(
            torch.zeros(8), torch.ones(8), output_split_sizes=Lying(), input_split_sizes=[8]
        ),
    ):
        with pytest.raises((ValueError, IndexError, OverflowError)):
            call()


def test_contexts_that_skip_init():
    class Silent(iris_c.Context):
        def __init__(self, **options):
            pass

    for context in (
        iris_c.Context.__new__(iris_c.Context, heap_size=HEAP, backend="cpu"),
        Silent(heap_size=HEAP, backend="cpu"),
    ):
        assert context.group([0]) is context.group([0])
        group = context.group([0])
        context.close()
        assert group.closed
    for make in (
        lambda: object.__new__(iris_c.Context),
        lambda: object.__new__(iris_c.FusedWorkspace),
        lambda: object.__new__(iris_c.Buffer),
        lambda: iris_c.FusedWorkspace.__new__(iris_c.FusedWorkspace),
        lambda: iris_c.Buffer(),
    ):
        with pytest.raises(TypeError):
            make()


def test_handles_are_neither_copied_nor_pickled(ctx):
    buffer = ctx.allocate(4)
    workspace = ctx.ccl.all_reduce(torch.zeros(8), torch.ones(8))
    for handle in (ctx, buffer, workspace):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                duplicate(handle)


def test_an_exception_passes_whatever_close_returns():
    class Truthful(iris_c.Context):
        def close(self):
            super().close()
            return True

    with pytest.raises(KeyError), Truthful(heap_size=HEAP, backend="cpu") as context:
        raise KeyError
    assert context.closed


def test_calls_leave_no_references(ctx):
    """Neither those that succeed nor those that fail, at whatever argument."""
    group = fresh()
    ctx.chosen = lambda: group
    x, y = torch.ones(8), torch.zeros(8)
    square, out = torch.ones(4, 4), torch.zeros(4, 4)
    config = iris_c.ccl.Config(comm_sms=1)
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    good = [call for name, call in calls_with_a_group(ctx).items() if name not in MESSAGES]
    calls = [
        *(lambda call=call: call([0]) for call in good),
        *(lambda call=call: call([0]) for call in calls_with_a_group(ctx).values()),
        lambda: ctx.ccl.all_reduce(y, x, config=config, workspace=workspace),
        lambda: ctx.ccl.all_reduce(y, x, op="nonsense", workspace=workspace),
        lambda: ctx.ccl.all_reduce(y, "nonsense", workspace=workspace),
        lambda: ctx.ccl.all_reduce(y, x, config=3, workspace=workspace),
        lambda: ctx.ccl.all_reduce(y, x, workspace=3),
        lambda: ctx.ccl.reduce(y, x, "nonsense"),
        lambda: ctx.ccl.gather(y, x, "nonsense"),
        lambda: ctx.ccl.broadcast(x, "nonsense"),
        lambda: ctx.ccl.send(x, "nonsense"),
        lambda: ctx.ccl.all_to_all(y, x, output_split_sizes=[8]),
        lambda: ctx.ccl.all_to_all(y, x, output_split_sizes=[8], input_split_sizes=["a"]),
        lambda: ctx.ops.matmul_all_reduce(out, square, square),
        lambda: ctx.ops.matmul_all_reduce(out, square, "nonsense"),
        lambda: ctx.ops.matmul_reduce_scatter(out, square, square, dim="nonsense"),
        lambda: ctx.ops.all_gather_matmul(out, square, square, gather_dim="nonsense"),
        lambda: ctx.ccl.all_reduce_rmsnorm(y, torch.zeros(8), x, None, x, eps="nonsense"),
    ]

    def run():
        for call in calls:
            try:
                call()
            except (TypeError, ValueError):
                pass

    def counts():
        gc.collect()
        return [sys.getrefcount(handle) for handle in (ctx, group, workspace, config, x, y)]

    run()
    before = counts()
    for _ in range(20):
        run()
    assert counts() == before
