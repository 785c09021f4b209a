"""Fleets: the nodes of a mixed cluster as a :class:`~sapper.mix.serve.fleet.Fleet`, at the times that predict gives them.

A node is all chips of a node of the cluster that share the query heads evenly, as one tensor parallel group. The times of a layer
are the model's by its layers (embedding, head and the engine's fixed time are laid on all layers alike), the room for the cache
is what weights of k layers leave of the chips' memory.
"""

from __future__ import annotations

import math

import numpy as np

from sapper.clusters.cluster import Cluster, Group
from sapper.errors import BadPlan
from sapper.mix.serve.fleet import COORDINATOR, Fleet, Machine, Requests
from sapper.predict.engine import unknown_links
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.price import Priced, price_many
from sapper.predict.serve.traffic import Traffic, draw

DRAWN = 4000
"""Requests that are drawn of the lengths that a user describes."""
MOST_SEQUENCES = 512
"""Decoding sequences of the largest batch."""
MOST_NODES = 256
LOCAL_BYTES_PER_S = 1e9
"""Of the coordinator's links, which carry tokens only."""


def requests_of(traffic: Traffic) -> Requests:
    """Lengths as the traffic draws them; the mean answer is what a scheduler expects."""
    drawn = draw(traffic, DRAWN)
    prompts = tuple(int(tokens) for tokens in drawn.input_tokens)
    answers = tuple(max(1, int(tokens)) for tokens in drawn.output_tokens)
    return Requests(prompts=prompts, answers=answers, expected_answer=float(np.mean(answers)))


def fleet_of(job: ServeJob, cluster: Cluster, requests: Requests) -> Fleet:
    """The nodes of ``cluster``, serving ``job``.

    Raises:
        MissingFact: A peak, bandwidth, capacity or link that the catalogue or the file does not know.
        BadPlan: Too many nodes, or a node that holds not even one layer.
    """
    nodes = sum(group.nodes for group in cluster.groups)
    if nodes > MOST_NODES:
        raise BadPlan("SP-MIX-245", nodes=nodes, most=MOST_NODES)
    longest = max(requests.prompts)
    context = requests.mean_prompt + requests.mean_answer / 2
    known = {group.name: _machine(job, group, context=context, longest=longest, held=requests.mean_held) for group in cluster.groups}
    if not any(machine.most_layers for machine in known.values()):
        raise BadPlan("SP-MIX-246", layers=job.model.layers, groups=", ".join(known))
    groups = [group for group in cluster.groups for _ in range(group.nodes)]
    latency_s, bandwidth = _links(cluster, groups)
    names = tuple(f"{group.name}-{number}" for group in cluster.groups for number in range(group.nodes))
    return Fleet(
        model=job.model.name,
        layers=job.model.layers,
        machines=tuple(known[group.name] for group in groups),
        names=names,
        latency_s=latency_s,
        bandwidth_bytes_per_s=bandwidth,
        activation_bytes=2.0 * job.model.hidden,
        token_bytes=4.0,
        sources=tuple(machine.source for machine in known.values()),
    )


def _machine(job: ServeJob, group: Group, *, context: float, longest: int, held: float) -> Machine:
    tp = next(tp for tp in range(group.chips_per_node, 0, -1) if not job.model.heads or job.model.heads % tp == 0)
    plan = ServePlan(tp=tp, max_batched_tokens=max(longest, MOST_SEQUENCES), max_sequences=MOST_SEQUENCES)
    one: Priced = price_many(job, group, [plan])[0]
    layers = job.model.layers
    sizes = np.arange(MOST_SEQUENCES + 1, dtype=float)
    decode_s = one.times.decode_s(sizes, np.full(len(sizes), context)) / layers
    decode_s[0] = 0.0
    tokens = np.arange(longest + 1, dtype=float)
    prompt_s = one.times.prefill_s(tokens) / layers
    prompt_s[0] = 0.0
    each = sum(layer.token_bytes for layer in one.times.layers) / layers
    weights = one.memory.weights_bytes / layers
    room = one.memory.capacity_bytes - one.memory.workspace_bytes
    most = min(layers, max(0, math.floor(room / (weights + each * held))))
    return Machine(
        name=group.name,
        decode_s=decode_s,
        prompt_s=prompt_s,
        cache_tokens=tuple((room - weights * k) / max(each, 1e-9) for k in range(1, most + 1)),
        prompts=(1,) * most,
        sequences=(MOST_SEQUENCES,) * most,
        source=f"{group.name}: {group.chip.id}, tp={tp}, as `sapper predict serve` prices it",
        relative_sd=max(one.decode_sd, one.prefill_sd),
    )


def _links(cluster: Cluster, groups: list[Group]) -> tuple[np.ndarray, np.ndarray]:
    """(latency, bandwidth) between all nodes and the coordinator."""
    count = len(groups)
    latency_s, bandwidth = np.full((count + 1, count + 1), np.inf), np.zeros((count + 1, count + 1))
    for at, mine in enumerate(groups):
        for to, other in enumerate(groups):
            if at != to:
                latency_s[at, to], bandwidth[at, to] = _between(cluster, mine, other)
    known = latency_s[:-1, :-1][np.isfinite(latency_s[:-1, :-1])]
    latency_s[COORDINATOR, :-1] = latency_s[:-1, COORDINATOR] = float(known.max()) if len(known) else 0.0
    bandwidth[COORDINATOR, :-1] = bandwidth[:-1, COORDINATOR] = LOCAL_BYTES_PER_S
    return latency_s, bandwidth


def _between(cluster: Cluster, mine: Group, other: Group) -> tuple[float, float]:
    """(latency, bandwidth) of one node of ``mine`` to one of ``other``; (infinite, 0) where they cannot reach each other."""
    if mine.name == other.name:
        link = mine.scale_out or mine.scale_up
        if link is None or link.bandwidth_bytes_per_s.number is None:
            raise unknown_links([(mine.chip.id, "scale_out")])
        return link.latency_s.number or 0.0, link.bandwidth_bytes_per_s.number * mine.chips_per_node
    for trunk in cluster.links:
        if {trunk.from_group, trunk.to_group} == {mine.name, other.name} and trunk.bandwidth_bytes_per_s.number:
            return trunk.latency_s.number or 0.0, trunk.bandwidth_bytes_per_s.number / max(1, min(mine.nodes, other.nodes))
    return math.inf, 0.0
