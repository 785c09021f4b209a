"""``sapper chips check``: every fault of every file, and what only several files together show."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence

import msgspec

from sapper.chips.catalogue import Catalogue, chip_files
from sapper.chips.faults import Fault
from sapper.chips.parse import Parsed, parse
from sapper.chips.schema import System
from sapper.errors import BadFile
from sapper.files import parse_toml, read_text

_PLACE = re.compile(r"(.*?)(?::(\d+)(?::\d+)?)?(?: (\S+))?", re.DOTALL)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What checking found."""

    files: int
    faults: tuple[Fault, ...]
    unreadable: int
    """Files that could not be read at all; their faults are among ``faults``."""


def check_files(paths: Sequence[str], *, among: Catalogue | None = None) -> Report:
    """Check chip files and folders of them.

    Args:
        paths: Files or folders.
        among: The catalogue that the files must not collide with; None checks them by themselves.

    Raises:
        BadFile: A path that is neither a file nor a folder.
    """
    faults: list[Fault] = []
    parsed: list[tuple[str, str, Parsed]] = []
    unreadable = 0
    files = chip_files(paths)
    for path in files:
        try:
            text = read_text(path)
            parsed.append((path, text, parse(parse_toml(text, path), where=path, text=text)))
        except BadFile as error:
            unreadable += 1
            faults.append(_unreadable(error, path))
    for _, _, found in parsed:
        faults += found.faults
    faults += _between(parsed, among)
    return Report(files=len(files), faults=tuple(sorted(faults, key=lambda f: (f.file, f.line or 0))), unreadable=unreadable)


def _between(parsed: Sequence[tuple[str, str, Parsed]], among: Catalogue | None) -> list[Fault]:
    """Ids borne twice, and systems of chips that are not there."""
    faults = []
    first: dict[str, str] = {}
    if among is not None:
        first = {head.id: head.path for index in (among.names, among.system_names) for head in index.heads.values()}
    for path, text, found in parsed:
        if found.entry is None:
            continue
        owner = first.setdefault(found.entry.id, path)
        if os.path.realpath(owner) != os.path.realpath(path):
            faults.append(_fault(path, text, "id", found.entry.id, "SP-CHIP-034", first=owner))
    for path, text, found in parsed:
        if isinstance(found.entry, System) and found.entry.chip not in first:
            near = ", ".join(f"`{id_}`" for id_ in difflib.get_close_matches(found.entry.chip, first, n=3)) or "-"
            faults.append(_fault(path, text, "chip", found.entry.chip, "SP-CHIP-035", near=near))
    return faults


def _fault(path: str, text: str, field: str, value: str, code: str, **values: str) -> Fault:
    from sapper.files import line_of

    return Fault(
        file=path, line=line_of(text, field), field=field, value=value, code=code, values={"field": field, "value": value, **values},
    )


def _unreadable(error: BadFile, path: str) -> Fault:
    match = _PLACE.fullmatch(error.where or path)
    line = int(match[2]) if match and match[2] else None
    return Fault(file=path, line=line, field=(match[3] if match and match[3] else ""), value="", code=error.code, values=error.values)
