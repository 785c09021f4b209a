"""Scores of predictions against measurements: signed errors, coverage and width of the intervals, by group."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from sapper.predict.rows.question import Question
from sapper.predict.rows.row import Refused, Row


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction in the row's own metric and unit, with its interval."""

    mid: float
    low: float
    high: float


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a report. ``predicted`` is None where the row could not be answered, and ``reason`` says why."""

    id: str
    source: str
    family: str
    vendor: str | None
    chip: str | None
    """Catalogue id; None where the chip itself is unknown."""
    confidence: str
    metric: str
    """As scored: time_to_train of MLPerf becomes samples_per_s."""
    unit: str
    measured: float
    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    error: float | None = None
    """predicted / measured - 1."""
    optimism: float | None = None
    """The same with one sign for all metrics: positive where the prediction is faster (or smaller) than the measurement."""
    inside: bool | None = None
    """Whether the interval holds the measured value."""
    impossible: bool = False
    """Whether the measured value lies beyond the hardware (:mod:`sapper.predict.claims`): no error of it says anything about us."""
    in_training: bool = False
    """Whether the prior was fitted on a row of this id."""
    code: str | None = None
    field: str | None = None
    """The missing field of a row without an answer."""
    reason: str | None = None
    assumptions: tuple[str, ...] = ()
    """What the row does not say and a rule supplied."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of a set of rows. Fractions, not per cent; None where no row was answered.

    Rows marked ``impossible`` are counted and answered, but in no error: nothing can be right about them.
    """

    n: int
    answered: int
    impossible: int = 0
    """Of the answered rows."""
    answered_share: float | None
    mean_abs: float | None
    mean_abs_all: float | None = None
    """The same with the rows beyond the hardware counted."""
    median_abs: float | None
    max_abs: float | None
    bias: float | None
    """Median of ``optimism``: positive where predictions are too fast (or too small)."""
    coverage: float | None
    """Share of answered rows whose interval holds the measured value."""
    width: float | None
    """Median of high / low - 1."""
    worst: str | None
    """Id of the row with the greatest error."""


def score(case: Question, answer: Answer | Refused, *, in_training: bool, impossible: bool = False) -> Scored:
    """The line of a case in the report."""
    base = _base(case.row_id, case.source, case.family, case.confidence, case.metric, case.unit, case.measured)
    notes = tuple(assumption.text for assumption in case.assumptions)
    if isinstance(answer, Refused):
        return Scored(
            **base, vendor=case.vendor, chip=case.chip_id, in_training=in_training, code=answer.code, field=answer.field,
            reason=answer.text, assumptions=notes,
        )
    ratio = answer.mid / case.measured
    return Scored(
        **base, vendor=case.vendor, chip=case.chip_id, predicted=answer.mid, low=answer.low, high=answer.high, error=ratio - 1.0,
        optimism=(ratio if case.conversion.kind == "rate" else 1.0 / ratio) - 1.0, inside=answer.low <= case.measured <= answer.high,
        in_training=in_training, impossible=impossible, assumptions=notes,
    )


def unanswered(row: Row, family: str, refusal: Refused) -> Scored:
    """The line of a row that is no case."""
    base = _base(row.id, row.source, family, row.confidence, row.metric, row.unit, row.value)
    return Scored(**base, vendor=None, chip=row.chip_id, code=refusal.code, field=refusal.field, reason=refusal.text)


def _base(id_: str, source: str, family: str, confidence: str, metric: str, unit: str, measured: float) -> dict[str, Any]:
    return {"id": id_, "source": source, "family": family, "confidence": confidence, "metric": metric, "unit": unit, "measured": measured}


def summary(rows: Sequence[Scored]) -> Summary:
    """Errors over ``rows``."""
    answered = [row for row in rows if row.error is not None]
    done = [row for row in answered if not row.impossible]
    share = len(answered) / len(rows) if rows else None
    errors = [row.error for row in done if row.error is not None]
    if not errors:
        return Summary(
            n=len(rows), answered=len(answered), impossible=len(answered), answered_share=share, mean_abs=None, median_abs=None,
            max_abs=None, bias=None, coverage=None, width=None, worst=None,
        )
    sizes = [abs(error) for error in errors]
    widths = [row.high / row.low - 1.0 for row in done if row.high is not None and row.low]
    return Summary(
        n=len(rows), answered=len(answered), impossible=len(answered) - len(done), answered_share=share,
        mean_abs=statistics.fmean(sizes),
        mean_abs_all=statistics.fmean(abs(row.error) for row in answered if row.error is not None),
        median_abs=statistics.median(sizes), max_abs=max(sizes),
        bias=statistics.median(row.optimism for row in done if row.optimism is not None),
        coverage=sum(row.inside is True for row in done) / len(done), width=statistics.median(widths) if widths else None,
        worst=done[sizes.index(max(sizes))].id,
    )


def by(rows: Iterable[Scored], key: Callable[[Scored], str | None]) -> dict[str, Summary]:
    """Summaries by group, largest group first; rows without a group stand under ``unknown``."""
    groups: dict[str, list[Scored]] = {}
    for row in rows:
        groups.setdefault(key(row) or "unknown", []).append(row)
    return {name: summary(groups[name]) for name in sorted(groups, key=lambda name: (-len(groups[name]), name))}
