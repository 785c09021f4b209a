"""Risks and pass-type checks of one option, each with the values and the facts that show it.

A risk is a code of the message catalogue (``risk.<name>.title``, ``.item``, ``.do``) with values; severity is ours.
Nothing here judges law: what sources say of export control is quoted with its date and weighed by the effect that the
catalogue records for it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

from sapper import units
from sapper.assess.assessment import Check, LinkView, Risk, Severity
from sapper.assess.index import Index
from sapper.assess.text import fact_value
from sapper.chips.derived import facts
from sapper.chips.schema import Chip
from sapper.evidence import GRADES, Fact, Grade
from sapper.evidence.fact import letter
from sapper.predict.estimate import Estimate

OLD_PRICE_MONTHS = 12
WIDE_INTERVAL = 2.0
"""high/low of the step time from which we call an estimate wide."""
TIGHT_HEADROOM = 0.10
_BY_EFFECT: dict[str, Severity] = {"licence-required": "high", "not-sold": "high", "below-threshold": "low", "not-us-item": "low"}
_COVERED = {"warn.no-matmul-record", "warn.assumed", "warn.tight-memory", "warn.does-not-fit"}
"""Remarks of the predictor that a risk of ours states with more particulars."""
_OWN_WORDS = {"warn.no-training-record": "no-training-record", "warn.no-stack": "software-unknown"}
"""Remarks that we put in words of our own, so that chips with the same one share a line."""
_OF_SITE = ("power price", "PUE")
"""Inputs of the user that hold for every option alike."""
_DATE = re.compile(r"(20\d\d)(?:-(0[1-9]|1[0-2])\b)?")


def risks(
    chip: Chip, estimate: Estimate | None, links: tuple[LinkView, ...], *, precision: str, as_of: str, index: Index
) -> tuple[Risk, ...]:
    """All risks of an option, gravest first."""
    found = [
        *_export(chip, index),
        *_software(chip),
        *_unmeasured(chip, estimate),
        *_dtype(chip, precision, index),
        *_conflicts(chip, precision, index),
        *_prices(chip, as_of, index),
        *_unknown(chip, links),
        *_unread(chip, precision, index),
    ]
    if estimate is not None:
        found += [*_memory(estimate), *_trust(estimate), *_assumed(chip, estimate, index), *_remarks(estimate)]
    order = ("high", "medium", "low")
    return tuple(sorted(found, key=lambda risk: order.index(risk.severity)))


def _export(chip: Chip, index: Index) -> Iterator[Risk]:
    for rule in chip.export_china:
        grade: Grade = "assumed" if rule.status == "unsourced" else "derived"
        fact = Fact(value=rule.rule, source=rule.source, date=rule.date, grade=grade, status=rule.status)
        yield Risk(
            code="export",
            severity=_BY_EFFECT.get(rule.effect, "medium"),
            values={"rule": rule.rule, "effect": rule.effect, "dates": ", ".join(rule.dates)},
            evidence=index.cite(chip.id, "export_china", fact),
        )


def _software(chip: Chip) -> Iterator[Risk]:
    software = chip.software
    if software is None or software.stack is None:
        yield Risk(code="software-unknown", severity="high")
    elif not (software.torch_device == "cuda" and software.collective == "NCCL"):
        yield Risk(
            code="software",
            severity="medium",
            values={"stack": software.stack, "device": software.torch_device or "?", "collective": software.collective or "?"},
        )


def _unmeasured(chip: Chip, estimate: Estimate | None) -> Iterator[Risk]:
    if not chip.measured:
        yield Risk(code="unmeasured", severity="high")
    elif not has_matmul_record(chip, estimate):
        yield Risk(code="unmeasured-matmul", severity="medium")


def has_matmul_record(chip: Chip, estimate: Estimate | None) -> bool:
    """Whether the efficiency of matrix products rests on a record of this very chip."""
    if estimate is not None:
        return not any(warning.code == "warn.no-matmul-record" for warning in estimate.warnings)
    return any(record.metric in ("matmul", "gemm", "matmul_mamf") for record in chip.measured)


def _dtype(chip: Chip, precision: str, index: Index) -> Iterator[Risk]:
    peak, wider = chip.peak_flops_per_s.get(precision), chip.peak_flops_per_s.get("bf16") or chip.peak_flops_per_s.get("fp16")
    if peak is None or peak.number is None:
        known = sorted(dtype for dtype, fact in chip.peak_flops_per_s.items() if fact.number is not None)
        code = "dtype-withheld" if peak is not None and peak.withheld else "dtype-unknown"
        yield Risk(code=code, severity="high", values={"precision": precision, "known": ", ".join(known) or "-"})
    elif precision in ("fp8", "int8", "fp4") and wider is not None and wider.number and peak.number <= 1.1 * wider.number:
        numbers = index.cite(chip.id, f"peak_flops_per_s.{precision}", peak)
        yield Risk(code="dtype-no-gain", severity="medium", values={"precision": precision}, evidence=numbers)


def _conflicts(chip: Chip, precision: str, index: Index) -> Iterator[Risk]:
    ours = dict(facts(chip))
    for conflict in chip.conflicts:
        field = conflict.field.lower()
        matters = precision in field or any(word in field for word in ("memory", "bandwidth", "scale_up", "tdp"))
        if not matters or not conflict.values:
            continue
        own = ours.get(conflict.field)
        every = ([own] if own is not None and own not in conflict.values else []) + list(conflict.values)
        numbers = tuple(number for fact in every for number in index.cite(chip.id, conflict.field, fact))
        shown = " / ".join(fact_value(fact, "en") for fact in every)
        yield Risk(code="conflict", severity="medium", values={"field": conflict.field, "shown": shown}, evidence=numbers)


def _prices(chip: Chip, as_of: str, index: Index) -> Iterator[Risk]:
    if not chip.price:
        yield Risk(code="price-none", severity="medium")
    for price in chip.price:
        numbers = index.cite(chip.id, "price", price.amount)
        basis = f"{price.currency}/h" if price.per_hour else price.currency
        months = age_months(price.amount.date, as_of)
        if months is None:
            yield Risk(code="price-undated", severity="medium", values={"basis": basis}, evidence=numbers)
        elif months >= OLD_PRICE_MONTHS:
            yield Risk(
                code="price-old",
                severity="medium",
                values={"basis": basis, "date": price.amount.date or "", "months": str(months)},
                evidence=numbers,
            )
        if price.tax == "unknown":
            yield Risk(code="tax-unknown", severity="low", values={"basis": basis}, evidence=numbers)


def _unknown(chip: Chip, links: tuple[LinkView, ...]) -> Iterator[Risk]:
    values = {
        "memory.capacity_bytes": chip.memory.capacity_bytes,
        "memory.usable_bytes": chip.memory.usable_bytes,
        "memory.bandwidth_bytes_per_s": chip.memory.bandwidth_bytes_per_s,
        "tdp_w": chip.tdp_w,
        **{f"{link.level.replace('-', '_')}.bandwidth_bytes_per_s": link.bandwidth_bytes_per_s for link in links},
    }
    for level in ("scale-up", "scale-out"):
        if not any(link.level == level for link in links):
            values[level.replace("-", "_")] = None
    missing = [field for field, fact in values.items() if fact is None or (fact.number is None and not fact.withheld)]
    withheld = [field for field, fact in values.items() if fact is not None and fact.withheld]
    if missing:
        yield Risk(
            code="unknown", severity="medium" if missing != ["memory.usable_bytes"] else "low", values={"fields": ", ".join(missing)}
        )
    if withheld:
        yield Risk(code="withheld", severity="high", values={"fields": ", ".join(withheld)})


def _unread(chip: Chip, precision: str, index: Index) -> Iterator[Risk]:
    facts = {
        f"peak_flops_per_s.{precision}": chip.peak_flops_per_s.get(precision),
        "memory.capacity_bytes": chip.memory.capacity_bytes,
        "memory.bandwidth_bytes_per_s": chip.memory.bandwidth_bytes_per_s,
    }
    unread = {field: fact for field, fact in facts.items() if fact is not None and fact.number is not None and not fact.source_read}
    if unread:
        numbers = tuple(number for field, fact in unread.items() for number in index.cite(chip.id, field, fact))
        yield Risk(code="unread", severity="low", values={"fields": ", ".join(unread)}, evidence=numbers)


def _memory(estimate: Estimate) -> Iterator[Risk]:
    capacity = estimate.memory.capacity_bytes
    if capacity is None:
        return
    peak = estimate.memory.peak
    values = {"peak": units.gib(peak.mid), "high": units.gib(peak.high), "capacity": units.gib(capacity)}
    if peak.high > capacity:
        yield Risk(code="memory-may-overflow", severity="high", values=values)
    elif peak.mid > (1 - TIGHT_HEADROOM) * capacity:
        yield Risk(code="memory-tight", severity="medium", values=values)


def _trust(estimate: Estimate) -> Iterator[Risk]:
    step = estimate.step_time
    if GRADES.index(estimate.grade) >= GRADES.index("derived"):
        yield Risk(code="grade", severity="medium", values={"letter": letter(estimate.grade)})
    if step.high / step.low >= WIDE_INTERVAL:
        yield Risk(code="wide", severity="medium", values={"factor": f"{step.high / step.low:.1f}"})


def _assumed(chip: Chip, estimate: Estimate, index: Index) -> Iterator[Risk]:
    assumed = [used for used in estimate.used if used.fact.grade == "assumed" and used.key not in _OF_SITE]
    if assumed:
        numbers = tuple(number for used in assumed for number in index.cite(chip.id, used.key, used.fact))
        keys = "; ".join(used.key for used in assumed)
        yield Risk(code="assumed", severity="medium", values={"keys": keys, "chip": chip.id}, evidence=numbers)


def _remarks(estimate: Estimate) -> Iterator[Risk]:
    for warning in estimate.warnings:
        if warning.code in _OWN_WORDS:
            yield Risk(code=_OWN_WORDS[warning.code], severity="medium")
        elif warning.code not in _COVERED:
            yield Risk(code=warning.code, severity="medium", values=dict(warning.values))


def checks(chip: Chip, estimate: Estimate | None, links: tuple[LinkView, ...], *, precision: str, no_fit: bool) -> tuple[Check, ...]:
    """Pass-type checks of an option. Absence of knowledge is ``unknown``, never ``fail``."""
    peak = chip.peak_flops_per_s.get(precision)
    up = [link.bandwidth_bytes_per_s for link in links if link.level == "scale-up"]
    fits = estimate.memory.fits if estimate is not None else (False if no_fit else None)
    priced = estimate is not None and min(estimate.coverage.flops_share or 0.0, estimate.coverage.bytes_share) >= 0.95
    return (
        Check(code="dtype", outcome="pass" if peak is not None and peak.number is not None else "unknown"),
        Check(code="memory", outcome="unknown" if fits is None else "pass" if fits else "fail"),
        Check(code="link", outcome="pass" if up and all(_stated(fact) for fact in up) else "unknown"),
        Check(code="measured", outcome="pass" if has_matmul_record(chip, estimate) else "unknown"),
        Check(code="power", outcome="pass" if chip.tdp_w is not None and chip.tdp_w.number is not None else "unknown"),
        Check(code="priced", outcome="pass" if priced else "unknown" if estimate is None else "fail"),
    )


def _stated(fact: Fact | None) -> bool:
    return fact is not None and fact.number is not None and fact.grade != "assumed"


def age_months(date: str | None, as_of: str) -> int | None:
    """Whole months from ``date`` (``2024``, ``2023-05``, ``2026-07 snapshot``) to ``as_of``, at least; None where undated.

    A year alone is taken as its December, so that the age is never overstated.
    """
    match = _DATE.search(date or "")
    if not match:
        return None
    now = datetime.date.fromisoformat(as_of)
    return max(0, (now.year - int(match[1])) * 12 + now.month - int(match[2] or 12))
