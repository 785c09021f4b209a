"""Choose: how many replicas of which options carry all classes of requests within the SLO, at the least cost.

With n_o replicas of option o, x_co requests per second of class c on it, and r_co what one replica carries of the class alone,

    min  sum_o cost_o n_o
    sum over options and pairs of x_co = rate_c                          for every class c
    sum_c x_co / r_co <= n_o                                             for every option o
    sum over a group's options of chips_o n_o <= chips of the group

where a pair is a worker that reads prompts and one, perhaps of another group, that decodes: x of a pair loads both. That the
loads of classes on one replica add up is Melange's model (arXiv:2404.14527, section 5); what is chosen is simulated as it is mixed,
and where the mixture breaks the SLO the option is held to be weaker and the program is solved again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sapper.clusters.cluster import Cluster
from sapper.errors import BadPlan, SapperError
from sapper.evidence import Interval
from sapper.evidence.fact import Grade
from sapper.mix.serve import milp
from sapper.mix.serve.options import Offer, Option, offer, transfer
from sapper.mix.serve.prices import Weights
from sapper.mix.serve.traffic import Class, together
from sapper.predict.serve.deployment import Deployment
from sapper.predict.serve.measure import measure
from sapper.predict.serve.predict import meets
from sapper.predict.serve.question import ServeQuestion
from sapper.predict.serve.simulate import simulate
from sapper.predict.serve.slo import Slo

ROUNDS = 5
"""Of simulating what was chosen and solving again."""
WEAKER = 0.93
"""What an option whose mixture breaks the SLO is held to carry, of what it did."""
Pair = tuple[int, int]
"""(option that reads prompts, option that decodes)."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Replicas of one option and what they carry."""

    option: Option
    replicas: int
    shares: tuple[tuple[str, float], ...]
    """(class, requests per second)."""
    load: float
    """Part of what the replicas carry that is asked of them."""
    partner: str = ""
    """Of a worker: the group whose workers do the other part."""
    kept: bool | None = None
    """Whether the simulated mixture keeps the SLO; None where it was not simulated."""

    @property
    def chips(self) -> int:
        """Of all replicas."""
        return self.replicas * self.option.chips


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A set of replicas that carries the load."""

    chosen: tuple[Chosen, ...]
    value: float
    """Of what is minimised, in the weights' unit."""
    bound: float
    """No choice of these options is below it."""
    gap: float
    solver: str

    @property
    def chips(self) -> int:
        """Of all replicas."""
        return sum(one.chips for one in self.chosen)


@dataclass(frozen=True, kw_only=True)
class Alone:
    """One group without the others."""

    group: str
    value: float | None
    """None: it does not carry the load at any number of chips, or has no price."""
    chips: int | None
    have: int
    reason: SapperError | None = None

    @property
    def enough(self) -> bool:
        """Whether the group has the chips."""
        return self.chips is not None and self.chips <= self.have


@dataclass(frozen=True, kw_only=True)
class ServeMix:
    """The answer."""

    best: Choice
    interval: Interval
    """Of the value, over the slow and fast ends of all times and the spread of the weights."""
    alone: tuple[Alone, ...]
    offers: tuple[Offer, ...]
    weights: Weights
    classes: tuple[Class, ...]
    whole: Choice | None
    """The same without classes and without parts: each replica takes what comes; None where nothing differs."""
    without: tuple[str, ...] = field(default=())
    """Groups that nobody knows the weight of."""


def choose(question: ServeQuestion, classes: Sequence[Class], *, slo: Slo, cluster: Cluster, weights: Weights, parts: bool) -> ServeMix:
    """The replicas that carry ``classes`` on ``cluster`` at the least of ``weights``.

    Raises:
        BadPlan: No group keeps the SLO, or the chips do not suffice; the message says what is missing.
    """
    groups = [group for group in cluster.groups if group.name in weights.each]
    offers = tuple(offer(question, classes, slo=slo, cluster=cluster, group=group, parts=parts) for group in groups)
    options = [option for one in offers for option in one.options]
    for at, one in enumerate(classes):
        if not any(option.rates_per_s[at] > 0 for option in options):
            raise _none_keeps(offers, one, slo)
    have = {group.name: group.chips for group in groups}
    best = _simulated(question, slo, classes, cluster, weights, options, have)
    ends = [_ends(classes, cluster, weights, options, have, slow=slow) for slow in (True, False)]
    high = max([best.value, *(choice.value for choice in ends[:1] if choice is not None)])
    low = min([best.value, *(choice.value for choice in ends[1:] if choice is not None)])
    grade: Grade = "derived"
    interval = Interval(mid=best.value, low=low / weights.spread, high=high * weights.spread, unit=weights.unit, grade=grade)
    return ServeMix(
        best=best,
        interval=interval,
        offers=offers,
        weights=weights,
        classes=tuple(classes),
        alone=tuple(_alone(classes, cluster, weights, one, have) for one in offers),
        whole=_whole(classes, cluster, weights, options, have),
        without=weights.missing(cluster.groups),
    )


def _simulated(
    question: ServeQuestion,
    slo: Slo,
    classes: Sequence[Class],
    cluster: Cluster,
    weights: Weights,
    options: list[Option],
    have: Mapping[str, int],
) -> Choice:
    """The least choice whose mixtures keep the SLO when they are simulated."""
    held = list(options)
    choice = solve(classes, held, cluster=cluster, weights=weights, have=have)
    if choice is None:
        raise _too_few(classes, cluster, weights, options, have)
    for _ in range(ROUNDS):
        judged = [replace(one, kept=_keeps(question, slo, classes, one)) for one in choice.chosen]
        choice = replace(choice, chosen=tuple(judged))
        weak = [one.option for one in judged if one.kept is False]
        if not weak:
            break
        held = [_weaker(option) if any(option is one for one in weak) else option for option in held]
        choice = solve(classes, held, cluster=cluster, weights=weights, have=have) or choice
    return choice


def _keeps(question: ServeQuestion, slo: Slo, classes: Sequence[Class], one: Chosen) -> bool | None:
    if one.option.role != "all":
        return None  # their loads have a margin; a pair's pools are sized apart
    named = {each.name: each for each in classes}
    stream = together([(named[name], rate) for name, rate in one.shares], count=question.requests)
    deployment = Deployment(engine=one.option.engine, replicas=one.replicas, speculation=question.speculation, balancer=question.balancer)
    return meets(measure(simulate(deployment, stream, requests=question.requests), slo), slo)


def _weaker(option: Option) -> Option:
    return replace(option, rates_per_s=tuple(rate * WEAKER for rate in option.rates_per_s))


def solve(
    classes: Sequence[Class],
    options: Sequence[Option],
    *,
    cluster: Cluster,
    weights: Weights,
    have: Mapping[str, int] | None,
    merged: bool = False,
) -> Choice | None:
    """The least choice by the integer program; None where there is none.

    Args:
        classes: With their rates.
        options: That may be taken.
        cluster: For the links between groups.
        weights: Of chips.
        have: Chips of each group; None: as many as it takes.
        merged: Every replica takes the classes in the proportions in which they come.
    """
    alone = [at for at, option in enumerate(options) if option.role == "all"]
    pairs = _pairs(cluster, options)
    ways: list[tuple[int, ...]] = [(at,) for at in alone] + list(pairs)
    flows = [(at, way) for at in range(len(classes)) for way in ways if all(options[each].rates_per_s[at] > 0 for each in way)]
    count = len(options) + len(flows)
    rows, limits = [], []
    for at, one in enumerate(classes):
        row = np.zeros(count)
        row[[len(options) + place for place, (each, _) in enumerate(flows) if each == at]] = -1.0
        rows.append(row)
        limits.append(-one.rate_per_s)
    for at, option in enumerate(options):
        row = np.zeros(count)
        row[at] = -1.0
        for place, (each, way) in enumerate(flows):
            if at in way:
                row[len(options) + place] = 1.0 / option.rates_per_s[each]
        rows.append(row)
        limits.append(0.0)
    for name, chips in (have or {}).items():
        row = np.zeros(count)
        for at, option in enumerate(options):
            row[at] = float(option.chips) if option.group == name else 0.0
        rows.append(row)
        limits.append(float(chips))
    if merged:
        for way in ways:
            _proportional(rows, limits, classes, flows, way, first=len(options), count=count)
    cost = np.array([option.chips * weights.each[option.group] for option in options] + [0.0] * len(flows))
    program = milp.Program(
        cost=cost,
        at_most=np.array(rows),
        limits=np.array(limits),
        upper=np.full(count, np.inf),
        whole=np.array([True] * len(options) + [False] * len(flows)),
    )
    found = milp.solve(program)
    return None if found is None else _read(found, classes, options, flows)


def _proportional(
    rows: list[np.ndarray],
    limits: list[float],
    classes: Sequence[Class],
    flows: Sequence[tuple[int, tuple[int, ...]]],
    way: tuple[int, ...],
    *,
    first: int,
    count: int,
) -> None:
    """Rows that hold the classes on ``way`` in the proportions of their rates."""
    total = sum(one.rate_per_s for one in classes)
    mine = {each: first + place for place, (each, other) in enumerate(flows) if other == way}
    for each, place in mine.items():
        row = np.zeros(count)
        for other in mine.values():
            row[other] -= classes[each].rate_per_s / total
        row[place] += 1.0
        if len(mine) < len(classes):  # a class that the way cannot take: nothing goes there
            row[list(mine.values())] = 1.0
            rows.append(row)
            limits.append(0.0)
            return
        for sign in (1.0, -1.0):
            rows.append(sign * row)
            limits.append(0.0)


def _pairs(cluster: Cluster, options: Sequence[Option]) -> list[Pair]:
    return [
        (first, second)
        for first, one in enumerate(options)
        for second, other in enumerate(options)
        if one.role == "prefill"
        and other.role == "decode"
        and one.group != other.group
        and one.engine.job.weights_dtype == other.engine.job.weights_dtype
        and transfer(cluster, prefill=one, decode=other) is not None
    ]


def _read(
    found: milp.Solution, classes: Sequence[Class], options: Sequence[Option], flows: Sequence[tuple[int, tuple[int, ...]]]
) -> Choice:
    chosen = []
    for at, option in enumerate(options):
        replicas = round(float(found.values[at]))
        taken = [0.0] * len(classes)
        partner = ""
        for place, (each, way) in enumerate(flows):
            value = float(found.values[len(options) + place])
            if at in way and value > 1e-9:
                taken[each] += value
                partner = partner or next((options[other].group for other in way if other != at), "")
        if not replicas:
            continue
        load = sum(value / option.rates_per_s[each] for each, value in enumerate(taken) if value > 0)
        shares = tuple((one.name, value) for one, value in zip(classes, taken, strict=True) if value > 0)
        chosen.append(Chosen(option=option, replicas=replicas, shares=shares, load=load / replicas, partner=partner))
    return Choice(
        chosen=tuple(one for one in chosen if one.shares), value=found.cost, bound=found.bound, gap=found.gap, solver=found.solver
    )


def _ends(
    classes: Sequence[Class], cluster: Cluster, weights: Weights, options: Sequence[Option], have: Mapping[str, int], *, slow: bool
) -> Choice | None:
    """The choice if all times were at the slow or the fast end of their intervals; beyond the chips that are there if need be."""
    moved = [replace(option, rates_per_s=option.slow_per_s if slow else option.fast_per_s) for option in options]
    return solve(classes, moved, cluster=cluster, weights=weights, have=have) or solve(
        classes, moved, cluster=cluster, weights=weights, have=None
    )


def _alone(classes: Sequence[Class], cluster: Cluster, weights: Weights, one: Offer, have: Mapping[str, int]) -> Alone:
    name = one.group.name
    own = [option for option in one.options if option.role == "all"]
    choice = solve(classes, own, cluster=cluster, weights=weights, have=None) if own else None
    if choice is None:
        return Alone(group=name, value=None, chips=None, have=have[name], reason=one.refusal)
    return Alone(group=name, value=choice.value, chips=choice.chips, have=have[name])


def _whole(
    classes: Sequence[Class], cluster: Cluster, weights: Weights, options: Sequence[Option], have: Mapping[str, int]
) -> Choice | None:
    plain = [option for option in options if option.role == "all"]
    if len(classes) == 1 and len(plain) == len(options):
        return None
    return solve(classes, plain, cluster=cluster, weights=weights, have=have, merged=True)


def _none_keeps(offers: Sequence[Offer], one: Class, slo: Slo) -> SapperError:
    refused = next((each.refusal for each in offers if each.refusal is not None), None)
    if refused is not None and all(not each.options for each in offers):
        return refused
    return BadPlan("SP-MIX-268", where="--slo", name=one.name, slo=slo.text, groups=", ".join(each.group.name for each in offers))


def _too_few(classes: Sequence[Class], cluster: Cluster, weights: Weights, options: Sequence[Option], have: Mapping[str, int]) -> BadPlan:
    """How many chips the load takes, and how many there are."""
    free = solve(classes, options, cluster=cluster, weights=weights, have=None)
    need: dict[str, int] = {}
    for one in free.chosen if free is not None else ():
        need[one.option.group] = need.get(one.option.group, 0) + one.chips
    return BadPlan(
        "SP-MIX-269",
        where="--rate",
        rate=f"{sum(one.rate_per_s for one in classes):.4g}",
        need=", ".join(f"{chips} {name}" for name, chips in need.items()),
        have=", ".join(f"{chips} {name}" for name, chips in have.items()),
    )
