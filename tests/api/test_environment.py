# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Arguments of a context that come from the environment."""

import pytest

from iris_c.environment import KERNEL_DIRECTORY, context_options, default_num_threads


def test_environment_defaults_to_a_world_of_one():
    options = context_options(1, environ={})
    assert (options["rank"], options["world_size"], options["local_rank"]) == (0, 1, 0)
    assert options["timeout"] == 30.0
    assert options["backend"] is None
    assert not options["debug"]


def test_environment_of_torchrun():
    environ = {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "run",
        "TORCHELASTIC_RESTART_COUNT": "2",
        "IRIS_C_BACKEND": "cpu",
        "IRIS_C_TIMEOUT": "2.5",
        "IRIS_C_LOCAL_SIZE": "6",
        "IRIS_C_DEBUG": "1",
        "OMP_NUM_THREADS": "5",
    }
    assert context_options(7, environ=environ) == {
        "heap_size": 7,
        "local_size": 6,
        "backend": "cpu",
        "kernel_directory": KERNEL_DIRECTORY,
        "rank": 3,
        "world_size": 4,
        "local_rank": 1,
        "timeout": 2.5,
        "run_key": "localhost/29500/run/2",
        "num_threads": 5,
        "debug": True,
        "source": "RANK and WORLD_SIZE",
    }
    assert context_options(7, timeout=1.0, environ=environ)["timeout"] == 1.0
    assert context_options(7, rank=0, world_size=2, environ=environ)["world_size"] == 2


def test_number_of_threads():
    assert default_num_threads(1, {"IRIS_C_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}) == 3
    assert default_num_threads(1000, {}) == 1


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        ({"rank": 0}, {}, "rank: given without world_size"),
        ({"world_size": 2}, {}, "world_size: given without rank"),
        ({"rank": 2, "world_size": 2}, {}, "rank: expected 0 <= rank < 2"),
        ({"rank": -1, "world_size": 2}, {}, "rank: expected"),
        ({"rank": 0, "world_size": 0}, {}, "world_size: expected >= 1"),
        ({}, {"RANK": "0"}, "RANK: set without WORLD_SIZE"),
        ({}, {"WORLD_SIZE": "2"}, "WORLD_SIZE: set without RANK"),
        ({}, {"RANK": "5", "WORLD_SIZE": "2"}, "RANK: expected 0 <= rank < 2"),
        ({}, {"RANK": "one", "WORLD_SIZE": "2"}, "RANK: expected an integer, got 'one'"),
        ({}, {"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE: expected an integer"),
        ({}, {"LOCAL_RANK": "x"}, "LOCAL_RANK: expected an integer"),
        ({}, {"IRIS_C_NUM_THREADS": "0"}, "IRIS_C_NUM_THREADS: expected >= 1"),
        ({}, {"IRIS_C_TIMEOUT": "soon"}, "IRIS_C_TIMEOUT: expected seconds"),
        ({}, {"IRIS_C_TIMEOUT": "-1"}, "IRIS_C_TIMEOUT: expected seconds > 0"),
    ],
)
def test_environment_errors_name_the_variable(arguments, environ, message):
    with pytest.raises(ValueError, match=message):
        context_options(1, **arguments, environ=environ)
