"""Bar: one promise, its figures of today and whether they meet the target."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a bar."""

    name: str
    """Key of its label: ``bars.figure.<name>``."""
    value: float | None
    """None: nothing could be measured."""
    unit: Literal["share", "count", "plain"] = "share"
    most: float | None = None
    """Target: not above."""
    least: float | None = None
    """Target: not below."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where the figure has no target, or no value."""
        if self.value is None or (self.most is None and self.least is None):
            return None
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A promise with its figures."""

    key: str
    """Of its texts: ``bars.name.<key>``, ``bars.best.<key>`` (the best published elsewhere)."""
    rows: int
    """Rows (or groups, or calls) that were asked."""
    answered: int
    figures: tuple[Figure, ...]
    groups: tuple[dict[str, Any], ...] = ()
    """What it consists of, worst first: chips, sources, groups of plans."""

    @property
    def met(self) -> bool | None:
        """Whether every target is met and every row answered; None where nothing could be measured."""
        known = [figure.met for figure in self.figures if figure.met is not None]
        return all(known) if known else None
