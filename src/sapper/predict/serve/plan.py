"""ServePlan: how one replica of a served model is cut over chips, and how its engine batches."""

from __future__ import annotations

import msgspec


class ServePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replica. Replicas are independent, so a cluster runs ``chips // plan.chips`` of them behind a balancer."""

    tp: int = 1
    """Tensor parallel degree."""
    pp: int = 1
    """Pipeline stages."""
    attention_dp: int = 1
    """Data-parallel ranks of the attention layers inside the replica: each holds whole attention weights (cut by ``tp``) and
    the cache of its own requests, while the experts are shared by all (DeepSeek-V3, arXiv:2412.19437, section 3.4)."""
    ep: int = 1
    """Expert parallel degree; divides ``tp * attention_dp``. 1: experts are cut like dense layers."""
    max_sequences: int = 256
    """Requests that may decode together on one attention rank."""
    max_batched_tokens: int = 8192
    """Tokens of one iteration on one attention rank: what is left beside the decoding requests is filled by chunks of prompts
    (Sarathi-Serve, arXiv:2403.02310, section 4)."""

    @property
    def chips(self) -> int:
        """Chips of one replica."""
        return self.tp * self.pp * self.attention_dp


class Admission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an engine looks at the requests that wait; by default before each iteration."""

    poll: int = 0
    """Decode iterations between two looks at what came in (SGLang, ``--scheduler-recv-interval``)."""
    balance: int = 0
    """Most iterations that prompts are held back until each attention rank has one to read (TensorRT-LLM,
    ``attention_dp_config.timeout_iters`` with ``enable_balance``)."""

    gather: int = 0
    """Most iterations that prompts are held back until they hold :attr:`gather_tokens` (TensorRT-LLM, ``batch_wait_timeout_iters``)."""
    gather_tokens: int = 0
    """Tokens that are enough (TensorRT-LLM, ``batch_wait_max_tokens_ratio`` of ``max_num_tokens``)."""

    def held(self, arrivals: float, *, ranks: float, prompt: float) -> float:
        """Iterations that a prompt is held back in the mean, beyond the queue.

        Args:
            arrivals: Requests that come in an iteration, over all ranks.
            ranks: Attention ranks of the engine.
            prompt: Tokens of a prompt.
        """
        balanced = _held(self.balance, enough=ranks - 1.0, arrivals=arrivals)
        return 0.5 * self.poll + balanced + _held(self.gather, enough=max(self.gather_tokens / prompt - 1.0, 0.0), arrivals=arrivals)


def _held(most: float, *, enough: float, arrivals: float) -> float:
    """Mean iterations until ``enough`` further prompts have joined the first one, but ``most`` for that one."""
    window = min(most, enough / max(arrivals, 1e-9))
    others = window * arrivals  # come at even times while the first one waits for the whole window
    return window * (1.0 + 0.5 * others) / (1.0 + others)
