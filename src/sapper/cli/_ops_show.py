"""What ``sapper prove ops`` prints: what was not covered, verdicts by family of ops, and the findings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sapper import messages
from sapper.cli._ops_progress import why
from sapper.cli.output import Column, emit

if TYPE_CHECKING:
    from sapper.prove.ops.result import Ops
    from sapper.prove.verdict import CaseVerdict, Outcome

_MOST_ROWS = 60
_MOST_NAMES = 12


def summary(found: Ops) -> None:
    """The whole answer for a reader."""
    from sapper.prove import words

    counts, header = found.counts(), found.header
    _line("prove.ops.show.head", backend=header.asked.backend, versions=", ".join(f"{k} {v}" for k, v in header.versions.items()))
    if not header.real:
        _line("prove.ops.show.emulated")
    for text in uncovered(found):
        click.echo(f"  * {text}")
    total = sum(counts.values())
    shown: list[Outcome] = sorted(counts, key=lambda name: -counts[name])
    verdicts = ", ".join(f"{words.outcome(name)} {counts[name]}" for name in shown)
    _line("prove.ops.show.counts", cases=total, ops=len({one.op for one in found.verdicts}), found=verdicts or "-")
    emit(_families(found, shown), [Column("family", "prove.ops.column.family"), *_outcome_columns(shown)], fmt="table")
    rows = findings(found)
    if rows:
        click.echo()
        emit([_row(one) for one in rows[:_MOST_ROWS]], _FINDINGS, fmt="table", title=messages.text("prove.ops.show.findings"))
        if len(rows) > _MOST_ROWS:
            _line("prove.ops.show.more", count=len(rows) - _MOST_ROWS)
    red = found.red()
    code = "prove.ops.show.red" if red else "prove.ops.show.green" if total else "prove.ops.show.nothing"
    _line(code, count=len(red), ops=len({one.op for one in red}))


def uncovered(found: Ops) -> list[str]:
    """What the proof does not speak of, in words."""
    header, texts = found.header, []
    if not found.finished:
        texts.append(messages.text("prove.ops.uncovered.unfinished", left=header.entries - found.entries_done, pending=len(found.pending)))
    if header.left_out:
        texts.append(messages.text("prove.ops.uncovered.left_out", count=len(header.left_out), names=_some(header.left_out)))
    for outcome in ("void", "unsupported", "skipped"):
        of = [one for one in found.verdicts if one.outcome == outcome]
        if of:
            reasons = Counter(messages.text(one.reason, **one.values) for one in of if one.reason)
            reason = "; ".join(f"{text} ({count})" for text, count in reasons.most_common(3))
            names = _some(sorted({one.op for one in of}))
            texts.append(messages.text(f"prove.ops.uncovered.{outcome}", count=len(of), names=names, reason=reason or "-"))
    return texts


def findings(found: Ops) -> list[tuple[CaseVerdict, int]]:
    """For each op, dtype, phase and outcome the worst case and how many there are; worst outcomes first."""
    from sapper.prove.verdict import SEVERITY

    groups: dict[tuple[Any, ...], list[CaseVerdict]] = {}
    for one in found.red():
        groups.setdefault((one.op, one.dtype, one.phase, one.outcome), []).append(one)
    worst = [(max(of, key=_ratio), len(of)) for of in groups.values()]
    return sorted(worst, key=lambda one: (SEVERITY.index(one[0].outcome), one[0].op))


def as_json(found: Ops) -> dict[str, Any]:
    """The same for programs."""
    return {
        "header": found.header, "finished": found.finished, "counts": found.counts(),
        "uncovered": uncovered(found), "suspected_fallback": found.suspected_fallback,
        "verdicts": [msgspec.to_builtins(one) for one in found.verdicts],
    }  # fmt: skip


def family(op: str) -> str:
    """Of an op's name: its namespace, or what stands before the first dot or underscore of special groups."""
    name = op.removeprefix("aten::")
    if name.startswith("_foreach_"):
        return "_foreach_*"
    head, dot, _ = name.rpartition(".")
    first = head.partition(".")[0] if dot else ""
    return {"nn": "nn.functional.*"}.get(first, f"{first}.*" if first in _FAMILIES else "*")


_FAMILIES = frozenset({"linalg", "fft", "special", "masked", "signal", "sparse"})


def _families(found: Ops, outcomes: list[Outcome]) -> list[dict[str, Any]]:
    table: dict[str, Counter[str]] = {}
    for one in found.verdicts:
        table.setdefault(family(one.op), Counter())[one.outcome] += 1
    return [{"family": name, **{outcome: of[outcome] for outcome in outcomes}} for name, of in sorted(table.items())]


def _outcome_columns(outcomes: list[Outcome]) -> list[Column]:
    return [Column(name, f"prove.outcome.{name}", "right") for name in outcomes]


def _row(one: tuple[CaseVerdict, int]) -> dict[str, Any]:
    from sapper.prove import words

    verdict, count = one
    which = verdict.case.rpartition("/")[2]
    return {
        "outcome": words.outcome(verdict.outcome), "op": verdict.op, "dtype": verdict.dtype, "phase": verdict.phase, "cases": count,
        "which": which, "why": why(verdict)[:160], "repro": verdict.repro or (messages.text(verdict.no_repro) if verdict.no_repro else ""),
    }  # fmt: skip


def _ratio(verdict: CaseVerdict) -> float:
    return max((one.ratio or 0.0 for one in verdict.scores), default=0.0)


def _some(names: Any) -> str:
    names = list(names)
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f", ... (+{more})" if more > 0 else "")


def _line(code: str, /, **values: Any) -> None:
    click.echo(messages.text(code, **values))


_FINDINGS = [
    Column("outcome", "prove.ops.column.outcome"), Column("op", "prove.ops.column.op"), Column("dtype", "prove.ops.column.dtype"),
    Column("phase", "prove.ops.column.phase"), Column("cases", "prove.ops.column.cases", "right"),
    Column("which", "prove.ops.column.which"), Column("why", "prove.ops.column.why"), Column("repro", "prove.ops.column.repro"),
]  # fmt: skip
