# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The protocol broken on purpose, one line at a time: the native test must notice each.

Each mutant is a textual replacement in a copy of the sources. A run that fails, reports a data race
or does not end in time has noticed.
"""

import os
import subprocess

import programs
import pytest

PROGRAM = "test_ranks_as_threads.c"
SYNC = "csrc/kernels/protocol/sync.h"
PACKETS = "csrc/kernels/protocol/packet_sync.h"
PRIMITIVES = "csrc/kernels/cpu/sync_host.h"
EXCHANGE = "csrc/kernels/cpu/reduction_host.h"
CHANNEL = "csrc/kernels/protocol/channel.h"
DOORBELL = "csrc/kernels/cpu/sync_doorbell.h"

# name: (file, what stands there, what is put there)
MUTANTS = {
    "signals do not release": (
        PRIMITIVES,
        "__atomic_store_n(word, value, __ATOMIC_RELEASE);",
        "__atomic_store_n(word, value, __ATOMIC_RELAXED);",
    ),
    "polls do not acquire": (
        PRIMITIVES,
        "return __atomic_load_n(word, __ATOMIC_ACQUIRE);",
        "return __atomic_load_n(word, __ATOMIC_RELAXED);",
    ),
    "no parity": (SYNC, "(uint32_t)(number & 1)", "(uint32_t)(number & 0)"),
    "parity of the signal value": (
        SYNC,
        "(uint32_t)(number & 1)",
        "(signal_value(number) & 1)",
    ),
    "a peer one call ahead is missed": (
        SYNC,
        "return seen == current || seen == next;",
        "(void)next; return seen == current;",
    ),
    "the end hears from nobody": (
        SYNC,
        "    if (!wait_delivered(wg, call))\n        return;\n    if (ending",
        "    if (ending",
    ),
    "results are pushed before the peer has arrived": (
        EXCHANGE,
        "        if (!wait_arrived(wg_, call_, target))\n            return false;\n",
        "",
    ),
    "partials are not waited for": (
        SYNC,
        "arrived = source == except ||",
        "arrived = source <= except + 1 ||",
    ),
    "a piece of a gathered operand is not waited for": (
        "csrc/kernels/cpu/gather_matmul_host.h",
        "if (!operand.wait_for_unit(s, row, k))",
        "if (k > 0 && !operand.wait_for_unit(s, row, k))",
    ),
    "packets are not waited for": (PACKETS, "if (missing < 0)", "if (missing < 99)"),
    "a message's slots are filled before they are empty": (
        CHANNEL,
        "count_ - seen < IRIS_CHANNEL_SLOTS",
        "count_ - seen < IRIS_CHANNEL_SLOTS + 1",
    ),
    "a message's chunk is not waited for": (
        CHANNEL,
        "(int32_t)(seen - count_) > 0",
        "(int32_t)(seen - count_) >= 0",
    ),
    "a signal to a word does not release": (
        PRIMITIVES,
        "__atomic_fetch_add(word, value, __ATOMIC_RELEASE);",
        "__atomic_fetch_add(word, value, __ATOMIC_RELAXED);",
    ),
    "a rank's partial is dropped": (
        "csrc/kernels/cpu/tile_host.h",
        "for (int32_t s = 1; s < sources; ++s)",
        "for (int32_t s = 2; s < sources; ++s)",
    ),
    "sums are not cleared": (
        "csrc/runtime/ops/op_launch.c",
        "IRIS_TRY(launch_kernel(ctx, desc, IRIS_OP_CLEAR_SUMS, &clear, stream));",
        "(void)clear;",
    ),
}

# Sleeps on doorbells end by themselves after a while, which would hide a lost wake-up. These do
# not: who is not woken hangs.
ENDLESS_NAPS = (DOORBELL, "{0, kNapNs}", "{1000000, 0}")
LOST_WAKE_UPS = {
    "nobody is woken": (
        DOORBELL,
        "    syscall(SYS_futex, rings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);\n",
        "",
    ),
    "one sleeper is woken": (DOORBELL, "FUTEX_WAKE, INT_MAX", "FUTEX_WAKE, 1"),
    "sleeps are not announced": (DOORBELL, "        count(1);\n", ""),
    "tiles wake nobody": (SYNC, "        wake(call.args, rank);\n", ""),
    "packets wake nobody": (
        PACKETS,
        "IRIS_INLINE void packets_are_sent(const call_state &call)\n{\n    wake_all(call.args);\n",
        "IRIS_INLINE void packets_are_sent(const call_state &)\n{\n",
    ),
    "words for all peers wake nobody": (
        SYNC,
        "->*words)[self].value, call.signal);\n    wake_all(call.args);\n",
        "->*words)[self].value, call.signal);\n",
    ),
    "who arrives wakes nobody": (
        SYNC,
        "arrived[self].value, call.signal);\n    }\n    wake_all(call.args);\n",
        "arrived[self].value, call.signal);\n    }\n",
    ),
    "a chunk wakes nobody": (CHANNEL, "            wake(call.args, peer_);\n", ""),
    "a user's signal wakes nobody": (
        "csrc/kernels/ops/one_sided.hip",
        "(uint32_t)args.value);\n    wake_all(args.call);\n",
        "(uint32_t)args.value);\n",
    ),
}

# A busy machine may schedule the threads so kindly that a run passes.
ATTEMPTS = 8
# The unbroken program takes a second.
LOST_AFTER_S = 20
ON_ONE_CORE = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]


@pytest.fixture(scope="session")
def core(shared, tmp_path_factory):
    """The unbroken core. The program passes with it, or no mutant could be said to be noticed."""
    objects = programs.core(shared, "thread")
    executable = programs.build(PROGRAM, tmp_path_factory.mktemp("sound"), "thread", objects)
    programs.run([str(executable), "2", "3"], timeout=120)
    return objects


def changed_program(core, tmp_path, sanitizer, *changes):
    """The program with textual changes, (file, what stands there, what is put there)."""
    tree = tmp_path / "tree"
    programs.copy_sources(tree)
    for file, old, new in changes:
        text = (tree / file).read_text()
        assert text.count(old) >= 1, f"{file} has no line {old!r} any more"
        (tree / file).write_text(text.replace(old, new))
    files = {tree / file for file, _, _ in changes}
    return programs.build(
        PROGRAM, tmp_path / "out", sanitizer, core, root=tree,
        # Headers of the kernels are for these alone; their traced twins do not run here.
        changed=lambda source: source in files or source.name == "host_kernels.cpp",
    )  # fmt: skip


@pytest.mark.sanitize
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name, core, tmp_path):
    executable = changed_program(core, tmp_path, "thread", MUTANTS[name])
    first_race_ends_it = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    with pytest.raises((AssertionError, subprocess.TimeoutExpired)):
        for _ in range(ATTEMPTS):
            programs.run([str(executable), "2", "3"], timeout=60, env=first_race_ends_it)


@pytest.fixture(scope="session")
def plain_core(shared):
    return programs.core(shared, "plain")


@pytest.mark.sanitize
def test_no_wait_needs_its_nap_to_end(plain_core, tmp_path):
    """Every signal wakes who sleeps until it comes."""
    executable = changed_program(plain_core, tmp_path, "plain", ENDLESS_NAPS)
    programs.run([str(executable), "2", "3", "8"], timeout=120)
    programs.run([*ON_ONE_CORE, str(executable), "2", "3"], timeout=120)


@pytest.mark.sanitize
@pytest.mark.parametrize("name", LOST_WAKE_UPS)
def test_lost_wake_up_is_noticed(name, plain_core, tmp_path):
    """On one core, where every wait sleeps at once, some wait never ends."""
    executable = changed_program(plain_core, tmp_path, "plain", ENDLESS_NAPS, LOST_WAKE_UPS[name])
    # A rank has no more work-groups than cores: that several of one sleep takes several cores.
    several = name == "one sleeper is woken"
    cores, ranks = ([], ("8", "8")) if several else (ON_ONE_CORE, ("2", "3"))
    with pytest.raises((AssertionError, subprocess.TimeoutExpired)):
        for _ in range(ATTEMPTS):
            programs.run([*cores, str(executable), *ranks], timeout=LOST_AFTER_S)
