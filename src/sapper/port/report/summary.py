"""What a scan comes to: verdicts, silence and effort for each target, and couplings by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import msgspec

from sapper.port.effort import Effort, counted, estimate
from sapper.port.finding import Scan
from sapper.port.report.judged import QUIET, STATUSES, Judged, tying
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


def summarised(scan: Scan, found: Sequence[Judged], targets: Sequence[Target]) -> Summary:
    """The summary of the findings that are shown."""
    ties = tying(found)
    return Summary(
        findings=len(found), ties=len(ties), silent=sum(one.quiet is not None for one in ties),
        files_with_ties=len({one.finding.place.path for one in ties}), files=scan.files, lines=scan.lines,
        by_target=tuple(_target(ties, target) for target in targets), by_class=_classes(found),
    )  # fmt: skip


def _target(ties: Sequence[Judged], target: Target) -> TargetSummary:
    counts = Counter(one.cells[target.name].status for one in ties)
    return TargetSummary(
        target=target.name, verdicts={status: counts[status] for status in STATUSES},
        silent=sum(one.silence(target.name) in QUIET for one in ties),
        sourced=sum(one.cells[target.name].source is not None for one in ties), effort=_effort(ties, target, {"works"}),
        with_shim=_effort(ties, target, {"works", "shim"}) if target.shim else None,
    )  # fmt: skip


def _effort(ties: Sequence[Judged], target: Target, settled: Collection[Status]) -> Effort:
    """Of the findings whose verdict on ``target`` is none of ``settled``; unknown ones count as work."""
    return estimate(*counted((one.finding, one.rule.klass) for one in ties if one.cells[target.name].status not in settled))


def _classes(found: Sequence[Judged]) -> tuple[ClassSummary, ...]:
    names = Counter(one.rule.klass for one in found)
    return tuple(_class(name, [one for one in found if one.rule.klass == name]) for name, _ in names.most_common())


def _class(name: str, group: Sequence[Judged]) -> ClassSummary:
    ties = tying(group)
    return ClassSummary(
        name=name, standings=dict(Counter(one.finding.standing for one in group)), silent=sum(one.quiet is not None for one in ties),
        files=len({one.finding.place.path for one in ties}),
    )  # fmt: skip
