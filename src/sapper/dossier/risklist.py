"""The risk list: like risks of several options under one heading, gravest first."""

from __future__ import annotations

import msgspec

from sapper import messages
from sapper.assess import proof_checks
from sapper.assess.assessment import SEVERITIES, Assessment, Option, Risk
from sapper.assess.index import ranges
from sapper.assess.text import say
from sapper.dossier.cells import key_words, word


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Options that meet a risk with the same particulars."""

    options: tuple[str, ...]
    detail: str
    quoted: bool
    """The detail is in the source's own words and was not translated."""
    evidence: tuple[int, ...]


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of risk with all its places."""

    code: str
    severity: str
    severity_text: str
    title: str
    todo: str
    places: tuple[Place, ...]


def headings(a: Assessment, lang: str) -> tuple[Heading, ...]:
    """All risks of all options, by kind."""
    found: dict[tuple[str, str], list[tuple[Option, Risk]]] = {}
    for option in a.options:
        for risk in option.risks:
            found.setdefault((risk.severity, risk.code), []).append((option, risk))
    order = sorted(found, key=lambda key: (SEVERITIES.index(key[0]), -len(found[key]), key[1]))
    return tuple(_heading(code, severity, found[severity, code], a, lang) for severity, code in order)


def _heading(code: str, severity: str, cases: list[tuple[Option, Risk]], a: Assessment, lang: str) -> Heading:
    known = messages.known(f"dossier.risk.{code}.title")
    return Heading(
        code=code,
        severity=severity,
        severity_text=word(f"severity.{severity}", lang),
        title=word(f"risk.{code}.title", lang) if known else word("risk.remark.title", lang),
        todo=word(f"risk.{code}.do", lang) if known else "",
        places=_places(code, known, cases, a, lang),
    )


def _places(code: str, known: bool, cases: list[tuple[Option, Risk]], a: Assessment, lang: str) -> tuple[Place, ...]:
    merged: dict[tuple[str, bool], list[tuple[Option, Risk]]] = {}
    for option, risk in cases:
        merged.setdefault(_detail(code, known, risk, lang), []).append((option, risk))
    places = []
    for (detail, quoted), group in merged.items():
        labels = list(dict.fromkeys(option.label for option, _ in group))
        everyone = len(labels) == len(a.options)
        shown = (word("word.all_options", lang, count=len(labels)),) if everyone else tuple(labels)
        numbers = tuple(sorted({number for _, risk in group for number in risk.evidence}))
        places.append(Place(options=shown, detail=detail, quoted=quoted, evidence=numbers))
    return tuple(places)


def _detail(code: str, known: bool, risk: Risk, lang: str) -> tuple[str, bool]:
    if not known:
        return say(code, lang, **risk.values), False
    if code == "export":
        rule = risk.values["rule"]
        shown = messages.Foreign("dossier.quote", rule).render(lang)
        return shown, lang != "en" and shown == rule
    if not messages.known(f"dossier.risk.{code}.item"):
        return "", False
    values = proof_checks.spoken(risk.values, lang) if code.startswith("proof-") else dict(risk.values)
    if "fields" in values:
        names = (key_words(field, lang)[0] for field in values["fields"].split(", "))
        values["fields"] = messages.text("assess.label.comma", lang).join(names)
    if "keys" in values:
        names = (
            messages.Foreign("dossier.constant", key.removeprefix(f"{values['chip']} ")).render(lang) for key in values["keys"].split("; ")
        )
        values["keys"] = messages.text("assess.label.comma", lang).join(names)
    return word(f"risk.{code}.item", lang, **values), False


def citation(numbers: tuple[int, ...]) -> list[tuple[str, str]]:
    """Numbers as links: ``[("12-15", "#e12"), ("20", "#e20")]``."""
    return [(f"{low}" if low == high else f"{low}\N{EN DASH}{high}", f"#e{low}") for low, high in ranges(numbers)]
