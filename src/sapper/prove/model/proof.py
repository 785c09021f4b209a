"""prove model on a device: the step runs in a worker process under the shadow, the reference beside it in this one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import torch
from sapper import __version__, files, memory
from sapper.backends import Backend, find
from sapper.errors import BadFile, BadValue, SapperError
from sapper.programs import faults
from sapper.programs.opened import Opened, parameters
from sapper.programs.program import buffers_kept
from sapper.prove.isolate import Answer, Job, Pool
from sapper.prove.model import summary
from sapper.prove.model.envelope import RUNS, Envelope, Truth, envelope_of, roundoff_of, truth_of
from sapper.prove.model.result import Cost, Coverage, Finding, Method, ModelResult, OpRecord, Pass
from sapper.prove.model.step import TrainingStep
from sapper.prove.model.summary import Free
from sapper.prove.model.worker import RECORDS, UNDER_WAY, PassAnswer, PassRequest, Setting, UnderWay
from sapper.prove.stored import from_bytes
from sapper.prove.verdict import GREEN, Blame, Outcome

MOST_DEATHS = 5
"""Ops that may end the process before the proof gives the rest up."""
PASS_LIMIT_S = 6 * 3600.0
"""Of one pass; an op that hangs is ended by the worker's own watchdog long before."""
RESULT = "model.json"

Told = Callable[..., None]
"""Progress: a message code and its values."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model is to be proved."""

    setting: Setting
    method: Method = "full"
    share: float = 1.0
    """Of ops that are judged, for the method ``sample``."""
    runs: int = RUNS
    """Perturbed runs of the envelope."""
    states: bool = True
    """Whether the step is run again, on other inputs, and after those once more."""
    most_tried: int = 1
    """Findings, worst first, that are tried for blame and get a repro script."""
    memory_bytes: int | None = None


def begun(setting: Setting) -> tuple[Backend, Path]:
    """The backend, which can be used here, and the run's folder, ready to be written; PyTorch keeps to the threads given.

    Raises:
        SapperError: The device or the folder cannot be used.
    """
    backend = usable(setting.backend)
    folder = Path(setting.folder)
    prepared(folder)
    memory.keep_freed()
    torch.set_num_threads(setting.threads)
    return backend, folder


def prove_device(plan: Plan, told: Told) -> ModelResult:
    """Run the proof and write ``model.json`` into the run's folder.

    Raises:
        SapperError: The program, the device or the folder cannot be used.
    """
    started_s = time.monotonic()
    setting = plan.setting
    backend, folder = begun(setting)
    opened = setting.opened()
    step = TrainingStep(opened=opened, steps=setting.steps)
    loss = checked(step, told)
    with pool_of(plan) as pool, concurrent.futures.ThreadPoolExecutor(1) as thread:
        passes = thread.submit(_passes, pool, plan, told)
        try:
            reference_s = time.thread_time()
            truth, envelope = referred(step, plan, told)
            reference_s = time.thread_time() - reference_s
            ran = passes.result()
        except BaseException:
            pool.stop()
            raise
    result = _result(plan, backend, opened, truth=truth, envelope=envelope, ran=ran)
    cost = msgspec.structs.replace(result.cost, reference_cpu_s=reference_s, wall_s=time.monotonic() - started_s)
    result = msgspec.structs.replace(of_numbers(result, loss), cost=cost)
    write(result, folder)
    return result


def usable(name: str) -> Backend:
    """The backend, ready.

    Raises:
        BadValue: It is not there; the doctor's answer says why.
    """
    backend = find(name)
    missing = backend.missing()
    if missing is not None:
        raise BadValue("SP-PRM-001", where=f"--on {name}", problem=missing.problem, step=missing.step())
    return backend


def prepared(folder: Path) -> None:
    """The run's folder, without what an earlier proof of a model left there.

    Raises:
        BadFile: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("model.*"):
            old.unlink()
    except OSError as error:
        raise BadFile("SP-PRM-002", where=str(folder), problem=error.strerror or str(error)) from error


def checked(step: TrainingStep, told: Told) -> float:
    """Run the step once on the CPU, so that a mistake of the program is not taken for one of the device; its loss.

    A loss that is no finite number is said: all that follows from it is none either, so that little is compared.

    Raises:
        BadFile: The program raises.
        BadValue: It gives no loss that depends on its weights, or gradients that AdamW does not take.
    """
    with buffers_kept(step.opened.program.module):  # the backward pass may run parts of the forward pass again
        loss = step.opened.run()
        if not loss.requires_grad:
            raise BadValue("SP-PRM-003", where=step.opened.path)
        with faults.of_the_user(step.opened.path, "SP-PROG-018"):
            loss.backward()
    for name, one in parameters(step.opened.program).items():
        if one.grad is not None and one.grad.layout is not torch.strided:
            raise BadValue("SP-PRM-013", where=step.opened.path, name=name, layout=str(one.grad.layout)[6:])
    if not bool(torch.isfinite(loss.detach())):
        told("prove.model.progress.not_finite", loss=f"{loss.item():g}")
    for one in parameters(step.opened.program).values():
        one.grad = None
    return float(loss.detach())


def of_numbers(result: ModelResult, loss: float) -> ModelResult:
    """The same result; nothing is proved right where the loss is no finite number on the CPU either, and what is wrong stays so."""
    if math.isfinite(loss):
        return result
    coverage = msgspec.structs.replace(result.coverage, loss=f"{loss:g}")
    return msgspec.structs.replace(result, coverage=coverage, outcome="skipped" if result.outcome in GREEN else result.outcome)


def referred(step: TrainingStep, plan: Plan, told: Told) -> tuple[Truth, Envelope]:
    """The truth and the envelope of correct runs."""
    told("prove.model.progress.truth")
    truth = truth_of(step)
    envelope = envelope_of(
        step, truth, roundoff=roundoff_of(step), runs=plan.runs, seed=plan.setting.seed,
        told=lambda run: told("prove.model.progress.envelope", run=run, runs=plan.runs),
    )  # fmt: skip
    return truth, envelope


def write(result: ModelResult, folder: Path) -> None:
    """``model.json``.

    Raises:
        BadFile: The disk is full, say.
    """
    try:
        files.write_atomic(folder / RESULT, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    except OSError as error:
        raise BadFile("SP-PRM-002", where=str(folder / RESULT), problem=error.strerror or str(error)) from error


# ---- passes ----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Ran:
    """What the passes gave."""

    answers: dict[str, PassAnswer]
    deaths: list[OpRecord]
    """Ops that ended the process."""
    versions: dict[str, str]


@contextlib.contextmanager
def pool_of(plan: Plan) -> Iterator[Pool]:
    """One worker for the stack under test."""
    payload = msgspec.to_builtins(plan.setting)
    with Pool(
        "sapper.prove.model.worker:setup", payload, workers=1, limit_s=PASS_LIMIT_S, memory_bytes=plan.memory_bytes
    ) as pool:
        yield pool


def _passes(pool: Pool, plan: Plan, told: Told) -> Ran:
    pool.start()
    ran = Ran(answers={}, deaths=[], versions=dict(pool.setup_value["versions"]))
    wanted = [PassRequest(at="first", shadow=True, share=plan.share, layers=True)]
    if plan.states:
        wanted += [
            PassRequest(at="again", shadow=False), PassRequest(at="other-inputs", shadow=True, share=plan.share),
            PassRequest(at="reordered", shadow=False),
        ]  # fmt: skip
    for request in wanted:
        told(f"prove.model.progress.{request.at}")
        answer = survived(pool, plan, request, ran)
        if answer is not None:
            ran.answers[request.at] = answer
    return ran


def survived(pool: Pool, plan: Plan, request: PassRequest, ran: Ran) -> PassAnswer | None:
    """One pass; an op that ends the process is put on record and computed on the CPU the next time."""
    while True:
        avoid = tuple(sorted({one.call for one in ran.deaths if one.call}))
        request = msgspec.structs.replace(request, avoid=avoid, shadow=request.shadow or bool(avoid))
        payload = {"setting": msgspec.to_builtins(plan.setting), "request": msgspec.to_builtins(request)}
        answer = pool.ask(Job(id=request.at, function="sapper.prove.model.worker:run", payload=payload))
        if answer.status == "done":
            return msgspec.convert(answer.value, PassAnswer)
        if answer.status == "raised":
            raise raised(answer, plan.setting.folder)
        death = _death(answer, Path(plan.setting.folder))
        known = death.call in avoid
        ran.deaths.append(death)
        if known or not death.call or len(ran.deaths) >= MOST_DEATHS:
            return None


def raised(answer: Answer, folder: str) -> SapperError:
    """The error of a worker in which the step could not run, or its folder not be written."""
    problem = answer.no_room()
    if problem is not None:
        return BadFile("SP-PRM-002", where=folder, problem=problem)
    return BadValue("SP-PRM-004", where="--on", said=(answer.said or "-").splitlines()[0][:300])


def _death(answer: Answer, folder: Path) -> OpRecord:
    """The op that was under way when the process ended."""
    said = answer.said or ""
    status = "hang" if answer.status == "hang" or "Timeout (" in said else answer.status
    outcome: Any = status if status in ("crash", "hang", "memory") else "crash"
    try:
        raw = (folder / UNDER_WAY).read_bytes().strip()
        op = msgspec.json.decode(raw, type=UnderWay)
    except (OSError, msgspec.MsgspecError):
        return OpRecord(index=0, op="", phase="before", path="", outcome=outcome, said=said)
    return OpRecord(
        index=op.index, op=op.op, phase=op.phase, path=op.path, outcome=outcome, call=op.call or None, said=said[:500], at=op.at
    )


# ---- the result ------------------------------------------------------------------------------------------------------


def _result(plan: Plan, backend: Backend, opened: Opened, *, truth: Truth, envelope: Envelope, ran: Ran) -> ModelResult:
    setting = plan.setting
    folder = Path(setting.folder)
    first = ran.answers.get("first")
    judged = [one for answer in ran.answers.values() for one in answer.records]
    records = [*ran.deaths, *(one for one in judged if one.reason != "prove.model.reason.avoided")]
    coverage = first.coverage if first is not None else Coverage()
    free = None if coverage.random else _free(folder, first)  # what devices draw themselves parts their runs by right
    errors = summary.errors_of(free, truth, envelope) if free else ()
    layers = summary.layers_of(free, truth, envelope, records=[one for one in records if one.at == "first"])
    findings = [*summary.findings_of(records), *(_state_findings(folder, ran, free, truth=truth, envelope=envelope) if free else ())]
    outcome = summary.worst_of(findings)
    blame: Blame | None = None
    if outcome == "ok" and summary.outside(errors):
        complete = plan.share >= 1 and not coverage.skipped
        outcome, blame = ("legal", "model") if complete else ("wrong", "unknown")
        findings = [] if complete else [_whole(summary.outside(errors)[0].label, summary.outside(errors)[0].ratio)]
    if first is not None and first.where is None:
        outcome = "void"
    where = first.where if first is not None else None
    if first is not None and first.fallbacks and outcome == "ok":
        outcome = "fallback"
        findings.insert(0, summary.fell_back(first.fallbacks))
    cleaned(folder)
    return ModelResult(
        target=opened.target, backend=setting.backend, kind=backend.kind, real=backend.real, dtype=setting.dtype, seed=setting.seed,
        steps=setting.steps, method=plan.method, outcome=outcome, blame=blame, findings=tuple(findings),
        amplifier=summary.amplifier_of(layers), errors=errors, layers=layers, ops=summary.kept(records), coverage=coverage,
        cost=_cost(ran), where=where, fallbacks=first.fallbacks if first is not None else (),
        params=sum(one.numel() for one in opened.program.module.parameters()), batch=opened.batch, envelope_runs=envelope.runs,
        versions={**ran.versions, "torch": str(torch.__version__)}, sapper=__version__,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip


def _cost(ran: Ran) -> Cost:
    plain = [one.cpu_s for at, one in ran.answers.items() if at in ("again", "reordered")]
    first = ran.answers.get("first")
    return Cost(step_cpu_s=min(plain, default=None), checked_cpu_s=first.cpu_s if first is not None else None)


def free_of(folder: Path, name: str, order: Sequence[str] = ()) -> Free:
    """The free run that a worker left in a file."""
    tensors, facts = from_bytes((folder / name).read_bytes())
    named = dict(zip(json.loads(facts["names"]), tensors, strict=True))

    def of(phase: str) -> dict[str, torch.Tensor]:
        return {name[len(phase) + 1 :]: one for name, one in named.items() if name.startswith(f"{phase}:")}

    values = {name: one for name, one in named.items() if not name.startswith(("forward:", "backward:"))}
    return Free(values=values, forward=of("forward"), backward=of("backward"), order=order)


def _free(folder: Path, answer: PassAnswer | None) -> Free | None:
    return free_of(folder, answer.outputs, answer.order) if answer is not None and answer.outputs is not None else None


def _state_findings(folder: Path, ran: Ran, first: Free, *, truth: Truth, envelope: Envelope) -> list[Finding]:
    """What is right the first time and wrong when the step runs again on the same inputs, or after others."""
    if summary.outside(summary.errors_of(first, truth, envelope)):
        return []
    found = []
    asked: tuple[tuple[Pass, Outcome], ...] = (("again", "nondeterministic"), ("reordered", "stateful"))
    for at, outcome in asked:
        answer = ran.answers.get(at)
        free = _free(folder, answer)
        if free is None:
            continue
        red = summary.outside(summary.errors_of(free, truth, envelope))
        if red:
            worst = red[0]
            found.append(
                Finding(
                    op="", phase="after", path=worst.label, outcome=outcome, ratio=worst.ratio, at=at, count=len(red),
                    reason="prove.model.reason.run_again",
                )
            )
    return found


def _whole(label: str, ratio: float | None) -> Finding:
    return Finding(op="", phase="after", path=label, outcome="wrong", ratio=ratio, reason="prove.model.reason.whole")


def cleaned(folder: Path) -> None:
    """Tensors of free runs have done their duty, and are large."""
    for path in (*folder.glob("model.*.safetensors"), folder / UNDER_WAY, folder / RECORDS):
        if not path.name.endswith(".call.safetensors"):
            path.unlink(missing_ok=True)
