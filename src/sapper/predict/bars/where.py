"""Where: what the error of serving consists of.

Each bar of serving is set beside two figures that bound it from below: the error of the fit that saw the chip (what remains is
the form of the model and what rows leave out) and the floor of repeated measurements. The errors are split by what the questions
differ in, each with its share of the whole, so that what would help most is read off.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sapper.predict.bars.noise import Floor, floor
from sapper.predict.bars.serving import POINTS, SUITE
from sapper.predict.rows.scores import Scored
from sapper.predict.serve.ask import Asked
from sapper.predict.serve.predictor import ServePredictor, time_s
from sapper.predict.serve.rows.case import ServeCase
from sapper.predict.serve.subject import factors_of
from sapper.predict.serve.terms import TERMS

CHUNK = 1000
"""Questions whose constants are looked up at once: their design takes 80 kB each."""
FEWEST = 10
"""Rows of a part that is listed."""
PARTS: dict[str, tuple[str, ...]] = {
    "compute": ("matmul", "low", "thin", "rowwise", "attention"), "weights": ("memory", "vector"), "cache": ("cache", "reread"),
    "links": ("link", "latency"), "starts": ("launch_s", "host_s", "sequence_s"), "admission": ("prompt_s", "token_s", "stream_s"),
}
"""Terms of an iteration by what they wait for; what stands in queues is named after the term that is waited for."""
UNSTATED = frozenset({"unknown", "drafts"})
"""Of :func:`workers_of`: rows that leave out how many workers there were or whether tokens were drafted."""
LOADS = ((1, 8), (9, 64), (65, 512), (513, 10**9))
"""Requests under way, from and to."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows that agree in one thing."""

    facet: str
    """Key of its label: ``where.facet.<facet>``."""
    name: str
    rows: int
    mean: float
    """Mean error, the chip left out."""
    seen: float
    """The same by the fit that saw the chip."""
    bias: float
    """Median of predicted over measured time, less one: negative where predicted too fast."""
    share: float
    """Of the sum of all errors of the place."""


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What a figure that is missing today would make of the mean error."""

    key: str
    """Of its label: ``where.remedy.<key>``."""
    name: str = ""
    """Of the chip."""
    mean: float


@dataclass(frozen=True, kw_only=True)
class Place:
    """One quantity whose error a bar limits."""

    key: str
    target: float
    rows: int
    mean: float
    median: float
    seen: float
    seen_median: float
    floor: Floor
    """Whatever the release."""
    same: Floor
    """Of one release on one day."""
    parts: tuple[Part, ...]
    """Facet by facet, in each the greatest share first."""
    remedies: tuple[Remedy, ...]


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A question with both answers, as errors."""

    case: ServeCase
    error: float
    seen: float
    log: float
    term: str


FACETS: dict[str, Callable[[_Line], str]] = {
    "chip": lambda line: line.case.chip_id,
    "engine": lambda line: line.case.job.stack or "?",
    "model": lambda line: f"{line.case.job.model.family} {line.case.job.weights_dtype}",
    "workers": lambda line: workers_of(line.case),
    "load": lambda line: load_of(line.case),
    "term": lambda line: line.term,
}


def workers_of(case: ServeCase) -> str:
    """How the row's workers are known, as a key of ``where.workers``."""
    if case.prefill is None:
        return "together"
    codes = {assumption.code for assumption in case.assumptions}
    if "assume.serve.speculative" in codes:
        return "drafts"
    if codes & {"assume.serve.neighbour", "assume.serve.workers", "assume.serve.unsplit"}:
        return "unknown"
    return "stated"


def load_of(case: ServeCase) -> str:
    """Requests under way, as a range."""
    low, high = next((low, high) for low, high in LOADS if (case.batch or 1.0) <= high)
    return f"{low}-{high}" if high < LOADS[-1][1] else f"{low}+"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The answer of a fit that saw the chip."""

    value: float
    """In the row's own metric."""
    term: str
    """The part that takes most of the time, queues included: a key of :data:`PARTS`."""


Key = tuple[str, str]
"""Row and metric."""


def seen_answers(cases: Sequence[ServeCase], predictor: ServePredictor) -> dict[Key, Seen]:
    """What ``predictor`` makes of questions of time, without intervals."""
    found: dict[Key, Seen] = {}
    ready = [(case, one) for case in cases if isinstance(one := predictor.ask(case), Asked) and not one.watts]
    for start in range(0, len(ready), CHUNK):
        chunk = ready[start: start + CHUNK]
        eta, _, _ = predictor.constants.eta([one.subject for _, one in chunk])
        bundles = np.stack([one.bundles for _, one in chunk], axis=2)
        seconds = factors_of(eta) * bundles.sum(axis=0)
        most = np.stack([seconds[[TERMS.index(term) for term in terms]].sum(axis=0) for terms in PARTS.values()]).argmax(axis=0)
        for (case, one), time, place in zip(chunk, time_s(bundles, eta), most, strict=True):
            found[case.row_id, case.metric] = Seen(value=case.value_of(one.si_of(float(time))), term=tuple(PARTS)[place])
    return found


def places(cases: Sequence[ServeCase], left_out: Sequence[Scored], seen: Mapping[Key, Seen]) -> tuple[Place, ...]:
    """The places of serving that have a bar.

    Args:
        cases: Questions of confidence high.
        left_out: Their lines, each chip predicted without its own rows.
        seen: The answers of the posterior that ships, which saw them.
    """
    known = {(line.id, line.metric): line for line in left_out if not line.impossible}
    lines = [line for case in cases if (line := _line(case, known, seen)) is not None]
    wanted = (
        ("tpot", 0.12, [line for line in lines if line.case.family == POINTS and line.case.metric == "tpot"]),
        ("ttft", 0.25, [line for line in lines if line.case.family == POINTS and line.case.metric == "ttft"]),
        ("suite", 0.15, [line for line in lines if line.case.family.lower().startswith(SUITE)]),
    )
    return tuple(_place(key, target, own) for key, target, own in wanted if own)


def _line(case: ServeCase, known: Mapping[Key, Scored], seen: Mapping[Key, Seen]) -> _Line | None:
    """A question that both have answered."""
    key = case.row_id, case.metric
    line, own = known.get(key), seen.get(key)
    if line is None or own is None or line.error is None or line.predicted is None:
        return None
    ratio = line.predicted / case.measured
    log = float(np.log(1.0 / ratio if case.conversion.kind == "rate" else ratio))
    return _Line(case=case, error=abs(line.error), seen=abs(own.value / case.measured - 1.0), log=log, term=own.term)


def _place(key: str, target: float, lines: Sequence[_Line]) -> Place:
    cases = [line.case for line in lines]
    errors, seen = [line.error for line in lines], [line.seen for line in lines]
    return Place(
        key=key, target=target, rows=len(lines), mean=statistics.fmean(errors), median=statistics.median(errors),
        seen=statistics.fmean(seen), seen_median=statistics.median(seen), floor=floor(cases), same=floor(cases, same_release=True),
        parts=tuple(part for facet in FACETS for part in _parts(facet, lines)), remedies=_remedies(lines),
    )


def _remedies(lines: Sequence[_Line]) -> tuple[Remedy, ...]:
    """A run on the chip that has most of the error, a run on each, and the workers of every row."""
    parts = _parts("chip", lines)
    found = []
    if parts:
        worst = parts[0].name
        mean = statistics.fmean(line.seen if line.case.chip_id == worst else line.error for line in lines)
        found.append(Remedy(key="one_chip", name=worst, mean=mean))
    found.append(Remedy(key="each_chip", mean=statistics.fmean(line.seen for line in lines)))
    workers = {workers_of(line.case) for line in lines}
    if "stated" in workers and workers & UNSTATED:
        usual = statistics.fmean(line.error for line in lines if workers_of(line.case) == "stated")
        mean = statistics.fmean(usual if workers_of(line.case) in UNSTATED else line.error for line in lines)
        found.append(Remedy(key="workers", mean=mean))
    return tuple(found)


def _parts(facet: str, lines: Sequence[_Line]) -> list[Part]:
    groups: dict[str, list[_Line]] = defaultdict(list)
    for line in lines:
        groups[FACETS[facet](line)].append(line)
    whole = sum(line.error for line in lines)
    found = [
        Part(
            facet=facet, name=name, rows=len(own), mean=statistics.fmean(line.error for line in own),
            seen=statistics.fmean(line.seen for line in own), bias=float(np.expm1(statistics.median(line.log for line in own))),
            share=sum(line.error for line in own) / whole,
        )
        for name, own in groups.items() if len(own) >= FEWEST
    ]
    return sorted(found, key=lambda part: -part.share)
