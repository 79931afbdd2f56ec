# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Nodes of a graph: new ones with their fake results, how one tensor lies in another, who uses and
who writes it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch._guards import detect_fake_mode
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

try:
    from torch.fx.experimental.symbolic_shapes import optimization_hint as _hint
except ImportError:  # torch 2.11
    from torch.fx.experimental.symbolic_shapes import size_hint as _hint  # type: ignore

aten = torch.ops.aten

# Of a tensor's dimension: a number, or a symbolic one.
Size: TypeAlias = Any

_VIEWS = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
}
_COPIES = {aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default}
_PERMUTATIONS = {aten.permute.default, aten.transpose.int, aten.t.default}
# Those that hand on the elements of their first argument, all of them, in another shape.
RESHAPING = _VIEWS | _COPIES | _PERMUTATIONS
# In the meta data of a node: the name of the fused operation that has been put there.
FUSED = "iris_c_fused"
# Meta data that belong to a node's own result.
_OF_THE_RESULT = ("val", "tensor_meta", "example_value", "eager_input_vals", "original_aten")


def hint(size: Size) -> int:
    """The number that a size has where the graph is compiled, or if none is known, a usual one."""
    return int(_hint(size, 8192))


def value(node: Node) -> Any:
    """The fake result of a node."""
    return node.meta.get("val")


def is_call(node: Any, *targets: Any) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def hands_on(node: Any) -> bool:
    """Whether a node has the elements of its first argument, all of them."""
    if is_call(node, *RESHAPING):
        return True
    # DTensor cuts off what it has padded, of which there may be nothing.
    if not is_call(node, aten.slice.Tensor) or len(node.args) != 4:
        return False
    source, start = node.args[0], node.args[2]
    return start == 0 and same_shape(value(node).shape, value(source).shape)


# ---- sizes ----


def equal(a: Size, b: Size) -> bool:
    """Whether two sizes are known to be equal, whatever the symbols stand for."""
    return bool(statically_known_true(a == b))


def same_shape(a: Sequence[Size], b: Sequence[Size]) -> bool:
    return len(a) == len(b) and all(map(equal, a, b))


def number_of(sizes: Iterable[Size]) -> Size:
    """The number of elements of a shape."""
    number: Size = 1
    for size in sizes:
        number = number * size
    return number


def splits(shape: Sequence[Size], rows: Size, columns: Size) -> list[int]:
    """The places where a shape falls into one of `rows` and one of `columns` elements."""
    return [
        place
        for place in range(len(shape) + 1)
        if equal(number_of(shape[:place]), rows) and equal(number_of(shape[place:]), columns)
    ]


# ---- how a tensor lies in another ----


class Layout(NamedTuple):
    """A tensor that is another one's ``reshape(shape).permute(order)``."""

    shape: tuple[Size, ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[Size]) -> Layout:
        return cls(tuple(shape), tuple(range(len(shape))))

    @property
    def is_in_order(self) -> bool:
        return self.order == tuple(range(len(self.order)))

    def then(self, node: Node) -> Layout | None:
        """That of the result of a node of RESHAPING, whose argument lies so; None if it cannot be
        said in this form."""
        if node.target in _PERMUTATIONS:
            dims = _permuted(node, len(self.order))
            return Layout(self.shape, tuple(self.order[dim] for dim in dims))
        if self.is_in_order:
            return Layout.of(value(node).shape)
        own = [self.shape[dim] for dim in self.order]
        return self if same_shape(own, value(node).shape) else None


def _permuted(node: Node, count: int) -> list[int]:
    """The dimensions of a permutation's argument, in the order of its result."""
    dims = list(range(count))
    if node.target is aten.permute.default:
        return [dim % count for dim in node.args[1]]  # type: ignore[union-attr, operator, misc]
    first, second = (0, 1) if node.target is aten.t.default else node.args[1:3]
    if count > 1:
        dims[first], dims[second] = dims[second], dims[first]  # type: ignore[index]
    return dims


# ---- users and writers ----


def users(node: Node) -> list[Node]:
    """Those that read a node's elements."""
    return [user for user in node.users if not is_shape_of(user, node)]


def is_shape_of(user: Node, node: Node) -> bool:
    """Whether a user takes no element of a node: it asks for a size, or gives another tensor its
    place, as what comes of an operation in place does."""
    if is_call(user, aten.sym_size.int):
        return True
    return replaces(user, node) is not None


def replaces(user: Node, node: Node) -> Node | None:
    """The tensor that takes a node's place in `user`, a copy into it that changes nothing else."""
    if not is_call(user, aten.copy.default) or user.args[0] is not node:
        return None
    source = user.args[1]
    if not isinstance(source, Node) or source is node:
        return None
    old, new = value(node), value(source)
    if not isinstance(new, torch.Tensor):
        return None
    alike = (old.dtype, old.device, old.layout) == (new.dtype, new.device, new.layout)
    return source if alike and same_shape(old.shape, new.shape) else None


def only_user(node: Node) -> Node | None:
    """The one node that reads a node's elements, once."""
    found = users(node)
    return found[0] if len(found) == 1 else None


def _is_alias(node: Node) -> bool:
    """Whether the result of a call may be its first argument's memory."""
    if is_call(node, operator.getitem):
        return True
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.arguments:
        return False
    info = schema.arguments[0].alias_info
    return info is not None and not info.is_write


def _writes(user: Node, node: Node) -> bool:
    """Whether a user may write into a node's memory."""
    if user.op != "call_function":
        return user.op in ("call_module", "call_method")
    schema = getattr(user.target, "_schema", None)
    if schema is None:  # a function of Python, or an operation with graphs for arguments
        return isinstance(user.target, torch._ops.HigherOrderOperator)
    for index, argument in enumerate(schema.arguments):
        given = user.args[index] if index < len(user.args) else user.kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            among = given if isinstance(given, list | tuple) else [given]
            if any(one is node for one in among):
                return True
    return False


def written_before(tensors: Iterable[Node], last: Node) -> bool:
    """Whether the memory of any of these is written in front of node `last`."""
    for tensor in tensors:
        base = tensor
        while _is_alias(base) and isinstance(base.args[0], Node):
            base = base.args[0]
        seen = [base]
        for node in seen:
            for user in node.users:
                if user < last and _writes(user, node):
                    return True
                if _is_alias(user) and user.args[0] is node and user not in seen:
                    seen.append(user)
    return False


def depends(node: Node, on: Node) -> bool:
    """Whether a node needs another's result. The graph's order is that of its nodes' results."""
    seen, stack = set(), [node]
    while stack:
        one = stack.pop()
        if one is on:
            return True
        for before in one.all_input_nodes:
            if before not in seen and not before < on:
                seen.add(before)
                stack.append(before)
    return False


# ---- new nodes ----


class Builder:
    """Puts new nodes in front of one, which has the same origin as theirs."""

    def __init__(self, place: Node) -> None:
        self.place, self.made = place, list[Node]()
        self._meta = {key: entry for key, entry in place.meta.items() if key not in _OF_THE_RESULT}

    def call(self, target: Any, *args: Any) -> Node:
        """A call, with its fake result."""
        with self.place.graph.inserting_before(self.place):
            node = self.place.graph.call_function(target, args)
        self.made.append(node)
        node.meta.update(self._meta)
        given = torch.fx.map_arg(args, value)
        mode = detect_fake_mode([one for one in _leaves(given) if isinstance(one, torch.Tensor)])
        if mode is None:
            node.meta["val"] = target(*given)
        else:
            with mode:
                node.meta["val"] = target(*given)
        return node

    def fused(self, target: Any, *args: Any) -> Node:
        """A call of a fused operation, which is counted."""
        node = self.call(target, *args)
        node.meta[FUSED] = target._schema.name.removeprefix("iris_c::")
        return node

    def take_back(self) -> None:
        """Erase what has been made."""
        for node in reversed(self.made):
            node.graph.erase_node(node)
        self.made.clear()

    def size(self, tensor: Node, dim: int) -> Any:
        """A size as an argument: a number or a node."""
        size = value(tensor).shape[dim]
        return size if isinstance(size, int) else self.call(aten.sym_size.int, tensor, dim)

    def product(self, sizes: Sequence[Any]) -> Any:
        """Of sizes, which are arguments."""
        result: Any = 1
        for size in sizes:
            if isinstance(result, int) and isinstance(size, int):
                result = result * size
            elif not (isinstance(result, int) and result == 1):
                result = self.call(operator.mul, result, size)
            else:
                result = size
        return result

    def transposed(self, matrix: Node) -> Node:
        return self.call(aten.permute.default, matrix, [1, 0])

    def reshaped(self, tensor: Node, shape: Sequence[Any]) -> Node:
        """In a shape of arguments, one of which may be -1."""
        own = value(tensor).shape
        known = [value(size) if isinstance(size, Node) else size for size in shape]
        if len(own) == len(known) and all(
            isinstance(size, int) and (size == -1 or equal(size, mine))
            for size, mine in zip(known, own, strict=True)
        ):
            return tensor
        if not value(tensor).is_contiguous():
            tensor = self.contiguous(tensor)
        return self.call(aten.view.default, tensor, list(shape))

    def contiguous(self, tensor: Node) -> Node:
        with self.place.graph.inserting_before(self.place):
            node = self.place.graph.call_function(
                aten.clone.default, (tensor,), {"memory_format": torch.contiguous_format}
            )
        self.made.append(node)
        node.meta.update(self._meta)
        node.meta["val"] = value(tensor).clone(memory_format=torch.contiguous_format)
        return node

    def exchanged(self, tensor: Node, shape: Sequence[Any], first: int) -> Node:
        """`tensor` in a shape of four dimensions, the two from `first` on exchanged."""
        order = [0, 1, 2, 3]
        order[first], order[first + 1] = first + 1, first
        apart = self.reshaped(tensor, shape)
        return self.contiguous(self.call(aten.permute.default, apart, order))


def _leaves(arguments: Any) -> Iterator[Any]:
    if isinstance(arguments, list | tuple):
        for one in arguments:
            yield from _leaves(one)
    else:
        yield arguments


def without_copies(node: Node) -> None:
    """Have what is copied into a node's place be used itself."""
    for user in list(node.users):
        source = replaces(user, node)
        if source is not None:
            user.replace_all_uses_with(source)
            node.graph.erase_node(user)


def stands_for(new: Node, old: Node) -> bool:
    """Whether one result has the dtype and the shape of another. Sizes that no rule shows to be
    equal are compared in the numbers that the graph is compiled for."""
    mine, theirs = value(new), value(old)
    if mine.dtype != theirs.dtype or mine.dim() != theirs.dim():
        return False
    if same_shape(mine.shape, theirs.shape):
        return True
    if any(hint(a) != hint(b) for a, b in zip(mine.shape, theirs.shape, strict=True)):
        return False
    new.meta["val"] = theirs
    return True


def sizes_from(node: Node, sizes: Callable[[], Sequence[Any]]) -> None:
    """Have those that ask for a node's size take what `sizes()`, which are arguments, say."""
    asking = [user for user in node.users if is_call(user, aten.sym_size.int)]
    given = sizes() if asking else []
    for user in asking:
        if len(user.args) == 2:
            size = given[user.args[1]]  # type: ignore[index]
            user.replace_all_uses_with(size)
            user.graph.erase_node(user)


def erase_unused(graph: Graph, nodes: Iterable[Node]) -> None:
    """Erase those of these nodes, from the last on, that have no users."""
    for node in sorted(set(nodes), reverse=True):
        if not node._erased and not node.users and node.op == "call_function":
            graph.erase_node(node)


def sort(graph: Graph) -> None:
    """Put each node behind those that it needs, and leave the order as it is otherwise."""
    placed: set[Node] = set()
    waiting: dict[Node, list[Node]] = {}
    last: Node | None = None

    def missing(node: Node) -> Node | None:
        return next((one for one in node.all_input_nodes if one not in placed), None)

    todo = list(reversed(list(graph.nodes)))
    while todo:
        node = todo.pop()
        needed = missing(node)
        if needed is not None:
            waiting.setdefault(needed, []).append(node)
            continue
        if last is not None and last.next is not node:
            last.append(node)
        last = node
        placed.add(node)
        todo.extend(reversed(waiting.pop(node, [])))
    assert not waiting, "nodes that need each other"
