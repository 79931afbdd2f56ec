# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The extension, built with the address and undefined-behaviour sanitizers, through Python."""

import programs
import pytest
import sanitized

TESTS = [
    "tests/api/test_auto_config.py::test_the_largest_sizes",
    "tests/api/test_one_context.py",
    "tests/api/test_creation.py",
    "tests/api/test_buffer.py",
    "tests/api/test_one_rank.py",
    "tests/api/test_module.py",
    "tests/api/test_environment.py",
    "tests/api/test_overridden.py",
    "tests/api/test_descriptions.py",
    "tests/ops/test_arguments.py",
    "tests/ops/test_ownership.py::test_workspaces_of_others[another context-1]",
    "tests/protocol/test_workspace.py::test_random_interleavings[world3]",
    "tests/protocol/test_workspace.py::test_ranks_that_disagree_get_one_error_and_go_on[world2]",
    "tests/ops/test_collectives.py::test_all_reduce[world2-two_shot]",
    "tests/ops/test_empty.py::test_all_reduce_of_nothing[world2-None]",
    "tests/ops/test_empty.py::test_collectives_of_nothing[world2]",
    "tests/ops/test_empty.py::test_configs_of_nothing[world1]",
    "tests/ops/test_empty.py::test_messages_of_nothing[world2]",
    "tests/ops/test_empty.py::test_rmsnorm_of_nothing[world2-None]",
    "tests/ops/test_empty.py::test_shapes_are_checked_all_the_same[world2]",
    "tests/ops/test_empty.py::test_tensors_without_elements[world2]",
    "tests/ops/test_empty.py::test_the_joined_operand_of_a_product_without_columns[world2]",
    "tests/ops/test_dtypes.py::test_reductions[world2]",
    "tests/fuzz/test_fuzz.py",
    "tests/faults/test_peers.py::test_a_rank_that_leaves_is_named",
]


@pytest.mark.sanitize
def test_extension_under_address_and_undefined_sanitizers(tmp_path):
    if not sanitized.runtimes():
        pytest.skip("the compiler has no address sanitizer")
    library = sanitized.build(tmp_path)
    programs.run(
        sanitized.pytest_command(*TESTS, f"--basetemp={tmp_path / 'tests'}"),
        cwd=programs.ROOT,
        env={**sanitized.environment(library), "IRIS_C_FUZZ_CALLS": "200"},
        timeout=600,
    )
