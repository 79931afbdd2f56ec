# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The Python face in a world of one rank: context, tensors, Buffer, errors, lifetimes.

No spawner, no peers: whatever needs a second rank is tested elsewhere.
"""

import gc
import inspect
import os
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import torch

import iris_c
from iris_c import _C
from iris_c.environment import KERNEL_DIRECTORY, context_options, default_num_threads

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ALL_DTYPES = [
    *DTYPES,
    torch.float64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
NOT_OF_NUMPY = [dtype for dtype in ALL_DTYPES if "float8" in str(dtype) or dtype == torch.bfloat16]


def run_python(arguments, **options):
    """A new interpreter that imports what this one imports, not what lies in its directory."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, "-P", *arguments], env={**os.environ, "PYTHONPATH": path}, **options
    )


@pytest.fixture
def ctx():
    context = iris_c.Context(
        heap_size=1 << 24, backend="cpu", num_threads=2, timeout=20.0, run_key="world-of-one"
    )
    yield context
    context.close()


# ---- the module ----


def test_import_loads_neither_torch_nor_numpy():
    code = "import iris_c, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    result = run_python(["-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["False", "False"], result.stderr


def test_environment_report():
    result = run_python(["-m", "iris_c"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for key in ("iris_c", "backends", "cpu ISA", "torch"):
        assert key in result.stdout


@pytest.mark.parametrize("name", [*_C.__dict__])
def test_functions_have_signatures_and_docstrings(name):
    function = getattr(_C, name)
    if not callable(function) or isinstance(function, type) or name.startswith("__"):
        return
    assert inspect.signature(function)
    assert function.__doc__


def test_signature_of_matmul_all_reduce():
    parameters = inspect.signature(iris_c.ops.matmul_all_reduce).parameters
    names = ["ctx", "C", "A", "B", "bias", "async_op", "config", "workspace", "trace"]
    assert list(parameters) == names
    assert parameters["trace"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (iris_c.HeapExhausted, MemoryError),
        (iris_c.PeerError, RuntimeError),
        (iris_c.SignalTimeout, TimeoutError),
        (iris_c.BackendError, RuntimeError),
    ],
)
def test_exceptions_extend_builtin_ones(error, base):
    assert issubclass(error, base)
    assert error.__module__ == "iris_c"


# ---- context ----


def test_context_attributes(ctx):
    assert (ctx.rank, ctx.world_size, ctx.backend) == (0, 1, "cpu")
    assert (ctx.get_rank(), ctx.get_num_ranks()) == (0, 1)
    assert ctx.get_cu_count() >= 1
    assert ctx.device == ctx.get_device() == torch.device("cpu")
    assert ctx.heap_size == 1 << 24
    assert ctx.heap_used == 0
    assert "rank=0" in repr(ctx)
    assert "world_size=1" in repr(ctx)


def test_heap_bases_locate_tensors(ctx):
    bases = ctx.get_heap_bases()
    assert bases.shape == (1,)
    assert bases.dtype == torch.int64
    tensor = ctx.empty(4)
    assert 0 <= tensor.data_ptr() - int(bases[0]) < ctx.heap_size


def test_barriers(ctx):
    """Alone there is nobody to wait for: they return at once, and the context goes on."""
    started = time.monotonic()
    for barrier in (ctx.barrier, ctx.device_barrier, ctx.ccl.barrier):
        assert barrier() is None
        assert barrier(stream=None) is None
    assert iris_c.ccl.barrier(ctx) is None
    assert time.monotonic() - started < 10.0, "far below the timeout"
    assert ctx.zeros(4).sum() == 0


def test_with_statement_closes():
    with iris_c.init(1 << 20) as context:
        assert not context.closed
    assert context.closed
    context.close()
    assert "closed" in repr(context)


def test_closed_context_refuses_and_tensors_stay_readable():
    context = iris_c.init(1 << 20)
    tensor = context.full((8,), 3.0)
    context.close()
    assert tensor.tolist() == [3.0] * 8
    with pytest.raises(RuntimeError):
        context.zeros(8)


def test_tensor_outlives_its_context():
    context = iris_c.init(1 << 20)
    tensor = context.full((1000,), 7.0)
    dead = weakref.ref(context)
    del context
    assert dead() is None, "a context must not be kept by a reference cycle"
    assert tensor.eq(7.0).all()


def test_contexts_side_by_side():
    contexts = [iris_c.init(1 << 20) for _ in range(3)]
    tensors = [context.full((4,), float(i)) for i, context in enumerate(contexts)]
    assert [tensor[0].item() for tensor in tensors] == [0.0, 1.0, 2.0]
    assert [c.is_symmetric(tensors[0]) for c in contexts] == [True, False, False]
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heap_size": 0}, "heap_size"),
        ({"backend": "abacus"}, "backend"),
        ({"timeout": 0.0}, "timeout"),
        ({"rank": 1, "world_size": 1}, "rank"),
        ({"world_size": 0}, "world_size"),
    ],
)
def test_context_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        iris_c.Context(**{"heap_size": 1 << 20, **options})


def test_is_symmetric(ctx):
    tensor = ctx.empty(6, 8)
    assert ctx.is_symmetric(tensor)
    assert ctx.is_symmetric(tensor.t()[2:, 1:4])
    assert ctx.is_symmetric(ctx.allocate(16))
    assert not ctx.is_symmetric(torch.empty(6, 8))
    assert not ctx.is_symmetric(np.empty(3))


# ---- environment ----


def test_environment_defaults_to_a_world_of_one():
    options = context_options(1, environ={})
    assert (options["rank"], options["world_size"], options["local_rank"]) == (0, 1, 0)
    assert options["timeout"] == 30.0
    assert options["backend"] is None
    assert not options["debug"]


def test_environment_of_torchrun():
    environ = {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "run",
        "TORCHELASTIC_RESTART_COUNT": "2",
        "IRIS_C_BACKEND": "cpu",
        "IRIS_C_TIMEOUT": "2.5",
        "IRIS_C_DEBUG": "1",
        "OMP_NUM_THREADS": "5",
    }
    assert context_options(7, environ=environ) == {
        "heap_size": 7,
        "backend": "cpu",
        "kernel_directory": KERNEL_DIRECTORY,
        "rank": 3,
        "world_size": 4,
        "local_rank": 1,
        "timeout": 2.5,
        "run_key": "localhost/29500/run/2",
        "num_threads": 5,
        "debug": True,
        "source": "RANK and WORLD_SIZE",
    }
    assert context_options(7, timeout=1.0, environ=environ)["timeout"] == 1.0
    assert context_options(7, rank=0, world_size=2, environ=environ)["world_size"] == 2


def test_number_of_threads():
    assert default_num_threads(1, {"IRIS_C_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}) == 3
    assert default_num_threads(1000, {}) == 1


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        ({"rank": 0}, {}, "rank: given without world_size"),
        ({"world_size": 2}, {}, "world_size: given without rank"),
        ({"rank": 2, "world_size": 2}, {}, "rank: expected 0 <= rank < 2"),
        ({"rank": -1, "world_size": 2}, {}, "rank: expected"),
        ({"rank": 0, "world_size": 0}, {}, "world_size: expected >= 1"),
        ({}, {"RANK": "0"}, "RANK: set without WORLD_SIZE"),
        ({}, {"WORLD_SIZE": "2"}, "WORLD_SIZE: set without RANK"),
        ({}, {"RANK": "5", "WORLD_SIZE": "2"}, "RANK: expected 0 <= rank < 2"),
        ({}, {"RANK": "one", "WORLD_SIZE": "2"}, "RANK: expected an integer, got 'one'"),
        ({}, {"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE: expected an integer"),
        ({}, {"LOCAL_RANK": "x"}, "LOCAL_RANK: expected an integer"),
        ({}, {"IRIS_C_NUM_THREADS": "0"}, "IRIS_C_NUM_THREADS: expected >= 1"),
        ({}, {"IRIS_C_TIMEOUT": "soon"}, "IRIS_C_TIMEOUT: expected seconds"),
        ({}, {"IRIS_C_TIMEOUT": "-1"}, "IRIS_C_TIMEOUT: expected seconds > 0"),
    ],
)
def test_environment_errors_name_the_variable(arguments, environ, message):
    with pytest.raises(ValueError, match=message):
        context_options(1, **arguments, environ=environ)


# ---- creation functions ----


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_zeros_ones_full_of_every_dtype(ctx, dtype):
    for tensor, value in [
        (ctx.zeros(3, 5, dtype=dtype), 0),
        (ctx.ones((3, 5), dtype=dtype), 1),
        (ctx.full([3, 5], 1, dtype=dtype), 1),
    ]:
        assert isinstance(tensor, torch.Tensor)
        assert tensor.shape == (3, 5)
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()
        assert ctx.is_symmetric(tensor)
        assert torch.equal(tensor, torch.full((3, 5), value, dtype=dtype))


@pytest.mark.parametrize(
    ("size", "shape"),
    [((), ()), ((4,), (4,)), ((2, 3), (2, 3)), (((2, 3),), (2, 3)), (([[2, 3]],), (2, 3)),
     ((torch.Size([2, 3]),), (2, 3)), ((0,), (0,)), ((3, 0, 2), (3, 0, 2))],
)  # fmt: skip
def test_sizes_in_torchs_spellings(ctx, size, shape):
    assert ctx.empty(*size).shape == shape
    assert ctx.zeros(*size).shape == shape
    assert ctx.rand(*size).shape == shape


def test_full_infers_its_dtype(ctx):
    assert ctx.full((2,), 1).dtype == torch.int64
    assert ctx.full((2,), 1.0).dtype == torch.float32
    assert ctx.full((2,), True).dtype == torch.bool


def test_random_numbers_are_torchs(ctx):
    cases = [
        (lambda: ctx.rand(5, 7), lambda: torch.rand(5, 7)),
        (lambda: ctx.randn(5, 7), lambda: torch.randn(5, 7)),
        (lambda: ctx.randint(9, (5, 7)), lambda: torch.randint(9, (5, 7))),
        (lambda: ctx.randint(-3, 9, (5, 7)), lambda: torch.randint(-3, 9, (5, 7))),
        (lambda: ctx.uniform(5, 7, low=-2.0, high=3.0), lambda: torch.empty(5, 7).uniform_(-2, 3)),
    ]
    for ours, theirs in cases:
        torch.manual_seed(11)
        got = ours()
        torch.manual_seed(11)
        expected = theirs()
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
        assert ctx.is_symmetric(got)


@pytest.mark.parametrize("arguments", [(5,), (2, 9), (9, 2, -3), (0.0, 1.0, 0.3), (4, 4)], ids=str)
def test_arange(ctx, arguments):
    got, expected = ctx.arange(*arguments), torch.arange(*arguments)
    assert got.dtype == expected.dtype
    assert torch.equal(got, expected)


def test_linspace(ctx):
    assert torch.equal(ctx.linspace(-1, 1, 9), torch.linspace(-1, 1, 9))
    assert ctx.linspace(0, 1, 0).shape == (0,)


def test_like(ctx):
    source = torch.randn(4, 6, dtype=torch.float16).t()
    zeros = ctx.zeros_like(source)
    assert zeros.shape == source.shape
    assert zeros.dtype == source.dtype
    assert not zeros.any()
    assert ctx.empty_like(source, dtype=torch.int32).dtype == torch.int32
    copy = ctx.as_symmetric(source)
    assert torch.equal(copy, source)
    assert ctx.is_symmetric(copy)
    assert copy.is_contiguous()


def test_device_and_layout_may_only_agree(ctx):
    assert ctx.zeros(2, device="cpu", layout=torch.strided).shape == (2,)
    with pytest.raises(ValueError, match="device: expected cpu"):
        ctx.zeros(2, device="cuda")
    with pytest.raises(ValueError, match=r"layout: expected torch\.strided"):
        ctx.zeros(2, layout=torch.sparse_coo)


def test_requires_grad(ctx):
    assert ctx.randn(3, requires_grad=True).requires_grad
    assert not ctx.randn(3).requires_grad


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda ctx: ctx.zeros(-1), ValueError, "shape: expected sizes >= 0, got -1"),
        (lambda ctx: ctx.zeros("ab"), TypeError, "shape"),
        (lambda ctx: ctx.zeros(2, dtype=torch.complex32), ValueError, "dtype: expected"),
        (lambda ctx: ctx.zeros(*[1] * 9), ValueError, "at most 8 dimensions"),
        (lambda ctx: ctx.zeros(1 << 40, 1 << 40), ValueError, "more bytes than addresses"),
        (lambda ctx: ctx.randint(5, 5, (2,)), ValueError, "high: expected > low"),
        (lambda ctx: ctx.randint((2,)), TypeError, "randint"),
        (lambda ctx: ctx.arange(1, 5, 0), ValueError, "step"),
        (lambda ctx: ctx.arange(5, 1), ValueError, "does not lead from 5 to 1"),
        (lambda ctx: ctx.linspace(0, 1, -1), ValueError, "got -1"),
    ],
)
def test_creation_errors(ctx, call, error, message):
    with pytest.raises(error, match=message):
        call(ctx)


# ---- memory ----


def test_freed_memory_returns(ctx):
    before = ctx.heap_used
    tensor = ctx.empty(1000)
    view = tensor[10:20]
    assert ctx.heap_used > before
    del tensor
    assert ctx.heap_used > before, "a view keeps the memory"
    del view
    gc.collect()
    assert ctx.heap_used == before


def test_memory_is_reused_for_ever(ctx):
    for _ in range(50):
        ctx.empty(ctx.heap_size // 2, dtype=torch.uint8)
    assert ctx.heap_used == 0


def test_heap_exhausted(ctx):
    with pytest.raises(iris_c.HeapExhausted, match="heap") as caught:
        ctx.empty(ctx.heap_size + 1, dtype=torch.uint8)
    assert caught.value.asked >= ctx.heap_size + 1
    assert caught.value.heap_size == ctx.heap_size
    assert 0 <= caught.value.free <= ctx.heap_size
    assert ctx.zeros(4).shape == (4,), "the context still works"


# ---- Buffer ----


def test_buffer_attributes(ctx):
    first = ctx.allocate(100)
    buffer = ctx.allocate((3, 4), torch.float16)
    assert (first.shape, first.nbytes, first.dtype) == ((100,), 100, torch.uint8)
    assert buffer.shape == (3, 4)
    assert buffer.strides == (4, 1)
    assert buffer.ndim == 2
    assert (buffer.dtype, buffer.nbytes, len(buffer)) == (torch.float16, 24, 3)
    assert buffer.offset == torch.from_dlpack(buffer).data_ptr() - int(ctx.get_heap_bases()[0])
    assert buffer.offset != first.offset
    assert "shape=(3, 4), dtype=float16" in repr(buffer)
    assert weakref.ref(buffer)() is buffer
    with pytest.raises(TypeError):
        type(buffer)()
    with pytest.raises(TypeError, match="0-dimensional"):
        len(ctx.allocate(()))


@pytest.mark.parametrize(
    "dtype", ["float16", "torch.float16", torch.float16, np.float16, np.dtype("float16")], ids=str
)
def test_dtypes_in_every_spelling(ctx, dtype):
    assert ctx.allocate(2, dtype).dtype == torch.float16


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_dlpack_to_torch_shares_memory(ctx, dtype):
    buffer = ctx.allocate((2, 3), dtype)
    one, two = torch.from_dlpack(buffer), torch.from_dlpack(buffer)
    one.fill_(1)
    assert two.dtype == dtype
    assert two.eq(1).all()
    assert one.data_ptr() == two.data_ptr()


@pytest.mark.parametrize("dtype", [d for d in ALL_DTYPES if d not in NOT_OF_NUMPY], ids=str)
def test_numpy_shares_memory(ctx, dtype):
    buffer = ctx.allocate((2, 3), dtype)
    view, imported = np.asarray(buffer), np.from_dlpack(buffer)
    view[...] = 1
    assert str(view.dtype) == str(dtype).removeprefix("torch.")
    assert view.dtype == imported.dtype
    assert (imported == 1).all()
    assert torch.from_dlpack(buffer).eq(1).all()


@pytest.mark.parametrize("dtype", NOT_OF_NUMPY, ids=str)
def test_some_dtypes_have_no_buffer_format(ctx, dtype):
    buffer = ctx.allocate((2, 3), dtype)
    with pytest.raises(BufferError, match="use DLPack"):
        memoryview(buffer)


def test_memoryview(ctx):
    view = memoryview(ctx.allocate((2, 3), "int32"))
    assert (view.shape, view.strides, view.format) == ((2, 3), (12, 4), "i")
    view[1, 2] = 5
    assert view.tolist()[1][2] == 5
    assert view.c_contiguous
    assert not view.readonly


def test_dlpack_capsules(ctx):
    before = ctx.heap_used
    buffer = ctx.allocate(16, "int64")
    assert buffer.__dlpack_device__() == (1, 0)
    assert '"dltensor"' in repr(buffer.__dlpack__())
    assert '"dltensor"' in repr(buffer.__dlpack__(max_version=(0, 8)))
    versioned = buffer.__dlpack__(max_version=(1, 0), dl_device=(1, 0), copy=False, stream=None)
    assert '"dltensor_versioned"' in repr(versioned)
    del buffer
    assert ctx.heap_used > before, "an unused capsule keeps the memory"
    del versioned
    assert ctx.heap_used == before


def test_dlpack_copy_is_separate(ctx):
    buffer = ctx.allocate(4, "int32")
    original = np.asarray(buffer)
    original[...] = 1
    copy = np.from_dlpack(buffer, copy=True)
    original[...] = 2
    assert copy.tolist() == [1] * 4


def test_dlpack_refusals(ctx):
    buffer = ctx.allocate(4)
    with pytest.raises(BufferError, match="dl_device: expected"):
        buffer.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="stream"):
        buffer.__dlpack__(stream=1)
    with pytest.raises(TypeError, match="max_version"):
        buffer.__dlpack__(max_version=1)


@pytest.mark.parametrize("export", [torch.from_dlpack, np.from_dlpack, np.asarray, memoryview])
def test_exports_keep_the_memory(ctx, export):
    before = ctx.heap_used
    buffer = ctx.allocate(64, "float32")
    exported = export(buffer)
    del buffer
    assert ctx.heap_used > before
    del exported
    gc.collect()
    assert ctx.heap_used == before


# ---- matmul_all_reduce ----


def poisoned(ctx, M, N, dtype):
    return ctx.full((M, N), float("nan"), dtype=dtype)


def tolerance(dtype, K):
    eps = {torch.float32: 2**-23, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    return {"rtol": 4 * eps, "atol": 2**-22 * K + 4 * eps}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("M", "N", "K"), [(1, 1, 1), (33, 20, 50), (128, 65, 7)])
def test_matmul_all_reduce(ctx, dtype, M, N, K):
    torch.manual_seed(1)
    A, B, bias = torch.randn(M, K, dtype=dtype), torch.randn(K, N, dtype=dtype), torch.randn(N)
    bias = bias.to(dtype)
    C = poisoned(ctx, M, N, dtype)
    ctx.ops.matmul_all_reduce(C, A, B)
    expected = A.double() @ B.double()
    torch.testing.assert_close(C.double(), expected, **tolerance(dtype, K))
    iris_c.ops.matmul_all_reduce(ctx, C, A, B, bias=bias)
    torch.testing.assert_close(C.double(), expected + bias.double(), **tolerance(dtype, K))


@pytest.mark.parametrize("variant", ["atomic", "spinlock", "one_shot", "two_shot", "ring", None])
def test_matmul_all_reduce_variants(ctx, variant):
    A, B, C = torch.randn(40, 30), torch.randn(30, 50), poisoned(ctx, 40, 50, torch.float32)
    config = iris_c.FusedConfig(all_reduce_variant=variant)
    workspace = ctx.ops.matmul_all_reduce(C, A, B, config=config)
    torch.testing.assert_close(C, A @ B, rtol=1e-5, atol=1e-5)
    assert workspace.variant == variant or variant is None


def test_every_kind_of_tensor_is_accepted(ctx):
    A, B = torch.randn(8, 5), torch.randn(5, 6)
    expected = A @ B
    buffers = [ctx.allocate(shape, "float32") for shape in ((8, 6), (8, 5), (5, 6))]
    torch.from_dlpack(buffers[1]).copy_(A)
    torch.from_dlpack(buffers[2]).copy_(B)

    class Exporter:  # knows nothing but DLPack, as before its version 1.0
        def __init__(self, tensor):
            self.tensor = tensor

        def __dlpack__(self, stream=None):
            return self.tensor.__dlpack__()

    frozen = A.numpy().copy()
    frozen.flags.writeable = False
    for a, b in [
        (A, B),
        (torch.nn.Parameter(A), B.clone().requires_grad_()),
        (A.numpy(), B.numpy()),
        (frozen, memoryview(B.numpy())),
        (Exporter(A), Exporter(B)),
        (A.t().contiguous().t(), B.t().contiguous().t()),
        (buffers[1], buffers[2]),
    ]:
        C = poisoned(ctx, 8, 6, torch.float32)
        with torch.no_grad():
            ctx.ops.matmul_all_reduce(C, a, b)
        torch.testing.assert_close(C, expected)
    for C in (buffers[0], np.full((8, 6), np.nan, np.float32), torch.full((8, 6), torch.nan)):
        ctx.ops.matmul_all_reduce(C, A, B)
        torch.testing.assert_close(torch.as_tensor(np.asarray(C)), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"A": [[1.0]]}, TypeError, "A: expected a tensor .* got list"),
        ({"C": None}, TypeError, "C: expected a tensor .* got NoneType"),
        ({"B": torch.zeros(5, 6, dtype=torch.complex32)}, ValueError, "B: unsupported dtype"),
        ({"B": torch.zeros(5, 6, dtype=torch.float16)}, ValueError, "B"),
        ({"B": torch.zeros(4, 6)}, ValueError, "B"),
        ({"A": torch.zeros(5)}, ValueError, "A"),
        ({"C": torch.zeros(8, 7)}, ValueError, "C"),
        ({"config": {"block_size_m": 64}}, TypeError, "config: expected .* got dict"),
        ({"config": iris_c.FusedConfig(block_size_m=-1)}, ValueError, "block_size_m.*-1"),
        ({"config": iris_c.FusedConfig(block_size_m="x")}, TypeError, "block_size_m.*str"),
        ({"config": iris_c.FusedConfig(all_reduce_variant="best")}, ValueError, "best"),
        ({"workspace": 3}, TypeError, "workspace: expected .* got int"),
        ({"bias": "x"}, TypeError, "bias: expected a tensor"),
        ({"bias": torch.zeros(7)}, ValueError, "bias"),
    ],
    ids=str,
)
def test_matmul_all_reduce_errors(ctx, change, error, message):
    arguments = {"C": ctx.zeros(8, 6), "A": torch.zeros(8, 5), "B": torch.zeros(5, 6), **change}
    with pytest.raises(error, match=message):
        ctx.ops.matmul_all_reduce(**arguments)


def test_output_must_be_writable(ctx):
    frozen = np.zeros((8, 6), np.float32)
    frozen.flags.writeable = False
    for output in (frozen, bytes(8)):
        with pytest.raises(ValueError, match="C: expected a writable tensor"):
            ctx.ops.matmul_all_reduce(output, torch.zeros(8, 5), torch.zeros(5, 6))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"missing 4 required positional arguments: 'ctx', 'C', 'A', and 'B'"),
        ((1, 2), {}, r"missing 2 required positional arguments: 'A' and 'B'"),
        ((1, 2, 3), {}, r"missing 1 required positional argument: 'B'"),
        ((1,) * 9, {}, r"takes from 4 to 8 positional arguments but 9 were given"),
        ((1, 2, 3, 4), {"D": 1}, r"got an unexpected keyword argument 'D'"),
        ((1, 2, 3, 4), {"C": 1}, r"got multiple values for argument 'C'"),
        ((1, 2, 3, 4), {}, r"ctx: expected an iris_c.Context, got int"),
    ],
)
def test_call_errors_are_worded_as_pythons(args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        iris_c.ops.matmul_all_reduce(*args, **kwargs)


# ---- workspace and config ----


def test_workspace(ctx):
    A, B, C = torch.randn(8, 5), torch.randn(5, 6), ctx.zeros(8, 6)
    before = ctx.heap_used
    workspace = iris_c.FusedWorkspace(ctx)
    assert (workspace.operation, workspace.shape) == ("matmul_all_reduce", (0, 0, 0))
    assert (workspace.dtype, workspace.call_counter, workspace.nbytes) == (None, 0, 0)
    assert not workspace.prepared
    assert ctx.heap_used == before
    returned = ctx.ops.matmul_all_reduce_preamble(C, A, B, workspace=workspace)
    assert returned is workspace
    assert workspace.prepared
    assert workspace.call_counter == 0
    assert ctx.ops.matmul_all_reduce(C, A, B, workspace=workspace) is workspace
    assert workspace.shape == (8, 6, 5)
    assert workspace.dtype == torch.float32
    assert (workspace.call_counter, workspace.world_size) == (1, 1)
    assert workspace.matches("matmul_all_reduce", (8, 6, 5), torch.float32, 1)
    assert workspace.matches("matmul_all_reduce", [8, 6, 5], "float32", 1, workspace.variant)
    assert not workspace.matches("all_reduce", (8, 6, 5), torch.float32, 1)
    assert not workspace.matches("matmul_all_reduce", (8, 6, 4), torch.float32, 1)
    assert not workspace.matches("matmul_all_reduce", (8, 6, 5), torch.float16, 1)
    assert not workspace.matches("matmul_all_reduce", (8, 6, 5), torch.float32, 2)
    assert not workspace.matches("matmul_all_reduce", (8, 6, 5), torch.float32, 1, "ring")
    assert "call_counter=1" in repr(workspace)
    workspace.reset()
    assert not workspace.prepared
    ctx.ops.matmul_all_reduce(C, A, B, workspace=workspace)
    assert workspace.prepared
    assert workspace.call_counter == 2
    torch.testing.assert_close(C, A @ B)
    workspace.clear()
    assert (workspace.call_counter, workspace.nbytes) == (0, 0)
    assert ctx.heap_used == before
    ctx.ops.matmul_all_reduce(C, A, B, workspace=workspace)
    torch.testing.assert_close(C, A @ B)


def test_dropped_workspace_gives_its_memory_back(ctx):
    C = ctx.zeros(8, 6)
    before = ctx.heap_used
    workspace = iris_c.FusedWorkspace(ctx)
    ctx.ops.matmul_all_reduce(C, torch.randn(8, 5), torch.randn(5, 6), workspace=workspace)
    assert ctx.heap_used > before
    del workspace
    assert ctx.heap_used == before


def test_the_contexts_own_workspace(ctx):
    A, B, C = torch.randn(8, 5), torch.randn(5, 6), ctx.zeros(8, 6)
    first = ctx.ops.matmul_all_reduce(C, A, B)
    assert ctx.ops.matmul_all_reduce(C, A, B) is first
    assert ctx.ccl.all_reduce(ctx.zeros(4), ctx.ones(4)).operation == "all_reduce"
    first._set_calls(7)
    ctx.ops.matmul_all_reduce(C, A, B)
    assert first.call_counter == 8
    torch.testing.assert_close(C, A @ B)


def test_workspace_arguments():
    with iris_c.init(1 << 20) as context:
        with pytest.raises(ValueError, match="operation: expected"):
            iris_c.FusedWorkspace(context, "matmul_divide")
        with pytest.raises(TypeError):
            iris_c.FusedWorkspace(3)
        with pytest.raises(TypeError, match="operation: expected a str, got int"):
            iris_c.FusedWorkspace(context).matches(1, (1, 1, 1), "float32", 1)


def test_config_is_a_frozen_value():
    assert iris_c.FusedConfig(64, 64) == iris_c.FusedConfig(block_size_m=64, block_size_n=64)
    assert iris_c.FusedConfig().all_reduce_variant == "two_shot"
    with pytest.raises(AttributeError):
        iris_c.FusedConfig().block_size_m = 3
    iris_c.FusedConfig().validate()
    iris_c.FusedConfig(64, 64, 32).validate(world_size=4)
    iris_c.ccl.Config(all_reduce_variant="one_shot").validate()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("block_size_m", 0),
        ("block_size_n", -64),
        ("block_size_k", 0),
        ("group_size_m", 0),
        ("num_sms", -1),
        ("num_xcds", 0),
        ("num_fetch_sms", 0),
        ("k_per_flag", -2),
        ("all_reduce_variant", "three_shot"),
    ],
)
def test_config_validation_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}.*{value}"):
        iris_c.FusedConfig(**{field: value}).validate()


def test_selected_config_is_complete(ctx):
    config = ctx.ops.select_config(128, 64, 32, torch.float16)
    assert config.block_size_m > 0
    assert config.num_sms > 0
    config.validate(1)
    config = iris_c.ops.select_config(ctx, 128, 64, 32, "float32", iris_c.FusedConfig(16))
    assert config.block_size_m == 16


def test_each_config_object_counts(ctx):
    """More configs than the extension remembers, in turn: each call runs as its own says."""
    A, B, C = torch.randn(40, 9), torch.randn(9, 40), ctx.zeros(40, 40)
    variants = ["atomic", "spinlock", "one_shot", "two_shot", "ring"]
    kept = [iris_c.FusedConfig(16, all_reduce_variant=variant) for variant in variants]
    for turn in range(20):
        variant = variants[turn % 5]
        fresh = iris_c.FusedConfig(32, all_reduce_variant=variant)
        for config in (kept[turn % 5], fresh):
            C.fill_(torch.nan)
            assert ctx.ops.matmul_all_reduce(C, A, B, config=config).variant == variant
            torch.testing.assert_close(C, A @ B, rtol=1e-5, atol=1e-5)


# ---- collectives ----


def test_collectives_of_one_rank(ctx):
    source = torch.randn(24)
    for call in (
        ctx.ccl.all_reduce,
        ctx.ccl.reduce_scatter,
        ctx.ccl.all_gather,
        ctx.ccl.all_to_all,
    ):
        target = ctx.full((24,), float("nan"))
        workspace = call(target, source)
        assert torch.equal(target, source)
        assert isinstance(workspace, iris_c.FusedWorkspace)
    ctx.ccl.broadcast(target, 0)
    assert torch.equal(target, source)
    iris_c.ccl.broadcast(ctx, target, src=0)
    ctx.ccl.all_reduce_preamble(target, source)


def test_only_sums_are_supported(ctx):
    output, source = ctx.zeros(4), ctx.ones(4)
    ctx.ccl.all_reduce(output, source, op="sum")
    ctx.ccl.all_reduce(output, source, op=torch.distributed.ReduceOp.SUM)
    with pytest.raises(ValueError, match=r"op: expected 'sum'.*got 'median'"):
        ctx.ccl.all_reduce(output, source, op="median")


def test_broadcast_checks_src(ctx):
    with pytest.raises(ValueError, match="src"):
        ctx.ccl.broadcast(ctx.zeros(4), src=1)
    with pytest.raises(TypeError, match="src: expected an int, got str"):
        ctx.ccl.broadcast(ctx.zeros(4), src="0")
