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
