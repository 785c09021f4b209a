"""Plan: how a job is cut over a cluster."""

from __future__ import annotations

from typing import Literal

import msgspec

Schedule = Literal["gpipe", "1f1b", "interleaved", "zero-bubble", "dualpipe"]
Recompute = Literal["none", "selective", "full"]
SCHEDULES: tuple[Schedule, ...] = ("gpipe", "1f1b", "interleaved", "zero-bubble", "dualpipe")
RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parallel degrees and the choices that go with them. ``tp * pp * dp * cp`` is the number of chips."""

    tp: int = 1
    """Tensor parallel degree."""
    pp: int = 1
    """Pipeline stages."""
    dp: int = 1
    """Data parallel replicas."""
    ep: int = 1
    """Expert parallel degree; divides dp * cp."""
    cp: int = 1
    """Context parallel degree (the sequence cut)."""
    micro_batch: int = 1
    """Sequences of one micro-batch on one replica."""
    vpp: int = 1
    """Virtual stages of a chip under the interleaved schedule."""
    schedule: Schedule = "1f1b"
    zero: int = 1
    """ZeRO stage 0-3; 3 is FSDP."""
    hsdp: int = 0
    """ZeRO shards over this many chips and replicates beyond (hybrid FSDP); 0: over all of dp."""
    recompute: Recompute = "none"
    sequence_parallel: bool = True
    """Norms and residuals cut over the tensor-parallel group (arXiv:2205.05198)."""

    @property
    def chips(self) -> int:
        """Chips that the plan uses."""
        return self.tp * self.pp * self.dp * self.cp
