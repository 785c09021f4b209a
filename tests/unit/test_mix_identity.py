"""Plans are for one cluster and one model."""

from __future__ import annotations

import msgspec
import pytest

from sapper.clusters import Cluster, parse_cluster
from sapper.errors import BadPlan, BadValue
from sapper.mix.identity import check_chain, check_cluster, check_model, cluster_digest, model_digest, workload_digest
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.workloads import load


def a_cluster(line: str = "4x a100-sxm-80gb") -> Cluster:
    return parse_cluster(line)


def a_plan(cluster: Cluster) -> MixPlan:
    stages = (Stage(group=cluster.groups[0].name, first=0, last=4, replicas=4),)
    return MixPlan(
        model="m", model_digest=model_digest([3, 4], params=9), cluster=cluster.name, cluster_digest=cluster_digest(cluster), layers=2,
        seq_len=8, global_batch=4, pipelines=(Pipeline(stages=stages, micro_batch=1, micro_batches=4),),
    )


def test_a_better_measured_link_makes_no_other_cluster() -> None:
    cluster = a_cluster()
    group = cluster.groups[0]
    wired = msgspec.structs.replace(cluster, name="x", groups=(msgspec.structs.replace(group, scale_out=None),))

    assert cluster_digest(wired) == cluster_digest(cluster)
    check_cluster(a_plan(cluster), wired, where="plan.json")


def test_the_order_of_groups_does_not_matter_and_their_size_does() -> None:
    first, second = a_cluster().groups[0], a_cluster("8x ascend-910b3").groups[0]
    both = Cluster(name="c", groups=(first, second))

    assert cluster_digest(both) == cluster_digest(Cluster(name="c", groups=(second, first)))
    assert cluster_digest(both) != cluster_digest(Cluster(name="c", groups=(first, msgspec.structs.replace(second, nodes=2))))


def test_a_plan_for_another_cluster_or_model_is_refused_and_both_are_named() -> None:
    plan = a_plan(a_cluster())
    larger = a_cluster("8x a100-sxm-80gb")

    with pytest.raises(BadPlan, match=r"8x nvidia-a100-sxm-80gb.*1 x 8 nvidia-a100-sxm-80gb.*SP-MIX-009") as caught:
        check_cluster(plan, larger, where="plan.json")
    assert "4x nvidia-a100-sxm-80gb" in str(caught.value)
    with pytest.raises(BadPlan, match="SP-MIX-008"):
        check_cluster(plan, a_cluster("2x a100-sxm-80gb"), where="plan.json")
    with pytest.raises(BadPlan, match=r"`m`.*`other`.*SP-MIX-010"):
        check_model(plan, model_digest([3, 5], params=9), name="other", where="plan.json")


def test_the_digest_of_a_model_is_that_of_its_sizes() -> None:
    model = load("gpt2")
    short, long = model.workload(16), model.workload(1024, dtype="fp32")

    assert workload_digest(short) == workload_digest(long)
    blocks = [(model.params - model.vocab * model.hidden - 1024 * model.hidden - 2 * model.hidden) // model.layers] * model.layers
    assert workload_digest(short) == model_digest(blocks, params=model.params)
    assert workload_digest(load("bert-base-uncased").workload(16)) != workload_digest(short)


def test_an_encoder_with_a_decoder_is_no_chain() -> None:
    check_chain(load("bamba-9b").workload(16))
    with pytest.raises(BadValue, match=r"`encoder`.*`decoder`.*SP-MIX-013"):
        check_chain(load("t5-base").workload(16))
