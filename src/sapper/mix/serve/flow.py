"""Flow: what a placement can carry at most, and the shares in which its links are used.

Every node is an edge of the flow graph whose capacity is its throughput in tokens per second, as in Helix (ASPLOS 2025, section
4.2); links and network cards limit what passes between nodes. The shares of the links are those that keep the fullest node as
empty as it can be and, where that leaves a choice, spread requests in proportion to what each way can carry: requests that part
do not wait for each other's prompts (:mod:`sapper.mix.serve.estimate`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from sapper.mix.serve.fleet import COORDINATOR, Fleet
from sapper.mix.serve.placement import Edge, Placement
from sapper.predict.arrays import Floats, Ints

MOST_ROUNDS = 4
"""Of evening out; the shares move by a few percent after the third."""
TINY = 1e-9


def links_per_s(fleet: Fleet, placement: Placement) -> dict[Edge, float]:
    """Tokens per second that each link of the placement can carry; links of no bandwidth are left out."""
    found: dict[Edge, float] = {}
    for source, target in placement.edges:
        rate = float(fleet.bandwidth_bytes_per_s[source, target]) / fleet.size_bytes(source, target)
        if rate > 0:
            found[source, target] = rate
    return found


def max_flow(edges: Mapping[Edge, float], node_per_s: Mapping[int, float]) -> tuple[float, dict[Edge, float]]:
    """Largest flow from the coordinator through the nodes and back, and its part on each link (Dinic's algorithm).

    Args:
        edges: Tokens per second by link.
        node_per_s: Tokens per second by node.
    """
    nodes = sorted(node_per_s)
    place = {node: 2 * at for at, node in enumerate(nodes)}
    source, sink = 2 * len(nodes), 2 * len(nodes) + 1
    graph = _Graph(2 * len(nodes) + 2)
    for node in nodes:
        graph.add(place[node], place[node] + 1, node_per_s[node])
    at: dict[Edge, int] = {}
    for (start, end), capacity in edges.items():
        if (start == COORDINATOR or start in place) and (end == COORDINATOR or end in place):
            tail = source if start == COORDINATOR else place[start] + 1
            head = sink if end == COORDINATOR else place[end]
            at[start, end] = graph.add(tail, head, capacity)
    value = graph.run(source, sink)
    return value, {edge: graph.flow(arc) for edge, arc in at.items()}


class _Graph:
    """Residual graph; arc 2i is an edge and 2i + 1 its reverse."""

    def __init__(self, nodes: int) -> None:
        self.heads: list[int] = []
        self.rest: list[float] = []
        self.full: list[float] = []
        self.leaving: list[list[int]] = [[] for _ in range(nodes)]

    def add(self, tail: int, head: int, capacity: float) -> int:
        arc = len(self.heads)
        self.heads += [head, tail]
        self.rest += [capacity, 0.0]
        self.full += [capacity, 0.0]
        self.leaving[tail].append(arc)
        self.leaving[head].append(arc + 1)
        return arc

    def flow(self, arc: int) -> float:
        return max(0.0, self.full[arc] - self.rest[arc])

    def run(self, source: int, sink: int) -> float:
        total = 0.0
        while (levels := self._levels(source, sink)) is not None:
            nexts = [0] * len(self.leaving)
            while (pushed := self._push(source, sink, float("inf"), levels, nexts)) > TINY:
                total += pushed
        return total

    def _levels(self, source: int, sink: int) -> list[int] | None:
        levels = [-1] * len(self.leaving)
        levels[source] = 0
        queue = deque([source])
        while queue:
            node = queue.popleft()
            for arc in self.leaving[node]:
                if self.rest[arc] > TINY and levels[self.heads[arc]] < 0:
                    levels[self.heads[arc]] = levels[node] + 1
                    queue.append(self.heads[arc])
        return levels if levels[sink] >= 0 else None

    def _push(self, node: int, sink: int, most: float, levels: list[int], nexts: list[int]) -> float:
        if node == sink:
            return most
        while nexts[node] < len(self.leaving[node]):
            arc = self.leaving[node][nexts[node]]
            head = self.heads[arc]
            if self.rest[arc] > TINY and levels[head] == levels[node] + 1:
                pushed = self._push(head, sink, min(most, self.rest[arc]), levels, nexts)
                if pushed > TINY:
                    self.rest[arc] -= pushed
                    self.rest[arc ^ 1] += pushed
                    return pushed
            nexts[node] += 1
        return 0.0


def shares(edges: Mapping[Edge, float], node_per_s: Mapping[int, float]) -> dict[Edge, float]:
    """Part of all requests that takes each link: 1 leaves the coordinator and 1 comes back.

    The flow of least sum of flow^2 / capacity, over nodes and links, is that of an electric network; raising the resistance of what
    is fullest, round by round, moves it towards the flow whose fullest node or link is as empty as it can be.

    Args:
        edges: Tokens per second by link, every node of which lies on a way from the coordinator and back.
        node_per_s: Tokens per second by node.
    """
    nodes = sorted({node for edge in edges for node in edge} - {COORDINATOR})
    place = {node: at for at, node in enumerate(nodes)}
    count = len(nodes)
    # poles: the entry of each node, the exit of each, and the two faces of the coordinator
    tails = [place[node] for node in nodes] + [2 * count if a == COORDINATOR else count + place[a] for a, _ in edges]
    heads = [count + place[node] for node in nodes] + [2 * count + 1 if b == COORDINATOR else place[b] for _, b in edges]
    capacity = np.array([max(node_per_s[node], TINY) for node in nodes] + [max(rate, TINY) for rate in edges.values()])
    flow = _even(2 * count + 2, np.array(tails), np.array(heads), capacity)
    return _conserved(dict(zip(edges, flow[count:].tolist(), strict=True)))


def _even(poles: int, tails: Ints, heads: Ints, capacity: Floats) -> Floats:
    """Current through each resistor when 1 enters at the last pole but one and leaves at the last."""
    rows = np.arange(len(capacity))
    incidence = np.zeros((len(capacity), poles))
    incidence[rows, tails], incidence[rows, heads] = 1.0, -1.0
    inner = incidence[:, :-1]  # the last pole is at potential 0
    injected = np.zeros(poles - 1)
    injected[-1] = 1.0
    conductance = capacity.copy()
    best, least = np.zeros(len(capacity)), np.inf
    for _ in range(MOST_ROUNDS):
        potential = np.linalg.solve((inner.T * conductance) @ inner, injected)
        through = np.maximum(conductance * (inner @ potential), 0.0)
        load = through / capacity
        worst = float(load.max())
        if worst < least * (1 - 1e-3):
            best, least = through, worst
        conductance = conductance / np.sqrt(np.maximum(load / worst, 0.05))
    return best


def _conserved(wished: Mapping[Edge, float]) -> dict[Edge, float]:
    """The flow that leaves every node in the proportions of ``wished``: currents against the order of the layers were cut to 0."""
    leaving: dict[int, list[tuple[int, float]]] = {}
    entering: dict[int, int] = {}
    for (source, target), flow in wished.items():
        leaving.setdefault(source, []).append((target, flow))
        entering[target] = entering.get(target, 0) + 1
    found: dict[Edge, float] = {}
    through = {COORDINATOR: 1.0}
    ready = [COORDINATOR]
    while ready:
        node = ready.pop()
        total = sum(flow for _, flow in leaving[node])
        for target, flow in leaving[node]:
            part = flow / total if total > 0 else 1.0 / len(leaving[node])
            found[node, target] = through[node] * part
            if target == COORDINATOR:
                continue
            through[target] = through.get(target, 0.0) + found[node, target]
            entering[target] -= 1
            if not entering[target]:
                ready.append(target)
    return found


def bottleneck_per_s(flows: Mapping[Edge, float], node_per_s: Mapping[int, float]) -> float:
    """Tokens per second at which the first node is full when requests take the links in the shares ``flows``."""
    through: dict[int, float] = {}
    for (_, target), flow in flows.items():
        if target != COORDINATOR:
            through[target] = through.get(target, 0.0) + flow
    return min((node_per_s[node] / flow for node, flow in through.items() if flow > TINY), default=0.0)
