"""What several detectors ask of one file is worked out once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from sapper.port.python.module import Module

T = TypeVar("T")


def per_module(function: Callable[[Module], T]) -> Callable[[Module], T]:
    """``function`` with its answer kept as long as the module lives."""

    @functools.wraps(function)
    def remembered(module: Module) -> T:
        if function not in module.memo:
            module.memo[function] = function(module)
        return cast(T, module.memo[function])

    return remembered
