"""Splits: which rows a fit must not see when it answers others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Literal, get_args

from sapper.errors import BadValue
from sapper.predict.rows.question import Question

LeaveOut = Literal["chip", "vendor", "source", "model", "time"]
LEAVE_OUT: tuple[LeaveOut, ...] = get_args(LeaveOut)

GROUP: dict[str, Callable[[Question], str]] = {
    "chip": lambda case: case.chip_id, "vendor": lambda case: case.vendor, "source": lambda case: case.family,
    "model": lambda case: model_family(case),
}
"""What a row must share with the scored row to be left out of the fit."""

CUT_YEAR = 2025.75
"""Default of the time split: MLPerf Training v5.1 and everything from 2026 on are asked, what is older is fitted on."""
Fold = tuple[list[int], list[Question]]
"""Positions of the questions that are asked together, and what their prior is fitted on."""


def model_family(case: Question) -> str:
    """The architecture of the model, as its config names it: llama, mixtral, gpt2, ..."""
    job = case.job
    for holder in ("workload", "model"):
        found = getattr(getattr(job, holder, None), "family", None)
        if isinstance(found, str):
            return found
    return "unknown"


def folds(cases: Sequence[Question], pool: Sequence[Question], *, leave_out: LeaveOut, cut_year: float = CUT_YEAR) -> Iterator[Fold]:
    """The folds of a split; rows that are asked are never in their fit, whatever the split.

    Args:
        cases: The questions.
        pool: What may be fitted on.
        leave_out: What a fitted row must not share with the asked ones. ``time``: only questions from the cut on are
            asked, and only rows before it are fitted on, less those that repeat an asked value on the same chip.
        cut_year: Of the time split.
    """
    if leave_out == "time":
        yield from _by_time(cases, pool, cut_year)
        return
    group = GROUP[leave_out]
    for name in sorted({group(case) for case in cases}):
        asked = [index for index, case in enumerate(cases) if group(case) == name]
        ids = {cases[index].row_id for index in asked}
        yield asked, [case for case in pool if group(case) != name and case.row_id not in ids]


def _by_time(cases: Sequence[Question], pool: Sequence[Question], cut_year: float) -> Iterator[Fold]:
    asked = [index for index, case in enumerate(cases) if (year := case.job.stack_year) is not None and year >= cut_year]
    ids = {cases[index].row_id for index in asked}
    repeated = {_value(cases[index]) for index in asked}
    before = [
        case for case in pool
        if (year := case.job.stack_year) is not None and year < cut_year and case.row_id not in ids and _value(case) not in repeated
    ]
    yield asked, before


def _value(case: Question) -> Hashable:
    """A measured value and its chip: benchmark rounds carry results of former rounds on."""
    return case.chip_id, case.metric, f"{case.measured:.5g}"


def year_of(text: str) -> float:
    """A year such as ``2025.75`` or ``2026``.

    Raises:
        BadValue: No year of the age of these machines.
    """
    try:
        year = float(text)
    except ValueError:
        year = 0.0
    if not 2010.0 <= year <= 2100.0:
        raise BadValue("SP-VAL-003", where="--cut", value=text)
    return year
