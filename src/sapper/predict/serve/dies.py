"""Dies: which chips of the catalogue are one die, and when that first came out (``data/dies.toml``)."""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources

from sapper.chips import catalogue
from sapper.chips.schema import Chip

UNDATED = 2022.0
"""Year of a chip whose release nobody states."""


@functools.cache
def die_of(chip_id: str) -> str:
    """The die of a chip; empty where it shares its die with no other."""
    return next((name for name, pattern in _dies().items() if pattern.search(chip_id)), "")


def first_released(chip: Chip) -> float:
    """Year in which the chip's die first came out, as a fraction: later chips of it stand on the same boards beside the same hosts."""
    return min(_first_releases().get(die_of(chip.id), released(chip)), released(chip))


def released(chip: Chip) -> float:
    """Year of the chip's release, as a fraction; :data:`UNDATED` where unknown."""
    text = str(chip.release.value) if chip.release is not None else ""
    found = re.search(r"(20\d\d)(?:-(\d\d)(?!\d))?", text)
    if not found:
        return UNDATED
    month = int(found[2]) if found[2] and 1 <= int(found[2]) <= 12 else 7
    return int(found[1]) + (month - 1) / 12.0


@functools.cache
def _dies() -> dict[str, re.Pattern[str]]:
    raw = tomllib.loads(resources.files("sapper.predict").joinpath("data", "dies.toml").read_text("utf-8"))
    return {name: re.compile(entry["chips"]) for name, entry in raw["die"].items()}


@functools.cache
def _first_releases() -> dict[str, float]:
    """Die -> first release of the catalogue's chips of it, of those whose release is known."""
    found: dict[str, float] = {}
    for chip in catalogue().chips.values():
        if (die := die_of(chip.id)) and chip.release is not None:
            found[die] = min(found.get(die, released(chip)), released(chip))
    return found
