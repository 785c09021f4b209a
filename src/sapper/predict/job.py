"""TrainJob: the question that predict answers, apart from where and how."""

from __future__ import annotations

from typing import Literal

import msgspec

from sapper.errors import BadValue
from sapper.workloads.op import Workload

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4")
LOW_PRECISIONS = ("fp8", "int8", "fp4")
"""Only the linear layers of the blocks compute in these; the rest stays in 16 bit."""
OPTIMIZERS = {
    # state bytes per trainable weight beside the weight itself and its gradient (fp32 master copy where mixed)
    "adamw": 8.0,
    "adam": 8.0,
    "adamw-bf16": 4.0,
    "adafactor": 0.5,
    "sgd": 0.0,
    "sgd-momentum": 4.0,
    "lion": 4.0,
    "muon": 4.0,
}
"""Optimizer -> bytes of moments per weight (Adam: two fp32 moments, arXiv:1910.02054 section 3.1)."""


class TrainJob(msgspec.Struct, frozen=True, kw_only=True):
    """A training job: the workload of one sequence, how many sequences a step takes, and in which precision."""

    workload: Workload
    global_batch: int
    """Sequences per optimizer step over the whole cluster."""
    precision: str = "bf16"
    optimizer: str = "adamw"
    finetune: Literal["full", "lora"] = "full"
    lora_rank: int = 16
    lora_targets: Literal["attention", "all"] = "attention"
    tokens: float | None = None
    """Tokens of the whole job; sets its time, energy and cost."""
    steps: float | None = None
    """Alternatively, optimizer steps of the whole job."""
    stack: str | None = None
    """Software stack, a key of the efficiency priors (megatron, fsdp, xla, eager, ...). None: the vendor's usual."""
    fused_loss: bool = False
    """The loss is one kernel over the logits (Megatron-LM's ``--cross-entropy-loss-fusion``, a compiled or Triton cross
    entropy) and keeps no fp32 copies of them. Its time is within what the memory efficiency of a stack varies by."""
    vocab_padded: bool = True
    """Where the stack pads the vocabulary (Megatron-LM's ``--make-vocab-size-divisible-by``), it does so. False: it is taken as it is."""
    stack_year: float | None = None
    """When the software was current, such as 2024.5."""

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one step consumes."""
        return float(self.global_batch) * self.workload.tokens_per_sequence

    @property
    def total_steps(self) -> float | None:
        """Steps of the whole job; None where neither tokens nor steps are given."""
        if self.steps is not None:
            return self.steps
        return None if self.tokens is None else self.tokens / self.tokens_per_step

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            BadValue: An unknown precision or optimizer, or a number that is not positive.
        """
        if self.precision not in PRECISIONS:
            raise BadValue("SP-PRED-001", where="precision", name=self.precision, known=", ".join(PRECISIONS))
        if self.optimizer not in OPTIMIZERS:
            raise BadValue("SP-PRED-002", where="optimizer", name=self.optimizer, known=", ".join(OPTIMIZERS))
        for field in ("global_batch", "lora_rank", "tokens", "steps"):
            value = getattr(self, field)
            if value is not None and not 0 < value < 1e18:
                raise BadValue("SP-PRED-003", where=field, field=field, value=value)
