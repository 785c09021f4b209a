"""Draw: what a chip draws while it serves, as a share of its TDP, by what the time is spent on.

A busy matrix unit draws more than a busy memory, and both more than waiting: the share is linear in the shares of the time. The
weights are fitted on runs whose power was measured (ridge regression towards the values below), never on the chip that is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.serve.terms import PLACE

GROUPS: tuple[tuple[str, ...], ...] = (("matmul", "low", "thin", "rowwise", "attention"), ("memory",), ("cache", "reread", "vector"))
"""Terms that load the matrix units, the memory with weights, the memory with everything else."""
PRIOR = (0.43, 1.0, 0.45, 0.32)
"""Waiting, and what each of :data:`GROUPS` adds: least squares over the power of 838 runs of H100 and B200 under vLLM (ML.ENERGY
leaderboard v3, commit 0cd52dab, 2025-12)."""
PRIOR_SD = (0.10, 0.30, 0.15, 0.15)
NOISE_SD = 0.12
"""Of one run's share: what no term explains (clocks, cooling, idle gaps)."""
BOUNDS = (0.1, 1.0)
"""A chip holds its TDP, and draws something while it holds a model."""


@dataclass(frozen=True)
class Draw:
    """Weights of the linear model."""

    weights: tuple[float, ...] = PRIOR

    def share(self, seconds: Floats) -> Floats:
        """Share of TDP; ``seconds`` are K x ... terms at their factors."""
        return np.asarray(np.clip(np.tensordot(np.array(self.weights), _loads(seconds), axes=1), *BOUNDS), float)

    @classmethod
    def fit(cls, seconds: Floats, shares: Sequence[float]) -> Draw:
        """The weights given the terms (K x N) and the measured shares of N runs."""
        loads = _loads(seconds)
        precision = np.diag(1.0 / np.array(PRIOR_SD) ** 2)
        left = loads @ loads.T / NOISE_SD**2 + precision
        right = loads @ np.asarray(shares, float) / NOISE_SD**2 + precision @ np.array(PRIOR)
        return cls(weights=tuple(float(w) for w in np.linalg.solve(left, right)))


def _loads(seconds: Floats) -> Floats:
    """1 and the share of the time of each group; 4 x ..."""
    whole = np.maximum(seconds.sum(axis=0), 1e-30)
    return np.stack([np.ones_like(whole), *(seconds[[PLACE[name] for name in group]].sum(axis=0) / whole for group in GROUPS)])
