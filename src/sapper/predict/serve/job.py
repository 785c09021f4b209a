"""ServeJob: which model is served, in which precisions, on which software."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.workloads.model import Model

WEIGHT_DTYPES = ("fp32", "bf16", "fp16", "fp8", "int8", "int4", "fp4")
"""Dtypes that the linear layers of the blocks may be stored in."""
CACHE_DTYPES = ("fp32", "bf16", "fp16", "fp8", "int8", "fp4")


@dataclass(frozen=True, kw_only=True)
class ServeJob:
    """What is served, apart from where, how and for whom."""

    model: Model
    weights_dtype: str = "bf16"
    """Dtype of the weights of the blocks' linear layers; embeddings, head, routers and norms stay in ``dtype``."""
    compute_dtype: str = "bf16"
    """Dtype in which those linear layers multiply: with weight-only quantisation (AWQ, GPTQ) the activations' own, with
    W8A8 and fp4 recipes the weights'."""
    cache_dtype: str = "bf16"
    """Dtype of keys and values in the cache."""
    dtype: str = "bf16"
    """Dtype of activations and of what is not quantised."""
    stack: str | None = None
    """Inference engine, a level of the efficiency priors (vllm, sglang, trtllm, ...); None: the chip's usual one."""
    stack_year: float | None = None
    """When the engine's release was current, such as 2025.5."""
