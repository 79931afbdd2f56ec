# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""No registry keeps a closed context alive."""

import gc
import weakref

import pytest
import torch

import iris_c
import iris_c.torch as it
from iris_c.testing import ranks
from iris_c.torch._groups import context as named


def one(**options):
    return iris_c.init(heap_size=1 << 20, backend="cpu", rank=0, world_size=1, **options)


def is_gone(reference) -> bool:
    gc.collect()
    return reference() is None


def test_a_registered_context():
    """The registry holds an open context, which need not be held by anybody else, but no closed
    one; the name then says so, and can be given again."""
    it.register(one(), "lifetime")
    kept = weakref.ref(named("lifetime"))
    assert not is_gone(kept)
    named("lifetime").close()
    assert is_gone(kept)
    with pytest.raises(RuntimeError, match="the context named 'lifetime' is closed"):
        named("lifetime")
    again = it.register(one(), "lifetime")
    assert named("lifetime") is again
    again.close()
    with pytest.raises(RuntimeError, match="closed"):
        it.register(again, "lifetime")


@pytest.mark.parametrize("name", [3, None, b"default", []], ids=repr)
def test_names_are_text(name):
    with one() as ctx, pytest.raises(TypeError, match=r"^name: expected a str, got "):
        it.register(ctx, name)


def test_a_name_given_to_another_context_survives_the_first():
    first, second = it.register(one(), "passed on"), it.register(one(), "passed on")
    first.close()
    assert named("passed on") is second
    second.close()


def test_contexts_that_get_a_name_by_use():
    """Names are not given twice, whichever context is closed first."""
    contexts = [one() for _ in range(3)]
    results = [it.all_reduce(torch.ones(3), ctx=ctx) for ctx in contexts[:2]]
    contexts[0].close()
    results.append(it.all_reduce(torch.ones(3), ctx=contexts[2]))
    assert all(torch.equal(result, torch.ones(3)) for result in results)
    references = [weakref.ref(ctx) for ctx in contexts]
    for ctx in contexts:
        ctx.close()
    del contexts, ctx
    assert all(is_gone(reference) for reference in references)


def test_a_context_that_has_been_used():
    """Workspaces, tensors and bound functions of it, in no cycle that would keep it."""
    with one() as ctx:
        workspace = ctx.ccl.all_reduce(torch.empty(3), torch.ones(3))
        ctx.ops.matmul_all_reduce(torch.empty(2, 2), torch.ones(2, 2), torch.ones(2, 2))
        tensor = ctx.ones(5)
    reference = weakref.ref(ctx)
    del ctx, workspace
    assert is_gone(reference)
    assert torch.equal(tensor, torch.ones(5))


@ranks(2, heap_size=1 << 20)
def test_groups(ctx):
    group = ctx.group([0, 1], heap_size=1 << 20)
    reference = weakref.ref(group)
    group.close()
    del group
    assert is_gone(reference)
    # A closed group is made anew.
    group = ctx.group([0, 1], heap_size=1 << 20)
    output = torch.empty(4)
    group.ccl.all_reduce(output, torch.ones(4))
    assert torch.equal(output, torch.full((4,), 2.0))
    reference = weakref.ref(group)
    del group
    assert not is_gone(reference)  # the parent holds it
    ctx.close()
    assert is_gone(reference)
