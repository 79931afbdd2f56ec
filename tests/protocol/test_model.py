# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The protocol's models, checked by spin: exhaustively, and against mutants that must fail.

docs/protocol.md says what the models cover. Two ranks or more, the signal's wrap included (with a
small period), and one deliberate fault per mutant, so that a check that cannot fail shows.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[2] / "docs" / "model"
COMPILER = next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)
MEMORY_MIB = 3500
DEPTH = 20000
# The longest takes about 20 s on one slow core, and 2 GiB.
DEADLINE_S = int(os.environ.get("IRIS_C_MODEL_DEADLINE", "60"))

pytestmark = [
    pytest.mark.skipif(shutil.which("spin") is None, reason="spin is not installed"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler"),
]

MIXED = "ONE_SHOT TWO_SHOT"
GROUPS = "RANKS=2 GROUPS=2 TILES=2 CALLS=3 TWO_SHOT"

REDUCE = [
    "RANKS=2 CALLS=8 ONE_SHOT TWO_SHOT SCATTER RING ACCUMULATE",
    f"RANKS=2 CALLS=12 PERIOD=5 {MIXED}",
    "RANKS=2 CALLS=8 TILES=2 ONE_SHOT TWO_SHOT SCATTER RING",
    f"RANKS=2 CALLS=5 GROUPS=2 {MIXED}",
    GROUPS,
    f"RANKS=3 CALLS=8 {MIXED}",
    "RANKS=3 CALLS=7 TWO_SHOT SCATTER RING",
    "RANKS=3 CALLS=6 TILES=2 TWO_SHOT",
    "RANKS=3 CALLS=6 TWO_SHOT ACCUMULATE",
    "RANKS=2 CALLS=8 ONE_SHOT TWO_SHOT FETCH",
    "RANKS=2 CALLS=8 TILES=2 TWO_SHOT FETCH",
    "RANKS=2 CALLS=3 GROUPS=2 TILES=2 FETCH",
    "RANKS=3 CALLS=7 TWO_SHOT FETCH",
]
CLAIM = [
    "CALLS=3",
    "CALLS=2 SMALL",
    "CALLS=1 MISMATCH",
    "CALLS=1 MISMATCH SMALL",
    "CALLS=2 MISMATCH",
    "RANKS=4 CALLS=2 MISMATCH ALL_USABLE",
]

WORDS = ["RANKS=2 CALLS=6", "RANKS=3 CALLS=3"]

DOORBELL = ["CALLS=5", "GROUPS=2 CALLS=1"]

SURVIVORS = [
    "RANKS=3 DEATHS=2",
    "RANKS=3 DEATHS=2 SLOW=1",
    "RANKS=3 DEATHS=0 SLOW=2",
    "RANKS=4 DEATHS=1",
]

DECODE = ["CALLS=3", "CALLS=3 RESIDENT=1"]

# The fault, and a configuration in which it shows.
REDUCE_MUTANTS = [
    ("NO_PARITY", f"RANKS=2 CALLS=3 {MIXED}"),
    ("PARITY_OF_SIGNAL", f"RANKS=2 CALLS=4 {MIXED}"),
    ("EQUAL_WAIT", f"RANKS=2 CALLS=3 {MIXED}"),
    ("EQUAL_WAIT", "RANKS=3 CALLS=3 TWO_SHOT SCATTER"),
    ("GREATER_WAIT", f"RANKS=2 CALLS=5 {MIXED}"),
    ("SILENT_RANK", "RANKS=2 CALLS=4 SCATTER"),
    ("SILENT_RANK", "RANKS=3 CALLS=4 SCATTER"),
    ("SILENT_RANK", "RANKS=3 CALLS=4 FETCH"),
    ("FETCHED_LATE", "RANKS=2 CALLS=2 FETCH"),
    ("NO_ZEROING", f"RANKS=2 CALLS=7 {MIXED}"),
    ("NO_ARRIVED", GROUPS),
    ("FIRST_ADVANCES", GROUPS),
    ("FIRST_DELIVERS", GROUPS),
    ("NO_BARRIER", "RANKS=2 CALLS=3 ACCUMULATE"),
]
CLAIM_MUTANTS = [
    ("CLAIM_IN_TWO_STEPS", "CALLS=2"),
    ("MAKE_ALONE", "CALLS=2"),
    ("NEED_FROM_OWN_VIEW", "CALLS=2"),
    ("NO_LEAD_BOUND", "CALLS=4"),
    ("SMALL_CLAIMS", "CALLS=2 SMALL"),
    ("STAGED_IGNORED", "CALLS=1 SMALL"),
    ("ABORT_AT_ONCE", "RANKS=4 CALLS=2 MISMATCH ALL_USABLE"),
]
WORDS_MUTANTS = [
    ("NO_PARITY", "RANKS=2 CALLS=2"),
    ("NO_EMPTYING", "RANKS=2 CALLS=3"),
    ("EMPTIES_LATE", "RANKS=2 CALLS=4"),
    ("SILENT_OWNER", "RANKS=3 CALLS=1"),
]
DOORBELL_MUTANTS = [
    ("NO_SIGNAL_FENCE", "CALLS=1"),
    ("NO_SLEEP_FENCE", "CALLS=1"),
    ("NO_LAST_LOOK", "CALLS=1"),
    ("SEEN_LATE", "CALLS=1"),
    ("NO_RING", "CALLS=1"),
    ("WAKE_ONE", "GROUPS=2 CALLS=1"),
]
DECODE_MUTANTS = [
    ("NO_PARITY", "CALLS=3"),
    ("FIRST_COLLECTS", "CALLS=1 RESIDENT=1"),
]
SURVIVORS_MUTANTS = [
    ("DECIDE_ALONE", "RANKS=3 DEATHS=2"),
    ("LATE_JOINS", "RANKS=3 DEATHS=2 SLOW=1"),
    ("KEEP_WHAT_IS_MADE", "RANKS=3 DEATHS=2"),
    ("OUTCOME_SET_TWICE", "RANKS=3 DEATHS=2"),
]
# A model's configurations, in which it holds, and its mutants.
TABLE = {
    "reduce": (REDUCE, REDUCE_MUTANTS),
    "claim": (CLAIM, CLAIM_MUTANTS),
    "words": (WORDS, WORDS_MUTANTS),
    "doorbell": (DOORBELL, DOORBELL_MUTANTS),
    "decode": (DECODE, DECODE_MUTANTS),
    "survivors": (SURVIVORS, SURVIVORS_MUTANTS),
}
# The same faults where they cannot show yet: it is the wrap that brings them out.
HARMLESS_BEFORE_THE_WRAP = [
    ("PARITY_OF_SIGNAL", f"RANKS=2 CALLS=3 {MIXED}"),
    ("NO_ZEROING", f"RANKS=2 CALLS=6 {MIXED}"),
]


def check(directory, model, configuration, optimization="-O1"):
    """Runs spin's verifier over every state of the model; returns its report. Most verifiers run
    for less time than a compiler takes to optimize them more, and what fails does so sooner than it
    optimizes at all."""
    flags = [f"-D{word}" for word in configuration.split()]
    generate = ["spin", *flags, "-a", str(MODELS / model)]
    compile_ = [COMPILER, optimization, "-w", "-DSAFETY", "-DVECTORSZ=2048"]
    compile_ += [f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c"]
    for command in (generate, compile_):
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    verifier = ["./pan", f"-m{DEPTH}"]
    done = subprocess.run(
        verifier, cwd=directory, capture_output=True, text=True, timeout=DEADLINE_S
    )
    report = done.stdout + done.stderr
    assert "error: max search depth too small" not in report, report
    assert not re.search(r"out of memory|reached -DMEMLIM|hash.?table full|aborting", report, re.I)
    return report


def errors(report):
    found = re.findall(r"errors: (\d+)$", report, re.M)
    assert len(found) == 1, report
    return int(found[0])


def assert_holds(report):
    assert errors(report) == 0, report
    # A full search, of assertions and of invalid end states, that was not cut short.
    assert "Search not completed" not in report, report
    assert re.search(r"^Full statespace search for:", report, re.M), report
    assert re.search(r"^\s*assertion violations\s*\+", report, re.M), report
    assert re.search(r"^\s*invalid end states\s*\+", report, re.M), report


def assert_fails(report):
    assert errors(report) == 1, report
    assert re.search(r"^pan:1: (assertion violated|invalid end state)", report, re.M), report


HOLDING = [
    (model, given) for model, (configurations, _) in TABLE.items() for given in configurations
]
FAILING = [(model, *mutant) for model, (_, mutants) in TABLE.items() for mutant in mutants]


@pytest.mark.parametrize(("model", "configuration"), HOLDING)
def test_model_holds(tmp_path, model, configuration):
    assert_holds(check(tmp_path, f"{model}.pml", configuration))


@pytest.mark.parametrize(("model", "mutant", "configuration"), FAILING)
def test_mutant_fails(tmp_path, model, mutant, configuration):
    assert_fails(check(tmp_path, f"{model}.pml", f"{configuration} MUTANT_{mutant}", "-O0"))


def test_every_model_and_mutant_is_checked():
    """And the mutants are those of which the models' README tells."""
    written = {path.stem: path.read_text() for path in MODELS.glob("*.pml")}
    assert written.keys() == TABLE.keys()
    for model, text in written.items():
        configurations, mutants = TABLE[model]
        assert configurations, model
        assert mutants, model
        assert {name for name, _ in mutants} == set(re.findall(r"MUTANT_(\w+)", text)), model
    rows = re.findall(r"^\| (`[A-Z_`, ]+) \|", (MODELS / "README.md").read_text(), re.M)
    told = sorted(name for row in rows for name in re.findall(r"\w+", row))
    assert told == sorted({name for _, mutants in TABLE.values() for name, _ in mutants})


def test_every_statement_of_the_roll_is_reached(tmp_path):
    report = check(tmp_path, "survivors.pml", "RANKS=3 DEATHS=1 SLOW=1")
    assert_holds(report)
    section = report.split("unreached in proctype survivor", 1)[1].split("unreached in init")[0]
    assert re.findall(r'state \d+, "(.*)"', section) == []


@pytest.mark.parametrize(("mutant", "configuration"), HARMLESS_BEFORE_THE_WRAP)
def test_wrap_mutant_shows_only_at_the_wrap(tmp_path, mutant, configuration):
    assert_holds(check(tmp_path, "reduce.pml", f"{configuration} MUTANT_{mutant}"))


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_statement_is_reached(tmp_path, ranks):
    """A model that never gets to its assertions would hold too."""
    operations = "ONE_SHOT TWO_SHOT SCATTER FETCH RING ACCUMULATE"
    calls = 8 if ranks == 2 else 2
    report = check(tmp_path, "reduce.pml", f"RANKS={ranks} CALLS={calls} {operations}")
    assert_holds(report)
    section = report.split("unreached in proctype work_group", 1)[1].split("unreached in init")[0]
    unreached = re.findall(r'state \d+, "(.*)"', section)
    # The last rank of the ring has one kind of output, so its other kind is not reached.
    unexpected = [s for s in unreached if not s.startswith(("output[", "staged_result["))]
    assert len(unreached) <= 1, section
    assert not unexpected, section
