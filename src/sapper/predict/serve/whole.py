"""Terms of one forward pass of any workload: an encoder, a vision model, a captured program, a prompt whose logits are wanted.

Each op is priced at the rows of the whole batch: matmuls on the soft roofline of :mod:`sapper.predict.serve.terms`, attention cores
by their FLOPs, all else as bytes moved.
"""

from __future__ import annotations

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.rates import ACTIVATION_BYTES, STORED_BYTES, Rates
from sapper.predict.serve.terms import PLACE, efficiency, split, zeros
from sapper.workloads.op import Block, Op, Workload


def forward_terms(workload: Workload, job: ServeJob, rates: Rates, *, batch: float) -> Floats:
    """K: one pass over ``batch`` sequences of ``workload`` on one chip."""
    total = zeros()
    for block in workload.blocks:
        for op in block.ops:
            total = total + block.count * _op(op, block, job, rates, batch=batch)
    total[PLACE["host_s"]] += 1.0
    total[PLACE["sequence_s"]] += batch
    return total


def _op(op: Op, block: Block, job: ServeJob, rates: Rates, *, batch: float) -> Floats:
    one = zeros()
    if not op.is_launched:
        return one
    one[PLACE["launch_s"]] = 0.0 if op.name.endswith("residual") else 1.0
    moved = (op.input_bytes + op.output_bytes) * batch
    if op.is_product:
        width = ACTIVATION_BYTES.get(job.dtype, 2.0)
        stored = STORED_BYTES[job.weights_dtype] if op.low_precision else width
        low = op.low_precision and rates.low
        groups = float(max(op.groups, 1))
        if op.expert and block.experts:
            groups = min(float(block.experts), groups * batch)
        m = np.array(op.flops * batch / (2.0 * op.n * op.k * groups))
        peak = rates.peak_flops_per_s if low else rates.wide_flops_per_s
        fill = efficiency(m, n=np.array(float(op.n)), k=np.array(float(op.k)), groups=np.array(groups), unit=rates.unit)
        compute = op.flops * batch / (peak * fill)
        traffic = (groups * op.n * op.k * stored + moved) / rates.bandwidth_bytes_per_s
        unit = "low" if low else "matmul"
        one[PLACE[unit]], one[PLACE["memory"]] = split(np.asarray(compute), np.asarray(traffic), unit=unit)
    elif op.kind == "attention":
        one[PLACE["attention"]] = op.flops * batch / rates.wide_flops_per_s
        one[PLACE["vector"]] = moved / rates.bandwidth_bytes_per_s
    else:
        one[PLACE["vector"]] = (moved + op.weight_bytes) / rates.bandwidth_bytes_per_s
    return one
