# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Random calls, right and wrong, one after the other: right ones are right on every rank, wrong
ones are exceptions that name the argument and change nothing, and the context goes on.

`make fuzz SEEDS=20` runs 3,000 calls for each seed under the address and undefined-behaviour
sanitizers; FIRST=n begins with seed n, so a failure, which names its seed, is replayed by
`make fuzz FIRST=n SEEDS=1`. The suite runs a few calls of one seed.
"""

import os
import zlib

import pytest
import torch
from calls import Call, Fuzz, as_torch, bits, spoil

from iris_c.testing import ranks

FIRST = int(os.environ.get("IRIS_C_FUZZ_FIRST", "0"))
SEEDS = int(os.environ.get("IRIS_C_FUZZ_SEEDS", "1"))
CALLS = int(os.environ.get("IRIS_C_FUZZ_CALLS", "400"))


def check_right(call: Call, text: str) -> None:
    call.run()
    for name, expected in call.expected.items():
        if expected is None:
            continue
        got = as_torch(call.arguments[name])
        if call.tolerance:
            torch.testing.assert_close(got, expected, atol=call.tolerance, rtol=call.tolerance)
        else:
            # By value, as -0 is 0; but of bool each true is 1.
            equal = (
                torch.equal(bits(got), bits(expected))
                if expected.dtype in (torch.float8_e4m3fn, torch.bool)
                else torch.equal(got, expected)
            )
            assert equal, f"{text}: {name} is {got}, expected {expected}"


def check_wrong(fuzz: Fuzz, call: Call, text: str) -> None:
    """Where the call is spoilt on all ranks, nothing is agreed on; outputs keep what they held."""
    outputs = {
        name: call.arguments[name] for name, want in call.expected.items() if want is not None
    }
    before = {name: bits(as_torch(value)).clone() for name, value in outputs.items()}
    mistake = spoil(fuzz, call)
    text = f"{text} spoilt by {mistake.what}: {call}"
    try:
        call.function(**call.arguments)
    except mistake.kinds as error:
        message = str(error)
        named = message.startswith(tuple(f"{name}: " for name in mistake.names))
        assert named or (mistake.what == "keyword" and mistake.names[0] in message), (
            f"{text}: {message}"
        )
        assert "\n" not in message, f"{text}: {message}"
    else:
        raise AssertionError(f"{text}: no error")
    for name, value in outputs.items():
        assert torch.equal(bits(as_torch(value)), before[name]), f"{text}: {name} was written"


def check_disagreement(fuzz: Fuzz, text: str) -> None:
    """The ranks bring different sizes: all hear the same."""
    n = fuzz.chance.randrange(1, 50) + fuzz.rank
    with pytest.raises(ValueError, match="different operations") as caught:
        fuzz.ctx.ccl.all_reduce(torch.zeros(n), torch.ones(n))
        pytest.fail(f"{text}: no error where the ranks disagree")
    mine = torch.tensor([zlib.crc32(str(caught.value).encode())])
    theirs = torch.empty(fuzz.world, dtype=torch.int64)
    fuzz.ctx.ccl.all_gather(theirs, mine)
    assert (theirs == mine).all(), f"{text}: the ranks heard different things"


def run(ctx, seed: int, calls: int) -> None:
    fuzz = Fuzz(ctx, seed)
    for number in range(calls):
        fuzz.begin(number)
        kind = fuzz.chance.random()
        text = f"seed {seed}, call {number}, rank {ctx.rank} of {ctx.world_size}"
        if kind < 0.01 and ctx.world_size > 1:
            check_disagreement(fuzz, text)
            continue
        call = fuzz.draw()
        try:
            if kind < 0.4:
                check_wrong(fuzz, call, text)
            else:
                check_right(call, text)
        except Exception as error:
            raise AssertionError(f"{text}: {call}") from error


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
@ranks(1, 2, deadline=900.0, timeout=60.0)
def test_random_calls(ctx, seed):
    print(f"seed {seed}: {CALLS} calls, {ctx.world_size} ranks", flush=True)
    run(ctx, seed, CALLS)
