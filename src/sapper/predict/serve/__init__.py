"""Serving: what one iteration of an inference engine takes, and what a stream of requests gets from it."""

from __future__ import annotations

from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.price import Priced, price, price_many
from sapper.predict.serve.step import CacheLayer, Engine, ServeMemory, StepTimes

__all__ = ["CacheLayer", "Engine", "Priced", "ServeJob", "ServeMemory", "ServePlan", "StepTimes", "price", "price_many"]
