"""``scan``: every coupling of a tree, the same for any number of processes that look for them.

What files give to others (a helper of the project that returns a CUDA device, a name imported from ``torch.cuda`` and
exported again) is known before those that take it are read, as far as that goes; what was read before is read again.
Where there is enough to read, worker processes read. Nothing that is scanned is imported or run.

Most text is never looked at closely. A file without a word of the field (:mod:`~sapper.port.prefilter`) is passed by; of
the others, configuration is searched line by line where a word stands (:mod:`~sapper.port.text.excerpt`), and Python is
parsed without the statements that hold none (:mod:`~sapper.port.python.thin`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sapper.port import pool, python, vendors, walk
from sapper.port import rule as rule_module
from sapper.port.finding import Finding, Scan, UnusedKeep
from sapper.port.own import without_own
from sapper.port.rule import Rule
from sapper.port.work import Again, Outcome, settled, source_of


def scan(
    root: str | os.PathLike[str], *, jobs: int | None = None, exclude: Sequence[str] = (), rules: Mapping[str, Rule] | None = None
) -> Scan:
    """All couplings of the tree at ``root``.

    Args:
        root: A folder or a file.
        jobs: Processes; None takes one for each core that this process may use, and one in all for a small tree.
        exclude: Patterns in the syntax of ``.gitignore``.
        rules: By code; None takes all.

    Raises:
        BadFile: SP-READ-001: ``root`` is not there.
    """
    rules = rule_module.rules() if rules is None else rules
    tree = walk.walk(root, exclude=exclude)
    paths = [file.relative for file in tree.files]
    rules = without_own(rules, paths)
    with pool.workers(tree.files, rules, jobs=jobs) as crew:
        outcomes = _told_of_one_another(crew, crew.first(tree.files))
        found, unused = _resolved(outcomes, rules)
    lines: Counter[str] = Counter()
    for outcome in outcomes:
        lines[outcome.file.language] += outcome.lines
    unread = [*tree.unread, *(one for outcome in outcomes for one in outcome.unread)]
    return Scan(
        root=walk.shown(os.fspath(root)),
        findings=_ordered(vendors.settled(found, vendors.owners(paths))),
        unread=tuple(sorted(unread, key=lambda one: (one.path, one.line or 0, one.code))),
        files=len(tree.files),
        lines=lines.total(),
        by_language=dict(sorted((language, count) for language, count in lines.items() if count)),
        unused_keeps=tuple(unused),
    )


def _told_of_one_another(crew: pool.Crew, outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes, with files read again to which others give something else than was known, until nothing is new."""
    by_path = {outcome.file.relative: outcome for outcome in outcomes}
    before = crew.ledger.index
    for attempt in range(python.ROUNDS):
        known = python.index(outcome.analysis for outcome in by_path.values() if outcome.analysis is not None)
        changed, before = known.beside(before), known
        read = [
            Again(outcome.file, outcome.imports, outcome.given)
            for outcome in by_path.values()
            if python.may_concern(outcome.imports, changed) or (not attempt and crew.ledger.tells_more(outcome.imports, outcome.heard))
        ]
        fresh = crew.again(read, known)
        if not fresh:
            break
        by_path.update((outcome.file.relative, outcome) for outcome in fresh)
    return list(by_path.values())


def _resolved(outcomes: Sequence[Outcome], rules: Mapping[str, Rule]) -> tuple[list[Finding], list[UnusedKeep]]:
    """The findings of all files, with what only the whole project shows, and the comments that keep nothing."""
    by_path: dict[str, list[Finding]] = {}
    for outcome in outcomes:
        by_path.setdefault(outcome.file.relative, []).extend(outcome.findings)
    for finding in python.resolve([outcome.analysis for outcome in outcomes if outcome.analysis is not None], rules):
        by_path.setdefault(finding.place.path, []).append(finding)
    found: list[Finding] = []
    unused: list[UnusedKeep] = []
    for outcome in outcomes:
        own = by_path.pop(outcome.file.relative, [])
        source = source_of(outcome.file) if outcome.suppresses or (own and outcome.file.language == "notebook") else None
        if source is not None:
            own, idle = settled(source, own, suppresses=outcome.suppresses)
            unused += idle
        found += own
    return found, unused


def _ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By path, cell, line, column, code; of equal ones the first."""
    kept: dict[tuple[object, ...], Finding] = {}
    for finding in findings:
        place = finding.place
        kept.setdefault((place.path, place.cell or 0, place.line, place.column, finding.code), finding)
    return tuple(kept[key] for key in sorted(kept))
