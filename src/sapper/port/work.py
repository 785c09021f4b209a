"""What a worker process does with one file: read it, pass it by, or give it to the scanner of its language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from sapper.port import native, notebook, python, suppress, text
from sapper.port.finding import Finding, Unread, UnusedKeep
from sapper.port.prefilter import Prefilter
from sapper.port.python.index import EMPTY, Index
from sapper.port.read import decoded, load, marked
from sapper.port.rule import Rule
from sapper.port.source import Language, Source
from sapper.port.walk import File

PYTHON: tuple[Language, ...] = ("python", "notebook")
_MOST_KEPT_BYTES = 64 * 2**20
_NATIVE: tuple[Language, ...] = ("cuda", "cpp")


class Outcome(msgspec.Struct, kw_only=True):
    """What became of one file."""

    file: File
    lines: int = 0
    findings: list[Finding] = []
    """Of a notebook: still with the lines of its text as one module."""
    unread: list[Unread] = []
    analysis: Any = None
    """What the Python scanner found and what it lets others know; None where the file was not parsed."""
    imports: tuple[str, ...] = ()
    """What a Python file imports."""
    given: Index = EMPTY
    """What other files give to it, as far as that was known when it was read."""
    heard: int = 0
    """How much was heard from other files by then."""
    suppresses: bool = False
    """Does a comment of the file keep findings?"""


class Again(NamedTuple):
    """A file that may be given more than was known when it was read."""

    file: File
    imports: tuple[str, ...]
    given: Index


class Worker:
    """The scanners with their rules, made once in each process."""

    def __init__(self, rules: Mapping[str, Rule], *, alone: bool = False) -> None:
        """``alone``: no other process reads the files of the scan."""
        self.rules = rules
        self._alone = alone
        self._kept: dict[str, bytes] = {}
        """Contents of files that told what they import and are read next, so that they need not be opened again."""
        self._kept_bytes = 0
        self._prefilter = Prefilter(rules.values())

    def imports(self, file: File) -> tuple[str, ...]:
        """What a file imports, where it is Python."""
        data = load(file.path, file.relative, file.language) if file.language in PYTHON else b""
        if isinstance(data, Unread):
            return ()
        if self._alone and self._kept_bytes + len(data) <= _MOST_KEPT_BYTES:
            self._kept[file.path] = data
            self._kept_bytes += len(data)
        return python.imports(data, file.relative)

    def first(self, file: File, imports: tuple[str, ...] = (), known: Index = EMPTY) -> Outcome:
        """A file for the first time: what it imports, where it is Python, and what is known of other files so far."""
        data: bytes | Unread = self._kept.pop(file.path, b"") or load(file.path, file.relative, file.language)
        if isinstance(data, Unread):
            return Outcome(file=file, unread=[data])
        if not self._prefilter.hits(data, file.language) and not _is_wide(data):
            return Outcome(file=file, lines=_line_count(data))
        return self._looked_at(data, file, imports, python.given_to(data, imports, known) if known else EMPTY)

    def again(self, read: Again, known: Index) -> Outcome | None:
        """A Python file with what other files give to it, if that is not what it was read with."""
        data = load(read.file.path, read.file.relative, read.file.language)
        if isinstance(data, Unread):
            return None
        given = python.given_to(data, read.imports, known)
        return None if given.says_as(read.given) else self._looked_at(data, read.file, read.imports, given)

    def _looked_at(self, data: bytes, file: File, imports: tuple[str, ...], given: Index) -> Outcome:
        source = decoded(data, file.relative, file.language)
        if isinstance(source, Unread):
            return Outcome(file=file, unread=[source])
        plain = file.language != "notebook" and not _is_wide(data)
        counted = data if plain else source.text.encode("utf-8", "replace")
        outcome = Outcome(file=file, lines=_line_count(counted), imports=imports, given=given, suppresses=suppress.speaks(source.text))
        if file.language in _NATIVE:
            outcome.findings = native.find(source, self.rules)
            return outcome
        if file.language in PYTHON:
            outcome.analysis = python.analyse(source, self.rules, known=given)
            outcome.unread = list(outcome.analysis.unread)
        if file.language == "python" and file.relative.rpartition("/")[2] != "setup.py":
            return outcome  # only a build file lists packages
        if file.language == "notebook":
            source = msgspec.structs.replace(source, language="shell", text=source.shell)
        outcome.findings = text.find(source, self.rules)
        return outcome


def source_of(file: File) -> Source | None:
    """A file again as text, where it still can be read."""
    data = load(file.path, file.relative, file.language)
    source = data if isinstance(data, Unread) else decoded(data, file.relative, file.language)
    return None if isinstance(source, Unread) else source


def settled(source: Source, findings: list[Finding], *, suppresses: bool) -> tuple[list[Finding], list[UnusedKeep]]:
    """Findings of one file, kept where its author says so, with the comments that keep nothing; of a notebook by cell."""
    unused: list[UnusedKeep] = []
    if suppresses:
        findings, unused = suppress.settle(suppress.keeps(source), findings)
    if source.cells:
        return notebook.in_cells(findings, source.cells), notebook.keeps_in_cells(unused, source.cells)
    return findings, unused


def _is_wide(data: bytes) -> bool:
    """Is a character more than one byte, so that no word stands in the bytes?"""
    return (marked(data) or "").startswith(("utf-16", "utf-32"))


def _line_count(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n") if data else 0)
