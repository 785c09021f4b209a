"""The chain of blocks of a module: what a pipeline is cut along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Chain:
    """Blocks that run one after the other; the module's other parts are its two ends."""

    names: tuple[str, ...]
    """Of the blocks, as in ``module.named_modules()``."""

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """The blocks of ``module``."""
        return [module.get_submodule(name) for name in self.names]

    def layer_of(self, name: str) -> int | None:
        """Layer that holds the parameter or module ``name``; None for what belongs to an end."""
        for index, block in enumerate(self.names):
            if name == block or name.startswith(f"{block}."):
                return index + 1
        return None


def find_chain(module: nn.Module) -> Chain | None:
    """The longest-weighing list of blocks: the ``ModuleList`` or ``Sequential`` with most weights that lies in no other's block.

    Of a ``Sequential`` that also holds unlike parts, the blocks are its longest run of modules of one class. None: no such list.
    """
    found: list[tuple[int, int, Chain]] = []
    _search(module, "", found)
    best = max(found, key=lambda one: (one[0], -one[1]), default=None)
    return best[2] if best else None


def _search(module: nn.Module, name: str, found: list[tuple[int, int, Chain]]) -> None:
    if isinstance(module, (nn.ModuleList, nn.Sequential)):
        names = _blocks(module)
        if len(names) > 1:
            weight = sum(one.numel() for child in names for one in module.get_submodule(child).parameters())
            if weight:
                prefix = f"{name}." if name else ""
                found.append((weight, len(found), Chain(tuple(f"{prefix}{child}" for child in names))))
            return
    for child, inner in module.named_children():
        _search(inner, f"{name}.{child}" if name else child, found)


def _blocks(container: nn.ModuleList | nn.Sequential) -> Sequence[str]:
    children: list[tuple[str, Any]] = list(container.named_children())
    if isinstance(container, nn.Sequential):
        runs = [list(run) for _, run in groupby(children, key=lambda one: type(one[1]))]
        weighty = [run for run in runs if any(True for _ in run[0][1].parameters())]
        longest = max(weighty, key=len, default=[])
        if len(longest) > 1:
            return [name for name, _ in longest]
    return [name for name, _ in children]
