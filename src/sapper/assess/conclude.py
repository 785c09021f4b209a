"""The conclusion in words that a buyer understands, from the numbers of the Assessment alone."""

from __future__ import annotations

import msgspec

from sapper import messages
from sapper.assess.assessment import Assessment, Option
from sapper.assess.conclude_serve import serving_sentence
from sapper.assess.ratio import tells_apart
from sapper.assess.text import TIMES, amount, badge, count, energy_scale, number, percent, ranged, say, time_scale
from sapper.assess.text import factor as factor_text
from sapper.evidence import Interval


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One option inside a group of the conclusion."""

    position: int
    label: str
    ratio: str
    time: str
    letter: str
    note: str = ""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Options that the answer treats alike: faster, same, slower, none."""

    code: str
    title: str
    lines: tuple[Line, ...]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence that the numbers support."""

    code: str
    text: str


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """Head sentence, groups of options, and findings, in one language."""

    head: str
    groups: tuple[Group, ...]
    findings: tuple[Finding, ...]


def conclude(assessment: Assessment, lang: str | None = None) -> Conclusion:
    """The conclusion of ``assessment`` in ``lang``."""
    return Conclusion(head=_head(assessment, lang), groups=_groups(assessment, lang), findings=tuple(_findings(assessment, lang)))


def job_scale_s(assessment: Assessment) -> tuple[float, str]:
    """Factor and label key of the unit of all job times of this assessment."""
    scale = time_scale([o.estimate.job_time.mid for o in assessment.options if o.estimate and o.estimate.job_time])
    return scale.factor, scale.key


def _head(a: Assessment, lang: str | None) -> str:
    values = {
        "model": a.asked.model,
        "params": count(a.asked.params),
        "amount": amount(a.asked.tokens, samples=a.asked.counts_samples, lang=lang),
        "reference": a.reference.label,
    }
    job = a.reference.estimate.job_time if a.reference.estimate else None
    if job is None:
        why = a.reference.why.get(lang or messages.language(), "")
        return messages.text("assess.conclude.no_reference", lang, why=why, **values)
    factor, key = job_scale_s(a)
    return messages.text(
        "assess.conclude.head",
        lang,
        time=ranged(job, factor),
        unit=messages.text(f"assess.unit.{key}", lang),
        letter=badge(job),
        level=percent(job.level),
        **values,
    )


def _groups(a: Assessment, lang: str | None) -> tuple[Group, ...]:
    factor, key = job_scale_s(a)
    unit = messages.text(f"assess.unit.{key}", lang)
    sorted_in: dict[str, list[Line]] = {"faster": [], "same": [], "slower": [], "alone": [], "none": []}
    for at in a.ranking:
        option = a.options[at]
        if option.is_reference or option.estimate is None or option.estimate.job_time is None:
            continue
        job, against = option.estimate.job_time, option.ratios.time
        kind = "alone" if against is None else "same" if not tells_apart(against) else "faster" if against.mid < 1 else "slower"
        sorted_in[kind].append(
            Line(
                position=at,
                label=option.label,
                ratio=factor_text(against) if against else "",
                time=f"{ranged(job, factor)} {unit}",
                letter=badge(job),
            )
        )
    for at in a.unanswered:
        option = a.options[at]
        if option.refusal is not None and not option.is_reference:
            note = option.why.get(lang or messages.language(), "")
            sorted_in["none"].append(Line(position=at, label=option.label, ratio="", time="", letter="", note=note))
    return tuple(
        Group(code=code, title=messages.text(f"assess.conclude.{code}", lang), lines=tuple(lines))
        for code, lines in sorted_in.items()
        if lines
    )


def _findings(a: Assessment, lang: str | None) -> list[Finding]:
    made = {
        "host-link": _no_scale_up(a, lang),
        "link": _worst_link(a, lang),
        "energy": _least_energy(a, lang),
        "cost": _cheapest(a, lang),
        "memory": _memory(a, lang),
        "licence": _licences(a, lang),
        "serving": None if a.serving is None else serving_sentence(a.serving, lang),
    }
    return [Finding(code=code, text=text) for code, text in made.items() if text]


def _least_energy(a: Assessment, lang: str | None) -> str | None:
    known = [(energy, o) for o in a.options if (energy := o.estimate.job_energy if o.estimate else None)]
    if len(known) < 2:
        return None
    energy, option = min(known, key=lambda pair: pair[0].mid)
    scale = energy_scale([energy.mid for energy, _ in known])
    code = "assess.conclude.energy_site" if option.at_meter else "assess.conclude.energy"
    return messages.text(
        code,
        lang,
        option=option.label,
        energy=ranged(energy, scale.factor),
        unit=scale.name(lang),
        letter=badge(energy),
        known=len(known),
        of=len(a.options),
        against=_against(option.ratios.energy, option, lang),
    )


def _cheapest(a: Assessment, lang: str | None) -> str | None:
    """The cheapest by each kind of price that two options share; electricity follows energy and is left to the table."""
    found = []
    for basis in sorted({basis for o in a.options if o.estimate for basis in o.estimate.cost}):
        known = [(o.estimate.cost[basis], o) for o in a.options if o.estimate and basis in o.estimate.cost]
        if len(known) < 2 or basis.endswith(" energy"):
            continue
        cost, option = min(known, key=lambda pair: pair[0].mid)
        values = {"option": option.label, "cost": money(cost, lang), "letter": badge(cost), "known": len(known), "of": len(a.options)}
        found.append(messages.text("assess.conclude.cost_item", lang, basis=basis_text(basis, lang), **values))
    return messages.text("assess.conclude.cost", lang, items=messages.text("assess.label.semicolon", lang).join(found)) if found else None


def _no_scale_up(a: Assessment, lang: str | None) -> str | None:
    for changed in a.reference.what_if:
        if changed.code == "host-link":
            own = next((link.name for link in a.reference.links if link.level == "scale-up"), "?")
            return messages.text(
                "assess.conclude.host_link",
                lang,
                option=a.reference.label,
                link=own,
                host=changed.link.name,
                factor=number(changed.factor) + TIMES,
            )
    return None


def _worst_link(a: Assessment, lang: str | None) -> str | None:
    gains = [
        (changed.factor, option)
        for option in a.options
        for changed in option.what_if
        if changed.code == "reference-link" and not option.is_reference
    ]
    if not gains:
        return None
    factor, option = min(gains, key=lambda pair: pair[0])
    reference_link = next((link.name for link in a.reference.links if link.level == "scale-up"), "?")
    own = next((link.name for link in option.links if link.level == "scale-up"), "?")
    code = "assess.conclude.link_costs" if factor < 0.99 else "assess.conclude.link_costs_nothing"
    return messages.text(code, lang, option=option.label, link=own, reference_link=reference_link, saved=percent(1 - factor))


def _memory(a: Assessment, lang: str | None) -> str | None:
    tight = [o.label for o in a.options if any(r.code in ("memory-may-overflow", "memory-tight") for r in o.risks)]
    return messages.text("assess.conclude.memory", lang, options=_join(tight, lang)) if tight else None


def _licences(a: Assessment, lang: str | None) -> str | None:
    named = [o.label for o in a.options if any(r.code == "export" and r.severity == "high" for r in o.risks)]
    return messages.text("assess.conclude.licence", lang, options=_join(named, lang)) if named else None


def _against(against: Interval | None, option: Option, lang: str | None) -> str:
    if against is None or option.is_reference:
        return ""
    return messages.text("assess.conclude.against", lang, ratio=factor_text(against))


def basis_text(basis: str, lang: str | None = None) -> str:
    """``CNY cloud`` in words; a basis that has no text of its own is shown as it is."""
    currency, _, kind = basis.partition(" ")
    for code in (f"assess.basis.{kind.replace(' ', '_')}", f"assess.basis.{kind.partition(' ')[0]}"):
        if messages.known(code):
            return say(
                code, lang, currency=messages.text(f"assess.currency.{currency}", lang), term=kind.rpartition(" ")[2].removesuffix("y")
            )
    return basis


def money(cost: Interval, lang: str | None = None) -> str:
    """A cost with its interval, in tens of thousands from 10 000 up."""
    factor, key = (1e-4, "wan") if cost.mid >= 1e4 else (1.0, "one")
    return messages.text(
        f"assess.money.{key}", lang, amount=ranged(cost, factor), currency=messages.text(f"assess.currency.{cost.unit}", lang)
    )


def _join(labels: list[str], lang: str | None) -> str:
    return messages.text("assess.label.comma", lang).join(labels)
