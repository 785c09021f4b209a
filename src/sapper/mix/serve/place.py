"""Place: which layers go on which node of a fixed set of unlike nodes, so that they decode most tokens per second.

Annealing over whole placements: each state is a set of bounds between layers and, for every node, two of them. A move shifts a
bound, puts a node elsewhere, exchanges two unlike nodes, or cuts a range in two; ways through the nodes follow from the bounds,
and the shares of the links from :func:`sapper.mix.serve.flow.shares`. States are judged by :mod:`sapper.mix.serve.estimate`; the
best that are unlike each other are then run by :mod:`sapper.mix.serve.events`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from sapper.errors import BadPlan
from sapper.evidence import Interval
from sapper.mix.serve import events, flow
from sapper.mix.serve.estimate import Estimator, Guess
from sapper.mix.serve.events import Feed, Outcome
from sapper.mix.serve.fleet import COORDINATOR, Fleet, Requests
from sapper.mix.serve.placement import Edge, Placement, Span, check, reachable
from sapper.predict.serve.predict import Z80

BATCH = 20
"""Decoding sequences of the batch at which a node's throughput is taken for the shares of the links."""
STARTS = 4
"""Annealing runs, each from a placement of its own."""
HOT, COLD = 0.05, 0.003
"""Temperatures as a share of the tokens per second: a loss of that size is taken with probability 1/e."""
FINALISTS = 8
"""Placements that are simulated for a tenth of the whole time, from requests in the midst of their answers."""
WHOLE = 3
"""Of them, the best, which are then simulated for the whole time."""
WARM_S, WHOLE_S = 60.0, 600.0
"""Simulated seconds, from the first prompts on, before the measurement and in it."""
VISITS_PER_S = 0.25e6
"""Tokens times nodes that the whole simulations may have for each second of the search. Where that is less than :data:`WHOLE_S` takes
(fast chips decode more in a second than can be simulated in one), they are shorter and begin in the midst as well."""
ALONE_PART = 0.1
"""Of the time, beside it, for each kind of node alone."""
ESTIMATE_PART = 0.55
"""Of the time, for annealing; the rest is for simulations."""


@dataclass(frozen=True, kw_only=True)
class Routed:
    """A placement with the shares of its links and what they promise."""

    placement: Placement
    flows: dict[Edge, float]
    guess: Guess


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What the search found."""

    best: Routed
    outcome: Outcome
    """Of its simulation."""
    runners: tuple[tuple[Routed, Outcome], ...]
    """Others that were simulated: the whole time, best first, then those that fell out after a short one."""
    bound_tokens_per_s: float | None
    """No placement decodes more: every node full of decode batches of the most efficient size, and nothing between them. None where the
    simulation itself decodes more, so that it bounds nothing."""
    alone: tuple[tuple[str, float], ...]
    """Tokens per second of each kind of node alone by simulation; 0 where it does not hold the model."""
    left_out: tuple[int, ...]
    """Nodes without layers."""
    looked_at: int
    simulated: int
    elapsed_s: float
    """Processor time of the search."""
    relative_sd: float = 0.0
    """Standard deviation of the logarithm of the tokens per second, from that of the times."""

    @property
    def interval(self) -> Interval:
        """Tokens per second with their 80% interval."""
        mid, factor = self.outcome.tokens_per_s, math.exp(Z80 * self.relative_sd)
        return Interval(mid=mid, low=mid / factor, high=mid * factor, unit="1/s", grade="derived")


def place(fleet: Fleet, requests: Requests, *, time_s: float = 25.0, seed: int = 0, feed: Feed | None = None, alone: bool = True) -> Placed:
    """The best placement found in ``time_s`` seconds of one processor.

    Raises:
        BadPlan: The nodes together do not hold the model's layers, or no way leads through them.
    """
    room = sum(machine.most_layers for machine in fleet.machines)
    if room < fleet.layers:
        raise BadPlan("SP-MIX-243", layers=fleet.layers, room=room, missing=fleet.layers - room, nodes=fleet.nodes)
    start = time.process_time()
    search = _Search(fleet, requests, random.Random(seed))
    pool: dict[tuple[Span | None, ...], Routed] = {}
    for turn in range(STARTS):
        until = start + ESTIMATE_PART * time_s * (turn + 1) / STARTS
        for found in search.anneal(until):
            pool[found.placement.spans] = found
    run = _runner(fleet, requests, feed, visits=time_s * VISITS_PER_S)
    ranked = _heats(_unlike(list(pool.values())), run, deadline=start + time_s)
    # leaving nodes out is a placement as well
    parts = _alone(search.costs, time_s=time_s, seed=seed, feed=feed) if alone else ()
    fewer = [(routed, outcome) for _, routed, outcome in parts if routed is not None and outcome is not None]
    if not ranked and not fewer:
        raise BadPlan("SP-MIX-244", layers=fleet.layers, nodes=fleet.nodes)
    ranked = [max([*ranked[:1], *fewer], key=lambda pair: pair[1].tokens_per_s), *ranked[1:]]
    best, outcome = ranked[0]
    return Placed(
        best=best,
        outcome=outcome,
        runners=tuple(ranked[1:]),
        bound_tokens_per_s=_holding(bound(fleet, requests), outcome),
        alone=tuple((name, 0.0 if run is None else run.tokens_per_s) for name, _, run in parts),
        left_out=tuple(node for node in range(fleet.nodes) if node not in best.placement.used),
        looked_at=search.looked_at,
        simulated=len(ranked),
        elapsed_s=time.process_time() - start,
        relative_sd=_spread(fleet, best.placement),
    )


def judge(fleet: Fleet, requests: Requests, *, placement: Placement, time_s: float = 25.0, seed: int = 0) -> Placed:
    """A placement that somebody else made, simulated as those of :func:`place` are.

    Raises:
        BadPlan: It cannot serve.
    """
    check(placement, fleet)
    start = time.process_time()
    routed = route(Estimator(fleet, requests), placement)
    if routed is None:
        raise BadPlan("SP-MIX-244", layers=fleet.layers, nodes=fleet.nodes)
    outcome = _runner(fleet, requests, None, visits=time_s * VISITS_PER_S, seed=seed)(routed, True)
    return Placed(
        best=routed,
        outcome=outcome,
        runners=(),
        bound_tokens_per_s=_holding(bound(fleet, requests), outcome),
        alone=(),
        left_out=tuple(node for node in range(fleet.nodes) if node not in routed.placement.used),
        looked_at=1,
        simulated=1,
        elapsed_s=time.process_time() - start,
        relative_sd=_spread(fleet, routed.placement),
    )


def _spread(fleet: Fleet, placement: Placement) -> float:
    """Standard deviation of the logarithm of the answer: that of the least known machine in use, since errors of one chip's times
    are common to all its nodes."""
    return max((fleet.machines[node].relative_sd for node in placement.used), default=0.0)


def route(costs: Estimator, placement: Placement) -> Routed | None:
    """``placement`` with the shares of its links, without the nodes that no request can pass; None where no way leads through it."""
    edges = flow.links_per_s(costs.fleet, placement)
    nodes = reachable(tuple(edges), forward=True) & reachable(tuple(edges), forward=False)
    if not nodes:
        return None
    edges = {edge: rate for edge, rate in edges.items() if all(node == COORDINATOR or node in nodes for node in edge)}
    spans = tuple(span if node in nodes else None for node, span in enumerate(placement.spans))
    rates = {node: throughput_per_s(costs, node, span) for node, span in enumerate(spans) if span is not None}
    flows = flow.shares(edges, rates)
    pruned = Placement(placement.layers, spans)
    return Routed(placement=pruned, flows=flows, guess=costs.guess(pruned, flows))


def throughput_per_s(costs: Estimator, node: int, span: Span) -> float:
    """Tokens per second of a node at a typical batch, each with its part of a prompt."""
    held = span[1] - span[0]
    batch = min(BATCH, costs.decode_s.shape[1] - 1)
    prompt = held * costs.prompt_s[node] + costs.entry_s[node]
    return float(1.0 / (held * costs.decode_s[node, batch] / batch + prompt / max(costs.requests.mean_answer, 1.0)))


def bound(fleet: Fleet, requests: Requests) -> float:
    """Tokens per second that no placement exceeds: a token passes L layers somewhere, each at the best batch of its node, and drags
    its part of a prompt along."""
    total = 0.0
    for machine in fleet.machines:
        sizes = range(1, len(machine.decode_s))
        decode = min(float(machine.decode_s[size]) / size for size in sizes)
        prompt = min(float(machine.prompt_s[size]) / size for size in range(1, len(machine.prompt_s)))
        total += 1.0 / (decode + prompt * requests.mean_prompt / max(requests.mean_answer, 1.0))
    return total / fleet.layers


def _holding(limit: float, outcome: Outcome) -> float | None:
    return limit if outcome.tokens_per_s <= limit else None


class _Search:
    """Annealing with its random numbers and counts."""

    def __init__(self, fleet: Fleet, requests: Requests, draw: random.Random) -> None:
        self.fleet, self.draw = fleet, draw
        self.costs = Estimator(fleet, requests)
        inner = fleet.latency_s[:-1, :-1]
        known = inner[np.isfinite(inner)]
        self.sited = bool(len(known) and known.max() > 1.5 * known.min())
        """Like nodes differ by where they stand: links are not all alike."""
        self.most = [machine.most_layers for machine in fleet.machines]
        self.kind = [machine.name for machine in fleet.machines]
        self.looked_at = 0

    def anneal(self, until: float) -> Iterator[Routed]:
        """One run until the processor's clock shows ``until``; yields each new best."""
        begun = time.process_time()
        now = self._first(until)
        if now is None:
            return
        best = now
        yield now
        while (clock := time.process_time()) < until:
            spans = self._moved(list(now.placement.spans))
            if spans is None:
                continue
            new = self._judge(spans)
            if new is None:
                continue
            heat = HOT * (COLD / HOT) ** ((clock - begun) / max(until - begun, 1e-9))
            change = new.guess.tokens_per_s / now.guess.tokens_per_s - 1.0
            if change >= 0 or self.draw.random() < math.exp(change / heat):
                now = new
                if now.guess.tokens_per_s > best.guess.tokens_per_s:
                    best = now
                    yield now
                elif now.guess.tokens_per_s > 0.98 * best.guess.tokens_per_s:
                    yield now

    def _judge(self, spans: list[Span | None]) -> Routed | None:
        self.looked_at += 1
        return route(self.costs, Placement(self.fleet.layers, tuple(spans)))

    def _first(self, until: float) -> Routed | None:
        """A placement to begin with: one chain through all layers, the other nodes beside it."""
        while time.process_time() < until:
            spans = self._chain()
            if spans is not None and (found := self._judge(spans)) is not None:
                return found
        return None

    def _chain(self) -> list[Span | None] | None:
        draw, layers = self.draw, self.fleet.layers
        fill = draw.uniform(0.55, 1.0)
        order = list(range(self.fleet.nodes))
        draw.shuffle(order)
        spans: list[Span | None] = [None] * self.fleet.nodes
        at = 0
        bounds = [0]
        while at < layers and order:
            node = order.pop()
            end = min(layers, at + max(1, round(fill * self.most[node])))
            spans[node] = (at, end)
            bounds.append(end)
            at = end
        if at < layers:
            return self._tight()
        for node in order:
            spans[node] = self._span(node, bounds)
        return spans

    def _tight(self) -> list[Span | None] | None:
        """All nodes as full as they can be, in a random order: for models that hardly fit."""
        order = list(range(self.fleet.nodes))
        self.draw.shuffle(order)
        spans: list[Span | None] = [None] * self.fleet.nodes
        at = 0
        for node in order:
            if at < self.fleet.layers:
                spans[node] = (at, min(self.fleet.layers, at + self.most[node]))
                at = min(self.fleet.layers, at + self.most[node])
        return spans if at == self.fleet.layers else None

    def _span(self, node: int, bounds: list[int]) -> Span | None:
        """Two of ``bounds`` between which ``node`` holds all layers."""
        first = self.draw.choice(sorted(set(bounds))[:-1])
        ends = [end for end in sorted(set(bounds)) if first < end <= first + self.most[node]]
        return (first, self.draw.choice(ends)) if ends else None

    def _moved(self, spans: list[Span | None]) -> list[Span | None] | None:
        """A neighbour of ``spans``, or None where the move drawn leads nowhere."""
        moves: tuple[tuple[float, Callable[[list[Span | None]], list[Span | None] | None]], ...] = (
            (0.35, self._shift),
            (0.70, self._elsewhere),
            (0.88, self._exchange),
            (1.0, self._cut),
        )
        drawn = self.draw.random()
        move = next(move for most, move in moves if drawn < most)
        moved = move(spans)
        if moved is None or any(span is not None and not 0 < span[1] - span[0] <= self.most[node] for node, span in enumerate(moved)):
            return None
        return moved

    def _bounds(self, spans: list[Span | None]) -> list[int]:
        return sorted({0, self.fleet.layers, *(end for span in spans if span is not None for end in span)})

    def _shift(self, spans: list[Span | None]) -> list[Span | None] | None:
        bounds = self._bounds(spans)[1:-1]
        if not bounds:
            return None
        old = self.draw.choice(bounds)
        new = old + self.draw.choice((-2, -1, -1, 1, 1, 2))
        if not 0 < new < self.fleet.layers:
            return None
        return [None if span is None else (new if span[0] == old else span[0], new if span[1] == old else span[1]) for span in spans]

    def _elsewhere(self, spans: list[Span | None]) -> list[Span | None] | None:
        node = self.draw.randrange(len(spans))
        spans[node] = self._span(node, self._bounds(spans))
        return spans

    def _exchange(self, spans: list[Span | None]) -> list[Span | None] | None:
        one, other = self.draw.randrange(len(spans)), self.draw.randrange(len(spans))
        if self.kind[one] == self.kind[other] and not self.sited:
            return None
        spans[one], spans[other] = spans[other], spans[one]
        return spans

    def _cut(self, spans: list[Span | None]) -> list[Span | None] | None:
        """Cut a node's range in two; another node takes the second half."""
        node, other = self.draw.randrange(len(spans)), self.draw.randrange(len(spans))
        span = spans[node]
        if span is None or node == other or span[1] - span[0] < 2:
            return None
        at = self.draw.randint(span[0] + 1, span[1] - 1)
        spans[node] = (span[0], at)
        spans[other] = (at, span[1])
        return spans


def _unlike(found: list[Routed]) -> list[Routed]:
    """The best by their estimate, of placements that are nearly alike only the best."""
    kept: list[Routed] = []
    for one in sorted(found, key=lambda routed: -routed.guess.tokens_per_s):
        if all(_distance(one.placement, other.placement) > 2 for other in kept):
            kept.append(one)
        if len(kept) == FINALISTS:
            break
    return kept


def _distance(one: Placement, other: Placement) -> int:
    """Nodes that hold other layers."""
    return sum(mine != theirs for mine, theirs in zip(one.spans, other.spans, strict=True))


Runner = Callable[[Routed, bool], Outcome]


def _runner(fleet: Fleet, requests: Requests, feed: Feed | None, *, visits: float, seed: int = 0) -> Runner:
    midst = replace(feed or Feed(), running=True)

    def run(routed: Routed, whole: bool) -> Outcome:
        guess = routed.guess
        measured_s = min(WHOLE_S, visits / (guess.tokens_per_s * guess.depth))
        first = whole and measured_s == WHOLE_S
        return events.simulate(
            fleet,
            routed.placement,
            routed.flows,
            requests,
            feed=feed if first else midst,
            warm_s=WARM_S if first else max(0.05 * measured_s, 2.0 * guess.round_s),
            measured_s=measured_s if whole else 0.1 * measured_s,
            seed=seed,
        )

    return run


def _heats(pool: list[Routed], run: Runner, *, deadline: float) -> list[tuple[Routed, Outcome]]:
    """Simulate all for a short time and the best for the whole; best first. When the time is up, those that were not run stay out;
    one always is."""
    heat: list[tuple[Routed, Outcome]] = []
    for one in pool:
        if heat and time.process_time() > deadline:
            break
        heat.append((one, run(one, False)))
    heat.sort(key=lambda pair: -pair[1].tokens_per_s)
    whole: list[tuple[Routed, Outcome]] = []
    for one, _ in heat[:WHOLE]:
        if whole and time.process_time() > deadline:
            break
        whole.append((one, run(one, True)))
    whole.sort(key=lambda pair: -pair[1].tokens_per_s)
    return whole + heat[len(whole) :]


def _alone(costs: Estimator, *, time_s: float, seed: int, feed: Feed | None) -> tuple[tuple[str, Routed | None, Outcome | None], ...]:
    """What each kind of node gives without the others, by a short search of its own, as a placement of the whole fleet."""
    fleet = costs.fleet
    found: list[tuple[str, Routed | None, Outcome | None]] = []
    kinds = fleet.kinds()
    for name, nodes in kinds.items():
        if len(kinds) == 1:
            continue
        try:
            part = place(_only(fleet, nodes), costs.requests, time_s=ALONE_PART * time_s, seed=seed, feed=feed, alone=False)
        except BadPlan:
            found.append((name, None, None))
            continue
        spans: list[Span | None] = [None] * fleet.nodes
        busy, batch = [0.0] * fleet.nodes, [0.0] * fleet.nodes
        for at, node in enumerate(nodes):
            spans[node] = part.best.placement.spans[at]
            busy[node], batch[node] = part.outcome.busy[at], part.outcome.batch[at]
        outcome = replace(part.outcome, busy=tuple(busy), batch=tuple(batch))
        found.append((name, route(costs, Placement(fleet.layers, tuple(spans))), outcome))
    return tuple(found)


def _only(fleet: Fleet, nodes: list[int]) -> Fleet:
    """The fleet without all other nodes."""
    index = [*nodes, fleet.nodes]
    return replace(
        fleet,
        machines=tuple(fleet.machines[node] for node in nodes),
        names=tuple(fleet.names[node] for node in nodes),
        latency_s=fleet.latency_s[index][:, index],
        bandwidth_bytes_per_s=fleet.bandwidth_bytes_per_s[index][:, index],
    )
