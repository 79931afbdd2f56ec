# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Two nodes that are apart: two network namespaces, a cable between them, two ranks on each.

What is outside both namespaces stays as it is, and with their last process they are gone.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ADDRESSES = ("10.77.0.1", "10.77.0.2")
HEAP = 16 << 20
# A node: two ranks, begun when its standard input says so.
NODE = """
hostname node{node} && ip link set lo up && echo ready && read go || exit 1
export GLOO_SOCKET_IFNAME=cable OMP_NUM_THREADS=1
for place in 0 1; do "$0" "$1" {node} $place {address} {heap} & done
wait
"""

pytestmark = pytest.mark.skipif(
    os.environ.get("IRIS_C_BACKEND", "cpu") != "cpu"
    or os.environ.get("IRIS_C_TEST_TORCHRUN") == "1"
    or any(shutil.which(tool) is None for tool in ("unshare", "nsenter", "ip"))
    or subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True).returncode != 0,
    reason="cannot make network namespaces",
)


def begin(node):
    script = NODE.format(node=node, address=ADDRESSES[0], heap=HEAP)
    command = ["unshare", "--net", "--uts", "sh", "-c", script, sys.executable,
               str(HERE / "network_rank.py")]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def run_ip(process, *arguments):
    subprocess.run(
        ["nsenter", "--target", str(process.pid), "--net", "ip", *arguments], check=True, timeout=20
    )


@pytest.fixture
def nodes():
    begun = []
    try:
        for node in range(len(ADDRESSES)):
            begun.append(begin(node))
        run_ip(begun[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns",
               str(begun[1].pid))  # fmt: skip
        for process, address in zip(begun, ADDRESSES, strict=True):
            run_ip(process, "address", "add", f"{address}/24", "dev", "cable")
            run_ip(process, "link", "set", "cable", "up")
        yield begun
    finally:
        for process in begun:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_products_over_a_network_and_the_loss_of_a_node(nodes):
    """Right on all ranks; then one node's ranks are killed, and the others' are told so."""
    for process in nodes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=100)[0] for process in nodes]
    assert [output.count("right\n") for output in outputs] == [2, 2], outputs
    assert outputs[0].count("error after") == 2, outputs
