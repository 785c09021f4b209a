"""Problem: what the planner knows of a model on a cluster, whatever told it: predict, a profile of the user's, or a peer's.

Legend: L = layers of the model with its two ends (blocks + 2). Times are of one chip of a stage whose tensor parallel group works
on one micro-batch, its communication included; bytes are of one chip.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from sapper.errors import BadPlan
from sapper.mix.plan import WireDtype
from sapper.predict.arrays import Floats
from sapper.predict.plan import Recompute


@dataclass(frozen=True)
class Shape:
    """Whose times: a chip of ``group`` in a tensor parallel group of ``tp``, at ``micro_batch`` sequences."""

    group: str
    tp: int
    micro_batch: int
    recompute: Recompute = "none"


@dataclass(frozen=True)
class Times:
    """Each of length L."""

    forward_s: Floats
    backward_s: Floats
    """With what is recomputed."""
    saved_bytes: Floats
    """Kept for the backward pass, for each micro-batch in flight."""
    working_bytes: Floats
    """Taken beside that while the layer computes; the greatest of a stage counts once."""


@dataclass(frozen=True)
class Held:
    """What a chip of one group and tensor degree holds and updates; each of length L."""

    params: Floats
    """Weights on one chip."""
    update_s: Floats
    """Optimizer, once a step, not sharded."""
    tied_params: float = 0.0
    """Weights of the embedding that the head uses: a stage that has the head and not the embedding holds a copy of them."""


@dataclass(frozen=True)
class StateBytes:
    """Bytes for each weight: what ZeRO 3, 2 and 1 cut in turn (arXiv:1910.02054, section 3)."""

    weight: float
    gradient: float
    optimizer: float
    wire: float
    """Of a gradient on its way between chips."""


@dataclass(frozen=True)
class Supply:
    """A group of like chips."""

    name: str
    chips: int
    chips_per_node: int
    capacity_bytes: float
    """That a plan may fill on one chip."""
    overhead_bytes: float = 0.0
    """Taken before the first tensor: context, communication buffers."""
    tps: tuple[int, ...] = (1,)
    """Tensor parallel degrees that there are times for."""
    relative_sd: float = 0.0
    """Standard deviation of the logarithm of its times, for the interval."""
    host_s: float = 0.0
    """Of a step, whatever the plan: loading, clipping, logging."""


Holders = Mapping[tuple[str, int], int]
"""Of a layer: (group, tp) -> sets of tp chips that hold it whole."""


class Network(Protocol):
    """Times of messages."""

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        """One activation from a stage of group ``source`` to one of ``target``; infinite where they cannot reach each other.

        ``tp``: chips of the smaller of the two ends, whose links may share the message.
        """

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        """Gradients of ``size_bytes``, all shards together, over ``members``: (group, tp) -> sets of tp chips that hold them whole.

        0 for one set, infinite where two cannot reach each other. The shards of a set reduce side by side.
        """


@dataclass(frozen=True)
class Transport:
    """How a runtime's messages stand to its compute. The default is sapper's own: sends and receives run beside the passes.

    A transport that blocks stops a stage for each message it exchanges with a neighbour, an activation and a gradient for each
    micro-batch: both ends until the message is over, or, where it fits the transport's buffer, only who waits for its arrival.
    """

    blocking: bool = False
    buffer_bytes: float = 0.0
    """Up to this size a message leaves its sender free."""
    shared: bool = False
    """All pipelines together share the link between two groups; else each chip has its own."""
    windowed: bool = True
    """A stage starts no more micro-batches than it may hold before the first is back (1F1B); False: as if it could hold any number."""

    overlapped: bool = True
    """Gradients leave while the last backward pass of a step is under way; False: after it."""
    bucket_bytes: float = 25 * 2.0**20
    """Gradients that leave together (arXiv:2006.15704, section 3.2.3)."""

    def exposed_s(self, reduce_s: Floats | float, *, backward_s: Floats | float, size_bytes: Floats | float) -> Floats:
        """What is left of a reduction of ``reduce_s`` after the backward pass that makes its gradients, of ``size_bytes`` on a chip.

        Buckets are made at an even pace: the last leaves when the pass is over, and no bucket before the first is whole.
        """
        if not self.overlapped:
            return np.asarray(reduce_s, float)
        buckets = np.maximum(np.ceil(size_bytes / self.bucket_bytes), 1.0)
        return np.asarray(np.maximum(reduce_s / buckets, reduce_s - backward_s * (1.0 - 1.0 / buckets)), float)

    def waits(self, size_bytes: float) -> tuple[float, float]:
        """Messages of ``size_bytes`` for each micro-batch that the stage (before, after) a link waits for.

        A stage sends its gradient back before it takes the next activation, so that behind the link both are awaited in turn.
        """
        if not self.blocking:
            return 0.0, 0.0
        return (2.0, 2.0) if size_bytes > self.buffer_bytes else (1.0, 2.0)

    def again(self, stages: int) -> float:
        """Activations of the first of ``stages`` that it stands still for once more, each micro-batch."""
        return 0.0


@dataclass(frozen=True)
class Identity:
    """What a plan says of the model and the cluster that it was made for; the search copies it."""

    model_digest: str = ""
    cluster: str = ""
    cluster_digest: str = ""
    precision: str = "bf16"
    optimizer: str = "adamw"
    wire: WireDtype = "fp32"


@dataclass(frozen=True)
class Problem:
    """One question to the planner."""

    model: str
    layers: int
    """L: blocks + 2."""
    seq_len: int
    global_batch: int
    groups: tuple[Supply, ...]
    times: Mapping[Shape, Times]
    """May compute on demand; a shape that is not in it is not to be had."""
    held: Mapping[tuple[str, int], Held]
    """By group and tensor degree."""
    boundary_bytes: Floats
    """Of one sequence, whole: what leaves layer l forward, length L."""
    state: StateBytes
    network: Network
    micro_batches: tuple[int, ...]
    """Sizes of micro-batch that there are times for."""
    recomputes: tuple[Recompute, ...] = ("none",)
    zeros: tuple[int, ...] = (0, 1, 2, 3)
    """ZeRO stages that the runtime knows."""
    tied: bool = False
    """The head's weight is the embedding's: held by both ends, its gradient summed over them."""
    transport: Transport = field(default_factory=Transport)
    sources: Mapping[str, str] = field(default_factory=dict)
    """Group -> where its times come from, for the reader."""
    identity: Identity = field(default_factory=lambda: Identity())

    def group(self, name: str) -> Supply:
        """The group of that name."""
        return next(one for one in self.groups if one.name == name)

    def of_degrees(self, tps: Collection[int]) -> Problem:
        """The same, with stages of these tensor parallel degrees alone.

        Raises:
            BadPlan: A group has times for none of them.
        """
        groups = tuple(replace(one, tps=tuple(tp for tp in one.tps if tp in tps)) for one in self.groups)
        for one, before in zip(groups, self.groups, strict=True):
            if not one.tps:
                asked, known = (", ".join(map(str, sorted(each))) for each in (tps, before.tps))
                raise BadPlan("SP-MIX-019", group=one.name, asked=asked, known=known)
        return replace(self, groups=groups)
