"""Reading what users give and writing what they keep.

Each fault of a file is a :class:`~sapper.errors.BadFile` that names ``file:line:column`` or the field; nothing here lets
an OSError, a parser's error or a RecursionError through. Writing is atomic: a reader sees the old file or the new one.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import re
import stat
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sapper import places
from sapper.errors import BadFile
from sapper.messages import Foreign

T = TypeVar("T")

MAX_BYTES = 64 * 2**20
"""Larger than any file that Sapper has a use for; a device such as /dev/zero ends here and not in all memory."""

_MAX_INT = 2**63


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file, without a byte-order mark, line ends as ``\\n``.

    Raises:
        BadFile: Missing, a folder, unreadable, larger than :data:`MAX_BYTES`, or not UTF-8 (with line and column).
    """
    where = os.fspath(path)
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise BadFile("SP-FILE-001", where=where) from error
    except IsADirectoryError as error:
        raise BadFile("SP-FILE-002", where=where) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise BadFile("SP-FILE-003", where=where, problem=_os_problem(error)) from error
    if len(raw) > MAX_BYTES:
        raise BadFile("SP-FILE-004", where=where, limit=f"{MAX_BYTES // 2**20} MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        line, column = _line_column(before, len(before))
        raise BadFile("SP-FILE-005", where=f"{where}:{line}:{column}", byte=f"0x{raw[error.start]:02x}") from error
    return text.replace("\r\n", "\n")


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The table that a TOML file holds.

    Raises:
        BadFile: What :func:`read_text` raises, malformed TOML (with line and column), or a number beyond all use.
    """
    return parse_toml(read_text(path), os.fspath(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The table that TOML ``text`` from ``where`` holds; faults as in :func:`read_toml`."""
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise BadFile("SP-FILE-008", where=where) from error
    except tomllib.TOMLDecodeError as error:
        problem, line, column = _toml_place(str(error), text)
        raise BadFile("SP-FILE-006", where=_at(where, line, column), problem=Foreign("files.toml", problem)) from error
    except ValueError as error:  # an integer of more digits than Python reads
        raise BadFile("SP-FILE-010", where=where, value="...") from error
    _check_numbers(table, where, lambda key: places.toml_line(text, key))
    return table


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises:
        BadFile: What :func:`read_text` raises, malformed JSON (with line and column), or a number beyond all use.
    """
    return parse_json(read_text(path), os.fspath(path))


def parse_json(text: str, where: str) -> Any:
    """What JSON ``text`` from ``where`` holds; faults as in :func:`read_json`."""
    value = _parse_json(text, where, first_line=1)
    _check_numbers(value, where, lambda key: places.json_line(text, key))
    return value


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line of a JSON Lines file; blank lines are skipped.

    Raises:
        BadFile: What :func:`read_json` raises, or a line that is not an object. Lines before the fault are yielded first.
    """
    where = os.fspath(path)
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        value = _parse_json(line, where, first_line=number)
        if not isinstance(value, dict):
            raise BadFile("SP-FILE-009", where=_at(where, number, 1), found=type_name(value))
        _check_numbers(value, where, lambda key, at=number: at)
        yield number, value


def _parse_json(text: str, where: str, *, first_line: int) -> Any:
    def refuse(constant: str) -> Any:
        raise BadFile("SP-FILE-010", where=where, value=constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        at = _at(where, error.lineno + first_line - 1, error.colno)
        raise BadFile("SP-FILE-007", where=at, problem=Foreign("files.json", error.msg)) from error
    except RecursionError as error:
        raise BadFile("SP-FILE-008", where=_at(where, first_line, 1)) from error
    except ValueError as error:  # an integer of more digits than Python reads
        raise BadFile("SP-FILE-010", where=_at(where, first_line, 1), value="...") from error


def line_of(text: str, dotted_key: str) -> int | None:
    """Line of a key such as ``memory.capacity_bytes`` or ``measured[2].source`` in TOML ``text``; None where absent.

    A key that the text lacks gives the line of the nearest table above it that the text has.
    """
    return places.toml_line(text, dotted_key)


def decode(type_: type[T], obj: Any, where: str | os.PathLike[str], *, text: str | None = None) -> T:
    """``obj`` as ``type_``, checked.

    Args:
        type_: A msgspec Struct or any type that msgspec converts to.
        obj: What a reader of this module returned.
        where: The file that ``obj`` came from (or another place, which the error then names).
        text: The file's text, to find the line; without it the file is read again, only when there is a fault.

    Raises:
        BadFile: A field that is missing, unknown or of the wrong type, with its path and line.
    """
    try:
        return msgspec.convert(obj, type_)
    except msgspec.ValidationError as error:
        raise _fault(error, type_, os.fspath(where), text) from error
    except RecursionError as error:
        raise BadFile("SP-FILE-008", where=os.fspath(where)) from error


_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`")
_MISSING_FIELD = re.compile(r"Object missing required field `(.*)`")


def _fault(error: msgspec.ValidationError, type_: Any, where: str, text: str | None) -> BadFile:
    message = str(error)
    found = re.search(r" - at `(?:key in )?(\$.*)`$", message, re.DOTALL)
    problem = message[: found.start()] if found else message
    path = (found[1] if found else "$").removeprefix("$").removeprefix(".")
    unknown = _UNKNOWN_FIELD.fullmatch(problem)
    if unknown:
        key = f"{path}.{unknown[1]}" if path else unknown[1]
        near = difflib.get_close_matches(unknown[1], _fields_at(type_, path), n=3)
        code = "SP-FILE-012" if near else "SP-FILE-011"
        fields = ", ".join(f"`{name}`" for name in (near or _fields_at(type_, path)))
        return BadFile(code, where=_at_key(where, text, key), field=key, known=fields)
    missing = _MISSING_FIELD.fullmatch(problem)
    if missing:
        key = f"{path}.{missing[1]}" if path else missing[1]
        return BadFile("SP-FILE-013", where=_at_key(where, text, path), field=key)
    return BadFile("SP-FILE-014", where=_at_key(where, text, path), field=path or "$", problem=Foreign("files.field", problem))


def _fields_at(type_: Any, path: str) -> list[str]:
    """Field names of the struct that ``path`` leads to from ``type_``; empty where the path leaves the structs."""
    for part in [part for part in re.split(r"[.\[\]]+", path) if part]:
        struct = _struct_in(type_)
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)} if struct else {}
        if part in fields:
            type_ = fields[part]
    struct = _struct_in(type_)
    return [field.encode_name for field in msgspec.structs.fields(struct)] if struct else []


def _struct_in(type_: Any) -> Any:
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return type_
    return next((found for arg in typing.get_args(type_) if (found := _struct_in(arg)) is not None), None)


def _at_key(where: str, text: str | None, key: str) -> str:
    suffix = Path(where).suffix
    if text is None and suffix in (".toml", ".json"):
        with contextlib.suppress(BadFile):
            text = read_text(where)
    if text is None or not key:
        return where
    return _at(where, (places.json_line if suffix == ".json" else places.toml_line)(text, key), None)


def _check_numbers(value: Any, where: str, line: Any) -> None:
    """Refuse nan, infinities and integers beyond 64 bits: no file of ours means one, and they break arithmetic later."""
    stack = [("", value)]
    while stack:
        key, item = stack.pop()
        if isinstance(item, dict):
            stack += [(f"{key}.{name}" if key else str(name), sub) for name, sub in item.items()]
        elif isinstance(item, list):
            stack += [(f"{key}[{index}]", sub) for index, sub in enumerate(item)]
        elif (isinstance(item, float) and not math.isfinite(item)) or (isinstance(item, int) and abs(item) > _MAX_INT):
            shown = str(item) if isinstance(item, float) or abs(item) < 10**40 else "..."
            raise BadFile("SP-FILE-010", where=f"{_at(where, line(key), None)} {key}".strip(), value=shown)


def type_name(value: Any) -> str:
    """What a user calls the type of a parsed value: string, number, list, table, true/false, null."""
    if value is None:
        return "null"
    names = {bool: "true/false", int: "number", float: "number", str: "string", list: "list", dict: "table"}
    return names.get(type(value), type(value).__name__)


def write_atomic(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Write the whole of ``data`` (text as UTF-8) to ``path``, or leave ``path`` as it was.

    Makes missing folders. A path that is no regular file (``/dev/stdout``, a pipe) is written to and not replaced.

    Raises:
        BadFile: The system refuses.
    """
    raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    target = os.path.realpath(path)
    try:
        if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
            if os.path.isdir(target):
                raise BadFile("SP-FILE-002", where=os.fspath(path))
            with open(target, "wb") as file:
                file.write(raw)
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _replace(target, raw)
    except (OSError, ValueError) as error:
        raise BadFile("SP-FILE-015", where=os.fspath(path), problem=_os_problem(error)) from error


def _replace(target: str, raw: bytes) -> None:
    part = os.path.join(os.path.dirname(target), f".{os.path.basename(target)[:200]}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            os.chmod(part, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until the disk has a file, or the names in a folder; a system that cannot open folders does it by itself."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _os_problem(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _toml_place(message: str, text: str) -> tuple[str, int, int]:
    """Problem, line and column of a tomllib message, whose place is in its words alone before Python 3.14."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if not found:
        return message, *_line_column(text, 0)
    if found[2]:
        return found[1], int(found[2]), int(found[3])
    return found[1], *_line_column(text, len(text))


def _line_column(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _at(where: str, line: int | None, column: int | None) -> str:
    return ":".join([where, *(str(n) for n in (line, column) if n is not None)])
