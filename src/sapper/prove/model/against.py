"""prove model by fingerprints: against a capsule, or one recorded on the spot; what leaves the bounds is then looked at in full."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence

import msgspec

import torch
from sapper import __version__
from sapper.backends import Backend
from sapper.programs.opened import Opened
from sapper.prove.model import capsule as capsules
from sapper.prove.model import summary
from sapper.prove.model.capsule import Capsule
from sapper.prove.model.proof import Plan, Ran, Told, begun, checked, cleaned, of_numbers, pool_of, survived, write
from sapper.prove.model.result import Cost, Coverage, Error, Finding, Layer, ModelResult, OpRecord, Phase
from sapper.prove.model.step import TrainingStep
from sapper.prove.model.worker import PassRequest
from sapper.prove.verdict import Blame, Outcome


def prove_prints(plan: Plan, told: Told, *, capsule: Capsule | None = None, path: str | None = None) -> ModelResult:
    """Run the proof and write ``model.json`` into the run's folder.

    Args:
        plan: What, on what, and how.
        told: Progress.
        capsule: To check against; None: recorded here, on the CPU.
        path: Its file.

    Raises:
        SapperError: The program, the device, the capsule or the folder cannot be used.
    """
    started_s = time.monotonic()
    setting = plan.setting
    backend, folder = begun(setting)
    opened = setting.opened()
    step = TrainingStep(opened=opened, steps=setting.steps)
    loss = checked(step, told)
    reference_s = time.process_time()
    own: list[Error] = []
    if capsule is None:
        told("prove.model.progress.record")
        capsule = capsules.record(opened, steps=setting.steps, runs=plan.runs)
    else:
        capsules.matched(capsule, opened, path=path or "-", steps=setting.steps)
        told("prove.model.progress.own")
        own = summary.outside(capsule.errors(capsules.of_this_cpu(step)))
    reference_s = time.process_time() - reference_s
    ran, errors, records = _ran(plan, told, capsule)
    found = _findings(ran, capsule, errors, records)
    result = _result(plan, backend, opened, capsule=capsule, ran=ran, errors=errors, own=own, findings=found)
    cost = msgspec.structs.replace(result.cost, reference_cpu_s=reference_s, wall_s=time.monotonic() - started_s)
    result = msgspec.structs.replace(of_numbers(result, loss), cost=cost, capsule=path, ops=summary.kept(records))
    cleaned(folder)
    write(result, folder)
    return result


def _ran(plan: Plan, told: Told, capsule: Capsule) -> tuple[Ran, list[Error], list[OpRecord]]:
    """The passes, the fingerprints of the first against the capsule, and where one is out of bounds the records of a full look."""
    ran = Ran(answers={}, deaths=[], versions={})
    with pool_of(plan) as pool:
        pool.start()
        ran.versions = dict(pool.setup_value["versions"])
        requests = [PassRequest(at="first", shadow=False, prints=True, kept=False)]
        if plan.states:
            requests += [
                PassRequest(at="again", shadow=False, kept=False), PassRequest(at="other-inputs", shadow=False, kept=False),
                PassRequest(at="reordered", shadow=False, prints=True, kept=False),
            ]  # fmt: skip
        for request in requests:
            told(f"prove.model.progress.{request.at}")
            answer = survived(pool, plan, request, ran)
            if answer is not None:
                ran.answers[request.at] = answer
        first = ran.answers.get("first")
        errors = capsule.errors(first.prints) if first is not None else []
        records = list(ran.deaths)
        if summary.outside(errors):
            told("prove.model.progress.full")
            shadowed = survived(pool, plan, PassRequest(at="first", shadow=True, kept=False), ran)
            records += shadowed.records if shadowed is not None else ()
    return ran, errors, records


def _findings(ran: Ran, capsule: Capsule, errors: Sequence[Error], records: Sequence[OpRecord]) -> list[Finding]:
    """Ops that the full look accuses; state, where only a later run leaves the bounds."""
    found = list(summary.findings_of(records))
    later = ran.answers.get("reordered")
    if not summary.outside(errors) and later is not None:
        red = summary.outside(capsule.errors(later.prints))
        if red:
            phase, path, op = _place(red[0].label)
            found.append(
                Finding(op=op, phase=phase, path=path, outcome="stateful", ratio=red[0].ratio, at="reordered", count=len(red),
                        reason="prove.model.reason.run_again")
            )  # fmt: skip
    return found


def _result(
    plan: Plan, backend: Backend, opened: Opened, *, capsule: Capsule, ran: Ran, errors: Sequence[Error], own: Sequence[Error],
    findings: list[Finding],
) -> ModelResult:
    setting = plan.setting
    first = ran.answers.get("first")
    outcome: Outcome = summary.worst_of(findings)
    blame: Blame | None = None
    outside = summary.outside(errors)
    if own:  # this machine's own CPU does not reach what the capsule's machine did
        phase, path, op = _place(own[0].label)
        findings.insert(0, Finding(op=op, phase=phase, path=path, outcome="wrong", blame="reference", ratio=own[0].ratio,
                                   count=len(own), reason="prove.model.reason.own"))  # fmt: skip
        outcome, blame = "wrong", "reference"
    elif outcome == "ok" and outside:
        outcome, blame = "legal", "model"
    if first is not None and first.where is None:
        outcome = "void"
    elif outcome == "ok" and first is not None and first.fallbacks:
        outcome = "fallback"
    matched = {one.label for one in errors}
    plain = ran.answers.get("again")
    return ModelResult(
        target=opened.target, backend=setting.backend, kind=backend.kind, real=backend.real, dtype=setting.dtype, seed=setting.seed,
        steps=setting.steps, method="fingerprints", outcome=outcome, blame=blame, findings=tuple(findings),
        errors=tuple(one for one in errors if _place(one.label)[2] == "" and not one.label.startswith("layer ")),
        layers=_layers(errors), prints=tuple((outside or sorted(errors, key=lambda one: -(one.ratio or 0.0)))[:20]),
        coverage=Coverage(
            ops=len([one for one in (first.prints if first else {}) if _place(one)[2]]),
            judged=len([one for one in matched if _place(one)[2]]), unmatched=len(set(capsule.truth) - matched),
            dropout_off=opened.dropout_off,
        ),
        cost=Cost(
            step_cpu_s=plain.cpu_s if plain else None, checked_cpu_s=first.cpu_s if first else None, stored_bytes=len(capsule.to_bytes()),
        ),
        where=first.where if first else None, fallbacks=first.fallbacks if first else (), batch=opened.batch,
        params=sum(one.numel() for one in opened.program.module.parameters()), envelope_runs=int(capsule.facts["runs"]) + 1,
        versions={**ran.versions, "torch": str(torch.__version__)}, sapper=__version__,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip


def _layers(errors: Sequence[Error]) -> tuple[Layer, ...]:
    found = []
    for one in errors:
        kind, _, rest = one.label.partition(" ")
        phase, _, path = rest.partition(":")
        if kind == "layer":
            found.append(Layer(path=path, phase="forward" if phase == "forward" else "backward", accumulated=one))
    return tuple(found)


def _place(label: str) -> tuple[Phase, str, str]:
    """Phase, path and op of a fingerprint's name; of what is no op the label as path."""
    phase, _, rest = label.partition(":")
    if phase not in ("forward", "backward") or "::" not in rest:
        return "after", label, ""
    head, _, tail = rest.partition("::")
    path, _, namespace = head.rpartition(":")
    return phase, path, f"{namespace}::{tail.partition(':')[0]}"  # type: ignore[return-value]


