"""Times of a workload's ops; right before fast."""

from __future__ import annotations

from sapper.dossier.proof.summary import Answer, Check, Found, Section, Subject
from sapper.prove.speed.result import OpSpeed, Speed
from sapper.prove.verdict import SEVERITY, Outcome
from sapper.prove.words import Saying


def section(speed: Speed) -> Section:
    """Whether all timed ops are right, and how near the step comes to the machine's own limits."""
    timed = [one for one in speed.ops if one.timing is not None]
    right: Answer = "fail" if speed.findings else "pass" if any(one.judged for one in timed) else "unknown"
    green = sum(one.step_share or 0.0 for one in timed if one.colour == "green") if timed else None
    launch = sum(one.step_share or 0.0 for one in speed.launch_bound) if timed else None
    roof = roof_share(timed)
    checks = [Check(part="speed", name="right", type="pass", answer=right)]
    for name, value in (("green_share", green), ("roof_share", roof), ("launch_share", launch)):
        checks.append(Check(part="speed", name=name, type="quantified", value=value, answer="unknown" if value is None else "pass"))
    subject = Subject(
        part="speed", backend=speed.backend, target=speed.target, dtype=speed.dtype, real=speed.real, where=speed.device,
        versions=speed.versions, date=speed.date, sapper=speed.sapper, seed=speed.seed,
    )  # fmt: skip
    return Section(subjects=(subject,), checks=tuple(checks), found=tuple(_found(speed)), not_covered=tuple(speed.gaps()))


def _found(speed: Speed) -> list[Found]:
    """One for each op and outcome, with the form that is furthest off."""
    groups: dict[tuple[str, Outcome], list[OpSpeed]] = {}
    for one in speed.findings:
        groups.setdefault((one.op, one.outcome), []).append(one)
    found = []
    for (op, outcome), forms in groups.items():
        worst = max(forms, key=lambda one: one.ratio or 0.0)
        found.append(
            Found(
                part="speed", op=op, where=" ".join(dict.fromkeys(worst.inputs)), outcome=outcome, ratio=worst.ratio,
                count=sum(one.count for one in forms), said=worst.said, why=Saying(code=f"prove.meaning.{outcome}"),
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: SEVERITY.index(one.outcome))


def roof_share(timed: list[OpSpeed]) -> float | None:
    """Least time of all timed ops by the measured roofline over the time that they take."""
    known = [one for one in timed if one.roof_s is not None and one.timing is not None]
    total_s = sum(one.count * one.timing.median_s for one in known if one.timing)
    return sum(one.count * (one.roof_s or 0.0) for one in known) / total_s if total_s else None
