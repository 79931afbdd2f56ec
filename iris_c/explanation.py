# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What the runtime weighed to choose a config: candidates, and the time its model gives each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Candidate:
    """A value for a field of the config.

    Attributes
    ----------
    value : int or str
    seconds : float
        The time of the call with it, by the model.
    terms : dict of str to float
        What it is made of, in seconds; terms that overlap do not add up.
    """

    value: int | str
    seconds: float
    terms: dict[str, float]


@dataclass(frozen=True)
class Decision:
    """A field of the config that was chosen by a model.

    Attributes
    ----------
    field : str
    chosen : Candidate
        The fastest, or the first of those that the model cannot tell apart.
    candidates : tuple of Candidate
    """

    field: str
    chosen: Candidate
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        lines = [f"{self.field} = {self.chosen.value}"]
        for candidate in self.candidates:
            mark = "*" if candidate is self.chosen else " "
            terms = ", ".join(f"{name} {1e6 * s:.1f}" for name, s in candidate.terms.items())
            lines.append(f"  {mark} {candidate.value}: {1e6 * candidate.seconds:.1f} us ({terms})")
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """The decisions of one call; as text, a table of candidates in microseconds.

    Attributes
    ----------
    decisions : tuple of Decision
        Empty where everything was given, or follows from the shape by a rule.
    """

    decisions: tuple[Decision, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.decisions)) or "nothing was weighed: a rule decides"


# (field, index of the chosen candidate, [(value, seconds, terms), ...])
_Weighed: TypeAlias = tuple[str, int, list[tuple[int | str, float, dict[str, float]]]]


def from_extension(decisions: Iterable[_Weighed]) -> Explanation:
    """What the extension returns, as an explanation."""
    made = []
    for field, chosen, candidates in decisions:
        those = tuple(Candidate(*candidate) for candidate in candidates)
        made.append(Decision(field, those[chosen], those))
    return Explanation(tuple(made))
