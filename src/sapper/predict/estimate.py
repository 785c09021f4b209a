"""Estimate: what predict answers, whole. Terminal, JSON and dossier print this object and nothing else."""

from __future__ import annotations

import msgspec

from sapper.evidence import Fact, Grade, Interval
from sapper.predict.plan import Plan


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """What the estimate priced, and what it did not."""

    ops: int
    ops_priced: int
    flops_share: float | None
    """Share of the FLOPs that were priced; None: not known, since an op without a rule is among them."""
    bytes_share: float
    unpriced: tuple[str, ...] = ()


class MemoryPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a chip's memory on the fullest stage."""

    name: str
    """weights, gradients, optimizer, activations, logits, buffers, overhead."""
    size_bytes: float


class StageMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Peak memory of one pipeline stage."""

    stage: int
    size_bytes: float


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Peak memory of the fullest chip against what it has."""

    peak: Interval
    capacity_bytes: float | None
    """What the driver leaves to a program; None where unknown."""
    fits: bool | None
    parts: tuple[MemoryPart, ...]
    stages: tuple[StageMemory, ...]


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One term of the step time."""

    name: str
    """matmul, attention, memory-bound, launch, tensor-comm, pipeline-comm, data-comm, expert-comm, context-comm, bubble,
    optimizer, host."""
    time_s: float
    share: float
    limit: str
    """What binds it: compute, memory, launch, link, schedule."""


class OpTime(msgspec.Struct, frozen=True, kw_only=True):
    """Time of one op over the whole step on one chip (forward and backward), for the roofline and --explain."""

    name: str
    kind: str
    flops: float
    size_bytes: float
    time_s: float
    limit: str


class Narrowing(msgspec.Struct, frozen=True, kw_only=True):
    """The one measurement that would narrow the interval most."""

    what: str
    """Key of the constant, such as ``matmul efficiency bf16``."""
    width_now: float
    """high/low - 1 of the step time now."""
    width_then: float
    command: str


class Warning_(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a buyer must know; ``code`` has its text in the message catalogue."""

    code: str
    values: dict[str, str] = msgspec.field(default_factory=dict)


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """A constant that the estimate used, with its evidence."""

    key: str
    fact: Fact


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction with its interval, its reasons and its coverage."""

    workload: str
    cluster: str
    chip: str
    """Catalogue id."""
    chips: int
    purpose: str
    precision: str
    seq_len: int
    global_batch: int
    plan: Plan
    step_time: Interval
    tokens_per_s: Interval
    """Of the whole job."""
    tokens_per_s_per_chip: Interval
    mfu: Interval | None
    """Model FLOPs (full score square) over the dense peak of the compute dtype."""
    hfu: Interval | None
    """The same with recomputation counted."""
    steps: float | None
    job_time: Interval | None
    memory: Memory
    energy_per_step: Interval | None
    """Of the chips, times the site's PUE where one is given; None where the catalogue has no power."""
    job_energy: Interval | None
    cost: dict[str, Interval]
    """Of the job, by currency and basis: ``CNY cloud``, ``USD purchase 4y``. Empty where no price is known."""
    terms: tuple[Term, ...]
    ops: tuple[OpTime, ...]
    binds: str
    """Name of the greatest term."""
    coverage: Coverage
    narrowing: Narrowing | None
    warnings: tuple[Warning_, ...]
    used: tuple[Used, ...]
    grade: Grade

    @property
    def counts_samples(self) -> bool:
        """Whether a sample counts as one token (an image, a click), so that ``tokens_per_s`` are samples/s."""
        return round(self.tokens_per_s.mid * self.step_time.mid / self.global_batch) == 1


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A question that could not be answered, and the field that is missing."""

    chip: str
    cluster: str
    code: str
    values: dict[str, str]
