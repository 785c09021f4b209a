"""Tensors inside the nested arguments and results of a module, by where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

Path = tuple[str | int, ...]
"""Keys and indices from the outermost container to a tensor."""


def tensors(value: Any, path: Path = ()) -> Iterator[tuple[Path, torch.Tensor]]:
    """Each tensor with its path, in a fixed order."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors(item, (*path, key))
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from tensors(item, (*path, index))


def learned(value: Any) -> dict[Path, torch.Tensor]:
    """The tensors that depend on weights: those that autograd follows."""
    return {path: one for path, one in tensors(value) if one.requires_grad}


def at(value: Any, path: Path) -> Any:
    """What lies at ``path``."""
    for key in path:
        value = value[key]
    return value


def find(value: Any, path: Path) -> Any:
    """What lies at ``path``; None where there is no such place."""
    try:
        return at(value, path)
    except (KeyError, IndexError, TypeError):
        return None


def replaced(value: Any, found: Mapping[Path, Any]) -> Any:
    """``value`` with other things at the given paths.

    Lists and plain dicts inside are changed in place, since modules hand them on to each other and may write to them; tuples and
    result objects are made anew.
    """
    if () in found:
        return found[()]
    below: dict[str | int, dict[Path, Any]] = {}
    for path, one in found.items():
        below.setdefault(path[0], {})[path[1:]] = one
    if not below:
        return value
    if isinstance(value, list) or type(value) is dict:
        inside: Any = value
        for key, inner in below.items():
            inside[key] = replaced(inside.get(key) if type(value) is dict else inside[key], inner)
        return value
    if isinstance(value, Mapping):
        return type(value)(**{key: replaced(item, below.get(key, {})) for key, item in value.items()})
    items = [replaced(item, below.get(index, {})) for index, item in enumerate(value)]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def mapped(value: Any, function: Any) -> Any:
    """A copy with ``function`` of each tensor in its place."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        items = {key: mapped(item, function) for key, item in value.items()}
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, (tuple, list)):
        items_ = [mapped(item, function) for item in value]
        return type(value)(*items_) if hasattr(value, "_fields") else type(value)(items_)
    return value
