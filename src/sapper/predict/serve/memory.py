"""Memory of a replica's fullest chip: weights, workspace, what is left for the cache."""

from __future__ import annotations

import math

import numpy as np

from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.parts import Parts
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.rates import ACTIVATION_BYTES, STORED_BYTES, Rates
from sapper.predict.serve.step import ServeMemory
from sapper.predict.serve.terms import local_sizes

UTILISATION = 0.9
"""Share of a chip's memory that an engine takes; the rest is left to the driver, captured graphs and fragmentation
(``gpu_memory_utilization``, vLLM's default; ``mem_fraction_static`` of SGLang and ``free_gpu_memory_fraction`` of TensorRT-LLM are
near it)."""
STATE_BYTES = 4.0
"""Recurrent states are kept in fp32 (arXiv:2312.00752, section 3.3.2)."""


def serve_memory(job: ServeJob, parts: Parts, rates: Rates, *, plan: ServePlan) -> ServeMemory:
    """Memory of the fullest chip of a replica."""
    tokens = max(plan.max_batched_tokens, plan.max_sequences)
    return ServeMemory(
        weights_bytes=weights_bytes(job, parts, plan), workspace_bytes=_activations(job, parts, plan, tokens=tokens),
        sequence_bytes=parts.state_values * STATE_BYTES / plan.tp / plan.pp, capacity_bytes=UTILISATION * rates.capacity_bytes,
    )


def weights_bytes(job: ServeJob, parts: Parts, plan: ServePlan) -> float:
    """Weights on the fullest chip: layers in whole numbers on the fullest stage, the embedding or the head beside them.

    The first stage has the embeddings, the last the head; the fuller of the two counts, unless there is one stage.
    """
    linears = parts.linears
    width = ACTIVATION_BYTES.get(job.dtype, 2.0)
    stored = np.where(linears.quantised, STORED_BYTES[job.weights_dtype], width)
    n, k, groups = local_sizes(linears, plan)
    cut = linears.n / np.maximum(n, 1.0)
    each = linears.layers * (n * k * groups * stored + linears.bias / cut * groups * width)
    share = math.ceil(parts.layers / plan.pp) / parts.layers
    head = float(each[linears.head].sum()) if parts.untied else 0.0
    embedding = parts.vocab_params * width / plan.tp
    rest = (parts.loose_params - parts.vocab_params) * width
    ends = head + embedding if plan.pp == 1 else max(head, embedding)
    return float(each[~linears.head].sum() + rest) * share + ends


def _activations(job: ServeJob, parts: Parts, plan: ServePlan, *, tokens: int) -> float:
    """The largest iteration's live activations: residual stream, normed copy, and the widest pair of inner activations."""
    linears = parts.linears
    width = ACTIVATION_BYTES.get(job.dtype, 2.0)
    n, _, _ = local_sizes(linears, plan)
    inner = float((n * linears.rows)[~linears.head].max(initial=0.0))
    logits = float(n[linears.head].max(initial=0.0)) * plan.max_sequences * 4.0
    return tokens * (3.0 * parts.hidden + 2.0 * inner) * width + logits
