"""Costs: what the planner is told of a model on a cluster, from predict (:func:`from_predict`) and of links (``network``)."""

from __future__ import annotations

from sapper.mix.costs.network import ClusterNetwork, network_of
from sapper.mix.costs.predicted import from_predict

__all__ = ["ClusterNetwork", "from_predict", "network_of"]
