# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Calls as tests of faults want them: waiting until they are done, also where they are queued."""


def waiting(ctx, call):
    """The call itself on the cpu; on a GPU, where it returns when it is queued, and a barrier,
    which waits for the stream."""
    if ctx.backend == "cpu":
        return call

    def call_and_wait():
        call()
        ctx.barrier()

    return call_and_wait
