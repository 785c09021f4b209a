"""Options: the replicas that each group of a cluster offers, and the requests per second of each class that one of them carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sapper.clusters.cluster import Cluster, Group
from sapper.errors import SapperError
from sapper.mix.serve.traffic import Class
from sapper.predict.serve import fluid, limits
from sapper.predict.serve.candidates import describe
from sapper.predict.serve.clock import Clock
from sapper.predict.serve.deployment import Deployment, Transfer
from sapper.predict.serve.predict import ends_of
from sapper.predict.serve.question import ServeQuestion
from sapper.predict.serve.search import Bounded, bounded, engines_of
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.step import Engine
from sapper.predict.serve.target import Target

Role = Literal["all", "prefill", "decode"]
PARTS: tuple[Role, Role] = ("prefill", "decode")
KEPT = 3
"""Plans of a group and class that are simulated."""
PROMPT_SHARE = 0.6
"""Part of the TTFT limit that a prompt and the way of its cache may take where others decode; the rest is for the queue."""
PROMPT_LOAD, DECODE_LOAD = 0.7, 0.9
"""Of workers that only read prompts or only decode: part of what they sustain in the mean, so that queues are short."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One kind of replica on one group."""

    group: str
    role: Role
    engine: Engine
    rates_per_s: tuple[float, ...]
    """Requests per second of each class that one replica carries alone within the SLO; 0: it cannot."""
    slow_per_s: tuple[float, ...]
    """The same at the slow end of its times' 80% interval."""
    fast_per_s: tuple[float, ...]

    @property
    def chips(self) -> int:
        """Of one replica."""
        return self.engine.plan.chips

    @property
    def plan(self) -> str:
        """How the replica is cut, and its weights where they are not 16 bit."""
        weights = self.engine.job.weights_dtype
        return describe(self.engine.plan) + ("" if weights == self.engine.job.dtype else f" {weights}")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a group offers, or why nothing."""

    group: Group
    options: tuple[Option, ...]
    refusal: SapperError | None
    plans: int
    """Looked at."""


def target_of(cluster: Cluster, group: Group) -> Target:
    """The chips of one group of a mixed cluster."""
    return Target(name=group.name, chip=group.chip, count=group.chips, group=group, power_price=cluster.power_price, pue=cluster.pue)


def offer(question: ServeQuestion, classes: Sequence[Class], *, slo: Slo, cluster: Cluster, group: Group, parts: bool) -> Offer:
    """The replicas of one group: for each class the plans with the best steady states, simulated.

    Args:
        question: Model, dtypes and engine; its traffic is not used.
        classes: Of requests.
        slo: What must be kept.
        cluster: With the site's power price.
        group: Whose chips.
        parts: Whether workers that only read prompts or only decode are offered too.
    """
    target = target_of(cluster, group)
    engines: dict[str, Engine] = {}
    refusal: SapperError | None = None
    looked = 0
    for one in classes:
        asked = replace(question, traffic=one.traffic)
        try:
            held, plans = engines_of(asked, target)
            looked = max(looked, plans)
            for found in _best(asked, slo, held):
                engines.setdefault(_key(found.engine), found.engine)
        except SapperError as error:
            refusal = refusal or error
    options = [option for engine in engines.values() if (option := _whole(question, slo, classes, group, engine)) is not None]
    if parts:
        options += _parts(slo, classes, group, engines)
    return Offer(group=group, options=tuple(options), refusal=refusal if not options else None, plans=looked)


def _best(asked: ServeQuestion, slo: Slo, held: Sequence[Engine]) -> list[Bounded]:
    """The best plans by their steady state, each set of degrees once."""
    seen: set[tuple[object, ...]] = set()
    kept = []
    for one in bounded(asked, slo, held):
        plan = one.engine.plan
        degrees = (one.engine.job.weights_dtype, plan.tp, plan.pp, plan.attention_dp, plan.ep)
        if degrees not in seen:
            seen.add(degrees)
            kept.append(one)
        if len(kept) == KEPT:
            break
    return kept


def _key(engine: Engine) -> str:
    return f"{engine.job.weights_dtype} {describe(engine.plan)}"


def _whole(question: ServeQuestion, slo: Slo, classes: Sequence[Class], group: Group, engine: Engine) -> Option | None:
    """A replica that reads prompts and decodes, by simulation at likely, slow and fast times."""
    deployment = Deployment(engine=engine, speculation=question.speculation, balancer=question.balancer)
    rows: list[list[float]] = []
    for sign in (0.0, 1.0, -1.0):
        factors = ends_of(engine, sign)
        row = []
        for at, one in enumerate(classes):
            clock = Clock(engine, decode_factor=factors.decode, prefill_factor=factors.prefill, speculation=question.speculation)
            most = 0.0
            if one.longest <= _longest(engine) and (not rows or rows[0][at] > 0):
                most = limits.bound(clock, slo, prompt=one.traffic.prompt.tokens, answer=one.traffic.answer.tokens).rate_per_s
            row.append(limits.highest_rate(deployment, one.traffic, slo, most_per_s=most, factors=factors) if most > 0 else 0.0)
        rows.append(row)
        if not any(row) and not sign:
            return None
    likely, slow, fast = rows
    return Option(
        group=group.name,
        role="all",
        engine=engine,
        rates_per_s=tuple(likely),
        slow_per_s=tuple(min(pair) for pair in zip(likely, slow, strict=True)),
        fast_per_s=tuple(max(pair) for pair in zip(likely, fast, strict=True)),
    )


def _longest(engine: Engine) -> float:
    """Tokens of the longest request that a replica's cache holds."""
    each = sum(layer.token_bytes for layer in engine.times.layers)
    return 0.98 * (engine.memory.cache_bytes - engine.memory.sequence_bytes) / each if each else float("inf")


def _parts(slo: Slo, classes: Sequence[Class], group: Group, engines: dict[str, Engine]) -> list[Option]:
    """The best worker of the group that only reads prompts, and the best that only decodes, by steady states."""
    found: list[Option] = []
    for role in PARTS:
        best: Option | None = None
        for engine in engines.values():
            rows = [tuple(_part_rate(engine, slo, one, role, sign) for one in classes) for sign in (0.0, 1.0, -1.0)]
            one = Option(group=group.name, role=role, engine=engine, rates_per_s=rows[0], slow_per_s=rows[1], fast_per_s=rows[2])
            if any(rows[0]) and (best is None or sum(rows[0]) / one.chips > sum(best.rates_per_s) / best.chips):
                best = one
        found += [best] if best is not None else []
    return found


def _part_rate(engine: Engine, slo: Slo, one: Class, role: str, sign: float) -> float:
    if one.longest > _longest(engine):
        return 0.0
    factors = ends_of(engine, sign)
    clock = Clock(engine, decode_factor=factors.decode, prefill_factor=factors.prefill)
    prompt, answer = one.traffic.prompt.tokens, one.traffic.answer.tokens
    if role == "prefill":
        state = fluid.prefill_only(clock, prompt=prompt)
        kept = slo.ttft_s is None or state.ttft_s <= PROMPT_SHARE * slo.ttft_s
        return PROMPT_LOAD * state.rate_per_s * clock.ranks if kept else 0.0
    return DECODE_LOAD * limits.bound(clock, slo, prompt=prompt, answer=answer, prompts=False).rate_per_s


def transfer(cluster: Cluster, *, prefill: Option, decode: Option) -> Transfer | None:
    """The way of a cache from a prefill worker of one group to a decode worker of another: the trunk between the groups, of which
    each chip of a worker has its part; None where nobody states its bandwidth."""
    for link in cluster.links:
        if {link.from_group, link.to_group} == {prefill.group, decode.group} and link.bandwidth_bytes_per_s.number:
            groups = {group.name: group for group in cluster.groups}
            chips = max(prefill.chips, groups[prefill.group].chips)
            return Transfer(bandwidth_bytes_per_s=link.bandwidth_bytes_per_s.number / chips, latency_s=link.latency_s.number or 0.0)
    return None
