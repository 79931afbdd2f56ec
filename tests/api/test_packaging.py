# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The package where it is not installed, its version, and the compilers that its build finds."""

import importlib.metadata
import pathlib
import shutil
import subprocess
import sys
import tomllib

import amd_build

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


def test_a_compiler_beside_the_packages_of_python_is_found(tmp_path, monkeypatch):
    """As NVIDIA's packages of PyPI put it; PATH comes first, and the environment before all."""
    build_kernels = amd_build.build_kernels
    for folder in ("nvidia/cu13/bin", "path"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.delenv("IRIS_C_NVCC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(build_kernels, "CUDA", str(tmp_path / "cuda"))
    assert build_kernels.find_nvcc() is None
    for place in ("nvidia/cu13/bin", "path"):
        (tmp_path / place / "nvcc").touch(mode=0o755)
        found = shutil.which(build_kernels.find_nvcc())
        assert found == str(tmp_path / place / "nvcc")
    monkeypatch.setenv("IRIS_C_NVCC", "another")
    assert build_kernels.find_nvcc() == "another"
