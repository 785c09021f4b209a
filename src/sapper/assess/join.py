"""Join the answers of all options into one Assessment: ratios, costs, risks, ranking, evidence."""

from __future__ import annotations

import msgspec

from sapper.assess.answer import Answer, comm_share
from sapper.assess.assessment import Asked, Assessment, ChipView, LinkView, Option, Ratios
from sapper.assess.index import Index
from sapper.assess.links import cluster_links
from sapper.assess.question import Question
from sapper.assess.ratio import ratio, same
from sapper.assess.risks import checks, risks
from sapper.assess.serve import Found, ServeAsked, chapter
from sapper.assess.text import TIMES
from sapper.chips.export_rules import export_arithmetic
from sapper.chips.schema import Chip
from sapper.clusters.cluster import Cluster
from sapper.evidence import Fact, worst
from sapper.predict.estimate import Estimate


def join(
    question: Question,
    answers: tuple[Answer, ...],
    *,
    as_of: str,
    version: str,
    elapsed_s: float = 0.0,
    served: tuple[ServeAsked, list[Found]] | None = None,
) -> Assessment:
    """One Assessment of ``answers``, whose first is the reference's, and of the answers about serving where there are any."""
    index = Index()
    labels = _labels([answer.cluster for answer in answers])
    reference = answers[0].estimate
    options = tuple(
        _option(question, answer, label=label, is_reference=position == 0, reference=reference, as_of=as_of, index=index)
        for position, (answer, label) in enumerate(zip(answers, labels, strict=True))
    )
    serving = None if served is None else chapter(*served, index)
    times_s = {at: o.estimate.job_time.mid for at, o in enumerate(options) if o.estimate is not None and o.estimate.job_time is not None}
    estimates = [o.estimate for o in options if o.estimate is not None]
    return Assessment(
        sapper=version,
        as_of=as_of,
        asked=asked(question),
        options=options,
        ranking=tuple(sorted(times_s, key=lambda at: times_s[at])),
        unanswered=tuple(at for at in range(len(options)) if at not in times_s),
        level=estimates[0].step_time.level if estimates else 0.8,
        evidence=index.sources,
        grade=worst(*(e.grade for e in estimates)) if estimates else None,
        elapsed_s=elapsed_s,
        serving=serving,
    )


def asked(question: Question) -> Asked:
    """The job in numbers."""
    job, workload = question.job, question.job.workload
    tokens = job.tokens if job.tokens is not None else (job.steps or 0.0) * job.global_batch * workload.tokens_per_sequence
    return Asked(
        model=workload.name,
        family=workload.family,
        params=workload.params,
        active_params=workload.active_params,
        seq_len=workload.seq_len,
        global_batch=job.global_batch,
        batch_given=question.batch_given,
        precision=job.precision,
        optimizer=job.optimizer,
        finetune=job.finetune,
        lora_rank=job.lora_rank if job.finetune == "lora" else None,
        tokens=tokens,
        steps=tokens / (job.global_batch * workload.tokens_per_sequence),
        model_flops=3 * workload.flops(convention="full") * tokens / workload.tokens_per_sequence,
        plan=question.plan,
        power_price=question.power_price,
        pue=question.pue,
        unpriced=workload.unpriced,
        notes=workload.notes,
    )


def _option(
    question: Question, answer: Answer, *, label: str, is_reference: bool, reference: Estimate | None, as_of: str, index: Index
) -> Option:
    chip, estimate, precision = answer.cluster.groups[0].chip, answer.estimate, question.job.precision
    links, figures = _cite(chip, cluster_links(answer.cluster), precision, index)
    for name, fact in (("pue", answer.cluster.pue), ("power_price", answer.cluster.power_price)):
        figures[name] = index.cite("", name, fact)
    used = tuple(number for use in (estimate.used if estimate else ()) for number in index.cite(chip.id, use.key, use.fact))
    capacity = estimate.memory.capacity_bytes if estimate else None
    return Option(
        label=label,
        cluster=answer.cluster.name,
        chips=answer.cluster.chips,
        nodes=sum(g.nodes for g in answer.cluster.groups),
        is_reference=is_reference,
        chip=_chip_view(chip, precision),
        links=links,
        estimate=estimate,
        refusal=answer.refusal,
        refusal_kind=answer.kind,
        why=answer.why,
        remedy=answer.remedy,
        at_meter=answer.cluster.pue is not None,
        comm_share=comm_share(estimate) if estimate else None,
        headroom=1 - estimate.memory.peak.mid / capacity if estimate and capacity else None,
        ratios=_ratios(estimate, reference, is_reference=is_reference),
        what_if=answer.what_if,
        runners=answer.runners,
        plans=answer.plans,
        fitting=answer.fitting,
        risks=risks(chip, estimate, links, precision=precision, as_of=as_of, index=index),
        checks=checks(chip, estimate, links, precision=precision, no_fit=answer.kind == "no-fit"),
        evidence=tuple(sorted({*used, *(n for numbers in figures.values() for n in numbers)})),
        figure_evidence=figures,
    )


def _cite(chip: Chip, links: tuple[LinkView, ...], precision: str, index: Index) -> tuple[tuple[LinkView, ...], dict[str, tuple[int, ...]]]:
    figures = {
        "peak": index.cite(chip.id, f"peak_flops_per_s.{precision}", chip.peak_flops_per_s.get(precision)),
        "memory": index.cite(chip.id, "memory.capacity_bytes", chip.memory.capacity_bytes)
        + index.cite(chip.id, "memory.usable_bytes", chip.memory.usable_bytes),
        "bandwidth": index.cite(chip.id, "memory.bandwidth_bytes_per_s", chip.memory.bandwidth_bytes_per_s),
        "power": index.cite(chip.id, "tdp_w", chip.tdp_w),
        "price": tuple(number for price in chip.price for number in index.cite(chip.id, "price", price.amount)),
    }
    numbered = []
    for link in links:
        field = link.level.replace("-", "_")
        numbers = index.cite(chip.id, f"{field}.bandwidth_bytes_per_s", link.bandwidth_bytes_per_s) + index.cite(
            chip.id, f"{field}.latency_s", link.latency_s
        )
        numbered.append(msgspec.structs.replace(link, evidence=numbers))
        figures[field] = numbers
    return tuple(numbered), figures


def _ratios(estimate: Estimate | None, reference: Estimate | None, *, is_reference: bool) -> Ratios:
    if estimate is None or reference is None or estimate.job_time is None or reference.job_time is None:
        return Ratios()
    share, base = comm_share(estimate), comm_share(reference)
    over = share / base if base else None
    if is_reference:
        return Ratios(
            time=same(estimate.job_time),
            energy=same(estimate.job_energy) if estimate.job_energy else None,
            cost={basis: same(value) for basis, value in estimate.cost.items()},
            comm_share=over,
        )
    return Ratios(
        time=ratio(estimate.job_time, reference.job_time),
        energy=ratio(estimate.job_energy, reference.job_energy) if estimate.job_energy and reference.job_energy else None,
        cost={basis: ratio(value, reference.cost[basis]) for basis, value in estimate.cost.items() if basis in reference.cost},
        comm_share=over,
    )


def _chip_view(chip: Chip, precision: str) -> ChipView:
    export = export_arithmetic(chip)
    peak: Fact | None = chip.peak_flops_per_s.get(precision)
    return ChipView(
        id=chip.id,
        vendor=chip.vendor,
        name=chip.name,
        vendor_zh=chip.vendor_zh,
        arch_class=chip.arch_class,
        precision=precision,
        peak_flops_per_s=peak,
        memory_bytes=chip.memory.capacity_bytes,
        usable_bytes=chip.memory.usable_bytes,
        bandwidth_bytes_per_s=chip.memory.bandwidth_bytes_per_s,
        tdp_w=chip.tdp_w,
        prices=chip.price,
        export=chip.export_china,
        tpp=export.tpp,
        tpp_per_mm2=export.density,
        software=chip.software,
    )


def _labels(clusters: list[Cluster]) -> list[str]:
    """Chips, a multiplication sign, the chip's name; where two options would read alike, the cluster's own name beside it."""
    plain = [" + ".join(f"{group.chips}{TIMES} {group.chip.name}" for group in cluster.groups) for cluster in clusters]
    named = [label if plain.count(label) == 1 else f"{label} ({cluster.name})" for label, cluster in zip(plain, clusters, strict=True)]
    return [label if named.count(label) == 1 else f"{label} #{at}" for at, label in enumerate(named, start=1)]
