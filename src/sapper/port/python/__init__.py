"""Python: what ties a file to CUDA, found in its syntax tree; nothing is imported or run.

:func:`analyse` reads one file and runs in a worker; :func:`resolve` joins what the files say about one another (names
that a file re-exports, helpers that hand out CUDA) and reads those files again that use them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import msgspec

from sapper.port.finding import Finding, Unread
from sapper.port.python.match import Matcher
from sapper.port.python.module import Module
from sapper.port.rule import Rule
from sapper.port.source import Source

Detector = Callable[[Module, Rule], Iterator[Finding]]


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """What one file says."""

    path: str
    findings: tuple[Finding, ...] = ()
    unread: tuple[Unread, ...] = ()


def analyse(source: Source, rules: Mapping[str, Rule]) -> Analysis:
    """Read one file."""
    matcher = _matcher(rules)
    if not matcher.words.search(source.text):
        return Analysis(path=source.path)
    try:
        module = Module(source, words=matcher.words, interesting=matcher.interesting)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        unread = Unread(path=source.path, code="SP-PYTHON-001", line=getattr(error, "lineno", None))
        return Analysis(path=source.path, unread=(unread,))
    found = [*matcher.findings(module), *_detected(module, matcher)]
    return Analysis(path=source.path, findings=ordered(found))


def resolve(analyses: Iterable[Analysis], rules: Mapping[str, Rule]) -> list[Finding]:
    """Findings of all files, with what they say about one another."""
    analyses = list(analyses)
    own = _own_packages(analysis.path for analysis in analyses)
    foreign = {code: rule for code, rule in rules.items() if rule.match.imports}
    return [
        finding
        for analysis in analyses
        for finding in analysis.findings
        if finding.code not in foreign or not _is_own(finding, foreign[finding.code], own)
    ]


_PACKAGE_DEPTH = 3
"""Folders above a package of the project's own, such as ``python/`` or ``libs/core/src/``."""


def _own_packages(paths: Iterable[str]) -> set[str]:
    """Import names that the scanned tree defines itself: its packages, and modules at its root."""
    own = set()
    for path in paths:
        *folders, name = path.split("/")
        if name == "__init__.py" and folders and len(folders) <= _PACKAGE_DEPTH + 1:
            own.add(folders[-1])
        elif not folders:
            own.add(name.removesuffix(".py"))
    return own


def _is_own(finding: Finding, rule: Rule, own: set[str]) -> bool:
    """Whether what the rule takes for a dependency is the project itself."""
    roots = {name.split(".")[0] for name in rule.match.imports}
    return finding.symbol.split(".")[0].replace("-", "_") in own & roots or (len(roots) == 1 and roots <= own)


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
