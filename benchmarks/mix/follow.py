"""How soon a split follows a chip that slows down, and how much it chases noise: the balancer on a simulated clock.

    python benchmarks/mix/follow.py            # two tables; --runs N, default 60

Two to four chips of speeds up to 1 : 5 begin with even counts; somewhere within the fourteenth step one of them becomes 30% slower. Each
micro-batch has a noise of its own (real processes under a quota have 9 to 15%: benchmarks/mix/pace.py), each step of a chip a further
noise that its micro-batches share, and a hiccup makes single micro-batches take four times as long. The split of a step is held against
the best one for the true speeds at its end. What could be known at all is beside it: the split by the means of all micro-batches since the
change, told when that was.

The second table is of chains of two to four stages, whose layers move (by :class:`sapper.mix.run.follow.Follower`, as in a run). A machine
that others use as well is a noise of a step that lasts: an autoregressive one. A move takes as long as a step.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
from dataclasses import dataclass, field

import numpy as np

from sapper.mix.balance import Balancer, Lane, Measured, Tried, best_counts, best_cuts, parts_of
from sapper.mix.balance.recut import cuts_of
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.run.follow import Follower

STEPS, SLOWS_AT, LEFT = 26, 13, 0.7
HICCUP = 4.0
NEAR = 0.03


@dataclass(frozen=True)
class Followed:
    """One run."""

    distances: list[float]
    """By step: time of its split over that of the best one, minus 1."""
    changes: int
    knowable: list[float] = field(default_factory=list)
    """Distance in the third step of each phase, by all that had been measured since the change."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of logarithms, and the share of micro-batches with a hiccup."""

    step: float
    of_pass: float
    hiccups: float = 0.0
    lasts: float = 0.0
    """Correlation of a chip's noise in one step with that in the next."""


NOISES = (
    Noise(0.0, 0.05), Noise(0.0, 0.12), Noise(0.01, 0.1), Noise(0.02, 0.1), Noise(0.03, 0.1), Noise(0.01, 0.1, hiccups=0.02)
)  # fmt: skip
CHAINS = (Noise(0.01, 0.05), Noise(0.05, 0.1, hiccups=0.02), Noise(0.2, 0.1, hiccups=0.02), Noise(0.2, 0.1, hiccups=0.02, lasts=0.6))


def followed(seed: int, noise: Noise) -> Followed:
    """One run."""
    rng = random.Random(seed)
    chips = rng.randint(2, 4)
    batch = rng.randint(10, 22) * chips
    speeds = [rng.uniform(1.0, 5.0) for _ in range(chips)]
    slow, part = rng.randrange(chips), rng.random()
    counts = [batch // chips + (at < batch % chips) for at in range(chips)]
    plan = plan_of(counts)
    balancer, distances, changes = Balancer(plan), [], 0
    known: list[list[float]] = [[] for _ in speeds]
    knowable = []
    for step in range(STEPS):
        counts = [one.micro_batches for one in plan.pipelines]
        later = [one / (LEFT if step >= SLOWS_AT and at == slow else 1.0) for at, one in enumerate(speeds)]
        lanes = [Lane(passes_s=(one,)) for one in later]
        best_s = end_s(lanes, best_counts(lanes, batch) or counts)
        distances.append(end_s(lanes, counts) / best_s - 1.0)
        if step in (2, SLOWS_AT + 2):
            means = [Lane(passes_s=(statistics.fmean(one),)) for one in known]
            knowable.append(end_s(lanes, best_counts(means, batch) or counts) / best_s - 1.0)
        measured = {}
        for at, count in enumerate(counts):
            before, shared = count * part if step == SLOWS_AT else 0, rng.lognormvariate(0.0, noise.step)
            passes_s = []
            for k in range(count):
                own_s = shared * rng.lognormvariate(0.0, noise.of_pass) * (speeds if k < before else later)[at]
                passes_s.append(own_s * (HICCUP if rng.random() < noise.hiccups else 1.0))
            known[at] = passes_s[round(before) :] if step == SLOWS_AT and at == slow else known[at] + passes_s
            measured[at] = Measured(**vars(parts_of(passes_s)))
        if balancer.observe(measured) is not None:
            plan, changes = balancer.plan, changes + 1
    return Followed(distances, changes, knowable)


def moved(seed: int, noise: Noise) -> Followed:
    """One run of a chain that begins with even cuts."""
    rng = random.Random(seed)
    stages, layers, micro_batches = rng.randint(2, 4), rng.randint(12, 32), rng.randint(8, 16)
    speeds, slow = [rng.uniform(1.0, 4.0) for _ in range(stages)], rng.randrange(stages)
    plan = chain_of([round((layers + 2) * at / stages) for at in range(stages + 1)], micro_batches)
    weights, tried = np.array([0.2, *[1.0] * layers, 0.7]), Tried()
    distances, changes, lasting = [], 0, [0.0] * stages
    ranks: list[Follower] = []
    for step in range(STEPS):
        pace = [one / (LEFT if step >= SLOWS_AT and at == slow else 1.0) for at, one in enumerate(speeds)]
        truth = np.outer(pace, weights)
        ends = cuts_of(plan)[0]
        best = best_cuts(truth, micro_batches)
        assert best is not None
        distances.append(chain_s(truth, ends, micro_batches) / chain_s(truth, best, micro_batches) - 1.0)
        entered_s = chain_s(truth, ends, micro_batches)
        if not ranks:
            rule = {"share": 0.02, "steps": STEPS - step, "entered_s": entered_s}
            ranks = [Follower(plan, rank=at, tried=tried if at == 0 else Tried(), **rule) for at in range(stages)]  # type: ignore[arg-type]
        told = []
        for at, (first, last) in enumerate(itertools.pairwise((0, *ends))):
            fresh = noise.step * math.sqrt(1.0 - noise.lasts**2) * rng.gauss(0.0, 1.0)
            lasting[at] = noise.lasts * lasting[at] + fresh
            own_s = float(truth[at, first:last].sum()) * math.exp(lasting[at])
            passes_s = [own_s * rng.lognormvariate(0.0, noise.of_pass) * (HICCUP if rng.random() < noise.hiccups else 1.0)
                        for _ in range(micro_batches)]  # fmt: skip
            layers_s = {layer: float(truth[at, layer]) * rng.lognormvariate(0.0, noise.of_pass) for layer in range(first, last)}
            told.append(ranks[at].tells(passes_s, layers_s))
        decision, *_ = [one.hears([sum(values) for values in zip(*told, strict=True)], update_s=0.01) for one in ranks]
        if decision is not None and decision.moves:
            plan, changes, ranks = decision.plan, changes + 1, []
    return Followed(distances, changes)


def chain_s(truth: np.ndarray, ends: tuple[int, ...], micro_batches: int) -> float:
    """A step of a chain with these cuts."""
    passes_s = [float(one[first:last].sum()) for one, (first, last) in zip(truth, itertools.pairwise((0, *ends)), strict=True)]
    return Lane(passes_s=tuple(passes_s), replicas=(1,) * len(passes_s)).time_s(micro_batches)


def chain_of(cuts: list[int], micro_batches: int) -> MixPlan:
    """One chip for each stage."""
    stages = tuple(Stage(group="g", first=first, last=last) for first, last in itertools.pairwise(cuts))
    return MixPlan(
        model="m", model_digest="", cluster="c", cluster_digest="", layers=cuts[-1] - 2, seq_len=1, global_batch=micro_batches,
        pipelines=(Pipeline(stages=stages, micro_batch=1, micro_batches=micro_batches),),
    )  # fmt: skip


def end_s(lanes: list[Lane], counts: tuple[int, ...] | list[int]) -> float:
    """When the last chip is done."""
    return max(lane.time_s(count) for lane, count in zip(lanes, counts, strict=True))


def plan_of(counts: list[int]) -> MixPlan:
    """One chip for each count."""
    parts = tuple(Pipeline(stages=(Stage(group="g", first=0, last=4),), micro_batch=1, micro_batches=one) for one in counts)
    return MixPlan(
        model="m", model_digest="", cluster="c", cluster_digest="", layers=2, seq_len=1, global_batch=sum(counts), pipelines=parts
    )


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=60)
    runs = parser.parse_args().runs
    print(f"{NEAR:.0%} from the best split in the third step (even start, slowed), by all that could be known, from there on;")
    print("mean distance from the fourth on")
    print(f"{'noise of a step':>15} {'of a pass':>9} {'hiccups':>7} |   third   | knowable  | from third |  mean  | changes")
    for noise in NOISES:
        found = [followed(seed, noise) for seed in range(runs)]
        knowable = [statistics.mean(one.knowable[at] <= NEAR for one in found) for at in (0, 1)]
        print(f"{_noise(noise)} | {_shares(found, third=2, also=knowable)}", flush=True)
    print("\nlayers of chains, in the fourth step and from there on")
    print(f"{'noise of a step':>15} {'of a pass':>9} {'hiccups':>7} {'lasts':>5} |  fourth   | from fourth |  mean  | moves")
    for noise in CHAINS:
        found = [moved(seed, noise) for seed in range(runs)]
        print(f"{_noise(noise)} {noise.lasts:5.1f} | {_shares(found, third=3)}", flush=True)


def _noise(noise: Noise) -> str:
    return f"{noise.step:15.0%} {noise.of_pass:9.0%} {noise.hiccups:7.0%}"


def _shares(found: list[Followed], *, third: int, also: list[float] | None = None) -> str:
    phases = [[one.distances[at : at + SLOWS_AT] for one in found] for at in (0, SLOWS_AT)]
    parts = [[statistics.mean(one[third] <= NEAR for one in phase) for phase in phases], also,
             [statistics.mean(max(one[third:]) <= NEAR for one in phase) for phase in phases]]  # fmt: skip
    mean = statistics.mean(distance for phase in phases for one in phase for distance in one[third + 1 :])
    changes = statistics.mean(one.changes for one in found)
    return " | ".join([*(f"{one[0]:4.0%} {one[1]:4.0%}" for one in parts if one), f"{mean:6.2%}", f"{changes:.1f}"])


if __name__ == "__main__":
    main()
