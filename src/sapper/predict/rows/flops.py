"""FLOPs of a training step under the conventions that publications use.

Forward FLOPs come from the workload; a step is three forward passes (arXiv:2204.02311, appendix B), two where the
weights are frozen and only adapters learn (LoRA: no weight gradient, arXiv:2106.09685), plus what recomputation repeats.
"""

from __future__ import annotations

from typing import Literal

from sapper.predict.plan import Recompute
from sapper.workloads.op import Workload

Convention = Literal["full", "causal", "full+recompute"]


def step_flops(
    workload: Workload, sequences: float, *, convention: Convention = "full", recompute: Recompute = "none", frozen: bool = False
) -> float:
    """FLOPs that a publication counts for one step.

    Args:
        workload: One sequence.
        sequences: Sequences of a step.
        convention: ``full`` (score square whole), ``causal`` (halved), ``full+recompute`` (the layers' forward pass
            counted once more, arXiv:2104.04473, equation 3).
        recompute: What a hardware count adds: for HFU.
        frozen: LoRA.
    """
    passes = 2.0 if frozen else 3.0
    total = passes * workload.flops(convention="causal" if convention == "causal" else "full")
    if convention == "full+recompute" or recompute == "full":
        total += _layers(workload, core_only=False)
    elif recompute == "selective":
        total += _layers(workload, core_only=True)
    return total * sequences


def _layers(workload: Workload, *, core_only: bool) -> float:
    return sum(
        block.count * sum(op.full_flops for op in block.ops if op.core or not core_only)
        for block in workload.blocks
        if block.role == "layer"
    )
