"""PassEngine: a model that answers in one forward pass (encoders, vision), priced for batches of like samples.

Such a model has no cache and no second iteration, so each op of its own forward workload is priced at the batch's rows: matmuls and
attention cores on the soft roofline of :mod:`sapper.predict.serve.terms`, all else as bytes moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapper.clusters.cluster import Group
from sapper.errors import BadValue
from sapper.predict.arrays import Floats
from sapper.predict.estimate import Coverage, Used
from sapper.predict.fit import Fitted
from sapper.predict.in_force import serve_fit
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.memory import UTILISATION
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.price import constants_used, deviation
from sapper.predict.serve.rates import ACTIVATION_BYTES, STORED_BYTES, Rates, rates_of
from sapper.predict.serve.stacks import usual_stack
from sapper.predict.serve.step import ServeMemory, StepTimes
from sapper.predict.serve.subject import ServeSubject, factors_of, subject_of
from sapper.predict.serve.terms import PLACE
from sapper.predict.serve.whole import forward_terms
from sapper.workloads.op import Workload

BATCHES = tuple(2**power for power in range(9))
"""Samples of one pass: 1 to 256."""


@dataclass(frozen=True, kw_only=True)
class PassEngine:
    """An :class:`~sapper.predict.serve.step.Engine` whose iterations are whole passes."""

    job: ServeJob
    plan: ServePlan
    memory: ServeMemory
    times: StepTimes
    prefill_sd: float
    used: tuple[Used, ...]
    coverage: Coverage
    subject: ServeSubject
    factors: Floats
    bundles: Floats
    """K x B: the terms of a pass of each of :data:`BATCHES`."""
    sample_tokens: int
    fallback: bool

    def holds(self, batch: int) -> bool:
        """Whether the chip's memory has room for a pass of ``batch`` samples."""
        return self.memory.weights_bytes + batch * self.memory.workspace_bytes <= self.memory.capacity_bytes

    @property
    def decode_sd(self) -> float:
        """There is nothing to decode."""
        return self.prefill_sd


def _causal(workload: Workload) -> bool:
    """Whether it has an attention core that sees the past only, as a program that writes token by token has."""
    return any(op.attention is not None and op.attention.causal for block in workload.blocks for op in block.ops)


def price_passes(job: ServeJob, group: Group, *, tokens: int, fitted: Fitted | None = None) -> PassEngine:
    """``job`` on one chip of ``group``, for samples of ``tokens`` tokens.

    Raises:
        MissingFact: The catalogue lacks a peak, bandwidth or capacity.
        BadValue: A captured program that writes token by token (``SP-CAP-028``).
    """
    fitted = fitted or serve_fit()
    rates = rates_of(group.chip, job)
    workload = job.model.workload(tokens, purpose="prefill")
    if job.model.origin == "capture" and _causal(workload):
        raise BadValue("SP-CAP-028", where="model", model=job.model.name)
    subject = subject_of(job, None, rates, stack=job.stack or usual_stack(group.chip))
    eta, design, missing = fitted.eta([subject])
    factor = factors_of(eta)[:, 0]
    bundles = np.stack([forward_terms(workload, job, rates, batch=float(batch)) for batch in BATCHES], axis=1)
    passes_s = np.asarray(factor @ bundles, float)
    rows = np.array(BATCHES, float) * tokens
    memory = _memory(job, workload, rates)
    return PassEngine(
        job=job,
        plan=ServePlan(max_sequences=BATCHES[-1], max_batched_tokens=int(rows[-1])),
        memory=memory,
        times=StepTimes(rows=rows, rows_s=passes_s, sequence_s=0.0, layers=(), request_s=float(factor[PLACE["prompt_s"]])),
        prefill_sd=deviation(bundles[:, 3], factor, fitted=fitted, design=design, missing=missing),
        used=(*rates.used, *constants_used(fitted, subject, eta)),
        coverage=_coverage(workload),
        subject=subject,
        factors=factor,
        bundles=bundles,
        sample_tokens=tokens,
        fallback=rates.fallback,
    )


def _memory(job: ServeJob, workload: Workload, rates: Rates) -> ServeMemory:
    """Weights, and the widest op's activations of one sample, twice."""
    width = ACTIVATION_BYTES.get(job.dtype, 2.0)
    weights = 0.0
    widest = 0.0
    for block in workload.blocks:
        for op in block.ops:
            weights += block.count * op.params * (STORED_BYTES[job.weights_dtype] if op.low_precision else width)
            widest = max(widest, op.input_bytes + op.output_bytes)
    return ServeMemory(
        weights_bytes=weights, workspace_bytes=2.0 * widest, sequence_bytes=0.0, capacity_bytes=UTILISATION * rates.capacity_bytes
    )


def _coverage(workload: Workload) -> Coverage:
    ops = sum(block.count * len(block.ops) for block in workload.blocks)
    share = ops / (ops + len(workload.unpriced))
    return Coverage(ops=ops + len(workload.unpriced), ops_priced=ops, flops_share=1.0, bytes_share=share, unpriced=workload.unpriced)
