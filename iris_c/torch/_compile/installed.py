# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The pass in Inductor's configuration, and what it has done.

It runs twice. On the graph as it was traced, of both passes of a training step if there are two:
what Inductor does with products afterwards, as padding them, would hide them. And on what is to be
compiled: there is less in it, so more of it fits. What has been put there is counted in Inductor's
own counters, which a graph from its cache brings along.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch._dynamo.utils import counters
from torch._inductor import config
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph

from iris_c.torch._compile import groups
from iris_c.torch._compile.fusion import fuse, fused_operations

__all__ = ["CompilePass"]

_COUNTED = "iris_c_"  # what the counters' names begin with


class _Several(list[Any], CustomGraphPass):
    """Passes one after the other: a list, as torch takes it, and a pass, as releases that take no
    list do."""

    def __call__(self, graph: Graph) -> None:
        for one in self:
            one(graph)

    def uuid(self) -> Any:
        known = [one.uuid() if isinstance(one, CustomGraphPass) else None for one in self]
        return None if None in known else tuple(known)


class _Pass(CustomGraphPass):
    """One of the two places. While nobody wants it, it does nothing."""

    def __init__(self, setting: str, counts: bool) -> None:
        self.setting, self.counts, self.wanted = setting, counts, 0

    def __call__(self, graph: Graph) -> None:
        if self.wanted == 0:
            return
        fuse(graph)
        if self.counts:
            for name, number in fused_operations(graph).items():
                counters["inductor"][_COUNTED + name] += number

    def uuid(self) -> Any:
        """What a graph in the cache must have been compiled with."""
        return (self.setting, _sources(), groups.facts()) if self.wanted else (self.setting,)

    def install(self) -> None:
        self.wanted += 1
        there = getattr(config, self.setting)
        passes = list(there) if isinstance(there, list | tuple) else [there]
        if self not in passes:
            passes = [one for one in passes if one is not None]
            setattr(config, self.setting, _Several([*passes, self]) if passes else self)

    def remove(self) -> None:
        """Leave what others have put there in the meantime."""
        self.wanted -= 1
        if self.wanted:
            return
        there = getattr(config, self.setting)
        if there is self:
            setattr(config, self.setting, None)
        elif isinstance(there, list | tuple) and self in there:
            left = [one for one in there if one is not self]
            setattr(config, self.setting, _Several(left) if len(left) > 1 else left[0])


_passes = (_Pass("joint_custom_pre_pass", False), _Pass("post_grad_custom_pre_pass", True))


def _sources() -> bytes:
    here = pathlib.Path(__file__).parent
    files = sorted(map(str, (*here.glob("*.py"), *here.parent.glob("_operations.py"))))
    return get_hash_for_files(tuple(files))


class CompilePass(Mapping[str, int]):
    """The installed pass: how many operations of each name it has put into graphs so far.

    Graphs that Inductor had in its cache count as well. ``with`` removes it at the end.
    """

    def __init__(self) -> None:
        self._before = _counted()
        self._final: Counter[str] | None = None
        for one in _passes:
            one.install()

    def remove(self) -> None:
        """Take the pass away, and stop counting. What has been compiled stays compiled."""
        if self._final is None:
            self._final = self._so_far()
            for one in _passes:
                one.remove()

    def __enter__(self) -> CompilePass:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def _so_far(self) -> Counter[str]:
        if self._final is not None:
            return self._final
        now = _counted()
        # torch's counters may have been cleared since.
        return Counter(
            {name: n - self._before[name] * (n >= self._before[name]) for name, n in now.items()}
        )

    def __getitem__(self, name: str) -> int:
        number = self._so_far()[name]
        if number == 0:
            raise KeyError(name)
        return number

    def __iter__(self) -> Iterator[str]:
        return (name for name, number in self._so_far().items() if number)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<iris_c.torch.compile_pass {dict(self)}>"


def _counted() -> Counter[str]:
    return Counter(
        {
            name.removeprefix(_COUNTED): number
            for name, number in counters["inductor"].items()
            if name.startswith(_COUNTED)
        }
    )
