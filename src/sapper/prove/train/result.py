"""What a proof of training leaves behind: ``train.json``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sapper.prove.verdict import Blame, Outcome

FORMAT = "sapper-prove-train"
VERSION = 1

Phase = Literal["forward", "backward", "optimizer"]
Manner = Literal["lost", "scaled", "turned", "apart", "nan"]
"""How a thing left the envelope.

========== ======================================================================
``lost``   zero where the truth is not: a gradient that never arrives
``scaled`` the right direction at another length, by ``scale``
``turned`` a gradient or an update of another direction, by ``angle_rad``
``apart``  other values: of a loss, an output or a buffer
``nan``    NaN or infinity where the truth has none
========== ======================================================================
"""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something to know of the run: a message code with its values."""

    code: str
    values: dict[str, Any] = {}


class Departure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that left the envelope."""

    step: int
    """The first step on which it was outside, from 0."""
    phase: Phase
    thing: str
    """``loss``, ``output 0``, ``buffer NAME``, ``grad PARAMETER``, ``update PARAMETER`` (held against what the run's own gradient
    calls for) or ``direction`` (the update of all parameters together)."""
    manner: Manner
    ratio: float | None = None
    """Distance from the truth over the allowed one, on that step; None where it is not finite."""
    worst_ratio: float | None = None
    """The same at its largest."""
    scale: float | None = None
    """Length along the truth's direction over the truth's."""
    angle_rad: float | None = None
    """Between it and the truth."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One step; ratios are distances from the truth over the allowed ones, the largest of their kind; None: not finite."""

    step: int
    loss: float | None
    loss_truth: float | None
    loss_peer: float | None
    loss_allowed: float
    """Distance of the loss from the truth's up to which it is inside the envelope."""
    forward_ratio: float | None
    backward_ratio: float | None
    optimizer_ratio: float | None
    gradient: str
    """Parameter whose gradient has the largest ratio."""
    gradient_norm: float | None
    """Of all gradients together."""
    gradient_norm_truth: float | None
    angle_rad: float | None
    """Angle between the update of all parameters together and the truth's."""
    angle_rms_rad: float
    """The same for members of the ensemble, root mean square over them."""


class TrainProof(msgspec.Struct, frozen=True, kw_only=True):
    """The proof of one training."""

    format: str
    version: int
    sapper: str
    date: str
    """When it was begun, ISO 8601."""
    target: str
    digest: str
    """SHA-256 of the target."""
    backend: str
    versions: dict[str, str]
    where: str | None
    """Where the device's steps ran, by its own evidence."""
    path: Literal["eager", "graph"]
    """Op by op on the device, or as graphs of forward and backward, and of the optimizer."""
    seed: int
    dtype: str
    optimizer: str
    lr: float
    data: str | None
    """The user's loader; None: drawn."""
    asked: int
    """Steps."""
    members: int
    outcome: Outcome
    blame: Blame | None
    said: str | None
    """What ended the device's run early, in the stack's words."""
    first: Departure | None
    """The first thing to leave, in the order in which a step computes."""
    departures: tuple[Departure, ...]
    """All things that left, the earliest first."""
    rows: tuple[Row, ...]
    factors: dict[str, float]
    """Of the envelope over the ensemble's scatter, by group."""
    peer_ratio: float
    """Largest ratio of the reference itself, unperturbed, against the members alone: above 1, they do not span what correct runs do."""
    notes: tuple[Note, ...]
    covered: dict[str, int]
    """Kinds of things that were compared, with how many of each."""
    wall_s: float
    """Of the device's steps together."""
    reference_wall_s: float
    """Of the unperturbed reference's steps together."""
