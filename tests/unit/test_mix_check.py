"""What makes a plan and its model small enough to be proved: nothing that differs becomes alike."""

from __future__ import annotations

import pytest

from sapper import files
from sapper.errors import BadValue
from sapper.mix.check.fold import MOST_BLOCKS, MOST_SEATS, fold
from sapper.mix.check.toy import DROPOUT, VOCAB, toy
from sapper.mix.plan import MixPlan, Pipeline, Stage, check
from sapper.workloads import bundled
from sapper.workloads.config import from_config


def a_plan(*pipelines: Pipeline, layers: int = 28) -> MixPlan:
    total = sum(one.sequences for one in pipelines)
    return MixPlan(
        model="m", model_digest="0", cluster="c", cluster_digest="1", layers=layers, seq_len=8, global_batch=total, pipelines=pipelines
    )


def chain(*groups: str, layers: int = 30, tp: int = 1, dp: int = 1, micro_batches: int = 8, **more: int) -> Pipeline:
    edges = [layers * at // len(groups) for at in range(len(groups) + 1)]
    stages = tuple(
        Stage(group=group, first=edges[at], last=edges[at + 1], tp=tp, replicas=dp if at else 1) for at, group in enumerate(groups)
    )
    return Pipeline(stages=stages, micro_batches=micro_batches, **{"micro_batch": 1, **more})


@pytest.mark.parametrize(
    "plan",
    [
        a_plan(chain("a")),
        a_plan(chain("new", "new", "new", "new", "old", copies=16, tp=2, micro_batches=64)),
        a_plan(chain(*["a"] * 20, copies=40), chain(*["b"] * 8, tp=4, dp=3, micro_batches=3)),
        a_plan(chain("a", "b", dp=6, copies=8, micro_batch=4), chain("b", micro_batches=30, copies=64)),
        a_plan(*(chain("a" if at % 2 else "b", micro_batches=3 + at) for at in range(12))),
    ],
)
def test_a_folded_plan_is_a_plan_and_small(plan: MixPlan) -> None:
    folded = fold(plan)

    check(folded.plan)
    assert folded.seats == sum(one.chips for one in folded.plan.pipelines)
    assert folded.seats <= max(MOST_SEATS, max(len({stage.group for stage in one.stages}) for one in plan.pipelines) * 2)
    assert folded.plan.layers <= max(MOST_BLOCKS, max(len(one.stages) for one in folded.plan.pipelines))
    chains = {tuple(dict.fromkeys(stage.group for stage in one.stages)) for one in plan.pipelines}
    assert {tuple(dict.fromkeys(stage.group for stage in one.stages)) for one in folded.plan.pipelines} == chains


def test_what_differs_still_differs() -> None:
    plan = a_plan(chain("a", "b", dp=6, copies=8, micro_batch=4, micro_batches=12), chain("b", micro_batches=30, copies=64))
    one, other = fold(plan).plan.pipelines

    assert one.stages[0].replicas < one.stages[1].replicas
    assert one.micro_batch > other.micro_batch
    assert one.micro_batches < other.micro_batches


def test_a_small_plan_stays_as_it_is() -> None:
    plan = a_plan(chain("a", "b", layers=8, micro_batches=3), layers=6)

    assert fold(plan).plan == plan


def test_blocks_keep_their_proportions() -> None:
    stages = (Stage(group="a", first=0, last=60), Stage(group="b", first=60, last=82))
    folded = fold(a_plan(Pipeline(stages=stages, micro_batch=1, micro_batches=4), layers=80))

    sizes = [stage.last - stage.first for stage in folded.plan.pipelines[0].stages]
    assert folded.plan.layers == MOST_BLOCKS and sizes == [7, 3]


NAMES = ("gpt2", "qwen2.5-7b", "mixtral-8x7b", "deepseek-v3", "bamba-9b", "gemma-2-9b", "gpt-neo-2.7b", "phi-3-mini")


@pytest.mark.parametrize("name", NAMES)
def test_a_toy_keeps_its_kinds_of_layers(name: str) -> None:
    raw = files.read_json(bundled()[name])
    small = from_config(toy(raw, blocks=8, seq=16, name=name), name=name, where=name)
    large = from_config(raw, name=name, where=name)

    assert set(small.layer_types) == set(large.layer_types)
    assert small.layers == 8 and small.params < 1_500_000 and small.vocab <= max(VOCAB, 96)
    assert (small.heads == small.kv_heads) == (large.heads == large.kv_heads)


def test_a_toy_drops_out_where_its_model_can() -> None:
    assert toy(files.read_json(bundled()["gpt2"]), blocks=2, seq=16, name="gpt2")["resid_pdrop"] == DROPOUT


def test_what_cannot_be_made_small_is_said() -> None:
    with pytest.raises(BadValue, match="SP-MIX-280"):
        toy({"model_type": "nobody-knows"}, blocks=2, seq=16, name="n")
