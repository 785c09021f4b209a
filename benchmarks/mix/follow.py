"""How soon a split follows a chip that slows down, and how much it chases noise: the balancer on a simulated clock.

    python benchmarks/mix/follow.py            # a table; --runs N, default 60

Two to four chips of speeds up to 1 : 5 begin with even counts; somewhere within the fourteenth step one of them becomes 30% slower. Each
micro-batch has a noise of its own (real processes under a quota have 9 to 15%: benchmarks/mix/pace.py), each step of a chip a further
noise that its micro-batches share, and a hiccup makes single micro-batches take four times as long. The split of a step is held against
the best one for the true speeds at its end.
"""

from __future__ import annotations

import argparse
import random
import statistics
from dataclasses import dataclass

from sapper.mix.balance import Balancer, Lane, Measured, best_counts, parts_of
from sapper.mix.plan import MixPlan, Pipeline, Stage

STEPS, SLOWS_AT, LEFT = 26, 13, 0.7
HICCUP = 4.0
NEAR = 0.03


@dataclass(frozen=True)
class Followed:
    """One run."""

    distances: list[float]
    """By step: time of its split over that of the best one, minus 1."""
    changes: int


@dataclass(frozen=True)
class Noise:
    """Standard deviations of logarithms, and the share of micro-batches with a hiccup."""

    step: float
    of_pass: float
    hiccups: float = 0.0


NOISES = (
    Noise(0.0, 0.05), Noise(0.0, 0.12), Noise(0.01, 0.1), Noise(0.02, 0.1), Noise(0.03, 0.1), Noise(0.01, 0.1, hiccups=0.02)
)  # fmt: skip


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
    for step in range(STEPS):
        counts = [one.micro_batches for one in plan.pipelines]
        later = [one / (LEFT if step >= SLOWS_AT and at == slow else 1.0) for at, one in enumerate(speeds)]
        lanes = [Lane(passes_s=(one,)) for one in later]
        distances.append(end_s(lanes, counts) / end_s(lanes, best_counts(lanes, batch) or counts) - 1.0)
        measured = {}
        for at, count in enumerate(counts):
            before, shared = count * part if step == SLOWS_AT else 0, rng.lognormvariate(0.0, noise.step)
            passes_s = []
            for k in range(count):
                own_s = shared * rng.lognormvariate(0.0, noise.of_pass) * (speeds if k < before else later)[at]
                passes_s.append(own_s * (HICCUP if rng.random() < noise.hiccups else 1.0))
            measured[at] = Measured(parts_s=parts_of(passes_s))
        if balancer.observe(measured) is not None:
            plan, changes = balancer.plan, changes + 1
    return Followed(distances, changes)


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
    print(f"{NEAR:.0%} from the best split in the third step (even start, slowed), from there on; mean distance from the fourth on")
    print(f"{'noise of a step':>15} {'of a pass':>9} {'hiccups':>7} |  third   | from third |   mean | changes")
    for noise in NOISES:
        found = [followed(seed, noise) for seed in range(runs)]
        phases = [[one.distances[at : at + SLOWS_AT] for one in found] for at in (0, SLOWS_AT)]
        third = [statistics.mean(one[2] <= NEAR for one in phase) for phase in phases]
        stays = [statistics.mean(max(one[2:]) <= NEAR for one in phase) for phase in phases]
        mean = statistics.mean(distance for phase in phases for one in phase for distance in one[3:])
        changes = statistics.mean(one.changes for one in found)
        shares = f"{third[0]:4.0%} {third[1]:4.0%} | {stays[0]:4.0%} {stays[1]:4.0%}"
        print(f"{noise.step:15.0%} {noise.of_pass:9.0%} {noise.hiccups:7.0%} | {shares} | {mean:6.2%} | {changes:.1f}", flush=True)


if __name__ == "__main__":
    main()
