"""Reasons: what a mean iteration is spent on, what binds it, and which measurement would narrow its interval most."""

from __future__ import annotations

import numpy as np

from sapper.evidence import Grade
from sapper.evidence.fact import worst
from sapper.predict.arrays import Floats
from sapper.predict.estimate import Narrowing, Term
from sapper.predict.fit import Fitted
from sapper.predict.in_force import serve_fit
from sapper.predict.narrow import narrowing
from sapper.predict.serve.estimate import Binds
from sapper.predict.serve.measure import Measured
from sapper.predict.serve.passes import PassEngine
from sapper.predict.serve.price import Priced
from sapper.predict.serve.step import Engine
from sapper.predict.serve.terms import TERMS, slopes, zeros

LIMITS: dict[str, Binds] = {
    "matmul": "compute", "low": "compute", "thin": "compute", "rowwise": "compute", "attention": "compute", "vector": "compute",
    "memory": "weights", "cache": "cache", "reread": "cache",
    "launch_s": "launch", "host_s": "launch", "sequence_s": "launch", "token_s": "launch", "link": "link", "latency": "link",
}  # fmt: skip
"""Term of the serving book -> what it is bound by."""
MEASUREMENTS = {
    "matmul": ("matmul", "low", "thin", "rowwise"), "attention": ("attention",),
    "memory-copy": ("memory",), "paged-attention": ("cache", "reread"),
    "all-reduce": ("link", "latency"), "engine-loop": ("launch_s", "host_s", "sequence_s"),
}  # fmt: skip
"""Measurement on the chip -> constants of the serving book that it pins."""
QUEUED = 2.0
"""Median time to first token, over that of an empty engine, from which on waiting for others is what binds."""
LINKS_MATTER = 0.01
"""Share of an iteration from which on the grade of a link is the result's."""


def mean_bundle(engine: Priced, *, batch: float, context: float, prompt: float, answer: float) -> Floats:
    """K: the mean iteration of one attention rank: ``batch`` requests decode, and the prompts of those that follow are computed."""
    terms = engine.iteration
    alone = terms.decode(np.array(batch), np.array(context)) if batch > 0 else zeros()
    decoded = max(answer - 1.0, 0.0)
    begun = batch / decoded if decoded else 1.0
    chunks = max(1.0, np.ceil(prompt / max(engine.plan.max_batched_tokens - batch, 1.0)))
    chunk = prompt / chunks
    reading = terms.prompt(np.array(prompt)) - terms.at(np.array(prompt))
    reading = reading + chunks * (terms.at(np.array(batch + chunk)) - (terms.at(np.array(batch)) if batch > 0 else 0.0))
    return np.asarray(alone + begun * reading, float)


def terms_of(engine: Engine, bundle: Floats | None) -> tuple[Term, ...]:
    """The terms of a mean iteration, greatest first; empty for an engine without a breakdown."""
    if bundle is None or not isinstance(engine, (Priced, PassEngine)):
        return ()
    times = engine.factors * bundle
    total = float(times.sum())
    found = [
        Term(name=name, time_s=float(time), share=float(time) / total, limit=LIMITS[name])
        for name, time in zip(TERMS, times, strict=True)
        if name in LIMITS and time > 0
    ]
    return tuple(sorted(found, key=lambda term: -term.share))


def binds(terms: tuple[Term, ...], measured: Measured, *, empty_s: float) -> Binds:
    """What holds the service back most."""
    if measured.ttft.p50_s > QUEUED * empty_s or not measured.sustained:
        return "queue"
    return greatest(terms)


def greatest(terms: tuple[Term, ...]) -> Binds:
    """What binds most of the time of ``terms``."""
    shares: dict[Binds, float] = {}
    for term in terms:
        limit = LIMITS[term.name]
        shares[limit] = shares.get(limit, 0.0) + term.share
    return max(shares, key=lambda name: shares[name], default="compute")


def grade_of(engine: Engine, terms: tuple[Term, ...]) -> Grade:
    """The weakest grade among the inputs that carry the result: not compute units, and links only where they take time."""
    talk = sum(term.share for term in terms if term.limit == "link")
    light = ("compute units",) if talk >= LINKS_MATTER else ("compute units", "bandwidth per direction", "latency", "link")
    return worst(*(item.fact.grade for item in engine.used if not item.key.endswith(light)))


def narrowest(engine: Engine, bundle: Floats | None, *, fitted: Fitted | None = None) -> Narrowing | None:
    """The measurement that narrows the interval of an iteration's time most."""
    if bundle is None or not isinstance(engine, (Priced, PassEngine)):
        return None
    fitted = fitted or serve_fit()
    _, design, missing = fitted.eta([engine.subject])
    slope = slopes(engine.factors * bundle, fitted.book.constants)
    return narrowing(fitted, slope=slope, design=design, missing=missing, candidates=MEASUREMENTS)
