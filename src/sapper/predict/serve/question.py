"""ServeQuestion: what is asked about serving, apart from the chips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sapper.predict.serve.deployment import Balancer
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.simulate import REQUESTS
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.speculate import Speculation
from sapper.predict.serve.traffic import Traffic

Disaggregate = Literal["auto", "yes", "no"]


@dataclass(frozen=True, kw_only=True)
class ServeQuestion:
    """A model, a load and what users will bear."""

    job: ServeJob
    traffic: Traffic
    slo: Slo | None = None
    weights: tuple[str, ...] = ("bf16",)
    """Dtypes of weights that are allowed."""
    plan: ServePlan | None = None
    """None: searched."""
    disaggregate: Disaggregate = "no"
    """``auto``: where it needs fewer chips for the SLO."""
    speculation: Speculation | None = None
    balancer: Balancer = "round-robin"
    requests: int = REQUESTS

    @property
    def generates(self) -> bool:
        """Whether the model makes tokens one by one; else it answers in one pass."""
        return self.job.model.causal and self.job.model.fixed_seq_len is None

    @property
    def tokens(self) -> float:
        """Of the longest request that must fit: three standard deviations above the mean, or the trace's longest."""
        return self.traffic.longest_tokens
