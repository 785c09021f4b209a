"""``predict train``: one plan of a training job on a cluster, as an :class:`Estimate`."""

from __future__ import annotations

import math

from sapper.clusters.cluster import Cluster, Group
from sapper.errors import BadPlan
from sapper.evidence import GRADES, Grade, Interval, worst
from sapper.predict import invariants, money
from sapper.predict.allocator import MemorySubject, counted, peak_of, shipped_memory
from sapper.predict.arrays import Floats, PlanArray
from sapper.predict.breakdown import op_times
from sapper.predict.combine import LIMITS, TERMS, combine, step_time
from sapper.predict.engine import Evaluated, evaluate, the_group
from sapper.predict.estimate import Coverage, Estimate, Memory, MemoryPart, StageMemory, Term, Used, Warning_
from sapper.predict.explain import explained
from sapper.predict.fit import Fitted
from sapper.predict.in_force import train_fit
from sapper.predict.job import TrainJob
from sapper.predict.layers import ONE_BY_ONE
from sapper.predict.legal import check_plan
from sapper.predict.memory import PARTS, stage_bytes
from sapper.predict.narrow import narrowing
from sapper.predict.observe import informed, measured
from sapper.predict.plan import Plan
from sapper.predict.subject import TrainSubject, constants_of, subject_of

LEVEL = 0.8
"""Probability that intervals state."""
LINKS_MATTER = 0.01
"""Share of the step from which on the grade of a link is the result's."""
MOST_STAGES = 16
"""Stages whose memory is listed one by one."""


def predict_train(
    job: TrainJob, cluster: Cluster, plan: Plan, *, fitted: Fitted | None = None, subject: TrainSubject | None = None
) -> Estimate:
    """Predict one step (and the whole job where ``job`` has tokens or steps) of ``plan`` on ``cluster``.

    Raises:
        BadPlan: The plan does not fit the cluster or the model.
        MissingFact: The catalogue lacks a value that the question needs; the field is named.
        InvariantError: The result is impossible (a fault of ours).
    """
    group = the_group(cluster)
    job.check()
    check_plan(plan, job, group.chips)
    evaluated = evaluate(job, cluster, PlanArray.of([plan]))
    if not evaluated.features.micro_batches[0]:
        raise BadPlan(
            "SP-PRED-022", where="plan", batch=job.global_batch, dp=plan.dp, micro_batch=plan.micro_batch, quotient="0", multiple=plan.dp
        )
    return estimate_of(evaluated, cluster, fitted=fitted or train_fit(), subject=subject)


def estimate_of(evaluated: Evaluated, cluster: Cluster, *, fitted: Fitted, subject: TrainSubject | None = None) -> Estimate:
    """The estimate of the single plan that ``evaluated`` holds."""
    job, group, plan = evaluated.job, evaluated.group, evaluated.plans.plan(0)
    fitted, subject = informed(fitted, group.chip), subject or subject_of(job, group.chip)
    eta, design, missing = fitted.eta([subject])
    terms = {name: float(value[0]) for name, value in combine(evaluated.features, constants_of(eta)).items()}
    _, slope = fitted.log_time(lambda eta: step_time(evaluated.features, constants_of(eta)), eta)
    deviation = float(fitted.deviation(slope, design=design, missing=missing)[0])
    used = _used(evaluated, fitted, subject, eta)
    # a result is no better than its weakest input that matters, nor than what fitted its efficiencies
    grounds, _ = fitted.grounds(subject.chip, purpose="training", stack=subject.stack)
    grade = worst(*_weights_in(used, terms), grounds)
    floor_s = _floor_s(evaluated)
    step = _step_interval(sum(terms.values()), fitted.factor() * deviation, floor_s, grade)
    mfu, hfu = _utilisation(evaluated, step)
    steps = job.total_steps
    job_time = None if steps is None else _scaled(step, steps, "s")
    watts, power_used = money.power_draw(group)
    per_step = None if watts is None else money.energy(step, watts, cluster)
    job_energy = None if watts is None or job_time is None else money.energy(job_time, watts, cluster)
    prices, price_used = ({}, ()) if job_time is None else money.costs(job_time, group, cluster, job_energy)
    tokens = job.tokens_per_step
    estimate = Estimate(
        workload=job.workload.name,
        cluster=cluster.name,
        chip=group.chip.id,
        chips=group.chips,
        purpose="train",
        precision=job.precision,
        seq_len=job.workload.seq_len,
        global_batch=job.global_batch,
        plan=plan,
        step_time=step,
        tokens_per_s=_inverse(step, tokens, "tokens/s"),
        tokens_per_s_per_chip=_inverse(step, tokens / group.chips, "tokens/s/chip"),
        mfu=mfu,
        hfu=hfu,
        steps=steps,
        job_time=job_time,
        memory=_memory(evaluated, subject.stack, grade),
        energy_per_step=per_step,
        job_energy=job_energy,
        cost=prices,
        terms=_terms(terms),
        ops=op_times(evaluated, constants_of(eta)),
        binds=max(terms, key=lambda name: terms[name]),
        coverage=_coverage(evaluated),
        narrowing=narrowing(fitted, slope=slope, design=design, missing=missing, run="training-step"),
        warnings=_warnings(evaluated, subject, fitted),
        used=(*used, *power_used, *price_used),
        grade=grade,
    )
    return invariants.check(estimate)


def _weights_in(used: tuple[Used, ...], terms: dict[str, float]) -> list[Grade]:
    """Grades of the inputs that carry the result: not the count of compute units, which sets the last wave of a matmul, links
    only where communication takes a hundredth of the step, and not the single effects behind a constant, which has a grade."""
    talk = sum(time for name, time in terms.items() if LIMITS[name] == "link") / sum(terms.values())
    light = ("compute units",) if talk >= LINKS_MATTER else ("compute units", "bandwidth per direction", "latency")
    return [item.fact.grade for item in used if not item.key.endswith(light) and not item.key.startswith(("effect ", "slope "))]


def _step_interval(mid: float, half: float, floor_s: float, grade: Grade) -> Interval:
    factor = math.exp(half)
    return Interval(mid=mid, low=min(mid, max(mid / factor, floor_s)), high=mid * factor, unit="s", grade=grade)


def _floor_s(evaluated: Evaluated) -> float:
    """Executed FLOPs at the dense peak: no step is faster than that, whatever the efficiencies."""
    full, executed = _flops(evaluated)
    return max(full, executed) / (evaluated.group.chips * evaluated.device.peak_flops_per_s)


def _flops(evaluated: Evaluated) -> tuple[float, float]:
    """(model FLOPs of a step under the full-square convention, the same with recomputation) over all chips."""
    job = evaluated.job
    passes = 3.0 if job.finetune == "full" else 2.0
    model = passes * job.workload.flops(convention="full") * job.global_batch
    return model, model * (1.0 + float(evaluated.features.recompute_share[0]) * 3.0 / passes)


def _utilisation(evaluated: Evaluated, step: Interval) -> tuple[Interval, Interval]:
    """MFU (PaLM, arXiv:2204.02311, appendix B) and HFU (with recomputation) over the dense peak of the precision."""
    peak = evaluated.group.chips * evaluated.device.peak_flops_per_s
    found = []
    for flops in _flops(evaluated):
        share = flops / peak
        found.append(Interval(mid=share / step.mid, low=share / step.high, high=min(share / step.low, 1.0), unit="1", grade=step.grade))
    return found[0], found[1]


def _scaled(value: Interval, factor: float, unit: str) -> Interval:
    return Interval(mid=value.mid * factor, low=value.low * factor, high=value.high * factor, unit=unit, grade=value.grade)


def _inverse(value: Interval, factor: float, unit: str) -> Interval:
    return Interval(mid=factor / value.mid, low=factor / value.high, high=factor / value.low, unit=unit, grade=value.grade)


def _terms(terms: dict[str, float]) -> tuple[Term, ...]:
    total = sum(terms.values())
    return tuple(Term(name=name, time_s=terms[name], share=terms[name] / total, limit=LIMITS[name]) for name in TERMS)


def _memory(evaluated: Evaluated, stack: str, grade: Grade) -> Memory:
    peak = float(evaluated.memory.peak_bytes[0])
    asked = MemorySubject(chip=evaluated.group.chip.id, stack=stack)
    _, half = peak_of(shipped_memory(), asked, counted(evaluated.memory, evaluated.allocation), level=LEVEL)
    factor = math.exp(half)
    parts = tuple(MemoryPart(name=name, size_bytes=float(evaluated.memory.parts[name][0])) for name in PARTS)
    stages = int(evaluated.plans.pp[0])
    listed = range(stages) if stages <= MOST_STAGES else sorted({*range(MOST_STAGES - 1), stages - 1})
    capacity = evaluated.device.capacity_bytes
    return Memory(
        peak=Interval(mid=peak, low=peak / factor, high=peak * factor, unit="bytes", grade=worst(grade, "derived")),
        capacity_bytes=capacity,
        fits=peak <= capacity,
        parts=parts,
        stages=tuple(
            StageMemory(
                stage=s,
                size_bytes=stage_bytes(
                    evaluated.job, evaluated.stage, evaluated.plans, position=s, allocation=evaluated.allocation
                ),
            )
            for s in listed
        ),
    )


def _coverage(evaluated: Evaluated) -> Coverage:
    blocks = evaluated.job.workload.blocks
    ops = sum(block.count * len(block.ops) for block in blocks)
    unpriced = evaluated.job.workload.unpriced
    known = evaluated.job.workload.unpriced_bytes_share
    share = ops / (ops + len(unpriced)) if known is None else 1.0 - known
    flops_share = None if unpriced and known is not None else 1.0
    bytes_share = share if unpriced else 1.0
    return Coverage(ops=ops + len(unpriced), ops_priced=ops, flops_share=flops_share, bytes_share=bytes_share, unpriced=unpriced)


def _used(evaluated: Evaluated, fitted: Fitted, subject: TrainSubject, eta: Floats) -> tuple[Used, ...]:
    used = list(evaluated.device.used)
    group: Group = evaluated.group
    if group.chips > 1:
        for name, link in (("scale-up", group.scale_up), ("scale-out", group.scale_out)):
            if link is not None and link.bandwidth_bytes_per_s.number is not None:
                used.append(Used(key=f"{group.chip.id} {name} bandwidth per direction", fact=link.bandwidth_bytes_per_s))
                used.append(Used(key=f"{group.chip.id} {name} latency", fact=link.latency_s))
    return (*used, *explained(fitted, subject, eta))


def _warnings(evaluated: Evaluated, subject: TrainSubject, fitted: Fitted) -> tuple[Warning_, ...]:
    found: list[Warning_] = []
    chip = evaluated.group.chip
    if subject.chip not in fitted.chips:
        found.append(Warning_(code="warn.no-training-record", values={"chip": chip.id}))
    if not any(record.metric.startswith("matmul") or record.metric == "gemm" for record in measured(chip)):
        found.append(Warning_(code="warn.no-matmul-record", values={"chip": chip.id}))
    if subject.stack == "unknown":
        found.append(Warning_(code="warn.no-stack", values={"chip": chip.id}))
    elif subject.stack not in (known := fitted.levels("stack")):
        found.append(Warning_(code="warn.unfitted-stack", values={"stack": subject.stack, "known": ", ".join(known)}))
    if subject.stack in ONE_BY_ONE and evaluated.job.workload.unfused is None:
        found.append(Warning_(code="warn.counted-fused", values={"stack": subject.stack}))
    assumed = [item.key for item in evaluated.device.used if item.fact.grade == "assumed"]
    for link in (evaluated.group.scale_up, evaluated.group.scale_out):
        if evaluated.group.chips > 1 and link is not None and link.bandwidth_bytes_per_s.grade == "assumed":
            assumed.append(f"{chip.id} {link.name}")
    if assumed:
        found.append(Warning_(code="warn.assumed", values={"what": ", ".join(assumed)}))
    peak, capacity = float(evaluated.memory.peak_bytes[0]), evaluated.device.capacity_bytes
    if peak > capacity:
        found.append(Warning_(code="warn.does-not-fit", values={"need": f"{peak / 2**30:.1f} GiB", "have": f"{capacity / 2**30:.1f} GiB"}))
    elif peak > 0.92 * capacity:
        found.append(Warning_(code="warn.tight-memory", values={"need": f"{peak / 2**30:.1f} GiB", "have": f"{capacity / 2**30:.1f} GiB"}))
    if evaluated.job.workload.unpriced:
        found.append(Warning_(code="warn.unpriced", values={"what": ", ".join(evaluated.job.workload.unpriced)}))
    assert all(grade in GRADES for grade in (item.fact.grade for item in evaluated.device.used))
    return tuple(found)
