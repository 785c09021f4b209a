"""How the forward pass of a stage divides over its layers: what another cut of the pipeline is reckoned from."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any

import torch
from sapper.mix.run.chain import Chain
from torch import nn


class LayerTimes:
    """Marks when each layer of a stage begins, by hooks on its blocks.

    Args:
        module: Of the stage.
        chain: Its blocks.
        first: First layer of the stage.
        last: One past its last.
        device: Whose work is waited for at each mark, so that the passes that are looked at take longer there.
    """

    def __init__(self, module: nn.Module, chain: Chain, *, first: int, last: int, device: torch.device) -> None:
        self._first, self._last, self._device = first, last, device
        self._marks: dict[int, float] = {}
        self._sums_s: dict[int, float] = {}
        self._passes = 0
        blocks = chain.blocks(module)
        self._handles = [
            block.register_forward_pre_hook(self._hook(layer)) for layer, block in enumerate(blocks, 1) if first <= layer < last
        ]
        if last > len(blocks) + 1:
            self._handles.append(blocks[-1].register_forward_hook(self._hook(len(blocks) + 1)))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Around one forward pass of the stage."""
        self._marks = {self._first: self._now_s()}
        yield
        ends = [*sorted(self._marks.items()), (self._last, self._now_s())]
        for (layer, start_s), (_, end_s) in itertools.pairwise(ends):
            self._sums_s[layer] = self._sums_s.get(layer, 0.0) + end_s - start_s
        self._passes += 1

    def means_s(self) -> dict[int, float]:
        """Layer -> its forward pass, mean over the passes that were watched; empty where there was none."""
        return {layer: one / self._passes for layer, one in self._sums_s.items()}

    def close(self) -> None:
        """Watch no more."""
        for one in self._handles:
            one.remove()

    def _hook(self, layer: int) -> Any:
        def mark(*_: Any) -> None:
            self._marks[layer] = self._now_s()

        return mark

    def _now_s(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()
