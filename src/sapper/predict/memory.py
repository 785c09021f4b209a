"""Peak memory of a chip by part, for every plan and every pipeline stage.

Weights, gradients and optimizer states: Rajbhandari et al., ZeRO, arXiv:1910.02054, sections 3.1 and 5. Activations:
Korthikanti et al., arXiv:2205.05198, sections 4 and 5 (with a fused attention core nothing quadratic is kept). In-flight
micro-batches of 1F1B and the interleaved schedule: arXiv:2205.05198, section 4.2.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Floats, PlanArray
from sapper.predict.features import FULL, SELECTIVE, Stage, lora_share
from sapper.predict.job import LOW_PRECISIONS, OPTIMIZERS, TrainJob
from sapper.predict.layers import Costs
from sapper.predict.plan import SCHEDULES
from sapper.workloads.op import DTYPE_BYTES

CONTEXT_BYTES = 1.5 * 2**30
"""Driver context, collective buffers and library workspaces of one process (NCCL's buffers grow with the groups that a
rank joins; 1-2 GiB on the stacks whose peak memory is published: SimuMax, torchtitan)."""
FRAGMENTATION = 1.04
"""Reserved over allocated memory of a caching allocator, on what changes every step (activations)."""
LOGIT_COPIES = {"fsdp": 3.0, "eager": 3.0, "deepspeed": 3.0}
"""fp32 copies of the logits at the peak: PyTorch's cross entropy holds the cast logits, their log-softmax and the gradient;
Megatron-LM works in place (megatron/core/tensor_parallel/cross_entropy.py)."""
PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "overhead")


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


def memory_use(job: TrainJob, stage: Stage, plans: PlanArray) -> MemoryUse:
    """Peak memory for every plan."""
    first = _one_stage(job, stage, plans, position=np.zeros(len(plans)), embedding=True, head=plans.pp == 1)
    last = _one_stage(job, stage, plans, position=np.asarray(plans.pp - 1.0, float), embedding=plans.pp == 1, head=True)
    totals = [sum(part.values()) for part in (first, last)]
    fuller = totals[0] >= totals[1]
    parts = {name: np.where(fuller, first[name], last[name]) for name in PARTS}
    return MemoryUse(parts=parts, stages=np.stack([np.asarray(total, float) for total in totals], axis=1))


def stage_bytes(job: TrainJob, stage: Stage, plans: PlanArray, *, position: int) -> float:
    """Peak bytes of stage ``position`` of the single plan in ``plans``."""
    ends = int(plans.pp[0]) - 1
    parts = _one_stage(job, stage, plans, position=np.full(1, float(position)), embedding=position == 0, head=position == ends)
    return float(sum(float(part[0]) for part in parts.values()))


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
    share = job.workload.trainable_share if job.finetune == "full" else lora_share(job)
    # Megatron keeps fp32 main gradients under ZeRO 0-1; ZeRO 2-3 keep the reduced shard
    gradient = np.where(mixed & (plans.zero < 2), 4.0, 4.0 if not mixed else 2.0)
    moments = OPTIMIZERS[job.optimizer] + (4.0 if mixed else 0.0)

    def cut(stage_: int, shard: Floats) -> Floats:
        return np.where(plans.zero >= stage_, shard, 1.0)

    # frozen weights of a low-precision recipe need no wider copy (QLoRA, arXiv:2305.14314, section 3)
    held = DTYPE_BYTES[job.precision] if job.finetune == "lora" and job.precision in LOW_PRECISIONS else width
    weights = held * (dense / cut(3, cut_dense) + expert / cut(3, cut_expert))
    if job.finetune == "full":
        # under ZeRO 3 the fp32 master copy is the sharded weight itself, counted with the optimizer
        weights = np.where((plans.zero >= 3) & mixed, (1.0 - share) * weights, weights)
    gradients = gradient * share * (dense / cut(2, cut_dense) + expert / cut(2, cut_expert))
    optimizer = moments * share * (dense / cut(1, cut_dense) + expert / cut(1, cut_expert))
    return {"weights": weights, "gradients": gradients, "optimizer": optimizer}


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
    # repeating a layer needs one layer's whole activations at a time
    working = np.where(plans.recompute == FULL, stage.layer.saved_bytes[0][i], 0.0)
    embedding = has_embedding * stage.embedding.saved_bytes[0][i] * ahead
    logits = has_head * stage.head.saved_bytes[0][i]
    width = DTYPE_BYTES[job.workload.dtype]
    one_layer = (stage.layer.dense_params[i] + stage.layer.expert_params[i]) * width
    gathered = np.where((plans.zero >= 3) & (plans.dp * plans.cp > 1), 2.0 * one_layer, 0.0)
    gathered = gathered + np.where((plans.zero >= 3) & (plans.dp * plans.cp > 1), has_head * stage.head.dense_params[i] * width, 0.0)
    return {
        "activations": (kept * ahead + working + embedding) * FRAGMENTATION,
        "logits": logits * LOGIT_COPIES.get(job.stack or "", 1.0) * FRAGMENTATION,
        "buffers": gathered,
        "overhead": np.full(len(plans), CONTEXT_BYTES),
    }
