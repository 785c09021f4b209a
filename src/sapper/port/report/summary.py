"""What a scan comes to: verdicts, silence and effort for each target, and couplings by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from sapper.port.effort import NATIVE, Effort, estimate
from sapper.port.finding import Scan
from sapper.port.report.judged import QUIET, STATUSES, Judged, tying
from sapper.port.rule import Class
from sapper.port.target import Target
from sapper.port.verdict import Status


class TargetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Of what ties, one target."""

    target: str
    verdicts: dict[str, int]
    """Findings by status; all statuses are there."""
    silent: int
    """Findings that would let the program go on, slower, elsewhere or with other numbers."""
    sourced: int
    """Findings whose verdict has a source."""
    effort: Effort
    """Of changing all that does not work there as it is."""
    with_shim: Effort | None
    """Of what is left when the vendor's shim is loaded; None where there is none."""


class ClassSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Of all findings, one class of coupling."""

    name: str
    standings: dict[str, int]
    silent: int
    """Of those that tie."""
    files: int
    """With at least one that ties."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The whole."""

    findings: int
    ties: int
    silent: int
    files_with_ties: int
    files: int
    lines: int
    by_target: tuple[TargetSummary, ...]
    by_class: tuple[ClassSummary, ...]


class _Alike(NamedTuple):
    """Findings of one rule with the same verdicts: a big tree has ten of them for each that differs."""

    one: Judged
    """The first."""
    findings: int
    paths: frozenset[str]


def summarised(scan: Scan, found: Sequence[Judged], targets: Sequence[Target]) -> Summary:
    """The summary of the findings that are shown."""
    ties = tying(found)
    kinds = _kinds(ties)
    return Summary(
        findings=len(found), ties=len(ties), silent=sum(kind.findings for kind in kinds if kind.one.quiet is not None),
        files_with_ties=len({one.finding.place.path for one in ties}), files=scan.files, lines=scan.lines,
        by_target=tuple(_target(kinds, target) for target in targets), by_class=_classes(found),
    )  # fmt: skip


def _kinds(ties: Sequence[Judged]) -> list[_Alike]:
    groups: dict[tuple[str, int], list[Judged]] = {}
    for one in ties:
        groups.setdefault((one.finding.code, id(one.cells)), []).append(one)
    return [_Alike(group[0], len(group), frozenset(one.finding.place.path for one in group)) for group in groups.values()]


def _target(kinds: Sequence[_Alike], target: Target) -> TargetSummary:
    name = target.name
    verdicts: dict[str, int] = dict.fromkeys(STATUSES, 0)
    for kind in kinds:
        verdicts[kind.one.cells[name].status] += kind.findings
    return TargetSummary(
        target=name, verdicts=verdicts, silent=sum(kind.findings for kind in kinds if kind.one.silence(name) in QUIET),
        sourced=sum(kind.findings for kind in kinds if kind.one.cells[name].source is not None), effort=_effort(kinds, target, {"works"}),
        with_shim=_effort(kinds, target, {"works", "shim"}) if target.shim else None,
    )  # fmt: skip


def _effort(kinds: Sequence[_Alike], target: Target, settled: Collection[Status]) -> Effort:
    """Of the findings whose verdict on ``target`` is none of ``settled``; unknown ones count as work."""
    work = [kind for kind in kinds if kind.one.cells[target.name].status not in settled and not kind.one.finding.code.startswith(NATIVE)]
    counts: Counter[Class] = Counter()
    for kind in work:
        counts[kind.one.rule.klass] += kind.findings
    return estimate(dict(counts), len(frozenset[str]().union(*(kind.paths for kind in work))))


def _classes(found: Sequence[Judged]) -> tuple[ClassSummary, ...]:
    names = Counter(one.rule.klass for one in found)
    return tuple(_class(name, [one for one in found if one.rule.klass == name]) for name, _ in names.most_common())


def _class(name: str, group: Sequence[Judged]) -> ClassSummary:
    ties = tying(group)
    return ClassSummary(
        name=name, standings=dict(Counter(one.finding.standing for one in group)), silent=sum(one.quiet is not None for one in ties),
        files=len({one.finding.place.path for one in ties}),
    )  # fmt: skip
