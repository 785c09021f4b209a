"""The verdict tables: what becomes of a coupling on a target, and what one sees if nothing is done.

``data/verdicts/*.toml`` hold rows, each a claim with a source that was read; ``data/silences.toml`` holds what code that
is left as it is does on a stack whose PyTorch has no CUDA. The most particular row counts: the API or package itself,
then a pattern that it matches (the longest), then the rule, then the rule's class; a rule about what a name is used for
comes before the name. Two rows for one key and target are a
fault of the tables, which a test finds.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from sapper import files
from sapper.port.finding import Finding
from sapper.port.rule import Class, Reference, rules
from sapper.port.target import Target
from sapper.port.verdict import UNKNOWN, Cell, Silence, Status

_DATA = Path(__file__).parent / "data"

T = TypeVar("T")


class Scope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a row speaks of."""

    symbols: tuple[str, ...] = ()
    """Qualified names and packages (by distribution name), ``*`` at the end for any rest."""
    rules: tuple[str, ...] = ()
    """Codes of rules."""
    classes: tuple[Class, ...] = ()
    """Classes of rules; only where the source says it of the whole class."""
    targets: tuple[str, ...] = ()
    """Empty: those of the file."""
    source: str | None = None
    """A key of the file's ``sources``."""


class Row(Scope, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim of ``data/verdicts/*.toml``; ``{name}`` in ``equivalent`` is the symbol without ``torch.cuda.``."""

    status: Status
    silence: Silence | None = None
    equivalent: str | None = None
    note_en: str | None = None
    note_zh: str | None = None


class SilenceRow(Scope, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim of ``data/silences.toml``."""

    silence: Silence


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of ``data/verdicts``."""

    targets: tuple[str, ...]
    sources: dict[str, Reference] = {}
    cells: tuple[Row, ...] = ()


class SilenceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``data/silences.toml``."""

    targets: tuple[str, ...]
    sources: dict[str, Reference] = {}
    cells: tuple[SilenceRow, ...] = ()


class _Index(dict[tuple[str, str], T]):
    """Claims by (target, key), where a key is a symbol, a pattern, a rule's code or ``class:`` and a class."""

    def patterns(self, target: str) -> tuple[str, ...]:
        """Patterns of ``target``, the longest first, without their ``*``."""
        known = self.__dict__.setdefault("known", {})
        if target not in known:
            found = {key[:-1] for name, key in self if name == target and key.endswith("*")}
            known[target] = tuple(sorted(found, key=lambda prefix: (-len(prefix), prefix)))
        patterns: tuple[str, ...] = known[target]
        return patterns

    def find(self, finding: Finding, target: str) -> tuple[T, str] | None:
        """The most particular claim, and the symbol that it was found by."""
        rule = rules().get(finding.code)
        if rule is not None and rule.of_use and (target, rule.code) in self:
            return self[target, rule.code], finding.symbol
        symbols = _symbols(finding)
        for symbol in symbols:
            if (target, symbol) in self:
                return self[target, symbol], symbol
        for symbol in symbols:
            for prefix in self.patterns(target):
                if symbol.startswith(prefix):
                    return self[target, f"{prefix}*"], symbol
        for key in (finding.code, f"class:{rule.klass}" if rule else ""):
            if (target, key) in self:
                return self[target, key], finding.symbol
        return None


def verdict(finding: Finding, target: Target) -> Cell:
    """What becomes of ``finding`` on ``target``; :data:`~sapper.port.verdict.UNKNOWN` where no row speaks of it."""
    found = _cells().find(finding, target.name)
    cell = UNKNOWN
    if found:
        cell, symbol = found
        name = symbol.removeprefix("torch.cuda.")
        cell = msgspec.structs.replace(cell, equivalent=cell.equivalent and cell.equivalent.replace("{name}", name))
    silent = None if cell.silence or cell.status == "works" else _silences().find(finding, target.name)
    if silent:
        silence, reference = silent[0]
        cell = msgspec.structs.replace(cell, silence=silence, silence_source=reference.url, silence_date=reference.date)
    return cell


def _symbols(finding: Finding) -> list[str]:
    """Names by which a row may speak of ``finding``, the most particular first.

    An import such as ``flash_attn.layers.rotary`` is also its package ``flash-attn``.
    """
    names = [finding.symbol]
    if package := finding.values.get("package"):
        names.append(_distribution(package))
    names.append(_distribution(finding.symbol))
    parts = finding.symbol.split(".")
    imports = _imports()
    for count in range(len(parts), 0, -1):
        if package := imports.get(".".join(parts[:count])):
            names.append(package)
            break
    return list(dict.fromkeys(names))


def _distribution(name: str) -> str:
    name = name.lower().replace("_", "-")
    return _spellings().get(name, name)


@functools.cache
def packages() -> dict[str, dict[str, list[str]]]:
    """Names of one piece of software, by distribution: modules (``imports``) and other distributions (``also``)."""
    tables: dict[str, dict[str, list[str]]] = files.read_toml(_DATA / "packages.toml")
    return tables


@functools.cache
def _imports() -> dict[str, str]:
    """Package by module name."""
    return {module: package for package, names in packages().items() for module in names.get("imports", [])}


@functools.cache
def _spellings() -> dict[str, str]:
    """Package by another distribution name of the same software, such as ``cupy-cuda12x``."""
    return {other: package for package, names in packages().items() for other in names.get("also", [])}


def tables() -> dict[str, Table]:
    """The verdict tables by file name without suffix."""
    return {path.stem: files.decode(Table, files.read_toml(path), path) for path in sorted((_DATA / "verdicts").glob("*.toml"))}


def silence_table() -> SilenceTable:
    """What is seen of code left as it is."""
    path = _DATA / "silences.toml"
    return files.decode(SilenceTable, files.read_toml(path), path)


def keys_of(scope: Scope, default: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The (target, key) pairs that a row speaks of; ``default`` are the targets of its file."""
    keys = [*scope.symbols, *scope.rules, *(f"class:{klass}" for klass in scope.classes)]
    return ((target, key) for target in scope.targets or default for key in keys)


@functools.cache
def _cells() -> _Index[Cell]:
    index: _Index[Cell] = _Index()
    for table in tables().values():
        for row in table.cells:
            reference = table.sources[row.source] if row.source else None
            cell = Cell(
                status=row.status,
                silence=row.silence,
                equivalent=row.equivalent,
                note_en=row.note_en,
                note_zh=row.note_zh,
                source=reference.url if reference else None,
                date=reference.date if reference else None,
            )
            index.update(dict.fromkeys(keys_of(row, table.targets), cell))
    return index


@functools.cache
def _silences() -> _Index[tuple[Silence, Reference]]:
    table = silence_table()
    index: _Index[tuple[Silence, Reference]] = _Index()
    for row in table.cells:
        if row.source is None:
            raise ValueError(f"silences.toml: a row without source: {row}")
        index.update(dict.fromkeys(keys_of(row, table.targets), (row.silence, table.sources[row.source])))
    return index
