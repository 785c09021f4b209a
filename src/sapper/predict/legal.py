"""Which plans are legal: degrees that multiply to the cluster, divide the batch and fit the model's dimensions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sapper.errors import BadPlan
from sapper.predict.arrays import PlanArray
from sapper.predict.job import TrainJob
from sapper.predict.plan import RECOMPUTES, SCHEDULES, Plan

FIELDS = tuple(Plan.__struct_fields__)
LONG_SEQUENCE = 8192
"""From this length on the search also cuts the sequence (context parallelism)."""


@dataclass(frozen=True)
class Limits:
    """What the model allows."""

    layers: int
    heads: int
    """Greatest common measure of the tensor-parallel degree: attention heads (or the hidden size where there are none)."""
    experts: int
    seq_len: int
    has_core: bool


def limits_of(job: TrainJob) -> Limits:
    """Limits that the workload sets."""
    blocks = job.workload.blocks
    shapes = [op.attention for block in blocks for op in block.ops if op.attention is not None]
    hidden = [block.hidden_size for block in blocks if block.hidden_size]
    heads = int(np.gcd.reduce([shape.heads for shape in shapes])) if shapes else int(np.gcd.reduce(hidden or [1]))
    experts = [block.experts for block in blocks if block.experts]
    known = job.workload.shards_known
    return Limits(
        layers=sum(block.count for block in blocks if block.role == "layer"),
        heads=heads if known else 1,
        experts=int(np.gcd.reduce(experts)) if experts else 0,
        seq_len=job.workload.seq_len if known else 1,
        has_core=bool(shapes),
    )


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def check_plan(plan: Plan, job: TrainJob, chips: int) -> None:
    """Refuse a plan that cannot run.

    Raises:
        BadPlan: With the equation and the values.
    """
    for field in ("tp", "pp", "dp", "ep", "cp", "micro_batch", "vpp"):
        value = getattr(plan, field)
        if value < 1:
            raise BadPlan("SP-PRED-025", where=f"plan.{field}", field=field, value=value, expected=">= 1")
    if plan.chips != chips:
        raise BadPlan("SP-PRED-021", where="plan", tp=plan.tp, pp=plan.pp, dp=plan.dp, cp=plan.cp, product=plan.chips, chips=chips)
    if job.global_batch % (plan.dp * plan.micro_batch):
        raise BadPlan(
            "SP-PRED-022",
            where="plan",
            batch=job.global_batch,
            dp=plan.dp,
            micro_batch=plan.micro_batch,
            quotient=f"{job.global_batch / (plan.dp * plan.micro_batch):.3g}",
            multiple=plan.dp * plan.micro_batch,
        )
    if not job.workload.shards_known and (plan.tp > 1 or plan.cp > 1):
        raise BadPlan("SP-CAP-026", where="plan", model=job.workload.name, tp=plan.tp, cp=plan.cp)
    limits = limits_of(job)
    rules = (
        (
            "pp",
            plan.pp * (plan.vpp if plan.schedule == "interleaved" else 1) <= limits.layers,
            f"pp x vpp <= {limits.layers} layers",
            f"1..{limits.layers}",
        ),
        ("tp", limits.heads % plan.tp == 0, f"tp | {limits.heads} heads", _some(divisors(limits.heads))),
        ("cp", limits.seq_len % plan.cp == 0, f"cp | seq {limits.seq_len}", _some(divisors(limits.seq_len))),
        (
            "ep",
            plan.ep == 1 or (limits.experts > 0 and limits.experts % plan.ep == 0),
            f"ep | {limits.experts} experts",
            _some(divisors(limits.experts or 1)),
        ),
        ("ep", (plan.dp * plan.cp) % plan.ep == 0, f"ep | dp x cp = {plan.dp * plan.cp}", _some(divisors(plan.dp * plan.cp))),
        ("zero", plan.zero in (0, 1, 2, 3), "0 <= zero <= 3", "0, 1, 2, 3"),
        (
            "hsdp",
            plan.hsdp == 0 or (plan.hsdp > 0 and (plan.dp * plan.cp) % plan.hsdp == 0),
            f"hsdp | dp x cp = {plan.dp * plan.cp}",
            _some(divisors(plan.dp * plan.cp)),
        ),
        ("pp", plan.schedule != "dualpipe" or plan.pp % 2 == 0, "dualpipe => 2 | pp", "2, 4, 6, ..."),
        ("vpp", plan.vpp == 1 or plan.schedule == "interleaved", "vpp > 1 => schedule=interleaved", "1"),
    )
    for field, holds, why, legal in rules:
        if not holds:
            raise BadPlan("SP-PRED-023", where=f"plan.{field}", field=field, value=getattr(plan, field), why=why, legal=legal)


def _some(values: list[int]) -> str:
    return ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")


def parse_plan(text: str, job: TrainJob, chips: int) -> Plan:
    """The plan that ``--plan tp=8,pp=4,...`` means; ``dp`` may be left out.

    Raises:
        BadPlan: An unknown field, a value that does not parse, or a plan that cannot run.
    """
    given: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        field, equals, value = (part.strip() for part in item.partition("="))
        if not equals or field not in FIELDS:
            raise BadPlan("SP-PRED-024", where="--plan", item=item, known=", ".join(FIELDS))
        given[field] = _value(field, value)
    if given.get("vpp", 1) != 1:
        given.setdefault("schedule", "interleaved")
    if "dp" not in given:
        used = int(np.prod([int(str(given.get(field, 1))) for field in ("tp", "pp", "cp")], dtype=object))
        given["dp"] = chips // used if used > 0 and chips % used == 0 else 1
    plan = Plan(**given)  # type: ignore[arg-type]
    check_plan(plan, job, chips)
    return plan


def _value(field: str, value: str) -> object:
    choices: dict[str, tuple[str, ...]] = {"schedule": SCHEDULES, "recompute": RECOMPUTES}
    if field in choices:
        if value not in choices[field]:
            raise BadPlan("SP-PRED-025", where=f"plan.{field}", field=field, value=value, expected=" | ".join(choices[field]))
        return value
    if field == "sequence_parallel":
        flags = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
        if value.lower() not in flags:
            raise BadPlan("SP-PRED-025", where=f"plan.{field}", field=field, value=value, expected="true | false")
        return flags[value.lower()]
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise BadPlan("SP-PRED-025", where=f"plan.{field}", field=field, value=value, expected="0..999999999")
    return int(value)


def legal_plans(job: TrainJob, chips: int, *, domain: int, fixed: dict[str, object] | None = None) -> PlanArray:
    """Every legal plan of the search space, as arrays.

    The space: all divisors for tp (inside the scale-up domain), pp, cp (long sequences), ep; micro-batches in powers of
    two; ZeRO 1 and 3 (and hybrid sharding inside a domain); 1F1B, interleaved and zero-bubble (DualPipe where it
    is asked for, since few stacks have it); the three recomputations.

    Args:
        job: What is trained.
        chips: Chips of the cluster.
        domain: Chips of a scale-up domain.
        fixed: Plan fields that are given and not searched.
    """
    limits, fixed = limits_of(job), fixed or {}
    rows = [
        (tp, pp, chips // (tp * pp * cp), ep, cp, micro, vpp, SCHEDULES.index(schedule), zero, hsdp, RECOMPUTES.index(recompute), True)
        for tp, pp, cp, ep in _degrees(limits, chips, domain, fixed)
        for micro, (vpp, schedule), (zero, hsdp), recompute in _choices(limits, job, chips, (tp, pp, cp), domain, fixed)
    ]
    table = np.array(rows, np.int64).reshape(-1, len(FIELDS))
    columns = {field: table[:, index] for index, field in enumerate(FIELDS) if field != "sequence_parallel"}
    parallel = np.full(len(table), bool(fixed.get("sequence_parallel", True)))
    return PlanArray(**columns, sequence_parallel=parallel)


def _degrees(limits: Limits, chips: int, domain: int, fixed: dict[str, object]) -> list[tuple[int, int, int, int]]:
    widest = max(min(domain, chips), 1)
    tps = [fixed["tp"]] if "tp" in fixed else [d for d in divisors(chips) if d <= widest and limits.heads % d == 0]
    pps = [fixed["pp"]] if "pp" in fixed else [d for d in divisors(chips) if d <= limits.layers]
    cps = (
        [fixed["cp"]]
        if "cp" in fixed
        else [d for d in divisors(chips) if d <= max(1, limits.seq_len // LONG_SEQUENCE * 2) and limits.seq_len % d == 0]
    )
    found = []
    for tp, pp, cp in itertools.product(tps, pps, cps):
        assert isinstance(tp, int) and isinstance(pp, int) and isinstance(cp, int)
        if chips % (tp * pp * cp) or ("dp" in fixed and chips // (tp * pp * cp) != fixed["dp"]):
            continue
        replicas = chips // (tp * pp)
        eps = [fixed["ep"]] if "ep" in fixed else [d for d in divisors(limits.experts or 1) if replicas % d == 0]
        found += [(tp, pp, cp, ep) for ep in eps if isinstance(ep, int) and replicas % ep == 0]
    return found


def _choices(
    limits: Limits, job: TrainJob, chips: int, degrees: tuple[int, int, int], domain: int, fixed: dict[str, object]
) -> list[tuple[int, tuple[int, str], tuple[int, int], str]]:
    tp, pp, cp = degrees
    dp = chips // (tp * pp * cp)
    if job.global_batch % dp:
        return []
    per_replica = job.global_batch // dp
    micros = [fixed["micro_batch"]] if "micro_batch" in fixed else [m for m in (1, 2, 4, 8, 16, 32, 64, 128) if m <= per_replica]
    micros = [m for m in micros if isinstance(m, int) and per_replica % m == 0]
    schedules = [(1, "1f1b")]
    if pp > 1:
        schedules += [(1, "zero-bubble"), *((v, "interleaved") for v in (2, 4, 8) if pp * v <= limits.layers)]
    if "schedule" in fixed or "vpp" in fixed:
        given = int(str(fixed.get("vpp", 1)))
        schedules = [(given, str(fixed.get("schedule", "interleaved" if given > 1 else "1f1b")))]
    replicas = dp * cp
    zeros = [(1, 0)] if replicas > 1 else [(0, 0)]
    if replicas > 1 and pp == 1:
        zeros += [(2, 0), (3, 0)]
        inside = max(domain // tp, 1)
        zeros += [(3, inside)] if 1 < inside < replicas and replicas % inside == 0 else []
    if "zero" in fixed or "hsdp" in fixed:
        zeros = [(int(str(fixed.get("zero", 3))), int(str(fixed.get("hsdp", 0))))]
    recomputes = [str(fixed["recompute"])] if "recompute" in fixed else [r for r in RECOMPUTES if r != "selective" or limits.has_core]
    return [(m, s, z, r) for m in micros for s in schedules for z in zeros for r in recomputes]
