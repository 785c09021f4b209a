"""From profiles to the planner's problem: one profile for each group of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sapper.errors import BadValue
from sapper.mix.problem import Held, Identity, Network, Problem, Shape, StateBytes, Supply, Times, Transport
from sapper.mix.profiles.profile import HeldBytes, Profile, Timed
from sapper.predict.arrays import Floats

USABLE = 0.93
"""Share of a chip's memory that a plan may fill: the rest covers the error of a profile's bytes and the allocator's slack."""


@dataclass(frozen=True)
class Fleet:
    """Chips of one group, with what a profile does not say of them."""

    name: str
    profile: Profile
    chips: int
    chips_per_node: int
    capacity_bytes: float
    """Of a chip."""


def problem_of(
    fleets: Sequence[Fleet], network: Network, *, global_batch: int, transport: Transport | None = None, usable: float = USABLE
) -> Problem:
    """The problem of training the profiles' model on ``fleets``.

    Args:
        fleets: The groups; all profiles are of one model.
        network: Their links.
        global_batch: Sequences of a step.
        transport: How messages stand to compute; None: as sapper's own runtime sends them.
        usable: Share of a chip's memory that a plan may fill.

    Raises:
        BadValue: Profiles of different models.
    """
    first = fleets[0].profile
    for fleet in fleets[1:]:
        _same_model(first, fleet.profile)
    return Problem(
        model=first.model,
        layers=len(first.layers),
        seq_len=first.seq_len,
        global_batch=global_batch,
        groups=tuple(_supply(fleet, usable=usable) for fleet in fleets),
        times={shape: times for fleet in fleets for shape, times in _times(fleet).items()},
        held={(fleet.name, one.tp): _held(fleet.profile, one) for fleet in fleets for one in fleet.profile.held},
        boundary_bytes=_spread(first.layers, first.boundary_bytes),
        state=StateBytes(
            weight=first.weight_bytes, gradient=first.gradient_bytes, optimizer=first.optimizer_bytes, wire=first.wire_bytes
        ),
        network=network,
        micro_batches=tuple(sorted({timed.micro_batch for fleet in fleets for timed in fleet.profile.timed})),
        recomputes=tuple(dict.fromkeys(timed.recompute for fleet in fleets for timed in fleet.profile.timed)),
        tied=any(one.tied_params > 0.0 for one in first.held),
        transport=transport or Transport(shared=True),
        sources={fleet.name: fleet.profile.source for fleet in fleets},
        # A plan runs in the precision that its times were measured in; the cluster is for the caller to name.
        identity=Identity(model_digest=first.model_digest, precision=first.precision, optimizer=first.optimizer),
    )


def _same_model(first: Profile, other: Profile) -> None:
    for name in ("layers", "seq_len", "precision", "optimizer", "model_digest"):
        ours, theirs = getattr(first, name), getattr(other, name)
        if ours != theirs:
            shown = (len(ours), len(theirs)) if name == "layers" else (ours, theirs)
            raise BadValue("SP-MIX-057", device=other.device, field=name, value=shown[1], other=first.device, due=shown[0])


def _supply(fleet: Fleet, *, usable: float) -> Supply:
    return Supply(
        name=fleet.name, chips=fleet.chips, chips_per_node=fleet.chips_per_node, capacity_bytes=usable * fleet.capacity_bytes,
        overhead_bytes=fleet.profile.overhead_bytes, tps=tuple(tp for tp in fleet.profile.tps if tp <= fleet.chips_per_node),
        relative_sd=fleet.profile.sd, host_s=fleet.profile.host_s,
    )


def _times(fleet: Fleet) -> dict[Shape, Times]:
    return {
        Shape(fleet.name, timed.tp, timed.micro_batch, timed.recompute): times_of(fleet.profile, timed) for timed in fleet.profile.timed
    }


def times_of(profile: Profile, timed: Timed) -> Times:
    """Times of all layers in one measured shape."""
    columns = {
        name: _spread(profile.layers, {kind: getattr(cost, name) for kind, cost in timed.layers.items()})
        for name in ("forward_s", "backward_s", "saved_bytes", "working_bytes")
    }
    return Times(**columns)


def _held(profile: Profile, one: HeldBytes) -> Held:
    return Held(
        params=_spread(profile.layers, one.params), update_s=_spread(profile.layers, one.update_s), tied_params=one.tied_params
    )


def _spread(layers: Sequence[str], by_kind: Mapping[str, float]) -> Floats:
    return np.array([by_kind[kind] for kind in layers], float)
