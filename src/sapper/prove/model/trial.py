"""Whose fault each finding is, by counter-runs, and a script that shows it alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from sapper.backends.computation import Computation
from sapper.prove.blame import rule_on
from sapper.prove.call import Call
from sapper.prove.model.graph import StepGraph
from sapper.prove.model.graph_worker import decomposes
from sapper.prove.model.proof import Plan, Told
from sapper.prove.model.result import Finding, ModelResult
from sapper.prove.model.step import TrainingStep
from sapper.prove.repro import write_repro
from sapper.prove.verdict import RED, Outcome

REPROS = "repros"
"""Folder of the scripts, in the run's."""
EXCUSED = frozenset({"legal", "model", "reference"})
"""Blames that leave the stack under test without fault."""


def tried(result: ModelResult, plan: Plan, folder: Path, told: Told) -> ModelResult:
    """The same result, its worst findings with blame, evidence and script.

    Args:
        result: Of a proof; the calls of its findings lie in ``folder``.
        plan: Of the proof.
        folder: The run's.
        told: Progress.
    """
    findings = list(result.findings)
    red = [at for at, one in enumerate(findings) if one.outcome in RED - {"fallback"} and one.blame == "unknown"]
    left = plan.most_tried
    for at in red:
        suspect = suspect_of_finding(findings[at], plan, folder) if left else None
        if suspect is not None:
            left -= 1
            told("prove.model.progress.trial", op=findings[at].op, path=findings[at].path or "-")
            findings[at] = _tried(findings[at], suspect, plan, folder, whole_graph=result.method == "graph")
    outcome, blame = result.outcome, result.blame
    guilty = [one for one in findings if one.outcome in RED and one.blame not in EXCUSED]
    if red and not guilty and result.outcome in RED:
        outcome = "legal"
    if findings and blame is None:
        blame = (guilty or findings)[0].blame
    return msgspec.structs.replace(result, findings=tuple(findings), outcome=outcome, blame=blame)


def suspect_of_finding(finding: Finding, plan: Plan, folder: Path) -> Call | Computation | None:
    """What can be run again: the call on the inputs that it had, or the region of the graph; None where neither is known."""
    if finding.window is not None:
        step = TrainingStep(opened=plan.setting.opened(), functional=True)
        return StepGraph(step, decompose=decomposes(plan.setting.backend)).window(*finding.window)
    path = folder / f"model.{finding.at}.{finding.index}.call.safetensors"
    return Call.load(path) if path.exists() else None


def _tried(finding: Finding, suspect: Call | Computation, plan: Plan, folder: Path, *, whole_graph: bool) -> Finding:
    backend = plan.setting.backend
    accused = suspect
    if isinstance(suspect, Call) and whole_graph:  # the way through the stack on which it was seen
        accused = dataclasses.replace(suspect.computation(), of_training=True)
    ruling = rule_on(accused, backend, outcome=finding.outcome, memory_bytes=plan.memory_bytes)
    outcome: Outcome = "legal" if ruling.blame == "legal" else finding.outcome
    saved = f"model.{finding.at}.{finding.index}.call.safetensors"
    found = msgspec.structs.replace(
        finding, blame=ruling.blame, ruling=ruling.reason, evidence=ruling.evidence, outcome=outcome,
        saved=saved if (folder / saved).exists() else None,
    )  # fmt: skip
    if ruling.blame in EXCUSED:
        return found
    repro = write_repro(
        suspect, backend, outcome=finding.outcome, folder=folder / REPROS, name=_stem(finding), blame=ruling.blame,
        memory_bytes=plan.memory_bytes,
    )  # fmt: skip
    if repro.path is None:
        return found
    return msgspec.structs.replace(found, repro=f"{REPROS}/{Path(repro.path).name}")


def _stem(finding: Finding) -> str:
    name = finding.op.partition("::")[2].replace(".", "-") or "region"
    return f"model-{name}-{finding.index}"
