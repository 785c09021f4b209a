"""The page of a proof: one self-contained HTML file for one language, verdict first, then what was not covered."""

from __future__ import annotations

import functools
from typing import Any

from sapper import messages
from sapper.dossier.charts.canvas import require
from sapper.dossier.proof import tables, tiles
from sapper.dossier.proof.charts import layers, loss, roofline
from sapper.dossier.proof.summary import Found, Report
from sapper.dossier.proof.wording import short_name
from sapper.dossier.rendering import environment, resource
from sapper.prove.results import Results
from sapper.prove.words import blame, outcome

GLOSSARY = (
    "truth", "peer", "local", "accumulated", "envelope", "ratio", "blame", "void", "fallback", "effective_precision", "roofline", "launch",
    "pass_type", "quantified_type",
)  # fmt: skip
METHOD = ("truth", "rule", "model", "blame", "training", "isolation", "speed")


def page(results: Results, report: Report, lang: str, *, other: str | None = None) -> str:
    """The report in ``lang`` as HTML that needs nothing else.

    Args:
        results: What the folder holds.
        report: What it comes to.
        lang: ``en`` or ``zh``.
        other: File name of the other language's page beside this one; None where there is none.

    Raises:
        InputError: matplotlib, which draws the charts, is not installed.
    """
    require()
    return environment().get_template("proof.html.j2").render(**_view(results, report, lang), other=other)


def _view(results: Results, report: Report, lang: str) -> dict[str, Any]:
    word = functools.partial(_text, lang)
    speed = results.speed
    ops_map = tiles.map_of_ops(results.ops, lang) if results.ops else ()
    changes = tiles.map_of_changes(results.change, lang) if results.change else ()
    view: dict[str, Any] = {
        "report": report, "lang": lang, "html_lang": "zh-CN" if lang == "zh" else "en",
        "css": resource("style.css") + resource("proof.css"), "t": word, "title": title(report, lang), "lead": lead(report, lang),
        "guilty": _guilty(report.guilty, lang),
        "date": max((one.date[:10] for one in report.subjects if one.date), default=""),
        "gaps": [gap.text(lang) for gap in report.not_covered], "pass_items": tables.pass_items(report, lang),
        "quantified_items": tables.quantified_items(report, lang),
        "found": tables.findings(report.found, lang) if report.found else None,
        "more_found": max(0, len(report.found) - tables.MOST_FOUND),
        "ops_map": ops_map, "ops_legend": tiles.legend_of(ops_map, lang),
        "changes": changes, "changes_legend": tiles.legend_of(changes, lang),
        "layers": layers.chart(results.model, lang) if results.model else None,
        "loss": loss.chart(results.train, lang) if results.train else None,
        "roofline": roofline.chart(speed, lang) if speed else None, "speed_table": tables.speed_table(speed, lang) if speed else None,
        "more_ops": max(0, len(speed.ops) - tables.MOST_OPS) if speed else 0,
        "precision": tables.precision(results.doctor, lang) if results.doctor else None,
        "scripts": [{"id": tables.anchor(one.path)[1:], "path": one.path, "text": one.text} for one in results.scripts],
        "subjects": tables.subjects(report, lang), "conditions": sorted(speed.conditions.items()) if speed else [], "method": METHOD,
        "glossary": [(word(f"glossary.{name}"), word(f"glossary.{name}_text")) for name in GLOSSARY],
    }  # fmt: skip
    return {**view, "sections": _sections(view)}


def _sections(view: dict[str, Any]) -> tuple[str, ...]:
    """Those that the page has, in its order."""
    optional = {
        "found": "found", "ops": "ops_map", "layers": "layers", "training": "loss", "changes": "changes",
        "speed": "speed_table", "precision": "precision",
        "repros": "scripts",
    }  # fmt: skip
    return ("verdict", "items", *(name for name, key in optional.items() if view[key]), "environment", "method", "glossary")


def _text(lang: str, code: str, **values: object) -> str:
    """A text of the proof's page, else one that it shares with the dossier."""
    own = f"proof.{code}"
    return messages.text(own if messages.known(own) else f"dossier.{code}", lang, **values)


def title(report: Report, lang: str) -> str:
    """What was proved, on what."""
    targets = dict.fromkeys(one.target for one in report.subjects if one.target)
    backends = dict.fromkeys(one.backend for one in report.subjects)
    comma = messages.text("assess.label.comma", lang)
    code = "proof.title.target" if targets else "proof.title.ops"
    return messages.text(code, lang, backend=comma.join(map(short_name, backends)) or "-", target=comma.join(map(short_name, targets)))


def lead(report: Report, lang: str) -> str:
    """The verdict in a sentence; a red one names the parts that have findings, the others all that ran."""
    guilty = report.guilty if report.verdict == "red" else None
    counted = [one for one in report.found if not one.excused]
    within = {one.part for one in counted} if guilty is not None else set(report.ran)
    named = [messages.text(f"proof.part.{part}", lang) for part in report.ran if part in within]
    parts = messages.text("assess.label.comma", lang).join(named)
    if guilty is None:
        return messages.text(f"proof.lead.{report.verdict}", lang, parts=parts)
    blamed = report.blame
    code = "proof.lead.red_blamed" if blamed else "proof.lead.red"
    values = {"blame": blame(blamed, lang)} if blamed else {}
    return messages.text(code, lang, count=len(counted), parts=parts, op=guilty.op, **values)


def _guilty(found: Found | None, lang: str) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "op": found.op, "where": found.where, "outcome": found.outcome, "word": outcome(found.outcome, lang),
        "why": tables.why_of(found, lang), "blame": blame(found.blame, lang) if found.blame else "",
        "evidence": [one.text(lang) for one in found.evidence], "repro": found.repro or "",
        "repro_href": tables.anchor(found.repro) if found.repro else "",
    }  # fmt: skip
