# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What tests of any vendor's code objects compare them with."""

import subprocess

import amd_build
import pytest


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """Names of the rows of instances.def, and the sizes of their arguments as C lays them out."""
    directory = tmp_path_factory.mktemp("host")
    (directory / "sizes.c").write_text(
        "#include <stdio.h>\n"
        '#include "kernels/abi/instances.h"\n'
        "#define IRIS_INSTANCE(operation, variant, dtype, arguments, kernel) \\\n"
        '    printf("iris_" #operation "_" #variant "_" #dtype " %zu\\n", \\\n'
        "           sizeof(struct arguments));\n"
        "int main(void)\n{\n"
        '#include "kernels/abi/instances.def"\n'
        "    return 0;\n}\n"
    )
    program = directory / "sizes"
    subprocess.run(
        [
            "cc",
            "-std=c11",
            f"-I{amd_build.ROOT}/csrc",
            str(directory / "sizes.c"),
            "-o",
            str(program),
        ],
        check=True,
    )
    text = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {name: int(size) for name, size in (line.split() for line in text.splitlines())}
