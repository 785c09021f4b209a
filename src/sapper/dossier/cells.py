"""Tables as data: what a template prints and a test reads."""

from __future__ import annotations

import msgspec

from sapper import messages
from sapper.assess.text import fact_value, spread
from sapper.evidence import Fact, Interval
from sapper.evidence.fact import letter


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell: a figure with its interval below and its grade beside it, or words."""

    text: str
    sub: str = ""
    extra: str = ""
    """A further line below, such as the ratio to the reference."""
    grade: str = ""
    """A to E; empty for words."""
    href: str = ""
    """Where the grade's letter leads: ``#e12`` or ``#basis-3``."""
    kind: str = "num"
    """num, text, head, link, none (unknown), pass, fail, unknown."""
    span: int = 1
    id: str = ""
    quoted: bool = False
    """In the source's own words, which may be of another language."""
    parts: tuple[Cell, ...] = ()
    """Several figures in one cell, each with a grade of its own, in place of ``text``."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table; ``classes`` marks rows (``reference``, ``refused``)."""

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    classes: tuple[str, ...] = ()
    caption: str = ""


def word(code: str, lang: str, /, **values: object) -> str:
    """A text of the dossier."""
    return messages.text(f"dossier.{code}", lang, **values)


def head(text: str, sub: str = "", *, id: str = "") -> Cell:
    """The first cell of a row."""
    return Cell(text=text, sub=sub, kind="head", id=id)


def words(text: str, sub: str = "", *, quoted: bool = False) -> Cell:
    """A cell of running text."""
    return Cell(text=text, sub=sub, kind="text", quoted=quoted)


def unknown(lang: str) -> Cell:
    """The word for unknown: never a zero, never an empty cell."""
    return Cell(text=word("word.unknown", lang), kind="none")


def interval(
    value: Interval | None, lang: str, *, factor: float = 1.0, places: int | None = None, href: str = "", suffix: str = ""
) -> Cell:
    """Middle above, interval below, grade beside."""
    if value is None:
        return unknown(lang)
    if places is None:
        mid, low, high = spread(value, factor)
    else:
        mid, low, high = (f"{number * factor:,.{places}f}" for number in (value.mid, value.low, value.high))
    below = f"{low}\N{EN DASH}{high}" if value.low != value.high else ""
    return Cell(text=mid + suffix, sub=below, grade=letter(value.grade), href=href)


def of_fact(fact: Fact | None, lang: str, *, numbers: tuple[int, ...] = (), sub: str = "") -> Cell:
    """A fact's value with its grade and the way to its source."""
    text = fact_value(fact, lang)
    if fact is None or fact.value is None:
        return Cell(text=text, kind="none", sub=sub, href=_href(numbers))
    return Cell(text=text, sub=sub, grade=letter(fact.grade), href=_href(numbers))


def _href(numbers: tuple[int, ...]) -> str:
    return f"#e{numbers[0]}" if numbers else ""


def key_words(key: str, lang: str) -> tuple[str, str]:
    """A key in words with the key itself below; the key alone where there are no words."""
    parts = key.split(".")
    for length in (2, 1):
        code = f"dossier.key.{'-'.join(parts[:length])}"
        if messages.known(code):
            rest = ".".join(parts[length:])
            return messages.text(code, lang) + (f", {rest}" if rest else ""), key
    return messages.Foreign("dossier.constant", key).render(lang), ""


def date_text(date: str | None, lang: str) -> str:
    """A date as the source gives it; the word for none."""
    return messages.Foreign("dossier.constant", date).render(lang) if date else word("word.undated", lang)
