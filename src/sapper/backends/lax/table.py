"""The table of lowerings: ATen op -> function of JAX arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LOWERINGS: dict[str, Callable[..., Any]] = {}
"""``aten.name.overload`` or, for all overloads, ``aten.name`` -> function; called with the node's own arguments."""


def lowers(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters a function under names of ops."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            LOWERINGS[name] = function
        return function

    return enter


def axes(dims: Any, ndim: int) -> tuple[int, ...]:
    """Dims as JAX takes them: all where None or empty."""
    if dims is None or dims == []:
        return tuple(range(ndim))
    return tuple(dim % max(ndim, 1) for dim in ([dims] if isinstance(dims, int) else dims)) if ndim else ()
