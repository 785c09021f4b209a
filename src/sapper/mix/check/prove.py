"""The folded plan on real processes beside one device: losses, gradients and weights, step by step and stage by stage, in fp64.

In fp64 rounding is out of the way: a plan that weights its micro-batches wrongly, loses a sample, or draws another dropout differs by
1e-6 and more, a right one by less than 1e-12 of the largest value.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

import torch
from sapper.mix.check.fold import Folded
from sapper.mix.check.world import world
from sapper.mix.plan import MixPlan, seats
from sapper.mix.run.comm import Comm
from sapper.mix.run.cuts import Cut
from sapper.mix.run.data import Data
from sapper.mix.run.job import Job, Optimizer
from sapper.mix.run.log import StepLog
from sapper.mix.run.models import Model, without_data
from sapper.mix.run.runner import Reference, Runner

ALLOWED = 1e-12
"""Of the largest value, in fp64."""
CLIP = 0.5
"""Short enough to bind on a toy's first steps."""
EPS = 1e-4
"""Of AdamW. With its usual 1e-8, the rounding of a gradient that is zero (of an attention's key bias, say) would become a step of 1e-9 of
the learning rate, which differs between any two correct runs."""
What = Literal["loss", "tokens", "gradient", "weights"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison."""

    what: What
    pipeline: int | None = None
    """None: of the whole job."""
    stage: int | None = None
    group: str | None = None
    first: int | None = None
    last: int | None = None
    """Last layer, included."""
    values: int
    """Numbers that were compared."""
    error: float
    """Greatest difference over the largest value."""
    equal: bool


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a plan computes what one device does."""

    folded: Folded
    steps: int
    parts: tuple[Part, ...]
    torch: str

    @property
    def equal(self) -> bool:
        """All of them."""
        return all(part.equal for part in self.parts)


def prove(folded: Folded, model: Model, data: Data, *, steps: int, seed: int = 0) -> Proof:
    """Run ``folded`` and one device side by side.

    Args:
        folded: The plan.
        model: The toy, or a module of the user's.
        data: Samples.
        steps: Optimizer steps.
        seed: Of weights and dropout.

    Raises:
        BadValue: A process failed; what it said is in the message.
        SapperError: The model cannot be cut so.
    """
    plan = msgspec.structs.replace(folded.plan, precision="fp64", wire="fp64")
    optimizer: Optimizer = "sgd" if plan.optimizer.startswith("sgd") else "adamw"
    job = Job(plan=plan, model=model, data=data, steps=steps, seed=seed, optimizer=optimizer, clip=CLIP, eps=EPS)
    with without_data():
        model.shapes()  # what this imports, the processes need not
    ran, alone = world(folded.seats, functools.partial(_ran, job), beside=functools.partial(_alone, job))
    told: tuple[tuple[What, str], ...] = (("loss", "loss"), ("tokens", "tokens"), ("gradient", "gradient_norm"))
    whole = [
        _part(what, np.array([getattr(one, field) for one in ran[0].log]), np.array([getattr(one, field) for one in alone.log]))
        for what, field in told
    ]
    stages = _stages(plan, ran, alone.weights, lr=job.lr)
    return Proof(folded=folded, steps=steps, parts=(*whole, *stages), torch=torch.__version__)


@dataclass(frozen=True)
class _Ran:
    """What one process did."""

    log: list[StepLog]
    weights: dict[str, Any]
    cuts: dict[str, Cut]
    """Of the weights of which it holds a shard."""

    def of(self, whole: Any, name: str) -> Any:
        """The part of a whole weight that this process holds."""
        cut = self.cuts.get(name)
        if cut is None:
            return whole
        return np.concatenate([np.take(whole, range(start, stop), axis=cut.dim) for start, stop in cut.ranges], axis=cut.dim)


def _ran(job: Job, comm: Comm) -> _Ran:
    return _steps(Runner(job, comm))


def _alone(job: Job) -> _Ran:
    return _steps(Reference(job))


def _steps(runner: Runner) -> _Ran:
    log = [runner.step() for _ in range(runner.job.steps)]
    weights = {name: one.detach().double().cpu().numpy() for name, one in runner.kept.items()}
    return _Ran(log, weights, dict(runner.stage.cuts))


def _stages(plan: MixPlan, ran: Sequence[_Ran], truth: dict[str, Any], *, lr: float) -> list[Part]:
    """The weights of each stage, the worst of its seats."""
    found: dict[tuple[int, int], Part] = {}
    for seat in seats(plan):
        stage, one = plan.pipelines[seat.pipeline].stages[seat.stage], ran[seat.rank]
        # a weight whose gradient is rounding alone (a bias of keys under softmax) moves by as much, and lr is the natural measure
        parts = [_part("weights", one.weights[name], one.of(truth[name], name), least=lr) for name in sorted(one.weights)]
        worst = max(parts, key=lambda part: part.error if np.isfinite(part.error) else np.inf)
        before = found.get((seat.pipeline, seat.stage))
        if before is None or worst.error > before.error or not worst.equal:
            found[seat.pipeline, seat.stage] = msgspec.structs.replace(
                worst, pipeline=seat.pipeline, stage=seat.stage, group=seat.group, first=stage.first, last=stage.last - 1,
                values=sum(part.values for part in parts), equal=all(part.equal for part in parts),
            )  # fmt: skip
    return list(found.values())


def _part(what: What, found: Any, truth: Any, *, least: float = 0.0) -> Part:
    """One comparison; values smaller than ``least`` are measured by it."""
    if found.shape != truth.shape:
        return Part(what=what, values=int(truth.size), error=float("inf"), equal=False)
    largest = max(float(np.abs(truth).max(initial=0.0)), least)
    apart = float(np.abs(found - truth).max(initial=0.0))
    error = apart / largest if largest else apart
    return Part(what=what, values=int(truth.size), error=error, equal=bool(error <= ALLOWED))
