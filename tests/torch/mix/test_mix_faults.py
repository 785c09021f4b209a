"""Processes are killed in the middle of a step; the others end with the weights of the run that nobody disturbed."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from sapper.mix.plan import Pipeline, Stage
from sapper.mix.survive.keep import mirrors
from sapper.mix.survive.member import Member
from support import ROOT

sys.path.append(str(ROOT / "benchmarks" / "mix"))  # the processes of a case are found by the path, too
FAULTS: Any = importlib.import_module("faults")
CASES = {
    # The member that leads and that all met at the start, with a layer range that another pipeline has too.
    "the leader, while gradients are summed": FAULTS.Case(plan="two unequal pipelines", rank=0, phase="reduce"),
    # Nobody else has these layers: they come from the neighbour's copy, and the step that was applied is computed again.
    "a stage that only a mirror has, in its update": FAULTS.Case(plan="one pipeline, mirrored", rank=1, phase="update"),
    # Layers go to other stages by measured times, between the third step and the fourth; then a member is lost.
    "a member whose stage had other layers in the beginning": FAULTS.Case(
        plan="one pipeline, mirrored", rank=1, phase="reduce", step=6, steps=8, replan=0.02, slow=((0, 0.3),)
    ),
}


@pytest.fixture(scope="module")
def world() -> Any:
    return FAULTS.World()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_others_go_on_with_the_right_weights(world: Any, name: str, tmp_path: Path) -> None:
    found = world.run(CASES[name], tmp_path)

    assert found["survived"], found["why"]
    assert found["apart"] <= 1e-12
    assert found["lost_steps"] <= 1
    assert found["source"] == "members"
    cuts = [one["cuts"] for one in found["moved"]]
    assert cuts == ([cuts[0]] * 3 if CASES[name].replan else [])


def test_who_mirrors_whom() -> None:
    """A copy goes to another machine where there is one; nobody mirrors what another machine holds anyway."""
    alone = FAULTS.plan_of("one pipeline, mirrored")
    here = [Member(number=at, host="h", port=at, group="fast", machine="one") for at in range(3)]
    there = [Member(number=at, host="h", port=at, group="fast", machine=f"{at // 2}") for at in range(3)]
    assert mirrors(alone, here) == {0: 1, 1: 2, 2: 0}
    assert mirrors(alone, there) == {0: 2, 1: 2, 2: 0}

    stages = tuple(Stage(group="fast", first=first, last=last) for first, last in itertools.pairwise((0, 3, 6)))
    twice = FAULTS.MixPlan(
        model="m", model_digest="0", cluster="c", cluster_digest="1", layers=4, seq_len=8, global_batch=4,
        pipelines=(Pipeline(stages=stages, micro_batch=1, micro_batches=2, copies=2),),
    )  # fmt: skip
    members = [Member(number=at, host="h", port=at, group="fast", machine=f"{at // 2}") for at in range(4)]
    assert mirrors(twice, members) == {}
