"""Steps of a job, one after the other: passes, sums, and the optimizer as the point at which a step is done."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable

import torch
from sapper.mix.balance import Tried
from sapper.mix.plan import MixPlan, check, seats
from sapper.mix.run.anatomy import Anatomy
from sapper.mix.run.comm import Alone, Comm
from sapper.mix.run.executor import Course, Executor, alone, course
from sapper.mix.run.follow import Follower
from sapper.mix.run.holders import holders
from sapper.mix.run.job import Job
from sapper.mix.run.log import Log, StepLog
from sapper.mix.run.owners import alike, level, owner_of
from sapper.mix.run.rates import LossScale
from sapper.mix.run.scattered import Scattered
from sapper.mix.run.spans import Span, spans, together
from sapper.mix.run.stage import Stage
from sapper.mix.run.update import Update
from sapper.mix.run.zero import Shared


class Runner:
    """One process of a job.

    Args:
        job: The job, the same on all ranks.
        comm: Its ranks are the seats of the plan.
        anatomy: Of the job's model, where it is known; None: it is found.

    Raises:
        SapperError: The plan or the model cannot be used.
    """

    def __init__(self, job: Job, comm: Comm, *, anatomy: Anatomy | None = None) -> None:
        check(job.plan)
        taken = seats(job.plan)
        seat = taken[comm.rank]
        part = job.plan.pipelines[seat.pipeline].stages[seat.stage]
        dtype = job.dtype_of(seat.group)
        shards, mates = together(job.plan, seat.rank), alike(job.plan, seat.rank)
        tensor = comm.group(shards, purpose="tensor") if len(shards) > 1 else None
        zero = level(job.plan, seat.rank)
        group = comm.group(mates, purpose="zero") if zero in (1, 2) else None
        stage = Stage(
            job, first=part.first, last=part.last, dtype=dtype, recompute=part.recompute, anatomy=anatomy, tensor=tensor
        )  # fmt: skip
        parts = _by_owners(job.plan, stage, spans(job.plan, seat.rank, held=_of(stage, holders(job.plan, stage.used)), rules=stage.rules))
        owner = owner_of(job.plan, seat.rank, used=stage.used, sizes=stage.sizes)
        scattered = None
        if zero >= 2:
            places = {name: mates.index(one) for name, one in owner.items()}
            channel = comm.channel(mates, purpose="scattered")
            scattered = Scattered(stage, owner=places, place=mates.index(seat.rank), channel=channel, gathers=zero == 3)
            stage.around = scattered.around
        shared = Shared(stage.weights, stage.masters, owner=owner, members=mates, rank=seat.rank, group=group)
        groups = {one.rank: one.group for one in taken}
        self._set(job, comm, stage, course(job.plan, seat), parts=parts, shared=shared, scattered=scattered, groups=groups)
        self.group = seat.group
        if job.replan is not None:
            self.replan(job.replan)

    def _set(
        self, job: Job, comm: Comm, stage: Stage, course_: Course, *, parts: dict[str, Span], shared: Shared, groups: dict[int, str],
        scattered: Scattered | None = None,
    ) -> None:  # fmt: skip
        self.job, self.comm, self.stage = job, comm, stage
        self.own = shared.own
        """Weights whose optimizer states are here."""
        self._scattered = scattered
        self._tell_passes(job.plan)
        self.done = 0
        """Steps that are done."""
        self._follower: Follower | None = None
        self.wanted: MixPlan | None = None
        """A plan that has other layers in its stages, where the measured times ask for one: all ranks want it after the same step."""
        self.loss_scale = LossScale(used=job.scaled)
        self._unit = float(job.plan.global_batch * job.plan.seq_len)
        self._executor = Executor(stage, course_, comm, data=job.data, unit=self._unit)
        self.update = Update(
            job, stage.weights, stage.masters, parts=parts, shared=shared, scattered=scattered, tensor=stage.tensor, comm=comm,
            groups=groups, wire=job.plan.wire,
        )  # fmt: skip
        comm.prepare(self.update.sets, neighbours=course_.neighbours)

    def step(self) -> StepLog:
        """The next step.

        Raises:
            WireError: A member is gone or silent: no weight has changed, and the step may be begun again.
        """
        job, started = self.job, time.perf_counter()
        self.update.clear()
        if self._scattered is not None:
            self._scattered.begin()
        self.stage.time_layers(self._follower is not None and self._follower.times_layers)
        outcome = self._executor.run(step=self.done, batch=job.plan.global_batch, scale=self.loss_scale.value, last_pass=self.update.arm)
        passed = time.perf_counter()
        self.update.reduce()
        own = self._follower.tells(outcome.clock.passes_s, self.stage.layers_s) if self._follower else []
        loss, tokens, squares, *told = self.comm.sum([outcome.loss, outcome.tokens, self.update.squares(), *own])
        reduced = time.perf_counter()
        scale = self._unit / tokens / self.loss_scale.value if tokens else 0.0
        norm = math.sqrt(squares) * scale
        clip = min(1.0, job.clip / (norm + 1e-6)) if job.clip is not None else 1.0
        lr = job.lr * job.rates.share(self.done)
        if self.loss_scale.saw(norm):
            self.update.apply(scale=scale * clip, lr=lr)
        else:
            lr = 0.0
        self.done += 1
        ended = time.perf_counter()
        decision = self._follower.hears(told, update_s=ended - reduced) if self._follower is not None else None
        if decision is not None and decision.moves:
            self.wanted = decision.plan
        elif decision is not None:
            self.follow(decision.plan)
        return StepLog(
            step=self.done - 1, loss=loss / tokens if tokens else math.nan, tokens=tokens, gradient_norm=norm, lr=lr,
            step_s=ended - started, compute_s=outcome.clock.compute_s, wait_s=outcome.clock.wait_s, send_s=outcome.clock.send_s,
            reduce_s=reduced - passed, update_s=ended - reduced,
        )  # fmt: skip

    def follow(self, plan: MixPlan) -> None:
        """Go on by another split of the batch over the same stages; weights and states stay where they are.

        Args:
            plan: Differs in micro-batch counts, or in copies told as pipelines of their own; every rank is given the same between
                the same two steps.
        """
        self.job = dataclasses.replace(self.job, plan=plan)
        self._tell_passes(plan)
        course_ = course(plan, seats(plan)[self.comm.rank])
        self._executor = Executor(self.stage, course_, self.comm, data=self.job.data, unit=self._unit)

    @property
    def kept(self) -> dict[str, torch.Tensor]:
        """The weights whose values are here between two steps: of those that it owns as the optimizer has them."""
        stage = self.stage
        own = {name: stage.masters[name] for name in self.own}
        return own if self._scattered is not None and self._scattered.gathers else {**stage.weights, **own}

    def _tell_passes(self, plan: MixPlan) -> None:
        if self._scattered is not None:
            self._scattered.passes = [[work.kind for work in course(plan, seats(plan)[one]).works] for one in alike(plan, self.comm.rank)]

    def replan(
        self, share: float, *, tried: Tried | None = None, fits: Callable[[MixPlan], bool] = lambda plan: True, entered_s: float = 0.0
    ) -> None:  # fmt: skip
        """From now on let the split follow the measured times; see :attr:`Job.replan`.

        Args:
            share: That a change has to save of a step.
            tried: What came of earlier cuts, where whoever runs this moves weights by :attr:`wanted`; None: layers stay.
            fits: Whether a plan fits into memory.
            entered_s: What it took to take up the layers of the stage.
        """
        self._follower = Follower(
            self.job.plan, rank=self.comm.rank, share=share, tried=tried, fits=fits, steps=self.job.steps - self.done, entered_s=entered_s
        )  # fmt: skip
        self.follow(self._follower.plan)


class Reference(Runner):
    """The same job on one device.

    Args:
        job: The job; of its plan only the batch counts.
        whole: All samples at once, and not in the plan's micro-batches.
        anatomy: Of the job's model, where it is known.
    """

    def __init__(self, job: Job, *, whole: bool = False, anatomy: Anatomy | None = None) -> None:
        stage = Stage(job, first=0, last=job.plan.layers + 2, dtype=job.plan.precision, anatomy=anatomy)
        parts = {name: Span(name, (0,)) for name in stage.masters}
        shared = Shared(stage.weights, stage.masters, owner=dict.fromkeys(stage.weights, 0), members=(0,), rank=0, group=None)
        self._set(job, Alone(), stage, alone(job.plan, whole=whole), parts=parts, shared=shared, groups={0: "reference"})
        self.group = "reference"


def _by_owners(plan: MixPlan, stage: Stage, parts: dict[str, Span]) -> dict[str, Span]:
    """Of members that scatter their gradients, only the owner sums them with the others."""
    found = {}
    owner = functools.cache(functools.partial(owner_of, plan, used=stage.used, sizes=stage.sizes))
    for name, part in parts.items():
        members = [owner(one)[part.weight] if level(plan, one) >= 2 else one for one in part.members]
        found[name] = dataclasses.replace(part, members=tuple(dict.fromkeys(members)))
    return found


def _of(stage: Stage, held: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Those of the weights of ``stage``, in its order."""
    return {name: held[name] for name in stage.masters}


def run(job: Job, comm: Comm) -> Log:
    """All steps of a job.

    Raises:
        SapperError: See :class:`Runner`.
    """
    runner = Runner(job, comm)
    return Log(rank=comm.rank, group=runner.group, steps=tuple(runner.step() for _ in range(job.steps)))


def reference(job: Job, *, whole: bool = False) -> Log:
    """The same job on one device; see :class:`Reference`."""
    runner = Reference(job, whole=whole)
    return Log(rank=0, group=runner.group, steps=tuple(runner.step() for _ in range(job.steps)))
