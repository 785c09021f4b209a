"""Serving on unlike chips: flows, the event simulator, placements, the integer program and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sapper.clusters import parse_cluster
from sapper.errors import BadFile, BadPlan, BadValue
from sapper.mix.serve import choose, events, flow, helix, milp, placement, prices
from sapper.mix.serve.estimate import Estimator
from sapper.mix.serve.fleet import COORDINATOR, Fleet, Machine, Requests, table
from sapper.mix.serve.options import Option
from sapper.mix.serve.place import place, route
from sapper.mix.serve.placement import Placement
from sapper.mix.serve.prices import Weights
from sapper.mix.serve.traffic import Class, classes_of, parse_classes, together
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.traffic import Length, Traffic

FAST = Machine(
    name="fast",
    decode_s=table([(0, 0), (2, 0.02), (400, 0.06)]),
    prompt_s=table([(0, 0), (2000, 0.2)]),
    cache_tokens=(100e3, 90e3, 80e3, 70e3, 60e3, 50e3),
    prompts=(1,) * 6,
    sequences=(400,) * 6,
)
SLOW = replace(FAST, name="slow", decode_s=FAST.decode_s * 3, prompt_s=FAST.prompt_s * 5, cache_tokens=(45e3, 40e3, 35e3))
ALIKE = Requests(prompts=(700,), answers=(200,), expected_answer=200.0)


def fleet_of(*machines: Machine, layers: int = 6, latency_s: float = 1e-3) -> Fleet:
    count = len(machines) + 1
    return Fleet(
        model="toy",
        layers=layers,
        machines=machines,
        names=tuple(f"n{at}" for at in range(len(machines))),
        latency_s=np.full((count, count), latency_s),
        bandwidth_bytes_per_s=np.full((count, count), 1e9),
        activation_bytes=1000.0,
        token_bytes=2.0,
    )


# flow


def test_the_largest_flow_passes_the_narrowest_cut() -> None:
    edges = {(COORDINATOR, 0): 99.0, (0, 1): 99.0, (0, 2): 3.0, (1, COORDINATOR): 99.0, (2, COORDINATOR): 99.0}

    value, flows = flow.max_flow(edges, {0: 10.0, 1: 5.0, 2: 5.0})

    assert value == pytest.approx(8.0)
    assert flows[0, 1] == pytest.approx(5.0) and flows[0, 2] == pytest.approx(3.0)


def test_shares_conserve_requests_and_spare_the_weak_node() -> None:
    edges = dict.fromkeys([(COORDINATOR, 0), (COORDINATOR, 1), (0, 2), (1, 2), (2, COORDINATOR)], 1e6)

    shares = flow.shares(edges, {0: 30.0, 1: 10.0, 2: 100.0})

    assert shares[COORDINATOR, 0] + shares[COORDINATOR, 1] == pytest.approx(1.0)
    assert shares[2, COORDINATOR] == pytest.approx(1.0)
    assert shares[COORDINATOR, 0] == pytest.approx(0.75, abs=0.02)
    assert flow.bottleneck_per_s(shares, {0: 30.0, 1: 10.0, 2: 100.0}) == pytest.approx(40.0, rel=0.03)


# events


def test_one_user_on_one_node_waits_for_its_layers_and_two_hops() -> None:
    fleet = fleet_of(FAST)
    flows = {(COORDINATOR, 0): 1.0, (0, COORDINATOR): 1.0}

    outcome = events.simulate(
        fleet, Placement(6, ((0, 6),)), flows, ALIKE, feed=events.Feed(first=1, closed=True), warm_s=10.0, measured_s=100.0
    )

    token_s = 6 * float(FAST.decode_s[1]) + 2 * 1e-3
    prompt_s = 6 * float(FAST.prompt_s[700]) + 2 * 1e-3
    answer_s = 200 * token_s + prompt_s + 0.1  # the next request comes a tenth of a second later
    assert outcome.tokens_per_s == pytest.approx(200 / answer_s, rel=0.02)
    assert outcome.refused == 0


def test_no_node_holds_more_cache_than_it_has() -> None:
    fleet = fleet_of(FAST, SLOW, SLOW)
    routed = route(Estimator(fleet, ALIKE), Placement(6, ((0, 3), (3, 6), (3, 6))))
    assert routed is not None

    outcome = events.simulate(fleet, routed.placement, routed.flows, ALIKE, warm_s=20.0, measured_s=60.0)

    # the fuller side: 900 tokens are set aside for each request, up to 80% of the scarcest layer
    assert 0 < outcome.requests <= 0.8 * (80e3 / 3) / 900 + 1


def test_prompts_stop_a_single_file_but_not_two() -> None:
    """The estimate and the simulation agree on what max flow does not see: ways apart are worth more than cache."""
    fleet = fleet_of(*[SLOW] * 4)
    single = Placement(6, ((0, 2), (2, 4), (4, 5), (5, 6)))
    double = Placement(6, ((0, 3), (3, 6), (0, 3), (3, 6)))
    found = {}
    for name, one in (("single", single), ("double", double)):
        routed = route(Estimator(fleet, ALIKE), one)
        assert routed is not None
        run = events.simulate(fleet, routed.placement, routed.flows, ALIKE, feed=events.Feed(running=True), warm_s=10.0, measured_s=40.0)
        found[name] = (routed.guess.tokens_per_s / routed.guess.requests, run.tokens_per_s / run.requests)

    assert found["double"][0] > found["single"][0]
    assert found["double"][1] > found["single"][1]


def test_who_enters_in_the_middle_computes_less() -> None:
    fleet = fleet_of(FAST, FAST)
    flows = {(COORDINATOR, 0): 1.0, (0, 1): 1.0, (1, COORDINATOR): 1.0}
    overlap = Placement(6, ((0, 4), (2, 6)))  # the second node begins at layer 2, requests need it from 4 on

    outcome = events.simulate(fleet, overlap, flows, ALIKE, feed=events.Feed(first=1, closed=True), warm_s=5.0, measured_s=60.0)

    token_s = 6 * float(FAST.decode_s[1]) + 3 * 1e-3
    assert outcome.tokens_per_s == pytest.approx(1 / token_s, rel=0.15)


# placements


def test_a_placement_uses_unlike_nodes_and_keeps_the_edge_rule() -> None:
    fleet = fleet_of(FAST, FAST, SLOW, SLOW, SLOW, SLOW, layers=8)

    found = place(fleet, ALIKE, time_s=3.0, seed=1)  # on a busy core a second is too few placements now and then

    best = found.best.placement
    placement.check(best, fleet)
    for source, target in found.best.flows:
        if COORDINATOR not in (source, target):
            assert best.spans[source][1] == best.spans[target][0]  # type: ignore[index]
    assert found.outcome.tokens_per_s > 0
    assert found.bound_tokens_per_s is not None and found.outcome.tokens_per_s <= found.bound_tokens_per_s
    assert found.outcome.tokens_per_s > max(tokens for _, tokens in found.alone)


@pytest.mark.parametrize(("code", "machines", "layers"), [("SP-MIX-243", (SLOW, SLOW), 8)])
def test_a_model_that_does_not_fit_is_refused(code: str, machines: tuple[Machine, ...], layers: int) -> None:
    with pytest.raises(BadPlan) as caught:
        place(fleet_of(*machines, layers=layers), ALIKE, time_s=1.0)

    assert caught.value.code == code
    assert caught.value.values["missing"] == 2


def test_nodes_that_cannot_reach_each_other_have_no_placement() -> None:
    fleet = fleet_of(SLOW, SLOW, layers=6)
    cut = replace(fleet, bandwidth_bytes_per_s=np.zeros_like(fleet.bandwidth_bytes_per_s))

    with pytest.raises(BadPlan) as caught:
        place(cut, ALIKE, time_s=0.2)

    assert caught.value.code == "SP-MIX-244"


def test_a_group_that_no_other_reaches_serves_alone() -> None:
    fleet = fleet_of(FAST, SLOW, SLOW)
    cut = fleet.bandwidth_bytes_per_s.copy()
    cut[0, 1:3] = cut[1:3, 0] = 0.0

    found = place(replace(fleet, bandwidth_bytes_per_s=cut), ALIKE, time_s=0.5)

    assert found.best.placement.spans[0] == (0, 6) or found.left_out == (0,)
    assert found.outcome.tokens_per_s > 0


def test_a_placement_survives_its_file(tmp_path: Path) -> None:
    fleet = fleet_of(FAST, SLOW, SLOW)
    one = Placement(6, ((0, 3), (3, 6), (3, 6)))
    flows = {(COORDINATOR, 0): 1.0, (0, 1): 0.5, (0, 2): 0.5, (1, COORDINATOR): 0.5, (2, COORDINATOR): 0.5}

    placement.write(tmp_path / "p.json", one, fleet, flows=flows)

    assert placement.read(tmp_path / "p.json", fleet) == one
    with pytest.raises(BadPlan) as caught:
        placement.read(tmp_path / "p.json", fleet_of(FAST, SLOW, layers=6))
    assert caught.value.code == "SP-MIX-242"


@pytest.mark.parametrize(("code", "spans"), [("SP-MIX-240", ((0, 6), (0, 4))), ("SP-MIX-241", ((0, 4), (5, 6)))])
def test_a_placement_that_cannot_serve_is_refused(code: str, spans: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(BadPlan) as caught:
        placement.check(Placement(6, spans), fleet_of(FAST, SLOW))

    assert caught.value.code == code


# Helix's files

_CLUSTER = """
[NodeNames]
total_compute_nodes=2
[ComputeNode-0]
type=A1
[ComputeNode-1]
type=A1
[Link-source-0]
bandwidth=2.0 * mbps
latency=1 * MilliSec
[Link-0-1]
bandwidth=1.0 * gbps
latency=1 * MilliSec
[Link-1-sink]
bandwidth=1.0 * gbps
latency=2 * MilliSec
"""
_PROFILE = """
class A1:
    def __init__(self):
        max_num_layers: int = 2  # a comment
        vllm_num_blocks_dict: Dict[int, int] = {
            1: 100, 2: 40
        }
        prompt_max_requests_dict: Dict[int, int] = {1: 3, 2: 3}
        decode_max_tokens_dict: Dict[int, int] = {1: 8, 2: 8}
"""
_CARDS = "[SourceNode]\noutbound_nic_speed = 10 * gbps\n[SinkNode]\ninbound_nic_speed = 10 * gbps\n[A1]\n" + "\n".join(
    f"{key} = 10 * gbps" for key in ("vram_size", "inbound_nic_speed", "outbound_nic_speed", "disk_speed")
)


def helix_files(folder: Path) -> tuple[Path, Path, Path]:
    profiles = folder / "llama1_30b"
    (profiles / "a1").mkdir(parents=True)
    (profiles / "a1" / "decode_bs2time.csv").write_text("0,0\n2,4\n8,10\n", encoding="utf-8")
    (profiles / "a1" / "prompt_bs2time.csv").write_text("0,0\n100,50\n", encoding="utf-8")
    (profiles / "a1" / "llama1_30b_a1.py").write_text(_PROFILE, encoding="utf-8")
    (folder / "cluster.ini").write_text(_CLUSTER, encoding="utf-8")
    (folder / "machines.ini").write_text(_CARDS, encoding="utf-8")
    return folder / "cluster.ini", folder / "machines.ini", profiles


def read(cluster: Path, machines: Path, profiles: Path) -> Fleet:
    return helix.read_fleet(cluster, machines=machines, profiles=profiles)


def test_helix_files_are_read_and_written(tmp_path: Path) -> None:
    fleet = read(*helix_files(tmp_path))

    one = fleet.machines[0]
    assert (one.cache_tokens, one.prompts, one.contexts) == ((1600.0, 1280.0), (3, 3), (8000, 8000))
    assert one.decode_s[1] == pytest.approx(0.004)  # half of 4 ms, twice for a lone sequence
    assert one.decode_s[5] == pytest.approx(0.007)
    assert fleet.bandwidth_bytes_per_s[1, 0] == 1e9 and fleet.bandwidth_bytes_per_s[COORDINATOR, 0] == 2e6
    assert fleet.latency_s[1, COORDINATOR] == pytest.approx(0.002)

    made = Placement(60, ((0, 2), (2, 4)))
    helix.write_solution(tmp_path / "sol.ini", made)
    assert helix.read_placement(tmp_path / "sol.ini", fleet) == made
    helix.write_cluster(
        tmp_path / "sim.ini", made, fleet=fleet, machines=tmp_path / "machines.ini", flows={(COORDINATOR, 0): 1.0, (0, 1): 1.0}
    )
    assert "kv_cache_capacity=1280" in (tmp_path / "sim.ini").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "name", "text"),
    [
        ("SP-MIX-252", "cluster.ini", "no section"),
        ("SP-MIX-253", "cluster.ini", "[Other]\n"),
        ("SP-MIX-253", "llama1_30b/a1/llama1_30b_a1.py", "nothing = 1\n"),
        ("SP-MIX-254", "llama1_30b/a1/decode_bs2time.csv", "0,zero\n"),
    ],
)
def test_foreign_files_are_named(tmp_path: Path, code: str, name: str, text: str) -> None:
    paths = helix_files(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(BadFile) as caught:
        read(*paths)

    assert caught.value.code == code
    assert name.rsplit("/", 1)[1] if "/" in name else name in str(caught.value)


def test_other_foreign_helix_files_are_named(tmp_path: Path) -> None:
    cluster, machines, profiles = helix_files(tmp_path)
    fleet = read(cluster, machines, profiles)
    (tmp_path / "sol.ini").write_text("[Settings]\noffset=2\n[Solution]\ncompute_node_9=[0]\n", encoding="utf-8")

    with pytest.raises(BadFile) as caught:
        helix.read_placement(tmp_path / "sol.ini", fleet)
    assert caught.value.code == "SP-MIX-251"
    with pytest.raises(BadFile) as caught:
        read(cluster, machines, tmp_path)
    assert caught.value.code == "SP-MIX-250"


# the integer program


def test_branch_and_bound_agrees_with_exhaustive_search() -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        rates, chips, costs = rng.uniform(1, 9, (2, 3)), rng.integers(1, 5, 3), rng.uniform(1, 5, 3)
        need, have = rng.uniform(5, 25, 2), 11
        program = milp.Program(
            cost=costs,
            at_most=np.vstack([-rates, chips[None, :]]),
            limits=np.append(-need, have),
            upper=np.full(3, np.inf),
            whole=np.ones(3, bool),
        )
        options = [
            float(costs @ many)
            for many in itertools.product(range(12), repeat=3)
            if chips @ many <= have and np.all(rates @ many >= need - 1e-9)
        ]

        found = milp.solve(program, highs=False)

        assert (found is None) == (not options)
        if found is not None:
            assert found.cost == pytest.approx(min(options), rel=1e-6)
            assert found.gap <= 1e-6
            assert found.solver == "branch-and-bound"


def test_highs_agrees_with_branch_and_bound(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("highspy")
    program = milp.Program(
        cost=np.array([3.0, 2.0, 0.0]),
        at_most=np.array([[-4.0, -2.5, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, -1.0]]),
        limits=np.array([-11.0, 6.0, -1.0]),
        upper=np.array([np.inf, 3.0, np.inf]),
        whole=np.array([True, True, False]),
    )

    ours, theirs = milp.solve(program, highs=False), milp.solve(program, highs=True)

    assert ours is not None and theirs is not None
    assert ours.cost == pytest.approx(theirs.cost)
    assert capfd.readouterr().out == ""


# replicas


@dataclass(frozen=True)
class FakeEngine:
    """What the program asks of an engine."""

    plan: ServePlan
    job: Any = field(default_factory=lambda: SimpleNamespace(weights_dtype="bf16", dtype="bf16"))


def option(group: str, rates: tuple[float, ...], *, tp: int = 1, role: Any = "all") -> Option:
    engine: Any = FakeEngine(ServePlan(tp=tp))
    return Option(group=group, role=role, engine=engine, rates_per_s=rates, slow_per_s=rates, fast_per_s=rates)


def a_class(name: str, rate: float) -> Class:
    return Class(name=name, traffic=Traffic(arrivals="poisson", rate_per_s=rate, prompt=Length(tokens=100), answer=Length(tokens=100)))


CLUSTER = parse_cluster("8x a100-sxm-80gb + 8x l4")
BIG, SMALL = (group.name for group in CLUSTER.groups)
COST = Weights(objective="cost", unit="USD/h", basis="--price", each={BIG: 4.0, SMALL: 1.0}, spread=1.0, used=())
HAVE = {BIG: 8, SMALL: 8}


def test_short_and_long_requests_go_to_unlike_chips() -> None:
    classes = [a_class("short", 10.0), a_class("long", 4.0)]
    options = [option(BIG, (8.0, 4.0)), option(SMALL, (5.0, 0.2))]

    found = choose.solve(classes, options, cluster=CLUSTER, weights=COST, have=HAVE)
    merged = choose.solve(classes, options, cluster=CLUSTER, weights=COST, have=HAVE, merged=True)

    assert found is not None and merged is not None
    assert {(one.option.group, one.replicas, one.shares[0][0]) for one in found.chosen} == {(BIG, 1, "long"), (SMALL, 2, "short")}
    assert found.value == pytest.approx(6.0)
    assert merged.value > found.value


def test_no_more_chips_are_taken_than_there_are() -> None:
    classes = [a_class("all", 20.0)]
    options = [option(BIG, (4.0,)), option(SMALL, (2.0,))]

    found = choose.solve(classes, options, cluster=CLUSTER, weights=COST, have=HAVE)

    assert found is not None
    assert {one.option.group: one.replicas for one in found.chosen} == {SMALL: 8, BIG: 1}
    assert choose.solve([a_class("all", 200.0)], options, cluster=CLUSTER, weights=COST, have=HAVE) is None


def test_prompts_may_be_read_elsewhere_than_answers_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        '[[group]]\nname="a"\nchip="a100-sxm-80gb"\nnodes=1\n[[group]]\nname="b"\nchip="l4"\nnodes=4\n'
        '[[link]]\nfrom="a"\nto="b"\nbandwidth="100 Gb/s"\nlatency="10 us"\n',
        encoding="utf-8",
    )
    cluster = parse_cluster(str(tmp_path / "c.toml"))
    weights = Weights(objective="cost", unit="USD/h", basis="x", each={"a": 4.0, "b": 1.0}, spread=1.0, used=())
    options = [option("a", (2.0,)), option("a", (20.0,), role="prefill"), option("b", (5.0,), role="decode")]

    found = choose.solve([a_class("all", 10.0)], options, cluster=cluster, weights=weights, have={"a": 8, "b": 32})

    assert found is not None
    assert {(one.option.group, one.option.role, one.replicas, one.partner) for one in found.chosen} == {
        ("a", "prefill", 1, "b"),
        ("b", "decode", 2, "a"),
    }


def test_lengths_that_vary_are_cut_in_two() -> None:
    even = Traffic(arrivals="poisson", rate_per_s=6.0, prompt=Length(tokens=100), answer=Length(tokens=50))
    uneven = replace(even, prompt=Length(tokens=800, cv_ratio=1.0))

    assert [one.name for one in classes_of(even)] == ["all"]
    short, long = classes_of(uneven)
    assert short.traffic.prompt.tokens < long.traffic.prompt.tokens / 2
    assert short.rate_per_s + long.rate_per_s == pytest.approx(6.0)
    joined = together([(short, 2.0), (long, 1.0)], count=300)
    assert joined.rate_per_s == pytest.approx(3.0)
    assert joined.trace is not None and len(joined.trace.arrivals) == pytest.approx(300, abs=2)


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("SP-MIX-260", ["rate=1 input=1 output=1"] * 7),
        ("SP-MIX-261", ["rate=1 input=1"]),
        ("SP-MIX-261", ["rate=1 input=1 output=1 colour=red"]),
        ("SP-MIX-262", ["name=a rate=1 input=1 output=1", "name=a rate=2 input=1 output=1"]),
    ],
)
def test_classes_that_cannot_be_meant(code: str, texts: list[str]) -> None:
    with pytest.raises(BadValue) as caught:
        parse_classes(texts, where="--class")

    assert caught.value.code == code


def test_unknown_prices_stay_unknown() -> None:
    assert prices.weights(CLUSTER, "auto", stated={BIG: (4.0, "USD")}).objective == "chips"
    stated = prices.weights(CLUSTER, "cost", stated={BIG: (4.0, "USD")})
    assert stated.missing(CLUSTER.groups) == (SMALL,)
    power = prices.weights(CLUSTER, "power", stated={})
    assert power.each[BIG] > power.each[SMALL] > 0


@pytest.mark.parametrize(
    ("code", "texts"),
    [("SP-MIX-266", ["other=1USD"]), ("SP-MIX-266", ["4USD"]), ("SP-MIX-267", [f"{BIG}=cheap"]), ("SP-MIX-267", [f"{BIG}=-1USD"])],
)
def test_prices_that_cannot_be_meant(code: str, texts: list[str]) -> None:
    with pytest.raises(BadValue) as caught:
        prices.parse_prices(texts, CLUSTER.groups, where="--price")

    assert caught.value.code == code
    assert prices.parse_prices([f"{BIG}=2.10USD/h"], CLUSTER.groups, where="--price") == {BIG: (2.1, "USD")}


def test_prices_of_two_currencies_are_refused() -> None:
    with pytest.raises(BadValue) as caught:
        prices.weights(CLUSTER, "cost", stated={BIG: (4.0, "USD"), SMALL: (7.0, "CNY")})

    assert caught.value.code == "SP-MIX-265"
