"""One edited program in a process that may die: the reference first, then the device, then each op on the inputs that it had."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

import torch
from sapper.backends import Backend, Executed, Unsupported, find
from sapper.backends.computation import Computation
from sapper.errors import SapperError
from sapper.programs.opened import Opened
from sapper.prove.change.apply import Unfit, opened
from sapper.prove.change.edit import Edit, Setting, Size
from sapper.prove.model.envelope import Perturbed, distance, error_of
from sapper.prove.model.result import OpRecord
from sapper.prove.model.shadow import Shadow, Stopped
from sapper.prove.model.step import TrainingStep
from sapper.prove.model.summary import finding_of
from sapper.prove.model.tracker import Tracker
from sapper.prove.reference import UNIT_ROUNDOFF, Widened, widen
from sapper.prove.verdict import RED, SEVERITY, Outcome
from sapper.prove.whole import Whole, whole
from sapper.prove.worker import is_out_of_memory

RUNS = 3
"""Perturbed runs of the reference for each edit; the unperturbed one is a fourth."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is asked."""

    setting: Setting
    edit: Edit | None = None
    """None: the program as it is."""
    size: Size = Size()
    alone: str | None = None
    """Only the stage of this name, without those before it; None: all."""
    local: bool = True
    """Whether each op is judged too, on devices that run single ops."""
    calls: str | None = None
    """Where to keep the op that is found at fault."""


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an edit in one process."""

    outcome: Outcome
    stage: str = ""
    """What ran when it was seen, where several things run one after the other."""
    label: str | None = None
    """Output, gradient or op that is worst."""
    ratio: float | None = None
    """Its error over what is allowed."""
    said: str | None = None
    where: str | None = None
    op: str | None = None
    """The op at fault, where one was found."""
    call: str | None = None
    """File with that op and its inputs."""
    outputs: int = 0
    """Compared."""


def setup(payload: dict[str, Any]) -> dict[str, Any]:
    """Of a worker: import the stack, open the device."""
    torch.set_num_threads(int(payload["threads"]))
    backend = find(payload["on"])
    if backend.kind == "device":
        backend.device()
    return {"versions": {"torch": str(torch.__version__), **backend.versions()}, "kind": backend.kind}


def asked(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields ``{"reached": "device"}`` when the reference has answered, then ``{"seen": ...}``."""
    question = msgspec.convert(payload, Question)
    backend = find(question.setting.on)
    best: Seen | None = None
    for edit, name in stages(question):
        try:
            found = opened(question.setting, edit, question.size)
            truth = _Truth(found, question.setting)
        except Unfit as why:
            yield {"seen": msgspec.to_builtins(Seen(outcome="skipped", stage=name, said=f"does not fit: {why}"))}
            return
        except Exception as error:  # the program's own: no device is asked
            yield {"seen": msgspec.to_builtins(Seen(outcome="skipped", stage=name, said=_words(error)))}
            return
        yield {"reached": "device", "stage": name}
        seen = _on_device(backend, found, truth, question, name)
        best = seen if best is None or SEVERITY.index(seen.outcome) < SEVERITY.index(best.outcome) else best
        if seen.outcome in RED:
            break
    assert best is not None
    yield {"seen": msgspec.to_builtins(best)}


def stages(question: Question) -> Sequence[tuple[Edit | None, str]]:
    """What runs one after the other in this process."""
    found = _stages(question.edit)
    return found if question.alone is None else [one for one in found if one[1] == question.alone]


def _stages(edit: Edit | None) -> Sequence[tuple[Edit | None, str]]:
    if edit is not None and "row" in edit.args:
        key = edit.args["key"]
        row = [msgspec.structs.replace(edit, args={key: length}) for length in edit.args["row"]]
        return [(one, f"{key} {one.args[key]} ({at + 1})") for at, one in enumerate(row)]
    if edit is not None and edit.family == "attribute":
        return [(None, "original"), (edit, "edited")]
    return [(edit, "")]


class _Truth:
    """The edited program's step in fp64, and how far correct runs lie from it."""

    def __init__(self, found: Opened, setting: Setting) -> None:
        self.whole: Whole = whole(found.program, name=found.program.name or "program")
        computation = self.whole.computation
        roundoffs = [UNIT_ROUNDOFF[one.dtype] for one in computation.tensors if one.dtype in UNIT_ROUNDOFF]
        self.roundoff = max(roundoffs, default=UNIT_ROUNDOFF[torch.float32])
        self.peer = [one.detach() for one in computation()]
        wide = [widen(one) for one in computation.tensors]
        with Widened():
            self.values = [widen(one.detach()) for one in computation([one.clone() for one in wide])]
        runs = [self.peer, *(self._perturbed(computation, wide, setting.seed + run) for run in range(RUNS))]
        self.allowed = [max(distance(run[at], true) for run in runs) for at, true in enumerate(self.values)]

    def _perturbed(self, computation: Computation, wide: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
        noise = Perturbed(self.roundoff, seed)
        moved = [one.clone() for one in wide]
        for one in moved:
            if one.is_floating_point() and one.numel():
                noise.move(one)
        with Widened(), noise:
            return [one.detach() for one in computation(moved)]

    def judge(self, got: list[torch.Tensor]) -> tuple[Outcome, str | None, float | None]:
        """The worst output of a run."""
        worst: tuple[Outcome, str | None, float | None] = ("ok", None, None)
        labels = self.whole.computation.labels
        for label, one, true, peer, allowed in zip(labels, got, self.values, self.peer, self.allowed, strict=True):
            if one.dtype != peer.dtype or one.shape != peer.shape:
                return "wrong", label, None
            if not true.is_floating_point() and not true.is_complex():
                continue  # integers of a whole model turn over with a rounding; the ops that make them are judged one by one
            error = error_of(label, got=one, true=true, allowed=allowed, roundoff=self.roundoff)
            if (SEVERITY.index(error.outcome), -(error.ratio or 0.0)) < (SEVERITY.index(worst[0]), -(worst[2] or 0.0)):
                worst = error.outcome, label, error.ratio
        return worst


def _on_device(backend: Backend, found: Opened, truth: _Truth, question: Question, stage: str) -> Seen:
    computation = truth.whole.computation
    try:
        executable = backend.prepare(computation)
        got = [one.detach().cpu() for one in executable(computation.tensors)]
    except Exception as error:
        absent = isinstance(error, (Unsupported, NotImplementedError))
        outcome: Outcome = "memory" if is_out_of_memory(error) else "unsupported" if absent else "crash"
        return Seen(outcome=outcome, stage=stage, said=_words(error))
    executed = executable.executed()
    result, label, ratio = truth.judge(got)
    seen = Seen(
        outcome=_with_evidence(result, executed), stage=stage, label=label, ratio=ratio, where=executed.where if executed else None,
        outputs=len(got), said=", ".join(executed.fallbacks)[:500] or None if executed else None,
    )  # fmt: skip
    if backend.kind == "device" and question.local and truth.whole.taught:
        return _locally(backend, found, question, seen)
    return seen


def _with_evidence(outcome: Outcome, executed: Executed | None) -> Outcome:
    if executed is None:
        return "void" if outcome == "ok" else outcome
    return "fallback" if outcome == "ok" and executed.fallbacks else outcome


def _locally(backend: Backend, found: Opened, question: Question, seen: Seen) -> Seen:
    """Each op on the inputs that the device really had."""
    step = TrainingStep(opened=found)
    shadow = Shadow(Tracker(), device=backend.device().type, seed=question.setting.seed, most_calls=8)
    computation = step.computation(shadow)
    try:
        backend.prepare(computation)(computation.tensors)
    except Stopped:
        pass
    except Exception as error:
        return seen if seen.outcome in RED else msgspec.structs.replace(seen, outcome="crash", said=_words(error))
    red = [one for one in shadow.tally.records if one.outcome in RED]
    if not red:
        return seen
    first = min(red, key=lambda one: (one.index, SEVERITY.index(one.outcome)))
    return _accused(seen, first, shadow, question.calls)


def _accused(seen: Seen, record: OpRecord, shadow: Shadow, folder: str | None) -> Seen:
    """The verdict names the first op that is wrong by itself; the whole run's own outcome stays where it is worse."""
    same = [one.index for one in shadow.tally.records if finding_of(one) == finding_of(record)]
    call = next((shadow.tally.calls[index] for index in same if index in shadow.tally.calls), None)
    path = None
    if call is not None and folder is not None:
        path = str(Path(folder) / "op.call.safetensors")
        Path(folder).mkdir(parents=True, exist_ok=True)
        call.save(Path(path))
    outcome = min(seen.outcome, record.outcome, key=SEVERITY.index)
    return msgspec.structs.replace(
        seen, outcome=outcome, op=record.op, call=path, label=seen.label if seen.outcome in RED else record.label,
        ratio=seen.ratio if seen.outcome in RED else record.ratio, said=record.said or seen.said,
    )  # fmt: skip


def _words(error: Exception) -> str:
    text = error.render("en") if isinstance(error, SapperError) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:500]


def computation_of(setting: Setting, edit: Edit | None, size: Size) -> Computation:
    """What a repro is written of."""
    found = whole(opened(setting, edit, size).program, name=edit.id if edit else "program").computation
    return dataclasses.replace(found, tensors=tuple(one.detach() for one in found.tensors))
