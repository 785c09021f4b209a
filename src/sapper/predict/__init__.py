"""Predict: time, memory, energy and cost before you own the chip."""

from __future__ import annotations

from sapper.predict.estimate import Estimate
from sapper.predict.job import TrainJob
from sapper.predict.plan import Plan
from sapper.predict.search import Runner, SearchResult, search_train
from sapper.predict.train import predict_train

__all__ = ["Estimate", "Plan", "Runner", "SearchResult", "TrainJob", "predict_train", "search_train"]
