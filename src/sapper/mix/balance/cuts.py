"""The exact best cut of one pipeline's layers over stages of unlike speed."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np

from sapper.predict.arrays import Floats


def best_cuts(
    layers_s: Floats, micro_batches: int, *, replicas: Sequence[int] | None = None, room: Sequence[float] | None = None,
    weight: Floats | None = None,
) -> tuple[int, ...] | None:  # fmt: skip
    """Where each stage ends, so that the pipeline's time is least: the pass of one micro-batch, then the slowest stage's rest.

    For each pace of a slowest stage that any range of layers can set, the least sum of passes under that pace is a shortest path
    over (stage, layer); the best of them is exact. No pace below the first that has a path is tried, and none that even the passes
    of the freest path would make too slow.

    Args:
        layers_s: Forward and backward of one micro-batch, shape (stages, layers): row s on the chips of stage s.
        micro_batches: Of the pipeline in one step.
        replicas: Of each stage; None: one each.
        room: Bytes that each stage's chips have for layers; None: enough.
        weight: Bytes that each layer takes there; length of the layers.

    Returns:
        One past the last layer of each stage; None where no cut fits.
    """
    stages, layers = layers_s.shape
    wide = list(replicas or [1] * stages)
    rounds = [-(-micro_batches // one) - 1 for one in wide]
    sums = np.concatenate([np.zeros((stages, 1)), np.cumsum(layers_s, axis=1)], axis=1)
    held = np.concatenate([[0.0], np.cumsum(weight)]) if weight is not None else np.zeros(layers + 1)
    span_s = sums[:, None, :] - sums[:, :, None]  # (stage, first, last)
    allowed = np.broadcast_to(np.arange(layers + 1)[:, None] < np.arange(layers + 1)[None, :], span_s.shape).copy()
    if room is not None:
        allowed &= (held[None, :] - held[:, None])[None] <= np.asarray(room)[:, None, None]
    rests_s = span_s * np.asarray(rounds, dtype=float)[:, None, None]

    def under(pace_s: float) -> tuple[float, tuple[int, ...] | None]:
        return _path(np.where(allowed & (rests_s <= pace_s), span_s, math.inf))

    floor_s, _ = under(math.inf)
    best, found = math.inf, None
    paces_s = np.unique(rests_s[allowed])
    slowest = bisect.bisect_left(paces_s, True, key=lambda pace_s: under(pace_s)[1] is not None)
    for pace_s in paces_s[slowest:]:
        if floor_s + pace_s >= best:
            break
        total_s, ends = under(pace_s)
        if total_s + pace_s < best:
            best, found = total_s + pace_s, ends
    return found


def _path(span_s: Floats) -> tuple[float, tuple[int, ...] | None]:
    """The cheapest way through all stages and layers, and where its stages end."""
    stages, nodes, _ = span_s.shape
    cost = np.full(nodes, math.inf)
    cost[0] = 0.0
    came = []
    for stage in range(stages):
        through = cost[:, None] + span_s[stage]
        came.append(np.argmin(through, axis=0))
        cost = np.min(through, axis=0)
    if not math.isfinite(cost[-1]):
        return math.inf, None
    ends, at = [], nodes - 1
    for stage in reversed(range(stages)):
        ends.append(at)
        at = int(came[stage][at])
    return float(cost[-1]), tuple(reversed(ends))
