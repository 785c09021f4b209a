"""Twins: one measurement that several exports of a source hold, some with less than others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

from sapper.predict.rows.row import Row
from sapper.predict.serve.rows.rules import serve_rule


def _key(row: Row) -> Hashable:
    """What two exports of one measurement agree in: figures to four digits, as the exports round differently."""
    beside = row.extra.get("ttft_ms")
    shown = f"{beside:.4g}" if isinstance(beside, (int, float)) and not isinstance(beside, bool) else None
    concurrency = row.extra.get("concurrency")
    return (
        serve_rule(row).family, row.chip_id or row.chip, row.metric, f"{row.value:.4g}", shown, row.input_len, row.output_len,
        concurrency if isinstance(concurrency, (int, float)) else row.batch,
    )


def _workers(row: Row) -> bool:
    table = row.extra.get("disagg")
    return isinstance(table, dict) and table.get("decode_num_workers") is not None


class Twins:
    """Rows that hold the same measurement, by what they agree in."""

    def __init__(self, rows: Iterable[Row]) -> None:
        groups: dict[Hashable, list[Row]] = defaultdict(list)
        for row in rows:
            if isinstance(row.extra.get("ttft_ms"), (int, float)):  # two figures that agree are no chance
                groups[_key(row)].append(row)
        self._groups = groups

    def fuller(self, row: Row) -> Row | None:
        """The twin that says how many workers there were, where ``row`` does not."""
        if not isinstance(row.extra.get("disagg"), dict) or _workers(row):
            return None
        return next((other for other in self._groups.get(_key(row), ()) if _workers(other)), None)

    def copies(self, row: Row) -> int:
        """Rows that hold the measurement, ``row`` included."""
        return max(1, len(self._groups.get(_key(row), ())))
