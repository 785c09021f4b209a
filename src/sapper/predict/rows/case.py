"""Case: the exact question that a published measurement puts to predict, and how the answer is scored."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sapper import messages
from sapper.clusters.cluster import Cluster
from sapper.predict.job import TrainJob
from sapper.predict.plan import Plan

Quantity = Literal["time", "memory"]


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the row does not say and that a rule supplies."""

    field: str
    value: str
    code: str
    """Message that gives the reason."""
    values: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def text(self) -> str:
        """The reason in the language in force."""
        return messages.text(self.code, field=self.field, value=self.value, **self.values)


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """From a step time (or bytes) to the row's metric: ``factor / x`` for rates, ``factor * x`` for times and memory."""

    kind: Literal["rate", "direct"]
    factor: float

    def value_of(self, predicted: float) -> float:
        """The row's metric for a step time in seconds (for memory: for bytes)."""
        return self.factor / predicted if self.kind == "rate" else self.factor * predicted

    def quantity_of(self, value: float) -> float:
        """The step time in seconds (for memory: the bytes) that the metric's ``value`` means."""
        return self.factor / value if self.kind == "rate" else value / self.factor


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One question with its measured answer."""

    row_id: str
    source: str
    family: str
    """What ``--leave-out source`` groups by."""
    vendor: str
    chip_id: str
    """Catalogue id of the chip, of the die's card, or of the chip that a variant derives from: ``--leave-out chip`` groups by it."""
    confidence: str
    weight: float
    """Trust in the row for fitting, in [0, 1]: confidence, lowered where something that matters was assumed."""

    metric: str
    """As scored; MLPerf's time_to_train is scored as samples_per_s."""
    unit: str
    measured: float
    conversion: Conversion
    quantity: Quantity = "time"
    memory_part: Literal["peak", "static", "activations"] = "peak"
    """Which memory a memory row means."""

    job: TrainJob
    precision: str
    """As the source has it; ``job.precision`` is its nearest neighbour that a job knows."""
    cluster: Cluster
    plan: Plan
    """A legal plan that agrees with everything the row states; the fields in ``unknown`` are only a start."""
    unknown: frozenset[str]
    """Fields of the plan that the row does not state."""
    micro_batches: int | None = None
    """Micro-batches of a replica and step, where stated apart from the plan: dp * micro_batch * micro_batches = global_batch."""
    attention: Literal["flash", "unfused"] = "flash"
    tags: frozenset[str] = frozenset()
    """compile, async-tp, offload, whole-run, no-optimizer, no-pauses (nothing stands between steps), packed, dies, variant, driver
    (memory as the driver shows it)."""
    memory_bytes: float | None = None
    """Peak memory of the fullest chip that the row reports beside its metric."""
    assumptions: tuple[Assumption, ...] = ()

    def value_of(self, predicted: float) -> float:
        """The predicted step time in seconds (memory rows: bytes) in the row's metric and unit."""
        return self.conversion.value_of(predicted)

    @property
    def measured_time_s(self) -> float | None:
        """The step time that the measured value means; None for memory rows."""
        return self.conversion.quantity_of(self.measured) if self.quantity == "time" else None
