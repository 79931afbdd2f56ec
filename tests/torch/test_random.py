# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Random numbers of regions where activations are divided, and of those where they are not."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import iris_c.torch
from iris_c.testing import ranks
from iris_c.torch import random

SIZE = 4096


def drawn():
    return torch.rand(SIZE)


def of_all(tensor):
    """All ranks' tensors, one below the other, on every rank."""
    return iris_c.torch.all_gather(tensor[None])


def assert_equal_on_all(tensor):
    for other in of_all(tensor):
        assert torch.equal(other, tensor)


def assert_unlike(tensors):
    """Numbers of one generator each: no two have more in common than chance has."""
    for i, one in enumerate(tensors):
        for other in tensors[:i]:
            correlation = torch.corrcoef(torch.stack([one, other]))[0, 1]
            assert correlation.abs() < 6 / SIZE**0.5, correlation


@ranks(1, 2, 3, 4)
def test_ranks_draw_alike_outside_and_unlike_within(ctx):
    iris_c.torch.register(ctx)
    random.seed(3)
    before = drawn()
    torch.manual_seed(3)
    assert torch.equal(before, drawn())
    with random.fork():
        first = drawn()
        if ctx.rank == 1:
            drawn()  # they need not draw equally much
        second = drawn()
    after = drawn()
    with random.fork():
        third = drawn()
    assert_equal_on_all(before)
    assert_equal_on_all(after)
    assert_unlike([before, after, *of_all(first), *of_all(second), *of_all(third)])


@ranks(2)
def test_seeds(ctx):
    """Equal ones give equal numbers, on each rank; one that is left open is one for all."""
    iris_c.torch.register(ctx)

    def numbers(seed, change=lambda: None):
        assert random.seed(seed) == seed
        change()
        with random.fork():
            return drawn()

    one = numbers(5)
    assert torch.equal(one, numbers(5))
    assert_unlike([one, numbers(6), numbers(5, lambda: torch.rand(1))])
    value = random.seed()
    assert_equal_on_all(torch.tensor(value))
    assert torch.initial_seed() == value
    assert random.seed(ctx=ctx) != value


@ranks(2)
def test_regions_within_regions(ctx):
    """Of the same context they are none, also with another's between; of others they are."""
    iris_c.torch.register(ctx)
    iris_c.torch.register(iris_c.init(1 << 20, rank=0, world_size=1), "alone")
    found = []
    for nested in ((), (None,), ("default",), ("alone",), ("alone", None)):
        random.seed(1)
        with random.fork():
            first = drawn()
            regions = [random.fork(name) for name in nested]
            for region in regions:
                region.__enter__()
            found.append((first, drawn()))
            for region in reversed(regions):
                region.__exit__(None, None, None)
        found[-1] += (drawn(),)
    (first, plain, after), *others = found
    for other, equal in zip(others, (True, True, False, False), strict=True):
        assert torch.equal(other[0], first)
        assert torch.equal(other[1], plain) == equal
        assert torch.equal(other[2], after)
    assert_unlike([plain, found[3][1]])
    assert_equal_on_all(after)
    random.seed(1)
    with random.fork(enabled=False):
        assert_equal_on_all(drawn())
    with pytest.raises(KeyError), random.fork():
        raise KeyError
    assert_equal_on_all(drawn())
    with random.fork():
        assert_unlike(of_all(drawn()))  # an error has not left it inside
    with pytest.raises(ValueError, match="group: expected the name of a context"):
        random.fork("unknown").__enter__()
    random.register_graph(torch.cuda.CUDAGraph() if ctx.backend != "cpu" else None)
    iris_c.torch._groups.context("alone").close()


class Block(nn.Module):
    """Dropout where the activations are divided, and where they are not."""

    def __init__(self):
        super().__init__()
        self.up = iris_c.torch.ColumnParallelLinear(8, 60)
        self.down = iris_c.torch.RowParallelLinear(60, 8)

    def forward(self, x):
        y = self.up(x)
        with random.fork():
            y = nn.functional.dropout(y.sin(), 0.5)
        return nn.functional.dropout(self.down(y), 0.2)


@pytest.mark.parametrize("reentrant", [False, True])
@ranks(2, 3, deadline=120)
def test_recomputation_draws_the_same(ctx, reentrant):
    iris_c.torch.register(ctx)
    random.seed(2)
    blocks = nn.ModuleList([Block(), Block()])
    x = torch.randn(SIZE // 64, 8)
    found = []
    for recompute in (False, True):
        random.seed(9)
        y = x.clone().requires_grad_()
        given = y
        for block in blocks:
            y = checkpoint(block, y, use_reentrant=reentrant) if recompute else block(y)
        assert_equal_on_all(y.detach())
        y.square().sum().backward()
        found.append([y.detach(), given.grad, *(p.grad.clone() for p in blocks.parameters())])
        blocks.zero_grad()
        assert_equal_on_all(drawn())
    for plain, recomputed in zip(*found, strict=True):
        assert torch.equal(plain, recomputed)


@ranks(2, deadline=120)
def test_masks_of_parts_are_unlike(ctx):
    """Of divided activations, as a dropout makes them; a compiled model's too."""
    iris_c.torch.register(ctx)
    parts = torch.ones(SIZE)

    def divided(x):
        with random.fork():
            return nn.functional.dropout(2 * x, 0.5)

    for run in (divided, torch.compile(divided, backend="aot_eager")):
        random.seed(4)
        assert_unlike(of_all(run(parts)))
        assert_equal_on_all(drawn())


class Generator:
    """What a GPU's generator offers, and what it refuses while a graph is captured."""

    capturing = False

    def __init__(self, device=None, state=None):
        self.device, self.state = device, state or {"seed": 0, "offset": 0}

    def _changed(self, **values):
        assert not Generator.capturing
        self.state.update(values)
        return self

    def manual_seed(self, seed):
        return self._changed(seed=seed, offset=0)

    def set_offset(self, offset):
        assert offset % 4 == 0
        return self._changed(offset=offset)

    def initial_seed(self):
        assert not Generator.capturing
        return self.state["seed"]

    def get_offset(self):
        assert not Generator.capturing
        return self.state["offset"]

    def graphsafe_get_state(self):
        return Generator(self.device, self.state)

    def graphsafe_set_state(self, other):
        self.state = other.state

    def draw(self):
        self.state["offset"] += 4
        return self.state["seed"], self.state["offset"]


@pytest.fixture
def gpu(monkeypatch):
    """A device of this rank's number, which is as that of torch's on a GPU."""
    device = torch.device("cuda", 0)

    class Context:
        rank, backend = 0, "cuda"

    Context.device = device
    generator = Generator(device)
    monkeypatch.setattr(random, "context", lambda name: Context)
    monkeypatch.setattr(random, "name_of", lambda ctx: "gpu")
    monkeypatch.setattr(random, "_generators", {})
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: Generator.capturing)
    monkeypatch.setattr(Generator, "capturing", False)
    generator.context = Context
    return generator


def test_regions_of_gpus(gpu):
    """The same rules, by seeds and offsets alone."""

    def region(rank, draws):
        gpu.context.rank = rank
        with random.fork():
            return [gpu.draw() for _ in range(draws)]

    found = []
    for rank in (0, 1):
        gpu.manual_seed(7)
        first = gpu.draw()
        found.append((first, region(rank, 1 + rank), gpu.draw(), region(rank, 1)))
        assert gpu.state == {"seed": 7, "offset": 4 * 4}  # whatever was drawn within
    assert found[0][0] == found[1][0]
    assert found[0][2] == found[1][2]
    seeds = [draws[0][0] for numbers in found for draws in (numbers[1], numbers[3])]
    assert len({7, *seeds}) == 5
    gpu.manual_seed(7)
    gpu.draw()
    assert region(1, 2) == found[1][1]  # recomputation


def test_regions_of_captured_graphs(gpu, monkeypatch):
    monkeypatch.setattr(Generator, "capturing", True)
    with pytest.raises(RuntimeError, match="fork: expected register_graph to be called"):
        random.fork().__enter__()
    monkeypatch.setattr(Generator, "capturing", False)
    registered = []

    class Graph:
        register_generator_state = staticmethod(registered.append)

    for rank in (0, 1):
        gpu.context.rank = rank
        random._generators.clear()
        gpu.manual_seed(7)
        random.register_graph(Graph)
    assert registered[0].state["seed"] != registered[1].state["seed"]
    monkeypatch.setattr(Generator, "capturing", True)
    with random.fork():
        assert gpu.state is registered[1].state
    with random.fork():
        assert gpu.draw() == (registered[1].state["seed"], 4)
    assert gpu.state["seed"] == 7
    assert not random._inside
