"""The time of one op by itself, as eager PyTorch runs it: what ``prove speed`` puts beside the time that it measured."""

from __future__ import annotations

import numpy as np

from sapper.chips.schema import Chip
from sapper.evidence import Interval, worst
from sapper.predict.arrays import Floats
from sapper.predict.combine import Constants, alone
from sapper.predict.device import device_of
from sapper.predict.fit import Fitted
from sapper.predict.in_force import train_fit
from sapper.predict.job import PRECISIONS, TrainJob
from sapper.predict.layers import Costs, Local, block_costs
from sapper.predict.observe import informed
from sapper.predict.subject import constants_of, subject_of
from sapper.workloads.op import Block, Op, Workload

ONE = np.ones(1, int)


def op_time(op: Op, chip: Chip, precision: str, *, fitted: Fitted | None = None) -> Interval | None:
    """Seconds that one call of ``op`` takes on ``chip``, or waits for its host to issue.

    Args:
        op: Sizes of the whole call.
        chip: From the catalogue.
        precision: Dtype that it computes in.
        fitted: Efficiencies; None: those in force.

    Returns:
        None where predict knows no such precision.

    Raises:
        MissingFact: The catalogue lacks the peak, the bandwidth or the capacity.
    """
    if precision not in PRECISIONS:
        return None
    device = device_of(chip, precision)
    block = Block(name="op", role="layer", ops=(op,))
    workload = Workload(
        name=op.name, family="op", seq_len=1, dtype=device.wide_dtype, blocks=(block,), tokens_per_sequence=1,
    )  # fmt: skip
    job = TrainJob(workload=workload, global_batch=1, precision=precision)
    whole = Local(tp=ONE, cp=ONE, ep=ONE, micro_batch=ONE, sequence_parallel=np.zeros(1, bool))
    costs = block_costs(block, whole, device=device, job=job)
    fitted, subject = informed(fitted or train_fit(), chip), subject_of(job, chip)
    eta, design, missing = fitted.eta([subject])

    def seconds(eta: Floats) -> Floats:
        return _forward(costs, constants_of(eta))

    mid = float(seconds(eta)[0])
    if mid <= 0.0:
        return None
    _, slope = fitted.log_time(seconds, eta)
    factor = float(np.exp(fitted.factor() * fitted.deviation(slope, design=design, missing=missing)[0]))
    grounds, _ = fitted.grounds(subject.chip, purpose="training", stack=subject.stack)
    grade = worst(grounds, *(used.fact.grade for used in device.used if not used.key.endswith(("compute units", "capacity"))))
    return Interval(mid=mid, low=mid / factor, high=mid * factor, unit="s", grade=grade)


def _forward(costs: Costs, constants: Constants) -> Floats:
    """One forward pass of the only op, its own launch and the host that issues it included."""
    c = constants
    busy = costs.matmul_s[0] / c.matmul + costs.low_s[0] / c.low + costs.attention_s[0] / c.attention + costs.memory_s[0] / c.memory
    return alone(busy + costs.kernels[0] * c.launch_s, costs.kernels[0] * c.dispatch_s)
