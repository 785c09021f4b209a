"""validate: predict published measurements, each from a prior that has not seen its like, and say how wrong that is.

Honest fitting. The prior that answers a row is fitted on the pool that ships (confidence high), less every row of the
same chip (or vendor, source, model family or time, as ``leave_out`` says), less rows with the ids that are being
scored. Rows of the user's file are never fitted on. Without leaving out, the prior that ships answers, and rows that it
was fitted on are marked ``in_training``: such a report is a check, not a test.
"""

from __future__ import annotations

import copy
import datetime
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from statistics import NormalDist
from typing import Any

import msgspec

from sapper import __version__
from sapper.chips.catalogue import Catalogue
from sapper.errors import BadValue, SapperError
from sapper.predict.claims import check
from sapper.predict.kinds import KINDS, RowKind
from sapper.predict.rows.case import Case
from sapper.predict.rows.question import Interval, Predictor, Question
from sapper.predict.rows.read import Rows
from sapper.predict.rows.row import CONFIDENCES, Kind, Refused, Row
from sapper.predict.rows.rules import source_rule
from sapper.predict.rows.scores import Answer, Scored, Summary, by, score, summary, unanswered
from sapper.predict.splits import CUT_YEAR, LeaveOut, folds

STATED = 0.8
"""Probability that the intervals of predictors state."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What validate finds; ``--format json`` prints it as it is."""

    file: str
    date: str
    version: str
    leave_out: LeaveOut | None
    cut_year: float | None
    """Of the time split; None: another split."""
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
    flagged: tuple[Flag, ...] = ()
    """What the claim checker says of the rows of the files, whatever their confidence."""
    other_confidence: dict[str, int] = {}
    """Rows of the files whose confidence was not asked for, by confidence."""
    not_asked: int = 0
    """Rows that the time split neither asks nor hides: those before the cut, and those without a date."""


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of the claim checker."""

    id: str
    kind: str
    code: str
    reason: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file that is no row."""

    file: str
    line: int | None
    id: str | None
    code: str
    field: str | None
    reason: str


def validate(
    given: Rows,
    predictors: Mapping[Kind, Predictor],
    *,
    catalogue: Catalogue,
    leave_out: LeaveOut | None = "chip",
    confidence: Sequence[str] = ("high",),
    level: float = STATED,
    cut_year: float = CUT_YEAR,
    pools: Mapping[Kind, Sequence[Question]] | None = None,
) -> Report:
    """Predict every row of ``given`` and score the answers.

    Args:
        given: What :func:`~sapper.predict.rows.read_rows` read; training and inference rows may be mixed.
        predictors: What answers rows of each kind; as given they have the priors that ship.
        catalogue: Where chips are looked up.
        leave_out: What the fit must not share with the scored row; None: the prior that ships, whatever it saw.
        confidence: Confidences of the rows to score.
        level: Probability that the intervals shall state.
        cut_year: Of the time split.
        pools: Cases that may be fitted on, by kind; a kind that it lacks has the pool that ships.
    """
    wanted = [row for row in given.rows if row.confidence in confidence]
    checked = check(given.rows, catalogue)
    beyond = checked.beyond - {row.id for row in given.rows if row.confidence == "suspect"}  # who asks for those wants their errors
    scored: dict[str, list[Scored]] = {}
    naive: list[Scored] = []
    fitted = pooled = not_asked = 0
    for kind in dict.fromkeys(row.kind for row in wanted):
        rows = [row for row in wanted if row.kind == kind]
        entry = KINDS.get(kind)
        if entry is None or kind not in predictors:
            scored |= {row.id: [unanswered(row, source_rule(row).family, _unanswerable(row))] for row in rows}
            continue
        task = _Task(entry, rows, catalogue, leave_out=leave_out, cut_year=cut_year, pool=(pools or {}).get(kind), beyond=beyond)
        stating, stated = _stating(predictors[kind], level)
        answers, count = task.answers(stating)
        scored |= task.scored(answers, level, stated=stated)
        naive += task.naive()
        fitted, pooled, not_asked = fitted + count, pooled + len(task.pool), not_asked + task.not_asked
    lines = tuple(line for row in wanted for line in scored.get(row.id, ()))
    return Report(
        file=given.path, date=datetime.datetime.now(datetime.UTC).date().isoformat(), version=__version__, leave_out=leave_out,
        cut_year=cut_year if leave_out == "time" else None, level=level, confidence=tuple(confidence), pool_rows=pooled, folds=fitted,
        summary=summary(lines), naive=summary(naive), by_chip=by(lines, lambda row: row.chip), by_source=by(lines, lambda row: row.family),
        by_vendor=by(lines, lambda row: row.vendor), rows=lines, not_asked=not_asked,
        other_confidence=dict(Counter(row.confidence for row in given.rows if row.confidence not in confidence)),
        flagged=tuple(Flag(id=one.row_id, kind=one.kind, code=one.code, reason=one.text) for one in checked.findings),
        refused=tuple(
            Refusal(file=one.path or given.path, line=one.line, id=one.row_id, code=one.code, field=one.field, reason=one.text)
            for one in given.refused
        ),
    )


def _unanswerable(row: Row) -> Refused:
    return Refused(row_id=row.id, code="SP-VAL-004", field="phase", values={"kind": row.kind})


class _Task:
    """The rows of one kind, their questions, and what may be fitted on."""

    def __init__(
        self, kind: RowKind, rows: Sequence[Row], catalogue: Catalogue, *, leave_out: LeaveOut | None, cut_year: float,
        pool: Sequence[Question] | None, beyond: Set[str],
    ) -> None:
        self.kind, self.rows, self.leave_out, self.cut_year, self.beyond = kind, rows, leave_out, cut_year, beyond
        self.cases, self.refused = kind.questions(rows, catalogue)
        self.pool = kind.pool(catalogue) if pool is None else pool
        self.seen = {case.row_id for case in self.pool} if leave_out is None else set()

    @property
    def not_asked(self) -> int:
        """Questions that the time split leaves aside."""
        if self.leave_out != "time":
            return 0
        return sum(case.job.stack_year is None or case.job.stack_year < self.cut_year for case in self.cases)

    def answers(self, predictor: Predictor) -> tuple[dict[int, Interval | SapperError], int]:
        """Answers by position of the question, and how many priors were fitted."""
        if self.leave_out is None:
            return dict(enumerate(predictor.predict(self.cases))), 0
        found: dict[int, Interval | SapperError] = {}
        fits: dict[frozenset[str], Predictor] = {}
        for asked, kept in folds(self.cases, self.pool, leave_out=self.leave_out, cut_year=self.cut_year):
            key = frozenset(case.row_id for case in kept)
            if key not in fits:
                fits[key] = predictor.fit(kept)
            found |= zip(asked, fits[key].predict([self.cases[index] for index in asked]), strict=True)
        return found, len(fits)

    def scored(self, answers: Mapping[int, Interval | SapperError], level: float, *, stated: float) -> dict[str, list[Scored]]:
        """Lines of the report by row id: one for each question, one for each row that puts none."""
        by_id = {row.id: row for row in self.rows}
        lines: dict[str, list[Scored]] = {}
        for refusal in self.refused:
            row = by_id[refusal.row_id or ""]
            lines[row.id] = [unanswered(row, source_rule(row).family, refusal)]
        for index, answer in answers.items():
            lines.setdefault(self.cases[index].row_id, []).append(self._line(index, answer, at=(stated, level)))
        return lines

    def naive(self) -> list[Scored]:
        """The naive predictor's lines on the questions of time; none where the kind has no such bar."""
        if self.kind.naive is None:
            return []
        answers, _ = self.answers(self.kind.naive().fit(self.pool))
        return [self._line(index, answer, at=(STATED, STATED)) for index, answer in answers.items() if self.cases[index].quantity == "time"]

    def _line(self, index: int, answer: Interval | SapperError, *, at: tuple[float, float]) -> Scored:
        """The line of a question; ``at``: the level that the answer's interval states, and the one that is wanted."""
        case = self.cases[index]
        seen, beyond = case.row_id in self.seen, case.row_id in self.beyond
        return score(case, _told(case, answer, at), in_training=seen, impossible=beyond)


def _stating(predictor: Predictor, level: float) -> tuple[Predictor, float]:
    """The predictor made to state ``level`` where it knows levels of its own, and the level that its intervals state."""
    if not hasattr(predictor, "level"):
        return predictor, STATED
    stating: Any = copy.copy(predictor)
    stating.level = level
    return stating, level


def _told(case: Question, answer: Interval | SapperError, at: tuple[float, float]) -> Answer | Refused:
    if isinstance(answer, SapperError):
        return Refused.because(answer, row_id=case.row_id)
    stated, level = at
    mid, low, high = at_level(answer, level, stated=stated)
    return Answer(mid=mid, low=low, high=high)


def at_level(answer: Interval, level: float, *, stated: float = STATED) -> Interval:
    """An interval that states ``stated``, at another probability: errors are lognormal, so ends move by normal quantiles."""
    if level == stated:
        return answer
    mid, low, high = answer
    stretch = NormalDist().inv_cdf(0.5 + level / 2.0) / NormalDist().inv_cdf(0.5 + stated / 2.0)
    return mid, mid * (low / mid) ** stretch, mid * (high / mid) ** stretch


def pool(catalogue: Catalogue) -> list[Case]:
    """The training cases that ship and may be fitted on: rows of confidence high."""
    return [case for case in KINDS["training"].pool(catalogue) if isinstance(case, Case)]


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


def level_of(text: str) -> float:
    """A probability such as ``0.9``.

    Raises:
        BadValue: None that an interval could state.
    """
    try:
        level = float(text)
    except ValueError:
        level = 0.0
    if not 0.5 <= level <= 0.99:
        raise BadValue("SP-VAL-005", where="--level", value=text)
    return level
