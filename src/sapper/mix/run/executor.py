"""One step of one seat: its micro-batches forward and backward in the order of the plan.

Weights do not change here, so a step that a lost member interrupts is simply begun again. A micro-batch's loss is a mean over its
own tokens; it is weighted by their number, so that the gradients of all micro-batches of all seats add up to that of the mean over
the whole batch, however unequally the batch is cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from sapper.mix.emulate.pace import Pace, Toll
from sapper.mix.order import Work, order
from sapper.mix.plan import MixPlan, Seat, first_samples, seats
from sapper.mix.run.comm import Comm
from sapper.mix.run.data import Data
from sapper.mix.run.stage import Passed, Stage


@dataclass(frozen=True, kw_only=True)
class Course:
    """The work of one process in each step."""

    works: tuple[Work, ...]
    samples: Mapping[int, tuple[int, ...]]
    """Micro-batch -> its samples, counted from the beginning of the step."""
    before: Mapping[int, int] = field(default_factory=dict)
    """Micro-batch -> rank that sends its activation."""
    after: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Micro-batch -> ranks that its activation goes to; the first of them sends its gradient back."""
    echo: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Micro-batch -> ranks that the gradient of what was received goes to."""
    answers: Mapping[int, int] = field(default_factory=dict)
    """Micro-batch -> rank that sends the gradient of what was sent."""
    wires: Mapping[int, str] = field(default_factory=dict)
    """Rank of another group -> dtype on the way to it."""
    counts: bool = True
    """Whether this process is the one of its tensor parallel group that reports loss and tokens."""

    @property
    def neighbours(self) -> tuple[int, ...]:
        """Ranks that it sends to or receives from."""
        several = (rank for ranks in (*self.after.values(), *self.echo.values()) for rank in ranks)
        return tuple(sorted({*self.before.values(), *self.answers.values(), *several}))


def course(plan: MixPlan, seat: Seat) -> Course:
    """What ``seat`` does in each step of ``plan``.

    Between stages of unlike tensor degrees, shard j is served by the neighbours' shard j modulo their degree: activations are whole
    on every shard.
    """
    pipeline = plan.pipelines[seat.pipeline]
    start = next(start for p, copy, start in first_samples(plan) if (p, copy) == (seat.pipeline, seat.copy))
    works = tuple(order(pipeline, seat.stage, replica=seat.replica, schedule=plan.schedule))
    taken = {(one.stage, one.replica, one.shard): one for one in seats(plan) if (one.pipeline, one.copy) == (seat.pipeline, seat.copy)}
    size = pipeline.micro_batch
    samples, before, after, echo, answers = {}, {}, {}, {}, {}
    for work in works:
        k = work.micro_batch
        samples[k] = tuple(range(start + k * size, start + (k + 1) * size))
        for step in (-1, 1):
            if 0 <= seat.stage + step < len(pipeline.stages):
                other = pipeline.stages[seat.stage + step]
                there = [taken[seat.stage + step, k % other.replicas, shard].rank for shard in range(other.tp)]
                degree = pipeline.stages[seat.stage].tp
                serves = tuple(there[shard] for shard in range(other.tp) if shard % degree == seat.shard)
                source = there[seat.shard % other.tp]
                if step < 0:
                    before[k], echo[k] = source, serves
                else:
                    after[k], answers[k] = serves, source
    wires = {one.rank: plan.wire for one in taken.values() if one.group != seat.group}
    return Course(
        works=works, samples=samples, before=before, after=after, echo=echo, answers=answers, wires=wires, counts=seat.shard == 0
    )  # fmt: skip


def alone(plan: MixPlan, *, whole: bool = False) -> Course:
    """The same batch on one device: micro-batch after micro-batch of all copies, or all samples at once."""
    samples: dict[int, tuple[int, ...]] = {}
    for p, _, start in first_samples(plan):
        size = plan.pipelines[p].micro_batch
        for k in range(plan.pipelines[p].micro_batches):
            samples[len(samples)] = tuple(range(start + k * size, start + (k + 1) * size))
    if whole:
        samples = {0: tuple(range(plan.global_batch))}
    works = tuple(Work(kind, k) for k in samples for kind in ("forward", "backward"))
    return Course(works=works, samples=samples)


@dataclass
class Clock:
    """Where the time of a step went, in seconds."""

    compute_s: float = 0.0
    wait_s: float = 0.0
    send_s: float = 0.0
    passes_s: list[float] = field(default_factory=list)
    """Forward and backward of each micro-batch, in the order in which they were done."""


@dataclass
class Outcome:
    """Of the passes of one step of one process."""

    loss: float = 0.0
    """Sum over the tokens of its micro-batches, where it has the last stage."""
    tokens: float = 0.0
    clock: Clock = field(default_factory=Clock)


class Executor:
    """Runs the passes of a seat.

    Args:
        stage: Its stage.
        course: Its work.
        comm: To the neighbours.
        data: Samples.
        unit: What token counts are divided by, so that weights of losses are of the order of one: any constant of the job.
    """

    def __init__(self, stage: Stage, course: Course, comm: Comm, *, data: Data, unit: float) -> None:
        self._stage, self._course, self._comm, self._data, self._unit = stage, course, comm, data, unit
        self._pace, self._toll = Pace.of_environment(), Toll.of_environment()
        """Of an emulated chip and link; else they do nothing."""

    def run(self, *, step: int, batch: int, scale: float = 1.0, last_pass: Callable[[], None] = lambda: None) -> Outcome:
        """All passes of step ``step``, whose samples begin at ``step * batch``; gradients are in the weights' ``grad``.

        ``scale`` is a further factor of the loss, for the range of fp16; ``last_pass`` is told when the last backward pass begins.

        Raises:
            WireError: A neighbour is gone or silent. Nothing but gradients has changed.
        """
        outcome = Outcome()
        open_: dict[int, Passed] = {}
        for work in self._course.works:
            if work is self._course.works[-1]:
                last_pass()
            if work.kind == "forward":
                open_[work.micro_batch] = self._forward(work.micro_batch, outcome, step=step, batch=batch, scale=scale)
            else:
                self._backward(work.micro_batch, open_.pop(work.micro_batch), outcome)
        started = time.perf_counter()
        self._comm.flush()
        outcome.clock.send_s += time.perf_counter() - started
        return outcome

    def _forward(self, k: int, outcome: Outcome, *, step: int, batch: int, scale: float) -> Passed:
        samples = [step * batch + number for number in self._course.samples[k]]
        inputs = self._data.batch(samples)
        received: Sequence[torch.Tensor] = ()
        if k in self._course.before:
            received = self._timed(outcome.clock, self._course.before[k], f"forward {k}")
        started = time.perf_counter()
        tokens = self._data.weight(inputs) if self._stage.is_last else 0.0
        with self._pace.work():
            passed = self._stage.forward(received, inputs, step=step, samples=samples, weight=scale * tokens / self._unit)
        if self._stage.is_last and self._course.counts:
            outcome.loss += float(passed.sent[0].detach()) * self._unit / scale
            outcome.tokens += tokens
        passed.forward_s = time.perf_counter() - started
        outcome.clock.compute_s += passed.forward_s
        self._send(passed.sent, self._course.after.get(k, ()), f"forward {k}", outcome.clock)
        return passed

    def _backward(self, k: int, passed: Passed, outcome: Outcome) -> None:
        gradients: Sequence[torch.Tensor] = ()
        if k in self._course.answers:
            gradients = self._timed(outcome.clock, self._course.answers[k], f"backward {k}")
        started = time.perf_counter()
        with self._pace.work():
            found = self._stage.backward(passed, gradients)
        backward_s = time.perf_counter() - started
        outcome.clock.compute_s += backward_s
        outcome.clock.passes_s.append(passed.forward_s + backward_s)
        self._send(found, self._course.echo.get(k, ()), f"backward {k}", outcome.clock)

    def _timed(self, clock: Clock, source: int, tag: str) -> list[torch.Tensor]:
        started = time.perf_counter()
        found = self._comm.receive(source=source, tag=tag)
        clock.wait_s += time.perf_counter() - started
        return found

    def _send(self, tensors: Sequence[torch.Tensor], targets: Sequence[int], tag: str, clock: Clock) -> None:
        started = time.perf_counter()
        for target in targets:
            if self._toll is not None and target in self._course.wires:
                self._toll.pay(sum(one.numel() * one.element_size() for one in tensors))
            self._comm.send(tensors, to=target, tag=tag, wire=self._course.wires.get(target))
        clock.send_s += time.perf_counter() - started
