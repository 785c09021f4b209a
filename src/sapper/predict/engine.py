"""Evaluate plans of a job on a cluster: features, memory and the constants of who computes."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
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
    """The links of the group, or a refusal that names what is missing.

    Raises:
        MissingFact: A link that the group needs has no known bandwidth or domain.
    """
    if group.chips == 1:
        return no_fabric()
    require_links([group])
    return fabric_of(group)


def require_links(groups: Sequence[Group]) -> None:
    """Refuse ``groups`` whose links are unknown, and name all of them at once.

    Raises:
        MissingFact: A link that a group needs has no known bandwidth or domain.
    """
    missing = [(group.chip.id, field) for group in groups for field in _unknown_links(group)]
    if missing:
        raise unknown_links(missing)


def unknown_links(missing: Sequence[tuple[str, str]]) -> MissingFact:
    """The refusal that names what is unknown: (chip, a field of :data:`LINK_KEYS`) each."""
    several = len({chip for chip, _ in missing}) > 1
    named = dict.fromkeys(missing)
    return MissingFact(
        "SP-PRED-012", chip=missing[0][0], field=", ".join(field for _, field in missing),
        fields=", ".join(f"`{chip} {field}`" for chip, field in named),
        keys=", ".join(f"`--assume {f'{chip}.' if several else ''}{LINK_KEYS[field]}=...`" for chip, field in named),
    )  # fmt: skip


LINK_KEYS = {"scale_up": "scale_up", "scale_up.bandwidth": "scale_up", "scale_up.domain_size": "domain", "scale_out": "scale_out"}
"""Unknown field of a group -> key of ``--assume``."""


def _unknown_links(group: Group) -> list[str]:
    """What a group of several chips lacks: where the size of its domains is unknown, the network only if it has several nodes."""
    if group.chips == 1:
        return []
    up, out = group.scale_up, group.scale_out
    found = ["scale_up"] if up is None else []
    if up is not None and up.bandwidth_bytes_per_s.number is None:
        found.append("scale_up.bandwidth")
    if up is not None and up.domain_size is None:
        found.append("scale_up.domain_size")
    domain = group.chips_per_node if up is None or up.domain_size is None else up.domain_size
    if group.chips > domain and (out is None or out.bandwidth_bytes_per_s.number is None):
        found.append("scale_out")
    return found


@functools.cache
def shipped_fit() -> Fitted:
    """The posterior that ships (data/fitted.json, written by scripts/fit_priors.py)."""
    raw = json.loads(resources.files(__package__).joinpath("data", "fitted.json").read_text("utf-8"))
    return Fitted.thaw(raw, train_book())
