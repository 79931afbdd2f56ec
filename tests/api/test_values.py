# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Values of the wrong type, or that do not fit: an error that begins with the argument's name and
says what was expected. Nothing is taken for something else: a list is no bool, a bool no int."""

import os
import subprocess
import sys

import numpy
import pytest
import torch

import iris_c
import iris_c.torch
from iris_c.environment import context_options

HUGE = 10**5000  # too long to be printed


def short(value) -> str:
    return "huge" if value == HUGE else repr(value)[:8]


NO_BOOLS = [0, 1, None, "yes", [0], ..., 1.0, numpy.int64(1), torch.tensor(1)]
NO_INTS = [True, False, 1.0, "1", None, [1], ..., b"1", numpy.True_, torch.tensor(1.5)]
TOO_LARGE = [2**31, -(2**31) - 1, 2**63, -(2**63) - 1, HUGE]


@pytest.fixture
def ctx():
    with iris_c.Context(heap_size=1 << 22, backend="cpu", num_threads=2, timeout=20.0) as context:
        yield context


def tensors():
    return torch.ones(8), torch.zeros(8), torch.ones(4, 4), torch.zeros(4, 4)


def bools(ctx):
    """Every bool parameter: name -> call(value)."""
    x, y, square, out = tensors()
    ccl, ops, z = ctx.ccl, ctx.ops, torch.zeros(8)
    word = ctx.zeros(1, dtype=torch.int32)
    return {
        "async_op": [
            lambda v: ccl.all_reduce(y, x, "sum", v),
            lambda v: ccl.all_reduce_rmsnorm(y, z, x, None, x, async_op=v),
            lambda v: ccl.reduce_scatter(y, x, "sum", v),
            lambda v: ccl.all_gather(y, x, v),
            lambda v: ccl.all_to_all(y, x, v),
            lambda v: ccl.broadcast(x, 0, v),
            lambda v: ccl.reduce(y, x, 0, "sum", v),
            lambda v: ccl.gather(y, x, 0, v),
            lambda v: ccl.scatter(y, x, 0, v),
            lambda v: ops.matmul_all_reduce(out, square, square, None, v),
            lambda v: ops.matmul_reduce_scatter(out, square, square, None, 0, v),
            lambda v: ops.matmul_all_gather(out, square, square, None, v),
            lambda v: ops.all_gather_matmul(out, square, square, None, 0, v),
            lambda v: ops.all_gather_matmul_hbm_buffer(out, square, square, None, 0, v),
        ],
        "trace": [
            lambda v: ops.matmul_all_reduce(out, square, square, trace=v),
            lambda v: ops.matmul_reduce_scatter(out, square, square, trace=v),
            lambda v: ops.matmul_all_gather(out, square, square, trace=v),
            lambda v: ops.all_gather_matmul(out, square, square, trace=v),
            lambda v: ops.all_gather_matmul_hbm_buffer(out, square, square, trace=v),
        ],
        "consume": [lambda v: ctx.wait(word, 0, consume=v)],
    }


@pytest.mark.parametrize("value", NO_BOOLS, ids=repr)
def test_bools(ctx, value):
    for name, calls in bools(ctx).items():
        for call in calls:
            with pytest.raises(TypeError, match=rf"^{name}: expected a bool, got "):
                call(value)
    for make in (ctx.empty, ctx.zeros, ctx.rand, ctx.randn, ctx.uniform, ctx.arange):
        with pytest.raises(TypeError, match=r"^requires_grad: expected a bool, got "):
            make(3, requires_grad=value)
    with pytest.raises(TypeError, match=r"^debug: expected a bool, got "):
        iris_c.Context(heap_size=1 << 20, debug=value)
    if value is not None:
        with pytest.raises(TypeError, match=r"^overlap: expected a bool or None, got "):
            iris_c.FusedConfig(overlap=value).validate(1)


@pytest.mark.parametrize("value", [True, False, numpy.True_, numpy.False_], ids=repr)
def test_bools_of_numpy_are_bools(ctx, value):
    made = ctx.empty(3, requires_grad=bool(value))
    assert made.requires_grad == value
    for calls in bools(ctx).values():
        for call in calls:
            call(value)


def ints(ctx):
    """Every parameter of 32 bits: name -> call(value)."""
    x, y, square, out = tensors()
    place, word = ctx.zeros(8), ctx.zeros(1, dtype=torch.int32)
    workspace = ctx.ccl.all_reduce(y, x)
    return {
        "dim": lambda v: ctx.ops.matmul_reduce_scatter(out, square, square, None, v),
        "gather_dim": lambda v: ctx.ops.all_gather_matmul(out, square, square, None, v),
        "gather_dim ": lambda v: ctx.ops.all_gather_matmul_hbm_buffer(
            out, square, square, gather_dim=v
        ),
        "peer": lambda v: ctx.put(place, x, v),
        "peer ": lambda v: ctx.get(y, place, v),
        "peer  ": lambda v: ctx.signal(word, v),
        "value": lambda v: ctx.signal(word, 0, v),
        "value ": lambda v: ctx.wait(word, v),
        "src": lambda v: ctx.ccl.broadcast(x, v),
        "src ": lambda v: ctx.ccl.scatter(y, x, v),
        "src  ": lambda v: ctx.ccl.recv(y, v),
        "dst": lambda v: ctx.ccl.gather(y, x, v),
        "dst ": lambda v: ctx.ccl.reduce(y, x, v),
        "dst  ": lambda v: ctx.ccl.send(x, v),
        "world_size": lambda v: workspace.matches("all_reduce", (1, 8, 0), "float32", v),
        "world_size ": lambda v: iris_c.ops.auto_config(
            "matmul_all_reduce", 8, 8, 8, "float32", v, "cpu"
        ),
    }


@pytest.mark.parametrize("value", NO_INTS, ids=repr)
def test_ints(ctx, value):
    for name, call in ints(ctx).items():
        with pytest.raises(
            TypeError, match=rf"^{name.strip()}: (expected an int, got|its __index)"
        ):
            call(value)
    for name in ("M", "N", "K"):
        sizes = [value if name == size else 8 for size in ("M", "N", "K")]
        for call in (
            lambda s=sizes: ctx.ops.select_config(*s, "float32"),
            lambda s=sizes: iris_c.ops.auto_config("all_reduce", *s, "float32", 1, "cpu"),
        ):
            with pytest.raises(TypeError, match=rf"^{name}: (expected an int, got|its __index)"):
                call()


@pytest.mark.parametrize("value", TOO_LARGE, ids=lambda value: f"{value.bit_length()} bits")
def test_ints_that_do_not_fit(ctx, value):
    for name, call in ints(ctx).items():
        with pytest.raises(ValueError, match=rf"^{name.strip()}: expected a(n int of 64|.32.bit)"):
            call(value)
    if abs(value) < 2**40:
        return
    with pytest.raises(ValueError, match=r"^M: expected an int of 64 bits, got"):
        ctx.ops.select_config(value, 8, 8, "float32")
    with pytest.raises(ValueError, match=r"^shape: expected "):
        ctx.allocate(value)
    with pytest.raises(ValueError, match=r"^shape: expected "):
        ctx.zeros(2, value)
    with pytest.raises(ValueError, match=r"^output_split_sizes: expected "):
        ctx.ccl.all_to_all(
            torch.zeros(8), torch.ones(8), output_split_sizes=[value], input_split_sizes=[8]
        )


def test_ints_of_other_libraries_are_ints(ctx):
    for one in (numpy.int8(0), numpy.uint64(0), torch.tensor(0)):
        for name, call in ints(ctx).items():
            if name.strip() not in ("world_size", "src  ", "dst  ") and "  " not in name:
                call(one)
    assert ctx.allocate(numpy.int64(3)).shape == (3,)
    assert ctx.allocate((numpy.int64(3), torch.tensor(2))).shape == (3, 2)
    assert ctx.zeros(torch.tensor(3)).shape == (3,)
    assert ctx.zeros(numpy.array([2, 3])).shape == (2, 3)


FIELDS = ["block_size_m", "block_size_n", "block_size_k", "group_size_m", "num_sms", "num_xcds",
          "num_fetch_sms", "k_per_flag"]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_fields_of_configs(field):
    for value in (True, 1.0, "1", [1]):
        with pytest.raises(TypeError, match=rf"^{field}: expected an int, got"):
            iris_c.FusedConfig(**{field: value}).validate(1)
    for value in (2**31, 2**63, HUGE, 0, -1):
        with pytest.raises(ValueError, match=rf"^{field}: expected "):
            iris_c.FusedConfig(**{field: value}).validate(1)
    for value in (True, 2**40, "2"):
        with pytest.raises((TypeError, ValueError), match=r"^world_size: expected "):
            iris_c.FusedConfig().validate(value)


@pytest.mark.parametrize(
    ("value", "error"),
    [("a", TypeError), (None, TypeError), (True, TypeError), (1j, TypeError), ([1], TypeError),
     (HUGE, ValueError), (-1.0, ValueError), (float("nan"), ValueError)],
    ids=short,
)  # fmt: skip
def test_floats(ctx, value, error):
    x, y, _, _ = tensors()
    with pytest.raises(error, match=r"^eps: "):
        ctx.ccl.all_reduce_rmsnorm(y, torch.zeros(8), x, None, x, eps=value)
    with pytest.raises(error, match=r"^timeout: "):
        iris_c.init(heap_size=1 << 20, rank=0, world_size=1, timeout=value)
    if error is ValueError:
        for timeout in (float("inf"), 0, 0.0, -1e-9, 1e300):
            with pytest.raises(ValueError, match=r"^timeout: expected seconds"):
                iris_c.init(heap_size=1 << 20, rank=0, world_size=1, timeout=timeout)
        for eps in (float("inf"), 1e300):
            with pytest.raises(ValueError, match=r"^eps: "):
                ctx.ccl.all_reduce_rmsnorm(y, torch.zeros(8), x, None, x, eps=eps)


NO_TEXT = {
    "null\0": "null characters",
    "float32\0": "null characters",
    "\ud800": "UTF-8",
}


@pytest.mark.parametrize("text", NO_TEXT, ids=ascii)
def test_text(ctx, text):
    x, y, _, _ = tensors()
    word, place = ctx.zeros(1, dtype=torch.int32), ctx.ccl.all_reduce(y, x)
    for name, call in {
        "op": lambda: ctx.ccl.all_reduce(y, x, op="sum" + text),
        "op ": lambda: ctx.signal(word, 0, op="set" + text),
        "compare": lambda: ctx.wait(word, 0, compare="ge" + text),
        "dtype": lambda: ctx.allocate(3, text),
        "operation": lambda: iris_c.FusedWorkspace(ctx, "all_reduce" + text),
        "operation ": lambda: place.matches("all_reduce" + text, (1, 8, 0), "float32", 1),
        "operation  ": lambda: ctx.ops.select_config(8, 8, 8, "float32", operation=text),
        "variant": lambda: place.matches("all_reduce", (1, 8, 0), "float32", 1, text),
        "all_reduce_variant": iris_c.ccl.Config(all_reduce_variant="ring" + text).validate,
        "staged_a_layout": iris_c.FusedConfig(staged_a_layout="k_contiguous" + text).validate,
        "backend": lambda: iris_c.Context(heap_size=1 << 20, backend="cpu" + text),
        "arch": lambda: iris_c.ops.auto_config(
            "matmul_all_reduce", 8, 8, 8, "float32", 1, "cpu" + text
        ),
        "run_key": lambda: iris_c.Context(heap_size=1 << 20, backend="cpu", run_key="a" + text),
    }.items():
        with pytest.raises(ValueError, match=rf"^{name.strip()}: "):
            call()
            pytest.fail(name)


@pytest.mark.parametrize("value", [3, None, b"sum", ["sum"], ...], ids=repr)
def test_what_is_no_text(ctx, value):
    x, y, _, _ = tensors()
    word = ctx.zeros(1, dtype=torch.int32)
    for name, call in {
        "op": lambda: ctx.ccl.all_reduce(y, x, op=value),
        "op ": lambda: ctx.signal(word, 0, op=value),
        "compare": lambda: ctx.wait(word, 0, compare=value),
        "operation": lambda: iris_c.FusedWorkspace(ctx, value),
        "run_key": lambda: iris_c.Context(heap_size=1 << 20, backend="cpu", run_key=value),
        "arch": lambda: iris_c.ops.auto_config("all_reduce", 8, 8, 8, "float32", 1, value),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name.strip()}: expected a str"):
            call()
            pytest.fail(name)


def test_reductions_by_name():
    class Prints:
        def __str__(self):
            return "anything.sum"

    with iris_c.init(heap_size=1 << 22, rank=0, world_size=1) as ctx:
        x, y, _, _ = tensors()
        ReduceOp = torch.distributed.ReduceOp
        for op in ("sum", "SUM", "product", ReduceOp.SUM, ReduceOp.PRODUCT, ReduceOp(ReduceOp.MAX)):
            y.fill_(float("nan"))
            ctx.ccl.all_reduce(y, x, op)
            assert torch.equal(y, x)
            assert torch.equal(iris_c.torch.all_reduce(x, op, ctx=ctx), x)
        for op, error in (
            ("anything.sum", ValueError),
            (ReduceOp.BAND, ValueError),
            (ReduceOp(ReduceOp.BAND), ValueError),
            (Prints(), TypeError),
            (None, TypeError),
        ):
            for call in (
                lambda op=op: ctx.ccl.all_reduce(y, x, op),
                lambda op=op: iris_c.torch.all_reduce(x, op, ctx=ctx),
            ):
                with pytest.raises(error, match=r"^op: expected "):
                    call()
                    pytest.fail(str(op))


@pytest.mark.parametrize("value", [True, -1, 2**64, HUGE, 5, "default", 1.5], ids=short)
def test_streams(ctx, value):
    """The cpu has none: only None, and 0, which means the same."""
    word, place = ctx.zeros(1, dtype=torch.int32), ctx.zeros(8)

    class Stream:
        cuda_stream = value

    for stream in (value, Stream()):
        for call in (
            lambda s=stream: ctx.barrier(s),
            lambda s=stream: ctx.device_barrier(s),
            lambda s=stream: ctx.put(place, torch.ones(8), 0, s),
            lambda s=stream: ctx.get(torch.ones(8), place, 0, s),
            lambda s=stream: ctx.signal(word, 0, stream=s),
            lambda s=stream: ctx.wait(word, 0, stream=s),
            lambda s=stream: ctx.ccl.barrier(s),
        ):
            with pytest.raises((TypeError, ValueError), match=r"^stream: expected "):
                call()
    Stream.cuda_stream = 0
    ctx.barrier(0)
    ctx.barrier(Stream())


@pytest.mark.parametrize("value", [5, "01", b"01", {0: 1}, 1.5, [True], ["0"], [0.0], [2**63]],
                         ids=short)  # fmt: skip
def test_sequences_of_ints(ctx, value):
    x, y, _, _ = tensors()
    with pytest.raises((TypeError, ValueError), match=r"^output_split_sizes: expected "):
        ctx.ccl.all_to_all(y, x, output_split_sizes=value, input_split_sizes=[8])
    for call in (
        lambda: ctx.group(value),
        lambda: ctx.ccl.all_reduce(y, x, group=value),
        lambda: ctx.ccl.barrier(group=value),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^group: expected "):
            call()
    if value not in (5, [2**63]):
        with pytest.raises(TypeError, match=r"^shape: expected "):
            ctx.allocate(value)
    for heap_size in (0, -1, True, "1", 2**63):
        with pytest.raises((TypeError, ValueError), match=r"^heap_size: expected "):
            ctx.group([0], heap_size)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("heap_size", [0, -1, 2**46 + 1, 2**63, HUGE, True, 1e9, "1", None]),
        ("world_size", [0, -1, 33, 2**31, HUGE, True, 1.0, "1", None]),
        ("rank", [-1, 1, 2**31, HUGE, True, 1.0, "0", None]),
        ("local_rank", [2**31, HUGE, True, 1.0, "0", None]),
        ("num_threads", [-1, 257, 2**31, HUGE, True, 1.0, "0", None]),
        ("ranks", [[0, 1], "0", [True], [2**63], 3]),
    ],
)
def test_options_of_a_context(name, values):
    for value in values:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected "):
            iris_c.Context(**{"heap_size": 1 << 20, "backend": "cpu", name: value})
            pytest.fail(f"{name}={value}")


@pytest.mark.parametrize("value", ["0", 0.0, True, [0]], ids=repr)
def test_rank_and_world_size_of_init(value):
    with pytest.raises(TypeError, match=r"^rank: expected an int, got"):
        iris_c.init(heap_size=1 << 20, rank=value, world_size=1)
    with pytest.raises(TypeError, match=r"^world_size: expected an int, got"):
        iris_c.init(heap_size=1 << 20, rank=0, world_size=value)


NAMES = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "IRIS_C_NUM_THREADS",
         "OMP_NUM_THREADS", "IRIS_C_TIMEOUT", "IRIS_C_BACKEND", "IRIS_C_CPU_ISA",
         "IRIS_C_DEBUG"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["zzz", "-1", "1.5.5", "1_0", "\u0665", "9" * 30, "9" * 5000,
                                  "nan", "\udcff", "0x1"])  # fmt: skip
def test_environment(name, text):
    environ = {"RANK": "0", "WORLD_SIZE": "1", name: text}
    with pytest.raises(ValueError, match=rf"^{name}: expected "):
        context_options(1 << 20, environ=environ)


def test_environment_is_right_as_documented():
    def options(**environ):
        return context_options(1 << 20, environ=environ)

    assert options(OMP_NUM_THREADS="3,2")["num_threads"] == 3
    assert options(OMP_NUM_THREADS="100000")["num_threads"] == 256
    assert options(IRIS_C_DEBUG="0")["debug"] is False
    assert options(IRIS_C_DEBUG="1")["debug"] is True
    for isa in ("", "avx512", "avx2", "generic"):
        options(IRIS_C_CPU_ISA=isa)


def test_names_of_runs_may_be_any_bytes():
    """An environment variable is bytes; a run's name need not be text."""
    code = (
        "import os, iris_c\n"
        "with iris_c.init(heap_size=1 << 20) as ctx:\n"
        "    group = ctx.group([0])\n"
        "    other = iris_c.FusedWorkspace(group, 'all_reduce')\n"
        "    x = ctx.zeros(4)\n"
        "    try:\n"
        "        ctx.ccl.all_reduce(x, x, workspace=other)\n"
        "    except ValueError as error:\n"
        "        print('group (0,)' in str(error))\n"
    )
    environment = {**os.environb, b"TORCHELASTIC_RUN_ID": b"run \xff\xfe", b"RANK": b"0",
                   b"WORLD_SIZE": b"1", b"IRIS_C_BACKEND": b"cpu"}  # fmt: skip
    environment[b"PYTHONPATH"] = os.fsencode(os.pathsep.join(path for path in sys.path if path))
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert result.stdout.split() == ["True"], result.stderr


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.linspace(0, 1, (5,)), TypeError, "steps: expected an int, got tuple"),
        (lambda c: c.linspace(0, 1, 5.0), TypeError, "steps: expected an int, got float"),
        (lambda c: c.linspace(0, 1, True), TypeError, "steps: expected an int, got bool"),
        (lambda c: c.linspace(0, 1, -1), ValueError, "steps: expected >= 0, got -1"),
        (lambda c: c.linspace("0", 1, 5), TypeError, "start: expected a number, got str"),
        (lambda c: c.linspace(0, float("nan"), 5), ValueError, "end: expected a finite number"),
        (lambda c: c.arange("5"), TypeError, "end: expected a number, got str"),
        (lambda c: c.arange(0, float("nan")), ValueError, "end: expected a finite number"),
        (lambda c: c.arange(0, 5, float("inf")), ValueError, "step: expected a finite number"),
        (lambda c: c.arange(0, 5, [1]), TypeError, "step: expected a number, got list"),
        (lambda c: c.arange(2**80), ValueError, "shape: expected|end: expected"),
        (lambda c: c.zeros(2.0), TypeError, "shape: expected ints or one sequence of ints, got f"),
        (lambda c: c.zeros(True), TypeError, "shape: expected ints or one sequence of ints, got b"),
        (lambda c: c.zeros("23"), TypeError, "shape: expected ints"),
        (lambda c: c.zeros(b"23"), TypeError, "shape: expected ints"),
        (lambda c: c.zeros({2, 3}), TypeError, "shape: expected ints"),
        (lambda c: c.zeros({2: 3}), TypeError, "shape: expected ints"),
        (lambda c: c.zeros((2, 3), 4), TypeError, "shape: expected ints"),
        (lambda c: c.zeros((2, 3.0)), TypeError, "shape: expected ints"),
        (lambda c: c.zeros(None), TypeError, "shape: expected ints"),
        (lambda c: c.zeros(torch.ones(2, 2)), TypeError, "shape: expected ints"),
        (lambda c: c.zeros(2, dtype=0), ValueError, "dtype: expected"),
        (lambda c: c.zeros(2, dtype=""), ValueError, "dtype: expected"),
        (lambda c: c.full((2,), "a"), TypeError, "fill_value: expected a number, got str"),
        (lambda c: c.full((2,), None), TypeError, "fill_value: expected a number, got NoneType"),
        (lambda c: c.full((2,), 2**70), ValueError, "fill_value: expected a value that"),
        (lambda c: c.full((2,), 1j), ValueError, "fill_value: expected a value that"),
        (lambda c: c.randint(5.0, (2,)), TypeError, "high: expected an int, got float"),
        (lambda c: c.randint(True, (2,)), TypeError, "high: expected an int, got bool"),
        (lambda c: c.randint(0, 5), ValueError, r"high: expected"),
        (lambda c: c.uniform(2, low=1, high=0), ValueError, r"high: expected >= low \(1\), got 0"),
        (lambda c: c.uniform(2, low=float("nan")), ValueError, "low: expected a finite number"),
        (lambda c: c.empty_like(3), TypeError, "tensor: expected a tensor, got int"),
        (lambda c: c.zeros_like([1.0]), TypeError, "tensor: expected a tensor, got list"),
        (lambda c: c.zeros_like(torch.Tensor), TypeError, "tensor: expected a tensor, got "),
        (lambda c: c.as_symmetric([1.0]), TypeError, "tensor: expected a tensor, got list"),
    ],
)  # fmt: skip
def test_creation(ctx, call, error, message):
    with pytest.raises(error, match=rf"^({message})"):
        call(ctx)
    assert ctx.heap_used == 0


def test_creation_in_torchs_spellings(ctx):
    for ours, theirs in (
        (ctx.arange(end=5), torch.arange(end=5)),
        (ctx.arange(start=1, end=5, step=2), torch.arange(start=1, end=5, step=2)),
        (ctx.linspace(start=0, end=1, steps=5), torch.linspace(start=0, end=1, steps=5)),
        (ctx.linspace(0, 1, torch.tensor(5)), torch.linspace(0, 1, 5)),
        (ctx.full(size=(2,), fill_value=3), torch.full(size=(2,), fill_value=3)),
        (ctx.full((2,), torch.tensor(3.0)), torch.full((2,), 3.0)),
        (ctx.full(2, True), torch.full((2,), True)),
    ):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    for arguments in ({"high": 5}, {"low": 2, "high": 5}):
        drawn = ctx.randint(**arguments, size=(100,))
        assert arguments.get("low", 0) <= int(drawn.min())
        assert int(drawn.max()) < 5
