# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Wave-instructions that a product takes for a tile beside its loop over K, as the emulator counted
them, and where it divides.

A *tile loop* is the innermost loop around those over K that stores: its body computes a tile,
stores it and says so. What is counted is all that ran of it, but for the loops over K, which
multiply, and those that wait, which sleep.
"""

from __future__ import annotations

import collections
import re

import control_flow

# Of a division in software: an estimate of the reciprocal.
DIVIDES = re.compile(r"v_rcp_(iflag_)?f32|v_div_|v_rcp_f64")


class Loops:
    """The loops of a kernel, those in loops too: sets of places in its code."""

    def __init__(self, code: list):
        self.code = code
        self.successors = control_flow.Kernel("", code).successors
        self.bodies: list[set[int]] = []
        todo = [(set(range(len(code))), -1)]
        while todo:
            places, entry = todo.pop()
            for body in self._circles(places, entry):
                self.bodies.append(body)
                outside = (i for i in body if any(i in self.successors[j] for j in places - body))
                todo.append((body, next(outside, min(body))))

    def _circles(self, places: set[int], entry: int) -> list[set[int]]:
        """What comes round to itself in `places` but by way of their entry: Tarjan's strongly
        connected components, those that are more than an instruction."""
        after = {i: [j for j in self.successors[i] if j in places and j != entry] for i in places}
        number: dict[int, int] = {}
        lowest: dict[int, int] = {}
        stack: list[int] = []
        stacked, found = set(), []
        for start in places:
            if start in number:
                continue
            number[start] = lowest[start] = len(number)
            stack.append(start)
            stacked.add(start)
            walk = [(start, iter(after[start]))]
            while walk:
                i, rest = walk[-1]
                for j in rest:
                    if j not in number:
                        number[j] = lowest[j] = len(number)
                        stack.append(j)
                        stacked.add(j)
                        walk.append((j, iter(after[j])))
                        break
                    if j in stacked:
                        lowest[i] = min(lowest[i], number[j])
                else:
                    walk.pop()
                    if walk:
                        lowest[walk[-1][0]] = min(lowest[walk[-1][0]], lowest[i])
                    if lowest[i] == number[i]:
                        at = len(stack) - 1 - stack[::-1].index(i)
                        circle = set(stack[at:])
                        stacked -= circle
                        del stack[at:]
                        if len(circle) > 1 or i in after[i]:
                            found.append(circle)
        return found

    def having(self, body: set[int], pattern: str) -> bool:
        return any(re.match(pattern, self.code[i].name) for i in body)

    def multiplying(self) -> list[set[int]]:
        """The loops over K: those that multiply, and nothing in them does that is a loop."""
        found = [body for body in self.bodies if self.having(body, "v_mfma_")]
        return [body for body in found if not any(other < body for other in found)]

    def tiles(self) -> set[int]:
        """The smallest loop around all those over K that stores what they give."""
        inner = set().union(*self.multiplying())
        around = [body for body in self.bodies if inner < body]
        around = [body for body in around if self.having(body - inner, "global_store_dwordx4")]
        return min(around, key=len)

    def storing(self) -> list[set[int]]:
        """Loops that store chunks, without the loops in them. One in which waves meet is over tiles
        or pieces of them."""
        found = []
        for body in self.bodies:
            inside = set().union(*(other for other in self.bodies if other < body))
            stores = self.having(body - inside, "global_store_dwordx4")
            if stores and not self.having(body, "s_sleep|v_mfma_|s_barrier"):
                found.append(body - inside)
        return found

    def waiting(self) -> list[set[int]]:
        return [
            body
            for body in self.bodies
            if self.having(body, "s_sleep") and not self.having(body, "v_mfma_")
        ]

    def of_tiles(self, counted: collections.Counter) -> int:
        """Wave-instructions of all tiles outside K."""
        left = self.tiles() - set().union(*self.multiplying(), *self.waiting())
        return sum(counted[self.code[i].address] for i in left)


def counts(profile) -> dict[str, collections.Counter]:
    """By kernel and address, from the file that EMULATOR_PROFILE names."""
    found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for line in profile.read_text().splitlines():
        kernel, address, count = line.split()
        found[kernel][int(address, 16)] += int(count)
    return found
