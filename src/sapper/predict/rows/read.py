"""read_rows: the rows of a JSON Lines file, and of each line that is no row, the reason."""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from sapper import messages
from sapper.errors import BadFile
from sapper.predict.rows.row import Refused, Row, RowFault, row_of

MAX_BYTES = 256 * 2**20
"""Unpacked; a compressed bomb ends here and not in all memory."""


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of measurements holds."""

    path: str
    rows: tuple[Row, ...]
    refused: tuple[Refused, ...]
    """Lines that are no row, in order."""

    @property
    def total(self) -> int:
        """Lines that were not blank."""
        return len(self.rows) + len(self.refused)


def read_rows(path: str | os.PathLike[str]) -> Rows:
    """Read a ``.jsonl`` or ``.jsonl.gz`` file of measurements.

    A faulty line is refused with its number and reason; the other lines are kept. Of rows with the same id the first
    is kept.

    Raises:
        BadFile: The file is missing, unreadable, too large, damaged as a gzip archive, or holds lines but no row.
    """
    found = parse_rows(_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n"), os.fspath(path))
    if not found.refused and not found.rows:
        raise BadFile("SP-ROW-008", where=found.path)
    if not found.rows:
        first = found.refused[0]
        raise BadFile("SP-ROW-007", where=f"{found.path}:{first.line}", problem=messages.Phrase(first.code, **first.values))
    return found


def read_all(paths: Sequence[str | os.PathLike[str]]) -> Rows:
    """The rows of several files together, as :func:`merged` has them.

    Raises:
        BadFile: As :func:`read_rows`, for the first file that is to blame.
    """
    return merged([read_rows(path) for path in paths])


def merged(files: Sequence[Rows]) -> Rows:
    """The rows of several files, in order; of rows with the same id the first is kept, whatever its file."""
    if len(files) == 1:
        return files[0]
    rows: dict[str, Row] = {}
    refused: list[Refused] = []
    where: dict[str, str] = {}
    for file in files:
        refused += [msgspec.structs.replace(one, path=file.path) for one in file.refused]
        for row in file.rows:
            if row.id in rows:
                values = {"field": "id", "first": where[row.id]}
                refused.append(Refused(row_id=row.id, code="SP-ROW-025", field="id", values=values, path=file.path))
            else:
                rows[row.id], where[row.id] = row, file.path
    return Rows(path=", ".join(file.path for file in files), rows=tuple(rows.values()), refused=tuple(refused))


def parse_rows(lines: Iterable[str | bytes], path: str) -> Rows:
    """The rows that ``lines`` hold; ``path`` is what messages call them."""
    rows: list[Row] = []
    refused: list[Refused] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row_id = None
        try:
            obj = _object(line)
            found_id = obj.get("id")
            row_id = found_id if isinstance(found_id, str) else None
            row = row_of(obj)
            if row.id in seen:
                raise RowFault("SP-ROW-005", "id", first=seen[row.id])
        except RowFault as fault:
            refused.append(Refused(row_id=row_id, code=fault.code, field=fault.field, values=fault.values, line=number))
            continue
        seen[row.id] = number
        rows.append(row)
    return Rows(path=path, rows=tuple(rows), refused=tuple(refused))


def _object(line: str | bytes) -> dict[str, object]:
    try:
        obj = json.loads(line.decode("utf-8") if isinstance(line, bytes) else line, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RowFault("SP-ROW-004", problem=f"not UTF-8 (byte {error.start + 1})") from None
    except RecursionError:
        raise RowFault("SP-ROW-004", problem="nesting") from None
    except json.JSONDecodeError as error:
        raise RowFault("SP-ROW-004", problem=f"{error.msg} (column {error.colno})") from None
    except ValueError as error:  # an integer of more digits than Python reads
        raise RowFault("SP-ROW-004", problem=str(error)) from None
    if not isinstance(obj, dict):
        raise RowFault("SP-ROW-004", problem=type(obj).__name__)
    return obj


def _no_constant(constant: str) -> object:
    raise RowFault("SP-ROW-004", problem=constant)


def _bytes(path: str | os.PathLike[str]) -> bytes:
    where = os.fspath(path)
    try:
        with open(path, "rb") as file:
            head = file.read(2)
            file.seek(0)
            stream: io.BufferedIOBase | gzip.GzipFile = gzip.GzipFile(fileobj=file) if head == b"\x1f\x8b" else file
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise BadFile("SP-FILE-001", where=where) from error
    except IsADirectoryError as error:
        raise BadFile("SP-FILE-002", where=where) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadFile("SP-ROW-006", where=where, problem=str(error)) from error
    except (OSError, ValueError) as error:
        raise BadFile("SP-FILE-003", where=where, problem=getattr(error, "strerror", None) or str(error)) from error
    if len(raw) > MAX_BYTES:
        raise BadFile("SP-FILE-004", where=where, limit=f"{MAX_BYTES // 2**20} MiB")
    return raw

