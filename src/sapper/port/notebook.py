"""Notebooks: their code cells as one Python module, and what their cells give to a shell.

Lines of IPython (``%time``, ``!pip install``, ``%%bash``) are no Python. Each is replaced by ``pass`` where it stands, so
that the rest parses and lines and columns stay; what a shell would run is kept apart, at the same lines and columns.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from sapper.port.finding import Finding, Place, Unread, UnusedKeep
from sapper.port.source import Cell, Source

_SHELL_CELLS = ("%%bash", "%%sh", "%%shell", "%%script", "%%system")
_PYTHON_CELLS = ("%%time", "%%timeit", "%%capture", "%%prun", "%%px", "%%python", "%%python3", "%%memit")
"""Cell magics whose cell is Python all the same."""
_MAGIC_LINE = re.compile(r"(\s*)(!|%|\?)(.*)")
_ASSIGNED = re.compile(r"(\s*)(?!\s)([\w.,\s]+=\s*)([!%])(.*)")
_SHELL_MAGIC = re.compile(r"%(?:pip|conda|mamba|uv|env|set_env|sx|system)\b")


def source(text: str, relative: str, *, encoding: str) -> Source | Unread:
    """The notebook that ``text`` is, or why it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = error.lineno if isinstance(error, json.JSONDecodeError) else None
        return Unread(path=relative, code="SP-READ-005", line=where)
    if not isinstance(document, dict):
        return Unread(path=relative, code="SP-READ-005")
    python: list[str] = []
    shell: list[str] = []
    cells = []
    for number, lines in _code_cells(document):
        cells.append(Cell(number, len(python) + 1))
        for as_python, as_shell in _split(lines):
            python.append(as_python)
            shell.append(as_shell)
    shells = "\n".join(shell) if any(shell) else ""
    return Source(path=relative, language="notebook", text="\n".join(python), encoding=encoding, cells=tuple(cells), shell=shells)


def _code_cells(document: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Number and lines of each code cell, whose kernel is Python's; formats 3 (worksheets) and 4."""
    language = _at(document, "metadata", "kernelspec", "language") or _at(document, "metadata", "language_info", "name") or "python"
    if not str(language).lower().startswith(("python", "ipython")):
        return
    found = document.get("cells")
    if not isinstance(found, list):
        sheets = [sheet for sheet in _list(document.get("worksheets")) if isinstance(sheet, dict)]
        found = [cell for sheet in sheets for cell in _list(sheet.get("cells"))]
    for number, cell in enumerate(found, 1):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            text = cell.get("source", cell.get("input"))
            text = "".join(part for part in text if isinstance(part, str)) if isinstance(text, list) else text
            if isinstance(text, str) and text:
                yield number, text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _split(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each line as Python and as shell; of either, what is not its own is blank or ``pass``."""
    head = lines[0].split()[0] if lines[0].split() else ""
    if head.startswith("%%"):
        shell = head in _SHELL_CELLS
        if head not in _PYTHON_CELLS:
            yield from (("", line if shell and at else "") for at, line in enumerate(lines))
            return
        yield "", ""
        lines = lines[1:]
    continued: str | None = None
    for line in lines:
        if continued is not None:
            yield "", line if continued == "shell" else ""
            continued = continued if line.endswith("\\") else None
            continue
        as_python, as_shell = _line(line)
        if as_python != line and line.endswith("\\"):
            continued = "shell" if as_shell else "magic"
        yield as_python, as_shell


def _line(line: str) -> tuple[str, str]:
    found = _MAGIC_LINE.fullmatch(line)
    if found:
        indent, sign, _ = found.groups()
        shell = sign == "!" or _SHELL_MAGIC.match(line, len(indent))
        return f"{indent}pass", line.replace(sign, " ", 1) if shell else ""
    found = _ASSIGNED.fullmatch(line)
    if found:
        indent, target, sign, rest = found.groups()
        return f"{indent}{target}None", " " * (len(indent) + len(target) + 1) + rest if sign == "!" else ""
    return line, ""


def in_cells(findings: Sequence[Finding], cells: Sequence[Cell]) -> list[Finding]:
    """``findings`` in the text of a notebook as findings in its cells."""
    moved = []
    for finding in findings:
        place = finding.place
        cell = _cell_at(place.line, cells)
        up = cell.first_line - 1
        place = Place(place.path, place.line - up, place.column, place.end_line - up, place.end_column, cell.number)
        moved.append(msgspec.structs.replace(finding, place=place))
    return moved


class InCell(NamedTuple):
    """A line of a file, in its cell where the file is a notebook."""

    line: int
    cell: int | None


def place(source: Source | None, line: int) -> InCell:
    """Where a line of a file's text stands."""
    if source is None or not source.cells:
        return InCell(line, None)
    cell = _cell_at(line, source.cells)
    return InCell(line - cell.first_line + 1, cell.number)


def in_text(finding: Finding, sources: Mapping[str, Source]) -> Finding:
    """A finding in a cell of a notebook as one in the notebook's text; others as they are."""
    place, source = finding.place, sources.get(finding.place.path)
    if place.cell is None or source is None:
        return finding
    down = next((cell.first_line - 1 for cell in source.cells if cell.number == place.cell), 0)
    moved = msgspec.structs.replace(place, line=place.line + down, end_line=place.end_line + down, cell=None)
    return msgspec.structs.replace(finding, place=moved)


def keeps_in_cells(unused: Sequence[UnusedKeep], cells: Sequence[Cell]) -> list[UnusedKeep]:
    """Comments that keep nothing, by cell."""
    at = [(keep, _cell_at(keep.line, cells)) for keep in unused]
    return [msgspec.structs.replace(keep, line=keep.line - cell.first_line + 1, cell=cell.number) for keep, cell in at]


def _cell_at(line: int, cells: Sequence[Cell]) -> Cell:
    return cells[max(bisect_right(cells, line, key=lambda cell: cell.first_line) - 1, 0)]
