"""Assessment: the answer to a Question, whole. Terminal, JSON and both pages print this object and nothing else."""

from __future__ import annotations

from typing import Literal

import msgspec

from sapper.assess.mixed import Mixed
from sapper.assess.proof import Proven
from sapper.assess.serving import Serving
from sapper.chips.schema import ExportRule, Price, Software
from sapper.evidence import Fact, Grade, Interval
from sapper.predict.estimate import Estimate, Refusal
from sapper.predict.plan import Plan

Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The job as it was asked, in numbers."""

    model: str
    family: str
    params: int
    active_params: int
    seq_len: int
    global_batch: int
    """Sequences."""
    batch_given: bool
    precision: str
    optimizer: str
    finetune: str
    lora_rank: int | None
    tokens: float
    steps: float
    model_flops: float
    """Of the whole job, forward and backward, full score square, no recomputation."""
    plan: str | None
    """As given; None: searched."""
    power_price: Fact | None
    pue: Fact | None
    unpriced: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def counts_samples(self) -> bool:
        """Whether a sample counts as one token (an image, a click), so that ``tokens`` are samples."""
        return round(self.tokens / (self.steps * self.global_batch)) == 1


class LinkView(msgspec.Struct, frozen=True, kw_only=True):
    """What joins the chips of an option at one level."""

    level: Literal["scale-up", "scale-out"]
    name: str
    topology: str
    bandwidth_bytes_per_s: Fact | None
    """Per chip and direction."""
    latency_s: Fact | None
    domain_size: int | None
    evidence: tuple[int, ...] = ()


class ChipView(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalogue knows of an option's chip, for the tables and the roofline."""

    id: str
    vendor: str
    name: str
    vendor_zh: str | None
    arch_class: str
    precision: str
    peak_flops_per_s: Fact | None
    """Dense, of the compute dtype."""
    memory_bytes: Fact | None
    usable_bytes: Fact | None
    bandwidth_bytes_per_s: Fact | None
    tdp_w: Fact | None
    prices: tuple[Price, ...]
    export: tuple[ExportRule, ...]
    tpp: float | None
    """Total processing performance of the export rules (TOPS times bits); None where no peak is known."""
    tpp_per_mm2: float | None
    """Performance density of the export rules."""
    software: Software | None


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """Something that could make the answer or the purchase go wrong."""

    code: str
    severity: Severity
    values: dict[str, str] = msgspec.field(default_factory=dict)
    evidence: tuple[int, ...] = ()


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One pass-type check, as an operator's acceptance test has them: a failed one fails the option."""

    code: str
    outcome: Literal["pass", "fail", "unknown"]
    values: dict[str, str] = msgspec.field(default_factory=dict)


class RunnerUp(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that lost, and why."""

    plan: Plan
    step_time_s: float
    memory_bytes: float
    reason: dict[str, str] = msgspec.field(default_factory=dict)
    """Why it lost, by language."""


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """The same option with another link, its best plan searched again."""

    code: str
    """``reference-link`` (the reference's scale-up link in place of its own) or ``host-link`` (no scale-up link at all)."""
    link: LinkView
    step_time_s: float
    factor: float
    """Step time with that link over step time as it is."""
    comm_share: float


class Ratios(msgspec.Struct, frozen=True, kw_only=True):
    """An option over the reference; each an interval of unit 1."""

    time: Interval | None = None
    energy: Interval | None = None
    cost: dict[str, Interval] = msgspec.field(default_factory=dict)
    comm_share: float | None = None
    """Share of the step spent in communication over the reference's share."""


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One option: its answer or its refusal, never neither."""

    label: str
    cluster: str
    chips: int
    nodes: int
    is_reference: bool
    chip: ChipView
    links: tuple[LinkView, ...]
    estimate: Estimate | None
    refusal: Refusal | None
    refusal_kind: Literal["missing", "no-fit", "bad", "ours"] | None
    """missing: a value is unknown; no-fit: no plan fits; bad: the question does not suit it; ours: a bug of ours."""
    why: dict[str, str]
    """Why there is no answer, by language; empty where there is one."""
    remedy: dict[str, str]
    """The next step after a refusal, by language, where there is one."""
    at_meter: bool
    """Whether the energy is that at the site's meter (the chips' times the PUE), or the chips' alone."""
    comm_share: float | None
    headroom: float | None
    """Free share of the chip's memory at the peak."""
    ratios: Ratios
    what_if: tuple[WhatIf, ...]
    runners: tuple[RunnerUp, ...]
    plans: int | None
    fitting: int | None
    risks: tuple[Risk, ...]
    checks: tuple[Check, ...]
    evidence: tuple[int, ...]
    """Numbers of all facts under this option's figures."""
    figure_evidence: dict[str, tuple[int, ...]]
    """Figure -> numbers: power, memory, price, peak, bandwidth, scale_up, scale_out, pue, power_price."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered fact of the evidence index."""

    number: int
    subject: str
    """Chip id, or empty for a fact of the method or of the site."""
    key: str
    fact: Fact


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """One question, every option's answer, and the evidence under each figure."""

    schema: str = "sapper.assess/1"
    sapper: str
    as_of: str
    """ISO date of the assessment."""
    verified_by: str | None = None
    """Who reviewed it; None: nobody (unverified)."""
    asked: Asked
    options: tuple[Option, ...]
    """The reference first, then in the order asked."""
    ranking: tuple[int, ...]
    """Positions in ``options`` of those answered, fastest first."""
    unanswered: tuple[int, ...]
    level: float
    evidence: tuple[Source, ...]
    grade: Grade | None
    """The weakest grade among the answers."""
    elapsed_s: float
    serving: Serving | None = None
    """The serving chapter; None where none was asked."""
    mixed: tuple[Mixed, ...] = ()
    """Options of unlike chips, which are no row among the others."""
    proofs: tuple[Proven, ...] = ()
    """What was proved of chips that were asked for."""
    not_proven: tuple[str, ...] = ()
    """Ids of chips that were asked for and that no proof was given of: unknown, never passed."""

    @property
    def reference(self) -> Option:
        """The option that the others are compared with."""
        return self.options[0]
