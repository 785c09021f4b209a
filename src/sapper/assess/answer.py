"""Ask predict about one cluster: its best plan and estimate, or the refusal that names what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from sapper import messages
from sapper.assess.assessment import RunnerUp, WhatIf
from sapper.assess.links import link_view
from sapper.assess.question import Question
from sapper.clusters.build import scale_up_of
from sapper.clusters.cluster import Cluster, Group, Link
from sapper.errors import BadPlan, InvariantError, MissingFact, SapperError
from sapper.predict.estimate import Estimate, Refusal

Kind = Literal["missing", "no-fit", "bad", "ours"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What predict said of one cluster."""

    cluster: Cluster
    estimate: Estimate | None = None
    refusal: Refusal | None = None
    kind: Kind | None = None
    why: dict[str, str] = msgspec.field(default_factory=dict)
    remedy: dict[str, str] = msgspec.field(default_factory=dict)
    runners: tuple[RunnerUp, ...] = ()
    plans: int | None = None
    fitting: int | None = None
    what_if: tuple[WhatIf, ...] = ()


def answer(question: Question, cluster: Cluster) -> Answer:
    """The estimate of ``cluster`` under the question's plan, or under the best plan that the search finds; or the refusal."""
    from sapper.predict import predict_train, search_train  # NumPy comes with it, which a reader of answers does not need
    from sapper.predict.legal import parse_plan

    try:
        if question.plan is not None:
            plan = parse_plan(question.plan, question.job, cluster.chips)
            return Answer(cluster=cluster, estimate=predict_train(question.job, cluster, plan))
        found = search_train(question.job, cluster, top=question.top)
    except SapperError as error:
        return refused(cluster, error.code, error.values, where=error.where, kind=_kind(error))
    if found.best is None:
        code, values = (found.why_none.code, found.why_none.values) if found.why_none else ("SP-ASSESS-010", {})
        none = refused(cluster, code, values, where=None, kind="no-fit")
        return msgspec.structs.replace(none, plans=found.plans, fitting=found.fitting)
    runners = tuple(
        RunnerUp(
            plan=runner.plan,
            step_time_s=runner.step_time_s,
            memory_bytes=runner.memory_bytes,
            reason=_by_language(runner.reason_code, runner.reason_values) if runner.reason_code else {},
        )
        for runner in found.runners
    )
    return Answer(cluster=cluster, estimate=found.best, runners=runners, plans=found.plans, fitting=found.fitting)


def comm_share(estimate: Estimate) -> float:
    """Share of the step spent in communication that computation does not hide."""
    total_s = sum(term.time_s for term in estimate.terms)
    return sum(term.time_s for term in estimate.terms if term.name.endswith("-comm")) / total_s if total_s else 0.0


def what_if_reference_link(question: Question, given: Answer) -> tuple[WhatIf, ...]:
    """The option with the speed, latency and topology of the reference's scale-up link, its own reach kept.

    A torus is shaped by its slice and cannot be put in another's place; then there is no such question.
    """
    own, theirs = _scale_up(given.cluster), _scale_up(question.reference)
    if own is None or theirs is None or theirs.bandwidth_bytes_per_s.number is None or theirs.topology.startswith("torus"):
        return ()
    if (own.bandwidth_bytes_per_s.number, own.topology) == (theirs.bandwidth_bytes_per_s.number, theirs.topology):
        return ()
    return _with_link(question, given, "reference-link", msgspec.structs.replace(theirs, domain_size=own.domain_size, peers=None))


def what_if_host_link(question: Question, given: Answer) -> tuple[WhatIf, ...]:
    """The option with nothing but its host link (PCIe) in place of the scale-up link."""
    own = _scale_up(given.cluster)
    if own is None or own.topology == "pcie-tree":
        return ()
    group = given.cluster.groups[0]
    bare = msgspec.structs.replace(group.chip, scale_up=None)
    if bare.host_link_bytes_per_s is None or bare.host_link_bytes_per_s.number is None:
        return ()
    link = scale_up_of(bare, group.chips, per_node=group.chips_per_node)
    return _with_link(question, given, "host-link", link) if link is not None else ()


def _with_link(question: Question, given: Answer, code: str, link: Link) -> tuple[WhatIf, ...]:
    if given.estimate is None:
        return ()
    group = msgspec.structs.replace(given.cluster.groups[0], scale_up=link)
    cluster = msgspec.structs.replace(given.cluster, groups=(group,))
    changed = answer(msgspec.structs.replace(question, top=1), cluster).estimate
    if changed is None:
        return ()
    return (
        WhatIf(
            code=code,
            link=link_view("scale-up", link),
            step_time_s=changed.step_time.mid,
            factor=changed.step_time.mid / given.estimate.step_time.mid,
            comm_share=comm_share(changed),
        ),
    )


def _scale_up(cluster: Cluster) -> Link | None:
    return cluster.groups[0].scale_up if len(cluster.groups) == 1 else None


def _chip(cluster: Cluster) -> str:
    groups: tuple[Group, ...] = cluster.groups
    return " + ".join(group.chip.id for group in groups)


def refused(cluster: Cluster, code: str, values: Mapping[str, Any], *, where: str | None, kind: Kind) -> Answer:
    """A refusal with its texts, rendered here because values may be phrases that know both languages."""
    texts = {key: str(value) for key, value in values.items()}
    if where:
        texts.setdefault("where", where)
    remedy = {lang: step for lang in messages.LANGUAGES if (step := messages.next_step(code, lang, **values))}
    refusal = Refusal(chip=_chip(cluster), cluster=cluster.name, code=code, values=texts)
    return Answer(cluster=cluster, refusal=refusal, kind=kind, why=_by_language(code, values), remedy=remedy)


def _by_language(code: str, values: Mapping[str, Any]) -> dict[str, str]:
    said = {key: _phrase(key, value) for key, value in values.items()}
    return {lang: messages.text(code, lang, **said) for lang in messages.LANGUAGES}


def _phrase(key: str, value: Any) -> Any:
    """A term of the step or a part of the memory in the reader's words; any other value as it is."""
    code = f"assess.{key}.{value}"
    return messages.Phrase(code) if key in ("term", "part") and messages.known(code) else value


def _kind(error: SapperError) -> Kind:
    if isinstance(error, MissingFact):
        return "missing"
    if isinstance(error, InvariantError):
        return "ours"
    return "no-fit" if isinstance(error, BadPlan) else "bad"
