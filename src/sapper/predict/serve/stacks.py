"""The inference engine that is usual on a chip, where the user names none."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources

from sapper.chips.schema import Chip


@functools.cache
def _stacks() -> dict[str, str]:
    text = resources.files("sapper.predict").joinpath("data", "stacks.toml").read_text("utf-8")
    return {device: stack for stack, entry in tomllib.loads(text)["serve"].items() for device in entry["torch_devices"]}


def usual_stack(chip: Chip) -> str:
    """The serving stack that is usual on the chip's torch device; ``unknown`` where there is none."""
    device = chip.software.torch_device if chip.software else None
    return _stacks().get(device.split()[0].strip("(),"), "unknown") if device else "unknown"
