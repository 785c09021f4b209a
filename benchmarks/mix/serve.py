"""Placement for serving against Helix (ASPLOS 2025), on its own clusters, profiles and request lengths.

Usage: python benchmarks/mix/serve.py HELIX [--time SECONDS] [--cluster NAME] [--out FOLDER] [--validate]

HELIX is a checkout of github.com/Thesys-lab/Helix-ASPLOS25 (Apache-2.0). Nothing of it is copied or executed; its request lengths are
pickled lists of integers, which are read by an unpickler that refuses everything else. With ``--out`` the placements are written in
Helix's formats (``ilp_sol.ini``, ``simulator_cluster.ini``), so that its own event simulator can run them. With ``--validate`` the
plans that Helix ships are run in our simulator, with the weights that networkx' maximum flow gives (as Helix takes them), and
compared with the figures that it publishes.
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path

from sapper.mix.serve import events, flow, helix
from sapper.mix.serve.estimate import Estimator
from sapper.mix.serve.fleet import COORDINATOR, Fleet, Requests
from sapper.mix.serve.place import place, route
from sapper.mix.serve.placement import Edge, Placement

CLUSTERS = {
    "24": ("single_cluster", "cluster24.ini", 252.1),
    "42": ("high_heterogeneity", "cluster42.ini", 645.6),
    "geo": ("distributed_clusters", "3cluster24.ini", 98.0),
}
"""Name -> (folder of artifact_evaluation, cluster file, decode tokens per second that Helix publishes for its plan, LLaMA-2 70B,
offline; ae_readme.md)."""
EXPECTED_ANSWER = 240.0
"""Tokens that Helix sets aside for an answer (``AVG_OUTPUT_LEN``, offline)."""


class Integers(pickle.Unpickler):
    """Reads lists of integers and nothing that runs code."""

    def find_class(self, module: str, name: str) -> object:
        """Refuse every class."""
        raise pickle.UnpicklingError(f"{module}.{name} is no list of integers")


def lengths(root: Path) -> Requests:
    """Prompts and answers of the Azure conversation trace, as Helix cuts it."""
    folder = root / "simulator" / "trace_generator" / "length_data"
    columns = []
    for name in ("azure_conv_input.pkl", "azure_conv_output.pkl"):
        with (folder / name).open("rb") as stream:
            columns.append(tuple(int(tokens) for tokens in Integers(stream).load()))
    return Requests(prompts=columns[0], answers=columns[1], expected_answer=EXPECTED_ANSWER)


def fleet_of(root: Path, name: str) -> tuple[Fleet, Path, Path]:
    """(fleet, folder of the cluster, its file of machines)."""
    folder, cluster, _ = CLUSTERS[name]
    base = root / "artifact_evaluation" / folder
    machines = base / "config" / "machine_profiles.ini"
    profiles = root / "simulator" / "model_manager" / "llama2_70b"
    return helix.read_fleet(base / "config" / cluster, machines=machines, profiles=profiles), base, machines


TYPICAL_LAYERS = {"A100": 8, "V100": 3, "L4": 4, "L4x2": 9, "T4": 3, "T4x2": 6, "T4x4": 12}
FULL_LAYERS = {"A100": 12, "V100": 4, "L4": 7, "L4x2": 14, "T4": 4, "T4x2": 9, "T4x4": 18}
FIRST_SPEED = {"A100": 80.0, "V100": 40.0, "L4": 20.0, "L4x2": 30.0, "T4": 12.5, "T4x2": 20.0, "T4x4": 30.0}
"""What Helix takes a machine to hold (the second where memory is short), and the speeds that its iteration begins with
(``model_manager/llama2_70b/llama2_70b.py``)."""
PROMPT, ANSWER, FILLED = 750, 240, 0.3


class Typical:
    """Tokens per second of a node as Helix takes them for its flow (``llama2_70b/helper.py`` and ``get_typical_token_throughput``): at
    the batch that its share of the cache and of a round would give it, found by ten rounds of iteration."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.kinds = {machine.name: machine for machine in fleet.machines}
        self.count = {name: len(nodes) for name, nodes in fleet.kinds().items()}
        short = sum(many * TYPICAL_LAYERS[name] for name, many in self.count.items()) < 1.2 * fleet.layers
        self.holds = FULL_LAYERS if short else TYPICAL_LAYERS
        self.speed = {name: FIRST_SPEED[name] for name in self.count}
        for _ in range(10):
            self.speed = {name: self._rate(name, self.holds[name]) * self.holds[name] for name in self.count}

    def __call__(self, node: int, held: int) -> float:
        """Of ``node`` with ``held`` layers."""
        return self._rate(self.fleet.machines[node].name, held)

    def _rate(self, name: str, held: int) -> float:
        machine = self.kinds[name]
        layers = sum(many * self.holds[kind] for kind, many in self.count.items())
        spent = sum(many * self.holds[kind] / self.speed[kind] for kind, many in self.count.items())
        own = held / self.speed[name]
        part = own / ((self.fleet.layers - held) * spent / layers + own)
        room = int(FILLED * machine.cache_tokens[held - 1] / held)
        prompts = room / (PROMPT + ANSWER) * part / ANSWER
        decoded = round(room / (PROMPT + ANSWER) * part)
        decode_s = machine.decode_s.copy()
        decode_s[1] /= helix.LONE
        if prompts > 1:
            return float((PROMPT + ANSWER) / (held * (machine.prompt_s[PROMPT] + decode_s[ANSWER])))
        read = round(prompts * PROMPT)
        whole_s = held * (machine.prompt_s[int(read / prompts)] + decode_s[decoded] / prompts)
        return float((read + decoded) / prompts / whole_s)


def shipped_weights(placement: Placement, costs: Estimator) -> dict[Edge, float]:
    """The weights of a maximum flow through ``placement``; Helix's own come from the same graph, and where several flows are largest
    they may differ."""
    import networkx

    fleet = costs.fleet
    graph = networkx.DiGraph()
    typical = Typical(fleet)
    for node, span in enumerate(placement.spans):
        if span is not None:
            graph.add_edge(f"{node} in", f"{node} out", capacity=typical(node, span[1] - span[0]))
    for (source, target), rate in flow.links_per_s(fleet, placement).items():
        start = "source" if source == COORDINATOR else f"{source} out"
        end = "sink" if target == COORDINATOR else f"{target} in"
        graph.add_edge(start, end, capacity=rate)
    _, found = networkx.maximum_flow(graph, "source", "sink")
    weights = {}
    for source, target in placement.edges:
        start = "source" if source == COORDINATOR else f"{source} out"
        end = "sink" if target == COORDINATOR else f"{target} in"
        if (value := found.get(start, {}).get(end, 0.0)) > 0:
            weights[source, target] = float(value)
    return weights


def validate(root: Path, name: str, requests: Requests) -> str:
    """Helix's plan in our simulator beside its published figure."""
    fleet, base, _ = fleet_of(root, name)
    plan = helix.read_placement(base / "layout_llama70b" / "ilp" / "ilp_sol.ini", fleet)
    costs = Estimator(fleet, requests)
    ran = events.simulate(fleet, plan, shipped_weights(plan, costs), requests)
    ours = route(costs, plan)
    assert ours is not None
    shared = events.simulate(fleet, ours.placement, ours.flows, requests)
    published = CLUSTERS[name][2]
    off = ran.tokens_per_s / published - 1
    return (
        f"{name}: Helix's plan, published {published:.1f}, ours {ran.tokens_per_s:.1f} ({off:+.1%}); with our shares of the links "
        f"{shared.tokens_per_s:.1f}; estimate {ours.guess.tokens_per_s:.1f}"
    )


def search(root: Path, name: str, requests: Requests, *, time_s: float, seed: int, out: Path | None) -> str:
    """Our plan in our simulator."""
    fleet, _, machines = fleet_of(root, name)
    begun = time.monotonic()
    found = place(fleet, requests, time_s=time_s, seed=seed, alone=False)
    if out is not None:
        target = out / name
        target.mkdir(parents=True, exist_ok=True)
        helix.write_solution(target / "ilp_sol.ini", found.best.placement)
        helix.write_cluster(target / "simulator_cluster.ini", found.best.placement, fleet=fleet, machines=machines, flows=found.best.flows)
    return (
        f"{name}: ours {found.outcome.tokens_per_s:.1f} tokens/s (estimate {found.best.guess.tokens_per_s:.1f}, bound "
        f"{found.bound_tokens_per_s:.0f}), {found.looked_at:,} placements, {found.elapsed_s:.1f} s of one core, "
        f"{time.monotonic() - begun:.1f} s by the clock; Helix published {CLUSTERS[name][2]:.1f}"
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="HELIX")
    parser.add_argument("--cluster", choices=[*CLUSTERS, "all"], default="all")
    parser.add_argument("--time", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--validate", action="store_true")
    options = parser.parse_args()
    requests = lengths(options.root)
    for name in CLUSTERS if options.cluster == "all" else (options.cluster,):
        if options.validate:
            print(validate(options.root, name, requests), flush=True)
        print(search(options.root, name, requests, time_s=options.time, seed=options.seed, out=options.out), flush=True)


if __name__ == "__main__":
    main()
