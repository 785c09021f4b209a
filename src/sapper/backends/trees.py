"""Arguments and results of ops as trees of lists, tuples and tables: an op has no others, and PyTorch's general walk takes several times
as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with each leaf changed."""
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        made = [mapped(one, change) for one in value]
        if isinstance(value, list):
            return made
        return type(value)(made) if type(value) is not tuple else tuple(made)
    if isinstance(value, dict):
        return {key: mapped(one, change) for key, one in value.items()}
    return change(value)


def leaves(value: Any) -> list[Any]:
    """All leaves in order."""
    found: list[Any] = []
    _gather(value, found)
    return found


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in order."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, torch.Tensor)]


def _gather(value: Any, found: list[Any]) -> None:
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        parts: Any = value
    elif isinstance(value, dict):
        parts = value.values()
    else:
        found.append(value)
        return
    for one in parts:
        if isinstance(one, (list, tuple, dict)):
            _gather(one, found)
        else:  # most are: a call for each costs more than all else here
            found.append(one)
