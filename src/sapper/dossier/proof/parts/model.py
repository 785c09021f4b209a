"""A training step of a model: each op by itself, and the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sapper.dossier.proof.summary import EXCUSED, Answer, Check, Found, Section, Subject
from sapper.dossier.proof.wording import reason_of
from sapper.prove.model.result import Coverage, Finding, ModelResult
from sapper.prove.verdict import RED
from sapper.prove.words import Saying

RED_RATIO = 8.0
"""Error over what is allowed from which an op or a quantity is a finding; that of the rule (prove/judge.py)."""


def section(result: ModelResult) -> Section:
    """Local and accumulated errors against their limits."""
    coverage = result.coverage
    ratios = (*(one.ratio for one in result.ops), *(one.ratio for one in result.layers))
    local = max((one for one in ratios if one is not None), default=None)
    whole = max((one.ratio for one in result.errors if one.ratio is not None), default=None)
    findings = [_found(one) for one in result.findings if one.outcome in RED or one.blame in EXCUSED]
    accused = [one for one in findings if not one.excused]
    outside = [one for one in result.errors if one.outcome in RED] if result.outcome in RED else []
    limit = RED_RATIO if result.outcome in RED or len(accused) == len(findings) else None  # what is excused may be far off
    share = coverage.judged / coverage.ops if coverage.ops else None
    checks = (
        Check(part="model", name="executed", type="pass", answer="pass" if result.where else "unknown"),
        Check(part="model", name="local", type="pass", answer=_none_of(accused, coverage.judged)),
        Check(part="model", name="whole", type="pass", answer=_none_of(outside, len(result.errors) if coverage.loss is None else 0)),
        Check(part="model", name="local_ratio", type="quantified", value=local, limit=limit, answer=_below(local, limit)),
        Check(part="model", name="whole_ratio", type="quantified", value=whole, limit=limit, answer=_below(whole, limit)),
        Check(part="model", name="judged_share", type="quantified", value=share, answer="unknown" if share is None else "pass"),
    )
    subject = Subject(
        part="model", backend=result.backend, target=result.target, dtype=result.dtype, real=result.real, where=result.where,
        versions=result.versions, date=result.date, sapper=result.sapper, seed=result.seed,
    )  # fmt: skip
    found = findings or [
        Found(part="model", op=one.label, outcome=one.outcome, blame=result.blame, ratio=one.ratio, where=result.amplifier or "")
        for one in sorted(outside, key=lambda one: -(one.ratio or float("inf")))[:1]
    ]
    return Section(subjects=(subject,), checks=checks, found=tuple(found), not_covered=tuple(_gaps(coverage)))


def _found(one: Finding) -> Found:
    return Found(
        part="model", op=one.op, where=one.path, outcome=one.outcome, blame=one.blame, ratio=one.ratio, count=one.count,
        evidence=tuple(_evidence(one)),
        why=reason_of(one.reason, one.values), said=one.said, repro=one.repro,
    )  # fmt: skip


def _evidence(one: Finding) -> Iterator[Saying]:
    """The row of the truth table that decided, then what each counter-run says."""
    if one.ruling is not None:
        yield Saying(code=one.ruling)
    for piece in one.evidence:
        size = "-" if piece.roundings_ratio is None else f"{piece.roundings_ratio:.2g}"
        outcome = Saying(code=f"prove.outcome.{piece.outcome or 'skipped'}")
        yield Saying(code=piece.code, values={**piece.values, "on": piece.on, "outcome": outcome, "size": size})


def _none_of(bad: Sequence[object], looked_at: int) -> Answer:
    return "fail" if bad else "pass" if looked_at else "unknown"


def _below(ratio: float | None, limit: float | None) -> Answer:
    return "unknown" if ratio is None else "pass" if limit is None or ratio <= limit else "fail"


def _gaps(coverage: Coverage) -> list[Saying]:
    found = [] if coverage.loss is None else [Saying(code="prove.model.skip.not_finite", values={"loss": coverage.loss})]
    found += [Saying(code=f"prove.model.skip.{why}", values={"count": count}) for why, count in coverage.skipped.items() if count]
    if coverage.random:
        found.append(Saying(code="prove.model.skip.random", values={"count": coverage.random}))
    if coverage.drawn:
        found.append(Saying(code="prove.model.skip.drawn", values={"count": coverage.drawn}))
    if coverage.dropout_off:
        found.append(Saying(code="prove.model.skip.dropout", values={"count": coverage.dropout_off}))
    if coverage.unmatched:
        found.append(Saying(code="proof.gap.unmatched", values={"count": coverage.unmatched}))
    return found
