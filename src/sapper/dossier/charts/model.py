"""A chart with what stands beside it: caption, legend and the table that says the same in text."""

from __future__ import annotations

import msgspec


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a legend; ``colour`` names a CSS variable ``--c-<colour>``."""

    colour: str
    label: str
    sign: str = "\N{BLACK SQUARE}"
    """The mark itself: shape tells apart where colour does not."""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the page."""

    name: str
    title: str
    caption: str
    svg: str
    legend: tuple[Key, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    """Table fallback; the first column is text, the others figures."""
