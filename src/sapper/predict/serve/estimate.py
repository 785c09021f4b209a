"""ServeEstimate: what ``predict serve`` answers about one deployment, whole. Terminal, JSON and dossier print it and nothing else."""

from __future__ import annotations

from typing import Literal

import msgspec

from sapper.evidence import Grade, Interval
from sapper.predict.estimate import Coverage, Narrowing, Term, Used, Warning_
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.speculate import Speculation
from sapper.predict.serve.traffic import Length

Binds = Literal["weights", "cache", "compute", "launch", "link", "queue"]
"""What holds the service back: reading weights or the cache, arithmetic, kernel starts and the host, links, or waiting for others."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """A waiting time of users, in seconds, at percentiles of the requests (``itl``: of the tokens)."""

    name: Literal["ttft", "tpot", "itl", "e2e"]
    mean: Interval
    p50: Interval
    p90: Interval
    p95: Interval
    p99: Interval

    def at(self, percentile: int) -> Interval:
        """One of the percentiles 50, 90, 95 and 99."""
        found = getattr(self, f"p{percentile}")
        assert isinstance(found, Interval)
        return found


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the deployment."""

    arrivals: str
    """poisson, even, closed or trace."""
    rate_per_s: float | None
    concurrency: int | None
    prompt: Length
    answer: Length
    trace: str | None
    seed: int
    requests: int
    """Measured in each simulation."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Like workers behind one balancer."""

    role: Literal["all", "prefill", "decode"]
    plan: ServePlan
    replicas: int
    chips: int
    """Of the pool."""


class ReplicaMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of the fullest chip of a replica (or decode worker)."""

    weights_bytes: float
    workspace_bytes: float
    cache_bytes: float
    """Room for the cache."""
    cache_share: float
    """Of that room, used in the mean."""
    cache_peak_share: float
    capacity_bytes: float
    """What the engine takes of the chip."""


class ServeEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment under a load, with intervals, reasons and coverage."""

    model: str
    cluster: str
    chip: str
    """Catalogue id."""
    chips: int
    """That serve; more may be there."""
    weights_dtype: str
    compute_dtype: str
    cache_dtype: str
    stack: str
    pools: tuple[Pool, ...]
    balancer: str
    speculation: Speculation | None
    load: Load
    slo: Slo | None
    meets: bool | None
    """Whether the most likely run keeps every limit of the SLO; None without one."""
    sustained: bool
    """Whether the queue is stable."""
    load_ratio: float | None
    """Rate asked over the rate that the deployment sustains; None in a closed loop."""
    ttft: Latency
    tpot: Latency | None
    """None where answers are one token."""
    itl: Latency | None
    e2e: Latency
    requests_per_s: Interval
    output_tokens_per_s: Interval
    """Of all chips."""
    chip_tokens_per_s: Interval
    """Output tokens of one chip."""
    total_chip_tokens_per_s: Interval
    """Prompt and output tokens of one chip."""
    user_tokens_per_s: Interval | None
    """What one user sees once the answer runs: 1 / median TPOT."""
    goodput_per_s: Interval | None
    """Requests that keep every limit; None without an SLO."""
    batch: Interval
    """Requests that decode together in a replica."""
    busy_share: float
    prompt_share: float
    """Part of the chips' computing time that prompts take."""
    preempted_share: float
    """Times that a request was thrown out of a full cache, over requests."""
    memory: ReplicaMemory
    power: Interval | None
    """Of all serving chips, in W, times the site's PUE where one is given; None where the catalogue has no TDP."""
    energy_per_token: Interval | None
    """J per output token."""
    cost: dict[str, Interval]
    """Per million output tokens by currency and basis, all chip time laid on the output; empty where no price is known."""
    cost_input: dict[str, Interval]
    """The prompts' part of it, per million input tokens."""
    cost_output: dict[str, Interval]
    """The rest, per million output tokens."""
    terms: tuple[Term, ...]
    """Of a mean iteration."""
    binds: Binds
    coverage: Coverage
    narrowing: Narrowing | None
    warnings: tuple[Warning_, ...]
    used: tuple[Used, ...]
    grade: Grade
