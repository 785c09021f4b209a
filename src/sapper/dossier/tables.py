"""The tables of options: figures, checks, chips, links, plans, coverage."""

from __future__ import annotations

import msgspec

from sapper import messages, units
from sapper.assess.assessment import Assessment, ChipView, LinkView, Option, WhatIf
from sapper.assess.conclude import basis_text, job_scale_s
from sapper.assess.text import TIMES, count, energy_scale, factor, money_scale, number, percent, plan_text
from sapper.chips.schema import Price
from sapper.dossier.cells import Cell, Table, date_text, head, interval, of_fact, unknown, word, words
from sapper.evidence import Interval
from sapper.evidence.fact import letter

GIB = 2.0**30


def quantified(a: Assessment, lang: str) -> Table:
    """All options with their figures; a refused one says what is missing."""
    job_factor, job_unit = job_scale_s(a)
    site = any(o.at_meter for o in a.options)
    energy = energy_scale([e.mid for o in a.options if (e := _energy(o))])
    header = [
        word("column.option", lang),
        word("column.job", lang, unit=messages.text(f"assess.unit.{job_unit}", lang)),
        word("column.time_ratio", lang),
        word("column.samples" if any(o.estimate and o.estimate.counts_samples for o in a.options) else "column.tokens", lang),
        word("column.mfu", lang),
        word("column.memory", lang),
        word("column.site_energy" if site else "column.energy", lang, unit=energy.name(lang)),
        word("column.energy_ratio", lang),
        word("column.comm", lang),
    ]
    rows: list[tuple[Cell, ...]] = []
    classes = []
    for at in (*a.ranking, *a.unanswered):
        option = a.options[at]
        first = head(option.label, _second_name(option, lang), id=f"option-{at}")
        if option.estimate is None:
            rows.append((first, Cell(text=_no_answer(option, lang), kind="refusal", span=len(header) - 1)))
            classes.append("refused")
            continue
        rows.append((first, *_figures(option, lang, job_factor=job_factor, energy_factor=energy.factor, site=site, basis=f"#basis-{at}")))
        classes.append("reference" if option.is_reference else "")
    return Table(name="options", header=tuple(header), rows=tuple(rows), classes=tuple(classes))


def _figures(option: Option, lang: str, *, job_factor: float, energy_factor: float, site: bool, basis: str) -> list[Cell]:
    estimate = option.estimate
    assert estimate is not None
    peak, capacity = estimate.memory.peak, estimate.memory.capacity_bytes
    memory = interval(peak, lang, factor=1 / GIB, href=basis)
    limit = word("word.of", lang, capacity=number(capacity / GIB) if capacity else word("word.unknown", lang))
    cells = [
        interval(estimate.job_time, lang, factor=job_factor, href=basis),
        interval(option.ratios.time, lang, places=2, href=basis, suffix=TIMES),
        _counted(estimate.tokens_per_s, basis),
        interval(estimate.mfu, lang, factor=100, href=basis, suffix="%"),
        Cell(text=memory.text, sub=f"{memory.sub} {limit}", grade=memory.grade, href=basis),
        _energy_cell(option, lang, factor=energy_factor, site=site, href=basis),
        interval(option.ratios.energy, lang, places=2, href=basis, suffix=TIMES),
    ]
    share = option.comm_share
    cells.append(Cell(text=percent(share), grade=letter(estimate.grade), href=basis) if share is not None else unknown(lang))
    return cells


def _counted(value: Interval, href: str) -> Cell:
    mid, low, high = (count(number, exact=False) for number in (value.mid, value.low, value.high))
    return Cell(text=mid, sub=f"{low}\N{EN DASH}{high}", grade=letter(value.grade), href=href)


def costs(a: Assessment, lang: str) -> Table | None:
    """The cost of the job by currency and basis, a column each; None where no price is known at all."""
    bases = sorted({basis for o in a.options if o.estimate for basis in o.estimate.cost})
    if not bases:
        return None
    scales = {basis: money_scale([cost.mid for o in a.options if (cost := _cost(o, basis))]) for basis in bases}
    header = [word("column.option", lang)]
    for basis in bases:
        unit = word(f"money.{scales[basis].key}", lang, currency=messages.text(f"assess.currency.{basis.partition(' ')[0]}", lang))
        header.append(f"{basis_text(basis, lang)}\n{unit}")
    rows = []
    for at in (*a.ranking, *a.unanswered):
        option = a.options[at]
        cells = []
        for basis in bases:
            cell = interval(_cost(option, basis), lang, factor=scales[basis].factor, href=f"#basis-{at}")
            against = option.ratios.cost.get(basis)
            cells.append(msgspec.structs.replace(cell, extra=factor(against)) if against and not option.is_reference else cell)
        rows.append((head(option.label), *cells))
    return Table(name="costs", header=tuple(header), rows=tuple(rows), classes=_classes(a))


def passes(a: Assessment, lang: str) -> Table:
    """Pass-type items, an option a row."""
    codes = [check.code for check in a.options[0].checks]
    header = (word("column.option", lang), *(word(f"check.{code}", lang) for code in codes))
    rows = tuple(
        (head(a.options[at].label), *(Cell(text=word(f"word.{check.outcome}", lang), kind=check.outcome) for check in a.options[at].checks))
        for at in (*a.ranking, *a.unanswered)
    )
    return Table(name="checks", header=header, rows=rows, classes=_classes(a))


def chips(a: Assessment, lang: str) -> Table:
    """What the catalogue states of each option's chip, refused ones included."""
    names = ("option", "peak", "capacity", "bandwidth", "link", "power", "tpp", "price", "software")
    rows = []
    for at in (*a.ranking, *a.unanswered):
        option = a.options[at]
        chip, cited = option.chip, option.figure_evidence
        link = next((link for link in option.links if link.level == "scale-up"), None)
        rows.append(
            (
                head(option.label, _vendor(chip, lang)),
                of_fact(chip.peak_flops_per_s, lang, numbers=cited.get("peak", ()), sub=chip.precision),
                of_fact(chip.memory_bytes, lang, numbers=cited.get("memory", ())),
                of_fact(chip.bandwidth_bytes_per_s, lang, numbers=cited.get("bandwidth", ())),
                _link(link, lang, named=True),
                of_fact(chip.tdp_w, lang, numbers=cited.get("power", ())),
                _tpp(chip, lang),
                _prices(chip, lang, cited.get("price", ())),
                _software(chip, lang),
            )
        )
    return Table(name="chips", header=tuple(word(f"column.{name}", lang) for name in names), rows=tuple(rows), classes=_classes(a))


def links(a: Assessment, lang: str) -> Table:
    """What replaces NVLink."""
    names = ("option", "inside", "link_bandwidth", "latency", "domain", "outside", "comm", "comm_ratio", "what_if")
    rows = []
    for at in (*a.ranking, *a.unanswered):
        option = a.options[at]
        up, out = (next((link for link in option.links if link.level == level), None) for level in ("scale-up", "scale-out"))
        share, ratio, changed = option.comm_share, option.ratios.comm_share, option.what_if[:1]
        rows.append(
            (
                head(option.label),
                words(_link_name(up, lang), _topology(up, lang)) if up else unknown(lang),
                _link(up, lang),
                of_fact(up.latency_s if up else None, lang, numbers=up.evidence[-1:] if up else ()),
                Cell(text=f"{up.domain_size:,}") if up and up.domain_size else unknown(lang),
                _link(out, lang, named=True),
                Cell(text=percent(share)) if share is not None else unknown(lang),
                Cell(text=f"{ratio:.2f}{TIMES}") if ratio is not None else unknown(lang),
                _what_if(changed[0], lang) if changed else Cell(text="\N{EN DASH}"),
            )
        )
    return Table(name="links", header=tuple(word(f"column.{name}", lang) for name in names), rows=tuple(rows), classes=_classes(a))


def plans(a: Assessment, lang: str) -> Table:
    """The plan of each option and its runners-up with the reason why they lose."""
    names = ("option", "plan", "searched", "step", "peak_gib", "reason")
    rows, classes = [], []
    for at in a.ranking:
        option, estimate = a.options[at], a.options[at].estimate
        if estimate is None:
            continue
        searched = f"{option.fitting:,} / {option.plans:,}" if option.plans is not None and option.fitting is not None else "\N{EN DASH}"
        why = word("word.given", lang) if a.asked.plan else word("word.alone", lang) if option.fitting == 1 else ""
        rows.append(
            (
                head(option.label),
                Cell(text=plan_text(estimate.plan), kind="code"),
                Cell(text=searched),
                Cell(text=units.duration(estimate.step_time.mid)),
                Cell(text=number(estimate.memory.peak.mid / GIB)),
                words(why),
            )
        )
        classes.append("chosen")
        for runner in option.runners:
            rows.append(
                (
                    words(""),
                    Cell(text=plan_text(runner.plan), kind="code"),
                    words(""),
                    Cell(text=units.duration(runner.step_time_s)),
                    Cell(text=number(runner.memory_bytes / GIB)),
                    words(runner.reason.get(lang, "")),
                )
            )
            classes.append("runner")
    return Table(name="plans", header=tuple(word(f"column.{name}", lang) for name in names), rows=tuple(rows), classes=tuple(classes))


def coverage(a: Assessment, lang: str) -> Table:
    """What was priced, what was not, and what to measure next."""
    names = ("option", "ops", "flops_share", "bytes_share", "unpriced", "narrowing")
    rows = []
    for at in a.ranking:
        option, estimate = a.options[at], a.options[at].estimate
        if estimate is None:
            continue
        covered, narrow = estimate.coverage, estimate.narrowing
        width = word("word.width", lang, now=percent(narrow.width_now), then=percent(narrow.width_then)) if narrow else ""
        rows.append(
            (
                head(option.label),
                Cell(text=f"{covered.ops_priced:,} / {covered.ops:,}"),
                Cell(text=word("word.unknown", lang) if covered.flops_share is None else percent(covered.flops_share)),
                Cell(text=percent(covered.bytes_share)),
                words(", ".join(covered.unpriced) or word("word.none", lang)),
                words(_measurement(narrow.what, lang), width) if narrow else words(word("word.none", lang)),
            )
        )
    return Table(name="coverage", header=tuple(word(f"column.{name}", lang) for name in names), rows=tuple(rows))


def _classes(a: Assessment) -> tuple[str, ...]:
    return tuple(
        "reference" if a.options[at].is_reference else "refused" if a.options[at].estimate is None else ""
        for at in (*a.ranking, *a.unanswered)
    )


def _energy(option: Option) -> Interval | None:
    return option.estimate.job_energy if option.estimate else None


def _energy_cell(option: Option, lang: str, *, factor: float, site: bool, href: str) -> Cell:
    """Energy; under a heading of the meter it says where an option's site has no PUE and the chips' alone stands."""
    cell = interval(_energy(option), lang, factor=factor, href=href)
    alone = site and not option.at_meter and cell.kind == "num"
    return msgspec.structs.replace(cell, extra=word("word.chips_alone", lang)) if alone else cell


def _cost(option: Option, basis: str) -> Interval | None:
    return option.estimate.cost.get(basis) if option.estimate else None


def _measurement(what: str, lang: str) -> str:
    return messages.text(f"measure.{what}", lang) if messages.known(f"measure.{what}") else what


def _second_name(option: Option, lang: str) -> str:
    return " \N{MIDDLE DOT} ".join([_vendor(option.chip, lang)] + [word("word.reference", lang)] * option.is_reference)


def _vendor(chip: ChipView, lang: str) -> str:
    return chip.vendor_zh if lang == "zh" and chip.vendor_zh else chip.vendor


def _no_answer(option: Option, lang: str) -> str:
    where = option.refusal.values.get("where") if option.refusal else None
    parts = [word("word.no_answer", lang), option.why.get(lang, "")]
    if where:
        parts.append(word("word.missing_field", lang, field=where))
    if option.remedy.get(lang):
        parts.append(word("word.remedy", lang, step=option.remedy[lang]))
    return "\n".join(part for part in parts if part)


def _what_if(what: WhatIf, lang: str) -> Cell:
    return Cell(text=f"{what.factor:.2f}{TIMES}", sub=word(f"whatif.{what.code}", lang, link=_link_name(what.link, lang)))


def _link_name(link: LinkView, lang: str) -> str:
    return messages.Foreign("dossier.link", link.name).render(lang)


def _link(link: LinkView | None, lang: str, *, named: bool = False) -> Cell:
    return of_fact(
        link.bandwidth_bytes_per_s if link else None,
        lang,
        numbers=link.evidence[:1] if link else (),
        sub=_link_name(link, lang) if link and named else "",
    )


def _topology(link: LinkView, lang: str) -> str:
    code = f"dossier.topology.{link.topology}"
    return messages.text(code, lang) if messages.known(code) else link.topology


def _prices(chip: ChipView, lang: str, numbers: tuple[int, ...]) -> Cell:
    if not chip.prices:
        return unknown(lang)
    parts = tuple(_price(price, lang, f"#e{number}") for price, number in zip(chip.prices, numbers, strict=False))
    return Cell(text="", parts=parts)


def _price(price: Price, lang: str, href: str) -> Cell:
    amount = price.amount.number
    if amount is None:
        return unknown(lang)
    currency = messages.text(f"assess.currency.{price.currency.partition('/')[0]}", lang)
    if price.per_hour:
        text = word("word.per_hour", lang, amount=number(amount), currency=currency)
    else:
        scale = money_scale([amount])
        unit = word(f"money.{scale.key}", lang, currency=currency)
        text = number(amount * scale.factor) + (f" {TIMES} " if unit[0].isdigit() else " ") + unit
    aside = [date_text(price.amount.date, lang), word(f"tax.{price.tax}", lang), price.quantity or ""]
    return Cell(
        text=text,
        sub=messages.text("assess.label.comma", lang).join(part for part in aside if part),
        grade=letter(price.amount.grade),
        href=href,
    )


def _tpp(chip: ChipView, lang: str) -> Cell:
    if chip.tpp is None:
        return unknown(lang)
    return Cell(text=f"{chip.tpp:,.0f}", sub=f"{chip.tpp_per_mm2:.2f}" if chip.tpp_per_mm2 is not None else word("word.unknown", lang))


def _software(chip: ChipView, lang: str) -> Cell:
    if chip.software is None or chip.software.stack is None:
        return unknown(lang)
    return words(chip.software.stack, chip.software.collective or "")
