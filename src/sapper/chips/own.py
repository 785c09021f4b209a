"""A chip with the user's own measurements: evidence records take the place of the catalogue's figures of the same kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from sapper.chips.schema import Chip, Measured
from sapper.evidence import Fact
from sapper.evidence.record import Record

LARGE = 4096
"""Least side of a matmul that counts as large: the catalogue's matmul records are medians over M, N, K from here on."""
LARGE_SHARE = 0.5
"""A copy counts as large from this share of the largest that was measured: smaller ones may live in a cache."""


def with_records(chip: Chip, records: Iterable[Record]) -> Chip:
    """``chip`` with what ``records`` of it measured; the catalogue's records of the same metric and dtype give way.

    Matmul rates: the median over the large shapes of a dtype (the largest shape where none is). Copies: the median over the
    large ones. Collectives: for each number of devices, the largest message.
    """
    own = [record for record in records if record.chip == chip.id and record.status == "ok" and record.value]
    found = [*_matmuls(chip, own), *_copies(chip, own), *_collectives(own)]
    if not found:
        return chip
    replaced = {(one.metric, one.dtype) for one in found}
    kept = tuple(one for one in chip.measured if (one.metric, one.dtype) not in replaced)
    return msgspec.structs.replace(chip, measured=(*kept, *found))


def _matmuls(chip: Chip, records: Sequence[Record]) -> list[Measured]:
    found = []
    rates = [record for record in records if record.kind == "matmul"]
    for dtype in sorted({record.dtype for record in rates if record.dtype}):
        peak = _number(chip.peak_flops_per_s.get(dtype))
        mine = [record for record in rates if record.dtype == dtype]
        large = [record for record in mine if min(_side(record, name) for name in ("m", "n", "k")) >= LARGE]
        chosen = large or [max(mine, key=lambda record: _side(record, "m") * _side(record, "n") * _side(record, "k"))]
        found.append(_measured(_middle(chosen), metric="matmul", of=peak))
    return found


def _copies(chip: Chip, records: Sequence[Record]) -> list[Measured]:
    copies = [record for record in records if record.kind == "memory-copy"]
    if not copies:
        return []
    most = max(_side(record, "bytes") for record in copies)
    large = [record for record in copies if _side(record, "bytes") >= LARGE_SHARE * most]
    return [_measured(_middle(large), metric="memory_bandwidth", of=_number(chip.memory.bandwidth_bytes_per_s))]


def _collectives(records: Sequence[Record]) -> list[Measured]:
    """The largest message of each group size; the value is the algorithm bandwidth, message over time."""
    found: list[Measured] = []
    for kind, metric in (("all-reduce", "all_reduce"), ("all-gather", "all_gather"), ("reduce-scatter", "reduce_scatter")):
        largest: dict[int, Record] = {}
        for record in records:
            if record.kind == kind:
                devices = int(_side(record, "devices"))
                if devices not in largest or _side(record, "message_bytes") > _side(largest[devices], "message_bytes"):
                    largest[devices] = record
        for devices, record in sorted(largest.items()):
            message = _side(record, "message_bytes")
            found.append(
                msgspec.structs.replace(
                    _measured(record, metric=metric, of=None), value=message / (record.value or 1.0), unit="bytes/s", dtype=None,
                    devices=devices, message_bytes=message,
                )
            )
    return found


def _measured(record: Record, *, metric: str, of: float | None) -> Measured:
    value = record.value
    return Measured(
        metric=metric, dtype=record.dtype if metric == "matmul" else None, value=value, unit=record.unit,
        fraction=value / of if value and of else None, source=record.source, date=record.date, grade=record.grade, status="measured",
        source_read=True, note=record.stack,
    )


def _middle(records: Sequence[Record]) -> Record:
    return sorted(records, key=lambda record: record.value or 0.0)[(len(records) - 1) // 2]


def _side(record: Record, name: str) -> float:
    value = record.conditions.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def _number(fact: Fact | None) -> float | None:
    return None if fact is None else fact.number
