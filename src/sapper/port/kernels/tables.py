"""What CUDA's names are called elsewhere: ``data/kernels/*``, tables with the source of each.

A name is looked up whole (``at::cuda::CUDAGuard``), then by its parts, and at last by the patterns for parts of names.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from sapper import files

Stack = Literal["musa", "hip"]
STACKS: tuple[Stack, ...] = ("musa", "hip")

_DATA = Path(__file__).parent.parent / "data" / "kernels"
_NONE = "-"


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where rows of a table were read."""

    url: str
    date: str
    what: str


class Paths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How files are called on the other stack."""

    words: tuple[tuple[str, str], ...]
    suffixes: dict[str, str]
    twin: str
    """Put before the suffix where nothing else in the path changes."""

    def renamed(self, path: str) -> str:
        """The path of the converted file, never ``path`` itself."""
        new = self.reworded(path)
        if new != path:
            return new
        stem, dot, suffix = path.rpartition(".")
        return f"{stem}{self.twin}{dot}{suffix}"

    def reworded(self, path: str) -> str:
        """The path with the stack's words and suffixes; ``path`` itself where it has none of CUDA's."""
        for old, word in self.words:
            path = path.replace(old, word)
        stem, dot, suffix = path.rpartition(".")
        return f"{stem}{self.suffixes[dot + suffix]}" if dot + suffix in self.suffixes else path


class Pattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part of a name, as a regular expression, and what takes its place."""

    pattern: str
    to: str


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A macro that CUDA's code compares with NVIDIA's numbers."""

    macro: str
    always: int
    """Up to this number the other stack passes."""
    equivalent: dict[str, int] = {}
    """Its own number for one of NVIDIA's."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sources: tuple[Origin, ...]
    prose: bool
    paths: Paths
    words: tuple[Pattern, ...]
    names: dict[str, str]
    headers: dict[str, str]
    undefined: dict[str, str]
    unsettled: dict[str, tuple[str, ...]]
    architecture: Threshold | None = None
    version: Threshold | None = None
    table: str | None = None
    runtime: str | None = None


class Table:
    """The tables of one stack."""

    def __init__(self, file: _File, rows: _Rows) -> None:
        self.sources = file.sources
        self.prose = file.prose
        """Are comments and messages renamed with the code?"""
        self.paths = file.paths
        self.headers: Mapping[str, str] = {**{name: f"<{new}>" if new else "" for name, new in rows.headers.items()}, **file.headers}
        """With the brackets that they get; empty where there is none to include."""
        self.undefined = file.undefined
        self.thresholds = [threshold for threshold in (file.architecture, file.version) if threshold]
        self.runtime = file.runtime
        """The header that a file without any gets; None where the compiler includes it."""
        self.arguments = rows.arguments
        """Of a function: the arguments to be wrapped, with the wrapper."""
        self.second = rows.second
        """Names that hold where ``cublas_v2.h`` is included."""
        self._unsettled = file.unsettled
        self._names = {**rows.names, **file.names}
        self._deepest = max(name.count("::") + 1 for name in self._names)
        self._missing = rows.missing - self._names.keys()
        self._words = [(re.compile(word.pattern), word.to) for word in file.words]
        self._known: dict[str, str] = {}

    def word(self, word: str) -> str:
        """What a name, qualified or not, is called; itself where it stays."""
        found = self._known.get(word)
        if found is None:
            found = self._known[word] = self._looked_up(word)
        return found

    def missing(self, word: str) -> bool:
        """Is it known that the other stack has no such name?"""
        return word in self._missing or word.rpartition("::")[2] in self._missing

    def settles(self, work: str, symbol: str) -> bool:
        """Do the names settle a finding of that kind of work?"""
        return not any(fnmatch.fnmatchcase(symbol, name) for name in self._unsettled.get(work, ()))

    def _looked_up(self, word: str) -> str:
        parts = word.split("::")
        for count in range(min(len(parts), self._deepest), 1, -1):
            whole = self._names.get("::".join(parts[:count]))
            if whole is not None:
                return "::".join([whole, *map(self._part, parts[count:])])
        return "::".join(map(self._part, parts))

    def _part(self, part: str) -> str:
        whole = self._names.get(part)
        if whole is not None:
            return whole
        if part in self._missing:
            return part
        for pattern, to in self._words:
            part = pattern.sub(to, part)
        return part


class _Rows(msgspec.Struct):
    """A table of names by tabs."""

    names: dict[str, str] = {}
    headers: dict[str, str] = {}
    second: dict[str, str] = {}
    arguments: dict[str, list[tuple[int, str]]] = {}
    missing: set[str] = set()


@functools.cache
def table(stack: Stack, *, roc: bool = False) -> Table:
    """The tables of a stack.

    Args:
        stack: Whose names.
        roc: Of HIP: the names of the roc libraries (``rocblas_sgemm``) in place of the portable ones (``hipblasSgemm``).
    """
    path = _DATA / f"{stack}.toml"
    file = files.decode(_File, files.read_toml(path), path)
    return Table(file, _rows(_DATA / file.table, roc=roc) if file.table else _Rows())


def _rows(path: Path, *, roc: bool) -> _Rows:
    rows = _Rows()
    for line in files.read_text(path).splitlines():
        if line.startswith("#"):
            continue
        kind, cuda, hip, library = line.split("\t")
        new = library if roc and library else hip
        if kind == "argument":
            rows.arguments.setdefault(cuda, []).append((int(hip), library))
        elif new == _NONE:
            rows.missing.add(cuda)
        elif kind == "header":
            rows.headers[cuda] = new
        elif kind == "v2":
            rows.second[cuda] = new
        else:
            rows.names[cuda] = new
    return rows
