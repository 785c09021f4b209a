"""The state of a running stage as named tensors, and how it is put back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from sapper.mix.checkpoint.shard import OPTIMIZER, weight_of
from sapper.mix.run.models import Model, take
from sapper.mix.run.runner import Runner
from sapper.programs.program import Program
from torch import nn

Tensors = dict[str, Any]


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


def live(runner: Runner) -> Tensors:
    """Weights in the optimizer's dtype and what the optimizer keeps of them; the tensors themselves, no copies."""
    found: Tensors = dict(runner.stage.masters)
    for name, weight in runner.stage.masters.items():
        for key, value in runner.update.optimizer.state.get(weight, {}).items():
            if isinstance(value, torch.Tensor):
                found[f"{OPTIMIZER}{name}:{key}"] = value
    return found


@torch.no_grad()
def load(runner: Runner, state: Mapping[str, Any], *, step: int) -> None:
    """Put ``state`` in place of all that ``runner`` has; it stands after ``step`` steps then."""
    stage, optimizer = runner.stage, runner.update.optimizer
    optimizer.state.clear()
    for name, weight in stage.masters.items():
        weight.copy_(state[name])
        if stage.weights[name] is not weight:
            stage.weights[name].copy_(weight)
    for name, value in state.items():
        if name.startswith(OPTIMIZER):
            weight_name, _, key = name[len(OPTIMIZER) :].rpartition(":")
            weight = stage.masters[weight_name]
            # PyTorch's optimizers keep their count of steps on the CPU unless asked otherwise.
            optimizer.state[weight][key] = value.clone() if value.dim() == 0 else value.to(weight.device, copy=True)
    runner.update.clear()
    runner.done = step


def of_layers(state: Mapping[str, Any], names: Iterable[str]) -> Tensors:
    """The entries of the weights ``names``."""
    wanted = set(names)
    return {name: value for name, value in state.items() if weight_of(name) in wanted}
