"""Deployment: which replicas stand behind the balancer, and how a request passes through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sapper.predict.serve.speculate import Speculation
from sapper.predict.serve.step import Engine

Balancer = Literal["round-robin", "least-loaded"]


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The way of a cache from a prefill worker to a decode worker."""

    bandwidth_bytes_per_s: float
    """Of one chip: all chips of a worker send their part of the cache at once."""
    latency_s: float

    def seconds(self, size_bytes: float) -> float:
        """Time of ``size_bytes`` on each chip."""
        return self.latency_s + size_bytes / self.bandwidth_bytes_per_s


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Like replicas that compute prompts and answers, or, disaggregated (DistServe, arXiv:2401.09670; Splitwise, arXiv:2311.18677),
    prefill workers before decode workers."""

    engine: Engine
    """Of a replica; of a decode worker where there are prefill workers."""
    replicas: int = 1
    prefill: Engine | None = None
    prefill_replicas: int = 0
    transfer: Transfer | None = None
    speculation: Speculation | None = None
    balancer: Balancer = "round-robin"

    @property
    def loops(self) -> int:
        """Engine loops, one for each attention rank, among which the balancer shares the requests."""
        return self.replicas * self.engine.plan.attention_dp

    @property
    def prefill_loops(self) -> int:
        """The same of prefill workers."""
        return 0 if self.prefill is None else self.prefill_replicas * self.prefill.plan.attention_dp

    @property
    def disaggregated(self) -> bool:
        """Whether prompts are computed elsewhere than answers."""
        return self.prefill is not None

    @property
    def chips(self) -> int:
        """Of all replicas."""
        prompts = 0 if self.prefill is None else self.prefill.plan.chips * self.prefill_replicas
        return self.engine.plan.chips * self.replicas + prompts
