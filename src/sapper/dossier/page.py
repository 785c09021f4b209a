"""The page: one self-contained HTML file for one language, from an Assessment."""

from __future__ import annotations

import functools
from typing import Any

from sapper import messages
from sapper.assess.assessment import Assessment
from sapper.assess.conclude import conclude
from sapper.assess.text import amount, count, fact_value, number, percent
from sapper.dossier import evidence, mixes, proofs, serving, tables
from sapper.dossier.cells import word
from sapper.dossier.charts import charts, frontier
from sapper.dossier.rendering import environment, resource
from sapper.dossier.risklist import citation, headings
from sapper.predict import money
from sapper.workloads.notes import said

SECTIONS = ("conclusion", "options", "charts", "risks", "links", "plans", "method", "evidence", "glossary", "statement")
GLOSSARY = ("80", "grade", "mfu", "plan", "zero", "recompute", "scale_up", "scale_out", "roofline", "pue")


def sections_of(assessment: Assessment) -> tuple[str, ...]:
    """Sections of the page in order; those on mixes, on serving and on proofs only where such were asked."""
    there = {"mixed": assessment.mixed, "serving": assessment.serving is not None, "proofs": assessment.proofs}
    more = tuple(name for name, wanted in there.items() if wanted)
    return (*SECTIONS[:2], *more, *SECTIONS[2:])


def page(assessment: Assessment, lang: str, *, other: str | None = None) -> str:
    """The dossier of ``assessment`` in ``lang`` as HTML that needs nothing else.

    Args:
        assessment: What to show.
        lang: ``en`` or ``zh``.
        other: File name of the other language's page beside this one; None where there is none.

    Raises:
        InputError: matplotlib, which draws the charts, is not installed.
    """
    template = environment().get_template("assess.html.j2")
    return template.render(**_view(assessment, lang), other=other)


def _view(a: Assessment, lang: str) -> dict[str, Any]:
    level = percent(a.level)
    return {
        "a": a,
        "lang": lang,
        "html_lang": "zh-CN" if lang == "zh" else "en",
        "level": level,
        "css": resource("style.css"),
        "t": functools.partial(_text, lang),
        "title": _title(a, lang),
        "question": _question(a, lang),
        "site": _site(a, lang),
        "sections": sections_of(a),
        "serving": _serving(a, lang),
        "mixed": mixes.table(a, lang) if a.mixed else None,
        "proofs": proofs.section(a, lang) if a.proofs else None,
        "comma": messages.text("assess.label.comma", lang),
        "conclusion": conclude(a, lang),
        "charts": charts(a, lang),
        "risks": headings(a, lang),
        "cite": citation,
        "quantified": tables.quantified(a, lang),
        "costs": tables.costs(a, lang),
        "passes": tables.passes(a, lang),
        "chips": tables.chips(a, lang),
        "links": tables.links(a, lang),
        "plans": tables.plans(a, lang),
        "coverage": tables.coverage(a, lang),
        "evidence": evidence.index(a, lang),
        "basis": _basis(a, lang),
        "glossary": [(word(f"glossary.{name}", lang, level=level), word(f"glossary.{name}_text", lang, level=level)) for name in GLOSSARY],
        "flops": f"{a.asked.model_flops:.3g}",
        "money": _money_terms(),
        "notes": (*a.asked.unpriced, *(said(note, lang) for note in a.asked.notes)),
    }


def _serving(a: Assessment, lang: str) -> dict[str, Any] | None:
    """Tables and chart of the serving section."""
    found = a.serving
    if found is None:
        return None
    return {
        "note": serving.note(found, lang),
        "figures": serving.figures(found, lang),
        "costs": serving.costs(found, lang),
        "chart": frontier.chart([option.frontier for option in serving.ordered(found) if option.frontier], lang),
    }


def _basis(a: Assessment, lang: str) -> list[tuple[int | str, str, list[tuple[str, str]]]]:
    """(anchor, option, numbers) of the facts under each option's figures."""
    rows: list[tuple[int | str, str, list[tuple[str, str]]]] = [
        (at, option.label, citation(option.evidence)) for at, option in enumerate(a.options)
    ]
    for option in a.serving.options if a.serving else ():
        if option.answer is not None and a.serving is not None:
            label = word("serve.basis", lang, option=option.label)
            rows.append((serving.basis_of(a.serving, option), label, citation(option.evidence)))
    return rows


def _money_terms() -> dict[str, str]:
    """The constants behind energy and cost, so that the page states those that were used."""
    low, usual, high = (percent(share) for share in money.DRAW)
    return {
        "draw": usual,
        "draw_low": low,
        "draw_high": high,
        "years": f"{money.YEARS:g}",
        "busy": percent(money.BUSY),
        "spread": f"{money.PRICE_SPREAD:g}",
    }


def _text(lang: str, code: str, **values: object) -> str:
    return word(code, lang, **values)


def _title(a: Assessment, lang: str) -> str:
    trained_on = amount(a.asked.tokens, samples=a.asked.counts_samples, lang=lang)
    return word("title", lang, model=a.asked.model, amount=trained_on, options=len(a.options) - 1, reference=a.reference.label)


def _question(a: Assessment, lang: str) -> str:
    asked = a.asked
    return word(
        "question",
        lang,
        params=count(asked.params),
        active=count(asked.active_params),
        seq=f"{asked.seq_len:,}",
        batch=f"{asked.global_batch:,}",
        how=messages.text("assess.line.batch_given" if asked.batch_given else "assess.line.batch_ours", lang),
        precision=asked.precision,
        optimizer=asked.optimizer,
        finetune=word(f"finetune.{asked.finetune}", lang, rank=asked.lora_rank),
        steps=number(asked.steps),
        plan=asked.plan if asked.plan else word("plan.auto", lang),
    )


def _site(a: Assessment, lang: str) -> str:
    if a.asked.power_price is None and a.asked.pue is None:
        return ""
    return word("site", lang, price=fact_value(a.asked.power_price, lang), pue=fact_value(a.asked.pue, lang))
