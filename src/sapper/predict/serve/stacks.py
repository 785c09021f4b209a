"""Inference engines: which is usual on a chip where the user names none, and whose chips each was written for."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Any

from sapper.chips.schema import Chip


@functools.cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(resources.files("sapper.predict").joinpath("data", "stacks.toml").read_text("utf-8"))


@functools.cache
def _stacks() -> dict[str, str]:
    return {device: stack for stack, entry in _tables()["serve"].items() for device in entry["torch_devices"]}


def ported(stack: str, vendor: str) -> bool:
    """Whether ``stack`` was written for the chips of another vendor than ``vendor``; False where nobody says."""
    home = _tables()["home"].get(stack)
    return home is not None and vendor not in home["vendors"]


def attention_level(vendor: str, stack: str, *, year: float) -> str:
    """What a stack's attention is on a vendor's chips: ``vendor/stack``, marked before the release that reads keys and values once for
    all query heads of a group.

    Args:
        vendor: Of the chips.
        stack: The engine.
        year: Of its release.
    """
    entry = _tables()["grouped"].get(f"{vendor}-{stack}".lower())
    return f"{vendor}/{stack}" + (" ungrouped" if entry is not None and year < entry["since"] else "")


def usual_stack(chip: Chip) -> str:
    """The serving stack that is usual on the chip's torch device; ``unknown`` where there is none."""
    device = chip.software.torch_device if chip.software else None
    return _stacks().get(device.split()[0].strip("(),"), "unknown") if device else "unknown"
