"""Events: a stream of requests through a placement, batch by batch; the judge of what the search proposes.

The rules are those of Helix's simulator (ASPLOS 2025, section 6.2), so that both can be held against each other: a request takes
one way through the nodes for all its tokens, chosen link by link by an interleaved weighted round robin that passes over nodes
whose cache would be too full; a node computes what waits for it as one batch (few prompts, many decoding sequences), all its
layers in turn; a link sends token by token, in order. Where a placement lets requests in at the middle of a node's range, they
join its batch at their first layer.

What is simulated are batches, not layers: a node's batch is one event, and those who arrive in the meantime form the next.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from operator import itemgetter

import numpy as np

from sapper.mix.serve.estimate import FILL, NODE_FILL
from sapper.mix.serve.fleet import COORDINATOR, Fleet, Requests
from sapper.mix.serve.placement import Edge, Placement

LEAST_SHARE = 0.05
"""Links that take less of a node's requests are not used (Helix's scheduler, filter 3)."""
NEVER = float("inf")
_COMES, _WAKES, _ENDS = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Feed:
    """When requests come: a list of arrivals, so many users who ask again, or, by default, as many as the cache holds."""

    arrivals: tuple[tuple[float, int, int], ...] = ()
    """(second, prompt, answer)."""
    first: int = 20
    """Requests that are sent at the start, a tenth of a second apart; of a closed loop its users."""
    closed: bool = False
    running: bool = False
    """Begin with the cache full of requests that are somewhere in their answers, instead of with prompts."""
    fill: float = FILL
    """A new request is sent whenever a prompt or an answer is whole and the scarcest layer's cache is not fuller."""
    node_fill: float = NODE_FILL


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a simulation measured."""

    tokens_per_s: float
    """Decoded in the measured time."""
    requests: float
    """In flight at the end."""
    started: int
    refused: int
    """Requests that found no way with room."""
    busy: tuple[float, ...]
    """Share of the time in which each node computes."""
    batch: tuple[float, ...]
    """Decoding sequences of a batch of each node, in the mean."""


@dataclass(slots=True)
class _Request:
    prompt: int
    left: int
    """Tokens of the answer that are to come."""
    expected: int
    follows: dict[int, int]
    """Node -> next node."""
    enters: dict[int, int]
    """Node -> the first layer that it computes there."""
    reading: bool = True
    """The prompt is not yet computed."""
    context: int = 0


@dataclass(slots=True)
class _Node:
    first: int
    last: int
    decode_s: list[float]
    prompt_s: list[float]
    entry_s: float
    prompts: int
    sequences: int
    contexts: int
    room: float
    """Layer-tokens that are not set aside."""
    whole: float
    inbox: dict[int, deque[tuple[float, _Request]]] = field(default_factory=dict)
    reading: list[_Request] = field(default_factory=list)
    decoding: list[_Request] = field(default_factory=list)
    batch: list[_Request] = field(default_factory=list)
    entered: int = 0
    """Tokens that came since the last batch began."""
    whole_range: bool = True
    """No request ever enters at a later layer than the first."""
    busy: bool = False
    wakes_s: float = NEVER
    busy_s: float = 0.0
    batches: int = 0
    decoded: int = 0


def simulate(
    fleet: Fleet,
    placement: Placement,
    flows: Mapping[Edge, float],
    requests: Requests,
    *,
    feed: Feed | None = None,
    warm_s: float = 60.0,
    measured_s: float = 600.0,
    seed: int = 0,
) -> Outcome:
    """Tokens per second that ``placement`` decodes when its links are used in the shares ``flows``.

    Args:
        fleet: Nodes and links.
        placement: Layers by node.
        flows: Weights of the links; those that are not in it are not used.
        requests: Lengths that are drawn at random; unused where ``feed`` has arrivals.
        feed: When requests come.
        warm_s: Time before the measurement begins.
        measured_s: Its length.
        seed: Of the lengths.
    """
    run = _Run(fleet, placement, flows, requests, feed or Feed(), seed=seed)
    return run.measure(warm_s, warm_s + measured_s)


class _Run:
    """The state of one simulation; times are seconds since its start."""

    def __init__(
        self, fleet: Fleet, placement: Placement, flows: Mapping[Edge, float], requests: Requests, feed: Feed, *, seed: int
    ) -> None:
        self.requests, self.feed, self.layers = requests, feed, placement.layers
        self.draw = random.Random(seed)
        self.spans = placement.spans
        self.nodes = {node: _node(fleet, node, span) for node, span in enumerate(placement.spans) if span is not None}
        self.links = _links(fleet, flows)
        self.choices = _choices(flows)
        self.loads = {(source, target): 0.0 for source, ways in self.choices.items() for target, _ in ways}
        self.each = {(source, target): 1.0 / share for source, ways in self.choices.items() for target, share in ways}
        order = sorted(self.nodes)
        self.cover = np.zeros((placement.layers, len(order)))
        for at, node in enumerate(order):
            one = self.nodes[node]
            self.cover[one.first : one.last, at] = 1.0 / (one.last - one.first)
        self.order = order
        self.whole = self.cover @ np.array([self.nodes[node].whole for node in order])
        self.events: list[tuple[float, int, int, int, tuple[int, int]]] = []
        self.count = 0
        self.flying = self.started = self.refused = self.tokens = 0

    def measure(self, start_s: float, end_s: float) -> Outcome:
        """Run until ``end_s``; tokens count from ``start_s`` on."""
        self.start_s = start_s
        if self.feed.arrivals:
            for at_s, prompt, answer in self.feed.arrivals:
                self._push(at_s, _COMES, 0, (prompt, answer))
        elif self.feed.running:
            self._fill()
        else:
            for turn in range(self.feed.first):
                self._send(0.1 * turn)
        while self.events:
            now_s, kind, _, at, lengths = heappop(self.events)
            if now_s > end_s:
                break
            if kind == _COMES:
                self._admit(now_s, *lengths)
                continue
            node = self.nodes[at]
            if kind == _ENDS:
                self._finish(at, node, now_s)
            elif node.busy or now_s < node.wakes_s:
                continue
            self._begin(at, node, now_s)
        return Outcome(
            tokens_per_s=self.tokens / (end_s - start_s),
            requests=self.flying,
            started=self.started,
            refused=self.refused,
            busy=tuple(self.nodes[node].busy_s / end_s if node in self.nodes else 0.0 for node in range(len(self.spans))),
            batch=tuple(
                self.nodes[node].decoded / max(1, self.nodes[node].batches) if node in self.nodes else 0.0
                for node in range(len(self.spans))
            ),
        )

    def _push(self, at_s: float, kind: int, node: int, lengths: tuple[int, int] = (0, 0)) -> None:
        self.count += 1
        heappush(self.events, (at_s, kind, self.count, node, lengths))

    # requests

    def _send(self, at_s: float) -> None:
        pick = self.draw.randint(0, len(self.requests.prompts) - 1)
        self._push(at_s, _COMES, 0, (self.requests.prompts[pick], self.requests.answers[pick]))

    def _fill(self) -> None:
        """Requests in the midst of their answers, the long ones more often, as a running service holds them."""
        lengths = list(zip(self.requests.prompts, self.requests.answers, strict=True))
        most = max(self.requests.answers)
        while self._fullest() <= self.feed.fill and not self.refused:
            prompt, answer = self.draw.choice(lengths)
            if self.draw.random() * most < answer:
                self._admit(self.draw.random(), prompt, answer, done=int(answer * self.draw.random()))
        self.refused = 0

    def _admit(self, now_s: float, prompt: int, answer: int, *, done: int | None = None) -> None:
        """Find a way for a request and set its cache aside, or refuse it; with ``done`` so many tokens of its answer are there."""
        expected = int(prompt + self.requests.expected_answer)
        follows: dict[int, int] = {}
        enters: dict[int, int] = {}
        at, layer = COORDINATOR, 0
        while True:
            to = self._choose(at, prompt, expected)
            if to is None:
                self.refused += 1
                return
            follows[at] = to
            if to == COORDINATOR:
                break
            enters[to] = layer
            if layer != self.nodes[to].first:
                self.nodes[to].whole_range = False
            layer = self.nodes[to].last
            at = to
        self.started += 1
        self.flying += 1
        one = _Request(prompt=prompt, left=answer, expected=expected, follows=follows, enters=enters, context=prompt)
        for node, first in enters.items():
            self.nodes[node].room -= expected * (self.nodes[node].last - first)
        if done is not None:
            one.reading, one.left, one.context = False, answer - done, prompt + done
        self._deliver(now_s, COORDINATOR, follows[COORDINATOR], one, 1 if done is not None else prompt)

    def _choose(self, at: int, prompt: int, expected: int) -> int | None:
        """The next node: of those with room the one whose load, weighted by its share, will be least."""
        best, least = None, NEVER
        for to, share in self.choices[at]:
            if to != COORDINATOR:
                node = self.nodes[to]
                if node.room - expected * (node.last - node.first) < (1.0 - self.feed.node_fill) * node.whole or prompt >= len(
                    node.prompt_s
                ):
                    continue
            after = self.loads[at, to] + prompt / share
            if after < least:
                best, least = to, after
        if best is not None:
            self.loads[at, best] = least
        return best

    def _return(self, one: _Request, now_s: float) -> None:
        """A token of ``one`` is back at the coordinator."""
        whole = one.reading
        if one.reading:
            one.reading = False
        else:
            one.left -= 1
            one.context += 1
            if now_s >= self.start_s:
                self.tokens += 1
        if one.left <= 0:
            whole = True
            self.flying -= 1
            for node, first in one.enters.items():
                self.nodes[node].room += one.expected * (self.nodes[node].last - first)
        else:
            to = one.follows[COORDINATOR]
            self.loads[COORDINATOR, to] += self.each[COORDINATOR, to]
            self._deliver(now_s, COORDINATOR, to, one, 1)
        if whole and not self.feed.arrivals and (one.left <= 0 if self.feed.closed else self._fullest() <= self.feed.fill):
            self._send(now_s + 0.1)

    def _fullest(self) -> float:
        """Share of the scarcest layer's cache that is set aside."""
        room = self.cover @ np.array([self.nodes[node].room for node in self.order])
        return float(1.0 - (room / self.whole).min())

    # nodes and links

    def _deliver(self, now_s: float, source: int, target: int, one: _Request, tokens: int) -> None:
        link = self.links[source, target]
        begins_s = link[0] if link[0] > now_s else now_s
        link[0] = begins_s + link[1] * tokens
        arrives_s = link[0] + link[2]
        node = self.nodes[target]
        waiting = node.inbox.get(source)
        if waiting is None:
            waiting = node.inbox[source] = deque()
        waiting.append((arrives_s, one))
        if not node.busy and arrives_s < node.wakes_s:
            node.wakes_s = arrives_s
            self._push(arrives_s, _WAKES, target)

    def _begin(self, at: int, node: _Node, now_s: float) -> None:
        """Let ``node`` compute what has arrived, or sleep until something does."""
        node.wakes_s = NEVER
        for one in _arrived(node, now_s):
            if one.reading:
                node.reading.append(one)
                node.entered += one.prompt
            else:
                node.decoding.append(one)
                node.entered += 1
        if not node.decoding and not node.reading:
            node.wakes_s = min((waiting[0][0] for waiting in node.inbox.values() if waiting), default=NEVER)
            if node.wakes_s < NEVER:
                self._push(node.wakes_s, _WAKES, at)
            return
        decoding, node.decoding = _take(node.decoding, node.sequences, node.contexts)
        reading, node.reading = node.reading[: node.prompts], node.reading[node.prompts :]
        spent_s = _spent_s(at, node, decoding, reading)
        node.entered = 0
        node.batch = decoding + reading
        node.busy = True
        node.busy_s += spent_s
        node.batches += 1
        node.decoded += len(decoding)
        self._push(now_s + spent_s, _ENDS, at)

    def _finish(self, at: int, node: _Node, now_s: float) -> None:
        """Hand the batch of ``node`` on; :meth:`_deliver` is written out here, where most of the time goes."""
        node.busy = False
        batch, node.batch = node.batch, []
        nodes, links, loads, each = self.nodes, self.links, self.loads, self.each
        for one in batch:
            to = one.follows[at]
            edge = (at, to)
            link = links[edge]
            if one.reading:
                tokens = one.prompt
            else:
                tokens = 1
                loads[edge] += each[edge]
            if to == COORDINATOR:
                self._return(one, now_s + link[2])
                continue
            begins_s = link[0]
            link[0] = arrives_s = (begins_s if begins_s > now_s else now_s) + link[1] * tokens
            arrives_s += link[2]
            next_one = nodes[to]
            waiting = next_one.inbox.get(at)
            if waiting is None:
                next_one.inbox[at] = waiting = deque()
            waiting.append((arrives_s, one))
            if arrives_s < next_one.wakes_s and not next_one.busy:
                next_one.wakes_s = arrives_s
                self._push(arrives_s, _WAKES, to)


def _node(fleet: Fleet, node: int, span: tuple[int, int]) -> _Node:
    machine, held = fleet.machines[node], span[1] - span[0]
    room = machine.cache_tokens[held - 1]
    return _Node(
        first=span[0],
        last=span[1],
        decode_s=machine.decode_s.tolist(),
        prompt_s=machine.prompt_s.tolist(),
        entry_s=machine.entry_s,
        prompts=machine.prompts[held - 1],
        sequences=min(machine.sequences[held - 1], len(machine.decode_s) - 1),
        contexts=machine.contexts[held - 1] if machine.contexts else 2**62,
        room=room,
        whole=room,
    )


def _links(fleet: Fleet, flows: Mapping[Edge, float]) -> dict[Edge, list[float]]:
    """[free from, seconds for each token, latency] of each link that is used; a card's bandwidth is shared among a node's links as
    they are used."""
    sent = {edge: flow * fleet.size_bytes(*edge) for edge, flow in flows.items() if flow > 0}
    leaving: dict[int, float] = {}
    entering: dict[int, float] = {}
    for (source, target), size in sent.items():
        leaving[source] = leaving.get(source, 0.0) + size
        entering[target] = entering.get(target, 0.0) + size
    found = {}
    for (source, target), size in sent.items():
        card = fleet.nic_bytes_per_s * min(size / leaving[source], size / entering[target])
        rate = min(float(fleet.bandwidth_bytes_per_s[source, target]), card)
        found[source, target] = [0.0, fleet.size_bytes(source, target) / rate, float(fleet.latency_s[source, target])]
    return found


def _choices(flows: Mapping[Edge, float]) -> dict[int, list[tuple[int, float]]]:
    """The links of each node that are used, with their weights."""
    leaving: dict[int, list[tuple[int, float]]] = {}
    for (source, target), flow in flows.items():
        leaving.setdefault(source, []).append((target, flow))
    found = {}
    for source, ways in leaving.items():
        least = LEAST_SHARE * sum(flow for _, flow in ways)
        found[source] = [(target, flow) for target, flow in ways if flow > 0 and flow >= least]
    return found


def _arrived(node: _Node, now_s: float) -> list[_Request]:
    """Take what has arrived out of the inbox, in the order of arrival."""
    taken: list[tuple[float, _Request]] = []
    sources = 0
    for waiting in node.inbox.values():
        if waiting and waiting[0][0] <= now_s:
            sources += 1
            if waiting[-1][0] <= now_s:
                taken += waiting
                waiting.clear()
            else:
                while waiting[0][0] <= now_s:
                    taken.append(waiting.popleft())
    if sources > 1:
        taken.sort(key=_WHEN)
    return [one for _, one in taken]


_WHEN = itemgetter(0)


def _take(decoding: list[_Request], most: int, contexts: int) -> tuple[list[_Request], list[_Request]]:
    """(the batch, who waits on): in order, as many as the node takes."""
    if len(decoding) <= most and len(decoding) * 2 <= contexts // 1024:
        return decoding, []
    batch: list[_Request] = []
    rest: list[_Request] = []
    total = 0
    for one in decoding:
        if len(batch) < most and total + one.context <= contexts:
            batch.append(one)
            total += one.context
        else:
            rest.append(one)
    return batch, rest


def _spent_s(at: int, node: _Node, decoding: Sequence[_Request], reading: Sequence[_Request]) -> float:
    """Time of a batch: all layers alike, unless some enter later."""
    entry_s = node.entered * node.entry_s
    first = node.first
    if node.whole_range or not any(one.enters[at] != first for one in (*reading, *decoding)):
        tokens = sum(one.prompt for one in reading)
        return (node.last - first) * (node.decode_s[len(decoding)] + node.prompt_s[tokens]) + entry_s
    spent = entry_s
    for layer in range(first, node.last):
        sequences = sum(1 for one in decoding if one.enters[at] <= layer)
        tokens = sum(one.prompt for one in reading if one.enters[at] <= layer)
        spent += node.decode_s[sequences] + node.prompt_s[tokens]
    return spent
