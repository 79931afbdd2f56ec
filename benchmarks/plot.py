# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Draws what the benchmarks wrote with --json: time by size with quartiles, the rate that it makes
(of a collective the bus bandwidth), and how many times as fast as the peer that is.

python benchmarks/bench_ccl.py --json out/bench.jsonl
python benchmarks/plot.py out/bench.jsonl --out out           # out/all_reduce.svg
"""

import argparse
import collections
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def read(path: pathlib.Path) -> dict:
    """Rows by the figure they belong in; only those that are correct."""
    figures = collections.defaultdict(list)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row["correct"]:
            figures[row["name"]].append(row)
    return figures


def by_curve(rows: list[dict]) -> dict:
    curves = collections.defaultdict(list)
    for row in rows:
        curves[row["dtype"], row["variant"], row["ranks"]].append(row)
    return {key: sorted(curves[key], key=lambda row: row["size"]) for key in sorted(curves)}


def timings(curve: list[dict]) -> dict:
    """(size, work, timing) of everybody who was timed, by name; further peers where they were."""
    found = collections.defaultdict(list)
    for row in curve:
        of = {"iris_c": row["ours"], row["peer_name"]: row["peer"], **row["others"]}
        for name, timing in of.items():
            found[name].append((row["size"], row["work"], timing))
    return found


def band(times, rates, points: list[tuple], **style) -> None:
    """Median as a line, quartiles as a band, in microseconds; and the median's rate."""
    sizes = [size for size, _, _ in points]
    of = {name: [timing[name] * 1e6 for _, _, timing in points]
          for name in ("median", "low", "high")}  # fmt: skip
    (line,) = times.plot(sizes, of["median"], marker="o", **style)
    times.fill_between(sizes, of["low"], of["high"], color=line.get_color(), alpha=0.2)
    made = [work / timing["median"] / 1e9 for _, work, timing in points]
    rates.plot(sizes, made, marker="o", **{**style, "color": line.get_color()})


def draw(name: str, rows: list[dict]):
    figure, (times, rates, ratios) = pyplot.subplots(
        3, 1, sharex=True, figsize=(7, 10), height_ratios=(3, 2, 2), layout="constrained"
    )
    for (dtype, variant, ranks), curve in by_curve(rows).items():
        label = f"{dtype}, {variant}, {ranks} rank(s)"
        for who, points in timings(curve).items():
            style = "-" if who == "iris_c" else "--"
            band(times, rates, points, label=f"{who}: {label}", linestyle=style)
        sizes = [row["size"] for row in curve]
        ratios.plot(sizes, [row["ratio"] for row in curve], marker="o", label=label)
    times.set(title=f"{name}\n{rows[0]['machine']}", ylabel="time, us", xscale="log", yscale="log")
    times.title.set_fontsize("x-small")
    unit = rows[0]["unit"]
    rates.set(ylabel=f"bus bandwidth, {unit}" if unit == "GB/s" else unit, yscale="log")
    ratios.axhline(1.0, color="gray", linewidth=1)
    ratios.set(xlabel="bytes" if unit == "GB/s" else "flop per rank")
    ratios.set(ylabel=f"times as fast as {rows[0]['peer_name']}", ylim=(0, None))
    for axes in (times, rates, ratios):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    return figure


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("json", type=pathlib.Path)
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    arguments.add_argument("--format", choices=("svg", "png"), default="svg")
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, rows in read(options.json).items():
        path = options.out / f"{name.replace(' ', '_')}.{options.format}"
        figure = draw(name, rows)
        figure.savefig(path)
        pyplot.close(figure)
        print(path)


if __name__ == "__main__":
    main()
