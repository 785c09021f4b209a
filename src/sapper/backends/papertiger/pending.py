"""Errors of a backward pass: kept from PyTorch's device guard for devices written in Python, which would end the process.

What raises below Python code of a backward pass (a dispatch mode, a hook, a custom function's ``backward``) leaves its error set
in the interpreter while PyTorch's engine unwinds. On the way the engine puts the stream back through the device's guard, in a
destructor, and that of a device written in Python asks the guard's ``type_`` for it: a call that returns while an error is set
is an error again, one thrown out of a destructor, and the process aborts. So ``type_`` takes the error away first, and the call
that started the pass, which then finds none, raises it. A chip with a guard in C++ has neither half of it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

_TAKEN: list[BaseException] = []
"""The error that the guard took away last, until the call that started the pass raises it."""

_call = functools.partial(int)
"""Any call that the interpreter does not specialize, since it checks of those alone whether they leave an error set."""


class DeviceGuard(torch._C._acc.DeviceGuard):
    """Guard of the one device that says which it is, whether an error is set or not."""

    def type_(self) -> Any:
        """The device's type."""
        try:
            _call()
        except SystemError as seen:
            if seen.__cause__ is not None:
                _TAKEN[:] = [seen.__cause__]
        return torch._C._autograd.DeviceType.PrivateUse1


def adapt_engine() -> None:
    """Have backward passes raise the error that the guard took away."""
    plain = torch.autograd.graph._engine_run_backward

    @functools.wraps(plain)
    def run(*arguments: Any, **named: Any) -> Any:
        try:
            return plain(*arguments, **named)
        except SystemError:
            if not _TAKEN:
                raise
        raise _TAKEN.pop()

    for module in (torch.autograd.graph, torch.autograd):
        module._engine_run_backward = run
