"""The stack itself: whether it computes, where, and how precisely."""

from __future__ import annotations

from collections.abc import Iterator

from sapper.backends.checkup import Checkup
from sapper.dossier.proof.summary import Check, Found, Section, Subject
from sapper.prove.verdict import Outcome
from sapper.prove.words import Saying

_OUTCOMES: dict[str, Outcome] = {"wrong": "wrong", "failed": "crash", "crash": "crash", "hang": "hang"}
"""State of a stack that is there and does not pass -> outcome."""


def section(checkups: tuple[Checkup, ...]) -> Section:
    """Of all stacks that are there; one that is not installed is a gap."""
    there = [one for one in checkups if one.state != "missing"]
    found = [finding for one in there for finding in _found(one)]
    outcomes = {one.outcome for one in found}
    measured = [one for one in there if one.precision is not None]
    checks = [
        Check(part="doctor", name="computes", type="pass", answer="pass" if all(one.state == "passed" for one in there) else "fail"),
        Check(part="doctor", name="executed", type="pass", answer="pass" if all(one.where for one in there) else "unknown"),
        Check(part="doctor", name="fallback", type="pass", answer="fail" if "fallback" in outcomes else "pass"),
        Check(
            part="doctor", name="precision", type="pass",
            answer="fail" if "imprecise" in outcomes else "pass" if measured else "unknown",
        ),
        Check(part="doctor", name="nan", type="pass", answer="fail" if "nan" in outcomes else "pass" if measured else "unknown"),
    ]  # fmt: skip
    gaps = [Saying(code="proof.gap.missing", values={"name": one.name}) for one in checkups if one.state == "missing"]
    gaps += [Saying(code="proof.gap.never_tried", values={"name": one.name}) for one in there if one.tried is None]
    gaps += [
        Saying(code="proof.gap.unmeasured", values={"name": one.name, "what": ", ".join(one.precision.unmeasured)})
        for one in measured if one.precision is not None and one.precision.unmeasured
    ]  # fmt: skip
    subjects = tuple(
        Subject(part="doctor", backend=one.name, real=one.tried != "emulated", where=one.where, versions=one.versions) for one in there
    )
    return Section(subjects=subjects, checks=tuple(checks), found=tuple(found), not_covered=tuple(gaps))


def _found(one: Checkup) -> Iterator[Found]:
    if one.state in _OUTCOMES:
        yield Found(part="doctor", op=one.name, outcome=_OUTCOMES[one.state], said=one.problem)
    for op in one.fallbacks:
        yield Found(part="doctor", op=op, where=one.name, outcome="fallback")
    if one.precision is None:
        return
    for family, runs_as in one.precision.downgrades():
        values = {"dtype": family.dtype, "family": family.family, "bits": family.bits, "format": runs_as}
        yield Found(
            part="doctor", op=family.family, where=f"{one.name}, {family.dtype}", outcome="imprecise",
            why=Saying(code="proof.why.downgrade", values=values),
        )  # fmt: skip
    for family in one.precision.narrow():
        values = {"dtype": family.dtype, "family": family.family, "bits": family.accumulator_bits}
        yield Found(
            part="doctor", op=family.family, where=f"{one.name}, {family.dtype}", outcome="imprecise",
            why=Saying(code="proof.why.narrow", values=values),
        )  # fmt: skip
    for name in one.precision.hides_nan:
        yield Found(part="doctor", op=name, where=one.name, outcome="nan", why=Saying(code="proof.why.hides_nan"))
