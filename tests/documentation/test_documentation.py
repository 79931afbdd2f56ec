# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The documentation's examples run, and its site builds without a warning."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

import iris_c
from iris_c.testing import run_ranks

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
PAGES = sorted(page.name for page in (ROOT / "docs").glob("*.md") if BLOCK.search(page.read_text()))


def run_blocks(ctx, blocks):
    for block in blocks:
        exec(compile(block, "example", "exec"), {"ctx": ctx})
    ctx.barrier()


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page):
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text())
    run_ranks(run_blocks, 2, blocks, init={"heap_size": 16 << 20})


def test_every_page_is_in_the_contents():
    contents = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in contents, page.name


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs mkdocs")
def test_the_site_builds(tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(
        [*command, "--config-file", str(ROOT / "mkdocs.yml")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(iris_c.__path__[0]).parent)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reference = (site / "reference/index.html").read_text()
    for name in ("matmul_all_reduce", "all_gather_matmul_hbm_buffer", "ColumnParallelLinear"):
        assert f"{name}" in reference
