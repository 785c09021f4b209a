"""A value with its evidence, and an interval with its grade."""

from __future__ import annotations

from typing import Literal

import msgspec

Grade = Literal["measured-here", "measured-elsewhere", "vendor-claimed", "derived", "assumed"]
GRADES: tuple[Grade, ...] = ("measured-here", "measured-elsewhere", "vendor-claimed", "derived", "assumed")
"""Best first. Printed as the letters A to E."""


def letter(grade: Grade) -> str:
    """``A`` (measured here) to ``E`` (assumed)."""
    return "ABCDE"[GRADES.index(grade)]


def worst(*grades: Grade) -> Grade:
    """The weakest of ``grades``: a result is no better than its weakest input."""
    return max(grades, key=GRADES.index)


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value, in the base unit that ``unit`` names, and what vouches for it."""

    value: float | str | None
    """None: unknown. Never zero for unknown."""
    unit: str = ""
    source: str
    date: str | None = None
    """When the source was written or read; ISO where known."""
    grade: Grade
    status: str | None = None
    """The finer word under the grade: official, vendor_claim, measured, press_report, estimate, unsourced, withheld."""
    source_read: bool | None = None
    """Whether we opened the source ourselves."""
    primary_cited: str | None = None
    """The page that the source itself names."""
    primary_read: bool | None = None
    note: str | None = None
    """Conditions: clock, bin, sparsity, batch, software."""

    @property
    def withheld(self) -> bool:
        """Whether the vendor withholds this value (which is information, unlike a gap)."""
        return self.status == "withheld"

    @property
    def number(self) -> float | None:
        """The value where it is a number, else None."""
        return self.value if isinstance(self.value, (int, float)) else None


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A predicted value with the interval that holds the truth with probability ``level``."""

    mid: float
    low: float
    high: float
    unit: str
    grade: Grade
    level: float = 0.8
