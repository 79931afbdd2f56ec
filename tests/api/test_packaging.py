# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The package where it is not installed, and its version."""

import importlib.metadata
import pathlib
import shutil
import subprocess
import sys
import tomllib

import iris_c

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_source_folder_says_that_nothing_is_built_in_it(tmp_path):
    shutil.copytree(
        ROOT / "iris_c",
        tmp_path / "iris_c",
        ignore=shutil.ignore_patterns("*.so", "kernels", "__pycache__"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "iris_c"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert str(tmp_path) in last
    assert "start Python in another folder" in last
    assert "pip install -e ." in last


def test_the_version_is_said_once():
    assert importlib.metadata.version("iris_c") == iris_c.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert "version" not in project
    assert f"{iris_c.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
