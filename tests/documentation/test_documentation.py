# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The documentation's examples run, and its site builds without a warning, complete."""

import importlib
import os
import pathlib
import re
import runpy
import subprocess
import sys

import pytest
from snippets import blocks_of, run_as_on_a_gpu

import iris_c
from iris_c.testing import run_ranks

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(page.name for page in (ROOT / "docs").glob("*.md") if blocks_of(page))


def run_blocks(ctx, blocks, directory):
    os.chdir(directory)  # for files that they write
    for block in blocks:
        names = {"ctx": ctx}
        run_as_on_a_gpu(block, names)
        for example in list(names.values()):
            if hasattr(example, "rank_body"):  # a test, run as it would be on these ranks
                example.rank_body(ctx)
    ctx.barrier()


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, tmp_path):
    blocks = blocks_of(ROOT / "docs" / page)
    run_ranks(run_blocks, 2, blocks, str(tmp_path), init={"heap_size": 16 << 20})


def test_every_page_is_in_the_contents():
    contents = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in contents, page.name


def test_pictures_are_as_drawn():
    """docs/pictures/draw.py was run after it was changed, and each picture is shown somewhere."""
    draw = runpy.run_path(str(ROOT / "docs/pictures/draw.py"))
    shown = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    for name, (boxes, arrows, length) in draw["PICTURES"].items():
        drawn = (ROOT / f"docs/pictures/{name}.svg").read_text()
        assert drawn == draw["picture"](boxes, arrows, length), name
        assert f"](pictures/{name}.svg)" in shown
    chart = runpy.run_path(str(ROOT / "docs/pictures/speed.py"))
    figures = (ROOT / "docs/performance.md").read_text()
    assert len(chart["points"](figures)) == 49
    assert (ROOT / "docs/pictures/speed.svg").read_text() == chart["picture"](figures)


def public_names():
    """What users may call, as the reference names it."""
    for module in ("ccl", "config", "environment", "errors", "ops", "testing", "torch", "tracing"):
        for name in importlib.import_module(f"iris_c.{module}").__all__:
            yield f"iris_c.{module}.{name}"
    classes = {"Context": iris_c.Context, "Buffer": iris_c.Buffer}
    for owner, kind in {**classes, "ops.FusedWorkspace": iris_c.FusedWorkspace}.items():
        for name in dir(kind):
            if not name.startswith("_"):
                yield f"iris_c.{owner}.{name}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site's folder, built without a warning."""
    pytest.importorskip("mkdocs")
    directory = tmp_path_factory.mktemp("site")
    site = directory / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(
        [*command, "--config-file", str(ROOT / "mkdocs.yml")],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(iris_c.__path__[0]).parent)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return site


@pytest.mark.slow
def test_the_reference_has_what_is_public_and_nothing_else(site):
    anchors = set(re.findall(r'id="([^"]+)"', (site / "reference/index.html").read_text()))
    assert sorted(set(public_names()) - anchors) == []
    names = [anchor.rpartition(".")[2] for anchor in anchors if anchor.startswith("iris_c.")]
    assert [name for name in names if name.startswith("_")] == []


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site):
    asset = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=.https?:|<link[^>]*\shref=.https?:")
    style = re.compile(r"(?:url\(|@import)\s*['\"]?https?:")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assert not asset.search(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not style.search(sheet.read_text()), sheet


@pytest.mark.slow
def test_examples_are_pages_with_highlighted_code(site):
    programs = list((ROOT / "docs/examples").glob("*.py"))
    assert programs
    for program in programs:
        page = (site / "examples" / program.stem / "index.html").read_text()
        assert f"docs/examples/{program.name}" in page
        assert re.search(r'<span class="k">(?:def|class)</span>', page), "no highlighting"
        assert '"content.code.copy"' in page
