"""The serving chapter: what each chip of the question gives as a service, sized for one load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from sapper.assess.answer import refused
from sapper.assess.index import Index
from sapper.assess.serving import ServeOption, Serving
from sapper.clusters.assume import Assumptions
from sapper.clusters.cluster import Cluster
from sapper.errors import BadPlan, InvariantError, MissingFact, SapperError
from sapper.predict.serve.answer import ServeAnswer
from sapper.predict.serve.frontier import Frontier, frontier
from sapper.predict.serve.predict import load_of
from sapper.predict.serve.question import ServeQuestion
from sapper.predict.serve.search import answer_serve
from sapper.predict.serve.target import Target

Found = tuple[Target, ServeAnswer | SapperError, Frontier | None]
"""A chip, its answer or refusal, its frontier."""
CHAPTER_REQUESTS = 1000
"""Requests of a simulation for the chapter: many chips are asked."""


@dataclass(frozen=True, kw_only=True)
class ServeAsked:
    """The load that every chip is sized for."""

    question: ServeQuestion
    assumed: Assumptions | None = None


def serve_answers(asked: ServeAsked, clusters: Iterable[Cluster]) -> list[Found]:
    """Each chip of ``clusters`` once, with as many chips as the load takes; a frontier beside the answer."""
    seen: set[str] = set()
    found: list[Found] = []
    for cluster in clusters:
        if not cluster.homogeneous or cluster.groups[0].chip.id in seen:
            continue
        seen.add(cluster.groups[0].chip.id)
        target = Target.open(cluster, assumed=asked.assumed)
        try:
            answer = answer_serve(replace(asked.question, requests=CHAPTER_REQUESTS), target)
            found.append((target, answer, frontier(asked.question, target)))
        except SapperError as error:
            found.append((target, error, None))
    return found


def chapter(asked: ServeAsked, answers: list[Found], index: Index) -> Serving:
    """The chapter of ``answers``, whose first is the reference's; every constant is cited in ``index``."""
    options = []
    for at, (target, answer, points) in enumerate(answers):
        chip = target.chip
        whole = answer if isinstance(answer, ServeAnswer) else None
        used = whole.estimate.used if whole else ()
        none = refused_chip(target, answer) if isinstance(answer, SapperError) else None
        options.append(
            ServeOption(
                chip=chip.id,
                label=chip.name,
                is_reference=at == 0,
                answer=whole,
                frontier=points,
                refusal_code=none[0] if none else None,
                refusal_kind=none[1] if none else None,
                why=none[2] if none else {},
                remedy=none[3] if none else {},
                evidence=tuple(sorted({number for use in used for number in index.cite(chip.id, use.key, use.fact)})),
            )
        )
    question = asked.question
    return Serving(
        load=load_of(question.traffic, CHAPTER_REQUESTS),
        slo=question.slo,
        weights=question.weights,
        cache_dtype=question.job.cache_dtype,
        options=tuple(options),
    )


def refused_chip(
    target: Target, error: SapperError
) -> tuple[str, Literal["missing", "no-fit", "bad", "ours"], dict[str, str], dict[str, str]]:
    """(code, kind, why, remedy) of a chip without an answer."""
    kind: Literal["missing", "no-fit", "bad", "ours"] = (
        "missing"
        if isinstance(error, MissingFact)
        else "ours"
        if isinstance(error, InvariantError)
        else "no-fit"
        if isinstance(error, BadPlan)
        else "bad"
    )
    cluster = Cluster(name=target.name, groups=(target.group_for(1),))
    none = refused(cluster, error.code, error.values, where=error.where, kind=kind)
    return error.code, kind, none.why, none.remedy
