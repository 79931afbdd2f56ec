# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Rows of bench_layers.py: as lines, in summary, as JSON, as plots."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import statistics

from harness import Timing
from layer_cases import Case

NOISE = 0.97  # a ratio down to this is no loss
FEW = 64  # rows of a decoding step


@dataclasses.dataclass
class Row:
    """What was measured of a case. A row that is wrong has no timings."""

    case: Case
    K: int  # of a rank's product
    N: int
    error: float = float("inf")
    bound: float = 0.0
    ours: Timing | None = None
    peers: dict[str, Timing] = dataclasses.field(default_factory=dict)
    own: dict[str, Timing] = dataclasses.field(default_factory=dict)  # our other forms
    alone: Timing | None = None  # the product without an exchange
    remarks: list[str] = dataclasses.field(default_factory=list)

    @property
    def correct(self) -> bool:
        return self.error < self.bound

    @property
    def best(self) -> str | None:
        """The fastest alternative, our own other forms left aside."""
        return min(self.peers, key=lambda name: self.peers[name].median, default=None)

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the best alternative."""
        if self.ours is None or self.best is None:
            return None
        return self.peers[self.best].median / self.ours.median

    @property
    def own_ratio(self) -> float | None:
        """How many times as fast as the best of our other forms."""
        if self.ours is None or not self.own:
            return None
        return min(timing.median for timing in self.own.values()) / self.ours.median

    def what(self) -> str:
        case = self.case
        name, passes, mode = case.group
        return (
            f"{name:32} {passes.replace('forward+backward', 'fwd+bwd'):7} {mode:5} {case.model:>4} "
            f"{case.layer.name:7} {case.weights} M {case.M:5} N {self.N:5} K {self.K:5}"
        )

    def line(self) -> str:
        if not self.correct:
            words = [f"FAIL: error {self.error:.1e}, must be < {self.bound:.1e}", *self.remarks]
            return f"{self.what()} | {'; '.join(words)}"
        cells = [f"ours {us(self.ours)}"]
        if self.alone is not None:
            added = (self.ours.median - self.alone.median) * 1e6
            cells.append(f"mm {us(self.alone)} {added:+7.1f}")
        cells.append(" ".join(f"{name} {us(timing)}" for name, timing in self.peers.items()))
        if self.own:
            cells.append(" ".join(f"{name} {us(timing)}" for name, timing in self.own.items()))
        verdict = "no alternative" if self.ratio is None else f"{self.ratio:.2f}x {self.best}"
        return " | ".join([self.what(), *cells, verdict, f"error {self.error:.0e}", *self.remarks])

    def record(self, machine: str, ranks: int) -> dict:
        """The timings, as dataclasses.asdict has them, and what there is to know about the row."""
        case = self.case
        name, passes, mode = case.group
        return {
            "machine": machine, "ranks": ranks, "name": name, "passes": passes, "mode": mode,
            "model": case.model, "layer": case.layer.name, "weights": case.weights,
            "M": case.M, "N": self.N, "K": self.K, "error": self.error, "correct": self.correct,
            **{field: _plain(getattr(self, field)) for field in ("ours", "alone", "peers", "own")},
            "best": self.best, "ratio": self.ratio, "own_ratio": self.own_ratio,
            "remarks": self.remarks,
        }  # fmt: skip


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(timing) for name, timing in value.items()}
    return None if value is None else dataclasses.asdict(value)


def us(timing: Timing) -> str:
    return f"{timing.median * 1e6:8.1f}"


# ---- in summary ----


def _mean(ratios: list[float]) -> str:
    return f"{statistics.geometric_mean(ratios):6.2f}" if ratios else "   n/a"


def groups(rows: list[Row]) -> dict[tuple, list[Row]]:
    found = collections.defaultdict(list)
    for row in rows:
        if row.ours is not None:
            found[row.case.group].append(row)
    return dict(sorted(found.items()))


def summary(rows: list[Row]) -> list[str]:
    """Lines: a table of the groups, and the rows in which an alternative is faster."""
    lines = [
        "over the best alternative, geometric means; own: over the best of our other forms; added: "
        "to the product alone, us, the most",
        f"{'':32} {'':16} {'':5} {'rows':>5} {'mean':>6} {'M<=64':>6} {'worst':>6} {'<1.0':>5} "
        f"{'<0.97':>5} {'own':>6} {'added M<=16':>11} {'M<=64':>6}",
    ]
    for (name, passes, mode), group in groups(rows).items():
        ratios = [row.ratio for row in group if row.ratio]
        few = [row.ratio for row in group if row.ratio and row.case.M <= FEW]
        own = [row.own_ratio for row in group if row.own_ratio]
        worst = f"{min(ratios):6.2f}" if ratios else "   n/a"
        lines.append(
            f"{name:32} {passes:16} {mode:5} {len(group):5} {_mean(ratios)} {_mean(few)} {worst} "
            f"{sum(r < 1 for r in ratios):5} {sum(r < NOISE for r in ratios):5} {_mean(own)} "
            f"{_added(group, 16):>11} {_added(group, FEW):>6}"
        )
    slower = sorted((row for row in rows if row.ratio and row.ratio < 1), key=lambda r: r.ratio)
    compared = sum(row.ratio is not None for row in rows)
    noticed = sum(row.ratio < NOISE for row in slower)
    lines.append(
        f"{len(slower)} of {compared} rows below 1.0, {noticed} below {NOISE}"
        + (":" if slower else "")
    )
    lines += [row.line() for row in slower]
    wrong = [row for row in rows if not row.correct]
    lines += [row.line() for row in wrong]
    lines.append(f"{len(rows)} rows, " + (f"{len(wrong)} WRONG" if wrong else "all correct"))
    return lines


def _added(group: list[Row], most: int) -> str:
    added = [
        (row.ours.median - row.alone.median) * 1e6
        for row in group
        if row.alone is not None and row.case.M <= most
    ]
    return f"{max(added):.1f}" if added else "n/a"


# ---- files ----


def append_json(path: pathlib.Path, record: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def plot(rows: list[Row], folder: pathlib.Path, machine: str) -> list[pathlib.Path]:
    """A figure for each group: how many times as fast as the best alternative, by M; one mark for
    each row, and the geometric means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for group, members in groups(rows).items():
        compared = [row for row in members if row.ratio is not None]
        if not compared:
            continue
        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        for model in sorted({row.case.model for row in compared}):
            some = [row for row in compared if row.case.model == model]
            axes.plot([row.case.M for row in some], [row.ratio for row in some], "o", ms=4,
                      alpha=0.7, label=model)  # fmt: skip
        by_M = collections.defaultdict(list)
        for row in compared:
            by_M[row.case.M].append(row.ratio)
        means = sorted((M, statistics.geometric_mean(ratios)) for M, ratios in by_M.items())
        axes.plot(*zip(*means, strict=True), color="black", label="geometric mean")
        axes.axhline(1.0, color="gray", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="M", ylabel="times as fast as the best alternative", ylim=(0, None))
        axes.set_title(f"{', '.join(group)}\n{machine}", fontsize="x-small")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
        path = folder / f"layers_{'_'.join(group).replace('.', '_').replace('+', '_')}.svg"
        figure.savefig(path)
        pyplot.close(figure)
        paths.append(path)
    return paths
