"""What several detectors ask of one file is worked out once."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from sapper.port.python.module import Module

T = TypeVar("T")


def per_module(function: Callable[[Module], T]) -> Callable[[Module], T]:
    """``function`` with its answer kept as long as the module lives."""
    known: weakref.WeakKeyDictionary[Module, T] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def remembered(module: Module) -> T:
        if module not in known:
            known[module] = function(module)
        return known[module]

    return remembered
