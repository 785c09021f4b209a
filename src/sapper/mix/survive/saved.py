"""What each rank writes of a checkpoint, and how a checkpoint is put into a stage."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

from sapper.mix.checkpoint import rng
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.checkpoint.manifest import About
from sapper.mix.checkpoint.read import open_checkpoint
from sapper.mix.checkpoint.shard import Shard, State, weight_of
from sapper.mix.plan import MixPlan, seats
from sapper.mix.run.holders import layers_of
from sapper.mix.run.job import Job
from sapper.mix.run.owners import alike
from sapper.mix.run.runner import Runner
from sapper.mix.survive import state as states

LOSS_SCALE = "loss_scale"
"""Of fp16: the factor of the losses and the steps since it changed."""


def own_share(runner: Runner, plan: MixPlan) -> State:
    """What this rank writes of a checkpoint: of a weight that several sets of chips hold one of them writes, by turns.

    A set is what holds a weight once: the chips of a tensor parallel group, or of several that share its states. In it the owner writes,
    of a weight that is cut each shard its own. Weights that do not learn are written as they are, which makes the checkpoint a whole model.
    """
    taken, rank = seats(plan), runner.comm.rank
    set_of = {seat.rank: alike(plan, seat.rank - seat.shard) for seat in taken}
    sets_of: dict[frozenset[int], list[tuple[int, ...]]] = {}
    found: dict[str, Sequence[Shard]] = {}
    held_here = dict(states.live(runner))
    if alike(plan, rank)[0] == rank:
        held_here |= {name: states.shards(one, runner.stage.cuts.get(name)) for name, one in runner.stage.frozen.items()}
    for name, held in held_here.items():
        weight = weight_of(name)
        layers = runner.stage.used[weight]
        if layers not in sets_of:
            holders = (seat.rank for seat in taken if any(layer in layers_of(plan, seat) for layer in layers))
            sets_of[layers] = list(dict.fromkeys(set_of[one] for one in holders))
        sets = sets_of[layers]
        mine = sets[zlib.crc32(weight.encode()) % len(sets)] == set_of[rank]
        if mine and (weight in runner.stage.cuts or taken[rank].shard == 0):
            found[name] = held
    return found | (rng.streams() if rank == 0 else {})


def about_of(job: Job, runner: Runner, ledger: Ledger, plan: MixPlan) -> About:
    """What a checkpoint of ``job`` says of itself, now."""
    config = getattr(job.model, "config", None)
    extra = {"seed": job.seed, "optimizer": job.optimizer, "lr": job.lr, LOSS_SCALE: runner.loss_scale.state}
    return About(
        step=runner.done, ledger=ledger.copy(), model=job.model.name, model_digest=plan.model_digest, plan=plan.digest,
        config=dict(config) if config else None, extra=extra,
    )  # fmt: skip


def load_checkpoint(runner: Runner, path: Path, *, step: int | None = None) -> Ledger:
    """Put a checkpoint's state into ``runner``; returns its ledger.

    Raises:
        BadFile: It is not whole, or of another model.
    """
    checkpoint = open_checkpoint(path, step=step)
    states.load(runner, checkpoint, step=checkpoint.about.step)
    rng.restore(checkpoint.rng())
    if (scale := checkpoint.about.extra.get(LOSS_SCALE)) is not None and runner.loss_scale.used:
        runner.loss_scale.state = (float(scale[0]), int(scale[1]))
    return checkpoint.about.ledger.copy()
