"""The pass-type check and the risks that follow from a proof of a chip.

A proof counts for a chip only where it ran on a device: an emulated chip or a host's processor is no evidence for it, and what has no
evidence is unknown. No predicted figure depends on a proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from sapper import messages
from sapper.assess.assessment import SEVERITIES, Assessment, Check, Option, Risk
from sapper.assess.proof import Proven

TELLING = frozenset({"ops", "model"})
"""Parts that look at values op by op; a folder without any of them is not enough to pass a chip."""


def with_proofs(assessment: Assessment, proofs: Sequence[Proven], *, chips: Iterable[str]) -> Assessment:
    """``assessment`` with what was proved; each option gets the pass-type item, and the risks where its chip has a proof.

    Args:
        assessment: Without proofs.
        proofs: At most one of a chip.
        chips: Ids of all chips that were asked for, those in groups of unlike chips too.
    """
    by_chip = {proof.chip: proof for proof in proofs}

    def option(one: Option) -> Option:
        proof = by_chip.get(one.chip.id)
        risks = sorted((*proof_risks(proof), *one.risks), key=lambda risk: SEVERITIES.index(risk.severity))
        return msgspec.structs.replace(one, checks=(*one.checks, proof_check(proof)), risks=tuple(risks))

    bare = tuple(chip for chip in dict.fromkeys(chips) if chip not in by_chip)
    return msgspec.structs.replace(assessment, options=tuple(map(option, assessment.options)), proofs=tuple(proofs), not_proven=bare)


def outcome_of(proof: Proven | None) -> Literal["pass", "fail", "unknown"]:
    """What a proof says of its chip; absence of evidence is ``unknown``."""
    if proof is None or proof.standing != "device" or proof.verdict == "unproven":
        return "unknown"
    if proof.verdict == "red":
        return "fail"
    return "pass" if TELLING & set(proof.ran) and not proof.unreadable else "unknown"


def proof_check(proof: Proven | None) -> Check:
    """The pass-type item."""
    return Check(code="proven", outcome=outcome_of(proof))


def proof_risks(proof: Proven | None) -> tuple[Risk, ...]:
    """What of a proof could make the purchase go wrong: it is red, it is of something else, it is incomplete."""
    if proof is None:
        return ()
    values = {"chip": proof.chip, "date": proof.date or "?"}
    if proof.standing != "device":
        return (Risk(code="proof-elsewhere", severity="medium", values={**values, "standing": proof.standing, "on": where_of(proof)}),)
    found = []
    if proof.verdict == "red":
        first = proof.guilty[0] if proof.guilty else None
        found.append(
            Risk(
                code="proof-red", severity="high",
                values={
                    **values, "count": str(proof.findings), "blame": proof.blame or "unknown", "op": first.op if first else "?",
                    "outcome": first.outcome if first else "skipped",
                },
            )
        )  # fmt: skip
    if proof.not_covered or proof.verdict == "unproven":
        code = "proof-unproven" if proof.verdict == "unproven" else "proof-incomplete"
        found.append(Risk(code=code, severity="medium", values={**values, "count": str(len(proof.not_covered))}))
    return tuple(found)


def where_of(proof: Proven) -> str:
    """What it ran on instead of the chip: the chip that the device says it is, else the backends."""
    return proof.other_chip or ", ".join(proof.backends) or "?"


def standing_text(proof: Proven, lang: str | None = None) -> str:
    """Whether a proof counts for the chip that it was given for, and why."""
    return messages.text(f"assess.proof.standing.{proof.standing}", lang, on=where_of(proof))


def proof_line(proof: Proven, lang: str | None = None) -> str:
    """A proof in a line: verdict and blame first, how much was not covered, and by what it was found when."""
    date = proof.date or "?"
    if proof.standing != "device":
        return messages.text("assess.line.proof_elsewhere", lang, chip=proof.chip, standing=standing_text(proof, lang), date=date)
    values = {"chip": proof.chip, "verdict": verdict_text(proof, lang), "on": where_of(proof), "date": date}
    gaps = messages.text("assess.line.proof_gaps", lang, count=len(proof.not_covered))
    if not proof.guilty:
        return messages.text("assess.line.proof", lang, gaps=gaps, **values)
    first = proof.guilty[0]
    wrong = messages.text(f"prove.outcome.{first.outcome}", lang)
    return messages.text("assess.line.proof_red", lang, gaps=gaps, op=first.op, outcome=wrong, count=proof.findings, **values)


def verdict_text(proof: Proven, lang: str | None = None) -> str:
    """The verdict and, where somebody is to blame, who."""
    verdict = messages.text(f"assess.proof.verdict.{proof.verdict}", lang)
    if proof.verdict != "red":
        return verdict
    blamed = messages.text(f"prove.blame.{proof.blame or 'unknown'}", lang)
    return messages.text("assess.proof.blamed", lang, verdict=verdict, blame=blamed)


def spoken(values: Mapping[str, str], lang: str) -> dict[str, str]:
    """Values of a risk of a proof in words of ``lang``."""
    words = dict(values)
    for name in ("blame", "outcome"):
        if name in words:
            words[name] = messages.text(f"prove.{name}.{words[name]}", lang)
    if "standing" in words:
        words["standing"] = messages.text(f"assess.proof.standing.{words['standing']}", lang, on=words["on"])
    return words
