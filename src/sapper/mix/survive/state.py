"""The state of a running stage as named shards of tensors, and how it is put back onto any other cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sapper.mix.checkpoint.shard import OPTIMIZER, Shard, Source, State, part, weight_of, whole
from sapper.mix.run.cuts import Cut
from sapper.mix.run.models import Model, take
from sapper.mix.run.runner import Runner
from sapper.programs.program import Program
from torch import nn


class Standing:
    """A job's model whose weights and buffers are those of a stage that stands already: nothing is drawn again.

    Args:
        model: The job's model.
        module: The module of that stage, of the same layers.
    """

    def __init__(self, model: Model, module: nn.Module) -> None:
        self._model, self._module = model, module

    @property
    def name(self) -> str:
        """See :class:`~sapper.mix.run.models.Model`."""
        return self._model.name

    @property
    def shifts(self) -> bool:
        """See :class:`~sapper.mix.run.models.Model`."""
        return self._model.shifts

    def shapes(self) -> Program:
        """See :class:`~sapper.mix.run.models.Model`."""
        return self._model.shapes()

    def empty(self) -> Program:
        """See :class:`~sapper.mix.run.models.Model`."""
        return self._model.empty()

    def fill(self, module: nn.Module, keep: frozenset[str], *, seed: int) -> None:
        """See :class:`~sapper.mix.run.models.Model`."""
        weights = {name: nn.Parameter(one.detach(), one.requires_grad) for name, one in self._module.named_parameters()}
        take(module, keep, weights=weights, buffers=dict(self._module.named_buffers()))


def live(runner: Runner) -> State:
    """What a rank answers for: the weights that it owns, in the optimizer's dtype, and their states; the tensors themselves, no copies."""
    found: dict[str, Sequence[Shard]] = {}
    for name in runner.own:
        master, cut = runner.stage.masters[name], runner.stage.cuts.get(name)
        found[name] = shards(master, cut)
        for key, value in runner.update.optimizer.state.get(master, {}).items():
            if isinstance(value, torch.Tensor):
                found[f"{OPTIMIZER}{name}:{key}"] = shards(value, cut if value.dim() else None)
    return found


@torch.no_grad()
def load(runner: Runner, source: Source, *, step: int) -> None:
    """Put the state of ``source`` in place of all that ``runner`` has; it stands after ``step`` steps then.

    Raises:
        BadFile: A weight is not in the checkpoint, or of another shape or dtype there.
    """
    stage, optimizer = runner.stage, runner.update.optimizer
    optimizer.state.clear()
    for name in runner.kept:
        weight = stage.weights[name]
        kept = stage.masters[name] if name in runner.own else weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        whole_of = kept if kept.dtype == wide else torch.empty(kept.shape, dtype=wide)
        source.fill({name: shards(whole_of, stage.cuts.get(name))})
        if whole_of is not weight:
            weight.copy_(whole_of)
    names = set(source.names)
    for name, weight in stage.frozen.items():  # checkpoints of earlier versions have none of them
        if name in names:
            loaded = torch.empty(weight.shape, dtype=source.like(name)[1])  # in the dtype of the group that wrote it
            source.fill({name: shards(loaded, stage.cuts.get(name))})
            weight.copy_(loaded)
    for entry in source.names:
        if entry.startswith(OPTIMIZER) and weight_of(entry) in runner.own:
            weight_name, _, key = entry[len(OPTIMIZER) :].rpartition(":")
            master, cut = stage.masters[weight_name], stage.cuts.get(weight_name)
            shape, dtype = source.like(entry)
            # PyTorch's optimizers keep their count of steps on the CPU unless asked otherwise.
            value = torch.empty(master.shape if shape else (), dtype=dtype, device=master.device if shape else "cpu")
            source.fill({entry: shards(value, cut if shape else None)})
            optimizer.state[master][key] = value
    runner.update.clear()
    runner.done = step


def shards(tensor: Any, cut: Cut | None) -> tuple[Shard, ...]:
    """What a tensor of a weight's shape is of the whole weight: views of it, one for each place where its shard lies."""
    if cut is None:
        return (whole(tensor),)
    found, at = [], 0
    for start, stop in cut.ranges:
        offset = [start if dim == cut.dim else 0 for dim in range(len(cut.shape))]
        found.append(part(tensor.narrow(cut.dim, at, stop - start), cut.shape, offset=offset))
        at += stop - start
    return tuple(found)


def of_layers(state: State, names: Iterable[str]) -> State:
    """The entries of the weights ``names``."""
    wanted = set(names)
    return {name: held for name, held in state.items() if weight_of(name) in wanted}


def copied(state: State) -> State:
    """On the CPU, in memory of its own."""
    return {name: tuple(Shard(one.tensor.detach().to("cpu", copy=True), one.box) for one in held) for name, held in state.items()}
