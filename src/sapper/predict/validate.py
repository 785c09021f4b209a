"""validate: predict published measurements, each from a prior that has not seen its like, and say how wrong that is.

Honest fitting. The prior that answers a row is fitted on the pool that ships (confidence high), less every row of the
same chip (or vendor, or source, as ``leave_out`` says), less rows with the ids that are being scored. Rows of the
user's file are never fitted on. Without leaving out, the prior that ships answers, and rows that it was fitted on are
marked ``in_training``: such a report is a check, not a test.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from sapper import __version__
from sapper.chips.catalogue import Catalogue
from sapper.errors import BadValue, SapperError
from sapper.predict.rows.build import case_of
from sapper.predict.rows.case import Case
from sapper.predict.rows.naive import ConstantMfu
from sapper.predict.rows.read import Rows
from sapper.predict.rows.row import CONFIDENCES, Refused
from sapper.predict.rows.rules import source_rule
from sapper.predict.rows.scores import Answer, Scored, Summary, by, score, summary, unanswered
from sapper.predict.rows.shipped import shipped_path, shipped_rows

LeaveOut = Literal["chip", "vendor", "source"]
LEAVE_OUT: tuple[LeaveOut, ...] = ("chip", "vendor", "source")
GROUP: dict[str, Callable[[Case], str]] = {
    "chip": lambda case: case.chip_id, "vendor": lambda case: case.vendor, "source": lambda case: case.family,
}
"""What a row must share with the scored row to be left out of the fit."""


LEVEL = 0.8
"""Probability that the intervals of :mod:`sapper.predict` state."""


class Predictor(Protocol):
    """What validate asks: :class:`sapper.predict.predictor.TrainPredictor`, or anything that answers likewise."""

    def fit(self, cases: Sequence[Case]) -> Predictor:
        """A predictor whose prior comes from ``cases`` alone."""

    def predict(self, cases: Sequence[Case]) -> Sequence[tuple[float, float, float] | SapperError]:
        """Middle, low and high of each case in its own metric, in order, or why there is none."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What validate finds; ``--format json`` prints it as it is."""

    file: str
    date: str
    version: str
    leave_out: LeaveOut | None
    level: float
    """Probability that each interval states."""
    confidence: tuple[str, ...]
    """Of the rows that count in the summaries."""
    pool_rows: int
    """Rows that ship and may be fitted on."""
    folds: int
    """Priors that were fitted."""
    summary: Summary
    naive: Summary
    """The same rows answered by one constant MFU, fitted likewise: the bar to beat."""
    by_chip: dict[str, Summary]
    by_source: dict[str, Summary]
    by_vendor: dict[str, Summary]
    rows: tuple[Scored, ...]
    """Every row of the wanted confidence, in the file's order."""
    refused: tuple[Refusal, ...]
    """Lines that are no row."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file that is no row."""

    line: int | None
    id: str | None
    code: str
    field: str | None
    reason: str


def pool_path() -> str:
    """The measurements that ship with the package."""
    return shipped_path("training")


def pool_rows() -> Rows:
    """The rows that ship."""
    return shipped_rows("training")


def pool(catalogue: Catalogue) -> list[Case]:
    """The cases that may be fitted on: rows that ship, confidence high."""
    found = (case_of(row, catalogue) for row in pool_rows().rows if row.confidence == "high")
    return [case for case in found if isinstance(case, Case)]


def validate(
    given: Rows,
    predictor: Predictor,
    *,
    catalogue: Catalogue,
    leave_out: LeaveOut | None = "chip",
    confidence: Sequence[str] = ("high",),
    training: Sequence[Case] | None = None,
) -> Report:
    """Predict every row of ``given`` and score the answers.

    Args:
        given: What :func:`~sapper.predict.rows.read_rows` read.
        predictor: What answers; as given it has the prior that ships.
        catalogue: Where chips are looked up.
        leave_out: Rows of the same chip, vendor or source as the scored row that the fit must not see; None: the prior
            that ships, whatever it saw.
        confidence: Confidences of the rows to score.
        training: Cases that may be fitted on; None: the pool that ships.
    """
    wanted = [row for row in given.rows if row.confidence in confidence]
    found = {row.id: case_of(row, catalogue) for row in wanted}
    cases = [case for case in found.values() if isinstance(case, Case)]
    training = pool(catalogue) if training is None else training
    answers, folds = _answers(cases, predictor, training, leave_out)
    bar, _ = _answers(cases, ConstantMfu().fit(training), training, leave_out)
    seen = {case.row_id for case in training} if leave_out is None else set()
    rows = []
    for row in wanted:
        case = found[row.id]
        if isinstance(case, Case):
            rows.append(score(case, answers[row.id], in_training=row.id in seen))
        else:
            rows.append(unanswered(row, source_rule(row).family, case))
    timed = [score(case, bar[case.row_id], in_training=False) for case in cases if case.quantity == "time"]
    return Report(
        file=given.path, date=datetime.datetime.now(datetime.UTC).date().isoformat(), version=__version__, leave_out=leave_out,
        level=LEVEL, confidence=tuple(confidence), pool_rows=len(training), folds=folds, summary=summary(rows), naive=summary(timed),
        by_chip=by(rows, lambda row: row.chip), by_source=by(rows, lambda row: row.family),
        by_vendor=by(rows, lambda row: row.vendor), rows=tuple(rows),
        refused=tuple(
            Refusal(line=one.line, id=one.row_id, code=one.code, field=one.field, reason=one.text) for one in given.refused
        ),
    )


def _answers(
    cases: Sequence[Case], predictor: Predictor, training: Sequence[Case], leave_out: LeaveOut | None
) -> tuple[dict[str, Answer | Refused], int]:
    """Answers by row id, and how many priors were fitted."""
    if leave_out is None:
        return _asked(cases, predictor), 0
    group = GROUP[leave_out]
    answers: dict[str, Answer | Refused] = {}
    fits: dict[frozenset[str], Predictor] = {}
    for name in sorted({group(case) for case in cases}):
        fold = [case for case in cases if group(case) == name]
        ids = {case.row_id for case in fold}
        kept = [case for case in training if group(case) != name and case.row_id not in ids]
        key = frozenset(case.row_id for case in kept)
        if key not in fits:
            fits[key] = predictor.fit(kept)
        answers |= _asked(fold, fits[key])
    return answers, len(fits)


def _asked(cases: Sequence[Case], predictor: Predictor) -> dict[str, Answer | Refused]:
    found: dict[str, Answer | Refused] = {}
    for case, answer in zip(cases, predictor.predict(cases), strict=True):
        if isinstance(answer, SapperError):
            found[case.row_id] = Refused.because(answer, row_id=case.row_id)
        else:
            found[case.row_id] = Answer(mid=answer[0], low=answer[1], high=answer[2])
    return found


def confidences(text: str) -> tuple[str, ...]:
    """Confidences of ``high,medium`` or ``all``.

    Raises:
        BadValue: A word that is no confidence.
    """
    names = CONFIDENCES if text.strip() == "all" else tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in CONFIDENCES:
            raise BadValue("SP-VAL-001", where="--confidence", value=name, known=", ".join(CONFIDENCES))
    return names
