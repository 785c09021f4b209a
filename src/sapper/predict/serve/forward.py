"""Forward: latency and throughput of batches of a model that answers in one pass."""

from __future__ import annotations

import math

import msgspec

from sapper.evidence import Interval
from sapper.evidence.fact import Grade
from sapper.predict.estimate import Coverage, Used
from sapper.predict.serve import reasons
from sapper.predict.serve.estimate import Binds
from sapper.predict.serve.passes import BATCHES, PassEngine
from sapper.predict.serve.predict import Z80
from sapper.predict.serve.price import effects_used


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """One forward pass of a batch."""

    batch: float
    latency: Interval
    """In seconds, from the batch's start to its end."""
    samples_per_s: Interval
    """Of one chip."""
    binds: Binds


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """All batches of one model on one chip."""

    model: str
    cluster: str
    chip: str
    weights_dtype: str
    stack: str
    tokens: float
    """Of a sample."""
    passes: tuple[Pass, ...]
    coverage: Coverage
    used: tuple[Used, ...]
    grade: Grade


def forward(engine: PassEngine, *, cluster: str) -> Forward:
    """The passes of ``engine`` that its chip's memory holds."""
    return Forward(
        model=engine.job.model.name,
        cluster=cluster,
        chip=engine.subject.chip,
        weights_dtype=engine.job.weights_dtype,
        stack=engine.subject.stack,
        tokens=float(engine.sample_tokens),
        passes=tuple(_pass(engine, at) for at, batch in enumerate(BATCHES) if engine.holds(batch)),
        coverage=engine.coverage,
        used=(*engine.used, *effects_used(engine.subject)),
        grade=reasons.grade_of(engine, ()),
    )


def _pass(engine: PassEngine, at: int) -> Pass:
    batch, grade = BATCHES[at], reasons.grade_of(engine, ())
    terms = reasons.terms_of(engine, engine.bundles[:, at])
    mid_s = sum(term.time_s for term in terms)
    factor = math.exp(Z80 * engine.prefill_sd)
    latency = Interval(mid=mid_s, low=mid_s / factor, high=mid_s * factor, unit="s", grade=grade)
    rate = Interval(mid=batch / mid_s, low=batch / latency.high, high=batch / latency.low, unit="1/s", grade=grade)
    return Pass(batch=float(batch), latency=latency, samples_per_s=rate, binds=reasons.greatest(terms))
