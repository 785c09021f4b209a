"""The report of a folder of proofs, condensed to what a dossier says of a chip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sapper import messages
from sapper.assess.proof import MOST_GUILTY, Accused, Envelope, Pace, Proven, Standing, Survival
from sapper.chips import catalogue
from sapper.chips.limits import KnownChips
from sapper.dossier.proof.summary import Check, Found, Report, Subject, summarised
from sapper.dossier.proof.tables import why_of
from sapper.dossier.proof.wording import short_name
from sapper.prove.results import Results, read
from sapper.prove.verdict import Outcome
from sapper.prove.words import Saying

HOST_WORDS = ("cpu", "llvm", "clang")
"""In what stacks call the place where they executed: that was the host's processor (``cpu:0``, ``llvm-cpu``, ``CPUExecutionProvider``)."""
EMULATORS = ("papertiger",)
"""Backends that are emulated chips, for parts that do not keep whether theirs is."""


def proven(folder: Path, *, chip: str) -> Proven:
    """What ``folder`` says of ``chip``, a catalogue id.

    Raises:
        BadFile: There is no such folder, or no result of a proof is in it.
    """
    results = read(folder)
    return condensed(results, summarised(results), chip=chip)


def condensed(results: Results, report: Report, *, chip: str) -> Proven:
    """``report`` of ``results`` for ``chip``."""
    subjects, accused = report.subjects, [one for one in report.found if not one.excused]
    outcomes: Counter[Outcome] = Counter()
    for one in accused:
        outcomes[one.outcome] += one.count
    versions = {name: version for one in subjects for name, version in one.versions.items()}
    other = _other_chip(results, versions, chip)
    answers = Counter(check.answer for check in report.checks)
    return Proven(
        chip=chip, verdict=report.verdict, blame=report.blame, standing=_standing(results, subjects, other), other_chip=other,
        not_covered=tuple(map(_in_all, report.not_covered)), covered=tuple(map(_in_all, _covered(results))), ran=report.ran,
        unreadable=tuple(results.unreadable or ()), date=max((one.date[:10] for one in subjects), default=""),
        backends=_each(short_name(one.backend) for one in subjects), targets=_each(short_name(one.target or "") for one in subjects),
        dtypes=_each(one.dtype or "" for one in subjects), versions=versions, sapper=_each(one.sapper for one in subjects),
        items={answer: answers[answer] for answer in ("pass", "fail", "unknown")}, outcomes=dict(outcomes), findings=len(accused),
        guilty=tuple(map(_accused, accused[:MOST_GUILTY])), train=_envelope(results), survival=_survival(results),
        speed=_pace(results, report.checks),
    )  # fmt: skip


def _standing(results: Results, subjects: tuple[Subject, ...], other: str | None) -> Standing:
    """One part that ran elsewhere is enough: the verdict is that of all parts together."""
    if any(one.real is False or one.backend.partition(":")[0] in EMULATORS for one in subjects):
        return "emulated"
    timed_on_host = results.speed is not None and results.speed.device == results.speed.conditions.get("cpu")
    if timed_on_host or any(_on_host(one) for one in subjects):
        return "host"
    return "other" if other is not None else "device"


def _on_host(subject: Subject) -> bool:
    named = subject.backend.split(":")
    return "cpu" in named or any(word in (subject.where or "").lower() for word in HOST_WORDS)


def _other_chip(results: Results, versions: dict[str, str], chip: str) -> str | None:
    """The catalogue's chip that the device says it is, where that is known and not ``chip``."""
    known = KnownChips(catalogue())
    said = results.speed.chip if results.speed is not None else None
    named = said or (known.guess(versions["device"]) if versions.get("device") else None)
    return named if named != chip else None


def _accused(one: Found) -> Accused:
    return Accused(
        part=one.part, op=one.op, where=one.where, outcome=one.outcome, blame=one.blame, ratio=one.ratio, count=one.count,
        why={lang: why_of(one, lang) for lang in messages.LANGUAGES},
    )  # fmt: skip


def _covered(results: Results) -> Iterator[Saying]:
    """What was looked at, with its size."""
    if results.doctor is not None:
        there = [one.name for one in results.doctor if one.state != "missing"]
        yield Saying(code="proof.covered.doctor", values={"names": ", ".join(there) or "-"})
    if results.ops is not None:
        values = {"ops": results.ops.header.ops, "cases": len(results.ops.verdicts), "done": results.ops.entries_done}
        yield Saying(code="proof.covered.ops", values={**values, "entries": results.ops.header.entries})
    if results.model is not None:
        coverage = results.model.coverage
        yield Saying(code="proof.covered.model", values={"judged": coverage.judged, "ops": coverage.ops, "steps": results.model.steps})
    if results.train is not None:
        yield Saying(code="proof.covered.train", values={"steps": len(results.train.rows), "asked": results.train.asked})
    if results.change is not None:
        header = results.change.header
        values = {"tried": len(results.change.results), "known": len(header.edits) + len(header.left_out)}
        yield Saying(code="proof.covered.change", values=values)
    if results.speed is not None:
        timed = sum(one.timing is not None for one in results.speed.ops)
        yield Saying(code="proof.covered.speed", values={"timed": timed, "ops": len(results.speed.ops)})


def _envelope(results: Results) -> Envelope | None:
    proof = results.train
    if proof is None:
        return None
    first = proof.first
    inside = first.step if first is not None else len(proof.rows)
    return Envelope(steps_inside=inside, steps_asked=proof.asked, left_first=first.thing if first is not None else None)


def _survival(results: Results) -> Survival | None:
    proof = results.change
    if proof is None:
        return None
    counts = Counter(one.outcome for one in proof.results)
    known = len(proof.header.edits) + len(proof.header.left_out)
    return Survival(tried=len(proof.results), known=known, outcomes=dict(counts))


def _pace(results: Results, checks: tuple[Check, ...]) -> Pace | None:
    if results.speed is None:
        return None
    shares = {one.name: one.value for one in checks if one.part == "speed" and one.type == "quantified"}
    return Pace(
        ops=sum(one.timing is not None for one in results.speed.ops), green_share=shares["green_share"],
        roof_share=shares["roof_share"], launch_share=shares["launch_share"],
    )  # fmt: skip


def _in_all(said: Saying) -> dict[str, str]:
    return {lang: said.text(lang) for lang in messages.LANGUAGES}


def _each(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))
