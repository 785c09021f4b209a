"""Plans whose runs survive: each seat holds the whole state of its layers, so that any other holder has all that is lost with it."""

from __future__ import annotations

import msgspec

from sapper.mix.plan import MixPlan, seats
from sapper.mix.run.zero import alike


def whole_states(plan: MixPlan) -> bool:
    """Whether each seat holds the whole state of its layers: what a plan needs whose run is to survive, and to write checkpoints."""
    cut = any(stage.tp > 1 for one in plan.pipelines for stage in one.stages)
    return not cut and all(len(alike(plan, seat.rank)) == 1 for seat in seats(plan))


def plain(plan: MixPlan) -> MixPlan:
    """``plan`` without ZeRO.

    Where nobody shares states it changes nothing, and keeps a plan for what is left from cutting states that have to stay whole.
    """
    pipelines = tuple(
        msgspec.structs.replace(one, stages=tuple(msgspec.structs.replace(stage, zero=0) for stage in one.stages)) for one in plan.pipelines
    )
    return msgspec.structs.replace(plan, pipelines=pipelines)
