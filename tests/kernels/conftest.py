# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What tests of any vendor's code objects compare them with."""

import subprocess

import amd_build
import pytest

# What the objects of targets with float8 products have besides.
SCALED = ("-DIRIS_GPU", "-DIRIS_HAS_SCALED", "-DIRIS_LACKS_SCALED_FLOAT32")


def rows(directory, *definitions):
    """Names of the rows of instances.def, and the sizes of their arguments as C lays them out."""
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
    program, source = str(directory / "sizes"), str(directory / "sizes.c")
    command = ["cc", "-std=c11", *definitions, f"-I{amd_build.ROOT}/csrc", source, "-o", program]
    subprocess.run(command, check=True)
    text = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: int(size) for name, size in (line.split() for line in text.splitlines())}


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """Of targets without float8 products."""
    return rows(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="session")
def scaled_host(tmp_path_factory):
    """Of targets with them."""
    return rows(tmp_path_factory.mktemp("scaled_host"), *SCALED)
