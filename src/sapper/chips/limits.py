"""The catalogue as readers of evidence ask it: what a chip cannot exceed, and which chip calls itself so."""

from __future__ import annotations

import re

from sapper.chips.catalogue import Catalogue
from sapper.chips.derived import number
from sapper.chips.schema import Chip
from sapper.errors import UnknownName
from sapper.evidence.limits import Limits

_DECORATION = re.compile(r"\b(?:HBM\d\w*|GDDR\d\w*|Graphics|GPU|Accelerator)\b", re.IGNORECASE)
"""Words that drivers put into names of devices and catalogues do not."""

_CAPACITY_SHARE = 0.12
"""A driver shows less memory than the sheet, by up to this share: error correction and its own reserve."""


class KnownChips:
    """A catalogue behind :class:`sapper.evidence.limits.Chips`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def limits(self, name: str) -> Limits | None:
        """Limits of the chip that ``name`` means; None of a chip that is not in the catalogue.

        Raises:
            AmbiguousName: Several chips bear the name.
        """
        try:
            return limits_of(self._catalogue.resolve(name))
        except UnknownName:
            return None

    def guess(self, device: str, *, memory_bytes: float | None = None) -> str | None:
        """Id of the chip that calls itself ``device`` and has as much memory, where that is one chip and no other."""
        for name in (device, _DECORATION.sub(" ", device)):
            chips = [self._catalogue.chips[id_] for id_ in self._catalogue.names.find(name)]
            if memory_bytes is not None and len(chips) > 1:
                chips = [chip for chip in chips if _holds(chip, memory_bytes)]
            if len(chips) == 1:
                return chips[0].id
        return None


def limits_of(chip: Chip) -> Limits:
    """What the catalogue says that ``chip`` cannot exceed."""
    peaks = {dtype: number(fact) for dtype, fact in chip.peak_flops_per_s.items()}
    caches = [size for size in map(number, chip.onchip_bytes.values()) if size]
    return Limits(
        id=chip.id,
        peak_flops_per_s={dtype: peak for dtype, peak in peaks.items() if peak},
        memory_bytes_per_s=number(chip.memory.bandwidth_bytes_per_s),
        onchip_bytes=sum(caches) or None,
        link_bytes_per_s=number(chip.scale_up.bandwidth_bytes_per_s) if chip.scale_up else None,
        torch_device=chip.software.torch_device if chip.software else None,
    )


def _holds(chip: Chip, memory_bytes: float) -> bool:
    capacity = number(chip.memory.capacity_bytes)
    return capacity is not None and (1 - _CAPACITY_SHARE) * capacity <= memory_bytes <= capacity * 1.01
