"""A job over several processes gives the numbers of one device, whatever the plan."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from worlds import Place, cut, differences, plan, world

import torch
from sapper.mix.plan import MixPlan
from sapper.mix.run.data import Tokens
from sapper.mix.run.job import Job
from sapper.mix.run.models import ConfigModel
from sapper.mix.run.runner import Reference, Runner

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
    "gpt2": {"model_type": "gpt2", "vocab_size": 96, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 32},
    "mixtral": {
        "model_type": "mixtral", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "output_router_logits": True,
        "router_aux_loss_coef": 0.1,
    },
}  # fmt: skip
PLANS: dict[str, MixPlan] = {
    "data parallel, unequal": plan(cut(6, micro_batch=3, micro_batches=2, copies=2), cut(6, micro_batch=1, micro_batches=3)),
    "pipeline": plan(cut(1, 3, 6, micro_batch=2, micro_batches=3)),
    "both, replicas in a stage": plan(cut(5, 6, micro_batch=2, micro_batches=2), cut(2, 6, replicas=(2, 1), micro_batches=3, group="b")),
}


def job(plan: MixPlan, model: str, **more: Any) -> Job:
    data = Tokens(vocab=96, seq=16, masked=0.2, ragged=True)
    return Job(plan=plan, model=ConfigModel(config=CONFIGS[model]), data=data, steps=3, clip=0.5, **more)


JOBS = {f"{shape}, {model}": job(PLANS[shape], model) for shape in PLANS for model in CONFIGS}
Truth = tuple[list[float], dict[str, torch.Tensor]]


def truth(job: Job) -> Truth:
    """Losses and last weights of one device."""
    runner = Reference(job)
    return [runner.step().loss for _ in range(job.steps)], {name: one.detach() for name, one in runner.stage.masters.items()}


def compared(file: Path, place: Place) -> list[tuple[str, float, float]]:
    """How far the losses and weights of each job are from the truth in ``file``."""
    truths, found = torch.load(file), []
    for name, one in JOBS.items():
        comm = place.join(sum(one.plan.chips.values()))
        if comm is not None:
            runner = Runner(one, comm)
            losses, weights = truths[name]
            off = max(abs(runner.step().loss - loss) for loss in losses)
            found.append((name, off, differences(runner.stage.masters, weights)))
    return found


@pytest.mark.slow
def test_every_plan_gives_the_numbers_of_one_device(tmp_path: Path) -> None:
    file = tmp_path / "truths.pt"
    torch.save({name: truth(one) for name, one in JOBS.items()}, file)

    found = [one for rank in world(5, functools.partial(compared, file), folder=tmp_path) for one in rank]

    assert {name for name, _, _ in found} == set(JOBS)
    assert [one for one in found if max(one[1:]) > 1e-12] == []
