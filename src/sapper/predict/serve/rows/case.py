"""ServeCase: the exact question that a published inference measurement puts to predict, and how the answer is scored."""

from __future__ import annotations

from typing import Literal

import msgspec

from sapper.clusters.cluster import Cluster
from sapper.predict.rows.case import Assumption, Conversion
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.plan import Admission, ServePlan

Quantity = Literal["e2e", "ttft", "tpot", "forward", "output_rate", "energy_per_token"]
"""What is asked for, in SI units:

e2e               seconds from the arrival of a batch to its last token: one prompt pass and ``output_len - 1`` decode steps
ttft              seconds from a request's arrival to its first token
tpot              seconds between two tokens of one request
forward           seconds of one pass over the prompts of the batch, without generation
output_rate       generated tokens per second of all replicas together
energy_per_token  joules of the chips for each generated token

Rates of a static batch are times in disguise (``batch * output_len / e2e``, ``batch / tpot``): they are asked as times, and the
conversion makes the source's rate of the answer."""

Mode = Literal["static", "closed", "saturated", "server"]
"""How load is put on:

static     one batch enters at once and is generated to its end
closed     ``concurrency`` requests are always under way, a new one for each that ends (continuous batching)
saturated  all requests are there from the start, and the engine chooses its batch for the most tokens per second
server     requests arrive at random, as many as the latency limits allow
"""

Statistic = Literal["mean", "median", "p99"]


class PrefillPool(msgspec.Struct, frozen=True, kw_only=True):
    """The workers that read prompts, where prompts and generation run on separate ones."""

    plan: ServePlan
    workers: int | None
    """None: the source does not say how many."""
    unknown: frozenset[str] = frozenset()

    @property
    def chips(self) -> int | None:
        """Chips of all workers."""
        return None if self.workers is None else self.workers * self.plan.chips


class ServeCase(msgspec.Struct, frozen=True, kw_only=True):
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
    """As the row has it; ``ttft``, ``tpot`` where the figure stands beside the row's own metric."""
    unit: str
    measured: float
    conversion: Conversion
    quantity: Quantity
    statistic: Statistic = "mean"
    """Of the requests; TTFT of a loaded engine is skewed, so it matters there."""

    job: ServeJob
    precision: str
    """As the source has it."""
    cluster: Cluster
    """All chips of the measurement; in a disaggregated one, of its decode workers."""
    plan: ServePlan
    """A legal plan of one replica that agrees with what the row states; the fields in ``unknown`` are only a start."""
    replicas: int | None = 1
    """Replicas that share the load; in a disaggregated measurement the decode workers. None: the source does not say."""
    unknown: frozenset[str] = frozenset()
    """Fields of the plan, and ``replicas``, that the row does not state."""
    admission: Admission = Admission()
    """When the engine looks at waiting requests, where the recipe of the measurement says so."""
    memory_share: float | None = None
    """Of a chip's memory, what the recipe of the measurement gives to the engine; None: as much as is usual."""
    free_share: float | None = None
    """Of what the weights leave of that, what it gives to the cache; None: all."""
    prefill: PrefillPool | None = None
    """Set where prompts are read by workers of their own (disaggregated); ``plan`` is then that of a decode worker."""

    mode: Mode
    batch: float | None = None
    """static: sequences of the whole batch over all replicas; closed: concurrent requests over all replicas; saturated and
    server: None."""
    input_len: float
    """Mean tokens of a prompt."""
    output_len: float
    """Mean tokens generated, the first included."""
    requests: int | None = None
    """Requests of the whole measurement, where stated."""
    ttft_limit_s: float | None = None
    """server: the limit that 99% of the requests meet."""
    tpot_limit_s: float | None = None

    ttft_s: float | None = None
    """Figures that the row reports beside its metric, in SI units."""
    tpot_s: float | None = None
    output_tokens_per_s: float | None = None
    power_w: float | None = None
    """Of all chips; of the whole system where ``tags`` has ``system-power``."""
    engine: str | None = None
    """Engine and its release in the source's words."""
    drafts: int | None = None
    """Tokens drafted for each that is generated, where ``tags`` has ``speculative``; None: as many as are usual."""
    tags: frozenset[str] = frozenset()
    """dies, variant, system-power, speculative, multimodal, hosted, graph, eager, ..."""
    assumptions: tuple[Assumption, ...] = ()

    @property
    def disaggregated(self) -> bool:
        """Whether prompts are read by workers of their own."""
        return self.prefill is not None

    @property
    def replica_batch(self) -> float | None:
        """Sequences of one replica; None where the batch or the number of replicas is not known."""
        return None if self.batch is None or self.replicas is None else self.batch / self.replicas

    @property
    def measured_si(self) -> float:
        """The measured value in the SI unit of ``quantity``."""
        return self.conversion.quantity_of(self.measured)

    def value_of(self, predicted: float) -> float:
        """The predicted quantity in the row's metric and unit."""
        return self.conversion.value_of(predicted)
