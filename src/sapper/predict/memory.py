"""Peak memory of a chip by part, for every plan and every pipeline stage.

Weights, gradients and optimizer states: Rajbhandari et al., ZeRO, arXiv:1910.02054, sections 3.1 and 5. Activations:
Korthikanti et al., arXiv:2205.05198, sections 4 and 5 (with a fused attention core nothing quadratic is kept). In-flight
micro-batches of 1F1B and the interleaved schedule: arXiv:2205.05198, section 4.2.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Floats, PlanArray
from sapper.predict.features import FULL, SELECTIVE, Stage, gathered_once, trainable_share
from sapper.predict.job import LOW_PRECISIONS, OPTIMIZERS, TrainJob
from sapper.predict.layers import Costs
from sapper.predict.plan import SCHEDULES, Plan
from sapper.workloads.op import DTYPE_BYTES

LOGIT_COPIES = {"megatron": 2.0, "mindspeed": 2.0, "xla": 1.0, "mlperf": 1.0}
USUAL_LOGIT_COPIES, FUSED_LOGIT_COPIES = 3.0, 1.0
"""fp32 copies of the logits at the peak: a cross entropy of separate kernels holds the cast logits, their log-softmax and the
gradient; Megatron-LM's holds the logits, one fp32 copy that it works on in place, and the gradient in 16 bit
(megatron/core/tensor_parallel/cross_entropy.py); a fused one the logits and their gradient in 16 bit."""
FP32_SHARDS = ("fsdp",)
"""Stacks whose sharded weights are fp32 under ZeRO 3, and so their gradients (PyTorch FSDP, arXiv:2304.11277, section 4.4)."""
WHOLE_GRADIENTS = ("paddle",)
"""Stacks that hold gradients whole under ZeRO 2 while they accumulate over micro-batches."""
NARROW_GRADIENTS = ("paddle",)
"""Stacks that accumulate gradients of mixed precision in 16 bit under ZeRO 0-1 too (PaddleNLP's fp16 O2)."""
FP8_COPIES = {"megatron": 2.0}
"""Bytes for each weight of a layer that TransformerEngine keeps beside the 16-bit one: its fp8 cast and the cast's transpose
(transformer_engine/pytorch/module/base.py, weight workspaces). Tuned submissions hold the weights in fp8 in their place."""
STATES, LIVE = ("weights", "gradients", "optimizer"), ("activations", "logits", "buffers")
"""What is allocated once, and what changes every step."""
PARTS = (*STATES, *LIVE, "overhead")


@dataclass(frozen=True)
class Allocation:
    """From counted to taken bytes (allocator.py)."""

    states: float = 1.0
    """Factor on what is allocated once."""
    live: float = 1.0
    """Factor on what changes every step."""
    context_bytes: float = 0.0
    """Of a process: driver context, collective buffers, library workspaces."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on the fullest chip of each plan, by part (each of length P), and the peak of chosen stages."""

    parts: dict[str, Floats]
    stages: Floats
    """P x S: peak of the first, second, next-to-last and last stage; the middle ones lie between."""

    @property
    def peak_bytes(self) -> Floats:
        """Of the fullest stage, length P."""
        return np.asarray(self.stages.max(axis=1), float)

    def pick(self, index: np.ndarray) -> MemoryUse:
        """The memory of the plans that ``index`` selects."""
        return MemoryUse(parts={name: part[index] for name, part in self.parts.items()}, stages=self.stages[index])


def memory_use(job: TrainJob, stage: Stage, plans: PlanArray, *, allocation: Allocation) -> MemoryUse:
    """Peak memory for every plan."""
    first, last = (
        _taken(_one_stage(job, stage, plans, position=position, embedding=embedding, head=head), allocation)
        for position, embedding, head in (
            (np.zeros(len(plans)), True, plans.pp == 1), (np.asarray(plans.pp - 1.0, float), plans.pp == 1, True)
        )
    )
    totals = [sum(part.values()) for part in (first, last)]
    fuller = totals[0] >= totals[1]
    parts = {name: np.where(fuller, first[name], last[name]) for name in PARTS}
    return MemoryUse(parts=parts, stages=np.stack([np.asarray(total, float) for total in totals], axis=1))


def mean_states_bytes(job: TrainJob, stage: Stage, plans: PlanArray) -> Floats:
    """Weights, gradients and optimizer states of a chip of the mean stage, for every plan."""
    i = stage.index
    dense = (stage.layers * stage.layer.dense_params[i] + stage.embedding.dense_params[i] + stage.head.dense_params[i]) / plans.pp
    states = _states(job, dense, stage.layers * stage.layer.expert_params[i] / plans.pp, plans)
    return np.asarray(sum(states.values()), float)


def stage_bytes(job: TrainJob, stage: Stage, plans: PlanArray, *, position: int, allocation: Allocation) -> float:
    """Peak bytes of stage ``position`` of the single plan in ``plans``."""
    ends = int(plans.pp[0]) - 1
    parts = _one_stage(job, stage, plans, position=np.full(1, float(position)), embedding=position == 0, head=position == ends)
    return float(sum(float(part[0]) for part in _taken(parts, allocation).values()))


def _taken(parts: dict[str, Floats], allocation: Allocation) -> dict[str, Floats]:
    """The parts as the stack takes them, with its context."""
    factors = dict.fromkeys(STATES, allocation.states) | dict.fromkeys(LIVE, allocation.live)
    size = len(next(iter(parts.values())))
    return {name: part * factors[name] for name, part in parts.items()} | {"overhead": np.full(size, allocation.context_bytes)}


def _one_stage(
    job: TrainJob, stage: Stage, plans: PlanArray, *, position: Floats, embedding: bool | np.ndarray, head: bool | np.ndarray
) -> dict[str, Floats]:
    i = stage.index
    first, layers = _layers_of(stage.layers, plans.pp, position)
    has_embedding, has_head = np.asarray(embedding, float), np.asarray(head, float)
    held = [(_overlap(start, count, first, layers), costs) for start, count, costs in _runs(stage)]
    ends = has_embedding * stage.embedding.dense_params[i] + has_head * stage.head.dense_params[i]
    # tied embeddings are held by the first and the last stage both (arXiv:2104.04473, section 4)
    dense = np.asarray(ends + sum(share * costs.dense_params[i] for share, costs in held), float)
    expert = np.asarray(sum(share * costs.expert_params[i] for share, costs in held), float)
    states = _states(job, dense, expert, plans)
    return states | _activations(
        job, stage, plans, held=held, position=position, has_head=has_head, has_embedding=has_embedding
    )


def _layers_of(layers: int, pp: np.ndarray, position: Floats) -> tuple[Floats, Floats]:
    """(first layer, number of layers) of a stage: the remainder goes to the stages after the first, so that first and last
    are lightest."""
    least, extra = np.floor(layers / pp), layers % pp
    before = position * least + np.clip(position - 1.0, 0.0, extra)
    return np.asarray(before, float), np.asarray(least + ((position >= 1) & (position <= extra)), float)


def _runs(stage: Stage) -> list[tuple[int, int, Costs]]:
    """(first layer, layers, costs of one) of each run of like layers."""
    starts = np.cumsum([0, *(count for count, _ in stage.runs)]).tolist()
    return [(start, count, costs) for start, (count, costs) in zip(starts, stage.runs, strict=False)]


def _overlap(start: int, count: int, first: Floats, layers: Floats) -> Floats:
    """Layers that a run shares with a stage."""
    return np.asarray(np.maximum(np.minimum(first + layers, start + count) - np.maximum(first, start), 0.0), float)


def _shards(plans: PlanArray) -> tuple[Floats, Floats]:
    """Over how many chips ZeRO cuts (dense, expert) states."""
    replicas = (plans.dp * plans.cp).astype(float)
    dense = np.where(plans.hsdp > 0, np.minimum(np.maximum(plans.hsdp, 1), replicas), replicas)
    return dense, np.maximum(dense / plans.ep, 1.0)


def _states(job: TrainJob, dense: Floats, expert: Floats, plans: PlanArray) -> dict[str, Floats]:
    width = 4.0 if job.precision in ("fp32", "tf32") else 2.0
    mixed = width < 4.0
    cut_dense, cut_expert = _shards(plans)
    share = trainable_share(job)
    # Megatron keeps fp32 main gradients under ZeRO 0-1; ZeRO 2-3 keep the reduced shard
    narrow = mixed and job.stack not in FP32_SHARDS
    gradient = np.where(plans.zero < 2, 2.0 if mixed and job.stack in NARROW_GRADIENTS else 4.0, 2.0 if narrow else 4.0)
    gradient_stage = 3 if job.stack in WHOLE_GRADIENTS else 2
    moments = OPTIMIZERS[job.optimizer] + (4.0 if mixed else 0.0)

    def cut(stage_: int, shard: Floats) -> Floats:
        return np.where(plans.zero >= stage_, shard, 1.0)

    # frozen weights of a low-precision recipe need no wider copy (QLoRA, arXiv:2305.14314, section 3)
    held = DTYPE_BYTES[job.precision] if job.finetune == "lora" and job.precision in LOW_PRECISIONS else width
    weights = held * (dense / cut(3, cut_dense) + expert / cut(3, cut_expert))
    if job.finetune == "full":
        # under ZeRO 3 the fp32 master copy is the sharded weight itself, counted with the optimizer
        weights = np.where((plans.zero >= 3) & mixed, (1.0 - share) * weights, weights)
    # DualPipe feeds micro-batches from both ends, so that a chip holds two stages (arXiv:2412.19437, table 2)
    weights = np.where(plans.schedule == SCHEDULES.index("dualpipe"), 2.0, 1.0) * weights
    gradients = gradient * share * (dense / cut(gradient_stage, cut_dense) + expert / cut(gradient_stage, cut_expert))
    optimizer = moments * share * (dense / cut(1, cut_dense) + expert / cut(1, cut_expert))
    return {"weights": weights, "gradients": gradients, "optimizer": optimizer}


def logit_copies(job: TrainJob) -> float:
    """fp32 copies of the logits at the peak, gradient included."""
    return FUSED_LOGIT_COPIES if job.fused_loss else LOGIT_COPIES.get(job.stack or "", USUAL_LOGIT_COPIES)


def states_per_weight(job: TrainJob) -> dict[str, float]:
    """Bytes of each of STATES for one weight that nothing shards."""
    states = _states(job, np.ones(1), np.zeros(1), PlanArray.of([Plan(zero=0)]))
    states["weights"] = states["weights"] + _copies_bytes(job)
    return {name: float(part[0]) for name, part in states.items()}


def _copies_bytes(job: TrainJob) -> float:
    """Bytes of low-precision copies of a layer's weight; a frozen weight is held in the low precision alone."""
    return FP8_COPIES.get(job.stack or "", 0.0) if job.precision == "fp8" and job.finetune == "full" else 0.0


def _kept(costs: Costs, plans: PlanArray, i: np.ndarray) -> Floats:
    """Activations that one layer keeps for its backward pass."""
    some = np.where(plans.recompute == SELECTIVE, costs.saved_bytes[1][i], costs.saved_bytes[0][i])
    return np.asarray(np.where(plans.recompute == FULL, costs.saved_bytes[2][i], some), float)


def _activations(
    job: TrainJob,
    stage: Stage,
    plans: PlanArray,
    *,
    held: list[tuple[Floats, Costs]],
    position: Floats,
    has_head: Floats,
    has_embedding: Floats,
) -> dict[str, Floats]:
    i = stage.index
    count = np.maximum(plans.micro_batches(job.global_batch), 1).astype(float)
    kept = np.asarray(sum(share * _kept(costs, plans, i) for share, costs in held), float)
    ahead = np.minimum(plans.pp - position, count)
    interleaved = plans.schedule == SCHEDULES.index("interleaved")
    ahead = np.where(interleaved, np.minimum(plans.pp - position + (plans.pp - 1) / np.maximum(plans.vpp, 1), count), ahead)
    ahead = np.where(plans.schedule == SCHEDULES.index("gpipe"), count, ahead)
    ahead = np.where(plans.schedule == SCHEDULES.index("dualpipe"), np.minimum(plans.pp + 1.0, count), ahead)
    # repeating a layer needs one layer's whole activations at a time
    working = np.where(plans.recompute == FULL, stage.layer.saved_bytes[0][i], 0.0)
    embedding = has_embedding * stage.embedding.saved_bytes[0][i] * ahead
    logits = has_head * stage.head.saved_bytes[0][i]
    width = DTYPE_BYTES[job.workload.dtype]
    one_layer = (stage.layer.dense_params[i] + stage.layer.expert_params[i]) * width
    gathered = np.where((plans.zero >= 3) & (plans.dp * plans.cp > 1), 2.0 * one_layer, 0.0)
    gathered = gathered + np.where((plans.zero >= 3) & (plans.dp * plans.cp > 1), has_head * stage.head.dense_params[i] * width, 0.0)
    # weights that stay gathered, and their gradients whole in fp32 until the last micro-batch
    layers = sum(share * (costs.dense_params[i] + costs.expert_params[i]) for share, costs in held)
    ends = has_head * stage.head.dense_params[i] + has_embedding * stage.embedding.dense_params[i]
    gathered = np.where(gathered_once(job, plans), (width + 4.0) * (layers + ends), gathered)
    return {
        "activations": kept * ahead + working + embedding,
        "logits": logits * logit_copies(job),
        "buffers": gathered + _copies_bytes(job) * layers,
    }
