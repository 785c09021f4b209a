"""case_of: from a row to the exact question that predict must answer, or to the refusal that names what is missing."""

from __future__ import annotations

import re

from sapper.chips.catalogue import Catalogue
from sapper.chips.schema import Chip
from sapper.clusters.cluster import Cluster
from sapper.clusters.spec import cluster_of
from sapper.errors import SapperError
from sapper.predict.job import OPTIMIZERS, PRECISIONS, TrainJob
from sapper.predict.plan import Recompute
from sapper.predict.rows import chips_of, metrics, mlperf, network, plans, words_of
from sapper.predict.rows.case import Assumption, Case, Conversion
from sapper.predict.rows.models import workload_of
from sapper.predict.rows.row import Refused, Row, RowFault
from sapper.predict.rows.rules import SourceRule, attention_of, source_rule, stack_of, year_of

TRUST = {"high": 1.0, "medium": 0.5, "low": 0.25, "suspect": 0.0}
"""Weight by confidence."""
NEAREST = {"fp4": "fp8", "int8": "fp8"}
"""Precisions that a job may not know, and the neighbour that stands for them."""
DTYPE = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16"}
"""Dtype of activations and compute weights by precision; bf16 for all others."""
LESS_SURE = ("precision", "global_batch")
"""Fields whose assumption halves a row's weight: they move the answer as much as the chip does."""


def case_of(row: Row, catalogue: Catalogue) -> Case | Refused:
    """The question that ``row`` puts, with its measured answer.

    Args:
        row: A row of :func:`~sapper.predict.rows.read_rows`.
        catalogue: Where chips are looked up.

    Returns:
        The case, or a refusal that names the field that is missing or contradicts another. Never raises for bad input.
    """
    try:
        return _case(row, catalogue)
    except RowFault as fault:
        return Refused(row_id=row.id, code=fault.code, field=fault.field, values=fault.values)
    except SapperError as error:
        return Refused.because(error, row_id=row.id)


def _case(row: Row, catalogue: Catalogue) -> Case:
    if row.phase is not None and row.kind != "training":
        raise RowFault("SP-ROW-021", "phase", value=row.phase)
    metrics.check_unit(row)
    rule = source_rule(row)
    stack, year = stack_of(row, rule), year_of(row, rule)
    card, varied = chips_of.chip_of(row, catalogue)
    precision, assumed = words_of.precision(row, card)
    said = words_of.repeats(row, rule)
    attention = attention_of(rule, stack, year)
    workload, modelled = workload_of(row, dtype=DTYPE.get(precision, "bf16"), attention=attention)
    cut = plans.cut_of(
        row, rule, said, devices_per_card=card.devices_per_card or 1, heads=row.model.heads or 1, node=_per_node(row) or 8, stack=stack
    )
    chip, dies = _device(row, card, cut.devices)
    asked, lowered = _asked(precision)
    job = TrainJob(
        workload=workload, global_batch=cut.global_batch, precision=asked, optimizer=_optimizer(rule),
        finetune="lora" if re.search(r"\blora\b", row.model.name, re.IGNORECASE) else "full", stack=stack, stack_year=year,
        fused_loss=rule.fused_loss, vocab_padded=rule.vocab is None,
    )
    conversion, metric, unit, measured, rated = _scored(row, rule, job, chip=card, precision=precision, recompute=said.recompute)
    cluster, networked = network.with_stated_network(_cluster(row, chip, cut.devices), row, rule)
    assumptions = (*varied, *modelled, *assumed, *lowered, *cut.assumptions, *dies, *rated, *networked)
    return Case(
        row_id=row.id, source=row.source, family=rule.family, vendor=card.vendor, chip_id=card.id.partition("+")[0],
        confidence=row.confidence, weight=_weight(row, assumptions), metric=metric, unit=unit, measured=measured,
        conversion=conversion, quantity="memory" if row.metric == "memory_per_chip" else "time", memory_part=said.memory,
        job=job, precision=precision, cluster=cluster, plan=cut.plan, unknown=cut.unknown, micro_batches=cut.micro_batches,
        attention=attention, tags=_tags(row, rule, chip, card), memory_bytes=_memory_beside(row), assumptions=assumptions,
    )


def _scored(
    row: Row, rule: SourceRule, job: TrainJob, *, chip: Chip, precision: str, recompute: Recompute | None
) -> tuple[Conversion, str, str, float, tuple[Assumption, ...]]:
    """Conversion, metric, unit and value that the row is scored on."""
    if row.metric != "time_to_train":
        metrics.check_possible(row, rule, job, chip)
        found = metrics.conversion_of(row, rule, job, chip=chip, recompute=recompute)
        return found, row.metric, row.unit, row.value, ()
    rate, assumed = mlperf.samples_per_s(row, job, chip, precision=precision)
    return Conversion(kind="rate", factor=float(job.global_batch)), "samples_per_s", "samples/s", rate, assumed


def _device(row: Row, card: Chip, devices: int) -> tuple[Chip, tuple[Assumption, ...]]:
    """The chip that a rank of the job runs on: one die of a card where the job counts dies."""
    parts = card.devices_per_card or 1
    single = parts > 1 and row.n_chips == 1 and re.search("pytorch|eager", row.framework or "", re.IGNORECASE) is not None
    if devices == row.n_chips and not single:
        return card, ()
    if single:
        return chips_of.die_of(card), (Assumption(field="chip", value=f"1/{parts}", code="assume.one_die", values={"parts": parts}),)
    return chips_of.die_of(card), ()


def _asked(precision: str) -> tuple[str, tuple[Assumption, ...]]:
    if precision in PRECISIONS:
        return precision, ()
    nearest = NEAREST[precision]
    return nearest, (Assumption(field="precision", value=nearest, code="assume.precision.nearest", values={"precision": precision}),)


def _optimizer(rule: SourceRule) -> str:
    """What follows the backward pass; where the source timed no optimizer step, the job's word for none."""
    if rule.optimizer_step:
        return "adamw"
    return "none" if "none" in OPTIMIZERS else "sgd"


def _weight(row: Row, assumptions: tuple[Assumption, ...]) -> float:
    doubts = {assumption.field for assumption in assumptions} & set(LESS_SURE)
    return TRUST[row.confidence] * 0.5 ** len(doubts)


def _cluster(row: Row, chip: Chip, devices: int) -> Cluster:
    per_node = _per_node(row)
    if per_node is not None:
        per_node *= devices // row.n_chips
    return cluster_of(chip, devices, per_node=per_node if per_node and devices % per_node == 0 else None)


def _per_node(row: Row) -> int | None:
    """Chips of a node, where the row states them."""
    value = row.extra.get("accel_per_node")
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024 else None


def _tags(row: Row, rule: SourceRule, chip: Chip, card: Chip) -> frozenset[str]:
    tags = set(rule.tags)
    words = f"{row.framework or ''} {row.recompute or ''}".lower()
    for tag, pattern in (("async-tp", r"async ?tp"), ("offload", "offload"), ("compile", r"\bcompile\b")):
        if re.search(pattern, words):
            tags.add(tag)
    if row.extra.get("act_cpu_offload") is True:
        tags.add("offload")
    if "eager" in words:
        tags.discard("compile")
    if not rule.optimizer_step:
        tags.add("no-optimizer")
    if _MEMORY_SEEN in row.extra:
        tags.add("driver")
    if chip.id != card.id:
        tags.add("dies")
    if "+" in card.id:
        tags.add("variant")
    return frozenset(tags)


_MEMORY_SEEN = "mem_used_of_total_gib"
"""Peak as the driver shows it, over the card's memory."""


def _memory_beside(row: Row) -> float | None:
    """Peak memory that the row reports beside its metric."""
    for key, scale in (("peak_mem_gib", 2.0**30), ("mem_gb_per_chip", 1e9)):
        value = row.extra.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e6:
            return value * scale
    used = row.extra.get(_MEMORY_SEEN)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*\d+(?:\.\d+)?", used) if isinstance(used, str) else None
    return float(found[1]) * 2.0**30 if found else None
