"""Measurement rows as evidence: the record that carries a row of docs/validation.md whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sapper.evidence.fact import Grade

_SERVING = ("input_len", "output_len", "batch")
"""Fields that rows of serving have and rows of training do not."""


def fields(row: Mapping[str, Any], *, date: str | None, grade: Grade) -> dict[str, Any]:
    """The fields of the record for ``row``; what the row leaves out is left out, for the rules to refuse.

    Args:
        row: A parsed line.
        date: Day of the measurement where the row states none (as ``date``, or ``extra.measured``).
        grade: Whose measurement it is.
    """
    extra = row.get("extra")
    measured = extra.get("measured") if isinstance(extra, dict) else None
    return {
        "kind": "serving-run" if any(row.get(name) is not None for name in _SERVING) else "training-run",
        "metric": row.get("metric"), "value": row.get("value"), "unit": row.get("unit"), "source": row.get("source"),
        "chip": row.get("chip_id") or row.get("chip"), "stack": row.get("framework"), "dtype": row.get("precision"),
        "date": row.get("date") or measured or date, "grade": row.get("grade") or grade, "payload": dict(row),
    }
