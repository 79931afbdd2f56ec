# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Draws how fast the fused products are beside the best alternative, row by row of the tables in
docs/performance.md: M to the right, the speed-up upwards, both on logarithmic axes.

`draw.py` calls it, so that the picture always shows the tables' figures.
"""

from __future__ import annotations

import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 330, 58, 16, 44, 46
ROWS = (1, 16384)  # the horizontal axis
SPEED_UPS = (0.2, 2.0)  # the vertical one
COLOURS = {
    "matmul_all_reduce": "#1f77b4",
    "matmul_reduce_scatter": "#d95f02",
    "all_gather_matmul_hbm_buffer": "#2c8a4b",
}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def points(markdown: str) -> list[tuple[str, int, float]]:
    """(operation, M, speed-up) of the rows in the chapter on GPUs.

    Of a table with two speed-ups the second counts, which is in graphs; below a heading the first
    table, which is that of four GPUs.
    """
    found: list[tuple[str, int, float]] = []
    operation, tables, columns = "", 0, []
    for line in markdown.partition("\n## GPUs\n")[2].partition("\n## ")[0].splitlines():
        if line.startswith("#"):
            operation, tables, columns = line.lstrip("# "), 0, []
        elif not line.startswith("|"):
            columns = []
        elif not columns:
            columns, tables = _cells(line), tables + 1
        elif "speed-up" in columns and "M x N x K" in columns and tables == 1:
            cells = _cells(line)
            name = cells[0].strip("`") if columns[0] == "operation" else operation
            rows = cells[columns.index("M x N x K")].partition(" x ")[0]
            if name in COLOURS and rows.isdigit():
                last = len(columns) - 1 - columns[::-1].index("speed-up")
                found.append((name, int(rows), float(cells[last])))
    return found


def _x(rows: float) -> float:
    low, high = (math.log(limit) for limit in ROWS)
    return LEFT + 12 + (math.log(rows) - low) / (high - low) * (WIDTH - LEFT - RIGHT - 24)


def _y(speed_up: float) -> float:
    low, high = (math.log(limit) for limit in SPEED_UPS)
    return HEIGHT - BOTTOM - (math.log(speed_up) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{text}</text>'


def picture(markdown: str) -> str:
    """The picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<rect x="{LEFT}" y="{_y(1):.1f}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - BOTTOM - _y(1):.1f}" fill="#f4f4f4"/>',
    ]
    for speed_up in (0.2, 0.5, 1.0, 1.5, 2.0):
        y = _y(speed_up)
        style = 'stroke="#333" stroke-width="1.5"' if speed_up == 1 else 'stroke="#ccc"'
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" {style}/>')
        parts.append(_text(LEFT - 8, y + 4, f"{speed_up:g}", "end"))
    for rows in (1, 64, 256, 512, 1024, 2048, 4096, 8192, 16384):
        parts.append(_text(_x(rows), HEIGHT - BOTTOM + 18, str(rows), "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, HEIGHT - 10, "M, rows of the product", "middle"))
    parts.append(_text(LEFT + 8, _y(1) - 6, "iris_c is faster"))
    parts.append(_text(LEFT + 8, _y(1) + 16, "the best alternative is faster"))
    x = LEFT
    for name, colour in COLOURS.items():
        parts.append(f'<circle cx="{x + 6}" cy="18" r="5" fill="{colour}"/>')
        parts.append(_text(x + 16, 22, name))
        x += 40 + 7 * len(name)
    order = list(COLOURS)
    for name, rows, speed_up in points(markdown):
        shift = 5 * (order.index(name) - 1)  # operations side by side
        parts.append(
            f'<circle cx="{_x(rows) + shift:.1f}" cy="{_y(speed_up):.1f}" r="4.5" '
            f'fill="{COLOURS[name]}" fill-opacity="0.8" stroke="white" stroke-width="0.7"/>'
        )
    return "\n".join([*parts, "</svg>", ""])
