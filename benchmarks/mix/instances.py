"""Random small problems of unlike chips, for the planner's checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sapper.mix.problem import Held, Problem, Shape, StateBytes, Supply, Times


@dataclass(frozen=True)
class Rings:
    """One ring over all holders, at the rate of its slowest link."""

    rates: Mapping[frozenset[str], float]
    """Bytes per second between two groups, or inside one."""
    latency_s: float

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        return self.latency_s + size_bytes / self.rates[frozenset((source, target))]

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        sets = sum(members.values())
        if sets <= 1:
            return 0.0
        names = {name for name, _ in members}
        rate = min(self.rates[frozenset((a, b))] for a in names for b in names if len(names) == 1 or a != b)
        return 2 * (sets - 1) * (self.latency_s + size_bytes / min(tp for _, tp in members) / sets / rate)


def instance(draw: np.random.Generator, *, chips: int, layers: int, batch: int, groups: int) -> Problem:
    """A problem of ``groups`` unlike groups that have ``chips`` chips together."""
    names = [chr(ord("a") + g) for g in range(groups)]
    counts = 1 + draw.multinomial(chips - groups, draw.dirichlet(np.ones(groups) * 2))
    work = draw.uniform(0.5, 1.5, layers) if draw.random() < 0.5 else np.ones(layers)
    work[0], work[-1] = draw.uniform(0.02, 0.3), draw.uniform(0.3, 2.0)
    params = draw.uniform(0.5, 1.5) * 1e8 * np.where(np.isin(np.arange(layers), (0, layers - 1)), draw.uniform(0.5, 4.0), 1.0)
    states = 16.0 * params.sum()
    saved = draw.uniform(0.5, 4.0) * 1e8
    tps = (1, 2) if draw.random() < 0.4 else (1,)
    recomputes = ("none", "full") if draw.random() < 0.3 else ("none",)
    supplies, times, held = [], {}, {}
    for name, count in zip(names, counts, strict=True):
        speed = float(draw.uniform(0.2, 1.0))
        capacity = float(states * draw.uniform(0.2, 1.6) + saved * layers * draw.uniform(0.2, 2.0))
        supplies.append(Supply(name, int(count), 4, capacity, tps=tps))
        for tp in tps:
            held[name, tp] = Held(params / tp, params * 4e-11 / speed / tp)
            for micro_batch in (1, 2):
                for recompute in recomputes:
                    forward = work * 2e-2 * (micro_batch + float(draw.uniform(0.0, 0.4))) / speed / (1.0 if tp == 1 else 1.7)
                    kept = np.full(layers, saved * micro_batch / tp)
                    full = recompute == "full"
                    times[Shape(name, tp, micro_batch, recompute)] = Times(
                        forward, forward * (3.0 if full else 2.0), kept * (0.1 if full else 1.0), kept * (1.0 if full else 0.1)
                    )
    rates = {frozenset((a, b)): float(10 ** draw.uniform(9, 11)) for a in names for b in names if a < b}
    rates |= {frozenset((a,)): float(10 ** draw.uniform(10, 11.5)) for a in names}
    return Problem(
        model="random", layers=layers, seq_len=1024, global_batch=batch, groups=tuple(supplies), times=times, held=held,
        boundary_bytes=np.full(layers, float(draw.uniform(1e6, 3e7))), state=StateBytes(2.0, 2.0, 12.0, 2.0),
        network=Rings(rates, 1e-5), micro_batches=(1, 2), recomputes=recomputes, zeros=(0,),
    )  # fmt: skip
