"""Balance: from measured times to the next split: how many micro-batches each pipeline takes, and where its stages are cut.

Pure functions of numbers that all ranks have, so that every rank reaches the same decision by itself. Nothing here imports PyTorch.
"""

from __future__ import annotations

from sapper.mix.balance.balancer import Balancer, Decision, Measured
from sapper.mix.balance.counts import Lane, best_counts
from sapper.mix.balance.cuts import best_cuts
from sapper.mix.balance.recut import LayersS, Tried
from sapper.mix.balance.shift import parts_of
from sapper.mix.balance.smooth import Smoothed

__all__ = ["Balancer", "Decision", "LayersS", "Lane", "Measured", "Smoothed", "Tried", "best_counts", "best_cuts", "parts_of"]
