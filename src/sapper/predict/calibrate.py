"""calibrate: what a user's own measurements change, with each run predicted from the others, so that the error is honest."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec
import numpy as np

from sapper.chips.catalogue import Catalogue
from sapper.errors import SapperError
from sapper.evidence.record import Record
from sapper.predict.fit import Fitted
from sapper.predict.kinds import KINDS
from sapper.predict.own import Own
from sapper.predict.prior import Subject
from sapper.predict.rows.question import Interval, Question
from sapper.predict.rows.row import Kind, Refused

MOST_FOLDS = 20
"""Runs of a chip are left out one by one up to this many, then in this many groups."""
LEAST_MOVE = 0.02
"""Constants that move by less are not listed."""


Answer = Interval | SapperError


class Calibrated(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one kind on one chip, predicted before and after. Errors and widths are shares, not per cent."""

    chip: str
    kind: Kind
    runs: int
    error_before: float
    """Mean of |predicted / measured - 1|."""
    error_after: float | None
    """The same, each run predicted from the others; None for a single run, which has no others."""
    width_before: float
    """Median of high / low - 1."""
    width_after: float
    """Of the next prediction like these, with all runs known."""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A constant that the measurements moved."""

    chip: str
    kind: Kind
    constant: str
    unit: str
    before: float
    after: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sapper calibrate`` reports."""

    calibrated: tuple[Calibrated, ...]
    moved: tuple[Moved, ...]
    """Farthest first."""
    probes: dict[str, int]
    """Records that are no runs, by chip."""
    refused: tuple[Refused, ...]
    """Runs that put no question, or one that cannot be answered."""


def calibrate(before: Own, new: Sequence[Record], catalogue: Catalogue) -> Calibration:
    """Compare predictions with and without ``new``.

    Args:
        before: What the store held already.
        new: Records that are to join it.
        catalogue: Where chips are looked up.
    """
    after, fresh = before.and_(new), Own(tuple(new))
    calibrated: list[Calibrated] = []
    moved: list[Moved] = []
    refused: list[Refused] = []
    for kind in KINDS:
        cases, faults = fresh.questions(kind, catalogue)
        old, now = before.predictor(kind, catalogue), after.predictor(kind, catalogue)
        answers = old.predict(cases)
        refused += faults
        refused += [Refused.because(a, row_id=c.row_id) for c, a in zip(cases, answers, strict=True) if isinstance(a, SapperError)]
        good = [case for case, answer in zip(cases, answers, strict=True) if not isinstance(answer, SapperError)]
        for chip in sorted({case.chip_id for case in good}):
            mine = [case for case in good if case.chip_id == chip]
            left_out = _left_out(kind, mine, after, catalogue)
            calibrated.append(_calibrated(kind, mine, old=old.predict(mine), now=now.predict(mine), left_out=left_out))
        subjects = [*old.subjects(good), *(one.subject for one in fresh.observations(catalogue) if kind == "training")]
        moved += _moved(kind, subjects, old.constants, now.constants)
    probes: dict[str, int] = {}
    for record in new:
        if record.chip is not None and not record.payload:
            probes[record.chip] = probes.get(record.chip, 0) + 1
    moved.sort(key=lambda one: -abs(np.log(one.after / one.before)))
    return Calibration(calibrated=tuple(calibrated), moved=tuple(moved), probes=probes, refused=tuple(refused))


def _left_out(kind: Kind, cases: Sequence[Question], after: Own, catalogue: Catalogue) -> list[float]:
    """Errors of each run predicted from all the others; none where it has no others."""
    found: list[float] = []
    folds = min(len(cases), MOST_FOLDS) if len(cases) > 1 else 0
    for fold in range(folds):
        asked = cases[fold::folds]
        others = after.predictor(kind, catalogue, without={case.row_id for case in asked})
        found += _errors(asked, others.predict(asked))
    return found


def _calibrated(
    kind: Kind, cases: Sequence[Question], *, old: Sequence[Answer], now: Sequence[Answer], left_out: Sequence[float]
) -> Calibrated:
    return Calibrated(
        chip=cases[0].chip_id, kind=kind, runs=len(cases), error_before=statistics.fmean(_errors(cases, old)),
        error_after=statistics.fmean(left_out) if left_out else None, width_before=_width(old), width_after=_width(now),
    )


def _errors(cases: Sequence[Question], answers: Sequence[Answer]) -> list[float]:
    pairs = zip(cases, answers, strict=True)
    return [abs(answer[0] / case.measured - 1.0) for case, answer in pairs if not isinstance(answer, SapperError)]


def _width(answers: Sequence[Answer]) -> float:
    return statistics.median(answer[2] / answer[1] - 1.0 for answer in answers if not isinstance(answer, SapperError))


def _moved(kind: Kind, subjects: Sequence[Subject], old: Fitted, now: Fitted) -> list[Moved]:
    """Constants of the first subject of each chip, before and after."""
    found = []
    for chip, subject in {subject.chip: subject for subject in reversed(subjects)}.items():
        before, after = (fitted.book.natural(fitted.eta([subject])[0]) for fitted in (old, now))
        for name in old.book.constants:
            was, became = float(before[name][0]), float(after[name][0])
            if abs(became / was - 1.0) >= LEAST_MOVE:
                unit = "s" if name.endswith("_s") else "1"
                found.append(Moved(chip=chip, kind=kind, constant=name.removesuffix("_s"), unit=unit, before=was, after=became))
    return found
