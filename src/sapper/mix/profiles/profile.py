"""``sapper-mix-profile/1``: one model measured on one chip, as JSON.

A model is a list of layers, each of a kind (``embedding``, ``block``, ``head``, or more kinds where blocks differ), so that like
layers are measured once. ``timed`` holds what was measured for each tensor degree, micro-batch and recomputation; what is not in
it is not guessed.
"""

from __future__ import annotations

import os

import msgspec

from sapper.errors import BadFile
from sapper.files import decode, read_json, write_atomic
from sapper.predict.plan import Recompute

FORMAT = "sapper-mix-profile/1"


class LayerCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One layer and one micro-batch on one chip, the communication of its tensor parallel group included."""

    forward_s: float
    backward_s: float
    """With what is recomputed."""
    saved_bytes: float
    """Kept for the backward pass."""
    working_bytes: float = 0.0
    """Beside that while it computes."""


class Timed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One local shape."""

    tp: int = 1
    micro_batch: int
    recompute: Recompute = "none"
    layers: dict[str, LayerCost]
    """By kind."""


class HeldBytes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a chip holds of one layer of each kind at one tensor degree."""

    tp: int = 1
    params: dict[str, int]
    """Weights of one layer on one chip."""
    update_s: dict[str, float]
    """Optimizer, once a step."""
    tied_params: int = 0
    """Weights of the embedding that the head uses."""


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model on a chip."""

    format: str = FORMAT
    model: str
    model_digest: str = ""
    """:func:`sapper.mix.identity.model_digest`; empty where the source does not know the model's sizes."""
    device: str
    """Chip, as the source names it."""
    seq_len: int
    precision: str = "fp32"
    optimizer: str = "adam"
    layers: tuple[str, ...]
    """Kind of each layer from the embedding to the head."""
    boundary_bytes: dict[str, float]
    """Kind -> bytes of one sequence that leave such a layer forward, whole."""
    timed: tuple[Timed, ...]
    held: tuple[HeldBytes, ...]
    weight_bytes: float = 4.0
    """Of one weight; so the next three."""
    gradient_bytes: float = 4.0
    optimizer_bytes: float = 8.0
    wire_bytes: float = 4.0
    """Of a gradient between chips."""
    capacity_bytes: float | None = None
    """Of the chip's memory; None: as the cluster has it."""
    overhead_bytes: float = 0.0
    """Taken before the first tensor."""
    host_s: float = 0.0
    """Of a step, whatever the plan."""
    sd: float = 0.03
    """Standard deviation of the logarithm of the times, for the interval: run to run 2-4% (MLPerf, same system and submitter)."""
    source: str
    date: str = ""
    """When it was measured, ISO 8601."""

    @property
    def tps(self) -> tuple[int, ...]:
        """Tensor degrees that were measured, ascending."""
        return tuple(sorted({one.tp for one in self.timed}))


def read_own(path: str | os.PathLike[str]) -> Profile:
    """The profile of a file in our own format.

    Raises:
        BadFile: Unreadable, malformed, of another format, or with layers of a kind that was not measured.
    """
    where = os.fspath(path)
    profile = decode(Profile, read_json(path), path)
    check(profile, where=where)
    return profile


def check(profile: Profile, *, where: str) -> None:
    """Refuse a profile that cannot be meant.

    Raises:
        BadFile: Another format, a kind without times or bytes, or a number below 0.
    """
    if profile.format != FORMAT:
        raise BadFile("SP-MIX-052", where=where, format=profile.format, known=FORMAT)
    if len(profile.layers) < 3 or not profile.timed:
        raise BadFile("SP-MIX-053", where=where, layers=len(profile.layers), shapes=len(profile.timed))
    degrees = {one.tp for one in profile.held}
    for kind in dict.fromkeys(profile.layers):
        for index, timed in enumerate(profile.timed):
            if kind not in timed.layers or timed.tp not in degrees:
                raise BadFile("SP-MIX-054", where=f"{where} timed[{index}]", kind=kind, tp=timed.tp)
        if kind not in profile.boundary_bytes or any(kind not in one.params or kind not in one.update_s for one in profile.held):
            raise BadFile("SP-MIX-055", where=where, kind=kind)
    for timed in profile.timed:
        for kind, cost in timed.layers.items():
            if min(cost.forward_s, cost.backward_s, cost.saved_bytes, cost.working_bytes) < 0.0:
                raise BadFile("SP-MIX-056", where=where, kind=kind)


def write_own(path: str | os.PathLike[str], profile: Profile) -> None:
    """Write ``profile`` whole or not at all, as JSON that a person can read.

    Raises:
        BadFile: The place cannot be written, or the profile cannot be meant.
    """
    check(profile, where=os.fspath(path))
    write_atomic(path, msgspec.json.format(msgspec.json.encode(profile), indent=1).decode() + "\n")
