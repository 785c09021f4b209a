"""What a chip cannot exceed, and how a measurement is held against it.

The catalogue knows the limits; it stands beside this package, so whoever reads evidence hands them in.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from sapper.errors import BadValue
from sapper.evidence.record import Record
from sapper.units import scaled

TOLERANCE = 1.05
"""Clocks above the nominal one and rounding of sheets; what lies further above the limit is a mistake."""

CACHE_BYTES = 2**28
"""Working sets below this are not held against the memory's bandwidth where the size of the caches is not known."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one chip; None: nobody whom we read states it, and nothing is held against it."""

    id: str
    peak_flops_per_s: dict[str, float] = msgspec.field(default_factory=dict)
    """Dense peak by dtype."""
    memory_bytes_per_s: float | None = None
    onchip_bytes: float | None = None
    """All caches together: what fits there may be faster than the memory."""
    link_bytes_per_s: float | None = None
    """Of the scale-up links, per direction."""
    torch_device: str | None = None
    """What PyTorch calls its kind of device: cuda, npu, cpu, ..."""


class Chips(Protocol):
    """What readers of evidence ask the catalogue."""

    def limits(self, name: str) -> Limits | None:
        """Limits of the chip that ``name`` means, None of a chip that is not in the catalogue.

        Raises:
            AmbiguousName: Several chips bear the name.
        """

    def guess(self, device: str, *, memory_bytes: float | None = None) -> str | None:
        """Id of the chip that calls itself ``device``, where that is one chip and no other."""


def hold_against(limits: Limits, record: Record) -> None:
    """Refuse a measurement that the chip cannot have made.

    Raises:
        BadValue: It is further above a limit of the catalogue than :data:`TOLERANCE`.
    """
    if record.value is None:
        return
    for value, limit, code in _bounds(limits, record, record.value):
        if limit is not None and value > limit * TOLERANCE:
            unit = "FLOP/s" if code == "SP-EVID-040" else "B/s"
            raise BadValue(
                code, chip=limits.id, dtype=record.dtype or "-", value=scaled(value, unit), limit=scaled(limit, unit),
                share=f"{100 * (TOLERANCE - 1):.0f}%",
            )


def _bounds(limits: Limits, record: Record, value: float) -> list[tuple[float, float | None, str]]:
    """Value, limit, and code of the message, of all that bounds ``record``."""
    if record.metric == "rate":
        return [(value, limits.peak_flops_per_s.get(record.dtype or ""), "SP-EVID-040")]
    if record.metric == "bandwidth" and not _in_cache(limits, record):
        return [(value, limits.memory_bytes_per_s, "SP-EVID-041")]
    if record.kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "p2p"):
        devices, size_bytes = record.conditions.get("devices", 2), record.conditions.get("message_bytes", 0)
        # Every chip sends all of its buffer but its own share at least once; a switch that reduces saves the second time.
        sent_bytes = size_bytes * ((devices - 1) / devices if record.kind != "p2p" else 1.0)
        return [(sent_bytes / value, limits.link_bytes_per_s, "SP-EVID-042")]
    return []


def _in_cache(limits: Limits, record: Record) -> bool:
    """Whether the working set may have stayed on the chip; a copy has two buffers, attention a size that we do not judge."""
    size = record.conditions.get("bytes")
    if not isinstance(size, (int, float)):
        return True
    return size < (4 * limits.onchip_bytes if limits.onchip_bytes else CACHE_BYTES)
