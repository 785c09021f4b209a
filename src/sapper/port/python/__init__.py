"""Python: what ties a file to CUDA, found in its syntax tree; nothing is imported or run.

:func:`analyse` reads one file and runs in a worker. What files give to one another (names of CUDA's that they export again,
helpers that hand out what CUDA answered) is joined by :func:`index`; a file is analysed with what of it is :func:`given_to` the
file. :func:`resolve` gives the findings of all.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import msgspec

from sapper.port.finding import Finding, Unread
from sapper.port.python import carried, optional, purpose, tolerant
from sapper.port.python import index as index_module
from sapper.port.python.carrier import Carrier
from sapper.port.python.index import EMPTY, Export, Index, Ledger
from sapper.port.python.lines import Lines
from sapper.port.python.match import Matcher
from sapper.port.python.module import Module
from sapper.port.rule import Rule
from sapper.port.source import Source

Detector = Callable[[Module, Rule], Iterator[Finding]]

ROUNDS = index_module.ROUNDS
_ATTEMPTS = 4
"""Readings of a file; the last is of the whole text."""


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """What one file says."""

    path: str
    findings: tuple[Finding, ...] = ()
    unread: tuple[Unread, ...] = ()
    exports: tuple[Export, ...] = ()
    """Names of CUDA's that other files can import from this one."""
    carriers: tuple[Carrier, ...] = ()
    """What other files can import from this one that carries what CUDA answered."""


def analyse(source: Source, rules: Mapping[str, Rule], *, known: Index = EMPTY) -> Analysis:
    """Read one file.

    Args:
        source: The file.
        rules: By code.
        known: What the other files of the project give to it.
    """
    matcher = _matcher(rules)
    lines = Lines(source.text)
    if not known and not lines.said(matcher.words):
        return Analysis(path=source.path)
    try:
        return _analysed(source, lines, matcher, known)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _broken(source, matcher, known, getattr(error, "lineno", None))


def _broken(source: Source, matcher: Matcher, known: Index, line: int | None) -> Analysis:
    """What can be read of a file that does not parse."""
    unread = Unread(path=source.path, code="SP-PYTHON-001", line=line)
    repaired = tolerant.repair(source.text)
    if repaired is None:
        return Analysis(path=source.path, unread=(unread,))
    try:
        module = Module(source, words=matcher.words, interesting=matcher.interesting, known=known, mended=repaired.text)
        found = [*_all(module, matcher), *matcher.in_text(module, repaired.lost)]
    except (RecursionError, MemoryError):
        return Analysis(path=source.path, unread=(unread,))
    module.memo.clear()
    partly = msgspec.structs.replace(unread, scanned="partly")
    told = ordered(_telling(found, matcher.rules))
    return Analysis(path=source.path, findings=told, unread=(partly,), exports=tuple(index_module.exports(module)))


def _analysed(source: Source, lines: Lines, matcher: Matcher, known: Index) -> Analysis:
    """Read a file that parses, again with what must be followed and is not in the tree: optional imports and what carries CUDA."""
    sought: set[int] | None = set()
    for attempt in range(_ATTEMPTS):
        module = Module(source, words=matcher.words, interesting=matcher.interesting, known=known, sought=sought, lines=lines)
        optional.imports(module)
        carried.uses(module)
        if not module.missed:
            break
        module.memo.clear()
        sought = {*(sought or ()), *module.missed} if attempt + 2 < _ATTEMPTS else None
    found = ordered(_telling(_all(module, matcher), matcher.rules))
    analysis = Analysis(path=source.path, findings=found, exports=tuple(index_module.exports(module)), carriers=tuple(_carriers(module)))
    module.memo.clear()  # what detectors keep there leads back to the module, and would keep it alive
    return analysis


def _all(module: Module, matcher: Matcher) -> list[Finding]:
    """What all rules find in a file, by what each name is asked for."""
    return list(purpose.told_apart(module, [*matcher.findings(module), *_detected(module, matcher)], matcher.rules))


def index(analyses: Iterable[Analysis]) -> Index:
    """What the files give to one another."""
    ledger = Ledger()
    for analysis in analyses:
        ledger.add(analysis.exports, analysis.carriers)
    return ledger.index


def imports(data: bytes, path: str) -> tuple[str, ...]:
    """What the file of this content at ``path`` imports: qualified names, ``pkg.*`` for all of a module."""
    return tuple(dict.fromkeys(index_module.imports(data, path)))


def may_concern(imported: Iterable[str], known: Index) -> bool:
    """May a file that imports these names take what another file gives away? :func:`given_to` knows for certain."""
    return index_module.may_concern(imported, known)


def given_to(data: bytes, imported: Iterable[str], known: Index) -> Index:
    """What other files give to the file of this content, which imports these names."""
    return index_module.given_to(data, imported, known)


def resolve(analyses: Iterable[Analysis], rules: Mapping[str, Rule]) -> list[Finding]:
    """Findings of all files, with what they say about one another."""
    return [finding for analysis in analyses for finding in analysis.findings]


def _carriers(module: Module) -> Iterator[Carrier]:
    """What ``module`` gives away that carries what CUDA answered: its own, and what it imports from another file."""
    yield from carried.exports(module)
    for name, qualified in module.bindings.everywhere():
        carrier = module.known.carriers.get(qualified)
        if carrier is not None:
            yield msgspec.structs.replace(carrier, name=f"{module.name}.{name}")


_QUIETER = {"cuda-named": 2, "text-names-cuda": 3}
"""Rules that speak only where none before them does; what carries CUDA speaks where nothing ties."""


def _telling(findings: list[Finding], rules: Mapping[str, Rule]) -> Iterator[Finding]:
    """Without what only carries CUDA, is only named after it, or only tells of it, on a line that another finding is about."""
    ranks = [_QUIETER.get(rules[finding.code].name, 1 if rules[finding.code].klass == "carried" else 0) for finding in findings]
    loudest: dict[int, int] = {}
    for finding, rank in zip(findings, ranks, strict=True):
        line = finding.place.line
        loudest[line] = min(rank, loudest.get(line, rank))
    for finding, rank in zip(findings, ranks, strict=True):
        if rank == loudest[finding.place.line]:
            yield finding


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By place and code, none twice."""
    unique = {(finding.place, finding.code): finding for finding in findings}
    return tuple(unique[key] for key in sorted(unique, key=lambda key: (key[0].path, key[0].line, key[0].column, key[1])))


def _detected(module: Module, matcher: Matcher) -> Iterator[Finding]:
    for rule in matcher.rules.values():
        if rule.match.detector is not None:
            yield from detector(rule.match.detector)(module, rule)


@functools.cache
def detector(name: str) -> Detector:
    """The function ``name`` of the module ``name`` in ``detectors``."""
    return cast(Detector, getattr(importlib.import_module(f"sapper.port.python.detectors.{name}"), name))


_compiled: list[tuple[Mapping[str, Rule], Matcher]] = []


def _matcher(rules: Mapping[str, Rule]) -> Matcher:
    """The compiled form of ``rules``; one is kept, since a scan asks for the same rules with every file."""
    if not _compiled or _compiled[0][0] is not rules:
        _compiled[:] = [(rules, Matcher(rules))]
    return _compiled[0][1]
