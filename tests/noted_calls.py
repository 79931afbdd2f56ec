# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Which operations of the core torch's operations call."""

from iris_c.torch import _operations


class _Noted:
    """A context that notes calls of what its `ops` and `ccl` have."""

    def __init__(self, real, calls, notes=False):
        self.real, self.calls, self.notes = real, calls, notes

    def __getattr__(self, name):
        value = getattr(self.real, name)
        if name in ("ops", "ccl"):
            return _Noted(value, self.calls, True)
        if not self.notes or not callable(value):
            return value

        def noted(*args, **options):
            self.calls.append(name)
            return value(*args, **options)

        return noted


def noted_calls(monkeypatch):
    """The names of the core's operations and collectives that are called from now on."""
    calls, context = [], _operations.context

    class Ops:
        def __getitem__(self, name):
            return _Noted(context(name), calls).ops

    monkeypatch.setattr(_operations, "ops", Ops())
    monkeypatch.setattr(_operations, "context", lambda name: _Noted(context(name), calls))
    return calls
