"""Which parts of a module are its layers: what a pipeline cuts between, and what repeats.

Layers are the composite children of a ``ModuleList`` or ``Sequential``. Where the children of a list are unlike (stages
of a vision backbone) and have such lists inside, the layers are the children of those.
"""

from __future__ import annotations

import collections
from typing import Any

from torch import nn

CONTAINERS = (nn.ModuleList, nn.Sequential)


def units_of(module: Any) -> tuple[str, ...]:
    """Qualified names of the layers, in the order of definition; empty where nothing repeats."""
    found: list[str] = []
    _search(module, "", found)
    return tuple(found)


def _search(module: Any, path: str, found: list[str]) -> None:
    prefix = f"{path}." if path else ""
    layers = _layers(module)
    if layers and not (_unlike(layers) and any(_has_layers(layer) for _, layer in layers)):
        found += [f"{prefix}{key}" for key, _ in layers]
        return
    for name, child in module.named_children():
        _search(child, f"{prefix}{name}", found)


def _layers(container: Any) -> list[tuple[str, Any]]:
    """The composite children of a container; empty where it is none or has less than two."""
    if not isinstance(container, CONTAINERS):
        return []
    layers = [(key, child) for key, child in container.named_children() if next(child.children(), None) is not None]
    return layers if len(layers) > 1 else []


def _has_layers(module: Any) -> bool:
    return any(_layers(inner) for inner in module.modules())


def _unlike(layers: list[tuple[str, Any]]) -> bool:
    """Whether no shape is that of half of them."""
    shapes = collections.Counter(
        tuple((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters()) for _, layer in layers
    )
    return max(shapes.values()) * 2 < len(layers)
