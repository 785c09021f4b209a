"""What ``prove model`` finds and writes: ``model.json`` in the run's folder."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sapper.prove.blame.result import Evidence
from sapper.prove.verdict import Blame, Outcome

Phase = Literal["before", "forward", "backward", "optimizer", "after"]
"""Of a training step; ``before`` and ``after`` hold no ops of the program."""
Pass = Literal["first", "again", "other-inputs", "reordered"]
"""Which run of the step: the first, the same once more, on other inputs of the same shapes, and the same after those."""
Method = Literal["full", "sample", "fingerprints", "graph"]
"""How ops were checked: each against fp64, a share of them, by fingerprints against correct runs, or as nodes of one graph."""

FORMAT = "sapper-prove-model"
VERSION = 1


class OpRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One op as the device ran it: its local error, on the inputs that the device really had."""

    index: int
    """Of the op in its pass, counted over all ops that compute."""
    op: str
    """As PyTorch registers it, ``aten::mm``."""
    phase: Phase
    path: str
    """Module (forward, backward) or weight (optimizer) that it belongs to; empty where that is not known."""
    outcome: Outcome
    ratio: float | None = None
    """Worst over outputs: error over what a correct stack has on the same inputs."""
    label: str | None = None
    """The worst output."""
    error_l2: float | None = None
    allowed_l2: float | None = None
    call: str | None = None
    """Id of op, shapes and attributes."""
    shapes: str = ""
    """Of the tensors that went in, as text."""
    reason: str | None = None
    values: dict[str, Any] = {}
    said: str | None = None
    """What the stack raised."""
    at: Pass = "first"


class Error(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The accumulated error of one quantity of the free run, against the fp64 run of the whole model."""

    label: str
    """``loss``, ``grad of NAME``, ``updated NAME``, ``buffer NAME``; of a layer its path."""
    outcome: Outcome
    error_l2: float | None = None
    """|device - truth|_2 / |truth|_2."""
    allowed_l2: float | None = None
    """Largest such error among the correct runs: the envelope."""
    ratio: float | None = None


class Layer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One module: its ops' local errors and what has accumulated where it ends."""

    path: str
    phase: Literal["forward", "backward"]
    ops: int = 0
    """Judged ops that belong to it, without those of modules inside it."""
    worst: str | None = None
    """Its op with the largest local ratio."""
    ratio: float | None = None
    """Largest local ratio of its ops."""
    accumulated: Error | None = None
    """Of its output (backward: of the gradient of its output); None where it has none or ran elsewhere."""
    amplification_ratio: float | None = None
    """Accumulated error after it over the one before it, of correct runs: what the model itself does to errors."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An op (or region of a compiled graph, or quantity) that is wrong, worst first."""

    op: str
    phase: Phase
    path: str
    outcome: Outcome
    blame: Blame = "unknown"
    ruling: str | None = None
    """Message code of why it is whose fault it is; None where it was not tried."""
    evidence: tuple[Evidence, ...] = ()
    """The counter-runs that decided it."""
    index: int | None = None
    """Of its worst occurrence, whose inputs are kept."""
    at: Pass = "first"
    count: int = 1
    """Occurrences of this op with these shapes that are wrong."""
    ratio: float | None = None
    call: str | None = None
    shapes: str = ""
    reason: str | None = None
    values: dict[str, Any] = {}
    said: str | None = None
    region: tuple[str, ...] = ()
    """Ops of the smallest region that is wrong where its ops alone are right."""
    window: tuple[int, int] | None = None
    """Nodes of the graph that hold the region: from, up to."""
    saved: str | None = None
    """File of the call with its tensors, relative to the run's folder."""
    repro: str | None = None
    """Script that shows it alone, relative to the run's folder."""


class Coverage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was looked at, and what was not."""

    ops: int = 0
    """Ops that the device ran and that compute values."""
    judged: int = 0
    views: int = 0
    random: int = 0
    skipped: dict[str, int] = {}
    """Ops without a verdict, by why: ``no-reference``, ``layout``, ``not-sampled``, ``unsupported``."""
    drawn: int = 0
    """Draws of random numbers that were made on the CPU, for the device and the reference alike."""
    dropout_off: int = 0
    """Modules whose dropout was set to 0."""
    unmatched: int = 0
    """Fingerprints of the capsule that no op of this run answers to."""
    loss: str | None = None
    """The program's loss on the CPU, where it is no finite number: the whole of the step is compared with nothing then."""


class Cost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the check took."""

    step_cpu_s: float | None = None
    """Processor time of the plain step on the device's stack, all threads."""
    checked_cpu_s: float | None = None
    """The same with the check in force."""
    reference_cpu_s: float | None = None
    """Of fp64 run and correct runs; once a proof, whatever the number of steps."""
    wall_s: float | None = None
    stored_bytes: int | None = None
    """Of fingerprints."""


class ModelResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``model.json``."""

    format: str = FORMAT
    version: int = VERSION
    target: str
    backend: str
    kind: str
    """``device`` or ``compiler``."""
    real: bool
    """False: an emulated chip."""
    dtype: str
    seed: int
    steps: int
    method: Method
    outcome: Outcome
    """Of the model: the worst finding's, ``void`` without evidence of execution, else ``ok``."""
    blame: Blame | None = None
    """Of the first finding; ``model`` where no op is guilty and the whole is out of the envelope."""
    findings: tuple[Finding, ...] = ()
    amplifier: str | None = None
    """The layer after which the errors of correct runs grow most."""
    errors: tuple[Error, ...] = ()
    """Accumulated, of losses, gradients, updated weights and buffers."""
    prints: tuple[Error, ...] = ()
    """Fingerprints that leave the bounds, worst first; where none does, the nearest to them."""
    layers: tuple[Layer, ...] = ()
    ops: tuple[OpRecord, ...] = ()
    """Those that are not ``ok``, and the worst ones that are."""
    coverage: Coverage = Coverage()
    cost: Cost = Cost()
    where: str | None = None
    """Where it executed, by the stack's own evidence."""
    fallbacks: tuple[str, ...] = ()
    said: str | None = None
    """The stack's words where it refuses the step as a whole."""
    params: int = 0
    batch: int | None = None
    capsule: str | None = None
    """The capsule that it was checked against."""
    envelope_runs: int = 0
    versions: dict[str, str] = {}
    sapper: str = ""
    date: str = ""
