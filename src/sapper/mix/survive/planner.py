"""The plan for the chips that are left: by the search that made the first one, while there is time, else by the local rule.

The search knows what a plan takes of memory, the rule does not; where the costs of the cluster are known, it is asked to keep to plans
that fit. What was used is said with each change.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import msgspec

from sapper.clusters import parse_cluster
from sapper.mix.costs import from_predict
from sapper.mix.identity import check_cluster
from sapper.mix.objective import score_plan
from sapper.mix.plan import MixPlan
from sapper.mix.problem import Problem
from sapper.mix.search import search
from sapper.mix.survive.replan import shrink
from sapper.predict.job import TrainJob
from sapper.workloads.config import load

LIMIT_S = 1.0
"""For the search, of the 3 s in which a run is to go on."""
How = Literal["whole", "search", "rule", "unchecked", "overfull", "measured"]
"""The plan for all chips, which are there again; by the search; by the rule and it fits; by the rule without anything known of
memory; by the rule and nothing that fits was found; by measured times, for the same members."""


class Replanned(NamedTuple):
    """A plan, and how it came about; None: nothing is left to train on."""

    plan: MixPlan | None
    how: How


class Planner:
    """Makes plans of a job for fewer chips.

    Args:
        problem: Costs of the model on the whole cluster; None: only what the plan itself says of speeds.
        limit_s: For the search, by the clock; it goes on beside the training where it takes longer, and its answer is dropped.
    """

    def __init__(self, problem: Problem | None = None, *, limit_s: float = LIMIT_S) -> None:
        self._problem, self._limit_s = problem, limit_s

    def plan(self, whole: MixPlan, supply: Mapping[str, int]) -> Replanned:
        """``whole``, the plan for all chips, on at most ``supply`` chips of each group."""
        if all(supply.get(group, 0) >= used for group, used in whole.chips.items()):
            return Replanned(shrink(whole, supply), "whole")
        if self._problem is None:
            return Replanned(shrink(whole, supply), "unchecked")
        found = self._searched(whole, supply, self._problem)
        if found is not None:
            return Replanned(found, "search")
        found = shrink(whole, supply, fits=self.fits)
        return Replanned(found, "rule" if found is not None and self.fits(found) else "overfull")

    def may_fit(self, plan: MixPlan) -> bool:
        """Whether nothing is known against ``plan``: without costs any may fit."""
        return self._problem is None or self.fits(plan)

    def fits(self, plan: MixPlan) -> bool:
        """Whether ``plan`` fits into memory by the costs; a shape that they do not know is taken not to."""
        assert self._problem is not None
        try:
            return score_plan(self._problem, plan).fits
        except KeyError:
            return False

    def _searched(self, whole: MixPlan, supply: Mapping[str, int], problem: Problem) -> MixPlan | None:
        """The fastest plan, where it is found in time.

        Only degrees that the plan in force has, and none: of those it is known that the model can be cut by them.
        """
        stages = [stage for one in whole.pipelines for stage in one.stages]
        degrees, zeros = {1, *(stage.tp for stage in stages)}, {0, *(stage.zero for stage in stages)}
        groups = tuple(
            replace(one, chips=supply[one.name], tps=tuple(tp for tp in one.tps if tp in degrees))
            for one in problem.groups if supply.get(one.name, 0) > 0
        )  # fmt: skip
        smaller = replace(problem, groups=groups, zeros=tuple(sorted(zeros)))
        found: list[MixPlan] = []

        def work() -> None:
            best = search(smaller, time_s=self._limit_s).best
            if best is not None:
                found.append(best)

        thread = threading.Thread(target=work, name="search", daemon=True)
        thread.start()
        thread.join(self._limit_s)
        if not found:
            return None
        kept = {name: getattr(whole, name) for name in ("model", "model_digest", "cluster", "cluster_digest", "precision", "optimizer",
                                                        "schedule", "wire")}  # fmt: skip
        return msgspec.structs.replace(found[0], **kept)


def planner_of(plan: MixPlan, *, model: str, cluster: str | None, where: str) -> Planner:
    """The planner of a run.

    Args:
        plan: For all chips.
        model: A config; costs of a builder's module are not known.
        cluster: The cluster's file; None: costs are not known.
        where: The plan's file, for the message.

    Raises:
        BadPlan: The plan is for another cluster.
        SapperError: Model or cluster cannot be priced.
    """
    if cluster is None:
        return Planner()
    found = parse_cluster(cluster)
    check_cluster(plan, found, where=where)
    loaded = load(model)
    dtype = plan.precision if plan.precision in ("fp32", "tf32", "fp16") else "bf16"
    workload = loaded.workload(loaded.fixed_seq_len or plan.seq_len, dtype=dtype, attention_impl="flash")
    job = TrainJob(workload=workload, global_batch=plan.global_batch, precision=plan.precision, optimizer=plan.optimizer)
    return Planner(from_predict(job, found))
