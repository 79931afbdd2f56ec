# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Operations in a world of one rank: every kind of tensor, errors, workspaces, configs.

Whatever needs a second rank is tested in tests/ops.
"""

import numpy as np
import pytest
import torch
from one_rank import DTYPES

import iris_c


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
        ("form", "large"),
    ],
)
def test_config_validation_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}.*{value}"):
        iris_c.FusedConfig(**{field: value}).validate()


def test_selected_config_is_complete(ctx):
    config = ctx.ops.select_config(128, 64, 32, torch.float16)
    assert config.block_size_m > 0
    assert config.num_sms > 0
    assert config.form == "tiles"
    config.validate(1)
    config = iris_c.ops.select_config(ctx, 128, 64, 32, "float32", iris_c.FusedConfig(16))
    assert config.block_size_m == 16


def test_fields_of_tiles_and_other_forms_exclude_each_other(ctx):
    for field, value in (
        ("block_size_m", 16),
        ("block_size_n", 16),
        ("block_size_k", 16),
        ("group_size_m", 2),
        ("num_fetch_sms", 1),
        ("k_per_flag", 1),
        ("staged_a_layout", "m_contiguous"),
        ("overlap", False),
        ("all_reduce_variant", "ring"),
    ):
        for form in ("decode", "plain"):
            config = iris_c.FusedConfig(form=form, **{field: value})
            with pytest.raises(ValueError, match=f"^{field}: expected None in the form '{form}'"):
                ctx.ops.select_config(128, 64, 32, "float32", config)
    with pytest.raises(ValueError, match=r"^form: expected one that matmul_all_reduce has"):
        ctx.ops.select_config(8, 64, 32, "float32", iris_c.FusedConfig(form="decode"))
    assert ctx.ops.select_config(8, 64, 32, "float32", iris_c.FusedConfig(form="tiles"))


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
