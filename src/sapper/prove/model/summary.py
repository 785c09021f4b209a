"""From records and errors to findings, layers and the verdict of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from sapper.prove.model.envelope import Envelope, Truth, error_of
from sapper.prove.model.result import Error, Finding, Layer, OpRecord
from sapper.prove.verdict import GREEN, RED, SEVERITY, Outcome

MOST_GREEN = 20
"""Records of ops that are right which are kept, those with the largest ratios."""


@dataclass(frozen=True, kw_only=True)
class Free:
    """The free run of the device."""

    values: Mapping[str, torch.Tensor]
    """By label of the step's outputs."""
    forward: Mapping[str, torch.Tensor]
    backward: Mapping[str, torch.Tensor]
    order: Sequence[str]
    """Modules as they ended."""


def finding_of(record: OpRecord) -> tuple[str | None, str, str]:
    """What records of one finding have in common: op with its shapes and attributes, and outcome."""
    return record.call, record.op, record.outcome


def badness(record: OpRecord) -> tuple[int, float]:
    """The less the worse: outcome, then ratio."""
    return SEVERITY.index(record.outcome), -(record.ratio or 0.0)


def findings_of(records: Iterable[OpRecord]) -> tuple[Finding, ...]:
    """One for each op with its shapes and attributes that is wrong; worst outcome first, then largest ratio.

    Its place is where it was seen first; index, pass, ratio and reason are of its worst record, whose inputs are kept.
    """
    alike: dict[tuple[str | None, str, str], list[OpRecord]] = {}
    for record in records:
        if record.outcome in RED or record.outcome == "unsupported":
            alike.setdefault(finding_of(record), []).append(record)
    found = [_finding(first=each[0], worst=min(each, key=badness), count=len(each)) for each in alike.values()]
    return tuple(sorted(found, key=lambda one: (SEVERITY.index(one.outcome), -(one.ratio or 0.0), one.index or 0)))


def _finding(*, first: OpRecord, worst: OpRecord, count: int) -> Finding:
    return Finding(
        op=first.op, phase=first.phase, path=first.path, outcome=first.outcome, call=first.call, shapes=first.shapes, count=count,
        index=worst.index, at=worst.at, ratio=worst.ratio, reason=worst.reason, values=worst.values, said=worst.said,
    )  # fmt: skip


def kept(records: Sequence[OpRecord]) -> tuple[OpRecord, ...]:
    """What is stored of them: all that are not right, and the worst ones that are."""
    bad = [one for one in records if one.outcome not in GREEN]
    good = sorted((one for one in records if one.outcome in GREEN), key=lambda one: -(one.ratio or 0.0))[:MOST_GREEN]
    return (*bad, *good)


def errors_of(free: Free, truth: Truth, envelope: Envelope) -> tuple[Error, ...]:
    """Accumulated errors of losses, gradients, updated weights and buffers."""
    return tuple(
        error_of(label, got=one, true=truth.values[label], allowed=envelope.values.get(label), roundoff=envelope.roundoff)
        for label, one in free.values.items()
        if label in truth.values
    )


def layers_of(free: Free | None, truth: Truth, envelope: Envelope, *, records: Sequence[OpRecord]) -> tuple[Layer, ...]:
    """Forward in the order in which modules end, then backward in the order in which gradients come."""
    local: dict[tuple[str, str], list[OpRecord]] = {}
    for record in records:
        local.setdefault((record.phase, record.path), []).append(record)
    order = list(truth.layers.order)
    layers: list[Layer] = []
    phases = (
        ("forward", order, truth.layers.forward, envelope.forward, free.forward if free else {}),
        ("backward", order[::-1], truth.layers.backward, envelope.backward, free.backward if free else {}),
    )
    for phase, names, true, allowed, got in phases:
        before = 0.0
        for name in names:
            ops = local.get((phase, name), [])
            worst = max(ops, key=lambda one: one.ratio or 0.0, default=None)
            accumulated, amplified = None, None
            if name in got and name in true:
                accumulated = error_of(name, got=got[name], true=true[name], allowed=allowed.get(name), roundoff=envelope.roundoff)
            if name in true and name in allowed:
                now = _relative(allowed[name], true[name])
                amplified = now / before if before > envelope.roundoff / 4 else None
                before = now
            if not ops and accumulated is None:
                continue
            layers.append(
                Layer(
                    path=name, phase="forward" if phase == "forward" else "backward", ops=len(ops), worst=worst.op if worst else None,
                    ratio=worst.ratio if worst else None, accumulated=accumulated, amplification_ratio=amplified,
                )
            )
    return tuple(layers)


def amplifier_of(layers: Sequence[Layer]) -> str | None:
    """The layer after which the errors of correct runs grow most; None where none grows."""
    grown = [one for one in layers if one.amplification_ratio is not None and one.amplification_ratio > 1]
    return max(grown, key=lambda one: one.amplification_ratio or 0.0).path if grown else None


def outside(errors: Sequence[Error]) -> list[Error]:
    """Those that no correct run reaches, worst first."""
    return sorted((one for one in errors if one.outcome in RED), key=lambda one: -(one.ratio or float("inf")))


def worst_of(findings: Sequence[Finding]) -> Outcome:
    """The outcome of the model by its findings."""
    red = [one.outcome for one in findings if one.outcome in RED]
    return min(red, key=SEVERITY.index, default="ok")


def fell_back(what: Sequence[str]) -> Finding:
    """The finding that a stack did not compute all of a step, in its own words."""
    values = {"what": ", ".join(what)}
    return Finding(op="", phase="after", path="", outcome="fallback", reason="prove.model.reason.fell_back", values=values)


def _relative(length: float, true: torch.Tensor) -> float:
    scale = float(true.abs().square().sum()) ** 0.5
    return length / scale if scale > 0 else 0.0
