"""The constants under an answer, each with its evidence, as ``--explain`` prints them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sapper.cli.output import Column, emit

if TYPE_CHECKING:
    from sapper.predict.estimate import Used

_COLUMNS = [
    Column(key, f"predict.column.{key}", "right" if key == "value" else "left")
    for key in ("key", "value", "unit", "grade", "date", "source")
]


def explain(used: Iterable[Used]) -> None:
    """Print a table of constants, none twice."""
    seen: dict[str, dict[str, Any]] = {}
    for item in used:
        fact = item.fact
        row: dict[str, Any] = {
            "key": item.key,
            "value": fact.value,
            "unit": fact.unit,
            "grade": fact.grade,
            "date": fact.date,
            "source": fact.source,
        }
        seen.setdefault(item.key, row)
    emit(list(seen.values()), _COLUMNS, fmt="table")
