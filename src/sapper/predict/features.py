"""From a job, a device and P plans to the terms of a step, at nominal rates, as arrays of length P.

Everything here is physics and counting; no constant is fitted. combine.py turns the terms into a time with the
efficiencies that evidence gives. Ranks are placed tensor first, then context, then data, then pipeline, as Megatron-LM
does (arXiv:2104.04473, section 3), so that the most talkative group stays inside the scale-up domain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapper.predict import collectives
from sapper.predict.arrays import Floats, PlanArray
from sapper.predict.collectives import Fabric
from sapper.predict.device import Device
from sapper.predict.job import OPTIMIZERS, TrainJob
from sapper.predict.layers import Costs, Local, adapted, block_costs
from sapper.predict.plan import RECOMPUTES, SCHEDULES
from sapper.workloads.op import DTYPE_BYTES

SELECTIVE, FULL = RECOMPUTES.index("selective"), RECOMPUTES.index("full")
FP32_GRADIENTS = ("megatron", "mindspeed")
"""Stacks that accumulate and reduce gradients of bf16 weights in fp32."""
BUBBLE_SHARE = {"gpipe": 1.0, "1f1b": 1.0, "interleaved": 1.0, "zero-bubble": 1.0 / 3.0, "dualpipe": 1.0 / 3.0}
"""Of (p-1) micro-batch times: GPipe arXiv:1811.06965 section 2.3; 1F1B and interleaved (divided by the virtual stages)
arXiv:2104.04473 section 2.2; ZB-H1 arXiv:2401.10241 section 2.3, with equal forward, input- and weight-gradient times. DualPipe
(arXiv:2412.19437, table 2: (p/2-1)(F&B + B - 3W), one stage less) under the same."""
DUALPIPE_HIDES = 1.0 - 20.0 / 132.0
"""Of the expert all-to-alls: DualPipe runs them beside the computation of the other direction's micro-batch, on 20 of the 132 SMs,
which computation then lacks (arXiv:2412.19437, sections 3.2.1 and 3.2.2)."""


SCATTERED = ("megatron", "mindspeed", "deepspeed")
"""Stacks whose tensor-parallel ranks each send their share of a boundary and gather it behind (arXiv:2104.04473, section 4.1; Megatron-LM
v2.5, megatron/arguments.py, scatter_gather_tensors_in_pipeline; DeepSpeed, runtime/pipe/engine.py, is_pipe_partitioned)."""

MOST_RUNS = 8
"""Runs of unlike layers that are told apart; of more (alternating layers) every stage holds about the mean."""


@dataclass(frozen=True)
class Features:
    """Terms of one step on the slowest stage, in seconds at nominal rates unless named otherwise; length P."""

    matmul_s: Floats
    low_s: Floats
    attention_s: Floats
    memory_s: Floats
    kernels: Floats
    """Kernels launched."""
    tensor_s: Floats
    expert_s: Floats
    expert_overlap: Floats
    """Share of ``expert_s`` that the schedule hides behind the busy time."""
    context_s: Floats
    pipeline_s: Floats
    data_s: Floats
    """Gradient reduction and, under ZeRO 1-2, the gather of the updated weights; once a step."""
    gather_s: Floats
    """Weight gathers and gradient scatters of ZeRO 3; per micro-batch."""
    optimizer_s: Floats
    bubble: Floats
    """Idle share that the schedule adds to the busy time."""
    micro_batches: Floats
    recompute_share: Floats
    """FLOPs repeated over FLOPs of forward and backward."""
    pauses: Floats
    """Pauses of the host between two steps: 1, or 0 of a time that has none in it."""

    def pick(self, index: np.ndarray) -> Features:
        """The features of the plans that ``index`` selects."""
        return Features(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})

    @classmethod
    def stack(cls, parts: list[Features]) -> Features:
        """One struct from many."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Stage:
    """Costs of the model by role, per local shape, and the map from plans to local shapes."""

    layer: Costs
    """Mean over all layers."""
    runs: tuple[tuple[int, Costs], ...]
    """(layers, costs of one) of each run of like layers, in order: what first and last stage hold where layers differ."""
    embedding: Costs
    head: Costs
    layers: int
    index: np.ndarray
    """Plan -> local shape, length P."""


def stage_costs(job: TrainJob, device: Device, plans: PlanArray) -> Stage:
    """Price every block once for each distinct local shape among the plans."""
    columns = np.stack([plans.tp, plans.cp, plans.ep, plans.micro_batch, plans.sequence_parallel.astype(np.int64)])
    unique, index = np.unique(columns, axis=1, return_inverse=True)
    local = Local(tp=unique[0], cp=unique[1], ep=unique[2], micro_batch=unique[3], sequence_parallel=unique[4].astype(bool))
    size = unique.shape[1]
    totals = {role: Costs.zero(size) for role in ("embedding", "layer", "head")}
    runs: list[tuple[int, Costs]] = []
    layers = sum(block.count for block in job.workload.blocks if block.role == "layer")
    for block in job.workload.blocks:
        weight = block.count / layers if block.role == "layer" else float(block.count)
        costs = block_costs(block, local, device=device, job=job)
        totals[block.role] = totals[block.role].plus(costs, times=weight)
        if block.role == "layer":
            runs.append((block.count, costs))
    runs = runs if len(runs) <= MOST_RUNS else [(layers, totals["layer"])]
    return Stage(
        layer=totals["layer"], runs=tuple(runs), embedding=totals["embedding"], head=totals["head"], layers=layers, index=index.reshape(-1)
    )


@dataclass(frozen=True)
class Load:
    """How many layers, heads and embeddings the slowest stage holds, and the mean over stages; length P."""

    layers: Floats
    head: Floats
    embedding: Floats
    mean_over_slowest: Floats


def stage_load(stage: Stage, plans: PlanArray) -> Load:
    """The slowest stage: the fullest in layers, or the last one with the head, whichever takes longer at nominal rates."""
    i = stage.index
    layer, head, embedding = (_nominal(costs)[i] for costs in (stage.layer, stage.head, stage.embedding))
    fullest, least = np.ceil(stage.layers / plans.pp), np.floor(stage.layers / plans.pp)
    single = plans.pp == 1
    last_slower = least * layer + head > fullest * layer + embedding
    layers = np.where(last_slower, least, fullest)
    has_head = (last_slower | single).astype(float)
    has_embedding = (~last_slower | single).astype(float)
    slowest = layers * layer + has_head * head + has_embedding * embedding
    mean = (stage.layers * layer + head + embedding) / plans.pp
    return Load(layers=layers, head=has_head, embedding=has_embedding, mean_over_slowest=np.minimum(mean / slowest, 1.0))


def _nominal(costs: Costs) -> Floats:
    parts = [costs.matmul_s, costs.low_s, costs.attention_s, costs.memory_s]
    return np.asarray(sum(part[0] + part[1] for part in parts), float)


def features(job: TrainJob, device: Device, fabric: Fabric, plans: PlanArray, *, stage: Stage | None = None) -> Features:
    """The terms of a step for every plan.

    Args:
        job: What is trained.
        device: The chip at the job's precision.
        fabric: Links of the cluster; not used where a plan has one chip.
        plans: P plans whose batch divides (``micro_batches`` > 0).
        stage: Costs of :func:`stage_costs`, if the caller has them.
    """
    stage = stage or stage_costs(job, device, plans)
    load, i = stage_load(stage, plans), stage.index
    count = plans.micro_batches(job.global_batch).astype(float)
    full, selective = plans.recompute == FULL, plans.recompute == SELECTIVE

    def term(name: str) -> Floats:
        layer, head, embedding = (getattr(costs, name) for costs in (stage.layer, stage.head, stage.embedding))
        again = np.where(full, layer[0][i], 0.0)
        part = {
            "attention_s": stage.layer.again_attention_s,
            "memory_s": stage.layer.again_memory_s,
            "matmul_s": stage.layer.again_matmul_s,
            "low_s": stage.layer.again_low_s,
        }.get(name)
        if part is not None:
            again = np.where(selective, part[i], again)
        one = load.layers * (layer[0][i] + layer[1][i] + again)
        one = one + load.head * (head[0][i] + head[1][i]) + load.embedding * (embedding[0][i] + embedding[1][i])
        return np.asarray(count * one, float)

    share = {name: BUBBLE_SHARE[name] for name in SCHEDULES}
    kind = np.array([share[name] for name in SCHEDULES])[plans.schedule]
    bubble = (plans.pp - 1) / np.where(SCHEDULES.index("interleaved") == plans.schedule, plans.vpp, 1) * kind
    forward, core_flops = stage.layer.flops[i], stage.layer.again_attention_s[i] * device.wide_flops_per_s
    repeated = np.where(full, forward, np.where(selective, core_flops, 0.0)) * load.layers
    all_flops = 3.0 * (forward * load.layers + stage.head.flops[i] * load.head)
    return Features(
        matmul_s=term("matmul_s"),
        low_s=term("low_s"),
        attention_s=term("attention_s"),
        memory_s=term("memory_s"),
        kernels=term("kernels"),
        tensor_s=_tensor(stage, load, plans, fabric=fabric, count=count, full=full),
        expert_s=_expert(stage, load, plans, fabric=fabric, count=count, full=full),
        expert_overlap=np.where(plans.schedule == SCHEDULES.index("dualpipe"), DUALPIPE_HIDES, 0.0),
        context_s=_context(stage, load, plans, fabric=fabric, count=count),
        pipeline_s=_pipeline(job, stage, plans, fabric=fabric, count=count),
        data_s=_data(job, stage, load, plans, fabric=fabric),
        gather_s=_gather(job, stage, load, plans, fabric=fabric, count=count),
        optimizer_s=_optimizer(job, device, stage, load, plans),
        bubble=bubble / count * load.mean_over_slowest,
        micro_batches=count,
        recompute_share=np.asarray(repeated / np.maximum(all_flops, 1.0), float),
        pauses=np.ones(len(plans)),
    )


def domain_split(size: np.ndarray, *, stride: np.ndarray, fabric: Fabric) -> tuple[Floats, Floats]:
    """(members inside one scale-up domain, number of domains) of a group of ``size`` ranks that lie ``stride`` apart."""
    room = np.maximum(fabric.domain_size // np.maximum(stride, 1), 1)
    inner = np.minimum(size, room).astype(float)
    return inner, np.ceil(size / inner)


def _tensor(stage: Stage, load: Load, plans: PlanArray, *, fabric: Fabric, count: Floats, full: np.ndarray) -> Floats:
    """Two reductions a layer in the forward pass, two in the backward (arXiv:1909.08053, section 3), two more when repeated.

    Sequence parallelism keeps its inputs cut and gathers them once more for the weight gradients (arXiv:2205.05198,
    section 4.2.2): half a reduction for each in the backward pass.
    """
    i = stage.index
    size = stage.layer.reduce_bytes[i]
    inner, outer = domain_split(plans.tp, stride=np.ones_like(plans.tp), fabric=fabric)
    passes = np.where(full, 3.0, 2.0) + np.where(plans.sequence_parallel, 0.5, 0.0)
    # each reduction is priced on its own share of the bytes, so that latency counts per message
    messages = 2.0
    seconds = collectives.all_reduce_s(size / messages, inner, outer, fabric) * messages * passes * load.layers
    ends = stage.head.reduce_bytes[i] * load.head + stage.embedding.reduce_bytes[i] * load.embedding
    return np.where(plans.tp > 1, count * (seconds + collectives.all_reduce_s(ends, inner, outer, fabric)), 0.0)


def _expert(stage: Stage, load: Load, plans: PlanArray, *, fabric: Fabric, count: Floats, full: np.ndarray) -> Floats:
    """Dispatch and combine in the forward pass, the same in the backward (GShard, arXiv:2006.16668, section 3.2)."""
    inner, outer = domain_split(plans.ep, stride=plans.tp, fabric=fabric)
    one = collectives.all_to_all_s(stage.layer.routed_bytes[stage.index], inner, outer, fabric)
    return np.where(plans.ep > 1, count * load.layers * one * np.where(full, 6.0, 4.0), 0.0)


def _context(stage: Stage, load: Load, plans: PlanArray, *, fabric: Fabric, count: Floats) -> Floats:
    """Ring attention passes keys and values round once forward and twice backward (arXiv:2310.01889, section 3)."""
    _, outer = domain_split(plans.cp, stride=plans.tp, fabric=fabric)
    crosses = outer > 1
    step = collectives.send_s(stage.layer.keys_bytes[stage.index] / np.maximum(plans.cp, 1), fabric, crosses)
    return np.where(plans.cp > 1, count * load.layers * 3.0 * (plans.cp - 1) * step, 0.0)


def _pipeline(job: TrainJob, stage: Stage, plans: PlanArray, *, fabric: Fabric, count: Floats) -> Floats:
    """One activation forward and one gradient backward per micro-batch and virtual stage."""
    crosses = (plans.pp > 1) & (plans.tp * plans.cp * plans.dp >= fabric.domain_size)
    whole = stage.layer.boundary_bytes[stage.index]
    scattered = (plans.tp > 1) & ~plans.sequence_parallel & (job.stack in SCATTERED)
    inner, outer = domain_split(plans.tp, stride=np.ones_like(plans.tp), fabric=fabric)
    one = collectives.send_s(whole / np.where(scattered, plans.tp, 1), fabric, crosses)
    one = one + np.where(scattered, collectives.all_gather_s(whole, inner, outer, fabric), 0.0)
    chunks = np.where(plans.schedule == SCHEDULES.index("interleaved"), plans.vpp, 1)
    return np.where(plans.pp > 1, 2.0 * one * (count * chunks + plans.pp - 1), 0.0)


def trainable_params(job: TrainJob, stage: Stage, load: Load) -> tuple[Floats, Floats]:
    """(dense, expert) weights on one chip of the slowest stage that have gradients."""
    i = stage.index
    dense = (
        load.layers * stage.layer.dense_params[i]
        + load.head * stage.head.dense_params[i]
        + load.embedding * stage.embedding.dense_params[i]
    )
    expert = load.layers * stage.layer.expert_params[i]
    return dense * trainable_share(job), expert * (trainable_share(job) if job.finetune == "full" else 0.0)


def trainable_share(job: TrainJob) -> float:
    """Weights that have gradients and optimizer states over all weights."""
    return job.workload.trainable_share if job.finetune == "full" else lora_share(job)


def lora_share(job: TrainJob) -> float:
    """Adapter weights over all weights: rank*(N+K) against N*K of each adapted layer (arXiv:2106.09685, section 4.1)."""
    adapters = sum(b.count * op.groups * job.lora_rank * (op.n + op.k) for b in job.workload.blocks for op in b.ops if adapted(op, job))
    return adapters / max(job.workload.params, 1)


def _data(job: TrainJob, stage: Stage, load: Load, plans: PlanArray, *, fabric: Fabric) -> Floats:
    """All-reduce of gradients once a step (ZeRO 0-2; the reduce-scatter and gather of ZeRO 1-2 move the same bytes,
    arXiv:1910.02054, section 7)."""
    dense, expert = trainable_params(job, stage, load)
    width = gradient_bytes(job)
    replicas = plans.dp * plans.cp
    inner, outer = domain_split(replicas, stride=plans.tp, fabric=fabric)
    seconds = collectives.all_reduce_s(dense * width, inner, outer, fabric)
    far_inner, far_outer = domain_split(np.maximum(replicas // plans.ep, 1), stride=plans.tp * plans.ep, fabric=fabric)
    seconds = seconds + np.where(replicas > plans.ep, collectives.all_reduce_s(expert * width, far_inner, far_outer, fabric), 0.0)
    return np.where((replicas > 1) & (plans.zero < 3), seconds, 0.0)


def _gather(job: TrainJob, stage: Stage, load: Load, plans: PlanArray, *, fabric: Fabric, count: Floats) -> Floats:
    """ZeRO 3 gathers the weights for forward and backward and scatters the gradients, for every micro-batch
    (arXiv:1910.02054, section 7.2); with hybrid sharding the replicas then reduce their shard."""
    i = stage.index
    width = DTYPE_BYTES[job.workload.dtype]
    whole = load.layers * (stage.layer.dense_params[i] + stage.layer.expert_params[i])
    whole = (whole + load.head * stage.head.dense_params[i] + load.embedding * stage.embedding.dense_params[i]) * width
    replicas = plans.dp * plans.cp
    group = np.where(plans.hsdp > 0, np.minimum(np.maximum(plans.hsdp, 1), replicas), replicas)
    inner, outer = domain_split(group, stride=plans.tp, fabric=fabric)
    dense, expert = trainable_params(job, stage, load)
    gathers = 2.0 * collectives.all_gather_s(whole, inner, outer, fabric)
    scatter = collectives.reduce_scatter_s((dense + expert) * width, inner, outer, fabric)
    rest_inner, rest_outer = domain_split(np.maximum(replicas // group, 1), stride=plans.tp * group, fabric=fabric)
    shard = collectives.all_reduce_s((dense + expert) * width / group, rest_inner, rest_outer, fabric)
    shard = np.where(replicas > group, shard, 0.0)
    times = np.where(gathered_once(job, plans), 1.0, count)
    return np.where((replicas > 1) & (plans.zero >= 3), times * (gathers + scatter) + shard, 0.0)


def gathered_once(job: TrainJob, plans: PlanArray) -> np.ndarray:
    """Whether ZeRO 3 gathers weights once a step and keeps them: FSDP does under a pipeline, since a gather for each
    micro-batch would not hide (torchtitan, models/llama3/infra/parallelize.py, reshard_after_forward)."""
    return np.asarray((plans.zero >= 3) & (plans.pp > 1) & (job.stack == "fsdp"))


def gradient_bytes(job: TrainJob) -> float:
    """Width of a reduced gradient: fp32 in full precision, and where Megatron-LM trains in bf16 (its
    ``--accumulate-allreduce-grads-in-fp32`` follows from ``--bf16``); else the two bytes that most stacks send."""
    full = job.precision in ("fp32", "tf32")
    return 4.0 if full or (job.stack in FP32_GRADIENTS and job.workload.dtype == "bf16") else 2.0


def _optimizer(job: TrainJob, device: Device, stage: Stage, load: Load, plans: PlanArray) -> Floats:
    """The update streams gradient, master weight and moments once (read and written), over the ZeRO shard."""
    dense, expert = trainable_params(job, stage, load)
    replicas = plans.dp * plans.cp
    shard = np.where(plans.zero >= 1, np.where(plans.hsdp > 0, np.maximum(np.minimum(plans.hsdp, replicas), 1), replicas), 1)
    expert_shard = np.where(plans.zero >= 1, np.maximum(replicas // plans.ep, 1), 1)
    return np.asarray((dense / shard + expert / expert_shard) * update_bytes(job) / device.bandwidth_bytes_per_s, float)


def update_bytes(job: TrainJob) -> float:
    """Bytes that the update of one weight reads and writes."""
    return 2.0 * (OPTIMIZERS[job.optimizer] + 4.0) + 4.0 + 2.0
