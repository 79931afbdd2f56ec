# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A hook of mkdocs: every program in docs/examples is a page, its docstring above its code."""

from __future__ import annotations

import ast
import pathlib

from mkdocs.structure.files import File

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


def page_of(program: pathlib.Path) -> str:
    """The page as Markdown: indented lines of a docstring are commands already."""
    source = program.read_text()
    tree = ast.parse(source)
    title, _, text = (ast.get_docstring(tree) or program.stem).partition("\n")
    docstring_end = tree.body[0].end_lineno or 0
    code = "\n".join(source.splitlines()[docstring_end:]).strip()
    name = f"docs/examples/{program.name}"
    return f'# {title.rstrip(".")}\n{text}\n\n```python title="{name}"\n{code}\n```\n'


def on_files(files, config):
    """Adds the pages to those that mkdocs has found."""
    for program in sorted(EXAMPLES.glob("*.py")):
        page = f"examples/{program.stem}.md"
        files.append(File.generated(config, page, content=page_of(program)))
    return files
