"""Kinds of work beyond new names: ``data/kernels/work.toml``, read from the findings of the scan."""

from __future__ import annotations

import fnmatch
import functools
from pathlib import Path
from typing import Literal

import msgspec

from sapper import files, messages
from sapper.port.finding import Finding

Kind = Literal["rename", "warp", "ptx", "rewrite"]
KINDS: tuple[Kind, ...] = ("rename", "warp", "ptx", "rewrite")
"""Of a file, from the least work to the most."""

_DATA = Path(__file__).parent.parent / "data" / "kernels" / "work.toml"


class Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of line."""

    name: str
    kind: Kind
    """Of a file that has such a line and no harder one."""
    rules: tuple[str, ...]
    settled: bool
    """Can a stack's table of names settle it?"""
    en: str
    zh: str
    symbols: tuple[str, ...] = ("*",)

    def covers(self, finding: Finding) -> bool:
        """Is the finding of this kind?"""
        return finding.code in self.rules and any(fnmatch.fnmatchcase(finding.symbol, symbol) for symbol in self.symbols)

    def label(self) -> str:
        """For a reader, in the language in force."""
        return self.zh if messages.language() == "zh" else self.en


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    convert: frozenset[str]
    work: tuple[Work, ...]


@functools.cache
def _file() -> _File:
    return files.decode(_File, files.read_toml(_DATA), _DATA)


def works() -> tuple[Work, ...]:
    """All kinds of lines, the least first."""
    return _file().work


def label(name: str) -> str:
    """A work's name for a reader; of a name that the stack does not have as well."""
    return next((work.label() for work in works() if work.name == name), messages.text("port.kernels.missing"))


def asks_for_conversion(finding: Finding) -> bool:
    """Is a file of plain C++ converted because of this finding?"""
    return finding.standing == "ties" and finding.code in _file().convert


def work_of(finding: Finding) -> Work | None:
    """What a finding asks for beyond a new name; None where that is all."""
    return next((work for work in reversed(works()) if work.covers(finding)), None)
