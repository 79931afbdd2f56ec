# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The hip backend's host path on emulated GPUs: workspaces, graphs, streams, errors, the loader."""

import contextlib
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import time

import cases
import device_tensor
import gpus
import machine
import mutants
import pytest
import torch

import iris_c
from iris_c.testing import RankFailure

INT32_MAX = 2**31 - 1
ADVERSARIAL = {"adversarial": 1, "order": "random", "seed": 5}


class Product:
    """One checked product on a rank whose inputs change."""

    def __init__(self, ctx, memory, case, variant, dtype, workspace):
        self.ctx, self.memory, self.case, self.dtype = ctx, memory, case, dtype
        self.workspace = workspace
        self.config = iris_c.FusedConfig(all_reduce_variant=variant)
        self.A = memory.ordinary(case.M, case.K, dtype=dtype)
        self.B = memory.ordinary(case.K, case.N, dtype=dtype)
        self.C = memory.heap(case.M, case.N, dtype=dtype)
        self.passed = tuple(memory.passed(t) for t in (self.C, self.A, self.B))

    def refill(self, salt):
        A, B = cases.operands(self.case, self.ctx.rank, self.dtype, salt)
        self.A.copy_(A)
        self.B.copy_(B)
        cases.poisoned(self.C)
        self.ctx.barrier()  # before a peer's result arrives

    def call(self):
        self.ctx.ops.matmul_all_reduce(*self.passed, config=self.config, workspace=self.workspace)

    def prepare(self):
        self.ctx.ops.matmul_all_reduce_preamble(
            *self.passed, config=self.config, workspace=self.workspace
        )

    def check(self, salt):
        assert self.memory.library.hipDeviceSynchronize() == 0
        expected, bound = cases.reference(self.case, self.ctx.world_size, self.dtype, salt)
        cases.check_close(self.C, expected, bound, f"rank {self.ctx.rank} {self.case} {salt}")


@contextlib.contextmanager
def new_stream(memory):
    handle = ctypes.c_void_p()
    assert memory.library.hipStreamCreate(ctypes.byref(handle)) == 0
    yield handle
    assert memory.library.hipStreamDestroy(handle) == 0


def captured(memory, stream, body):
    """A graph of what the body queues."""
    graph = ctypes.c_void_p()
    assert memory.library.hipStreamBeginCapture(stream, 0) == 0
    try:
        with device_tensor.stream(stream.value):
            body()
    finally:
        assert memory.library.hipStreamEndCapture(stream, ctypes.byref(graph)) == 0
    return graph


# ---- bodies ----


def wraps(ctx, memory, variant):
    """From INT32_MAX to 1, results checked across it."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    product = Product(ctx, memory, cases.Case(50, 41, 7), variant, torch.float32, workspace)
    product.refill("first")
    product.call()
    ctx.barrier()
    workspace._set_calls(INT32_MAX - 3)
    ctx.barrier()
    counters = []
    for call in range(8):
        product.refill(str(call))
        product.call()
        product.check(str(call))
        counters.append(workspace.call_counter)
    assert counters == [*range(INT32_MAX - 2, INT32_MAX + 1), *range(1, 6)]


def all_reduce_wraps(ctx, memory):
    """The same for all_reduce, with variants that signal in different ways in turn."""
    variants = ("ll", "two_shot", "ll_two_shot", "one_shot", "ring")
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    output = memory.heap(2000, dtype=torch.float32)
    given = memory.ordinary(2000, dtype=torch.float32)

    def call(variant, n, salt):
        config = iris_c.ccl.Config(all_reduce_variant=variant)
        given[:n].copy_(cases.reduced_input(ctx.rank, n, torch.float32, salt))
        ctx.ccl.all_reduce(
            memory.passed(output[:n]), memory.passed(given[:n]), config=config, workspace=workspace
        )
        assert memory.library.hipDeviceSynchronize() == 0
        cases.check_reduction(output[:n], ctx.world_size, "sum", f"{variant} {salt}", salt)

    for variant in variants:
        call(variant, 2000, 0)
    ctx.barrier()
    workspace._set_calls(INT32_MAX - 8)
    ctx.barrier()
    for turn in range(25):
        call(variants[turn * 2 % 5], (2000, 9, 700)[turn % 3], turn)
    assert workspace.call_counter == 17


def replays(ctx, memory):
    """Graphs of several variants on one workspace, in turn with eager calls; the wrap inside."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    with new_stream(memory) as stream:
        variants = ("two_shot", "ring", "one_shot", "atomic")
        products = [
            Product(ctx, memory, cases.Case(30 * (number + 1), 70, 20), variant, torch.bfloat16,
                    workspace)
            for number, variant in enumerate(variants)
        ]  # fmt: skip
        for product in products:
            product.prepare()  # all room before the first capture: one storage for all graphs
        graphs = [captured(memory, stream, product.call) for product in products]
        assert workspace.call_counter == 0, "a captured call is not a call"
        workspace._set_calls(INT32_MAX - 10)
        ctx.barrier()
        for turn in range(16):
            which = turn * 7 % len(graphs)
            product = products[which]
            product.refill(str(turn))
            if turn % 5 == 4:
                with device_tensor.stream(stream.value):
                    product.call()
            else:
                assert memory.library.hipGraphLaunch(graphs[which], stream) == 0
            product.check(str(turn))
        assert workspace.call_counter == 6, workspace.call_counter
        for graph in graphs:
            assert memory.library.hipGraphDestroy(graph) == 0


def all_reduce_replays(ctx, memory):
    """Graphs of variants that signal in different ways on one workspace, in turn with each other
    and with eager calls; each wraps the counter inside."""
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    n = 1501
    output = memory.heap(n, dtype=torch.float32)
    given = memory.ordinary(n, dtype=torch.float32)
    passed = tuple(memory.passed(t) for t in (output, given))
    variants = ("ll", "two_shot", "ll_two_shot", "one_shot", "ring", "atomic")
    configs = [iris_c.ccl.Config(all_reduce_variant=variant) for variant in variants]

    def call(config):
        ctx.ccl.all_reduce(*passed, config=config, workspace=workspace)

    with new_stream(memory) as stream:
        for config in configs:
            ctx.ccl.all_reduce_preamble(*passed, config=config, workspace=workspace)
        graphs = [captured(memory, stream, lambda config=config: call(config))
                  for config in configs]  # fmt: skip
        for start in (0, INT32_MAX - 9):
            ctx.barrier()
            workspace._set_calls(start)
            ctx.barrier()
            for turn in range(18):
                which = turn * 5 % len(graphs)
                given.copy_(cases.reduced_input(ctx.rank, n, torch.float32, turn))
                output.fill_(float("nan"))
                if turn % 4 == 3:
                    with device_tensor.stream(stream.value):
                        call(configs[which])
                else:
                    assert memory.library.hipGraphLaunch(graphs[which], stream) == 0
                assert memory.library.hipDeviceSynchronize() == 0
                cases.check_reduction(output, ctx.world_size, "sum", f"turn {turn}", turn)
            assert workspace.call_counter == (18 if start == 0 else 9)
        for graph in graphs:
            assert memory.library.hipGraphDestroy(graph) == 0


def captures_another_variant(ctx, memory):
    """After a preamble for one: an error, no allocation, and what was prepared can be captured."""
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    n = 50000
    passed = (memory.passed(memory.heap(n, dtype=torch.float32)),
              memory.passed(memory.ordinary(n, dtype=torch.float32).fill_(1)))  # fmt: skip

    def call(variant):
        config = iris_c.ccl.Config(all_reduce_variant=variant)
        ctx.ccl.all_reduce(*passed, config=config, workspace=workspace)

    config = iris_c.ccl.Config(all_reduce_variant="ll")
    ctx.ccl.all_reduce_preamble(*passed, config=config, workspace=workspace)
    used, nbytes = ctx.heap_used, workspace.nbytes
    with new_stream(memory) as stream:
        for variant, message in (("ring", "all_reduce_preamble"),
                                 ("one_shot_legacy", "without host barriers")):  # fmt: skip
            with pytest.raises(RuntimeError, match=message):
                captured(memory, stream, lambda variant=variant: call(variant))
        assert (ctx.heap_used, workspace.nbytes) == (used, nbytes)
        graph = captured(memory, stream, lambda: call("ll"))
        assert memory.library.hipGraphLaunch(graph, stream) == 0
        assert memory.library.hipDeviceSynchronize() == 0
        assert memory.library.hipGraphDestroy(graph) == 0
    assert workspace.call_counter == 1


def captures_without_room(ctx, memory):
    product = Product(ctx, memory, cases.Case(64, 64, 64), "two_shot", torch.float32, None)
    with new_stream(memory) as stream:
        with pytest.raises(RuntimeError, match="matmul_all_reduce_preamble"):
            captured(memory, stream, product.call)
        product.prepare()
        graph = captured(memory, stream, product.call)
        product.refill("a")
        assert memory.library.hipGraphLaunch(graph, stream) == 0
        product.check("a")


def two_streams(ctx, memory):
    """Calls on one workspace run one after the other, whatever stream they are given to."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    make = [Product(ctx, memory, cases.Case(90, 80, 60), "two_shot", torch.float32, workspace)
            for _ in range(2)]  # fmt: skip
    with new_stream(memory) as one, new_stream(memory) as other:
        for turn in range(6):
            for number, product in enumerate(make):
                product.refill(f"{turn}{number}")
            for product, stream in zip(make, (one, other), strict=True):
                with device_tensor.stream(stream.value):
                    product.call()
            for number, product in enumerate(make):
                product.check(f"{turn}{number}")


def different_calls(ctx, memory):
    """A rank that called something else, and one whose call was queued before, both hear of it."""
    large = Product(ctx, memory, cases.Case(64, 64, 8), "two_shot", torch.float32, None)
    small = Product(ctx, memory, cases.Case(32, 64, 8), "two_shot", torch.float32, None)
    large.refill("x")
    large.call()
    ctx.barrier()
    mine = large if ctx.rank == 0 else small
    with pytest.raises(ValueError, match="called different operations"):
        for _ in range(50):
            mine.call()
            time.sleep(0.1)
    large.refill("y")
    large.call()
    large.check("y")


def peer_does_not_come(ctx, memory):
    product = Product(ctx, memory, cases.Case(64, 64, 8), "two_shot", torch.float32, None)
    product.call()
    ctx.barrier()
    if ctx.rank == 0:
        product.call()
        memory.library.hipDeviceSynchronize()  # ends: the wait is bounded
        with pytest.raises(TimeoutError, match="rank 1 did not signal"):
            product.call()
    else:
        time.sleep(3)
        with pytest.raises(iris_c.PeerError, match="gave up waiting"):
            product.call()
    return "refused"


def barriers(ctx, memory):
    """Everybody writes, then everybody sees what all wrote."""
    board = memory.heap(ctx.world_size, dtype=torch.int64)
    value = memory.ordinary(1, dtype=torch.int64)
    for turn in range(5):
        value.fill_(100 * turn + ctx.rank)
        ctx.ccl.all_gather(memory.passed(board), memory.passed(value))
        ctx.device_barrier()
        assert memory.library.hipDeviceSynchronize() == 0
        assert board.tolist() == [100 * turn + rank for rank in range(ctx.world_size)]
        ctx.barrier()


def nothing(ctx, memory):
    return str(ctx.backend)


# ---- tests ----


@pytest.mark.parametrize("variant", cases.VARIANTS)
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_the_counter_wraps(emulated, arch, variant):
    emulated(arch, **ADVERSARIAL).run(wraps, 2, variant)


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_the_counter_wraps_in_all_reduce(emulated, arch):
    emulated(arch, **ADVERSARIAL).run(all_reduce_wraps, 3)


@pytest.mark.parametrize("behaviour", [{}, ADVERSARIAL], ids=["plain", "adversarial"])
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_graphs_and_eager_calls_alternate(emulated, arch, behaviour):
    emulated(arch, **behaviour).run(replays, 2)


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_graphs_of_all_reduce(emulated, arch):
    emulated(arch, **ADVERSARIAL).run(all_reduce_replays, 2)


def test_a_capture_of_another_variant_is_refused(emulated):
    emulated("gfx942").run(captures_another_variant, 2)


def test_a_capture_that_would_allocate_is_refused(emulated):
    emulated("gfx942").run(captures_without_room, 2)


def test_one_workspace_on_two_streams(emulated):
    emulated("gfx942", **ADVERSARIAL).run(two_streams, 2)


def test_different_calls_raise_on_all_ranks(emulated):
    emulated("gfx942").run(different_calls, 2)


def test_a_peer_that_does_not_come_is_a_timeout(emulated):
    devices = emulated("gfx942")
    with pytest.raises(RankFailure, match=r"did not signal|gave up") as caught:
        # The bodies see what they expect; the barrier at the end is refused, as it must be.
        devices.run(peer_does_not_come, 2, timeout=1.5)
    assert "DID NOT RAISE" not in str(caught.value)


def test_device_barriers(emulated):
    emulated("gfx950", **ADVERSARIAL).run(barriers, 3)


def test_a_missing_link_is_shown_as_a_matrix(emulated):
    """Every rank says the same."""
    with pytest.raises(RankFailure) as caught:
        emulated("gfx942", no_link="0-2").run(nothing, 3)
    text = str(caught.value)
    matrix = "  rank 0: 1 1 0\n  rank 1: 1 1 1\n  rank 2: 0 1 1"
    assert text.count("peer access: expected every device to reach every other's memory") >= 3
    assert text.count(matrix) >= 3


def sums_without_packets(ctx, memory, kind):
    """Where packets could not be trusted none go; what asks for them is told so."""
    assert ctx.memory_kind == kind
    value = memory.ordinary(64, dtype=torch.float32).fill_(ctx.rank + 1)
    result = memory.ordinary(64, dtype=torch.float32)
    passed = memory.passed(result), memory.passed(value)
    packets = iris_c.ccl.Config(all_reduce_variant="ll")
    if kind == "uncached":
        ctx.ccl.all_reduce(*passed, config=packets)
    else:
        with pytest.raises(ValueError, match=r"expected one without packets, .* got 'll' of all_"):
            ctx.ccl.all_reduce(*passed, config=packets)
    ctx.ccl.all_reduce(*passed)
    assert memory.library.hipDeviceSynchronize() == 0
    assert (result == 3).all()
    operands = [
        memory.ordinary(*shape, dtype=torch.float16) for shape in ((4, 64), (4, 32), (32, 64))
    ]
    operands[1].fill_(1), operands[2].fill_(1)
    passed = [memory.passed(operand) for operand in operands]
    if kind != "uncached":
        with pytest.raises(ValueError, match="form: expected one that matmul_all_reduce has"):
            ctx.ops.matmul_all_reduce(*passed, config=iris_c.FusedConfig(form="decode"))
    ctx.ops.matmul_all_reduce(*passed)
    assert memory.library.hipDeviceSynchronize() == 0
    assert (operands[0] == 64).all()


@pytest.mark.parametrize(
    ("old_runtime", "kind"),
    [(0, "uncached"), (1, "fine-grained"), (2, "fine-grained"), (3, "unknown")],
)
def test_which_memory_there_is(emulated, old_runtime, kind):
    """Refused, given in silence instead, or not told: fences are kept where packets need none."""
    emulated("gfx942", old_runtime=old_runtime).run(sums_without_packets, 2, kind)


def xcds_of_a_product(ctx, memory):
    return ctx.ops.select_config(4096, 4096, 4096, "float16").num_xcds


@pytest.mark.parametrize(
    ("compute_units", "told", "xcds"),
    [(304, 0, 8), (228, 0, 6), (152, 0, 4), (38, 0, 1), (40, 0, 1), (304, 4, 4), (80, 4, 4)],
)
def test_how_a_device_is_divided(emulated, compute_units, told, xcds):
    """MI300X, MI300A, partitions of either: as the driver says, else as the units tell."""
    devices = emulated("gfx942", compute_units=compute_units, xcds=told)
    assert devices.run(xcds_of_a_product, 1) == [xcds]


def test_too_few_devices(emulated):
    with pytest.raises(RankFailure, match="local rank 2 has no device, the driver sees 2"):
        emulated("gfx942", devices=2).run(nothing, 3, timeout=2.0)


# ---- as users start it ----


@pytest.fixture
def environment(library, emulated):
    """Of a process that finds the double as it would find ROCm: by the loader's path."""

    def make(arch):
        devices = emulated(arch)
        installed = str(pathlib.Path(iris_c.__file__).parents[1])
        return {**os.environ, **devices.environment, "PYTHONPATH": installed,
                "LD_LIBRARY_PATH": str(library.parent)}  # fmt: skip

    return make


def python(environment, *arguments):
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd="/", capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("arch", machine.ARCHES)
def test_selftest(environment, arch):
    done = python(environment(arch), "-m", "iris_c", "selftest", "--backend", "hip", "--ranks", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on 3 ranks, backend hip: all right" in done.stdout


def test_selftest_finds_what_is_wrong(environment, tmp_path):
    """With matrix instructions missing from one kernel."""
    changed = mutants.prepare(
        gpus.KERNELS / "iris_gfx942.hsaco", "matrix", tmp_path,
        changed="iris_MATMUL_ALL_REDUCE_RING_F16",
    )  # fmt: skip
    assert changed > 0
    started = {**environment("gfx942"), "EMULATOR_PROGRAMS": str(tmp_path)}
    done = python(started, "-m", "iris_c", "selftest", "--backend", "hip", "--json")
    assert done.returncode == 1, done.stderr
    wrong = [row for row in json.loads(done.stdout)["rows"] if not row["ok"]]
    assert [(row["operation"], row["variant"], row["dtype"]) for row in wrong] == [
        ("matmul_all_reduce", "ring", "float16")
    ]


def test_an_object_of_another_architecture_is_named(environment, tmp_path):
    (tmp_path / "iris_gfx942.hsaco").write_bytes(
        (gpus.KERNELS / "iris_gfx90a.hsaco").read_bytes()
    )  # fmt: skip
    body = (
        "import iris_c, iris_c.environment as e; "
        f"e.KERNEL_DIRECTORY = {str(tmp_path)!r}; iris_c.init(heap_size=1 << 20, backend='hip')"
    )
    done = python(environment("gfx942"), "-c", body)
    assert "iris_gfx942.hsaco is damaged or not for this device" in done.stderr
    assert "hipErrorNoBinaryForGpu" in done.stderr


def test_tensors_without_torch(environment):
    body = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy, iris_c\n"
        "from iris_c.fill import NumpyFiller\n"
        "with iris_c.init(heap_size=1 << 22) as ctx:\n"
        "    read = NumpyFiller(numpy).read\n"
        "    assert (read(ctx.full((3, 4), 2.5, dtype='bfloat16')) == 2.5).all()\n"
        "    assert (read(ctx.arange(5)) == numpy.arange(5)).all()\n"
        "    copy = ctx.as_symmetric(ctx.ones(7))\n"
        "    assert (read(copy) == 1).all()\n"
        "    try:\n"
        "        copy.copy_from_host(numpy.zeros(3, 'float32'))\n"
        "    except ValueError as error:\n"
        '        assert str(error) == "source: expected 28 bytes, the Buffer\'s, got 12", error\n'
        "    print(ctx.backend, type(copy).__name__, 'right')\n"
    )
    done = python({**environment("gfx942"), "IRIS_C_BACKEND": ""}, "-c", body)
    assert done.stdout == "hip Buffer right\n", done.stderr
