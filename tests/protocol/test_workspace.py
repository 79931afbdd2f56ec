# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Workspaces: reuse, growth, the wrap, and ranks that do not agree about them."""

import random
import time

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks, run_ranks, seed_of

INT32_MAX = 2**31 - 1


def run(ctx, case, variant, workspace=None, salt="", C=None, block=16, async_op=False):
    """One checked call; returns the workspace and C."""
    A, B = cases.operands(case, ctx.rank, torch.float32, salt)
    C = torch.empty(case.M, case.N) if C is None else C
    cases.poisoned(C)
    workspace = ctx.ops.matmul_all_reduce(
        C,
        A,
        B,
        config=cases.config(ctx, variant, block, block),
        workspace=workspace,
        async_op=async_op,
    )
    expected, bound = cases.reference(case, ctx.world_size, torch.float32, salt)
    cases.check_close(C, expected, bound, f"rank {ctx.rank} {variant} {case} {salt}")
    return workspace, C


@pytest.mark.parametrize("variant", cases.VARIANTS)
@ranks(2, 3)
def test_a_hundred_calls_give_the_same_bits(ctx, variant):
    case = cases.Case(50, 41, 37)
    C = ctx.empty(50, 41)
    workspace, first = run(ctx, case, variant, C=C)
    first = first.clone()
    start = workspace.call_counter
    for call in range(1, 101):
        run(ctx, case, variant, workspace, C=C)
        assert workspace.call_counter == start + call
        if variant in cases.DETERMINISTIC:
            assert torch.equal(C, first)


@pytest.mark.parametrize("variant", cases.VARIANTS)
@ranks(1, 2, 3)
def test_the_counter_wraps(ctx, variant):
    """From INT32_MAX to 1, results checked across it, on the heap and off it, without a barrier
    between calls. The largest shape leaves flags behind that the smaller ones do not overwrite."""
    shapes = [cases.Case(50, 41, 7), cases.Case(9, 9, 5), cases.Case(20, 3, 4)]
    on_heap = [ctx.empty(case.M, case.N) for case in shapes]
    workspace, _ = run(ctx, shapes[0], variant)
    ctx.barrier()
    workspace._set_calls(INT32_MAX - 4)
    ctx.barrier()
    counters = []
    for call in range(12):
        turn = (call // 3) % 3
        C = on_heap[turn] if call % 2 else None
        run(ctx, shapes[turn], variant, workspace, salt=str(call), C=C, async_op=call % 3 == 0)
        counters.append(workspace.call_counter)
    assert counters == [*range(INT32_MAX - 3, INT32_MAX + 1), *range(1, 9)]


@ranks(2, 3, 4)
def test_random_interleavings(ctx):
    """Shapes, variants, blocks and places in turn on two workspaces, ranks delayed at random."""
    seed = seed_of(f"interleavings {ctx.world_size}")
    print(f"seed {seed}")
    shared, own = random.Random(seed), random.Random(seed + ctx.rank + 1)
    heap = [ctx.empty(120, 130) for _ in range(2)]
    workspaces = [None, iris_c.FusedWorkspace(ctx, "matmul_all_reduce")]
    for call in range(150):
        M, N, K = shared.randint(1, 120), shared.randint(1, 130), shared.randint(1, 40)
        variant, block = shared.choice(cases.VARIANTS), shared.choice([8, 16, 33, 64])
        which, place, eager = shared.randrange(2), shared.randrange(3), shared.random() < 0.5
        C = heap[place][:M, :N] if place < 2 else None
        if own.random() < 0.1:
            time.sleep(own.random() * 0.01)
        run(ctx, cases.Case(M, N, K), variant, workspaces[which], str(call), C, block, eager)


@cases.cpu_only
@ranks(2, 3)
def test_grows_for_all_at_once_and_never_shrinks(ctx):
    workspace, _ = run(ctx, cases.Case(16, 16, 4), "two_shot")
    small = workspace.nbytes
    workspace, _ = run(ctx, cases.Case(128, 128, 4), "two_shot", workspace)
    large = workspace.nbytes
    assert large > small
    workspace, _ = run(ctx, cases.Case(16, 16, 4), "two_shot", workspace)
    assert workspace.nbytes == large
    assert workspace.call_counter == 3


@pytest.mark.parametrize("variant", cases.VARIANTS)
@ranks(2, 3, 4)
def test_ranks_arrive_with_different_workspaces(ctx, variant):
    """Absent, fresh, stale and explicit handles in every mixture: the call works on all ranks."""
    case = cases.Case(33, 29, 11)
    common, _ = run(ctx, case, variant)
    for turn in range(4 * ctx.world_size):
        kind = (turn + ctx.rank * (1 + turn // 4)) % 4
        if kind == 0:
            workspace = None
        elif kind == 1:
            workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
        elif kind == 2:
            workspace = common
            workspace.reset()
        else:
            workspace = common
        used, _ = run(ctx, case, variant, workspace, salt=str(turn))
        assert used.prepared
        if workspace is not None:
            assert used is workspace


@ranks(2, 3)
def test_one_rank_clears(ctx):
    """The bytes go back when all ranks have let go; until then the others' calls work on."""
    case = cases.Case(40, 40, 8)
    workspace, _ = run(ctx, case, "two_shot")
    for turn in range(6):
        if turn % ctx.world_size == ctx.rank:
            workspace.clear()
            assert workspace.call_counter == 0
            assert not workspace.prepared
        workspace, _ = run(ctx, case, "two_shot", workspace, salt=str(turn))
    ctx.barrier()
    workspace.clear()
    assert workspace.nbytes == 0
    ctx.barrier()
    for turn in range(3):
        workspace, _ = run(ctx, case, "one_shot", workspace, salt=f"again{turn}")


@ranks(2)
def test_attributes(ctx):
    case = cases.Case(12, 10, 6)
    workspace, _ = run(ctx, case, "ring")
    assert workspace.operation == "matmul_all_reduce"
    assert tuple(workspace.shape) == (12, 10, 6)
    assert workspace.variant == "ring"
    assert workspace.world_size == 2
    assert workspace.prepared
    dtype = workspace.dtype
    assert workspace.matches("matmul_all_reduce", (12, 10, 6), dtype, 2, "ring")
    assert not workspace.matches("matmul_all_reduce", (12, 10, 7), dtype, 2, "ring")
    assert not workspace.matches("matmul_all_reduce", (12, 10, 6), dtype, 2, "two_shot")
    workspace.reset()
    assert not workspace.matches("matmul_all_reduce", (12, 10, 6), dtype, 2, "ring")


def disagreement(ctx, call):
    """The text of the ValueError that every rank gets."""
    with pytest.raises(ValueError, match="ranks") as caught:
        call()
    text = str(caught.value).encode()[:400].ljust(400)
    gathered = torch.empty(400 * ctx.world_size, dtype=torch.uint8)
    ctx.ccl.all_gather(gathered, torch.frombuffer(bytearray(text), dtype=torch.uint8))
    for rank in range(ctx.world_size):
        assert bytes(gathered.view(ctx.world_size, -1)[rank].tolist()) == text
    return text.decode().strip()


@cases.cpu_only
@ranks(2, 3)
def test_ranks_that_disagree_get_one_error_and_go_on(ctx):
    odd = ctx.rank == 1
    C, A, B = torch.empty(20, 30), torch.randn(20, 8), torch.randn(8, 30)
    op = ctx.ops.matmul_all_reduce
    for warm in range(2):  # with no workspace yet, then with a good one on every rank
        text = disagreement(ctx, lambda: op(C[:19], A[:19], B) if odd else op(C, A, B))
        assert "rank 0 called matmul_all_reduce(M=20, N=30" in text
        assert "rank 1 called matmul_all_reduce(M=19, N=30" in text
        run(ctx, cases.Case(20, 30, 8), "two_shot", salt=f"a{warm}")
        variant = "ring" if odd else "two_shot"
        text = disagreement(ctx, lambda: op(C, A, B, config=cases.config(ctx, variant, 16, 16)))
        assert "two_shot" in text
        assert "ring" in text
        block = 8 if odd else 16
        disagreement(ctx, lambda: op(C, A, B, config=cases.config(ctx, "two_shot", block, block)))
        bias = torch.zeros(30) if odd else None
        text = disagreement(ctx, lambda: op(C, A, B, bias=bias))
        assert "bias" in text
        half = [t.half() for t in (C, A, B)]
        text = disagreement(ctx, lambda: op(*half) if odd else op(C, A, B))
        assert "float16" in text
        preamble = ctx.ops.matmul_all_reduce_preamble
        disagreement(ctx, lambda: preamble(C, A, B) if odd else op(C, A, B))
        workspace, _ = run(ctx, cases.Case(20, 30, 8), "one_shot", salt=f"b{warm}")
    start = workspace.call_counter
    for call in range(5):
        run(ctx, cases.Case(20, 30, 8), "two_shot", workspace, salt=f"c{call}")
    assert workspace.call_counter == start + 5


@cases.cpu_only
@ranks(2, 3)
def test_a_disagreement_inside_the_device_barrier_leaves_nothing(ctx):
    """atomic passes the device barrier before its kernel; the disagreeing rank does not. Later
    barriers must hold everybody again, and later sums be whole."""
    C, A, B = torch.empty(20, 30), torch.randn(20, 8), torch.randn(8, 30)
    case = cases.Case(20, 30, 8)
    for turn in range(6):
        run(ctx, case, "atomic", salt=f"warm{turn}")
        odd = ctx.rank == turn % ctx.world_size
        variant = "one_shot" if odd else "atomic"
        if odd:
            time.sleep(0.1)  # the others wait in the barrier by then
        disagreement(
            ctx,
            lambda: ctx.ops.matmul_all_reduce(C, A, B, config=cases.config(ctx, variant, 16, 16)),
        )
        if not odd:
            time.sleep(0.2)
        arrived = time.monotonic()
        ctx.device_barrier()
        left = torch.tensor([time.monotonic(), arrived], dtype=torch.float64)
        times = torch.empty(2 * ctx.world_size, dtype=torch.float64)
        ctx.ccl.all_gather(times, left)
        assert times[0::2].min() >= times[1::2].max(), "somebody passed before all had arrived"
        if not odd:
            time.sleep(0.05)
        run(ctx, case, "atomic", salt=f"after{turn}")


@cases.cpu_only
@ranks(2)
def test_different_operations_are_a_disagreement(ctx):
    x = torch.randn(16)
    text = disagreement(
        ctx,
        lambda: (
            ctx.ccl.all_reduce(torch.empty(16), x)
            if ctx.rank == 0
            else ctx.ccl.all_gather(torch.empty(32), x)
        ),
    )
    assert "all_reduce" in text
    assert "all_gather" in text


@ranks(2, heap_size=1 << 20)
def test_exhausted_heap(ctx):
    """HeapExhausted on all ranks, with figures, and the heap as good as before."""
    case = cases.Case(32, 32, 8)
    run(ctx, case, "two_shot")
    used = ctx.heap_used
    with pytest.raises(iris_c.HeapExhausted, match="raise heap_size") as caught:
        ctx.empty(1 << 20)
    assert caught.value.asked == 4 << 20
    assert 0 < caught.value.free <= caught.value.heap_size == ctx.heap_size
    assert isinstance(caught.value, MemoryError)
    assert ctx.heap_used == used
    A, B = torch.randn(600, 8), torch.randn(8, 600)
    with pytest.raises(iris_c.HeapExhausted):
        ctx.ops.matmul_all_reduce(torch.empty(600, 600), A, B)
    for call in range(3):
        run(ctx, case, "two_shot", salt=str(call))


def debug_mode(ctx):
    case = cases.Case(20, 30, 8)
    workspace, _ = run(ctx, case, "two_shot")
    for call in range(5):
        run(ctx, case, "two_shot", workspace, salt=str(call))
    C, A, B = torch.empty(20, 30), torch.randn(20, 8), torch.randn(8, 30)
    if ctx.rank == 0:
        A, C = A[:10], C[:10]
    text = disagreement(ctx, lambda: ctx.ops.matmul_all_reduce(C, A, B))
    assert "M=10" in text
    run(ctx, case, "two_shot", workspace, salt="after")


def test_debug_mode_compares_every_call():
    run_ranks(debug_mode, 3, init={"heap_size": 1 << 22}, environment={"IRIS_C_DEBUG": "1"})
