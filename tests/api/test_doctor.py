# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""``python -m iris_c doctor``: what it finds, and what it says is to be done."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

import iris_c
from iris_c import doctor

pytestmark = pytest.mark.skipif(
    os.environ.get("IRIS_C_TEST_TORCHRUN") == "1", reason="starts ranks of its own"
)


def run(*arguments, **environment):
    package = str(pathlib.Path(iris_c.__path__[0]).parent)
    return subprocess.run(
        [sys.executable, "-m", "iris_c", "doctor", *arguments],
        cwd=tempfile.gettempdir(), env={**os.environ, "PYTHONPATH": package, **environment},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def problems(findings):
    return [finding.what for finding in findings if finding.is_problem]


def test_a_machine_without_faults():
    done = run("--backend", "cpu", "--ranks", "3", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == (1 if [f for f in result["findings"] if f["remedy"]] else 0)
    assert not [f for f in result["findings"] if "rank" in f["what"] and f["remedy"]], result
    assert (result["backend"], result["ranks"]) == ("cpu", 3)
    for matrix in (result["rates"], result["round_trips"]):
        for rank in range(3):
            assert all((matrix[rank][peer] > 0) == (peer != rank) for peer in range(3))
    text = run("--backend", "cpu").stdout
    assert "GB/s, from the rank of the row" in text
    assert "the heap's memory: shared" in text
    assert "no problem found" in text or "PROBLEM: " in text


def test_ranks_that_fail_are_a_problem():
    done = run("--backend", "hip", IRIS_C_BACKEND="hip")
    if "no GPU driver" not in done.stdout and "hipError" not in done.stdout:
        pytest.skip("there is a GPU")
    assert done.returncode == 1
    assert "PROBLEM: the ranks failed:" in done.stdout


def result_of(**changes):
    result = {"backend": "hip", "memory": "uncached", "wrong": [], "rates": [0.0, 40.0, 40.0],
              "trips": [0.0, 3.0, 3.0]}  # fmt: skip
    return {**result, **changes}


def test_links():
    good = [result_of(rates=[40.0 if peer != rank else 0.0 for peer in range(3)])
            for rank in range(3)]  # fmt: skip
    assert problems(doctor.link_findings(good)) == []
    slow = [*good[:2], result_of(rates=[40.0, 20.0, 0.0])]
    assert problems(doctor.link_findings(slow)) == ["rank 2 to rank 1: 20 GB/s, where 40 are usual"]
    cached = [*good[:2], result_of(rates=good[2]["rates"], memory="fine-grained")]
    assert "nothing goes as packets" in problems(doctor.link_findings(cached))[0]
    wrong = [*good[:2], result_of(rates=good[2]["rates"], wrong=["rank 2 reads"])]
    assert problems(doctor.link_findings(wrong)) == ["rank 2 reads"]


@pytest.mark.parametrize(
    ("driver", "path", "bad"),
    [
        ("HIP 7.2.26015", "/opt/rocm/lib/libamdhip64.so.7.2.70203", True),
        ("HIP 7.2.26015", "/opt/rocm/lib/libamdhip64.so.7.2.70204", False),
        ("HIP 7.2.26015", "/somewhere/libamdhip64.so", True),
        ("HIP 7.1.25424", "/opt/rocm/lib/libamdhip64.so.7.1.70100", False),
        ("HIP 6.4.43482", "/opt/rocm/lib/libamdhip64.so.6.4.60400", False),
        ("CUDA 13.0", "/usr/lib/libcuda.so.580.65", False),
    ],
)
def test_runtimes_that_are_known_to_be_bad(driver, path, bad):
    assert bool(problems(doctor.runtime_findings(driver, path))) == bad


def test_devices():
    row = ("MI300X", "gfx942", "0000:01:00.0", 304)
    objects = ["iris_gfx942.hsaco"]
    assert problems(doctor.device_findings([(*row, [True])], objects)) == []
    apart = [(*row, [True, False]), (*row, [True, True])]
    assert problems(doctor.device_findings(apart, objects)) == ["device 0 does not reach 1"]
    assert problems(doctor.device_findings([(*row, [True])], [])) == [
        "device 0: this build has no code object for gfx942"
    ]


def test_limits():
    assert problems(doctor.limit_findings(8 << 30, 1 << 16, "0")) == []
    assert problems(doctor.limit_findings(64 << 20, 1 << 16, "0")) == [
        "/dev/shm has 64 MiB free, less than a heap of 1 GiB"
    ]
    assert problems(doctor.limit_findings(8 << 30, 256, "0")) == ["256 open files are few"]
    assert problems(doctor.limit_findings(8 << 30, -1, "1")) == []


class Heap:
    """Of one rank of two, in which the other writes; `flaw`: what goes wrong on the way."""

    def __init__(self, flaw):
        self.rank, self.world_size, self.flaw, self.buffers = 0, 2, flaw, []

    def allocate(self, count, dtype):
        buffer = Words(count)
        self.buffers.append(buffer)
        return buffer

    def barrier(self):
        pass

    def put(self, dst, src, peer):
        if peer == 0:
            dst.words = src.words.copy()
            # The other rank does the same.
            self.buffers[2].words = doctor._pattern(1, 0) + (self.flaw == "write")

    def get(self, dst, src, peer):
        dst.words = src.words if peer == 0 else doctor._pattern(1, 1) + (self.flaw == "read")


class Words:
    def __init__(self, count):
        self.words = [0] * count

    def copy_from_host(self, words):
        self.words = words.copy()

    def copy_to_host(self, words):
        words[:] = self.words


@pytest.mark.parametrize(
    ("flaw", "expected"),
    [
        (None, []),
        ("read", ["rank 0 reads the memory of rank 1 wrongly"]),
        ("write", ["rank 0 does not have what rank 1 wrote"]),
    ],
)
def test_wrong_words_are_found(flaw, expected):
    assert doctor._check_links(Heap(flaw)) == expected
