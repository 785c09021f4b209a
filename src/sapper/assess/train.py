"""assess_train: one training question put to many options."""

from __future__ import annotations

import datetime
import time

import msgspec

from sapper import __version__
from sapper.assess.answer import Answer, answer, what_if_host_link, what_if_reference_link
from sapper.assess.assessment import Assessment, WhatIf
from sapper.assess.join import join
from sapper.assess.mixed import mixed
from sapper.assess.proof import Proven
from sapper.assess.proof_checks import with_proofs
from sapper.assess.question import Question
from sapper.assess.serve import ServeAsked, serve_answers
from sapper.clusters.cluster import Cluster
from sapper.predict.legal import parse_plan


def assess_train(
    question: Question, *, as_of: str | None = None, serve: ServeAsked | None = None, proofs: tuple[Proven, ...] = ()
) -> Assessment:
    """Answer ``question`` for the reference and every option.

    An option of unlike chips is answered by its best mixed plan, unless the user fixed a plan of like chips.
    An option that cannot be answered stays in the Assessment as a refusal that names the missing field.

    Args:
        question: The job, the reference, the options and, where the user fixed one, the plan.
        as_of: ISO date that ages of prices count from; None is today.
        serve: The load of a service that every chip is sized for as well.
        proofs: What ``sapper prove`` found on chips of the question, at most one of a chip; they change no figure.

    Raises:
        BadPlan: The plan that the user fixed does not suit the reference.
    """
    began = time.perf_counter()
    question = _placed(question)
    if question.plan is not None:
        parse_plan(question.plan, question.job, question.reference.chips)
    answers = [answer(question, question.reference)]
    answers[0] = _with(answers[0], what_if_host_link(question, answers[0]))
    unlike = [cluster for cluster in question.options if not cluster.homogeneous and question.plan is None]
    for cluster in [option for option in question.options if option not in unlike]:
        one = answer(question, cluster)
        answers.append(_with(one, what_if_reference_link(question, one)))
    mixes = tuple(mixed(question, cluster, answers[0].estimate) for cluster in unlike)
    served = None if serve is None else (serve, serve_answers(serve, (question.reference, *question.options)))
    today = as_of or datetime.datetime.now(datetime.UTC).date().isoformat()
    found = join(question, tuple(answers), served=served, as_of=today, version=__version__)
    found = with_proofs(found, proofs, chips=question.chip_ids)
    return msgspec.structs.replace(found, mixed=mixes, elapsed_s=time.perf_counter() - began)


def _placed(question: Question) -> Question:
    """The question with its site's power price and PUE on every cluster, and no cluster twice."""

    def put(cluster: Cluster) -> Cluster:
        return msgspec.structs.replace(cluster, power_price=question.power_price or cluster.power_price, pue=question.pue or cluster.pue)

    reference = put(question.reference)
    options: list[Cluster] = []
    for cluster in map(put, question.options):
        if cluster != reference and cluster not in options:
            options.append(cluster)
    return msgspec.structs.replace(question, reference=reference, options=tuple(options))


def _with(given: Answer, found: tuple[WhatIf, ...]) -> Answer:
    return msgspec.structs.replace(given, what_if=found)
