"""MixPlan: how one training step is cut over unlike groups of chips; it is the file that is planned, checked and run.

Layers of a model are numbered 0 (what comes before the blocks: the embedding), 1 to N (the blocks) and N + 1 (what follows
them: final norm, head and loss), so that a stage is a half-open range of layers and the ends need no special case.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from sapper.errors import BadPlan
from sapper.evidence import Interval
from sapper.evidence.canonical import canonical
from sapper.files import decode, read_json, write_atomic
from sapper.predict.plan import Recompute

FORMAT = "sapper-mix-plan/1"
Schedule = Literal["gpipe", "1f1b"]
WireDtype = Literal["fp64", "fp32", "bf16", "fp16"]


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A range of layers on chips of one group; the unit that has its own parallel degrees."""

    group: str
    """Name of a group of the cluster."""
    first: int
    """First layer."""
    last: int
    """One past the last layer."""
    tp: int = 1
    """Tensor parallel degree: chips that compute one micro-batch together."""
    replicas: int = 1
    """Data parallel degree inside the pipeline: the stage's micro-batches are dealt round to this many sets of ``tp`` chips."""
    zero: int = 0
    """ZeRO stage over the chips that hold the same shard of the same layers in the same group."""
    recompute: Recompute = "none"

    @property
    def chips(self) -> int:
        """Chips of the stage in one copy of its pipeline."""
        return self.tp * self.replicas

    @property
    def sharing(self) -> tuple[object, ...]:
        """Stages that share their states, where ``zero`` says so, have the same."""
        return self.zero, self.group, self.first, self.last, self.tp

    @property
    def layers(self) -> range:
        """The layers that the stage holds."""
        return range(self.first, self.last)


class Pipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A chain of stages that holds the whole model, and its like copies."""

    stages: tuple[Stage, ...]
    micro_batch: int
    """Sequences of a micro-batch."""
    micro_batches: int
    """Micro-batches of one copy in one step."""
    copies: int = 1
    """Data parallel degree: pipelines of this very shape."""

    @property
    def chips(self) -> int:
        """Chips of all copies."""
        return self.copies * sum(stage.chips for stage in self.stages)

    @property
    def sequences(self) -> int:
        """Sequences of one step, all copies."""
        return self.copies * self.micro_batch * self.micro_batches


class Expected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the planner promised, to be held against the run."""

    step_time: Interval
    bound_s: float | None = None
    """No plan in the searched space is faster, by the same costs; None: no bound was computed."""
    stage_s: tuple[tuple[float, ...], ...] = ()
    """Forward and backward of one micro-batch, by pipeline and stage."""
    memory_bytes: tuple[tuple[float, ...], ...] = ()
    """Peak on one chip, by pipeline and stage."""
    alone_s: dict[str, float | None] = msgspec.field(default_factory=dict)
    """Step time of the best plan on each group alone; None where the model does not fit there."""


class MixPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan: which layers, how many samples and which degrees go where."""

    format: str = FORMAT
    model: str
    """As the user named it."""
    model_digest: str
    """:func:`digest` of the model's configuration."""
    cluster: str
    cluster_digest: str
    """:func:`digest` of what the cluster's groups are: a plan for another cluster is refused."""
    layers: int
    """Blocks of the model; layers are numbered 0 to ``layers`` + 1."""
    seq_len: int
    global_batch: int
    """Sequences of an optimizer step over all pipelines."""
    precision: str = "bf16"
    optimizer: str = "adamw"
    schedule: Schedule = "1f1b"
    wire: WireDtype = "fp32"
    """Dtype of gradients and activations between groups."""
    pipelines: tuple[Pipeline, ...]
    idle: dict[str, int] = msgspec.field(default_factory=dict)
    """Chips of each group that the plan leaves out."""
    expected: Expected | None = None

    @property
    def chips(self) -> dict[str, int]:
        """Chips that the plan uses, by group."""
        used: dict[str, int] = {}
        for pipeline in self.pipelines:
            for stage in pipeline.stages:
                used[stage.group] = used.get(stage.group, 0) + pipeline.copies * stage.chips
        return used

    @property
    def digest(self) -> str:
        """Of everything but what was expected."""
        return digest({name: value for name, value in msgspec.to_builtins(self).items() if name != "expected"})


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """The place of one process in a plan."""

    rank: int
    pipeline: int
    copy: int
    stage: int
    replica: int
    shard: int
    """Index inside the tensor parallel group."""
    group: str


def seats(plan: MixPlan) -> tuple[Seat, ...]:
    """The seats of ``plan`` by rank: pipelines, copies, stages, replicas and shards in order, shards innermost."""
    found: list[Seat] = []
    for p, pipeline in enumerate(plan.pipelines):
        for copy in range(pipeline.copies):
            for s, stage in enumerate(pipeline.stages):
                for replica in range(stage.replicas):
                    for shard in range(stage.tp):
                        found.append(
                            Seat(
                                rank=len(found), pipeline=p, copy=copy, stage=s, replica=replica, shard=shard, group=stage.group
                            )
                        )
    return tuple(found)


def first_samples(plan: MixPlan) -> Iterator[tuple[int, int, int]]:
    """(pipeline, copy, index of its first sequence in the global batch): copies take contiguous runs in the order of seats."""
    start = 0
    for p, pipeline in enumerate(plan.pipelines):
        for copy in range(pipeline.copies):
            yield p, copy, start
            start += pipeline.micro_batch * pipeline.micro_batches


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode("utf-8")).hexdigest()


def check(plan: MixPlan, *, supply: Mapping[str, int] | None = None, where: str = "plan") -> None:
    """Refuse a plan that cannot be meant.

    Args:
        plan: The plan.
        supply: Chips of each group of the cluster; None: not known here.
        where: The file, for the message.

    Raises:
        BadPlan: Stages that leave layers out or hold them twice, a batch that does not add up, more chips than there are.
    """
    if plan.format != FORMAT:
        raise BadPlan("SP-MIX-001", where=where, format=plan.format, known=FORMAT)
    if not plan.pipelines:
        raise BadPlan("SP-MIX-002", where=where)
    for p, pipeline in enumerate(plan.pipelines):
        _check_pipeline(plan, pipeline, where=f"{where} pipelines[{p}]")
    total = sum(pipeline.sequences for pipeline in plan.pipelines)
    if total != plan.global_batch:
        terms = " + ".join(f"{one.copies} x {one.micro_batches} x {one.micro_batch}" for one in plan.pipelines)
        raise BadPlan("SP-MIX-006", where=where, terms=terms, total=total, batch=plan.global_batch)
    for group, used in plan.chips.items() if supply is not None else ():
        if group not in (supply or {}):
            raise BadPlan("SP-MIX-007", where=where, group=group, known=", ".join(supply or {}))
        if used > (supply or {})[group]:
            raise BadPlan("SP-MIX-008", where=where, group=group, used=used, have=(supply or {})[group])


def _check_pipeline(plan: MixPlan, pipeline: Pipeline, *, where: str) -> None:
    for name, value in (("copies", pipeline.copies), ("micro_batch", pipeline.micro_batch), ("micro_batches", pipeline.micro_batches)):
        if value < 1:
            raise BadPlan("SP-MIX-003", where=f"{where}.{name}", field=name, value=value)
    at = 0
    for s, stage in enumerate(pipeline.stages):
        for name, value in (("tp", stage.tp), ("replicas", stage.replicas)):
            if value < 1:
                raise BadPlan("SP-MIX-003", where=f"{where}.stages[{s}].{name}", field=name, value=value)
        if stage.first != at or stage.last <= stage.first:
            raise BadPlan("SP-MIX-004", where=f"{where}.stages[{s}]", first=stage.first, last=stage.last, due=at)
        at = stage.last
    if at != plan.layers + 2:
        raise BadPlan("SP-MIX-005", where=where, end=at, due=plan.layers + 2)


def read_plan(path: str | os.PathLike[str], *, supply: Mapping[str, int] | None = None) -> MixPlan:
    """The plan of a file.

    Raises:
        BadFile: Unreadable, malformed, or a field that a plan does not have.
        BadPlan: Another kind of file; see :func:`check`.
    """
    raw = read_json(path)
    # the fields of another format are not worth a word
    if isinstance(raw, dict) and raw.get("format", FORMAT) != FORMAT:
        raise BadPlan("SP-MIX-001", where=os.fspath(path), format=raw["format"], known=FORMAT)
    plan = decode(MixPlan, raw, path)
    check(plan, supply=supply, where=os.fspath(path))
    return plan


def write_plan(path: str | os.PathLike[str], plan: MixPlan) -> None:
    """Write ``plan`` whole or not at all, as JSON that a person can read.

    Raises:
        BadFile: The place cannot be written.
    """
    write_atomic(path, msgspec.json.format(msgspec.json.encode(plan), indent=1).decode() + "\n")
