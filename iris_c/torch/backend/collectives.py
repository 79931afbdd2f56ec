# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The collectives of torch.distributed with those of iris_c.ccl, on one context.

Tensors are anywhere on the context's device, of any dtype and strides. What is larger than the
heap's share of an operation goes in pieces, which all ranks cut alike: the size of a piece follows
from sizes and from the heap alone. A heap that is full (on all ranks: that is agreed on) halves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

import iris_c
from iris_c.ccl import Recv, Send
from iris_c.torch.backend.reductions import Reduction, reduction_of
from iris_c.torch.backend.storage import Target, overlap, reals, source, words

__all__ = ["Collectives"]

# An operation's workspace takes up to four times its piece, eight operations have one each, and
# half of the heap is left for tensors and for fused operations.
SHARES = 64
LEAST_PIECE = 1 << 12
# Up to so many bytes a copy of the input costs less than a sum that may not be in place saves.
SMALL = 1 << 18


class Collectives:
    """Carried out on torch's current stream, before the call returns on the cpu.

    Parameters
    ----------
    ctx : iris_c.Context
    """

    def __init__(self, ctx: iris_c.Context) -> None:
        self.ctx = ctx
        self._on_cpu = ctx.backend == "cpu"
        self._piece = max(ctx.heap_size // SHARES, LEAST_PIECE)

    # ---- reductions ----

    def all_reduce(self, tensor: torch.Tensor, op: Any) -> None:
        target = Target(tensor)
        elements, reduction = self._reduced(target.flat, op)

        def reduce(begin: int, end: int) -> None:
            part = elements[begin:end]
            if reduction.fold is not None:
                part.copy_(reduction.folded(self._gathered(part)))
            elif reduction.before is not None:
                given = reduction.before(part)
                same = given.dtype == part.dtype
                out = part if same else given
                self.ctx.ccl.all_reduce(out, given, reduction.name)
                if reduction.after is not None:
                    part.copy_(reduction.after(out))
            elif part.nbytes <= SMALL:
                self.ctx.ccl.all_reduce(part, part.clone(), reduction.name)
            else:
                self.ctx.ccl.all_reduce(part, part, reduction.name)

        self._in_pieces(elements.numel(), elements.element_size(), reduce)
        target.finish()

    def all_reduce_coalesced(self, tensors: Sequence[torch.Tensor], op: Any) -> None:
        """As one, those of equal dtypes."""
        for alike in _by_dtype(tensors):
            if len(alike) == 1:
                self.all_reduce(alike[0], op)
                continue
            joined = torch.cat([source(t) for t in alike])
            self.all_reduce(joined, op)
            for tensor, part in zip(alike, joined.split([t.numel() for t in alike]), strict=True):
                tensor.detach().copy_(part.view(tensor.shape))

    def reduce(self, tensor: torch.Tensor, dst: int, op: Any) -> None:
        target = Target(tensor)
        elements, reduction = self._reduced(target.flat, op)
        mine = self.ctx.rank == dst

        def reduce(begin: int, end: int) -> None:
            part = elements[begin:end]
            if reduction.fold is not None:
                rows = self._gathered(part, dst)
                if rows is not None:
                    part.copy_(reduction.folded(rows))
                return
            given = part if reduction.before is None else reduction.before(part)
            out = torch.empty_like(given) if mine else None
            self.ctx.ccl.reduce(out, given, dst, reduction.name)
            if out is not None:
                part.copy_(out if reduction.after is None else reduction.after(out))

        self._in_pieces(elements.numel(), elements.element_size(), reduce)
        if mine:
            target.finish()

    def reduce_scatter(self, output: torch.Tensor, input: torch.Tensor, op: Any) -> None:
        """`input` has the elements for each rank, one rank's after the other's."""
        world = self.ctx.world_size
        _expect("input", input.numel(), world * output.numel(), "as many as output on each rank")
        _expect_dtype("output", output, input)
        whole = source(input)
        target = Target(output, apart_from=whole)
        given, reduction = self._reduced(whole, op)
        out = reals(target.flat)
        rows = given.view(world, -1)

        def reduce(begin: int, end: int) -> None:
            part = out[begin:end]
            mine = rows[:, begin:end].contiguous().view(-1)
            if reduction.fold is not None:
                arrived = torch.empty_like(mine)
                self.ctx.ccl.all_to_all(words(arrived), words(mine))
                part.copy_(reduction.folded(arrived.view(world, -1)))
                return
            if reduction.before is not None:
                mine = reduction.before(mine)
            got = part if mine.dtype == part.dtype else mine.new_empty(part.shape)
            self.ctx.ccl.reduce_scatter(got, mine, reduction.name)
            if reduction.after is not None:
                part.copy_(reduction.after(got))

        self._in_pieces(out.numel(), world * out.element_size(), reduce)
        target.finish()

    def reduce_scatter_list(
        self, output: torch.Tensor, inputs: Sequence[torch.Tensor], op: Any
    ) -> None:
        self._expect_one_each("input_list", inputs)
        if len({t.numel() for t in inputs}) == 1:
            self.reduce_scatter(output, torch.cat([source(t) for t in inputs]), op)
            return
        _expect(
            "output", output.numel(), inputs[self.ctx.rank].numel(), "this rank's in input_list"
        )
        for dst, given in enumerate(inputs):
            own = source(given).clone()
            self.reduce(own, dst, op)
            if dst == self.ctx.rank:
                output.detach().copy_(own.view(output.shape))

    # ---- what moves ----

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        target = Target(tensor)
        elements = words(target.flat)

        def send(begin: int, end: int) -> None:
            self.ctx.ccl.broadcast(elements[begin:end], src)

        self._in_pieces(elements.numel(), elements.element_size(), send)
        if self.ctx.rank != src:
            target.finish()

    def all_gather(self, output: torch.Tensor, input: torch.Tensor) -> None:
        world = self.ctx.world_size
        _expect("output", output.numel(), world * input.numel(), "as many as input on each rank")
        _expect_dtype("output", output, input)
        target = Target(output)
        given = source(input)
        own = target.flat.view(world, -1)[self.ctx.rank]
        if overlap(given, target.flat) and given.data_ptr() != own.data_ptr():
            given = given.clone()
        out, mine = words(target.flat), words(given)
        rows = out.view(world, -1)

        def gather(begin: int, end: int) -> None:
            if end - begin == mine.numel():
                self.ctx.ccl.all_gather(out, mine)
                return
            part = out.new_empty(world, end - begin)
            self.ctx.ccl.all_gather(part.view(-1), mine[begin:end])
            rows[:, begin:end] = part

        self._in_pieces(mine.numel(), world * mine.element_size(), gather)
        target.finish()

    def all_gather_list(self, outputs: Sequence[torch.Tensor], input: torch.Tensor) -> None:
        """The parts of the ranks may differ in size: each rank then sends its own to all."""
        self._expect_one_each("tensor_list", outputs)
        own = outputs[self.ctx.rank]
        _expect(f"tensor_list[{self.ctx.rank}]", own.numel(), input.numel(), "as input")
        if len({t.numel() for t in outputs}) == 1:
            joined = torch.empty(
                len(outputs) * input.numel(), dtype=input.dtype, device=input.device
            )
            self.all_gather(joined, input)
            for output, part in zip(outputs, joined.chunk(len(outputs)), strict=False):
                output.detach().copy_(part.view(output.shape))
            return
        own.detach().copy_(input.detach().view(own.shape))
        for src, output in enumerate(outputs):
            self.broadcast(output, src)

    def gather(self, outputs: Sequence[torch.Tensor], input: torch.Tensor, dst: int) -> None:
        """`outputs` is empty but on `dst`."""
        mine = words(source(input))
        whole = None
        if self.ctx.rank == dst:
            self._expect_one_each("gather_list", outputs)
            for src, output in enumerate(outputs):
                _expect(f"gather_list[{src}]", output.numel(), input.numel(), "as input")
                _expect_dtype(f"gather_list[{src}]", output, input)
            whole = mine.new_empty(self.ctx.world_size, mine.numel())

        def gather(begin: int, end: int) -> None:
            part = None if whole is None else whole.new_empty(len(whole), end - begin)
            self.ctx.ccl.gather(None if part is None else part.view(-1), mine[begin:end], dst)
            if whole is not None and part is not None:
                whole[:, begin:end] = part

        self._in_pieces(mine.numel(), self.ctx.world_size * mine.element_size(), gather)
        if whole is not None:
            for output, row in zip(outputs, whole, strict=True):
                output.detach().copy_(row.view(output.dtype).view(output.shape))

    def scatter(self, output: torch.Tensor, inputs: Sequence[torch.Tensor], src: int) -> None:
        """`inputs` is empty but on `src`."""
        target = Target(output)
        mine = words(target.flat)
        whole = None
        if self.ctx.rank == src:
            self._expect_one_each("scatter_list", inputs)
            for dst, given in enumerate(inputs):
                _expect(f"scatter_list[{dst}]", given.numel(), output.numel(), "as output")
                _expect_dtype(f"scatter_list[{dst}]", given, output)
            whole = torch.stack([words(source(given)) for given in inputs])

        def scatter(begin: int, end: int) -> None:
            part = None if whole is None else whole[:, begin:end].contiguous().view(-1)
            self.ctx.ccl.scatter(mine[begin:end], part, src)

        self._in_pieces(mine.numel(), self.ctx.world_size * mine.element_size(), scatter)
        target.finish()

    def all_to_all_single(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        output_sizes: Sequence[int],
        input_sizes: Sequence[int],
    ) -> None:
        """Rows of the first dimension; as many for each rank where the sizes are empty."""
        world = self.ctx.world_size
        _expect_dtype("output", output, input)
        if output_sizes or input_sizes:
            received = _rows("output", output, output_sizes, world)
            sent = _rows("input", input, input_sizes, world)
            self.all_to_all_list(
                source_parts(output, received), source_parts(input, sent), whole=output
            )
            return
        for name, tensor in (("output", output), ("input", input)):
            rows = tensor.shape[0] if tensor.dim() else 0
            if rows % world:
                raise ValueError(
                    f"{name}: expected a multiple of {world} rows, one part for each rank, "
                    f"got {rows}"
                )
        _expect("output", output.numel(), input.numel(), "as input")
        given = source(input)
        target = Target(output, apart_from=given)
        out, mine = words(target.flat).view(world, -1), words(given).view(world, -1)

        def exchange(begin: int, end: int) -> None:
            part = mine[:, begin:end].contiguous().view(-1)
            if end - begin == out.shape[1]:
                self.ctx.ccl.all_to_all(out.view(-1), part)
                return
            got = torch.empty_like(part)
            self.ctx.ccl.all_to_all(got, part)
            out[:, begin:end] = got.view(world, -1)

        self._in_pieces(out.shape[1], world * out.element_size(), exchange)
        target.finish()

    def all_to_all_list(
        self,
        outputs: Sequence[torch.Tensor],
        inputs: Sequence[torch.Tensor],
        whole: torch.Tensor | None = None,
    ) -> None:
        """Messages of any sizes, which take nothing of the heap.

        `whole` is what `outputs` are parts of, if they are.
        """
        self._expect_one_each("output_tensor_list", outputs)
        self._expect_one_each("input_tensor_list", inputs)
        given = [words(source(t)).view(torch.uint8) for t in inputs]
        rank = self.ctx.rank
        targets = [Target(t) for t in outputs]
        arrived = [words(t.flat).view(torch.uint8) for t in targets]
        if any(overlap(a, g) for a in arrived for g in given):
            given = [g.clone() for g in given]
        self._agree_on_sizes([a.numel() for a in arrived], [g.numel() for g in given])
        messages: list[Send | Recv] = []
        for peer in range(self.ctx.world_size):
            if peer != rank:
                messages += [Send(given[peer], peer), Recv(arrived[peer], peer)]
        if messages:
            self.ctx.ccl.batch(messages)
        arrived[rank].copy_(given[rank])
        for target in targets:
            target.finish()

    # ---- messages on a GPU ----

    def send(self, tensor: torch.Tensor, dst: int) -> None:
        self.ctx.ccl.send(words(source(tensor)), dst)

    def receive(self, tensor: torch.Tensor, src: int) -> None:
        target = Target(tensor)
        self.ctx.ccl.recv(words(target.flat), src)
        target.finish()

    def exchange(self, messages: Sequence[Send | Recv]) -> None:
        """Several at once, in whatever order each rank names them."""
        targets = [Target(m.tensor) for m in messages if isinstance(m, Recv)]
        arrive = iter(targets)
        self.ctx.ccl.batch(
            [
                Send(words(source(m.tensor)), m.dst)
                if isinstance(m, Send)
                else Recv(words(next(arrive).flat), m.src)
                for m in messages
            ]
        )
        for target in targets:
            target.finish()

    def _agree_on_sizes(self, received: Sequence[int], sent: Sequence[int]) -> None:
        """Raises on all ranks where two do not go together, or one makes another call.

        Messages are between two ranks, and nobody else would know. On a GPU the host would have to
        wait for the sizes: there the message itself says that they differ.
        """
        rank = self.ctx.rank
        if not self._on_cpu:
            if received[rank] != sent[rank]:
                raise ValueError(
                    f"all_to_all: expected as many bytes from this rank, {rank}, to itself, got "
                    f"{sent[rank]} sent and {received[rank]} received"
                )
            return
        own = torch.tensor([*sent, *received], dtype=torch.int64)
        world = self.ctx.world_size
        everybody = torch.empty(world * own.numel(), dtype=torch.int64)
        self.ctx.ccl.all_gather(everybody, own)
        table = everybody.view(world, 2, world)
        wrong = (table[:, 0] != table[:, 1].T).nonzero()
        if len(wrong):
            src, dst = wrong[0].tolist()
            raise ValueError(
                f"all_to_all: expected as many bytes from rank {src} to rank {dst} on both, got "
                f"{table[src, 0, dst]} sent and {table[dst, 1, src]} received"
            )

    # ---- pieces ----

    def _reduced(self, flat: torch.Tensor, op: Any) -> tuple[torch.Tensor, Reduction]:
        """Real elements, and how they are reduced."""
        elements = reals(flat)
        reduction = reduction_of(op, elements.dtype)
        if flat.is_complex() and reduction.name not in ("sum", "avg"):
            raise ValueError(f"op: expected sum or avg for {flat.dtype}, got {reduction.name}")
        return elements, reduction

    def _gathered(self, part: torch.Tensor, dst: int | None = None) -> Any:
        """(world_size, n): all ranks' parts; with `dst` there alone, and None elsewhere."""
        world = self.ctx.world_size
        if dst not in (None, self.ctx.rank):
            self.ctx.ccl.gather(None, words(part), dst)
            return None
        rows = part.new_empty(world, part.numel())
        if dst is None:
            self.ctx.ccl.all_gather(words(rows.view(-1)), words(part))
        else:
            self.ctx.ccl.gather(words(rows.view(-1)), words(part), dst)
        return rows

    def _in_pieces(self, count: int, size: int, call: Callable[[int, int], None]) -> None:
        """`call(begin, end)` for the pieces of `count` elements, whose exchange takes `size` bytes
        each. Nothing is a piece, too."""
        begin = 0
        while begin < count or begin == count == 0:
            end = min(count, begin + max(1, self._piece // size))
            try:
                call(begin, end)
            except iris_c.HeapExhausted:
                if self._piece <= LEAST_PIECE:
                    raise
                self._piece //= 2
                continue
            if count == 0:
                return
            begin = end

    def _expect_one_each(self, argument: str, tensors: Sequence[torch.Tensor]) -> None:
        if len(tensors) != self.ctx.world_size:
            raise ValueError(
                f"{argument}: expected {self.ctx.world_size} tensors, one for each rank, "
                f"got {len(tensors)}"
            )


def source_parts(tensor: torch.Tensor, rows: Sequence[int]) -> list[torch.Tensor]:
    """The tensor's rows, so many for each rank."""
    return list(tensor.detach().split(list(rows)))


def _rows(name: str, tensor: torch.Tensor, sizes: Sequence[int], world: int) -> Sequence[int]:
    """How many of the tensor's rows belong to each rank."""
    rows = tensor.shape[0] if tensor.dim() else 0
    if not sizes:
        if rows % world:
            raise ValueError(
                f"{name}: expected a multiple of {world} rows, one part for each rank, got {rows}"
            )
        return [rows // world] * world
    if len(sizes) != world or sum(sizes) != rows or min(sizes) < 0:
        raise ValueError(
            f"{name}_split_sizes: expected {world} sizes >= 0 that add up to {rows}, "
            f"got {list(sizes)}"
        )
    return sizes


def _expect(argument: str, got: int, expected: int, why: str) -> None:
    if got != expected:
        raise ValueError(f"{argument}: expected {expected} elements, {why}, got {got}")


def _expect_dtype(argument: str, tensor: torch.Tensor, other: torch.Tensor) -> None:
    if tensor.dtype != other.dtype:
        raise ValueError(f"{argument}: expected dtype {other.dtype}, got {tensor.dtype}")


def _by_dtype(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    alike: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        alike.setdefault(tensor.dtype, []).append(tensor)
    yield from alike.values()
