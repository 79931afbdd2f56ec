# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Random calls of every operation, with what they must give; and what can be wrong about a call.

Values are small integers, so that results are exact in every dtype, whatever the order of the sum.
What all ranks must choose alike is drawn from `Fuzz.chance`, which is the same on all of them; what
is a rank's own business, where a tensor lies and how, from `Fuzz.own`.
"""

from __future__ import annotations

import dataclasses
import random

import cases
import numpy
import torch

import iris_c

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
REDUCIBLE = (*FLOATS, torch.int32, torch.int64, torch.float64, torch.int8, torch.uint8, torch.bool)
RARE = REDUCIBLE[5:]
MOVABLE = (*REDUCIBLE, torch.int16, torch.uint16, torch.complex64, torch.float8_e4m3fn)
VARIANTS = ("two_shot", "one_shot", "ring", "atomic", "spinlock")
SIZES = (1, 2, 3, 5, 8, 17, 64, 100)
POISON = 0x55


def bits(tensor: torch.Tensor) -> torch.Tensor:
    # A dimension of one element may have any stride.
    return tensor.contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


@dataclasses.dataclass
class Call:
    """A function with named arguments. `expected` has what each output holds afterwards; `tensors`
    are the arguments that this rank's call looks at."""

    name: str
    function: object
    arguments: dict
    expected: dict
    tensors: tuple
    tolerance: float = 0.0
    then: object = None  # what makes the result visible, called after the call

    def run(self):
        result = self.function(**self.arguments)
        if self.then is not None:
            self.then()
        return result

    def __str__(self) -> str:
        def short(value):
            if isinstance(value, torch.Tensor) and value.layout == torch.strided:
                return f"{str(value.dtype)[6:]}{tuple(value.shape)}/{value.stride()}"
            return f"{type(value).__name__}({str(value)[:60]!r})"

        return f"{self.name}({', '.join(f'{k}={short(v)}' for k, v in self.arguments.items())})"


def as_torch(value) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.from_dlpack(value)


class Fuzz:
    """The state of one rank: its context, both sources of chance, and the call's number."""

    def __init__(self, ctx, seed: int):
        self.ctx, self.seed, self.number = ctx, seed, 0
        self.world, self.rank = ctx.world_size, ctx.rank

    def begin(self, number: int) -> None:
        """Both sources anew, so that ranks that draw differently in one call agree in the next."""
        self.number = number
        self.chance = random.Random(f"fuzz {self.seed} {number}")
        self.own = random.Random(f"fuzz {self.seed} {number} rank {self.rank}")

    # ---- values and tensors ----

    def values(self, rank: int, name: str, shape, dtype) -> torch.Tensor:
        """What `rank` passes as argument `name` of this call."""
        text = f"{self.seed} {self.number} {name} {rank}"
        low, high = (0, 3) if dtype in (torch.uint8, torch.uint16) else (-2, 3)
        drawn = torch.randint(low, high, tuple(shape), generator=cases.generator(text))
        return (drawn > 0) if dtype == torch.bool else drawn.to(dtype)

    def all_values(self, name: str, shape, dtype) -> list[torch.Tensor]:
        return [self.values(rank, name, shape, dtype) for rank in range(self.world)]

    def placed(self, values: torch.Tensor, contiguous: bool, written: bool, even=True):
        """The values somewhere, in some layout, as an object of some library. `even`: all ranks'
        are of one size, so they may lie in the heap."""
        place = self.chance.choice(("heap", "buffer", "own", "own", "own"))
        place = place if even else "own"
        if place == "heap":
            tensor = self.ctx.empty(values.shape, dtype=values.dtype)
        elif place == "buffer":
            buffer = self.ctx.allocate(tuple(values.shape), str(values.dtype))
            torch.from_dlpack(buffer).copy_(values)
            return buffer
        else:
            layouts = ["row", "offset", *(["transposed", "strided"] * (not contiguous))]
            tensor = self.laid_out(values, self.own.choice(layouts))
        tensor.copy_(values)
        if place == "own" and self.own.random() < 0.3 and values.dtype not in (
            torch.bfloat16, torch.float8_e4m3fn
        ):  # fmt: skip
            array = tensor.numpy()
            if not written and self.own.random() < 0.5:
                array.flags.writeable = False
            return array
        return tensor

    def off_heap(self, *shape, dtype) -> torch.Tensor:
        """Memory of this rank's alone: in its arena, if that has room, or ordinary."""
        if self.own.random() < 0.5:
            try:
                return self.ctx.local_empty(*shape, dtype=dtype)
            except iris_c.HeapExhausted:
                pass
        return torch.empty(shape, dtype=dtype)

    def laid_out(self, like: torch.Tensor, layout: str) -> torch.Tensor:
        shape, dtype = tuple(like.shape), like.dtype
        if layout == "transposed" and len(shape) == 2:
            return self.off_heap(*shape[::-1], dtype=dtype).t()
        if layout == "strided" and len(shape) == 2:
            return self.off_heap(shape[0] + 1, 2 * shape[1] + 3, dtype=dtype)[1:, 1:-2:2]
        count = like.numel()
        return self.off_heap(count + 1, dtype=dtype)[1:].view(shape)

    def output(self, shape, dtype, contiguous=True, even=True):
        empty = torch.empty(tuple(shape), dtype=dtype)
        bits(empty).fill_(POISON)
        return self.placed(empty, contiguous, written=True, even=even)

    def input(self, name, shape, dtype, contiguous=True):
        return self.placed(self.values(self.rank, name, shape, dtype), contiguous, written=False)

    def options(self, operation: str, config=None) -> dict:
        """Arguments that change nothing about the result."""
        options = {}
        if config is not None:
            options["config"] = config
        if self.chance.random() < 0.3:
            options["async_op"] = self.chance.random() < 0.5
        if self.chance.random() < 0.3:
            options["workspace"] = iris_c.FusedWorkspace(self.ctx, operation)
        return options

    def fused_config(self, variants):
        if self.chance.random() < 0.5:
            return None
        return iris_c.FusedConfig(
            all_reduce_variant=self.chance.choice(variants),
            block_size_m=self.chance.choice((None, 1, 16)),
            block_size_n=self.chance.choice((None, 3, 32)),
        )

    # ---- products ----

    def product(self, operation: str) -> Call:
        chance, world = self.chance, self.world
        dtype = chance.choice(FLOATS)
        m, n, k = (chance.choice(SIZES) for _ in range(3))
        k = min(k, 8)
        options = self.options(operation, self.fused_config(
            VARIANTS if operation == "matmul_all_reduce" else ("two_shot",)))  # fmt: skip
        dim = chance.choice((0, 1))
        if operation == "matmul_reduce_scatter":
            m, n = (m * world, n) if dim == 0 else (m, n * world)
            options["dim"] = dim
        A, B = self.all_values("A", (m, k), dtype), self.all_values("B", (k, n), dtype)
        products = [a.double() @ b.double() for a, b in zip(A, B, strict=True)]
        total = sum(products)
        if operation == "matmul_all_gather":
            total = torch.cat(products)
        elif operation == "matmul_reduce_scatter":
            total = total.chunk(world, dim)[self.rank]
        arguments = {
            "C": self.output(total.shape, dtype, contiguous=False),
            "A": self.input("A", (m, k), dtype, contiguous=False),
            "B": self.input("B", (k, n), dtype, contiguous=False),
            **options,
        }
        if chance.random() < 0.3:
            bias = self.values(0, "bias", (total.shape[1],), dtype)  # equal on all ranks
            arguments["bias"] = self.placed(bias, contiguous=False, written=False)
            total = total + bias.double()
        return Call(
            operation, getattr(self.ctx.ops, operation), arguments, {"C": total.to(dtype)},
            tuple(name for name in ("C", "A", "B", "bias") if name in arguments),
        )  # fmt: skip

    def gathered_product(self, operation: str) -> Call:
        chance = self.chance
        dtype, dim = chance.choice(FLOATS), chance.choice((0, 1))
        m, n, k = chance.choice(SIZES), chance.choice(SIZES), chance.choice((1, 2, 4))
        shards = self.all_values("A_shard", (m, k), dtype)
        joined = torch.cat(shards, dim)
        B = self.values(self.rank, "B", (joined.shape[1], n), dtype)
        options = self.options(operation)
        arguments = {
            "C": self.output((joined.shape[0], n), dtype, contiguous=False),
            "A_shard": self.input("A_shard", (m, k), dtype, contiguous=False),
            "B": self.placed(B, contiguous=False, written=False),
            "gather_dim": dim,
            **options,
        }
        expected = {"C": (joined.double() @ B.double()).to(dtype)}
        if chance.random() < 0.4:
            arguments["A_gathered"] = self.output(joined.shape, dtype, contiguous=False)
            expected["A_gathered"] = joined
        tensors = tuple(n for n in ("C", "A_shard", "B", "A_gathered") if n in arguments)
        return Call(operation, getattr(self.ctx.ops, operation), arguments, expected, tensors)

    # ---- reductions ----

    def reduced(self, inputs: list[torch.Tensor], op: str) -> torch.Tensor:
        dtype, stacked = inputs[0].dtype, torch.stack(inputs)
        if dtype == torch.bool:
            return stacked.any(0) if op in ("sum", "max") else stacked.all(0)
        wide = stacked.double() if dtype.is_floating_point else stacked.long()
        if op in ("max", "min"):
            return (wide.amax(0) if op == "max" else wide.amin(0)).to(dtype)
        if op == "prod":
            return wide.prod(0).to(dtype)
        total = wide.sum(0)
        if op == "avg":
            rounding = None if dtype.is_floating_point else "trunc"
            total = torch.div(total, self.world, rounding_mode=rounding)
        return total.to(dtype)

    def reduction(self, operation: str) -> Call:
        chance, world = self.chance, self.world
        dtype = chance.choice(REDUCIBLE)
        op = chance.choice(("sum", "max", "min", "prod", *(["avg"] * (dtype != torch.bool))))
        n = chance.choice(SIZES)
        config, root = None, chance.randrange(world)
        if operation == "all_reduce" and dtype not in RARE and chance.random() < 0.6:
            adding = op in ("sum", "avg") and dtype in FLOATS
            variants = ("ll", "ll_two_shot", "one_shot", "two_shot", "ring",
                        *(["atomic", "spinlock"] * adding))  # fmt: skip
            config = iris_c.ccl.Config(all_reduce_variant=chance.choice(variants))
        count = n * world if operation == "reduce_scatter" else n
        total = self.reduced(self.all_values("input", (count,), dtype), op)
        if operation == "reduce_scatter":
            total = total.chunk(world)[self.rank]
        arguments = {
            "output": self.output(total.shape, dtype),
            "input": self.input("input", (count,), dtype),
            "op": op, **self.options(operation, config),
        }  # fmt: skip
        expected, tensors = {"output": total}, ("output", "input")
        if operation == "reduce":
            arguments["dst"] = root
            if self.rank != root:
                expected, tensors = {"output": None}, ("input",)
        function = getattr(self.ctx.ccl, operation)
        return Call(operation, function, arguments, expected, tensors)

    def rmsnorm(self) -> Call:
        rows, n, dtype = self.chance.choice((1, 3)), self.chance.choice(SIZES), torch.float32
        total = sum(self.all_values("input", (rows, n), dtype))
        weight = self.values(0, "weight", (n,), dtype)
        norm = total * weight / torch.sqrt((total**2).mean(-1, keepdim=True) + 1e-6)
        arguments = {
            "output": self.output((rows, n), dtype),
            "residual_out": self.output((rows, n), dtype),
            "input": self.input("input", (rows, n), dtype),
            "residual": None,
            "weight": self.placed(weight, contiguous=True, written=False),
        }
        return Call(
            "all_reduce_rmsnorm", self.ctx.ccl.all_reduce_rmsnorm, arguments,
            {"residual_out": total, "output": norm},
            ("output", "residual_out", "input", "weight"), tolerance=1e-4,
        )  # fmt: skip

    # ---- what moves ----

    def transfer(self, operation: str) -> Call:
        chance, world, ccl = self.chance, self.world, self.ctx.ccl
        dtype, n, root = chance.choice(MOVABLE), chance.choice(SIZES), chance.randrange(world)
        options = self.options(operation)
        many = operation in ("all_to_all", "scatter")
        inputs = self.all_values("input", (n * world if many else n,), dtype)
        parts = [bits(value).view(world if many else 1, -1) for value in inputs]
        if operation in ("all_gather", "gather"):
            result = torch.cat([part.view(-1) for part in parts])
        elif operation == "all_to_all":
            result = torch.cat([part[self.rank] for part in parts])
        else:
            result = parts[root][self.rank if many else 0]
        result = result.view(dtype)
        if operation == "broadcast":
            tensor = self.placed(inputs[self.rank], contiguous=True, written=True)
            arguments = {"tensor": tensor, "src": root, **options}
            return Call(operation, ccl.broadcast, arguments, {"tensor": result}, ("tensor",))
        arguments = {
            "output": self.output((n * world if operation == "gather" else result.numel(),), dtype),
            "input": self.placed(inputs[self.rank], contiguous=True, written=False),
            **options,
        }
        expected, tensors = {"output": result}, ("output", "input")
        if operation in ("gather", "scatter"):
            arguments["dst" if operation == "gather" else "src"] = root
            if self.rank != root:
                tensors = ("input",) if operation == "gather" else ("output",)
                expected = {"output": None} if operation == "gather" else expected
        return Call(operation, getattr(ccl, operation), arguments, expected, tensors)

    def uneven_all_to_all(self) -> Call:
        """sizes[s][d]: rows that s sends d."""
        world, dtype = self.world, self.chance.choice(MOVABLE)
        sizes = [[self.chance.randrange(4) for _ in range(world)] for _ in range(world)]
        inputs = [self.values(r, "input", (sum(sizes[r]), 2), dtype) for r in range(world)]
        result = torch.cat([
            bits(value).view(sum(sizes[r]), -1).split(sizes[r])[self.rank] if sum(sizes[r])
            else torch.empty(0, 2 * dtype.itemsize, dtype=torch.uint8)
            for r, value in enumerate(inputs)
        ]).contiguous().view(-1).view(dtype).view(-1, 2)  # fmt: skip
        arguments = {
            "output": self.output(result.shape, dtype, even=False),
            "input": self.placed(inputs[self.rank], contiguous=True, written=False, even=False),
            "output_split_sizes": [sizes[r][self.rank] for r in range(world)],
            "input_split_sizes": sizes[self.rank],
        }
        return Call("all_to_all", self.ctx.ccl.all_to_all, arguments, {"output": result},
                    ("output", "input"))  # fmt: skip

    def message(self) -> Call:
        """Between ranks 0 and 1; alone, a copy to oneself."""
        dtype, n = self.chance.choice(MOVABLE), self.chance.choice(SIZES)
        if self.world == 1:
            return self.one_sided("put")
        sent = self.values(0, "tensor", (n,), dtype)
        if self.rank == 0:
            tensor = self.placed(sent, contiguous=True, written=False)
            return Call("send", self.ctx.ccl.send, {"tensor": tensor, "dst": 1}, {}, ("tensor",))
        tensor = self.output((n,), dtype)
        return Call("recv", self.ctx.ccl.recv, {"tensor": tensor, "src": 0}, {"tensor": sent},
                    ("tensor",))  # fmt: skip

    def circle(self) -> Call:
        """Each rank sends to the next one."""
        dtype, n = self.chance.choice(MOVABLE), self.chance.choice(SIZES)
        following, preceding = (self.rank + 1) % self.world, (self.rank - 1) % self.world
        arguments = {
            "recv_tensor": self.output((n,), dtype),
            "send_tensor": self.input("send_tensor", (n,), dtype),
            "dst": following,
            "src": preceding,
        }
        expected = {"recv_tensor": self.values(preceding, "send_tensor", (n,), dtype)}
        return Call("sendrecv", self.ctx.ccl.sendrecv, arguments, expected,
                    ("recv_tensor", "send_tensor"))  # fmt: skip

    def one_sided(self, operation: str) -> Call:
        dtype, n = self.chance.choice(MOVABLE), self.chance.choice(SIZES)
        following, preceding = (self.rank + 1) % self.world, (self.rank - 1) % self.world
        heap = self.ctx.empty(n, dtype=dtype)
        mine = self.values(self.rank, "src", (n,), dtype)
        if operation == "put":
            bits(heap).fill_(POISON)
            arguments = {"dst": heap, "src": self.placed(mine, contiguous=True, written=False)}
            expected = self.values(preceding, "src", (n,), dtype)
        else:
            heap.copy_(mine)
            arguments = {"dst": self.output((n,), dtype), "src": heap}
            expected = self.values(following, "src", (n,), dtype)
        arguments["peer"] = following
        self.ctx.barrier()
        return Call(operation, getattr(self.ctx, operation), arguments, {"dst": expected},
                    ("dst", "src"), then=self.ctx.barrier)  # fmt: skip

    # ---- any of them ----

    def draw(self) -> Call:
        makers = (
            *[lambda op=op: self.product(op) for op in
              ("matmul_all_reduce", "matmul_reduce_scatter", "matmul_all_gather")],
            *[lambda op=op: self.gathered_product(op) for op in
              ("all_gather_matmul", "all_gather_matmul_hbm_buffer")],
            *[lambda op=op: self.reduction(op) for op in
              ("all_reduce", "all_reduce", "reduce_scatter", "reduce")],
            self.rmsnorm,
            *[lambda op=op: self.transfer(op) for op in
              ("all_gather", "all_to_all", "broadcast", "gather", "scatter")],
            self.uneven_all_to_all,
            self.circle, self.message,
            lambda: self.one_sided("put"), lambda: self.one_sided("get"),
        )  # fmt: skip
        return self.chance.choice(makers)()


# ---- what can be wrong ----


@dataclasses.dataclass
class Mistake:
    """How a call is spoilt. Its error begins with one of `names`, the argument first of all."""

    what: str
    names: tuple
    kinds: tuple


def spoil(fuzz: Fuzz, call: Call) -> Mistake:
    """Makes one argument of the call wrong, alike on all ranks."""
    chance, arguments = fuzz.chance, call.arguments
    root = next(
        (name for name in ("src", "dst", "peer") if isinstance(arguments.get(name), int)), ""
    )
    choices = ["junk", "junk", "keyword", "layout", "values", "gradient"]
    # Alike on all ranks, also where one of them has no output, or sends what the other receives.
    choices += ["config"] * (call.name not in ("put", "get", "send", "recv", "sendrecv"))
    choices += ["read-only"] * (call.name not in ("reduce", "gather", "send", "recv"))
    choices += ["shape"] * (call.name.startswith("matmul") or call.name == "all_reduce")
    choices += ["op"] * ("op" in arguments)
    choices += ["root"] * bool(root)
    what = chance.choice(choices)
    draw = chance.random()  # the same on all ranks, whose tensors may differ
    if what == "keyword":
        arguments["unheard_of"] = 1
        return Mistake(what, ("unheard_of",), (TypeError,))
    if what == "config":
        arguments["config"] = (3, "fast", {"block_size_m": 1})[int(draw * 3)]
        return Mistake(what, ("config",), (TypeError,))
    if what == "op":
        arguments["op"] = ("mean", 3, "")[int(draw * 3)]
        return Mistake(what, ("op",), (ValueError, TypeError))
    if what == "root":
        arguments[root] = (-1, fuzz.world, 2**40, "0", 1.5)[int(draw * 5)]
        return Mistake(what, (root,), (ValueError, TypeError))
    names = [n for n in call.tensors if what != "read-only" or n in call.expected]
    name = names[int(draw * len(names))]
    before = as_torch(arguments[name])
    if what == "junk":
        junk = (3, "x", [1.0], object(), torch.Tensor, numpy.float32, {})
        arguments[name] = junk[chance.randrange(len(junk))]
        return Mistake(what, (name,), (TypeError,))
    if what == "read-only":
        array = numpy.zeros(tuple(before.shape), numpy.float32)
        array.flags.writeable = False
        arguments[name] = array
        return Mistake(what, (name,), (ValueError,))
    if what == "gradient":
        arguments[name] = torch.zeros(before.shape, requires_grad=True)
        return Mistake(what, (name,), (RuntimeError,))
    if what == "values":
        wrong = (
            torch._neg_view(torch.zeros(before.shape)), torch.zeros(before.shape).to_sparse(),
            torch.zeros(before.shape, device="meta"), torch.zeros(before.shape).to("meta"),
            torch._efficientzerotensor(max(before.numel(), 1)),
            torch.zeros(before.shape, dtype=torch.complex32),
        )  # fmt: skip
        arguments[name] = wrong[chance.randrange(len(wrong))]
        return Mistake(what, (name,), (ValueError, TypeError))
    others = (name, *call.tensors)
    if what == "layout":  # a dimension more than any operation takes, or more than there may be
        arguments[name] = torch.zeros((1,) * 9)
        return Mistake(what, (name,), (ValueError,))
    arguments[name] = torch.zeros((before.shape[0] + 3, *before.shape[1:]), dtype=before.dtype)
    return Mistake(what, others, (ValueError,))
