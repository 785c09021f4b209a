"""Edits of a model: which of them the stack survives."""

from __future__ import annotations

from sapper.dossier.proof.summary import Answer, Check, Found, Section, Subject
from sapper.prove.change.result import ChangeProof, EditResult
from sapper.prove.verdict import GREEN, RED, SEVERITY, UNPROVEN
from sapper.prove.words import Saying

DEATHS = ("crash", "hang", "memory")


def section(proof: ChangeProof) -> Section:
    """Whether the stack survives the edits, is right under them, and how many were tried."""
    results, header = proof.results, proof.header
    judged = [one for one in results if one.outcome not in UNPROVEN]
    dead = [one for one in results if one.outcome in DEATHS]
    wrong = [one for one in results if one.outcome in RED and one.outcome not in DEATHS]
    right = sum(one.outcome in GREEN for one in judged) / len(judged) if judged else None
    known = len(header.edits) + len(header.left_out)
    checks = (
        Check(part="change", name="executed", type="pass", answer="pass" if any(one.where for one in results) else "unknown"),
        Check(part="change", name="survives", type="pass", answer=_none_of(dead, judged)),
        Check(part="change", name="right", type="pass", answer=_none_of(wrong, judged)),
        Check(
            part="change", name="right_share", type="quantified", value=right, limit=1.0, most=False,
            answer="unknown" if right is None else "pass" if right >= 1.0 else "fail",
        ),
        Check(
            part="change", name="tried_share", type="quantified", value=len(results) / known if known else None,
            answer="pass" if known else "unknown",
        ),
    )  # fmt: skip
    setting = header.setting
    subject = Subject(
        part="change", backend=setting.on, target=setting.target, dtype=setting.dtype,
        where=next((one.where for one in results if one.where), None), versions=header.versions, date=header.date, sapper=header.sapper,
        seed=setting.seed,
    )  # fmt: skip
    found = sorted((_found(one) for one in results if one.outcome in RED), key=lambda one: SEVERITY.index(one.outcome))
    return Section(subjects=(subject,), checks=checks, found=tuple(found), not_covered=tuple(_gaps(proof)))


def _none_of(bad: list[EditResult], judged: list[EditResult]) -> Answer:
    return "fail" if bad else "pass" if judged else "unknown"


def _found(one: EditResult) -> Found:
    repro = one.smallest.repro if one.smallest is not None else None
    return Found(
        part="change", op=one.op or one.id, where=one.id if one.op else "", outcome=one.outcome, ratio=one.ratio, said=one.said,
        why=why_of(one), repro=repro.path if repro is not None else None,
    )  # fmt: skip


def why_of(one: EditResult) -> Saying:
    """What an edit did, with the smallest one that still does it."""
    meaning = Saying(code=f"prove.meaning.{one.outcome}")
    if one.smallest is None:
        return meaning
    size = one.smallest.size
    known = {"layers": size.layers, "batch": size.batch, "seq": size.seq, **one.smallest.edit.args}
    smallest = ", ".join(f"{name}={value}" for name, value in known.items() if value is not None)
    return Saying(code="proof.why.smallest", values={"why": meaning, "size": smallest or one.smallest.edit.id})


def _gaps(proof: ChangeProof) -> list[Saying]:
    found = []
    if proof.header.left_out:
        found.append(Saying(code="prove.change.note.left_out", values={"count": len(proof.header.left_out)}))
    if proof.header.dropout_off:
        found.append(Saying(code="prove.change.note.dropout", values={"modules": proof.header.dropout_off}))
    alike = proof.alike()
    if alike:
        found.append(Saying(code="prove.change.note.alike", values={"count": len(alike)}))
    untried = [one.id for one in proof.results if one.outcome in UNPROVEN]
    if untried:
        shown = ", ".join(untried[:6]) + (", ..." if len(untried) > 6 else "")
        found.append(Saying(code="proof.gap.change_unproven", values={"count": len(untried), "edits": shown}))
    return found
