# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Captured and replayed calls, calls on several streams, and errors of asynchronous devices.

Needs GPUs: IRIS_C_BACKEND=cuda (or hip) python -m pytest tests/protocol/test_graphs.py
"""

import os
import time

import cases
import norms
import numpy
import pytest
import torch

import iris_c
from iris_c import tracing
from iris_c.testing import ranks

pytestmark = pytest.mark.skipif(
    os.environ.get("IRIS_C_BACKEND", "cpu") == "cpu", reason="needs GPUs: set IRIS_C_BACKEND"
)


class Product:
    """One checked product whose inputs change: C = sum over ranks of A @ B."""

    def __init__(self, ctx, case, variant, dtype, workspace):
        self.ctx, self.case, self.dtype, self.workspace = ctx, case, dtype, workspace
        self.config = cases.config(ctx, variant)
        self.A = torch.empty(case.M, case.K, dtype=dtype)
        self.B = torch.empty(case.K, case.N, dtype=dtype)
        self.C = ctx.empty(case.M, case.N, dtype=dtype)

    def refill(self, salt):
        A, B = cases.operands(self.case, self.ctx.rank, self.dtype, salt)
        self.A.copy_(A)
        self.B.copy_(B)
        cases.poisoned(self.C)

    def call(self):
        self.ctx.ops.matmul_all_reduce(
            self.C, self.A, self.B, config=self.config, workspace=self.workspace
        )

    def prepare(self):
        self.ctx.ops.matmul_all_reduce_preamble(
            self.C, self.A, self.B, config=self.config, workspace=self.workspace
        )

    def check(self, salt):
        expected, bound = cases.reference(self.case, self.ctx.world_size, self.dtype, salt)
        cases.check_close(self.C, expected, bound, f"rank {self.ctx.rank} {self.case} {salt}")


def captured(body):
    """A graph of one call of `body`, which needs no warm-up: its memory is there."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph


@pytest.mark.parametrize("variant", cases.VARIANTS)
@ranks(1, 2, 4, deadline=120)
def test_replays_and_eager_calls_alternate(ctx, variant):
    """New inputs each time, on one workspace."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    product = Product(ctx, cases.Case(200, 300, 65), variant, torch.bfloat16, workspace)
    product.prepare()
    graph = captured(product.call)
    assert workspace.call_counter == 0, "a captured call is not a call"
    for turn in range(30):
        product.refill(str(turn))
        if turn % 3 == 2:
            product.call()
        else:
            graph.replay()
        product.check(str(turn))
    assert workspace.call_counter == 30


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@ranks(1, 2, 4, deadline=120)
def test_a_product_and_a_collective_are_captured_after_a_preamble_alone(ctx, dtype):
    """All four operations in the form "plain", in one graph, between eager calls of other forms."""
    plain, tiles = iris_c.FusedConfig(form="plain"), iris_c.FusedConfig(form="tiles")
    case, world = cases.Case(24, 320, 72), ctx.world_size
    sums = cases.Case(24 * world, 320, 72)
    (A, B), (A_sum, _) = cases.operands(case, ctx.rank, dtype), cases.operands(sums, 0, dtype)
    calls = {
        "matmul_all_reduce": (A, ctx.empty(24, 320, dtype=dtype)),
        "matmul_reduce_scatter": (A_sum, torch.empty(24, 320, dtype=dtype)),
        "matmul_all_gather": (A, torch.empty(24 * world, 320, dtype=dtype)),
        "all_gather_matmul": (A, torch.empty(24 * world, 320, dtype=dtype)),
    }

    def run(config, suffix=""):
        for operation, (left, output) in calls.items():
            getattr(ctx.ops, operation + suffix)(output, left, B, config=config)

    run(plain, "_preamble")
    graph = captured(lambda: run(plain))
    for turn in range(6):
        run(tiles)
        expected = [output.clone() for _, output in calls.values()]
        for _, output in calls.values():
            cases.poisoned(output)
        ctx.barrier()
        graph.replay() if turn % 3 else run(plain)
        for (operation, (_, output)), wanted in zip(calls.items(), expected, strict=True):
            torch.testing.assert_close(output, wanted, rtol=2e-2, atol=0.3, msg=operation)
        ctx.barrier()


@ranks(1, 2, 4)
def test_traced_calls_are_captured(ctx):
    """After one that was not; each replay adds as many records."""
    product = Product(ctx, cases.Case(300, 600, 65), "two_shot", torch.bfloat16, None)
    product.prepare()

    def call():
        ctx.ops.matmul_all_reduce(
            product.C, product.A, product.B, config=product.config, trace=True
        )

    with pytest.raises(RuntimeError, match="trace one call before the capture"):
        captured(call)
    call()
    graph = captured(call)
    tracing.clear(ctx)
    ctx.barrier()
    for turn in range(3):
        product.refill(str(turn))
        graph.replay()
        product.check(str(turn))
    records = numpy.frombuffer(ctx._trace()[0], tracing.RECORD)
    chosen = ctx.ops.select_config(300, 600, 65, torch.bfloat16, product.config)
    tiles = -(-300 // chosen.block_size_m) * -(-600 // chosen.block_size_n)
    assert (records["kind"] == tracing.GEMM).sum() == 3 * tiles
    assert set(records["role"].tolist()) - {0} <= {1, 2, 3, 4}


@pytest.mark.parametrize("variant", ["ll", "ll_two_shot", "one_shot", "two_shot", "ring", "atomic"])
@ranks(1, 2, 4, deadline=120)
def test_all_reduce_replays(ctx, variant):
    """A thousand replays with changing inputs, among eager calls, and products on a workspace of
    their own; the counter wraps inside the graph."""
    n, calls = 3001, 3
    config = iris_c.ccl.Config(all_reduce_variant=variant)
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    given, output = torch.empty(n), ctx.empty(n)
    product = Product(ctx, cases.Case(60, 90, 30), "two_shot", torch.bfloat16, None)
    product.prepare()

    def call():
        ctx.ccl.all_reduce(output, given, config=config, workspace=workspace)

    def several():
        for _ in range(calls):
            call()

    ctx.ccl.all_reduce_preamble(output, given, config=config, workspace=workspace)
    graph = captured(several)
    workspace._set_calls(2**31 - 1 - 1000)
    ctx.barrier()
    inputs = [cases.reduced_input(r, n, torch.float32).to(given.device)
              for r in range(ctx.world_size)]  # fmt: skip
    total, tolerance = sum(inputs), 1e-5 * sum(x.abs() for x in inputs)
    done = 0
    for turn in range(1000):
        given.copy_(inputs[ctx.rank]).mul_(turn % 7 + 1)
        output.fill_(float("nan"))
        if turn % 50 == 49:
            call()
            product.refill(str(turn))
            product.call()
            product.check(str(turn))
            done += 1
        else:
            graph.replay()
            done += calls
        error = (output - total * (turn % 7 + 1)).abs() - tolerance * (turn % 7 + 1)
        assert bool((error <= 0).all()), f"rank {ctx.rank} turn {turn}"
    assert workspace.call_counter == done - 1000


@ranks(2, 4, deadline=120)
def test_messages_and_remote_memory_replay(ctx):
    """Round a ring: a message, all_to_all with sizes, put with signal and wait, get; eager calls
    between the replays."""
    world, rank = ctx.world_size, ctx.rank
    right, left = (rank + 1) % world, (rank - 1) % world
    n = 50000
    value, message, copied = (torch.zeros(n) for _ in range(3))
    place, word = ctx.zeros(n), ctx.zeros(1, dtype=torch.int32)
    sizes = [(rank + peer) % 3 * 1000 for peer in range(world)]
    dealt, swapped = torch.zeros(sum(sizes)), torch.zeros(sum(sizes))
    ctx.barrier()

    def round_the_ring():
        dealt.copy_(value[: dealt.numel()])
        ctx.ccl.send(value[:20000], right)  # fits into the slots
        ctx.ccl.recv(message[:20000], left)
        ctx.ccl.all_to_all(swapped, dealt, output_split_sizes=sizes, input_split_sizes=sizes)
        ctx.put(place, value, right)
        ctx.signal(word, right, op="add")
        ctx.wait(word, consume=True)
        ctx.device_barrier()
        ctx.get(copied, place, right)
        ctx.device_barrier()

    graph = captured(round_the_ring)
    for turn in range(200):
        value.fill_(100.0 * turn + rank)
        (round_the_ring if turn % 10 == 9 else graph.replay)()
        assert bool((message[:20000] == 100.0 * turn + left).all()), f"rank {rank} turn {turn}"
        assert bool((place == 100.0 * turn + left).all()), f"rank {rank} turn {turn}"
        assert bool((copied == 100.0 * turn + rank).all()), f"rank {rank} turn {turn}"
        expected = [100.0 * turn + peer for peer in range(world) for _ in range(sizes[peer])]
        assert swapped.tolist() == expected, f"rank {rank} turn {turn}"


@ranks(2, deadline=120)
def test_a_long_message_replays(ctx):
    """Longer than the slots: it needs the receiver, whose graph is another one."""
    value, got = torch.zeros(3_000_001), torch.zeros(3_000_001)
    if ctx.rank == 0:
        graph = captured(lambda: ctx.ccl.send(value, 1))
    else:
        graph = captured(lambda: ctx.ccl.recv(got, 0))
    for turn in range(50):
        value.fill_(turn)
        graph.replay()
        if ctx.rank == 1:
            assert bool((got == turn).all())


@pytest.mark.parametrize("variant", ["ll", "ll_two_shot"])
@ranks(2, 4, deadline=120)
def test_all_reduce_rmsnorm_replays(ctx, variant):
    layer = norms.Layer(ctx, (17, 1000), torch.bfloat16, variant)
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce_rmsnorm")
    layer.call(workspace=workspace)
    graph = captured(lambda: layer.call(workspace=workspace))
    for turn in range(20):
        layer.refill(turn)
        graph.replay()
        layer.check()
    assert workspace.call_counter == 21


@ranks(4, deadline=120)
def test_a_graph_with_calls_of_groups_and_of_the_world(ctx):
    """Two contexts in one graph, and two groups side by side."""
    group = (0, 2) if ctx.rank % 2 == 0 else (1, 3)
    n = 4000
    given, partial, total = torch.zeros(n), torch.zeros(n), torch.zeros(n)

    def body():
        ctx.ccl.all_reduce(partial, given, group=group)
        ctx.ccl.all_reduce(total, partial)

    body()
    graph = captured(body)
    for turn in range(100):
        given.fill_(turn + ctx.rank)
        (body if turn % 7 == 6 else graph.replay)()
        assert bool((partial == 2 * turn + sum(group)).all())
        assert bool((total == 2 * (4 * turn + 6)).all())


@pytest.mark.parametrize("K", [128, 2120])  # the longer one is shared by work-groups
@pytest.mark.parametrize("operation", ["all_gather_matmul", "all_gather_matmul_hbm_buffer"])
@ranks(2, 4, deadline=120)
def test_gathered_operands_replay(ctx, operation, K):
    """Along both dimensions in one graph, on one workspace; the wrap of the counter inside it."""
    world = ctx.world_size
    workspace = iris_c.FusedWorkspace(ctx, operation)
    case = cases.Case(130, 90, K)
    A = torch.empty(case.M, case.K, dtype=torch.bfloat16)
    B = [torch.empty(case.K * n, case.N, dtype=torch.bfloat16) for n in (1, world)]
    C = [torch.empty(case.M * n, case.N, dtype=torch.bfloat16) for n in (world, 1)]
    call, prepare = getattr(ctx.ops, operation), getattr(ctx.ops, f"{operation}_preamble")
    for dim in (0, 1):
        prepare(C[dim], A, B[dim], gather_dim=dim, workspace=workspace)

    def several():
        for dim in (0, 1, 0):
            call(C[dim], A, B[dim], gather_dim=dim, workspace=workspace)

    graph = captured(several)
    workspace._set_calls(2**31 - 1 - 25)
    ctx.barrier()
    for turn in range(20):
        shards = [cases.operands(case, rank, torch.bfloat16, str(turn))[0] for rank in range(world)]
        A.copy_(shards[ctx.rank])
        for dim in (0, 1):
            B[dim].copy_(torch.randn(B[dim].shape))
            cases.poisoned(C[dim])
        (several if turn % 4 == 3 else graph.replay)()
        for dim in (0, 1):
            joined = torch.cat(shards, dim).double()
            expected, magnitude = joined @ B[dim].double(), joined.abs() @ B[dim].double().abs()
            bound = 1.01 * 2.0**-8 * expected.abs() + 2.0**-24 * (joined.shape[1] + 2) * magnitude
            cases.check_close(C[dim], expected, bound, f"rank {ctx.rank} turn {turn} dim {dim}")
    assert workspace.call_counter == 60 - 25


@pytest.mark.parametrize("dim", [0, 1])
@ranks(2, 4, deadline=120)
def test_matmul_reduce_scatter_replays(ctx, dim):
    """The wrap of the counter inside a graph of several calls."""
    world = ctx.world_size
    case = cases.Case(120 * world if dim == 0 else 120, 90 * world if dim == 1 else 90, 70)
    workspace = iris_c.FusedWorkspace(ctx, "matmul_reduce_scatter")
    A, B = (torch.empty(shape, dtype=torch.bfloat16)
            for shape in ((case.M, case.K), (case.K, case.N)))  # fmt: skip
    C = torch.empty(120, 90, dtype=torch.bfloat16)
    ctx.ops.matmul_reduce_scatter_preamble(C, A, B, workspace=workspace, dim=dim)

    def several():
        for _ in range(3):
            ctx.ops.matmul_reduce_scatter(C, A, B, dim=dim, workspace=workspace)

    graph = captured(several)
    workspace._set_calls(2**31 - 1 - 25)
    ctx.barrier()
    for turn in range(20):
        for mine, drawn in zip((A, B), cases.operands(case, ctx.rank, torch.bfloat16, str(turn)),
                               strict=True):  # fmt: skip
            mine.copy_(drawn)
        cases.poisoned(C)
        (several if turn % 4 == 3 else graph.replay)()
        whole = cases.reference(case, world, torch.bfloat16, str(turn))
        expected, bound = (x.chunk(world, dim)[ctx.rank] for x in whole)
        cases.check_close(C, expected, bound, f"rank {ctx.rank} turn {turn}")
    assert workspace.call_counter == 60 - 25


@ranks(2)
def test_a_capture_of_all_reduce_that_would_allocate_is_refused(ctx):
    """After a preamble for one variant, a call of another."""
    given, output = torch.ones(100000), ctx.empty(100000)
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    ll, ring, legacy = (iris_c.ccl.Config(all_reduce_variant=variant)
                        for variant in ("ll", "ring", "one_shot_legacy"))  # fmt: skip
    ctx.ccl.all_reduce_preamble(output, given, config=ll, workspace=workspace)
    for config, message in ((ring, "all_reduce_preamble"), (legacy, "without host barriers")):
        with pytest.raises(RuntimeError, match=message):
            captured(
                lambda config=config: ctx.ccl.all_reduce(
                    output, given, config=config, workspace=workspace
                )
            )
        torch.cuda.synchronize()
    graph = captured(lambda: ctx.ccl.all_reduce(output, given, config=ll, workspace=workspace))
    graph.replay()
    assert torch.equal(output, torch.full((100000,), 2.0))


@ranks(2, 4, deadline=120)
def test_graphs_share_a_workspace(ctx):
    """Of different shapes and variants; the workspace grows between the captures, and the first
    graph's memory stays its own."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    products, graphs = [], []
    for number, variant in enumerate(("two_shot", "ring", "one_shot", "two_shot")):
        case = cases.Case(60 * (number + 1), 90 * (number + 1), 30)
        product = Product(ctx, case, variant, torch.float16, workspace)
        product.prepare()
        products.append(product)
        graphs.append(captured(product.call))
    for turn in range(12):
        which = (turn * 7) % len(graphs)
        products[which].refill(str(turn))
        graphs[which].replay()
        products[which].check(str(turn))


@ranks(2)
def test_a_capture_that_would_allocate_is_refused(ctx):
    product = Product(ctx, cases.Case(64, 64, 64), "two_shot", torch.bfloat16, None)
    with pytest.raises(RuntimeError, match="matmul_all_reduce_preamble"):
        captured(product.call)
    torch.cuda.synchronize()
    product.prepare()
    graph = captured(product.call)
    product.refill("a")
    graph.replay()
    product.check("a")


@ranks(2)
def test_device_barrier_is_captured(ctx):
    """What a rank's stream wrote before the barrier, all see after it, in every replay."""
    board = ctx.zeros(ctx.world_size, dtype=torch.int64)
    value = torch.zeros(1, dtype=torch.int64)
    seen = torch.empty_like(board)
    ctx.ccl.all_gather(board, value)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ctx.device_barrier()
        ctx.ccl.all_gather(board, value)
        ctx.device_barrier()
        seen.copy_(board)
    for turn in range(20):
        value.fill_(100 * turn + ctx.rank)
        graph.replay()
        assert seen.tolist() == [100 * turn + rank for rank in range(ctx.world_size)]


@pytest.mark.parametrize("variant", cases.VARIANTS)
@ranks(2)
def test_one_workspace_on_two_streams(ctx, variant):
    """Calls on one workspace run one after the other, whatever stream they are given to."""
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    case = cases.Case(500, 400, 300)
    products = [Product(ctx, case, variant, torch.bfloat16, workspace) for _ in range(2)]
    streams = [torch.cuda.Stream() for _ in range(2)]
    for turn in range(10):
        for number, product in enumerate(products):
            product.refill(f"{turn}{number}")
        torch.cuda.synchronize()
        for number, product in enumerate(products):
            with torch.cuda.stream(streams[number]):
                product.call()
        torch.cuda.synchronize()
        for number, product in enumerate(products):
            product.check(f"{turn}{number}")


@ranks(2, timeout=20.0)
def test_different_calls_raise_on_all_ranks(ctx):
    """A rank whose call was queued before a peer called something else learns of it at its next
    call; both then go on."""
    # Off the heap, so that results are staged: where none was, hosts wait until all have come.
    A, B, C = (torch.randn(64, 64) for _ in range(3))
    ctx.ops.matmul_all_reduce(C, A, B)
    ctx.barrier()
    if ctx.rank == 0:
        ctx.ops.matmul_all_reduce(C, A, B)
        time.sleep(0.5)
        with pytest.raises(ValueError, match="called different operations"):
            ctx.ops.matmul_all_reduce(C, A, B)
    else:
        time.sleep(0.2)
        with pytest.raises(ValueError, match="called different operations"):
            ctx.ops.matmul_all_reduce(C[:32], A[:32], B)
    case = cases.Case(64, 64, 64)
    A, B = cases.operands(case, ctx.rank, torch.float32)
    ctx.ops.matmul_all_reduce(cases.poisoned(C), A, B)
    expected, bound = cases.reference(case, ctx.world_size, torch.float32)
    cases.check_close(C, expected, bound)


@ranks(2, timeout=1.5)
def test_a_peer_that_does_not_come_is_a_timeout(ctx):
    A, B, C = (torch.randn(64, 64) for _ in range(3))  # C is off the heap, as above
    ctx.ops.matmul_all_reduce(C, A, B)
    ctx.barrier()
    if ctx.rank == 0:
        ctx.ops.matmul_all_reduce(C, A, B)
        torch.cuda.synchronize()  # ends: the wait is bounded
        with pytest.raises(TimeoutError, match="rank 1 did not signal") as caught:
            ctx.ops.matmul_all_reduce(C, A, B)
        assert caught.value.rank == 1
    else:
        time.sleep(2.5)
        with pytest.raises(iris_c.PeerError, match="gave up waiting"):
            ctx.ops.matmul_all_reduce(C, A, B)
