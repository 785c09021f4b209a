"""Which cluster and which model a plan was made for, so that it is refused for another one.

Both digests are of what a plan depends on and of nothing else: a better measured bandwidth does not make another cluster, nor does
another name make another model. Ranks that run a plan compare more (the code, the versions); that is the runtime's handshake.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sapper.clusters.cluster import Cluster
from sapper.errors import BadPlan, BadValue
from sapper.mix.plan import MixPlan, check, digest
from sapper.mix.problem import Identity
from sapper.predict.job import TrainJob
from sapper.workloads.op import Workload


def cluster_digest(cluster: Cluster) -> str:
    """Of the groups: name, chip, nodes and chips of a node, in any order."""
    groups = [{"name": one.name, "chip": one.chip.id, "nodes": one.nodes, "chips_per_node": one.chips_per_node} for one in cluster.groups]
    return digest(sorted(groups, key=lambda group: str(group["name"])))


def model_digest(block_params: Sequence[int], *, params: int) -> str:
    """Of a model's sizes, which its config, its capture and its module agree on.

    Args:
        block_params: Weights of each block, in order.
        params: All weights, tied ones once.
    """
    return digest({"blocks": list(block_params), "params": params})


def workload_digest(workload: Workload) -> str:
    """:func:`model_digest` of what a config or a capture describes."""
    blocks = [block.params for block in workload.blocks if block.role == "layer" for _ in range(block.count)]
    return model_digest(blocks, params=workload.params)


def identity_of(job: TrainJob, cluster: Cluster) -> Identity:
    """What a plan of ``job`` on ``cluster`` says of both."""
    return Identity(
        model_digest=workload_digest(job.workload), cluster=cluster.name, cluster_digest=cluster_digest(cluster), precision=job.precision,
        optimizer=job.optimizer,
    )  # fmt: skip


def check_chain(workload: Workload) -> None:
    """Refuse a model whose blocks are no single chain: what a block of the second list needs of the first would have to travel far.

    Raises:
        BadValue: Blocks in several lists, such as an encoder and a decoder.
    """
    lists = dict.fromkeys(re.sub(r"\.\d+(-\d+)?$", "", block.name) for block in workload.blocks if block.role == "layer")
    if len(lists) > 1:
        raise BadValue("SP-MIX-013", where=workload.name, lists=", ".join(f"`{name}`" for name in lists))


def supply(cluster: Cluster) -> dict[str, int]:
    """Chips by group."""
    return {group.name: group.chips for group in cluster.groups}


def check_cluster(plan: MixPlan, cluster: Cluster, *, where: str) -> None:
    """Refuse ``plan`` on another cluster than its own.

    Raises:
        BadPlan: Another cluster, or a plan that takes chips which are not there.
    """
    check(plan, supply=supply(cluster), where=where)
    if plan.cluster_digest != cluster_digest(cluster):
        found = ", ".join(f"{one.name}: {one.nodes} x {one.chips_per_node} {one.chip.id}" for one in cluster.groups)
        raise BadPlan("SP-MIX-009", where=where, made_for=plan.cluster, name=cluster.name, found=found)


def check_model(plan: MixPlan, found: str, *, name: str, where: str) -> None:
    """Refuse ``plan`` for another model than its own.

    Args:
        plan: The plan.
        found: Digest of the model that is there.
        name: That model, for the message.
        where: The plan's file.

    Raises:
        BadPlan: Another model.
    """
    if plan.model_digest != found:
        raise BadPlan("SP-MIX-010", where=where, made_for=plan.model, name=name)
