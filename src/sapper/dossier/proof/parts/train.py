"""A short training against the envelope of correct runs."""

from __future__ import annotations

from sapper.dossier.proof.summary import Answer, Check, Found, Section, Subject
from sapper.prove.train.result import Departure, TrainProof
from sapper.prove.verdict import RED
from sapper.prove.words import Saying

MOST_FOUND = 5
"""Departures that are listed; those after the first follow from it in most cases."""


def section(proof: TrainProof) -> Section:
    """Whether the run stays inside, and for how many of the steps it does."""
    inside = proof.first.step if proof.first is not None else len(proof.rows)
    left = proof.outcome in RED
    answer: Answer = "fail" if left else "pass" if proof.rows else "unknown"
    narrow: Answer = "pass" if proof.peer_ratio <= 1.0 else "unknown"
    checks = (
        Check(part="train", name="executed", type="pass", answer="pass" if proof.where else "unknown"),
        Check(part="train", name="inside", type="pass", answer=answer),
        Check(
            part="train", name="steps_inside", type="quantified", value=float(inside), unit="steps", limit=float(proof.asked), most=False,
            answer=answer,
        ),
        Check(part="train", name="peer_ratio", type="quantified", value=proof.peer_ratio, limit=1.0, answer=narrow),
    )  # fmt: skip
    subject = Subject(
        part="train", backend=proof.backend, target=proof.target, dtype=proof.dtype, where=proof.where, versions=proof.versions,
        date=proof.date, sapper=proof.sapper, seed=proof.seed,
    )  # fmt: skip
    gaps = [Saying(code=note.code, values=note.values) for note in proof.notes]
    gaps.append(Saying(code="proof.gap.train_steps", values={"steps": len(proof.rows)}))
    return Section(subjects=(subject,), checks=checks, found=tuple(_found(proof)) if left else (), not_covered=tuple(gaps))


def _found(proof: TrainProof) -> list[Found]:
    if proof.first is None:
        return [Found(part="train", op=proof.target, outcome=proof.outcome, blame=proof.blame, said=proof.said)]
    rest = [one for one in proof.departures if one != proof.first][: MOST_FOUND - 1]
    return [_departure(proof, one) for one in (proof.first, *rest)]


def _departure(proof: TrainProof, one: Departure) -> Found:
    values = {"step": one.step, "phase": Saying(code=f"proof.phase.{one.phase}")}
    return Found(
        part="train", op=one.thing, outcome="nan" if one.manner == "nan" else proof.outcome, blame=proof.blame, ratio=one.ratio,
        why=Saying(code=f"proof.manner.{one.manner}", values=values), said=proof.said if one == proof.first else None,
    )  # fmt: skip
