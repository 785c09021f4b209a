"""Time of every op of one plan over a whole step, for the roofline and for ``--explain``."""

from __future__ import annotations

import msgspec
import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.combine import Constants
from sapper.predict.engine import Evaluated
from sapper.predict.estimate import OpTime
from sapper.predict.layers import Local, block_costs


def op_times(evaluated: Evaluated, constants: Constants) -> tuple[OpTime, ...]:
    """Forward and backward of each op, times its repeats and the micro-batches, on a chip of a mean stage.

    Recomputation is left out: it repeats these ops and shows in the terms of the step.
    """
    job, plans = evaluated.job, evaluated.plans
    local = Local(tp=plans.tp, cp=plans.cp, ep=plans.ep, micro_batch=plans.micro_batch, sequence_parallel=plans.sequence_parallel)
    count = float(evaluated.features.micro_batches[0])
    scalar = {
        name: float(np.asarray(getattr(constants, name)).reshape(-1)[0]) for name in ("matmul", "low", "attention", "memory", "launch_s")
    }
    stages = float(plans.pp[0])
    found: list[OpTime] = []
    for block in job.workload.blocks:
        for op in block.ops:
            costs = block_costs(msgspec.structs.replace(block, ops=(op,), experts=0), local, device=evaluated.device, job=job)
            repeats = block.count * count / (stages if block.role == "layer" else 1.0)
            nominal = {
                "compute": _both(costs.matmul_s) / scalar["matmul"]
                + _both(costs.low_s) / scalar["low"]
                + _both(costs.attention_s) / scalar["attention"],
                "memory": _both(costs.memory_s) / scalar["memory"],
                "launch": _both(costs.kernels) * scalar["launch_s"],
            }
            rows, cut = float(local.rows[0]), float(local.cut(op.shard)[0])
            passes = 3.0 if job.finetune == "full" else 2.0
            found.append(
                OpTime(
                    name=f"{block.name}.{op.name}",
                    kind=op.kind,
                    flops=passes * op.flops * rows / cut * repeats,
                    size_bytes=passes * ((op.input_bytes + op.output_bytes) * rows / cut + op.weight_bytes / cut) * repeats,
                    time_s=float(sum(nominal.values())) * repeats,
                    limit=max(nominal, key=lambda name: nominal[name]),
                )
            )
    return tuple(found)


def _both(passes: list[Floats]) -> float:
    """Forward and backward of the single local shape."""
    return float(passes[0][0] + passes[1][0])
