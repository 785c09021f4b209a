"""What chips of one group do together, tensor parallelism and shared optimizer states, gives the numbers of one device."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from worlds import Place, cut, differences, plan, stage, world

import torch
from sapper.mix.plan import MixPlan, Pipeline
from sapper.mix.run.cuts import Rule
from sapper.mix.run.data import Tokens
from sapper.mix.run.job import Job
from sapper.mix.run.local import run_locally
from sapper.mix.run.models import ConfigModel
from sapper.mix.run.owners import owners
from sapper.mix.run.runner import Reference, Runner
from sapper.mix.run.spans import spans

SIZES = {"vocab_size": 96, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 6}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 3, "head_dim": 4, "attention_bias": True} | SIZES,
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 3, "head_dim": 4, "tie_word_embeddings": True} | SIZES,
}


def pipeline(*stages: Any, micro_batches: int) -> Pipeline:
    return Pipeline(stages=stages, micro_batch=2, micro_batches=micro_batches)


PLANS: dict[str, MixPlan] = {
    "unlike tensor degrees": plan(
        pipeline(stage(0, 3, tp=2), stage(3, 6, group="b"), micro_batches=2), pipeline(stage(0, 6, tp=1), micro_batches=1)
    ),
    "tensor parallel replicas with shared states": plan(
        Pipeline(stages=(stage(0, 6, tp=2, zero=1),), micro_batch=1, micro_batches=2, copies=2)
    ),
    "shared states of unequal pipelines": plan(
        cut(6, micro_batches=3, copies=2), pipeline(stage(0, 6, zero=1), micro_batches=1), pipeline(stage(0, 6, zero=1), micro_batches=2)
    ),
    "gradients shared by replicas and copies of unequal counts": plan(
        Pipeline(stages=(stage(0, 3, zero=2, replicas=2), stage(3, 6)), micro_batch=1, micro_batches=3),
        Pipeline(stages=(stage(0, 3, zero=2), stage(3, 6, group="b")), micro_batch=1, micro_batches=1),
    ),
    "weights shared across a pipeline and a tensor degree": plan(
        Pipeline(
            stages=(stage(0, 3, tp=2, zero=3, recompute="full"), stage(3, 6, group="b", zero=3)), micro_batch=1, micro_batches=2, copies=2
        ),
        cut(6, micro_batches=1),
    ),
}
RUN = ("unlike tensor degrees", "tensor parallel replicas with shared states", "shared states of unequal pipelines")
"""In processes; the others in threads."""


def job(plan: MixPlan, model: str) -> Job:
    data = Tokens(vocab=96, seq=16, masked=0.2)
    return Job(plan=plan, model=ConfigModel(config=CONFIGS[model]), data=data, steps=3, clip=0.5)


JOBS = {shape: job(PLANS[shape], "llama") for shape in RUN}
"""Run in processes."""


def truth(one: Job) -> tuple[list[float], dict[str, Any]]:
    runner = Reference(one)
    losses = [runner.step().loss for _ in range(one.steps)]
    return losses, {weight: value.detach().numpy() for weight, value in runner.stage.masters.items()}


def off(runner: Runner, arrays: dict[str, Any]) -> float:
    """How far the weights of one seat are from the truth."""
    weights = {weight: torch.from_numpy(array) for weight, array in arrays.items()}
    for weight, held in runner.stage.cuts.items():
        pieces = [weights[weight].narrow(held.dim, start, stop - start) for start, stop in held.ranges]
        weights[weight] = torch.cat(pieces, held.dim)
    return float(differences({name: one.detach() for name, one in runner.kept.items()}, weights))


def held_bytes(runner: Runner) -> tuple[int, int]:
    """Bytes that the weights of a seat take between two steps, and what they would take whole."""
    weights = runner.stage.weights.values()
    return sum(one.untyped_storage().size() for one in weights), sum(one.numel() * one.element_size() for one in weights)


def compared(truths: dict[str, Any], place: Place) -> list[tuple[str, float, float, int]]:
    found = []
    for name, one in JOBS.items():
        comm = place.join(sum(one.plan.chips.values()))
        if comm is not None:
            runner = Runner(one, comm)
            losses, weights = truths[name]
            apart = max(abs(runner.step().loss - loss) for loss in losses)
            fewer = len(runner.stage.masters) - len(runner.update.optimizer.state)
            found.append((name, apart, off(runner, weights), fewer))
    return found


@pytest.mark.slow
def test_tensor_parallelism_and_shared_states_give_the_numbers_of_one_device(tmp_path: Path) -> None:
    truths = {name: truth(one) for name, one in JOBS.items()}

    found = [one for rank in world(4, functools.partial(compared, truths), folder=tmp_path) for one in rank]

    assert {name for name, *_ in found} == set(JOBS)
    assert [one for one in found if max(one[1:3]) > 1e-12] == []
    # Who shares keeps less than all.
    assert all(fewer > 0 for name, _, _, fewer in found if "replicas with shared" in name)


@pytest.mark.slow
def test_so_do_threads_and_a_tied_model_whose_shards_share_weights() -> None:
    for shape in [one for one in PLANS if one != "shared states of unequal pipelines"]:
        one = job(PLANS[shape], "qwen3")
        losses, weights = truth(one)
        apart: list[float] = []
        sizes: list[tuple[int, int]] = []

        def look(runner: Runner, weights: Any = weights, apart: Any = apart, sizes: Any = sizes) -> None:
            apart.append(off(runner, weights))
            sizes.append(held_bytes(runner))

        logs = run_locally(one, each=look)

        assert max(abs(a - b) for log in logs for a, b in zip(log.losses, losses, strict=True)) <= 1e-12
        assert max(apart) <= 1e-12
        if shape.startswith("weights shared"):
            assert [have < 0.75 * whole for have, whole in sizes].count(False) == 1, sizes  # two share; the last pipeline is alone


def test_spans_of_unlike_shards_meet_at_the_ends_of_all() -> None:
    wide = plan(pipeline(stage(0, 6, tp=3), micro_batches=1), pipeline(stage(0, 6, tp=2), micro_batches=1))
    held = {"w": (0, 1, 2, 3, 4), "norm": (0, 1, 2, 3, 4)}
    rules = {"w": Rule(0, 6, (12, 5))}

    found = [spans(wide, rank, held=held, rules=rules) for rank in range(5)]

    assert {name: part.members for name, part in found[1].items()} == {"w[4:6]": (1, 3), "w[6:8]": (1, 4), "norm": (0, 3)}
    part = found[4]["w[6:8]"]
    assert (part.dim, part.start, part.stop) == (0, 0, 2)


def test_owners_hold_unequal_parts_by_their_room() -> None:
    found = owners({"a": 6, "b": 3, "c": 3, "d": 1}, (4, 7))
    assert found == {"a": 4, "b": 7, "c": 7, "d": 4}
    assert owners({"a": 6, "b": 3, "c": 3, "d": 1}, (4, 7), weights=[9.0, 1.0]) == {"a": 4, "b": 4, "c": 4, "d": 7}
