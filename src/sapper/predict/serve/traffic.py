"""Traffic: who asks, how often and how much; drawn as a stream of requests, the same for the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np

from sapper.errors import BadValue
from sapper.predict.arrays import Floats
from sapper.predict.serve.requests import Requests

Arrivals = Literal["poisson", "even", "closed", "trace"]
MOST_TOKENS = 2**24
MOST_REQUESTS = 1_000_000


class Length(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a prompt or of an answer: all alike, or lognormal about a mean."""

    tokens: float
    """The mean."""
    cv_ratio: float = 0.0
    """Standard deviation over mean; 0: all alike."""

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """``count`` lengths in whole tokens, one at least."""
        if self.cv_ratio == 0.0:
            return np.full(count, float(max(1, round(self.tokens))))
        spread = math.log1p(self.cv_ratio**2)
        drawn = rng.lognormal(math.log(self.tokens) - spread / 2, math.sqrt(spread), count)
        return np.clip(np.rint(drawn), 1.0, float(MOST_TOKENS))


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A recorded stream: columns of equal length."""

    path: str
    arrivals: tuple[tuple[float, int, int], ...]
    """(seconds since the first request, tokens of the prompt, tokens of the answer), by time."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """A stream of requests."""

    arrivals: Arrivals
    rate_per_s: float | None = None
    """Requests per second of an open stream, over all replicas."""
    concurrency: int | None = None
    """Users of a closed loop, each of whom asks again as soon as the answer is whole."""
    prompt: Length
    answer: Length
    trace: Traced | None = None
    seed: int = 0

    @property
    def longest_tokens(self) -> float:
        """Of a request: three standard deviations above the mean, or the trace's longest."""
        if self.trace is not None:
            return float(max(prompt + answer for _, prompt, answer in self.trace.arrivals))
        return sum(length.tokens * (1 + 3 * length.cv_ratio) for length in (self.prompt, self.answer))

    def at_rate(self, rate_per_s: float) -> Traffic:
        """The same stream at another rate; a trace is played faster or slower."""
        return replace(self, rate_per_s=rate_per_s)


def traced(trace: Traced, *, rate_per_s: float | None = None) -> Traffic:
    """The stream of a trace, at its own rate or played at another."""
    table = np.array(trace.arrivals, float)
    prompt, answer = (Length(tokens=float(table[:, column].mean())) for column in (1, 2))
    span_s = float(table[-1, 0])
    own = (len(table) - 1) / span_s if span_s > 0 else float(len(table))
    return Traffic(arrivals="trace", rate_per_s=rate_per_s or own, prompt=prompt, answer=answer, trace=trace)


def draw(traffic: Traffic, count: int, *, every: int = 1) -> Requests:
    """``count`` requests of an open stream, of which only every ``every``-th comes (one replica's part under a round robin)."""
    if traffic.trace is not None:
        return _replayed(traffic, traffic.trace)
    rng = np.random.default_rng(traffic.seed)
    rate = traffic.rate_per_s
    arrival: Floats
    if rate is None:  # a closed loop: the times are set as others finish
        arrival = np.zeros(count)
    elif traffic.arrivals == "even":
        arrival = np.arange(count, dtype=float) * (every / rate)
    else:
        arrival = np.asarray(np.cumsum(rng.gamma(float(every), 1.0 / rate, count)), float)
    return Requests(arrival, traffic.prompt.draw(count, rng), traffic.answer.draw(count, rng))


def _replayed(traffic: Traffic, trace: Traced) -> Requests:
    table = np.array(trace.arrivals, float)
    span_s = float(table[-1, 0])
    own = (len(table) - 1) / span_s if span_s > 0 else float(len(table))
    stretch = own / traffic.rate_per_s if traffic.rate_per_s else 1.0
    return Requests(table[:, 0] * stretch, table[:, 1], table[:, 2])


def parse_length(text: str, *, where: str) -> Length:
    """Read ``1024`` or ``mean=1024,cv=0.8`` (lognormal).

    Raises:
        BadValue: Not a number of tokens that can be meant.
    """
    given: dict[str, float] = {}
    for part in text.split(","):
        key, sign, value = part.partition("=")
        name = key.strip() if sign else "mean"
        try:
            given[name] = float(value if sign else key)
        except ValueError:
            raise BadValue("SP-SERVE-001", where=where, text=text) from None
        if name not in ("mean", "cv"):
            raise BadValue("SP-SERVE-001", where=where, text=text)
    mean, cv = given.get("mean", math.nan), given.get("cv", 0.0)
    if not (1 <= mean <= MOST_TOKENS and 0 <= cv <= 10):
        raise BadValue("SP-SERVE-002", where=where, text=text, most=f"{MOST_TOKENS:,}")
    return Length(tokens=mean, cv_ratio=cv)


def parse_rate(text: str, *, where: str) -> float:
    """Read a rate of requests: ``20/s``, ``90/min``, ``20``.

    Raises:
        BadValue: Not above zero, or not a number.
    """
    number, _, unit = text.partition("/")
    per_s = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}.get(unit.strip())
    try:
        value = float(number) / (per_s or math.nan)
    except ValueError:
        value = math.nan
    if not (1e-6 <= value <= 1e7):
        raise BadValue("SP-SERVE-003", where=where, text=text)
    return value
