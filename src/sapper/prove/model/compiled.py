"""prove model on a stack that takes whole graphs: the step as one graph, its ops alone, and where only together they are wrong."""

from __future__ import annotations

import concurrent.futures
import datetime
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import torch
from sapper import __version__
from sapper.backends import Backend
from sapper.errors import BadValue, SapperError
from sapper.prove.isolate import Answer, Job, Pool
from sapper.prove.model import summary
from sapper.prove.model.bisect import smallest
from sapper.prove.model.envelope import Envelope, Truth
from sapper.prove.model.graph_worker import OUTPUTS, CompanyAnswer, Kinds, WholeAnswer, WindowAnswer
from sapper.prove.model.proof import Plan, Told, begun, checked, cleaned, free_of, of_numbers, pool_of, raised, referred, write
from sapper.prove.model.result import Cost, Coverage, Finding, ModelResult, OpRecord
from sapper.prove.model.step import TrainingStep
from sapper.prove.verdict import RED, Outcome

COMPANY = 24
"""Ops that are compiled together at first, each on inputs of its own: a compiler takes about as long for one as for a few."""
_WORKER = "sapper.prove.model.graph_worker"
_DATA_DEPENDENT = ("value out of a tracing tensor", "DataDependentOutputException", "DynamicOutputShapeException", "GuardOnDataDependent")
"""What PyTorch says where a trace meets a step that its values decide."""


@dataclass(kw_only=True)
class _Seen:
    """What the worker found."""

    whole: WholeAnswer | None = None
    died: Answer | None = None
    """How the whole step ended the worker, where it did."""
    nodes: int = 0
    records: list[OpRecord] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def prove_compiler(plan: Plan, told: Told) -> ModelResult:
    """Run the proof and write ``model.json`` into the run's folder.

    Raises:
        SapperError: The program, the stack or the folder cannot be used.
    """
    started_s = time.monotonic()
    setting = plan.setting
    if setting.steps != 1:
        raise BadValue("SP-PRM-006", where="--steps", backend=setting.backend)
    backend, folder = begun(setting)
    step = TrainingStep(opened=setting.opened(), functional=True)
    loss = checked(step, told)
    with pool_of(plan) as pool, concurrent.futures.ThreadPoolExecutor(1) as thread:
        seen_later = thread.submit(_seen, pool, plan, told)
        try:
            reference_s = time.thread_time()
            truth, envelope = referred(step, plan, told)
            reference_s = time.thread_time() - reference_s
            seen = seen_later.result()
            result = _result(plan, backend, step, truth=truth, envelope=envelope, seen=seen)
            if _only_together(result):
                result = _located(pool, plan, told, result=result, nodes=seen.nodes)
        except BaseException:
            pool.stop()
            raise
    cost = msgspec.structs.replace(result.cost, reference_cpu_s=reference_s, wall_s=time.monotonic() - started_s)
    result = msgspec.structs.replace(of_numbers(result, loss), cost=cost)
    cleaned(folder)
    write(result, folder)
    return result


# ---- the worker's side -----------------------------------------------------------------------------------------------


def _asked(pool: Pool, name: str, payload: dict[str, Any]) -> Answer:
    return pool.ask(Job(id=name, function=f"{_WORKER}:{name}", payload=payload))


def _seen(pool: Pool, plan: Plan, told: Told) -> _Seen:
    setting = msgspec.to_builtins(plan.setting)
    pool.start()
    seen = _Seen(versions=dict(pool.setup_value["versions"]))
    told("prove.model.progress.whole")
    answer = _asked(pool, "whole", setting)
    if answer.status == "done":
        seen.whole = msgspec.convert(answer.value, WholeAnswer)
    else:
        seen.died = answer
    answer = _asked(pool, "outline", setting)
    if answer.status != "done":
        raise _by_values(answer, plan.setting.target) or raised(answer, plan.setting.folder)
    outline = msgspec.convert(answer.value, Kinds)
    seen.nodes = outline.nodes
    kinds = [list(kind) for kind in outline.kinds]
    for start in range(0, len(kinds), COMPANY):
        told("prove.model.progress.nodes", done=start, of=len(kinds))
        _judge(pool, setting, kinds[start : start + COMPANY], seen)
    return seen


def _by_values(answer: Answer, target: str) -> SapperError | None:
    """The error of a program whose values decide what is computed, with its line; None where that is not what ended the trace."""
    if not any(words in (answer.said or "") for words in _DATA_DEPENDENT):
        return None
    path = target.rpartition(":")[0] or target
    lines = re.findall(r'File "([^"]*)", line (\d+)', answer.trace or "")
    at = [number for file, number in lines if Path(file).name == Path(path).name]
    return BadValue("SP-PRM-012", where=f"{path}:{at[-1]}" if at else target)


def _judge(pool: Pool, setting: dict[str, Any], kinds: list[list[int]], seen: _Seen) -> None:
    """The ops of a company; where the stack fails on it as a whole, of each half, down to the one that is to blame."""
    answer = _asked(pool, "company", {"setting": setting, "kinds": kinds})
    found = msgspec.convert(answer.value, CompanyAnswer) if answer.status == "done" else CompanyAnswer(failed=answer.said or answer.status)
    if found.failed is None:
        alone = [kind for kind in kinds if len(kinds) > 1 and any(one.index in kind and one.outcome in RED for one in found.records)]
        accused = {at for kind in alone for at in kind}
        seen.records += [one for one in found.records if one.index not in accused]
        for why, count in found.skipped.items():
            seen.skipped[why] = seen.skipped.get(why, 0) + count
        for kind in alone:  # nothing is accused that is right without company
            _judge(pool, setting, [kind], seen)
        return
    if len(kinds) > 1:
        half = len(kinds) // 2
        _judge(pool, setting, kinds[:half], seen)
        _judge(pool, setting, kinds[half:], seen)
        return
    outcome: Outcome = "unsupported" if found.unsupported else "crash"
    if answer.status == "hang" or answer.status == "memory":
        outcome = answer.status
    described = _asked(pool, "described", {"setting": setting, "at": kinds[0][0], "red": outcome in RED})
    if described.status == "done":
        seen.records.append(msgspec.structs.replace(msgspec.convert(described.value, OpRecord), outcome=outcome, said=found.failed))
    seen.skipped["unsupported" if outcome == "unsupported" else "raised"] = (
        seen.skipped.get("unsupported" if outcome == "unsupported" else "raised", 0) + len(kinds[0])
    )


# ---- the result ------------------------------------------------------------------------------------------------------


def _result(plan: Plan, backend: Backend, step: TrainingStep, *, truth: Truth, envelope: Envelope, seen: _Seen) -> ModelResult:
    setting, opened = plan.setting, step.opened
    folder = Path(setting.folder)
    whole = seen.whole or WholeAnswer()
    free = free_of(folder, OUTPUTS) if (folder / OUTPUTS).exists() else None
    errors = summary.errors_of(free, truth, envelope) if free else ()
    outside = summary.outside(errors)
    findings = list(summary.findings_of(seen.records))
    if seen.died is not None and not any(one.outcome in RED for one in findings):
        findings.insert(0, _dead(seen.died))
    red = summary.worst_of(findings)
    outcome: Outcome = red
    if red == "ok" and outside:
        outcome = outside[0].outcome
        findings.insert(0, Finding(op="", phase="after", path=outside[0].label, outcome=outcome, ratio=outside[0].ratio,
                                   reason="prove.model.reason.together"))  # fmt: skip
    elif red == "ok" and whole.unsupported is not None:
        outcome = "unsupported"
    elif red == "ok" and whole.fallbacks:
        outcome = "fallback"
        findings.insert(0, summary.fell_back(whole.fallbacks))
    elif red == "ok" and whole.where is None:
        outcome = "void"
    layers = summary.layers_of(None, truth, envelope, records=seen.records)
    return ModelResult(
        target=opened.target, backend=setting.backend, kind=backend.kind, real=backend.real, dtype=setting.dtype, seed=setting.seed,
        steps=setting.steps, method="graph", outcome=outcome, findings=tuple(findings), amplifier=summary.amplifier_of(layers),
        errors=errors, layers=layers, ops=summary.kept(seen.records),
        coverage=Coverage(
            ops=seen.nodes, judged=len([one for one in seen.records if one.ratio is not None or one.outcome in ("ok", "legal")]),
            skipped=seen.skipped, dropout_off=opened.dropout_off,
        ),
        cost=Cost(step_cpu_s=whole.cpu_s or None), where=whole.where, fallbacks=whole.fallbacks, said=whole.unsupported,
        params=sum(one.numel() for one in opened.program.module.parameters()), batch=opened.batch, envelope_runs=envelope.runs,
        versions={**seen.versions, "torch": str(torch.__version__)}, sapper=__version__,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip


def _dead(answer: Answer) -> Finding:
    outcome: Outcome = answer.status if answer.status == "hang" or answer.status == "memory" else "crash"
    return Finding(op="", phase="before", path="", outcome=outcome, said=(answer.said or "")[:500], reason="prove.model.reason.died")


# ---- regions ---------------------------------------------------------------------------------------------------------


def _only_together(result: ModelResult) -> bool:
    """Whether the step is wrong or dies, and none of its ops alone."""
    return bool(result.findings) and result.findings[0].op == "" and result.findings[0].outcome in RED - {"fallback"}


def _located(pool: Pool, plan: Plan, told: Told, *, result: ModelResult, nodes: int) -> ModelResult:
    """The same with the smallest window of the graph that is wrong, where one is."""
    setting = msgspec.to_builtins(plan.setting)
    answers: dict[tuple[int, int], WindowAnswer] = {}

    def wrong(low: int, high: int) -> bool:
        told("prove.model.progress.window", low=low, high=high, of=nodes)
        answer = _asked(pool, "window", {"setting": setting, "low": low, "high": high})
        if answer.status == "done":
            found = msgspec.convert(answer.value, WindowAnswer)
        else:
            found = WindowAnswer(wrong=True, outcome="crash" if answer.status == "raised" else answer.status, said=answer.said)
        answers[low, high] = found
        return found.wrong

    found = smallest(nodes, wrong)
    if found is None:
        return result
    low, high = found
    answer = answers[low, high]
    payload = {"setting": setting, "name": answer.name, "low": low, "high": high}
    told_nodes = _asked(pool, "region", payload).value if answer.name is not None else None
    first = result.findings[0]
    first = msgspec.structs.replace(first, index=high - 1, window=(low, high))
    first = msgspec.structs.replace(first, ratio=answer.ratio or first.ratio, said=answer.said or first.said)
    if told_nodes:
        first = _with_region(first, told_nodes)
    return msgspec.structs.replace(result, findings=(first, *result.findings[1:]))


def _with_region(first: Finding, nodes: Sequence[Sequence[Any]]) -> Finding:
    at, op, phase, path = nodes[-1]
    return msgspec.structs.replace(first, index=at, op=op, phase=phase, path=path, region=tuple(str(one[1]) for one in nodes))
