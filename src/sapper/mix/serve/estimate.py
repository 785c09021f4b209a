"""Estimate: how many tokens per second a placement decodes, in the mean, without running it.

Requests in flight are bound by the cache; each gains a token per round through all layers. So

    tokens per second = requests in flight / time of a round        (Little's law)

and a placement is good when its scarcest layer has much room for cache *and* its rounds are short. A round is long for two
reasons: the depth (every node's batch is computed once, and waited for), and prompts. A prompt of some hundred tokens occupies a
node as long as a dozen decode batches; decoding requests that catch up with it wait, and go on *behind* it, so that on a single
chain of nodes all requests move at the speed of the prompts. Where layers stand on two nodes, the requests that take the other
one pass it. With v = 1 / (time of an undisturbed round), u = 1 / (time of a prompt's way), H prompts under way and h the time that
a request stays behind one prompt that it has reached,

    free time between two prompts  = 1 / (H (v - u)),
    speed                          = (free v + h u) / (free + h).

h follows the ways apart: who comes up to a prompt waits where both are on the same node or link, and then again with the
probability that both go on to the same node. A max-flow objective has neither the cache nor the rounds in it (on Helix's 24
nodes, +36% flow gave -4% decode).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sapper.mix.serve.fleet import COORDINATOR, Fleet, Requests
from sapper.mix.serve.placement import Edge, Placement
from sapper.predict.arrays import Floats

ROUNDS = 12
"""Of the fixed point over speed and batches; it is damped, and within a percent after 8."""
FILL = 0.8
"""Share of the scarcest layer's cache up to which requests are let in."""
NODE_FILL = 0.85
"""The same of a single node."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """The mean behaviour of a placement."""

    tokens_per_s: float
    """Decoded."""
    requests: float
    """In flight: what the cache holds."""
    round_s: float
    """Until a request has its next token."""
    quiet_s: float
    """The same without prompts."""
    prompt_s: float
    """Of a prompt, through all layers."""
    depth: float
    """Nodes that a request passes, in the mean."""
    scarcest: int
    """Layer whose cache is smallest."""


class Estimator:
    """What the estimates of many placements of one fleet share."""

    def __init__(self, fleet: Fleet, requests: Requests) -> None:
        self.fleet, self.requests = fleet, requests
        machines = fleet.machines
        most = max(len(machine.decode_s) for machine in machines)
        self.decode_s = np.stack([np.pad(machine.decode_s, (0, most - len(machine.decode_s)), mode="edge") for machine in machines])
        """Of one layer, N x batch."""
        prompt = requests.mean_prompt
        self.prompt_s = np.array([machine.prompt_s[min(round(prompt), len(machine.prompt_s) - 1)] for machine in machines])
        """Of one layer, length N."""
        self.entry_s = np.array([machine.entry_s * prompt for machine in machines])
        deepest = max(machine.most_layers for machine in machines)
        self.room = np.zeros((fleet.nodes, deepest + 1))
        """Tokens whose cache fits, N x layers held."""
        for node, machine in enumerate(machines):
            held = np.arange(1, machine.most_layers + 1)
            self.room[node, 1 : machine.most_layers + 1] = np.array(machine.cache_tokens) / held

    def guess(self, placement: Placement, flows: Mapping[Edge, float]) -> Guess:
        """The mean behaviour of ``placement`` when requests take links in the shares ``flows`` (1 in all).

        Every node of the placement must be on a way through all layers.
        """
        requests = self.requests
        ways = _Ways(self, placement, flows)
        held, scarcest = self.in_flight(placement)
        answer = max(requests.mean_answer, 1.0)
        met = requests.met_prompt / requests.mean_prompt
        quiet_s, batch_s = ways.quiet(held / 4.0, np.ones(len(ways.nodes)))
        speed, prompt_s = 0.5 * held / quiet_s, 1.0
        for _ in range(ROUNDS):
            quiet_s, batch_s = ways.quiet(speed, batch_s)
            prompt_s, behind_s = ways.prompt(batch_s)
            prompts = min(speed / answer * prompt_s, 0.9 * held)
            fast, slow = 1.0 / quiet_s, 1.0 / max(prompt_s * met, quiet_s * 1.0001)
            free_s = 1.0 / max(prompts * (fast - slow), 1e-9)
            behind_s *= met
            rounds_per_s = (free_s * fast + behind_s * slow) / (free_s + behind_s)
            speed = 0.5 * speed + 0.5 * min((held - prompts) * rounds_per_s, ways.most_per_s)
        return Guess(
            tokens_per_s=speed,
            requests=held,
            round_s=held / speed,
            quiet_s=quiet_s,
            prompt_s=prompt_s,
            depth=float(ways.part.sum()),
            scarcest=scarcest,
        )

    def in_flight(self, placement: Placement) -> tuple[float, int]:
        """(requests that the cache holds, the layer that is scarcest)."""
        room = np.zeros(placement.layers)
        for node, span in enumerate(placement.spans):
            if span is not None:
                room[span[0] : span[1]] += self.room[node, span[1] - span[0]]
        scarcest = int(room.argmin())
        return FILL * float(room[scarcest]) / self.requests.mean_held, scarcest


class _Ways:
    """A placement as arrays over its nodes (n of them, in the order in which requests pass them)."""

    def __init__(self, costs: Estimator, placement: Placement, flows: Mapping[Edge, float]) -> None:
        fleet, requests = costs.fleet, costs.requests
        spans = placement.spans
        order = sorted((span[0], node) for node, span in enumerate(spans) if span is not None and node in placement.used)
        self.nodes = np.array([node for _, node in order])
        place = {node: at for at, (_, node) in enumerate(order)}
        count = len(order)
        place[COORDINATOR] = count
        self.held = np.array([span[1] - span[0] for _, node in order if (span := spans[node]) is not None], float)
        edges = [edge for edge, flow in flows.items() if flow > 0]
        flow = np.array([flows[edge] for edge in edges])
        ends = np.array(edges)
        size = np.where((ends == COORDINATOR).any(axis=1), 0.0, fleet.activation_bytes) + fleet.token_bytes
        each = size / np.maximum(fleet.bandwidth_bytes_per_s[ends[:, 0], ends[:, 1]], 1e-9)
        latency = fleet.latency_s[ends[:, 0], ends[:, 1]]
        self.link_s = float(flow @ (latency + each))
        """A token's time on all links of a round, the coordinator's included."""
        tokens_each = 1.0 + requests.mean_prompt / max(requests.mean_answer, 1.0)
        self.most_per_s = 1.0 / max(float((flow * each).max()) * tokens_each, 1e-12)
        """Tokens per second at which the first link is full."""
        at = np.array([(place[source], place[target]) for source, target in edges])
        moved = np.zeros((count + 1, count + 1))
        moved[at[:, 0], at[:, 1]] = flow
        self.part = moved[:, :count].sum(axis=0)
        """Share of the requests that pass each node."""
        self.goes = moved[:count, :count] / np.maximum(moved[:count].sum(axis=1, keepdims=True), 1e-12)
        """Probability of going on from a node to another."""
        hop = np.zeros((count + 1, count + 1))
        hop[at[:, 0], at[:, 1]] = latency + each * requests.mean_prompt
        self.on_link_s = moved * hop
        """A prompt's time on each link, in the mean over all prompts."""
        self.moved, self.hop_s = moved, hop
        self.met_s = ((self.goes**2) * hop[:count, :count]).sum(axis=1)
        self.stay = np.linalg.inv(np.eye(count) - self.goes**2)
        """Two who leave a node together meet again: the expected visits of each node before they part."""
        self.prompt_each_s = self.held * costs.prompt_s[self.nodes] + costs.entry_s[self.nodes]
        self.decode_s = costs.decode_s
        self.busy = self.part * self.prompt_each_s / max(requests.mean_answer, 1.0)
        """Seconds of prompts on each node for each token of the whole service."""

    def quiet(self, tokens_per_s: float, batch_s: Floats) -> tuple[float, Floats]:
        """(time of a round without prompts, time of each node's batch) at a speed of the whole service; ``batch_s`` is the last
        guess of the latter."""
        arriving = tokens_per_s * self.part / np.maximum(0.1, 1.0 - tokens_per_s * self.busy)
        for _ in range(2):
            size = np.clip(arriving * batch_s, 1.0, self.decode_s.shape[1] - 2.0)
            low = size.astype(int)
            below, above = self.decode_s[self.nodes, low], self.decode_s[self.nodes, low + 1]
            batch_s = self.held * (below + (above - below) * (size - low))
        return self.link_s + 1.5 * float(self.part @ batch_s), batch_s

    def prompt(self, batch_s: Floats) -> tuple[float, float]:
        """(time of a prompt's way, time that a request stays behind a prompt that it has reached)."""
        each = self.prompt_each_s + batch_s
        stays = self.stay @ (each + self.met_s)
        way = self.part * each
        whole_s = float(way.sum() + self.on_link_s.sum())
        # who comes up to a prompt stays behind it only where both use the same node or link
        on_nodes = way * self.part @ (stays - 0.5 * each)
        on_links = self.on_link_s * self.moved * (0.5 * self.hop_s + np.append(stays, 0.0))
        return whole_s, float(on_nodes + on_links.sum()) / whole_s
