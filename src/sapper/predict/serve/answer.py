"""ServeAnswer: what one chip answers to a question about serving."""

from __future__ import annotations

import msgspec

from sapper.evidence import Interval
from sapper.predict.serve.estimate import Pool, ServeEstimate


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that lost."""

    pools: tuple[Pool, ...]
    weights_dtype: str
    chips: int
    """That it takes for the rate; of one replica where no rate is asked."""
    highest_rate_per_s: float
    """At which it keeps the SLO."""


class ServeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The best deployment whole, and how it was found."""

    estimate: ServeEstimate
    chips_low: int | None = None
    """Chips at the fast end of the efficiencies; None where nothing was sized."""
    chips_high: int | None = None
    """At the slow end; None too where no number of chips keeps the SLO there."""
    highest_rate: Interval | None = None
    """At which the deployment keeps the SLO, in requests per second; None without an SLO."""
    runners: tuple[Runner, ...] = ()
    plans: int = 1
    """Looked at."""
    simulated: int = 1
    """Of them."""
    elapsed_s: float = 0.0
