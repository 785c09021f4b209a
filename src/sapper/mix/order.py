"""The order of work of each seat: which micro-batch goes forward or backward next. The runtime follows it, the simulated clock too.

1F1B (arXiv:2104.04473, section 2.2) for stages whose data parallel degrees differ: stage s holds W_s micro-batches in flight over
its replicas together, W of the last stage being its replicas and W_s = W_(s+1) + replicas_s, which is S - s where all are one.
Receives are implied by the work, sends are never waited for, so that W falling along the pipeline excludes a deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sapper.mix.plan import Pipeline, Schedule


class Work(NamedTuple):
    """One pass of one micro-batch through a stage."""

    kind: Literal["forward", "backward"]
    micro_batch: int
    """Index in the step of its copy."""


def in_flight(pipeline: Pipeline, stage: int, *, schedule: Schedule = "1f1b") -> int:
    """Micro-batches whose activations one chip of ``stage`` holds at most."""
    return in_flights([one.replicas for one in pipeline.stages], pipeline.micro_batches, schedule=schedule)[stage]


def in_flights(replicas: Sequence[int], micro_batches: int, *, schedule: Schedule = "1f1b") -> list[int]:
    """:func:`in_flight` of every stage of a pipeline, from the replicas of its stages."""
    behind, found = 0, []
    for here in reversed(replicas):
        behind += here
        most = -(-micro_batches // here)
        found.append(most if schedule == "gpipe" else min(most, -(-behind // here)))
    return found[::-1]


def order(pipeline: Pipeline, stage: int, *, replica: int = 0, schedule: Schedule = "1f1b") -> list[Work]:
    """The work of one replica of ``stage`` in one step; it has the micro-batches k with k mod replicas = ``replica``."""
    own = range(replica, pipeline.micro_batches, pipeline.stages[stage].replicas)
    warm = sum(one.replicas for one in pipeline.stages[stage:])
    ahead = len(own) if schedule == "gpipe" else sum(k < warm for k in own)
    found = [Work("forward", k) for k in own[:ahead]]
    for done, k in enumerate(own):
        found.append(Work("backward", k))
        found += [Work("forward", later) for later in own[ahead + done : ahead + done + 1]]
    return found
