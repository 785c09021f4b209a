"""From predict: the planner's problem of a job on a mixed cluster, each group priced with its own chip, links and efficiencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from sapper.clusters.cluster import Cluster, Group
from sapper.mix.costs.blocks import Machine, Priced, price, times_of
from sapper.mix.costs.network import network_of
from sapper.mix.identity import identity_of
from sapper.mix.problem import Held, Problem, Shape, StateBytes, Supply, Times, Transport
from sapper.predict.allocator import shipped_allocation
from sapper.predict.arrays import PlanArray
from sapper.predict.collectives import no_fabric
from sapper.predict.combine import step_time
from sapper.predict.device import device_of
from sapper.predict.engine import fabric_for
from sapper.predict.features import features, gradient_bytes, trainable_share, update_bytes
from sapper.predict.fit import Fitted
from sapper.predict.in_force import train_fit
from sapper.predict.job import TrainJob
from sapper.predict.legal import divisors, limits_of
from sapper.predict.memory import states_per_weight
from sapper.predict.observe import informed
from sapper.predict.plan import Plan, Recompute
from sapper.predict.search import MARGIN
from sapper.predict.subject import constants_of, subject_of, usual_stack
from sapper.workloads.op import DTYPE_BYTES

MICRO_BATCHES = (1, 2, 4, 8, 16, 32)
"""Sizes that are priced unless the caller names others; see :func:`_sizes`."""


def from_predict(
    job: TrainJob,
    cluster: Cluster,
    *,
    fitted: Fitted | None = None,
    recomputes: Sequence[Recompute] = ("none", "full"),
    micro_batches: Sequence[int] | None = None,
    sequence_parallel: bool = False,
) -> Problem:
    """What predict knows of ``job`` on ``cluster``, layer by layer.

    Args:
        job: What is trained.
        cluster: On what; any number of groups.
        fitted: Efficiencies; None: the posterior in force.
        recomputes: Recomputations that a plan may choose from.
        micro_batches: Sizes of micro-batch that a plan may choose from; those above the global batch are left out. None: the usual ones.
        sequence_parallel: Whether tensor parallel groups cut norms and residuals too (arXiv:2205.05198).

    Raises:
        BadValue: Groups that cannot reach each other, an unknown precision or optimizer.
        MissingFact: A peak, bandwidth, capacity or link that the question needs is unknown; the field is named.
    """
    job.check()
    machines = {group.name: machine_of(job, group, fitted=fitted or train_fit()) for group in cluster.groups}
    network = network_of(cluster, link_shares={name: float(one.constants.link) for name, one in machines.items()})
    sizes = tuple(size for size in micro_batches or _sizes(job.global_batch) if size <= job.global_batch)
    tps = {group.name: tensor_degrees(job, group, machines[group.name]) for group in cluster.groups}
    priced = {
        name: price(job, machine.device, tps=tps[name], micro_batches=sizes, sequence_parallel=sequence_parallel)
        for name, machine in machines.items()
    }
    counts = [block.count for block in job.workload.blocks if block.role == "layer"]
    return Problem(
        model=job.workload.name,
        layers=sum(counts) + 2,
        seq_len=job.workload.seq_len,
        global_batch=job.global_batch,
        groups=tuple(_supply(job, group, machines[group.name], tps[group.name], fitted=fitted or train_fit()) for group in cluster.groups),
        times=PredictedTimes(job, priced, machines, recomputes=tuple(recomputes)),
        held={
            (name, tp): _held(job, priced[name], machines[name], tp=tp) for name, degrees in tps.items() for tp in degrees
        },
        boundary_bytes=_boundary_bytes(job),
        state=_state(job),
        network=network,
        micro_batches=sizes,
        recomputes=tuple(recomputes),
        tied=_tied_params(job) > 0.0,
        transport=Transport(shared=True),
        identity=identity_of(job, cluster),
        sources={group.name: _source(job, group, fitted or train_fit()) for group in cluster.groups},
    )


def _sizes(batch: int) -> tuple[int, ...]:
    """Powers of two; of a batch that is no more than the greatest of them its divisors too, so that 7 sequences may stay together."""
    return tuple(sorted({*MICRO_BATCHES, *(divisors(batch) if batch <= MICRO_BATCHES[-1] else ())}))


def machine_of(job: TrainJob, group: Group, *, fitted: Fitted) -> Machine:
    """A chip of ``group`` as it trains ``job``.

    Raises:
        MissingFact: See :func:`from_predict`.
    """
    eta, _, _ = informed(fitted, group.chip).eta([subject_of(job, group.chip)])
    return Machine(
        device=device_of(group.chip, job.precision),
        fabric=fabric_for(group),
        constants=constants_of(eta).pick(np.array(0)),
        allocation=shipped_allocation(job.stack or usual_stack(group.chip)),
    )


def tensor_degrees(job: TrainJob, group: Group, machine: Machine) -> tuple[int, ...]:
    """Degrees that divide both the model's heads and the scale-up domain, so that no domain has a rest."""
    domain = min(machine.fabric.domain_size, group.chips)
    return tuple(tp for tp in divisors(domain) if limits_of(job).heads % tp == 0)


@dataclass(frozen=True)
class PredictedTimes(Mapping[Shape, Times]):
    """Times of every shape, computed when they are first asked for."""

    job: TrainJob
    priced: Mapping[str, Priced]
    machines: Mapping[str, Machine]
    recomputes: tuple[Recompute, ...]
    _known: dict[Shape, Times] = field(default_factory=dict, repr=False)

    def __getitem__(self, shape: Shape) -> Times:
        if shape not in self._known:
            if shape not in self:
                raise KeyError(shape)
            self._known[shape] = times_of(
                self.job, self.priced[shape.group], self.machines[shape.group], shape=(shape.tp, shape.micro_batch),
                recompute=shape.recompute,
            )
        return self._known[shape]

    def __contains__(self, shape: object) -> bool:
        if not isinstance(shape, Shape) or shape.group not in self.priced or shape.recompute not in self.recomputes:
            return False
        return (shape.tp, shape.micro_batch) in self.priced[shape.group].shapes

    def __iter__(self) -> Iterator[Shape]:
        for group, priced in self.priced.items():
            for tp, size in priced.shapes:
                yield from (Shape(group, tp, size, recompute) for recompute in self.recomputes)

    def __len__(self) -> int:
        return sum(len(priced.shapes) for priced in self.priced.values()) * len(self.recomputes)


def _supply(job: TrainJob, group: Group, machine: Machine, tps: tuple[int, ...], *, fitted: Fitted) -> Supply:
    return Supply(
        name=group.name,
        chips=group.chips,
        chips_per_node=group.chips_per_node,
        capacity_bytes=MARGIN * machine.device.capacity_bytes,
        overhead_bytes=machine.allocation.context_bytes,
        tps=tps,
        relative_sd=_relative_sd(job, group, machine, fitted=fitted),
        host_s=float(machine.constants.host_s),
    )


def _relative_sd(job: TrainJob, group: Group, machine: Machine, *, fitted: Fitted) -> float:
    """That of predict's step of one sequence on one chip: what the efficiencies of the chip leave open."""
    one = msgspec.structs.replace(job, global_batch=1)
    priced = features(one, machine.device, no_fabric(), PlanArray.of([Plan(zero=0)]))
    known = informed(fitted, group.chip)
    eta, design, missing = known.eta([subject_of(job, group.chip)])
    _, slope = known.log_time(lambda eta: step_time(priced, constants_of(eta)), eta)
    return float(known.deviation(slope, design=design, missing=missing)[0])


def _held(job: TrainJob, priced: Priced, machine: Machine, *, tp: int) -> Held:
    column = next(index for index, shape in enumerate(priced.shapes) if shape[0] == tp)
    params = priced.spread(lambda _, costs: float(costs.dense_params[column] + costs.expert_params[column]))
    rate = machine.device.bandwidth_bytes_per_s * float(machine.constants.memory)
    return Held(
        params=params, update_s=params * trainable_share(job) * update_bytes(job) / rate, tied_params=_tied_params(job) / tp
    )


def _state(job: TrainJob) -> StateBytes:
    states = states_per_weight(job)
    return StateBytes(
        weight=states["weights"], gradient=states["gradients"], optimizer=states["optimizer"],
        wire=gradient_bytes(job) * trainable_share(job),
    )


def _boundary_bytes(job: TrainJob) -> np.ndarray:
    """The residual stream that leaves each layer; nothing leaves the last."""
    blocks = [block for block in job.workload.blocks if block.role == "layer"]
    widths = [block.hidden_size for block in blocks for _ in range(block.count)]
    tokens = job.workload.seq_len * DTYPE_BYTES[job.workload.dtype]
    return np.array([widths[0], *widths, 0], float) * tokens


def _tied_params(job: TrainJob) -> float:
    """Weights that the output head takes from the embedding; 0 where it has its own."""
    heads = [op for block in job.workload.blocks if block.role == "head" for op in block.ops if op.kind == "matmul"]
    return float(sum(op.n * op.k for op in heads if op.shard == "vocab" and op.params < op.n * op.k))


def _source(job: TrainJob, group: Group, fitted: Fitted) -> str:
    subject = subject_of(job, group.chip)
    _, words = informed(fitted, group.chip).grounds(subject.chip, purpose="training", stack=subject.stack)
    return f"predict: {words}"
