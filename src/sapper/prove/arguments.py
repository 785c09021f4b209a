"""Arguments of an op as trees: places of tensors, and a form in JSON that is the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where a tensor stands among the arguments; ``at`` None: the device that the op runs on."""

    at: int | None


def map_tree(function: Callable[[Any], Any], value: Any) -> Any:
    """``value`` with ``function`` applied to each leaf of its lists and tuples."""
    if isinstance(value, list | tuple):
        return [map_tree(function, one) for one in value]
    return function(value)


def encoded(value: Any) -> Any:
    """As JSON: what has no form there of its own becomes a table with one key that names its kind."""
    if isinstance(value, list | tuple):
        return [encoded(one) for one in value]
    if isinstance(value, Slot):
        return {"device": None} if value.at is None else {"tensor": value.at}
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return {type(value).__name__: str(value)[6:]}
    if isinstance(value, complex):
        return {"complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an op's argument of type {type(value).__name__}")


def decoded(value: Any) -> Any:
    """The inverse of :func:`encoded`."""
    if isinstance(value, list):
        return [decoded(one) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind in ("device", "tensor"):
        return Slot(at=held)
    if kind in ("dtype", "layout", "memory_format"):
        return getattr(torch, held)
    return complex(float(held[0]), float(held[1])) if kind == "complex" else float(held)
