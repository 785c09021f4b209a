"""Limits: the highest rate at which a deployment keeps an SLO, in the mean (to prune) and by simulation."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.predict.serve import fluid
from sapper.predict.serve.clock import Clock
from sapper.predict.serve.deployment import Deployment
from sapper.predict.serve.measure import measure
from sapper.predict.serve.predict import meets
from sapper.predict.serve.simulate import LIKELY, Factors, simulate
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.traffic import Traffic

PROBES = 500
"""Requests of a simulation that only has to say yes or no."""
HALVINGS = 6
"""Of the bracket of a highest rate: to about 1%."""
FIRST = 0.8
"""Share of the steady state's rate that is tried first."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The largest steady batch of a rank within an SLO."""

    rate_per_s: float
    """Of one replica, all its ranks; 0 where not even one request keeps the limits."""
    sequences: float
    missed: str | None
    """The limit that a lone request breaks."""
    best_s: float
    """What a lone request has in its place."""


def bound(clock: Clock, slo: Slo, *, prompt: float, answer: float, prompts: bool = True) -> Bound:
    """The highest rate of one replica whose mean times keep ``slo``: no percentile above the mean can be kept at more."""
    most = max(1.0, fluid.most_sequences(clock, prompt=prompt, answer=answer, prompts=prompts))
    best: fluid.Steady | None = None
    size = 1.0
    first_missed: tuple[str, float] | None = None
    while True:
        state = fluid.steady(clock, sequences=size, prompt=prompt, answer=answer, prompts=prompts)
        missed = _missed(state, slo, answer=answer, prompts=prompts)
        if missed is None:
            best = state if best is None or state.rate_per_s > best.rate_per_s else best
        elif size == 1.0:
            first_missed = missed
        if missed is not None or size >= most:
            break
        size = min(most, size * 1.25)
    if best is None:
        assert first_missed is not None
        return Bound(rate_per_s=0.0, sequences=0.0, missed=first_missed[0], best_s=first_missed[1])
    return Bound(rate_per_s=best.rate_per_s * clock.ranks, sequences=best.sequences, missed=None, best_s=0.0)


def _missed(state: fluid.Steady, slo: Slo, *, answer: float, prompts: bool) -> tuple[str, float] | None:
    """The first limit that the mean breaks, and the mean."""
    found = {"ttft": state.ttft_s, "tpot": state.tpot_s, "e2e": state.ttft_s + state.tpot_s * max(answer - 1.0, 0.0)}
    for name, limit in slo.limits.items():
        if found[name] > limit and (prompts or name != "ttft"):
            return name, found[name]
    return None


def keeps(deployment: Deployment, traffic: Traffic, slo: Slo, *, factors: Factors = LIKELY, requests: int = PROBES) -> bool:
    """Whether a simulation keeps ``slo``."""
    return meets(measure(simulate(deployment, traffic, requests=requests, factors=factors), slo), slo)


def highest_rate(
    deployment: Deployment, traffic: Traffic, slo: Slo, *, most_per_s: float, factors: Factors = LIKELY, requests: int = PROBES
) -> float:
    """The highest rate, up to ``most_per_s``, at which simulations of ``deployment`` keep ``slo``; 0 where none does."""
    low, high = 0.0, most_per_s
    probe = FIRST * high
    for _ in range(HALVINGS):
        if keeps(deployment, traffic.at_rate(probe), slo, factors=factors, requests=requests):
            low = probe
        else:
            high = probe
        probe = (low + high) / 2 if low > 0 else high / 2
    return low
