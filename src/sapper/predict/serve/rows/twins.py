"""Twins and neighbours: what other rows of a source say of a row that leaves its workers out.

A twin is the same measurement in a fuller export. A neighbour is another measurement on the same chips, engine and workers,
at the nearest load: where a source's table of prefill and decode workers lacks their number, its other rows tell what was
usual. Neither looks at what was measured, except that twins agree in it.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from sapper.predict.rows.row import Row
from sapper.predict.serve.rows.rules import serve_rule, stack_of

PAIR = ("prefill", "decode")
OTHER_LINE = 2.0
"""Another line of models counts as much as a load e^2 times as high: sizes, and so layouts, differ."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Workers from elsewhere that stand for a row's own."""

    table: Mapping[str, Any]
    """As ``extra.disagg`` has them."""
    told_by: Literal["twin", "recipe", "neighbour"]
    """The same measurement in a fuller export, the benchmark's own plan of the run, or a like measurement."""
    shown: str
    """Which one."""
    readers_sure: bool = True
    """Whether the number of prefill workers is certain: several recipes may agree with a row and differ in it."""

    @property
    def sure(self) -> bool:
        """Whether these are the row's workers, not those of its like."""
        return self.told_by != "neighbour"


def workers_stated(row: Row) -> bool | None:
    """Whether a disaggregated row says how many workers there were; None where it is not disaggregated."""
    table = row.extra.get("disagg")
    return table.get("decode_num_workers") is not None if isinstance(table, dict) else None


def with_layout(row: Row, layout: Layout) -> Row:
    """``row`` with the workers of ``layout``."""
    return msgspec.structs.replace(row, extra=row.extra | {"disagg": layout.table})


def chips_of(row: Row, which: str) -> int | None:
    """Chips of one prefill or decode worker; None where the table's figures are not numbers."""
    table = row.extra["disagg"]
    try:
        return int(table.get(f"{which}_tp_size") or 1) * int(table.get(f"{which}_attention_dp_size") or 1)
    except (TypeError, ValueError, OverflowError):  # the last of infinity
        return None


def product(parallel: Mapping[str, int]) -> int:
    """Chips that the degrees of one kind of worker fill."""
    return math.prod(parallel.get(name, 1) for name in ("tp", "pp", "dp"))


class Twins:
    """Rows that may tell of others."""

    def __init__(self, rows: Iterable[Row]) -> None:
        same: dict[Hashable, list[Row]] = defaultdict(list)
        near: dict[Hashable, list[Row]] = defaultdict(list)
        for row in rows:
            if isinstance(row.extra.get("ttft_ms"), (int, float)):  # two figures that agree are no chance
                same[_measured(row)].append(row)
            if workers_stated(row):
                near[_workers(row)].append(row)
        self._same, self._near = same, near

    def layout(self, row: Row) -> Layout | None:
        """The twin, else the neighbour, that says how many workers there were, where ``row`` does not."""
        if workers_stated(row) is not False:
            return None
        twin = next((other for other in self._same.get(_measured(row), ()) if workers_stated(other)), None)
        if twin is not None:
            return Layout(table=twin.extra["disagg"], told_by="twin", shown=twin.id)
        near = [other for other in self._near.get(_workers(row), ()) if other.id != row.id]
        if not near:
            return None
        nearest = min(near, key=lambda other: _distance(row, other))
        return Layout(table=nearest.extra["disagg"], told_by="neighbour", shown=nearest.id)

    def copies(self, row: Row) -> int:
        """Rows that hold the measurement, ``row`` included."""
        return max(1, len(self._same.get(_measured(row), ())))


def _measured(row: Row) -> Hashable:
    """What two exports of one measurement agree in: figures to four digits, as the exports round differently."""
    beside = row.extra.get("ttft_ms")
    shown = f"{beside:.4g}" if isinstance(beside, (int, float)) else None
    rule = serve_rule(row)
    return (rule.family, row.chip_id or row.chip, row.metric, f"{row.value:.4g}", shown, row.input_len, row.output_len, _load(row))


def _workers(row: Row) -> Hashable:
    rule = serve_rule(row)
    return (rule.family, row.chip_id or row.chip, stack_of(row, rule), chips_of(row, "decode"))


def _load(row: Row) -> float | None:
    concurrency = row.number("concurrency")
    return concurrency if concurrency is not None else row.batch


def _distance(row: Row, other: Row) -> float:
    """How unlike two measurements are: concurrency, lengths and prefill workers as ratios, and the line of the model."""
    pairs = (
        (_load(row), _load(other)), (row.input_len, other.input_len), (row.output_len, other.output_len),
        (chips_of(row, "prefill"), chips_of(other, "prefill")),
    )
    line = 0.0 if _line(row) == _line(other) else OTHER_LINE
    return line + sum(abs(math.log(one / two)) if one and two else 1.0 for one, two in pairs)


def _line(row: Row) -> str:
    """The letters that a model's name begins with: ``deepseek``, ``qwen``."""
    found = re.match(r"[a-z]*", row.model.name.rpartition("/")[2].lower())
    return found[0] if found else ""
