"""From what verdicts keep to sentences and figures of the page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sapper import messages, units
from sapper.dossier.proof.summary import Check
from sapper.prove.words import Saying


def reason_of(code: str | None, values: Mapping[str, Any]) -> Saying | None:
    """The reason of a verdict; None where it has none, or one that this version does not know."""
    return Saying(code=code, values=dict(values)) if code and messages.known(code) else None


def value_of(check: Check, lang: str) -> str:
    """The figure of a quantified item with its unit."""
    if check.value is None:
        return messages.text("cli.unknown", lang)
    if check.unit == "1" and (check.name.endswith("share") or check.name == "coverage"):
        return f"{100 * check.value:.3g}%"
    text = units.significant(check.value)
    return text if check.unit == "1" else f"{text} {messages.text(f'proof.unit.{check.unit}', lang)}"


def limit_of(check: Check, lang: str) -> str:
    """What the figure is held against, with its sense; empty where it is for information."""
    if check.limit is None:
        return ""
    sign = "\N{LESS-THAN OR EQUAL TO}" if check.most else "\N{GREATER-THAN OR EQUAL TO}"
    shown = f"{100 * check.limit:.3g}%" if check.name.endswith("share") or check.name == "coverage" else units.significant(check.limit)
    return f"{sign} {shown}"


def first_line(said: str | None, *, most: int = 240) -> str:
    """The beginning of what a stack said."""
    line = (said or "").strip().partition("\n")[0]
    return line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def short_name(name: str) -> str:
    """Without the folders of one machine: ``papertiger:a/b.toml`` is ``papertiger:b.toml``."""
    return re.sub(r"(^|:)[^:]*[/\\]", r"\1", name)
