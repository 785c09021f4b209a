"""Page: the section of docs/accuracy.md on the error of serving, as tables in one language; written by ``scripts/accuracy.py``."""

from __future__ import annotations

from collections.abc import Sequence

from sapper import messages
from sapper.predict.bars.noise import Floor
from sapper.predict.bars.where import Part, Place

MOST = 8
"""Parts of a facet that are listed."""
WORDED = ("workers", "term")
"""Facets whose parts have names in both languages."""


def page(places: Sequence[Place], *, taus: Sequence[float | None], lang: str) -> str:
    """The section; ``taus``: of the ranking with each chip left out, and by the fit that saw it."""
    left, seen = (f"{tau:.2f}" if tau is not None else "?" for tau in taus)
    blocks = [f"## {say('title', lang)}", say("what", lang), bounds(places, lang)]
    blocks += [messages.text("where.ranking", lang, left=left, seen=seen)]
    blocks += [say("remedies", lang), remedies(places, lang), say("parts", lang)]
    for place in places:
        blocks += [f"### {say(f'place.{place.key}', lang)}", parts(place.parts, lang)]
    return "\n\n".join(blocks) + "\n"


def bounds(places: Sequence[Place], lang: str) -> str:
    """Each place with its bar and its lower bounds."""
    lines = head(("quantity", "target", "rows", "left_out", "seen", "floor", "same", "apart"), lang, text=1)
    for one in places:
        cells = (
            say(f"place.{one.key}", lang), f"<= {percent(one.target)}", f"{one.rows:,}", f"{percent(one.mean)} / {percent(one.median)}",
            f"{percent(one.seen)} / {percent(one.seen_median)}", bound(one.floor, lang), bound(one.same, lang),
            say("none", lang) if one.floor.apart is None else percent(one.floor.apart),
        )
        lines.append(row(cells))
    return "\n".join(lines)


def bound(found: Floor, lang: str) -> str:
    """A floor and what it stands on."""
    return say("none", lang) if found.mean is None else f"{percent(found.mean)} ({found.groups:,}, {found.rows:,})"


def remedies(places: Sequence[Place], lang: str) -> str:
    """What missing figures would do."""
    lines = head(("quantity", "missing", "then"), lang, text=2)
    lines += [
        row((say(f"place.{one.key}", lang), messages.text(f"where.remedy.{each.key}", lang, name=each.name), percent(each.mean)))
        for one in places for each in one.remedies
    ]
    return "\n".join(lines)


def parts(found: Sequence[Part], lang: str) -> str:
    """The parts of a place, the greatest of each facet."""
    lines = head(("by", "part", "rows", "mean", "mean_seen", "bias", "share"), lang, text=2)
    listed: dict[str, int] = {}
    for one in found:
        listed[one.facet] = listed.get(one.facet, 0) + 1
        if listed[one.facet] <= MOST:
            name = say(f"{one.facet}.{one.name}", lang) if one.facet in WORDED else one.name
            figures = (percent(one.mean), percent(one.seen), f"{100 * one.bias:+.0f}%", percent(one.share))
            lines.append(row((say(f"facet.{one.facet}", lang) if listed[one.facet] == 1 else "", name, f"{one.rows:,}", *figures)))
    return "\n".join(lines)


def head(keys: Sequence[str], lang: str, *, text: int) -> list[str]:
    """Head of a table whose first ``text`` columns are words."""
    return [row([say(key, lang) for key in keys]), "|" + "---|" * text + "---:|" * (len(keys) - text)]


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(cells) + " |"


def say(key: str, lang: str) -> str:
    """A text of the section."""
    return messages.text(f"where.{key}", lang)


def percent(value: float) -> str:
    """A share as the page shows it."""
    return f"{100 * value:.1f}%"
