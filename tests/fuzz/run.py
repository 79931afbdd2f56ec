# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What `make fuzz` runs: random calls and random descriptions of memory, sanitized.

    python tests/fuzz/run.py [--seeds N] [--first SEED] [--calls N]

Prints the seeds; a failure names its seed, which `--first` begins with.
"""

import argparse
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("native", ".")]

import sanitized  # noqa: E402  (found where the line above says)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--calls", type=int, default=3000, help="for each seed and world")
    asked = parser.parse_args()
    if not sanitized.runtimes():
        print("the compiler has no address sanitizer", file=sys.stderr)
        return 1
    folder = ROOT / "build" / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    library = sanitized.build(folder)
    print(f"seeds {asked.first} to {asked.first + asked.seeds - 1}", flush=True)
    command = sanitized.pytest_command(
        "-v", "tests/fuzz", "tests/api/test_descriptions.py", "-k", "random"
    )
    variables = {
        "IRIS_C_FUZZ_SEEDS": str(asked.seeds),
        "IRIS_C_FUZZ_FIRST": str(asked.first),
        "IRIS_C_FUZZ_CALLS": str(asked.calls),
    }
    environment = {**sanitized.environment(library), **variables, "IRIS_C_BACKEND": "cpu"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
