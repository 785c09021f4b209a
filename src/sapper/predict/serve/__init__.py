"""Serving: what one iteration of an inference engine takes, and what a stream of requests gets from it."""

from __future__ import annotations

from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.step import CacheLayer, Engine, ServeMemory, StepTimes

__all__ = ["CacheLayer", "Engine", "ServeJob", "ServeMemory", "ServePlan", "StepTimes"]
