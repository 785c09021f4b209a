"""The campaign over single ops."""

from __future__ import annotations

from collections import Counter

from sapper.dossier.proof.summary import Answer, Check, Found, Section, Subject
from sapper.dossier.proof.wording import reason_of
from sapper.prove.ops.result import Ops
from sapper.prove.verdict import GREEN, RED, SEVERITY, UNPROVEN, CaseVerdict, Outcome
from sapper.prove.words import Saying

KINDS_OF_FAULT: dict[str, tuple[Outcome, ...]] = {
    "right": ("imprecise", "wrong", "nan"), "survives": ("crash", "hang", "memory"), "fallback": ("fallback",),
    "repeatable": ("nondeterministic", "stateful"),
}  # fmt: skip
"""Pass-type item -> outcomes that fail it."""


def section(ops: Ops) -> Section:
    """Checks by kind of fault, shares of what was judged and of what was asked, and a finding for each op and outcome."""
    counts = ops.counts()
    judged = sum(count for outcome, count in counts.items() if outcome not in UNPROVEN)
    right = sum(count for outcome, count in counts.items() if outcome in GREEN)
    void = counts["void"]
    executed: Answer = "unknown" if void and void >= judged else "pass"
    checks = [Check(part="ops", name="executed", type="pass", answer=executed)]
    for name, outcomes in KINDS_OF_FAULT.items():
        bad = sum(counts[outcome] for outcome in outcomes)
        answer: Answer = "fail" if bad else "pass" if judged and ops.finished else "unknown"
        checks.append(Check(part="ops", name=name, type="pass", answer=answer))
    share, done = right / judged if judged else None, ops.entries_done / ops.header.entries if ops.header.entries else None
    checks += [
        Check(part="ops", name="right_share", type="quantified", value=share, limit=1.0, most=False, answer=_held(share)),
        Check(part="ops", name="coverage", type="quantified", value=done, limit=1.0, most=False, answer=_asked(done)),
    ]
    header = ops.header
    subject = Subject(
        part="ops", backend=header.asked.backend, target=header.asked.model, dtype=", ".join(header.asked.dtypes), real=header.real,
        where=next((one.where for one in ops.verdicts if one.where), None), versions=header.versions, date=header.date,
        sapper=header.sapper, seed=header.asked.seed,
    )  # fmt: skip
    return Section(subjects=(subject,), checks=tuple(checks), found=tuple(findings_of(ops.red())), not_covered=tuple(_gaps(ops)))


def findings_of(cases: list[CaseVerdict]) -> list[Found]:
    """One for each op and outcome; worst outcome first, then the most cases."""
    grouped: dict[tuple[str, Outcome], list[CaseVerdict]] = {}
    for case in cases:
        grouped.setdefault((plain(case.op), case.outcome), []).append(case)
    ranked = sorted(grouped.items(), key=lambda item: (SEVERITY.index(item[0][1]), -len(item[1])))
    return [_found(op, outcome, group) for (op, outcome), group in ranked]


def _found(op: str, outcome: Outcome, cases: list[CaseVerdict]) -> Found:
    first = max(cases, key=lambda one: (one.repro is not None, _ratio(one) or 0.0))
    places = Counter(f"{one.dtype or '?'} {one.phase}" for one in cases)
    return Found(
        part="ops", op=op, where=", ".join(places), outcome=outcome, ratio=_ratio(first), count=len(cases),
        why=reason_of(first.reason, first.values) or _score_reason(first), said=first.said, repro=first.repro,
    )  # fmt: skip


def plain(op: str) -> str:
    """An op without the mark of its shapes."""
    return op.partition("#")[0]


def _ratio(case: CaseVerdict) -> float | None:
    return max((score.ratio for score in case.scores if score.ratio is not None), default=None)


def _score_reason(case: CaseVerdict) -> Saying | None:
    return next((said for score in case.scores if score.outcome in RED and (said := reason_of(score.reason, score.values))), None)


def _held(share: float | None) -> Answer:
    return "unknown" if share is None else "pass" if share >= 1.0 else "fail"


def _asked(share: float | None) -> Answer:
    """What was not asked accuses nobody."""
    return "pass" if share is not None and share >= 1.0 else "unknown"


def _gaps(ops: Ops) -> list[Saying]:
    header, found = ops.header, []
    if not ops.finished:
        found.append(Saying(code="proof.gap.ops_unfinished", values={"done": ops.entries_done, "entries": header.entries}))
    by_outcome: dict[str, set[str]] = {}
    for case in ops.verdicts:
        if case.outcome in UNPROVEN:
            by_outcome.setdefault(case.outcome, set()).add(plain(case.op))
    for outcome, names in sorted(by_outcome.items()):
        shown = ", ".join(sorted(names)[:6]) + (", ..." if len(names) > 6 else "")
        found.append(Saying(code=f"proof.gap.ops_{outcome}", values={"count": len(names), "ops": shown}))
    if header.left_out:
        values = {"count": len(header.left_out), "dtypes": ", ".join(header.asked.dtypes), "phases": ", ".join(header.asked.phases)}
        found.append(Saying(code="proof.gap.ops_left_out", values=values))
    if header.asked.pattern:
        found.append(Saying(code="proof.gap.ops_pattern", values={"pattern": header.asked.pattern}))
    if not header.asked.edges:
        found.append(Saying(code="proof.gap.ops_edges"))
    return found
