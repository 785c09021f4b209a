"""Trace files: recorded requests, one a line, as JSON Lines or CSV with ``arrival_s``, ``input_tokens`` and ``output_tokens``."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sapper import files
from sapper.errors import BadFile
from sapper.predict.serve.traffic import MOST_REQUESTS, MOST_TOKENS, Traced

FIELDS = ("arrival_s", "input_tokens", "output_tokens")


def read_trace(path: str) -> Traced:
    """The stream that ``path`` holds, sorted by time and begun at zero.

    Raises:
        BadFile: A line that lacks a field or has one that cannot be meant, with its number; a file without requests.
    """
    rows: list[tuple[float, int, int]] = []
    for number, line in _lines(path):
        rows.append(_request(line, where=f"{path}:{number}"))
        if len(rows) > MOST_REQUESTS:
            raise BadFile("SP-SERVE-013", where=f"{path}:{number}", most=f"{MOST_REQUESTS:,}")
    if not rows:
        raise BadFile("SP-SERVE-012", where=path)
    rows.sort()
    start = rows[0][0]
    return Traced(path=path, arrivals=tuple((arrival - start, prompt, answer) for arrival, prompt, answer in rows))


def _lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if Path(path).suffix.lower() != ".csv":
        yield from files.read_jsonl(path)
        return
    reader = csv.DictReader(files.read_text(path).splitlines())
    missing = [field for field in FIELDS if field not in (reader.fieldnames or ())]
    if missing:
        raise BadFile("SP-SERVE-010", where=f"{path}:1", field=missing[0], known=", ".join(FIELDS))
    for row in reader:
        yield reader.line_num, row


def _request(line: dict[str, Any], *, where: str) -> tuple[float, int, int]:
    values = []
    for field in FIELDS:
        if line.get(field) is None:
            raise BadFile("SP-SERVE-010", where=where, field=field, known=", ".join(FIELDS))
        values.append(_number(line[field], field, where))
    return values[0], int(values[1]), int(values[2])


def _number(value: Any, field: str, where: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    counted = field != "arrival_s"
    if not math.isfinite(number) or number < (1 if counted else 0) or (counted and (number != int(number) or number > MOST_TOKENS)):
        raise BadFile("SP-SERVE-011", where=where, field=field, value=str(value)[:40])
    return number
