"""Workloads: what is computed."""

from __future__ import annotations

from sapper.workloads.captured import Captured
from sapper.workloads.config import bundled, from_config, load
from sapper.workloads.dims import from_dims
from sapper.workloads.model import Model
from sapper.workloads.op import AttentionShape, Block, Op, Workload

__all__ = ["AttentionShape", "Block", "Captured", "Model", "Op", "Workload", "bundled", "from_config", "from_dims", "load"]
