# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Draws the algorithms: time runs to the right, each rank has a row for its product, if it makes
one, and one for its exchange, arrows are stores into a peer's heap. And the chart of speed-ups.

python docs/pictures/draw.py     writes the .svg files beside this one
"""

from __future__ import annotations

import pathlib
import runpy

HERE = pathlib.Path(__file__).resolve().parent
UNIT, ROW, GAP, LEFT = 76, 34, 12, 118
LETTER = 6.9  # pixels of a letter of 12 pixels, on average; wide fonts have more than narrow ones
COLOURS = {
    "gemm": "#9ecae9",
    "send": "#ffbf79",
    "sum": "#a5d8a2",
    "result": "#d7b5e8",
    "wait": "#eeeeee",
}
PRODUCTS = {0: "rank 0 product", 1: "rank 0 exchange", 2: "rank 1 product", 3: "rank 1 exchange"}
EXCHANGES = {1: "rank 0", 3: "rank 1"}


def picture(boxes, arrows, length: float) -> str:
    """boxes: (row, begin, end, text, colour); arrows: (row, time, row, time)."""
    rows = PRODUCTS if any(row % 2 == 0 for row, *_ in boxes) else EXCHANGES
    tops = {row: 16 + n * ROW + row // 2 * GAP for n, row in enumerate(rows)}
    width, height = LEFT + int(length * UNIT) + 16, tops[3] + ROW + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#444"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    labels = []
    for row, name in rows.items():
        parts.append(f'<text x="8" y="{tops[row] + 19}" fill="#333">{name}</text>')
    for row, begin, end, text, colour in boxes:
        x, y, w = LEFT + begin * UNIT, tops[row], (end - begin) * UNIT
        if len(text) * LETTER > w - 2:
            raise ValueError(f"{text!r} is wider than its box of {w:.0f} pixels")
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="{w:.0f}" height="{ROW - 6}" rx="3" '
            f'fill="{COLOURS[colour]}" stroke="#666"/>'
        )
        labels.append(  # above the arrows, with a rim of the box's colour
            f'<text x="{x + w / 2:.0f}" y="{y + 18}" text-anchor="middle" paint-order="stroke" '
            f'stroke="{COLOURS[colour]}" stroke-width="3">{text}</text>'
        )
    for row, time, other, then in arrows:
        down = other > row
        y1 = tops[row] + (ROW - 6 if down else 0)
        y2 = tops[other] + (0 if down else ROW - 6)
        parts.append(
            f'<line x1="{LEFT + time * UNIT:.0f}" y1="{y1}" x2="{LEFT + then * UNIT:.0f}" '
            f'y2="{y2}" stroke="#444" marker-end="url(#head)"/>'
        )
    return "\n".join([*parts, *labels, "</svg>", ""])


def products(first: int, names) -> list:
    """A row of tiles, one unit of time each."""
    return [(first, t, t + 1, name, "gemm") for t, name in enumerate(names)]


# Tiles t0 ... t3 of the output; the even ones are rank 0's to sum, the odd ones rank 1's.
TILES = ("A0B0 t0", "A0B0 t1", "A0B0 t2", "A0B0 t3"), ("A1B1 t0", "A1B1 t1", "A1B1 t2", "A1B1 t3")
# Of a gathered A, each rank's own rows first.
GATHERED = {
    0: ("A0 B t0", "A0 B t1", "A1 B t2", "A1 B t3"),
    2: ("A1 B t2", "A1 B t3", "A0 B t0", "A0 B t1"),
}
PARTIALS = [(0, 2, 3, 2.4), (2, 1, 1, 1.4), (0, 4, 3, 4.4), (2, 3, 1, 3.4)]

PICTURES = {
    "two_shot": (
        products(0, TILES[0]) + products(2, TILES[1])
        + [(1, 1.4, 2.4, "sum t0", "sum"), (1, 3.4, 4.4, "sum t2", "sum"),
           (3, 2.4, 3.4, "sum t1", "sum"), (3, 4.4, 5.4, "sum t3", "sum"),
           (0, 5.4, 6.4, "C complete", "result"), (2, 5.4, 6.4, "C complete", "result")],
        [*PARTIALS, (1, 2.4, 2, 2.8), (1, 4.4, 2, 5.4), (3, 3.4, 0, 4.2), (3, 5.4, 0, 5.5)], 6.6,
    ),
    "one_shot": (
        products(0, TILES[0][:2]) + products(2, TILES[1][:2])
        + [(1, 1.4, 2.4, "sum t0", "sum"), (1, 2.4, 3.4, "sum t1", "sum"),
           (3, 1.4, 2.4, "sum t0", "sum"), (3, 2.4, 3.4, "sum t1", "sum")],
        [(0, 1, 3, 1.4), (0, 2, 3, 2.4), (2, 1, 1, 1.4), (2, 2, 1, 2.4)], 3.6,
    ),
    "ring": (
        products(0, TILES[0][:2]) + products(2, TILES[1][:2])
        + [(1, 1, 1.6, "t0", "send"), (1, 2, 2.6, "t1", "send"),
           (3, 2, 3, "t0 + t0", "sum"), (3, 3, 4, "t1 + t1", "sum"),
           (1, 3.4, 4.2, "C t0", "result"), (1, 4.4, 5.2, "C t1", "result")],
        [(1, 1.6, 3, 2), (1, 2.6, 3, 3), (3, 3, 1, 3.4), (3, 4, 1, 4.4)], 5.4,
    ),
    "matmul_reduce_scatter": (
        products(0, TILES[0]) + products(2, TILES[1])
        + [(1, 1.4, 2.4, "sum t0", "sum"), (1, 3.4, 4.4, "sum t2", "sum"),
           (3, 2.4, 3.4, "sum t1", "sum"), (3, 4.4, 5.4, "sum t3", "sum")],
        PARTIALS, 5.6,
    ),
    "matmul_all_gather": (
        products(0, ("A0B t0", "A0B t1", "A0B t2")) + products(2, ("A1B t0", "A1B t1", "A1B t2"))
        + [(row, t + 1, t + 1.7, f"t{t}", "send") for row in (1, 3) for t in range(3)]
        + [(0, 3.9, 4.9, "C complete", "result"), (2, 3.9, 4.9, "C complete", "result")],
        [(1, 1.7, 2, 2.3), (1, 3.7, 2, 3.9), (3, 1.7, 0, 2.3), (3, 3.7, 0, 3.9)], 5.1,
    ),
    "atomic": (
        [(row, 0, 0.9, "zero sums", "wait") for row in (1, 3)]
        + [(row, 1.3 + t, 2.3 + t, name, "gemm")
           for row, names in ((0, TILES[0]), (2, TILES[1])) for t, name in enumerate(names[:2])]
        + [(row, 2.3 + t, 3 + t, f"add t{t}", "sum") for row in (1, 3) for t in (0, 1)]
        + [(row, 4.5, 5.5, "sums to C", "result") for row in (1, 3)],
        [(1, 0.9, 2, 1.3), (3, 0.9, 0, 1.3), (1, 3, 3, 3.2), (3, 3, 1, 3.2),
         (1, 4, 3, 4.5), (3, 4, 1, 4.5)], 5.7,
    ),
    "ll": (
        [(1, 0, 1, "x0 + value", "send"), (3, 0, 1, "x1 + value", "send"),
         (1, 1.5, 2.5, "x0 + x1", "sum"), (3, 1.5, 2.5, "x0 + x1", "sum")],
        [(1, 1, 3, 1.5), (3, 1, 1, 1.5)], 2.7,
    ),
    "ll_two_shot": (
        [(1, 0, 1, "x0 b1", "send"), (3, 0, 1, "x1 b0", "send"),
         (1, 1.5, 2.5, "sum b0", "sum"), (3, 1.5, 2.5, "sum b1", "sum"),
         (1, 3, 4, "b1", "result"), (3, 3, 4, "b0", "result")],
        [(1, 1, 3, 1.5), (3, 1, 1, 1.5), (1, 2.5, 3, 3), (3, 2.5, 1, 3)], 4.2,
    ),
    "all_gather": (
        [box for row, name in ((1, "x0 to all"), (3, "x1 to all")) for box in (
            (row, 0, 0.9, "arrived", "wait"), (row, 1.4, 2.4, name, "send"),
            (row, 2.9, 3.9, "complete", "result"))],
        [(1, 0.9, 3, 1.4), (3, 0.9, 1, 1.4), (1, 2.4, 3, 2.9), (3, 2.4, 1, 2.9)], 4.1,
    ),
    "message": (
        [(1, 0, 1, "chunk 0", "send"), (1, 1, 2, "chunk 1", "send"), (1, 3, 4, "chunk 4", "send"),
         (3, 1.5, 2.5, "take 0", "result"), (3, 2.5, 3.5, "take 1", "result"),
         (3, 4.5, 5.5, "take 4", "result")],
        [(1, 1, 3, 1.5), (1, 2, 3, 2.5), (3, 2.5, 1, 3), (1, 4, 3, 4.5)], 5.7,
    ),
    "all_gather_then_matmul": (
        [(row, t * 0.7, t * 0.7 + 0.7, f"A{row // 2} u{t}", "send")
         for row in (1, 3) for t in range(2)]
        + [(row, 2 + t, 3 + t, name, "gemm") for row, names in GATHERED.items()
           for t, name in enumerate(names)],
        [(1, 1.4, 2, 2), (3, 1.4, 0, 2)], 6.2,
    ),
    "all_gather_matmul": (
        products(0, GATHERED[0]) + products(2, GATHERED[2])
        + [(row, t * 0.7, t * 0.7 + 0.7, f"A{row // 2} u{t}", "send")
           for row in (1, 3) for t in range(4)],
        [(1, 0.7, 2, 1.1), (1, 2.8, 2, 3.0), (3, 0.7, 0, 1.1), (3, 2.8, 0, 3.0)], 4.2,
    ),
}  # fmt: skip


def main() -> None:
    for name, (boxes, arrows, length) in PICTURES.items():
        (HERE / f"{name}.svg").write_text(picture(boxes, arrows, length))
    chart = runpy.run_path(str(HERE / "speed.py"))["picture"]
    figures = (HERE.parent / "performance.md").read_text()
    (HERE / "speed.svg").write_text(chart(figures))


if __name__ == "__main__":
    main()
