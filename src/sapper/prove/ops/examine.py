"""One case on a device: run, judged, with the evidence that the device ran it."""

from __future__ import annotations

import functools
import os
import re
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

import torch
from sapper.backends import Backend
from sapper.backends.base import Executable, Executed, Unsupported
from sapper.backends.computation import Computation
from sapper.backends.evidence import computed_by_host
from sapper.prove.judge import judge
from sapper.prove.ops import draws
from sapper.prove.ops.unwritten import unwritten
from sapper.prove.reference import NoReference, Reference, refer
from sapper.prove.verdict import GREEN, RED, CaseVerdict, Outcome, Score, worst
from sapper.prove.worker import is_out_of_memory

MOST_WORDS = 500
_FALLS_BACK = re.compile(r"fall(s|ing)?[ -]?back", re.IGNORECASE)
"""In a warning of the stack."""


SPOILT = 70
"""Exit code of a worker whose device context is lost."""
_LOST = re.compile(
    r"illegal memory access|unspecified launch failure|device-side assert|misaligned address|illegal instruction|hardware stack error"
)
"""After these errors every later call of the process fails as well (CUDA Runtime API, cudaError_t: "leaves the process in an inconsistent
state"); HIP has them under the same words."""


def spoils_the_process(error: Exception) -> bool:
    """Whether an error has taken the device context of this process with it."""
    return isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


_FLUSHABLE = frozenset({torch.float32, torch.bfloat16, torch.float16})


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is asked, and how its outputs may be judged."""

    id: str
    op: str
    dtype: str
    phase: Any
    computation: Computation
    random: bool = False
    uninitialised: bool = False
    gradients_only: bool = False
    """Values are another case's; here only what is labelled ``grad`` counts."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run on the device."""

    outputs: list[torch.Tensor] | None
    outcome: Outcome = "ok"
    """Where there are no outputs, why."""
    said: str | None = None
    executed: Executed | None = None
    wall_s: float = 0.0


class Runner:
    """A case made ready for a backend; runs as often as is wanted."""

    def __init__(self, case: Case, backend: Backend) -> None:
        self.case = case
        self._backend = backend
        self._made: Executable | None = None

    def run(self) -> Ran:
        """Once, on copies of the inputs."""
        started = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                if self._made is None:
                    self._made = self._backend.prepare(self.case.computation)
                outputs = self._made([one.clone() for one in self.case.computation.tensors])
        except Unsupported as error:
            return Ran(outputs=None, outcome="unsupported", said=_words(error), wall_s=time.perf_counter() - started)
        except Exception as error:
            if spoils_the_process(error):
                sys.stderr.write(f"{type(error).__name__}: {_words(error)}\n")
                sys.stderr.flush()
                os._exit(SPOILT)  # a case that follows would fail for what this one did
            outcome: Outcome = "memory" if is_out_of_memory(error) else "crash"
            said = f"{type(error).__name__}: {_words(error)}"
            return Ran(outputs=None, outcome=outcome, said=said, wall_s=time.perf_counter() - started)
        said_so = next((str(one.message) for one in caught if _FALLS_BACK.search(str(one.message))), None)
        return Ran(
            outputs=list(outputs), executed=self._made.executed(), wall_s=time.perf_counter() - started,
            said=said_so and said_so[:MOST_WORDS],
        )  # fmt: skip

    def judged(self, ran: Ran) -> CaseVerdict:
        """What becomes of the case by this run."""
        case = self.case
        base = CaseVerdict(
            case=case.id, op=case.op, outcome=ran.outcome, dtype=case.dtype, phase=case.phase, said=ran.said, wall_s=ran.wall_s
        )
        if ran.outputs is None:
            return self._without_outputs(base) or self._refused_by_all(base) or base
        try:
            scores = self._scores(ran.outputs)
        except NoReference as error:
            return _without_reference(base, error)
        if case.gradients_only:
            scores = [one for one in scores if one.label.startswith("grad")]
        outcome = worst([one.outcome for one in scores]) if scores else "ok"
        guilty = next((one for one in scores if one.outcome == outcome and one.reason), None)
        base = msgspec.structs.replace(
            base, outcome=outcome, scores=tuple(scores), where=ran.executed and ran.executed.where,
            reason=guilty and guilty.reason, values=guilty.values if guilty else {},
        )  # fmt: skip
        return self._with_evidence(base, ran) if outcome in GREEN else base

    def _without_outputs(self, verdict: CaseVerdict) -> CaseVerdict | None:
        """A whole graph must have an output: that a stack refuses one without is no finding (``unbind`` of no elements)."""
        if verdict.outcome != "crash" or self._backend.kind == "device" or self.case.computation.labels:
            return None
        return msgspec.structs.replace(verdict, outcome="skipped", reason="prove.ops.reason.no_outputs")

    def _refused_by_all(self, verdict: CaseVerdict) -> CaseVerdict | None:
        """What raises on the CPU as well, in the backward pass say, is no finding against a device."""
        if verdict.outcome != "crash":
            return None
        try:
            self._peer()
        except Exception as error:
            return _without_reference(verdict, error)
        return None

    def _scores(self, outputs: Sequence[torch.Tensor]) -> list[Score]:
        case = self.case
        if case.uninitialised:
            return [_form(one, other, label) for one, other, label in zip(outputs, self._peer(), case.computation.labels, strict=True)]
        if case.random:
            return draws.compare(self._again, reference=self._peer, labels=case.computation.labels)
        reference = refer(case.computation)
        scores = judge(outputs, reference, case.computation.labels)
        if len(scores) != len(outputs):
            return scores
        if all(one.outcome not in RED for one in scores):
            return [flushing_said(one, got, truth=truth) for one, got, truth in zip(scores, outputs, reference.truth, strict=True)]
        # The peer's error is allowed, also where it cannot be measured: the largest number of fp64 is none in fp32.
        scores = [
            Score(label=one.label, outcome="ok", ratio=1.0) if one.outcome in RED and same_bits(got, peer) else one
            for one, got, peer in zip(scores, outputs, reference.peer, strict=True)
        ]
        return self._at_what_is_written(outputs, reference, scores)

    def _at_what_is_written(self, outputs: Sequence[torch.Tensor], reference: Reference, scores: list[Score]) -> list[Score]:
        """The scores, each output that is a finding judged again without the places that the reference leaves unwritten: what is right
        at the others is not covered."""
        suspects = [at for at, one in enumerate(scores) if one.outcome in RED and one.reason != "prove.reason.form"]
        masks = unwritten(self.case.computation, reference.peer) if suspects else []
        for at in suspects:
            if not masks[at].any():
                continue
            written = functools.partial(torch.Tensor.masked_fill, mask=masks[at], value=0)
            rest = [written(one) if place == at else one for place, one in enumerate(outputs)]
            again = judge(rest, reference.changed(at, written), self.case.computation.labels)[at]
            undefined = Score(label=again.label, outcome="skipped", reason="prove.ops.reason.undefined")
            scores[at] = again if again.outcome in RED else undefined
        return scores

    def _again(self) -> list[torch.Tensor]:
        ran = self.run()
        if ran.outputs is None:
            raise RuntimeError(ran.said)
        return ran.outputs

    def _peer(self) -> list[torch.Tensor]:
        with torch.no_grad():
            return [one.detach() for one in self.case.computation([one.clone() for one in self.case.computation.tensors])]

    def _with_evidence(self, verdict: CaseVerdict, ran: Ran) -> CaseVerdict:
        """A green verdict stands only on evidence that the device itself computed."""
        if ran.executed is None:
            return msgspec.structs.replace(verdict, outcome="void", reason="prove.ops.reason.no_evidence")
        if ran.executed.fallbacks or ran.said:
            ops = ", ".join(ran.executed.fallbacks) or "-"
            return msgspec.structs.replace(verdict, outcome="fallback", reason="prove.ops.reason.fallback", values={"ops": ops})
        if self._has_the_hosts_bits(ran, ran.executed.where):
            return msgspec.structs.replace(verdict, outcome="fallback", reason="prove.model.reason.bits")
        return verdict

    def _has_the_hosts_bits(self, ran: Ran, where: str) -> bool:
        """Whether a device gave the CPU's own bits where another implementation would not, whatever it says that it ran."""
        name = self.case.op if "::" in self.case.op else self.case.op.rpartition(".")[2]
        if where.startswith("cpu") or ran.outputs is None:
            return False
        return computed_by_host(name, self.case.computation.tensors, got=ran.outputs, peer=self._peer)

    def equals_peer(self, ran: Ran) -> bool | None:
        """Whether all its rounded values are those of the CPU bit for bit; None where nothing was rounded, or it is no question.

        A stack that counts its kernels has better evidence.
        """
        if ran.outputs is None or ran.executed is None or ran.executed.ops is not None or ran.executed.where.startswith("cpu"):
            return None
        if self.case.random or self.case.uninitialised:
            return None
        pairs = [(one, peer) for one, peer in zip(ran.outputs, self._peer(), strict=True) if one.is_floating_point() and one.numel()]
        return all(same_bits(one, peer) for one, peer in pairs) if pairs else None


def flushing_said(score: Score, got: torch.Tensor, *, truth: torch.Tensor) -> Score:
    """A score that says that denormals were flushed, where it has nothing to say yet."""
    if score.reason is not None or not zeroed(got, truth):
        return score
    return msgspec.structs.replace(score, outcome="legal", reason="prove.reason.zeroed")


def zeroed(got: torch.Tensor, truth: torch.Tensor) -> bool:
    """Whether a result is zero somewhere where the truth is a denormal number that the dtype has."""
    if got.dtype not in _FLUSHABLE or got.shape != truth.shape or not truth.is_floating_point():
        return False
    limits = torch.finfo(got.dtype)
    size = truth.abs()
    return bool(((got == 0) & (size >= limits.smallest_normal * limits.eps) & (size < limits.smallest_normal)).any())


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal value for value, NaN equal to NaN."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _without_reference(verdict: CaseVerdict, error: Exception) -> CaseVerdict:
    return msgspec.structs.replace(verdict, outcome="skipped", reason="prove.ops.reason.no_reference", said=_words(error))


def _form(got: torch.Tensor, expected: torch.Tensor, label: str) -> Score:
    if got.dtype == expected.dtype and got.shape == expected.shape:
        return Score(label=label, outcome="ok")
    forms = {"expected": draws.form(expected), "got": draws.form(got)}
    return Score(label=label, outcome="wrong", reason="prove.reason.form", values=forms)


def _words(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__)[:MOST_WORDS]
