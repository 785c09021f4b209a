"""Evaluate plans of a job on a cluster: features, memory and the constants of who computes."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources

from sapper.clusters.cluster import Cluster, Group
from sapper.errors import BadValue, MissingFact
from sapper.predict.allocator import shipped_allocation
from sapper.predict.arrays import PlanArray
from sapper.predict.collectives import Fabric, fabric_of, no_fabric
from sapper.predict.combine import Constants
from sapper.predict.device import Device, device_of
from sapper.predict.features import Features, Stage, features, stage_costs
from sapper.predict.fit import Fitted
from sapper.predict.job import TrainJob
from sapper.predict.memory import Allocation, MemoryUse, memory_use
from sapper.predict.subject import TrainSubject, constants_of, train_book, usual_stack


@dataclass(frozen=True)
class Evaluated:
    """P plans priced: terms at nominal rates, memory, and the machine that they run on."""

    job: TrainJob
    group: Group
    device: Device
    fabric: Fabric
    plans: PlanArray
    stage: Stage
    features: Features
    memory: MemoryUse
    allocation: Allocation

    def constants(self, fitted: Fitted, subject: TrainSubject) -> Constants:
        """Efficiencies of the subject, broadcast over the plans."""
        eta, _, _ = fitted.eta([subject])
        return constants_of(eta)


def the_group(cluster: Cluster) -> Group:
    """The one group of a homogeneous cluster.

    Raises:
        BadValue: The cluster is mixed; one plan cannot run on unlike chips here.
    """
    if not cluster.homogeneous:
        raise BadValue("SP-PRED-020", where=cluster.name, groups=", ".join(group.chip.id for group in cluster.groups))
    return cluster.groups[0]


def evaluate(job: TrainJob, cluster: Cluster, plans: PlanArray, *, allocation: Allocation | None = None) -> Evaluated:
    """Price ``plans``.

    Args:
        job: What is trained.
        cluster: On what; one group of chips.
        plans: How.
        allocation: What the stack takes of the memory beside what is counted; None: as the posterior that ships has it.

    Raises:
        MissingFact: A peak, bandwidth, capacity or link that the question needs is unknown; the field is named.
    """
    job.check()
    group = the_group(cluster)
    device = device_of(group.chip, job.precision)
    fabric = fabric_for(group)
    stage = stage_costs(job, device, plans)
    allocation = allocation or shipped_allocation(job.stack or usual_stack(group.chip))
    priced = features(job, device, fabric, plans, stage=stage)
    return Evaluated(
        job=job,
        group=group,
        device=device,
        fabric=fabric,
        plans=plans,
        stage=stage,
        features=priced,
        memory=memory_use(job, stage, plans, allocation=allocation),
        allocation=allocation,
    )


def fabric_for(group: Group) -> Fabric:
    """The links of the group, or a refusal that names the missing one.

    Raises:
        MissingFact: A link that the group needs has no known bandwidth or domain.
    """
    if group.chips == 1:
        return no_fabric()
    up = group.scale_up
    if up is None or up.bandwidth_bytes_per_s.number is None or up.domain_size is None:
        field = "scale_up" if up is None else ("scale_up.domain_size" if up.domain_size is None else "scale_up.bandwidth")
        raise MissingFact(
            "SP-PRED-012",
            chip=group.chip.id,
            field=field,
            key=field.split(".")[-1].replace("bandwidth", "scale_up").replace("domain_size", "domain"),
        )
    out = group.scale_out
    if group.chips > up.domain_size and (out is None or out.bandwidth_bytes_per_s.number is None):
        raise MissingFact("SP-PRED-012", chip=group.chip.id, field="scale_out", key="scale_out")
    return fabric_of(group)


@functools.cache
def shipped_fit() -> Fitted:
    """The posterior that ships (data/fitted.json, written by scripts/fit_priors.py)."""
    raw = json.loads(resources.files(__package__).joinpath("data", "fitted.json").read_text("utf-8"))
    return Fitted.thaw(raw, train_book())
