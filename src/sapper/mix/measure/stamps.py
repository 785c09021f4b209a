"""When a micro-batch enters and leaves each layer of a stage, forward and backward.

Forward by hooks on the blocks; backward by hooks on the tensors that layers hand to each other, whose gradient is there exactly when
the backward pass of the layers above is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sapper.mix.run import tree
from sapper.mix.run.anatomy import Anatomy
from torch import nn


class Stamps:
    """Watches a module whose stage holds the layers ``first`` to ``last`` (excluded).

    Args:
        module: Of the stage.
        anatomy: Of the whole model.
        first: First layer.
        last: One past the last layer.
        entered: Told of each layer that begins, forward; None: nobody.
    """

    def __init__(
        self, module: nn.Module, anatomy: Anatomy, *, first: int, last: int, entered: Callable[[int], None] | None = None
    ) -> None:  # fmt: skip
        self.first, self.last, self._anatomy, self._entered = first, last, anatomy, entered
        self.boundary_bytes: dict[int, float] = {}
        """Layer -> bytes of the micro-batch that leave it forward; what was left behind on the way travels along."""
        self._forward_s: dict[int, float] = {}
        self._backward_s: dict[int, float] = {}
        blocks = anatomy.chain.blocks(module)
        self._handles = [
            block.register_forward_pre_hook(self._before(index + 1), with_kwargs=True)
            for index, block in enumerate(blocks) if first <= index + 1 <= last
        ]  # fmt: skip
        if last > len(blocks):
            self._handles.append(blocks[-1].register_forward_hook(self._after(len(blocks) + 1)))

    def close(self) -> None:
        """Watch no more."""
        for one in self._handles:
            one.remove()

    def begin(self) -> None:
        """A forward pass starts now, in the stage's first layer."""
        self._forward_s, self._backward_s = {self.first: now_s()}, {}
        if self._entered is not None:
            self._entered(self.first)

    def turn(self) -> None:
        """The forward pass is done, the backward pass starts."""
        self._forward_s.setdefault(self.last, now_s())
        self._backward_s[self.last] = now_s()

    def end(self) -> tuple[dict[int, float], dict[int, float]]:
        """The backward pass is done: seconds of each layer, forward and backward."""
        self._backward_s[self.first] = now_s()
        layers = range(self.first, self.last)
        forward = {layer: self._forward_s[layer + 1] - self._forward_s[layer] for layer in layers}
        return forward, {layer: self._backward_s[layer] - self._backward_s[layer + 1] for layer in layers}

    def _before(self, layer: int) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            self._reached(layer, (args, kwargs))

        return hook

    def _after(self, layer: int) -> Any:
        def hook(_: nn.Module, args: Any, result: Any) -> None:
            self._reached(layer, result)

        return hook

    def _reached(self, layer: int, handed: Any) -> None:
        carried = [tree.at(handed, path) for path in self._anatomy.carried[layer]]
        sides = [tree.at(side.like, side.path) for side in self._anatomy.sides_before(layer)]
        self.boundary_bytes[layer - 1] = float(sum(one.numel() * one.element_size() for one in [*carried, *sides]))
        if layer > self.first:
            self._watch(layer, carried)
        # at the stage's own first layer this overwrites its beginning: what stands in for the layers before it is not its work
        self._forward_s[layer] = now_s()
        if self._entered is not None and layer < self.last:
            self._entered(layer)

    def _watch(self, layer: int, carried: Sequence[torch.Tensor]) -> None:
        def hook(_: torch.Tensor) -> None:
            self._backward_s[layer] = now_s()

        for one in carried:
            if one.requires_grad and layer < self.last:
                one.register_hook(hook)


def now_s() -> float:
    """The time, once the device has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
