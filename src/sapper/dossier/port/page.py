"""The page of a port: one self-contained HTML file for one language, silent couplings first."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

from sapper import __version__, messages
from sapper.dossier.port.effort import ranges
from sapper.dossier.port.folders import classes_of, folders
from sapper.dossier.port.matrix import Matrix, matrix
from sapper.dossier.rendering import environment, resource
from sapper.port.effort import LEVEL, model
from sapper.port.report.judged import QUIET, STANDINGS, STATUSES, tying
from sapper.port.report.outcome import Outcome
from sapper.port.target import label

STYLES = ("style.css", "proof.css", "port.css")
MOST_UNREAD, MOST_SILENT = 20, 24
METHOD = ("scan", "standing", "verdicts", "silence", "effort")
GLOSSARY = ("tie", "target", "shim", "standing", "silence", "neutral", "interval")


def page(result: Outcome, lang: str, *, name: str, other: str | None = None) -> str:
    """The report in ``lang`` as HTML that needs nothing else.

    Args:
        result: A scan, judged.
        lang: ``en`` or ``zh``.
        name: What the scanned tree is called in the title.
        other: File name of the other language's page beside this one; None where there is none.
    """
    with messages.using(lang):
        return environment().get_template("port.html.j2").render(**_view(result, lang, name), other=other)


def _view(result: Outcome, lang: str, name: str) -> dict[str, Any]:
    ties = tying(result.found)
    bars, beyond = folders(ties)
    table = matrix(ties, lang)
    silent = [row for row in table.rows if row.quiet]
    view: dict[str, Any] = {
        "lang": lang, "html_lang": "zh-CN" if lang == "zh" else "en", "css": "".join(map(resource, STYLES)),
        "t": functools.partial(_text, lang), "name": name, "sapper": __version__, "summary": result.summary, "quiet": QUIET,
        "statuses": STATUSES, "targets": {target.name: label(target) for target in result.targets}, "bars": bars, "beyond": beyond,
        "classes": classes_of(bars), "matrix": table, "silent": silent, "most_silent": MOST_SILENT, "silent_count": _silences(ties),
        "effort": ranges(result.summary),
        "level": f"{LEVEL:.0%}", "fit": model(), "standings": _standings(result), "by_class": result.summary.by_class,
        "unread": [(_place(one.path, one.line), messages.text(one.code, lang, **one.values)) for one in result.scan.unread[:MOST_UNREAD]],
        "more_unread": max(0, len(result.scan.unread) - MOST_UNREAD), "known": result.known, "coverage": _coverage(result),
        "languages": sorted(result.scan.by_language.items(), key=lambda item: -item[1]), "method": METHOD, "glossary": GLOSSARY,
    }  # fmt: skip
    return {**view, "sections": _sections(view, table)}


def _sections(view: dict[str, Any], table: Matrix) -> tuple[str, ...]:
    """Those that the page has, in its order."""
    if not table.rows:
        return ("lead", "method", "glossary")
    silent, sources = (("silent",) if view["silent"] else ()), (("sources",) if table.sources else ())
    return ("lead", *silent, "targets", "where", "matrix", "read", *sources, "method", "glossary")


def _text(lang: str, code: str, **values: object) -> str:
    """A text of this page, else one that another part has by its whole code, else one that it shares with the dossier."""
    own = f"port.page.{code}"
    found = next((name for name in (own, code) if messages.known(name)), f"dossier.{code}")
    return messages.text(found, lang, **values)


def _silences(ties: list[Any]) -> list[tuple[str, int]]:
    counts = Counter(one.quiet for one in ties if one.quiet)
    return [(kind, counts[kind]) for kind in QUIET if counts[kind]]


def _standings(result: Outcome) -> list[tuple[str, int]]:
    counts = Counter(one.finding.standing for one in result.found)
    return [(name, counts[name]) for name in STANDINGS if counts[name]]


def _coverage(result: Outcome) -> float:
    """Share of the cells findings x targets that have a source."""
    cells = result.summary.ties * len(result.targets)
    return sum(one.sourced for one in result.summary.by_target) / cells if cells else 0.0


def _place(path: str, line: int | None) -> str:
    return path if line is None else f"{path}:{line}"
