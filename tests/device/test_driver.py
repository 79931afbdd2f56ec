# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The driver layer without a GPU: what is missing is named, and nothing else breaks.

A stand-in for libcuda.so.1, generated from the symbol table, answers as the tests want it to.
"""

import ctypes
import os
import pathlib
import re
import subprocess
import sys

import pytest

import iris_c

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = re.findall(
    r"X\((\w+), \"([^\"]*)\", \"([^\"]*)\",",
    (ROOT / "csrc/device/gpu_driver.h").read_text().replace("\\\n", ""),
)
HIP = [hip for _, hip, _ in ROWS if hip]
CUDA = [cuda for _, _, cuda in ROWS if cuda]
INIT = "import iris_c; print(iris_c.init(heap_size=1 << 20))"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(pathlib.Path(iris_c.__file__).parents[1])}


def without_mark(name):
    """A symbol's name without the mark of those that may be missing."""
    return name.removeprefix("?")


def library(*names):
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def run_python(program, environment):
    """Runs it where the sources of the package are not in the way of the installed one."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def initialise(backend, **environment):
    """What iris_c.init says in a process of its own, and the exit code."""
    done = run_python(INIT, {**ENVIRONMENT, "IRIS_C_BACKEND": backend, **environment})
    return done.stdout + done.stderr, done.returncode


def test_the_table_is_what_it_seems():
    assert len(ROWS) > 40
    assert "hipModuleLaunchKernel" in HIP
    assert "cuLaunchKernel" in CUDA


def test_hip_symbols_resolve():
    """Against whatever ROCm there is; what its age may lack is marked optional."""
    hip = library("libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5")
    if hip is None:
        pytest.skip("libamdhip64 is not installed")
    missing = [name for name in HIP if not name.startswith("?") and not hasattr(hip, name)]
    assert not missing


def test_hip_without_a_device():
    if library("libamdhip64.so.5", "libamdhip64.so.6", "libamdhip64.so.7") is None:
        pytest.skip("libamdhip64 is not installed")
    if os.path.exists("/dev/kfd"):
        pytest.skip("there may be a device")
    text, code = initialise("hip")
    assert code == 1
    assert re.search(r"BackendError: hip\w+: hipError\w+ \(\d+\)", text), text


def test_cuda_without_a_driver():
    if library("libcuda.so.1") is not None:
        pytest.skip("there is a driver")
    text, code = initialise("cuda")
    assert code == 1
    assert "BackendError: backend 'cuda': cannot load libcuda.so.1" in text


def test_an_unknown_backend():
    text, _ = initialise("metal")
    assert "ValueError: IRIS_C_BACKEND: expected cpu, cuda or hip, got 'metal'" in text


# ---- a stand-in for the driver ----

STAND_IN = """
#include <stdlib.h>
#include <string.h>
/* STAND_IN_FAILS: the name of a function that fails. */
static int result(const char *name)
{
    const char *fails = getenv("STAND_IN_FAILS");
    return fails != NULL && strcmp(fails, name) == 0
        ? atoi(getenv("STAND_IN_CODE") ? getenv("STAND_IN_CODE") : "200") : 0;
}
static int number(const char *name) { return atoi(getenv(name) ? getenv(name) : "0"); }
int cuDeviceGetCount(int *count) { *count = number("STAND_IN_DEVICES"); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute)
{
    *value = attribute == 75 ? number("STAND_IN_MAJOR") : attribute == 76 ? 0 : 132;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context) { *context = &number; return 0; }
int cuCtxGetCurrent(void **context) { *context = &number; return result("cuCtxGetCurrent"); }
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_STAND_IN"; return 0; }
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A directory with a libcuda.so.1; `leave_out` in its name lacks one symbol."""

    def build(leave_out=None):
        directory = tmp_path_factory.mktemp("driver")
        own = set(re.findall(r"int (cu\w+)\(", STAND_IN))
        rest = [name for name in map(without_mark, CUDA) if name not in own | {leave_out}]
        body = "".join(f'int {name}(void) {{ return result("{name}"); }}\n' for name in rest)
        (directory / "stand_in.c").write_text(STAND_IN + body)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-w", "stand_in.c", "-o", "libcuda.so.1"],
            cwd=directory, check=True,
        )  # fmt: skip
        return str(directory)

    return build


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STAND_IN_DEVICES": "0"}, "BackendError: backend 'cuda': the driver sees no device"),
        (
            {"STAND_IN_DEVICES": "2", "STAND_IN_MAJOR": "8"},
            r"BackendError: code objects: cannot read \S+iris_sm_80.cubin \(No such file",
        ),
        (
            {"STAND_IN_DEVICES": "2", "STAND_IN_MAJOR": "9", "LOCAL_RANK": "3"},
            "BackendError: backend 'cuda': local rank 3 has no device, the driver sees 2",
        ),
        (
            {"STAND_IN_FAILS": "cuInit"},
            r"BackendError: cuInit: CUDA_ERROR_STAND_IN \(200\)",
        ),
    ],
    ids=["no device", "unknown architecture", "too few devices", "initialisation"],
)
def test_what_is_wrong_is_named(stand_in, environment, expected):
    text, code = initialise("cuda", LD_LIBRARY_PATH=stand_in(), **environment)
    assert code == 1
    assert re.search(expected, text), text


def test_a_missing_symbol_is_named(stand_in):
    text, _ = initialise("cuda", LD_LIBRARY_PATH=stand_in("cuLaunchKernel"), STAND_IN_DEVICES="1")
    assert "BackendError: libcuda.so.1: it has no symbol cuLaunchKernel" in text


def test_a_damaged_code_object_is_named(stand_in, tmp_path):
    """With what the build has instead."""
    (tmp_path / "iris_sm_90a.cubin").write_bytes(b"\x7fELF, and no more")
    (tmp_path / "iris_gfx942.hsaco").write_bytes(b"")
    program = f"import iris_c.environment as e; e.KERNEL_DIRECTORY = {str(tmp_path)!r}; {INIT}"
    environment = {
        "IRIS_C_BACKEND": "cuda",
        "LD_LIBRARY_PATH": stand_in(),
        "STAND_IN_DEVICES": "1",
        "STAND_IN_MAJOR": "9",
        "STAND_IN_FAILS": "cuModuleLoadData",
    }
    done = run_python(program, {**ENVIRONMENT, **environment})
    assert "iris_sm_90a.cubin is damaged or not for this device" in done.stderr
    assert "cuModuleLoadData: CUDA_ERROR_STAND_IN (200)" in done.stderr
    for name in ("iris_sm_90a.cubin", "iris_gfx942.hsaco"):
        assert name in done.stderr.split("this build of iris_c has:")[1]


def test_the_cpu_is_chosen_without_a_gpu(stand_in):
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "IRIS_C_BACKEND"}
    stand_in_is_empty = {"LD_LIBRARY_PATH": stand_in(), "STAND_IN_DEVICES": "0"}
    done = run_python(INIT, {**environment, **stand_in_is_empty})
    assert "backend='cpu'" in done.stdout


FORKED = f"""
import os, sys
try:
    {INIT}
except Exception as error:
    print("parent:", error, flush=True)
if os.fork() == 0:
    try:
        {INIT}
    except Exception as error:
        print("child:", error, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("backend", ["cuda", None])
def test_a_child_of_a_process_that_uses_a_gpu_is_told(stand_in, backend):
    """It does not fall back to the cpu, either."""
    environment = {**ENVIRONMENT, "LD_LIBRARY_PATH": stand_in(), "STAND_IN_MAJOR": "8"}
    environment.pop("IRIS_C_BACKEND", None)
    if backend is not None:
        environment["IRIS_C_BACKEND"] = backend
    done = run_python(FORKED, {**environment, "STAND_IN_DEVICES": "1"})
    assert "parent: code objects: cannot read" in done.stdout, done.stdout + done.stderr
    assert "child: backend 'cuda': this process was forked from one" in done.stdout
    # torch or another library has initialised it.
    environment["IRIS_C_BACKEND"] = "cuda"
    done = run_python(INIT, {**environment, "STAND_IN_DEVICES": "1", "STAND_IN_FAILS": "cuInit",
                             "STAND_IN_CODE": "3"})  # fmt: skip
    assert "this process was forked from one" in done.stderr


def test_a_child_where_there_is_no_gpu_has_the_cpu(stand_in):
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "IRIS_C_BACKEND"}
    done = run_python(
        FORKED, {**environment, "LD_LIBRARY_PATH": stand_in(), "STAND_IN_DEVICES": "0"}
    )
    assert done.stdout.count("backend='cpu'") == 2, done.stdout


# In a child the driver's locks may be held for ever: to call it is to wait.
OF_THE_PARENT = """
#include <unistd.h>
static pid_t parent;
__attribute__((constructor)) static void note(void) { parent = getpid(); }
static void only_in_the_parent(void) { while (getpid() != parent) pause(); }
"""


@pytest.mark.parametrize("backend", ["hip", "cuda"])
def test_a_child_calls_nothing_of_a_driver_that_failed_in_its_parent(tmp_path, backend):
    names = [without_mark(name) for name in (HIP if backend == "hip" else CUDA)]
    own = {"hip": "hipInit", "cuda": "cuInit"}[backend]
    body = [f"int {f}(void) {{ only_in_the_parent(); return 0; }}" for f in names if f != own]
    body.append(f"int {own}(void) {{ only_in_the_parent(); return 77; }}")
    body.append(
        'const char *hipGetErrorName(int code) { only_in_the_parent(); return "NONE"; }'
        if backend == "hip" else
        'int cuGetErrorName(int code, const char **n)'
        ' { only_in_the_parent(); *n = "NONE"; return 0; }'
    )  # fmt: skip
    (tmp_path / "driver.c").write_text(OF_THE_PARENT + "\n".join(body))
    file = {"hip": "libamdhip64.so", "cuda": "libcuda.so.1"}[backend]
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "driver.c", "-o", file], cwd=tmp_path,
                   check=True)  # fmt: skip
    environment = {**ENVIRONMENT, "LD_LIBRARY_PATH": str(tmp_path), "IRIS_C_BACKEND": backend}
    program = "import signal; signal.alarm(20)\n" + FORKED.replace(
        "if os.fork() == 0:", "if os.fork() == 0:\n    signal.alarm(20)"
    )
    done = run_python(program, environment)
    said = f"{own}: NONE (77)"
    assert done.stdout.splitlines() == [f"parent: {said}", f"child: {said}"], done


HELD_LIST = """
import ctypes, os, signal, threading
import iris_c

def init(backend):
    os.environ["IRIS_C_BACKEND"] = backend
    try:
        iris_c.init(heap_size=1 << 20).close()
    except iris_c.BackendError:
        pass

# What there is is loaded; a driver that is missing is looked for each time.
for backend in ("hip", "cuda"):
    init(backend)
visited, go_on = threading.Event(), threading.Event()

@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
def visit(library, nbytes, data):
    visited.set()
    go_on.wait()
    return 1

walk = threading.Thread(target=lambda: ctypes.CDLL(None).dl_iterate_phdr(visit, None))
walk.start()
visited.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    for backend in ("hip", "cuda", "cpu"):
        init(backend)
    os._exit(0)
print("the child ended with", os.waitpid(child, 0)[1])
go_on.set()
walk.join()
"""


def test_a_child_needs_no_lock_of_the_loader():
    """One of the loader's is not reset by a fork: a thread that walks its list holds it."""
    done = run_python(HELD_LIST, ENVIRONMENT)
    assert done.stdout == "the child ended with 0\n", done


# ---- several drivers in one process ----

TWO_DRIVERS = """
import ctypes, sys
for path in sys.argv[1:]:
    ctypes.CDLL(path)  # as torch's wheels do, by its path
import iris_c
try:
    iris_c.init(heap_size=1 << 20)
except iris_c.BackendError as error:
    print(error)
"""
FILES = {
    "hip": ("libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64-0a1b2c3d.so"),
    "cuda": ("libcuda.so.1", "libcuda.so", "libcuda-0a1b2c3d.so"),
}


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    """A library whose driver sees no device, and says so by an error of its own name."""

    def build(backend, file, name):
        directory = tmp_path_factory.mktemp("drivers")
        source = directory / "driver.c"
        symbols = HIP if backend == "hip" else CUDA
        init, error_name = ("hipInit", "hipGetErrorName") if backend == "hip" else (
            "cuInit", "cuGetErrorName")  # fmt: skip
        functions = [f"int {f}(void) {{ return 0; }}" for f in map(without_mark, symbols)
                     if f != init]  # fmt: skip
        functions.append(f"int {init}(unsigned flags) {{ return 77; }}")
        functions.append(
            f'const char *{error_name}(int code) {{ return "{name}"; }}' if backend == "hip" else
            f'int {error_name}(int code, const char **n) {{ *n = "{name}"; return 0; }}'
        )  # fmt: skip
        source.write_text("\n".join(functions))
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{file}", str(source), "-o",
             str(directory / file)],
            check=True,
        )  # fmt: skip
        return directory / file

    return build


def said(backend, mapped, loader_path):
    done = subprocess.run(
        [sys.executable, "-c", TWO_DRIVERS, *map(str, mapped)],
        env={**ENVIRONMENT, "IRIS_C_BACKEND": backend, "LD_LIBRARY_PATH": str(loader_path)},
        cwd="/", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["hip", "cuda"])
def test_the_driver_that_is_mapped_is_the_one_that_is_used(drivers, backend):
    first, second, renamed = FILES[backend]
    unversioned = {"hip": "libamdhip64.so", "cuda": "libcuda.so.1"}[backend]
    own = drivers(backend, unversioned, "THE_SYSTEMS")
    assert "THE_SYSTEMS (77)" in said(backend, [], own.parent)
    for file in (first, second, renamed):
        brought = drivers(backend, file, "THE_WHEELS")
        assert "THE_WHEELS (77)" in said(backend, [brought], own.parent), file


@pytest.mark.parametrize("backend", ["hip", "cuda"])
def test_two_mapped_drivers_are_an_error_that_names_both(drivers, backend):
    first, second, renamed = FILES[backend]
    paths = [drivers(backend, file, "EITHER") for file in (first, second, renamed)]
    for pair in ((0, 1), (1, 0), (2, 0)):
        text = said(backend, [paths[i] for i in pair], paths[0].parent)
        assert f"backend '{backend}': this process has mapped two GPU drivers, " in text, text
        for i in pair:
            assert str(paths[i]) in text


# ---- what a failed call leaves behind ----

LAST_ERROR = """
#include <string.h>
static _Thread_local int last;
static int fail(int code) { last = code; return code; }
int hipGetLastError(void) { int code = last; last = 0; return code; }
int hipPeekAtLastError(void) { return last; }
const char *hipGetErrorName(int code) { return "STAND_IN"; }
int hipGetDeviceCount(int *count) { *count = 1; return 0; }
int hipDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int hipDeviceGetAttribute(int *value, int attribute, int device)
{
    if (attribute > 10000)
        return fail(1); /* of an age that does not know it */
    *value = 304;
    return 0;
}
int hipGetDevicePropertiesR0600(char *properties, int device)
{
    strcpy(properties + 1000, "gfx942:sramecc+:xnack-");
    return 0;
}
"""


def test_failed_calls_leave_no_error_for_others(tmp_path):
    """HIP keeps the last one, and torch would take it for its own."""
    own = set(re.findall(r"(hip\w+)\(", LAST_ERROR))
    rest = [f"int {f}(void) {{ return 0; }}" for f in map(without_mark, HIP) if f not in own]
    (tmp_path / "driver.c").write_text(LAST_ERROR + "\n".join(rest))
    path = tmp_path / "libamdhip64.so.7"
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "driver.c", "-o", str(path)], cwd=tmp_path,
                   check=True)  # fmt: skip
    program = f"""
import ctypes, iris_c, iris_c.environment
driver = ctypes.CDLL({str(path)!r})
iris_c.environment.KERNEL_DIRECTORY = {str(tmp_path)!r}
driver.hipDeviceGetAttribute(ctypes.byref(ctypes.c_int()), 10018, 0)
assert driver.hipPeekAtLastError() == 1
driver.hipGetLastError()
try:
    iris_c.init(heap_size=1 << 20)
except iris_c.BackendError as error:
    print(error)
print("left:", driver.hipPeekAtLastError())
"""
    done = run_python(program, {**ENVIRONMENT, "IRIS_C_BACKEND": "hip"})
    assert "iris_gfx942.hsaco (No such file" in done.stdout, done.stdout + done.stderr
    assert "left: 0" in done.stdout
