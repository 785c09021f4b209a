"""Steps whose split follows the measured times: after each, all ranks hear what each took, and each decides the same by itself."""

from __future__ import annotations

from sapper.mix.balance import Balancer, Decision, Measured
from sapper.mix.order import order
from sapper.mix.plan import MixPlan, seats
from sapper.mix.run.log import StepLog
from sapper.mix.run.runner import Runner


class Follower:
    """A runner that re-plans.

    Args:
        runner: Of the job; the same share is given on every rank.
        share: A split is changed when the best one saves more than this share of a step.
    """

    def __init__(self, runner: Runner, *, share: float = 0.02) -> None:
        self.runner = runner
        self._balancer = Balancer(runner.job.plan, share=share)
        runner.follow(self._balancer.plan)

    @property
    def plan(self) -> MixPlan:
        """That runs now."""
        return self._balancer.plan

    def step(self) -> tuple[StepLog, Decision | None]:
        """The next step, and the split from the one after on, where it changes.

        Raises:
            WireError: A member is gone or silent.
        """
        log = self.runner.step()
        decision = self._balancer.observe(self._told(log))
        if decision is not None:
            self.runner.follow(decision.plan)
        return log, decision

    def _told(self, log: StepLog) -> dict[int, Measured]:
        """What each rank measured of its own work: one sum in which each fills its own places."""
        comm, plan = self.runner.comm, self.plan
        seat = seats(plan)[comm.rank]
        pipeline = plan.pipelines[seat.pipeline]
        passes = len(order(pipeline, seat.stage, replica=seat.replica, schedule=plan.schedule)) // 2
        values = [0.0] * (2 * comm.size)
        values[2 * comm.rank : 2 * comm.rank + 2] = [log.compute_s / max(passes, 1), log.update_s]
        told = comm.sum(values)
        return {rank: Measured(pass_s=told[2 * rank], fixed_s=told[2 * rank + 1]) for rank in range(comm.size)}
