"""Questions and answers for the tests of assess and dossier, made of the real structs."""

from __future__ import annotations

from sapper.assess.answer import Answer, refused
from sapper.assess.assessment import Assessment, RunnerUp, WhatIf
from sapper.assess.join import join
from sapper.assess.links import link_view
from sapper.assess.question import Question
from sapper.chips.schema import Chip, Conflict, ExportRule, Measured, MemorySpec, Price, Software
from sapper.clusters.cluster import Cluster, Group, Link
from sapper.evidence import Fact, Interval
from sapper.predict.estimate import Coverage, Estimate, Memory, MemoryPart, OpTime, StageMemory, Term, Used
from sapper.predict.job import TrainJob
from sapper.predict.plan import Plan
from sapper.workloads.op import Block, Op, Workload

AS_OF = "2026-11-23"
PLAN = Plan(tp=4, dp=16, zero=1, recompute="selective")


def fact(
    value: float | None,
    unit: str,
    *,
    source: str = "a data sheet",
    grade: str = "vendor-claimed",
    date: str | None = "2024-03",
    **more: object,
) -> Fact:
    return Fact(value=value, unit=unit, source=source, grade=grade, date=date, source_read=True, **more)  # type: ignore[arg-type]


def around(mid: float, unit: str, *, spread: float = 1.25, grade: str = "derived") -> Interval:
    return Interval(mid=mid, low=mid / spread, high=mid * spread, unit=unit, grade=grade)  # type: ignore[arg-type]


def chip(
    name: str,
    *,
    vendor: str = "Acme",
    peak: float | None = 300e12,
    gib: float = 64,
    bandwidth: float = 1.6e12,
    power: float | None = 400,
    link: float | None = 200e9,
    price: tuple[Price, ...] = (),
    measured: bool = False,
    cuda: bool = False,
    export: str = "",
    rules: tuple[ExportRule, ...] = (),
    **more: object,
) -> Chip:
    rules = (
        (ExportRule(rule=export, source="a filing", date="2023-10", status="press_report", effect="licence-required"),) if export else rules
    )
    record = Measured(metric="matmul", dtype="bf16", value=0.8 * (peak or 1), unit="FLOP/s", fraction=0.8, source="a bench")
    return Chip(
        id=name.lower().replace(" ", "-"),
        vendor=vendor,
        name=name,
        arch_class="gpu",
        peak_flops_per_s={"bf16": fact(peak, "FLOP/s")} if peak else {},
        memory=MemorySpec(capacity_bytes=fact(gib * 2**30, "bytes"), bandwidth_bytes_per_s=fact(bandwidth, "bytes/s")),
        tdp_w=fact(power, "W") if power else None,
        host_link="PCIe gen4 x16",
        host_link_bytes_per_s=fact(32e9, "bytes/s"),
        price=price,
        export_china=rules,
        measured=(record,) if measured else (),
        software=Software(stack="CUDA", torch_device="cuda", collective="NCCL")
        if cuda
        else Software(stack="XRT", torch_device="xpu", collective="XCCL"),
        **more,  # type: ignore[arg-type]
    )


def cluster(of: Chip, *, chips: int = 64, link: float | None = 200e9, name: str = "Link") -> Cluster:
    latency = fact(5e-6, "s", grade="assumed")
    up = Link(name=name, topology="full-mesh", bandwidth_bytes_per_s=fact(link, "bytes/s"), latency_s=latency, domain_size=8)
    out = Link(
        name="RoCE",
        topology="switch",
        bandwidth_bytes_per_s=fact(25e9, "bytes/s", grade="assumed", source="--assume"),
        latency_s=latency,
        domain_size=None,
    )
    group = Group(name=of.id, chip=of, nodes=chips // 8, chips_per_node=8, scale_up=up, scale_out=out)
    return Cluster(name=f"{chips}x {of.id}", groups=(group,))


def workload() -> Workload:
    op = Op(
        name="mlp.up",
        kind="matmul",
        flops=6e13,
        flops_full=6.2e13,
        input_bytes=1e9,
        output_bytes=1e9,
        weight_bytes=1e9,
        params=7_615_616_512,
        m=4096,
        n=1,
        k=1,
    )
    return Workload(
        name="Qwen2.5-7B", family="qwen2", seq_len=4096, blocks=(Block(name="layer", role="layer", ops=(op,)),), tokens_per_sequence=4096
    )


def job() -> TrainJob:
    return TrainJob(workload=workload(), global_batch=1024, precision="bf16", tokens=1e12)


def estimate(
    of: Cluster, days: float, *, memory_gib: float = 48, comm: float = 0.12, spread: float = 1.25, cost: dict[str, Interval] | None = None
) -> Estimate:
    group = of.groups[0]
    steps = 1e12 / (1024 * 4096)
    step_s = days * 86400 / steps
    capacity = group.chip.memory.capacity_bytes
    energy = around(days * 86400 * of.chips * 380, "J") if group.chip.tdp_w else None
    shares = {
        "matmul": 0.62 - comm,
        "attention": 0.12,
        "memory-bound": 0.12,
        "launch": 0.01,
        "bubble": 0.05,
        "optimizer": 0.03,
        "host": 0.05,
        "tensor-comm": 0.7 * comm,
        "data-comm": 0.3 * comm,
    }
    parts = {"weights": 0.2, "gradients": 0.2, "optimizer": 0.15, "activations": 0.35, "logits": 0.04, "buffers": 0.03, "overhead": 0.03}
    peak = group.chip.peak_flops_per_s["bf16"]
    ops = tuple(
        OpTime(name=name, kind=kind, flops=flops, size_bytes=flops / x, time_s=flops / (rate * (peak.number or 1)), limit=limit)
        for name, kind, flops, x, rate, limit in (
            ("qkv", "matmul", 3e14, 900, 0.55, "compute"),
            ("up", "matmul", 9e14, 1500, 0.7, "compute"),
            ("core", "attention", 1e14, 300, 0.35, "compute"),
            ("norm", "norm", 1e11, 0.8, 0.003, "memory"),
            ("act", "elementwise", 2e11, 0.4, 0.0015, "memory"),
        )
    )
    return Estimate(
        workload="Qwen2.5-7B",
        cluster=of.name,
        chip=group.chip.id,
        chips=of.chips,
        purpose="train",
        precision="bf16",
        seq_len=4096,
        global_batch=1024,
        plan=PLAN,
        step_time=around(step_s, "s", spread=spread),
        tokens_per_s=around(1e12 / days / 86400, "tokens/s"),
        tokens_per_s_per_chip=around(1e12 / days / 86400 / of.chips, "tokens/s"),
        mfu=around(0.42, "1"),
        hfu=around(0.45, "1"),
        steps=steps,
        job_time=around(days * 86400, "s", spread=spread),
        memory=Memory(
            peak=around(memory_gib * 2**30, "bytes", spread=1.08),
            capacity_bytes=capacity.number if capacity else None,
            fits=True,
            parts=tuple(MemoryPart(name=name, size_bytes=share * memory_gib * 2**30) for name, share in parts.items()),
            stages=(StageMemory(stage=0, size_bytes=memory_gib * 2**30),),
        ),
        energy_per_step=around(energy.mid / steps, "J") if energy else None,
        job_energy=energy,
        cost=cost or {},
        terms=tuple(Term(name=name, time_s=share * step_s, share=share, limit="compute") for name, share in shares.items()),
        ops=ops,
        binds="matmul",
        coverage=Coverage(ops=40, ops_priced=39, flops_share=0.99, bytes_share=0.98, unpriced=("rotary",)),
        narrowing=None,
        warnings=(),
        used=(
            Used(key="peak_flops_per_s.bf16", fact=peak),
            Used(key="efficiency.matmul.bf16", fact=fact(0.6, "1", source="fit", grade="derived")),
        ),
        grade="derived",
    )


def money(amount: float, currency: str) -> Interval:
    return around(amount, currency, grade="assumed")


def price(amount: float, currency: str = "CNY", *, date: str | None = "2024-01", **more: object) -> Price:
    return Price(amount=fact(amount, currency, source="press", date=date, grade="derived"), currency=currency, **more)  # type: ignore[arg-type]


REFERENCE = chip(
    "A100 SXM 80GB",
    vendor="NVIDIA",
    peak=312e12,
    gib=80,
    bandwidth=2.039e12,
    measured=True,
    cuda=True,
    export="Licence required: rule of 7 Oct 2022",
    price=(price(10000, "USD", date="2023-05"),),
)
NPU = chip(
    "Ascend 910B3",
    vendor="Huawei",
    peak=313e12,
    price=(price(120000, date="2024"),),
    aliases=("\u6607\u817e910B3",),
    conflicts=(Conflict(field="peak.bf16", values=(fact(313e12, "FLOP/s"), fact(294.9e12, "FLOP/s"))),),
)
UNKNOWN = chip("S60", vendor="Enflame", peak=None)


def answers() -> tuple[Answer, ...]:
    reference, npu = cluster(REFERENCE, link=300e9, name="NVLink 3"), cluster(NPU, link=196e9, name="HCCS full mesh")
    one = Answer(
        cluster=reference,
        estimate=estimate(
            reference,
            24.0,
            memory_gib=52,
            comm=0.08,
            spread=1.15,
            cost={"USD cloud": money(92160, "USD"), "USD purchase 4y": money(15000, "USD")},
        ),
        plans=412,
        fitting=240,
        runners=(
            RunnerUp(
                plan=Plan(tp=8, dp=8),
                step_time_s=9.5,
                memory_bytes=40 * 2**30,
                reason={"en": "more tensor-parallel traffic", "zh": "\u5f20\u91cf\u5e76\u884c\u901a\u4fe1\u66f4\u591a"},
            ),
        ),
        what_if=(
            WhatIf(
                code="host-link",
                link=link_view(
                    "scale-up",
                    Link(
                        name="PCIe gen4 x16",
                        topology="pcie-tree",
                        bandwidth_bytes_per_s=fact(32e9, "bytes/s"),
                        latency_s=fact(5e-6, "s"),
                        domain_size=8,
                    ),
                ),
                step_time_s=11.0,
                factor=1.24,
                comm_share=0.2,
            ),
        ),
    )
    two = Answer(
        cluster=npu,
        estimate=estimate(npu, 31.0, memory_gib=58, comm=0.15, spread=1.3, cost={"CNY cloud": money(166656, "CNY")}),
        plans=412,
        fitting=180,
        what_if=(
            WhatIf(
                code="reference-link",
                link=link_view("scale-up", reference.groups[0].scale_up),
                step_time_s=10.5,
                factor=0.94,
                comm_share=0.1,
            ),
        ),
    )
    names = [
        ("A800 SXM 80GB", 24.4, 312e12, 80),
        ("H100 SXM 80GB", 10.1, 989e12, 80),
        ("H20 96GB", 45.0, 148e12, 96),
        ("Instinct MI300X", 9.8, 1307e12, 192),
        ("Gaudi 3", 8.1, 1677e12, 128),
        ("TPU v5p", 16.0, 459e12, 95),
        ("MTT S4000", 92.0, 98e12, 48),
        ("BI-V150", 55.0, 192e12, 64),
        ("Kunlun P800", 27.0, 345e12, 64),
        ("B200 SXM", 5.2, 2250e12, 180),
        ("Ascend 910C", 13.9, 752e12, 128),
    ]
    others = []
    for name, days, peak, gib in names:
        made = cluster(
            chip(name, peak=peak, gib=gib, power=None if name == "Kunlun P800" else 500, price=(price(90000),) if gib < 90 else ())
        )
        cost = {"CNY cloud": money(days * 5000, "CNY")} if gib < 90 else {}
        others.append(
            Answer(
                cluster=made,
                estimate=estimate(made, days, memory_gib=0.75 * gib if name != "MTT S4000" else 46, comm=0.1, spread=1.4, cost=cost),
                plans=300,
                fitting=120,
            )
        )
    s60 = cluster(UNKNOWN, link=None)
    known = {"chip": "enflame-s60", "field": "peak_flops_per_s.bf16", "known": "-"}
    none = refused(s60, "SP-PRED-010", known, where=None, kind="missing")
    return (one, two, *others, none)


def question(**more: object) -> Question:
    given = answers()
    return Question(job=job(), reference=given[0].cluster, options=tuple(a.cluster for a in given[1:]), **more)  # type: ignore[arg-type]


def assessment(**more: object) -> Assessment:
    return join(question(**more), answers(), as_of=AS_OF, version="0.1.0", elapsed_s=1.5)
