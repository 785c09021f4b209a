"""Stacks whose device name PyTorch keeps for itself (``xpu``, ``hpu``, ``cuda`` of ROCm): the chip has a name of its own inside,
and the program sees the vendor's. Devices that go in are translated one way, devices that come out the other."""

from __future__ import annotations

import functools
import re
import sys
from typing import Any

import torch
from sapper.port.dryrun.inside import chip
from sapper.port.dryrun.inside.frames import owner_of
from sapper.port.dryrun.session import current

_REAL = torch.device


def inward(values: Any) -> Any:
    """Arguments with the shown device replaced by the chip's own; as they came where the chip bears the vendor's name."""
    stack = current().stack
    if stack.native or stack.as_cuda:
        return values
    if isinstance(values, dict):
        return {key: _in(one, stack.device) for key, one in values.items()}
    return tuple(_in(one, stack.device) for one in values)


def _in(value: Any, shown: str) -> Any:
    if type(value) is str and re.fullmatch(rf"{shown}(:\d+)?", value):
        return value.replace(shown, chip.INTERNAL, 1)
    if type(value) is _REAL and value.type == shown:
        return _REAL(chip.INTERNAL) if value.index is None else _REAL(chip.INTERNAL, value.index)
    return value


def outward(device: Any) -> Any:
    """A device as the program sees it."""
    if device is None or device.type != chip.INTERNAL:
        return device
    shown = current().stack.device
    return _REAL(shown) if device.index is None else _REAL(shown, device.index)


def watch() -> None:
    """Show the chip under the vendor's name."""
    stack = current().stack
    if stack.native:
        return
    plain = torch.Tensor.device

    def device(self: Any) -> Any:
        found = plain.__get__(self)
        if found.type != chip.INTERNAL or owner_of(sys._getframe(1).f_code.co_filename)[0] in ("torch", "own"):
            return found
        return outward(found)

    torch.Tensor.device = property(device)
    plain_accelerator = torch.accelerator.current_accelerator

    @functools.wraps(plain_accelerator)
    def current_accelerator(check_available: bool = False) -> Any:
        found = plain_accelerator(check_available)
        return found if owner_of(sys._getframe(1).f_code.co_filename)[0] in ("torch", "own") else outward(found)

    torch.accelerator.current_accelerator = current_accelerator
    plain_text = torch._tensor_str._str

    @functools.wraps(plain_text)
    def text(*arguments: Any, **named: Any) -> str:
        return str(plain_text(*arguments, **named)).replace(f"device='{chip.INTERNAL}", f"device='{stack.device}")

    torch._tensor_str._str = text
    if not stack.as_cuda:
        _fill(stack.device)


def _fill(name: str) -> None:
    """Make ``torch.NAME`` the chip's, where PyTorch has such a module by changing what is in it: it uses more of it itself."""
    own = getattr(torch, name, None)
    if own is None:
        setattr(torch, name, chip.module())
        sys.modules[f"torch.{name}"] = chip.module()
        return
    for key, value in vars(chip.module()).items():
        if not key.startswith("__") and not isinstance(value, type(sys)):
            setattr(own, key, value)
