"""The measurements that ship with Sapper: files of records in ``data/``, read-only. docs/evidence.md says what they are."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from sapper.evidence.record import Record

FOLDER = Path(__file__).parent / "data"


@functools.cache
def shipped() -> tuple[Record, ...]:
    """All of them, by date and id."""
    decoder = msgspec.json.Decoder(dict)
    lines = [line for path in sorted(FOLDER.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    objects = [decoder.decode(line) for line in lines]
    records = [msgspec.convert({key: value for key, value in obj.items() if key != "id"}, Record) for obj in objects]
    return tuple(sorted(records, key=lambda record: (record.date, record.id)))
