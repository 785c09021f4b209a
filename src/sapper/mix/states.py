"""What ZeRO costs and saves (arXiv:1910.02054), as the runtime does it: memory, and messages between the chips that share a stage.

A message here takes a stage's weights, whole, from their owners to all who share them, or their gradients back: half of what an
all-reduce moves. Stage 1 hands the weights on after the update. Stage 2 does too, and sends the gradients of each micro-batch to their
owners during its backward pass. Stage 3 fetches the weights block by block in each pass instead, the next one while one computes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Holders, Problem

GATHERED = 2
"""Blocks whose weights are there at once in ZeRO 3: the one that computes, and the next."""


def mates(pipelines: Sequence[Pipeline]) -> dict[tuple[object, ...], int]:
    """:attr:`Stage.sharing` -> sets of chips that share states."""
    found: dict[tuple[object, ...], int] = {}
    for one in pipelines:
        for stage in one.stages:
            found[stage.sharing] = found.get(stage.sharing, 0) + one.copies * stage.replicas
    return found


def states_bytes(problem: Problem, stage: Stage, *, shards: int) -> float:
    """Weights, gradients and optimizer states of one chip; ZeRO cuts them over ``shards`` chips."""
    held, state = problem.held[stage.group, stage.tp], problem.state
    params = held_params(problem, stage)

    def cut(level: int) -> float:
        return float(shards) if stage.zero >= level else 1.0

    found = params * (state.weight / cut(3) + state.gradient / cut(2) + state.optimizer / cut(1))
    if stage.zero < 2 or shards == 1:
        return found
    block, there = float(held.params[stage.first : stage.last].max()), min(GATHERED, len(stage.layers))
    return found + block * (state.gradient + (there * state.weight if stage.zero >= 3 else 0.0))


def held_params(problem: Problem, stage: Stage) -> float:
    """Weights on one chip, the copy of a tied embedding included."""
    held = problem.held[stage.group, stage.tp]
    copy = held.tied_params if stage.last == problem.layers and stage.first > 0 else 0.0
    return float(held.params[stage.first : stage.last].sum()) + copy


def passes_s(problem: Problem, stage: Stage, *, forward_s: float, backward_s: float, shards: int) -> tuple[float, float]:
    """Both passes with the messages that they hide, and what is left of these: as in a pipeline of the stage's layers."""
    if stage.zero < 2 or shards == 1:
        return forward_s, backward_s
    message_s, layers = _message_s(problem, stage, shards=shards), len(stage.layers)

    def beside(pass_s: float, messages: int) -> float:
        wire_s = messages * message_s
        return max(pass_s, wire_s) + min(pass_s, wire_s) / layers

    gathers = stage.zero >= 3
    return beside(forward_s, 1) if gathers else forward_s, beside(backward_s, 2 if gathers else 1)


def update_s(problem: Problem, stage: Stage, *, shards: int) -> float:
    """The optimizer's step, and the weights handed on."""
    own_s = float(problem.held[stage.group, stage.tp].update_s[stage.first : stage.last].sum()) / shards
    return own_s + (_message_s(problem, stage, shards=shards) if stage.zero in (1, 2) and shards > 1 else 0.0)


def left_to_reduce(stage: Stage, holders: Sequence[Holders], *, shards: int) -> tuple[Sequence[Holders], int]:
    """Whose gradients are to be summed once a step, by layer, and in how many parts: those who share them have done so in ZeRO 2 and 3."""
    if stage.zero < 2 or shards == 1:
        return holders, 1
    key = (stage.group, stage.tp)
    found = list(holders)
    for layer in stage.layers:
        found[layer] = {**found[layer], key: found[layer][key] - shards + 1}
    return found, shards


def _message_s(problem: Problem, stage: Stage, *, shards: int) -> float:
    """Weights of the stage from their owners to all of ``shards`` sets, or gradients of their dtype back."""
    params = float(problem.held[stage.group, stage.tp].params[stage.first : stage.last].sum()) * stage.tp
    return problem.network.all_reduce_s(params * problem.state.weight, {(stage.group, stage.tp): shards}) / 2.0
