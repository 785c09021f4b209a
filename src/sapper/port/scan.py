"""``scan``: every coupling of a tree, the same for any number of processes that look for them.

Files are read in chunks, in worker processes where there is enough to read. Most hold no word of the field and are not
parsed. A second pass parses those that use what the files of the first pass give to others (a helper of the project that
returns a CUDA device, a name imported from ``torch.cuda`` and exported again). Nothing that is scanned is imported or run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sapper.port import pool, python, vendors, walk
from sapper.port import rule as rule_module
from sapper.port.finding import Finding, Scan, UnusedKeep
from sapper.port.own import without_own
from sapper.port.python.index import EMPTY
from sapper.port.rule import Rule
from sapper.port.work import Outcome, Told, settled, source_of


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
    """The outcomes, with the files to which others give a name of CUDA's read again, until nothing is new."""
    by_path = {outcome.file.relative: outcome for outcome in outcomes}
    known = EMPTY
    for _ in range(python.ROUNDS):
        told = python.index(outcome.analysis for outcome in by_path.values() if outcome.analysis is not None)
        fresh = told.without(known)
        if not fresh:
            break
        known = told
        files = [outcome.file for outcome in outcomes if python.may_concern(outcome.imports, fresh)]
        by_path.update((outcome.file.relative, outcome) for outcome in crew.again(files, Told(known, fresh)))
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
