"""Errors of answers against the measured rows: asked, answered, mean, median, by chip, and why a row went unanswered."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from row_sets import FLAGGED, Row

from sapper.chips import catalogue
from sapper.predict.rows import Case, case_of
from sapper.predict.rows.row import row_of

Errors = Mapping[str, float]
"""predicted / measured - 1 by row id, of the rows that were answered."""


def error_of(row: Row, quantity: str, answer: Mapping[str, Any]) -> float | None:
    """The signed error of one row, predicted / measured - 1; None where it was not answered.

    A step time is first turned into the row's own metric by the very conversion that Sapper's validation uses.
    """
    predicted = answer.get(quantity)
    if predicted is None:
        return None
    if quantity == "step_time_s":
        case = _case(msgspec.json.encode(row))
        return case.value_of(predicted) / case.measured - 1.0
    measured = measured_of(row, quantity)
    return None if measured is None else predicted / measured - 1.0


def measured_of(row: Row, quantity: str) -> float | None:
    """What was measured, in the quantity's unit; None where the row does not carry it."""
    if quantity == "ttft_s":
        found = row["extra"].get("ttft_ms")
        return None if found is None else float(found) / 1e3
    return float(row["value"]) * {"ms": 1e-3}.get(row["unit"], 1.0)


@lru_cache(maxsize=4096)
def _case(raw: bytes) -> Case:
    found = case_of(row_of(msgspec.json.decode(raw)), catalogue())
    if not isinstance(found, Case):
        raise ValueError(found.text)
    return found


def errors_of(rows: Iterable[Row], quantity: str, answers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Errors by row id."""
    found = {row["id"]: error_of(row, quantity, answers.get(row["id"], {})) for row in rows}
    return {row_id: error for row_id, error in found.items() if error is not None}


def summary(asked: int, errors: Iterable[float]) -> dict[str, Any]:
    """The figures of a set of errors; fractions, None where nothing was answered."""
    signed = list(errors)
    sizes = sorted(abs(error) for error in signed)
    if not sizes:
        return {"asked": asked, "answered": 0, "mean_abs": None, "median_abs": None, "max_abs": None, "bias": None, "within_10pct": None}
    return {
        "asked": asked,
        "answered": len(sizes),
        "mean_abs": _rounded(statistics.fmean(sizes)),
        "median_abs": _rounded(statistics.median(sizes)),
        "max_abs": _rounded(sizes[-1]),
        "bias": _rounded(statistics.median(signed)),
        "within_10pct": _rounded(sum(size <= 0.1 for size in sizes) / len(sizes)),
    }


def views(rows: Sequence[Row]) -> list[tuple[str, Sequence[Row]]]:
    """All rows, and, where some of them cannot be true, those without."""
    kept = [row for row in rows if row["id"] not in FLAGGED]
    return [("all", rows)] if len(kept) == len(rows) else [("all", rows), ("unflagged", kept)]


def by_chip(rows: Sequence[Row], errors: Errors) -> dict[str, dict[str, Any]]:
    """The same by chip, most rows first."""
    groups = Counter(chip_of(row) for row in rows)
    return {
        chip: summary(count, [errors[row["id"]] for row in rows if chip_of(row) == chip and row["id"] in errors])
        for chip, count in sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    }


def chip_of(row: Row) -> str:
    """Catalogue id, or the row's label where it has none."""
    return row.get("chip_id") or row["chip"]


def reasons(answers: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Rows without an answer by reason class, most frequent first."""
    return dict(Counter(answer["reason"] for answer in answers if "reason" in answer).most_common())


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
