"""Ops that PyTorch has for devices alone, as formulas: the CPU is given them, so that it can be the reference for a device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from sapper.backends import fused, recurrent

FORMULAS: Mapping[str, Callable[..., Any]] = MappingProxyType({**recurrent.FORMULAS, **fused.FORMULAS})
"""By the op's name; each is called as the op is."""


@functools.cache
def give_to_cpu() -> torch.library.Library:
    """Have the CPU compute these ops by their formulas, for as long as this process lasts, where PyTorch brings no kernel for them."""
    library = torch.library.Library("aten", "IMPL")
    for name, formula in FORMULAS.items():
        if _is_known(name) and not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"):
            library.impl(name.removeprefix("aten::"), formula, "CPU")
    return library


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The formulas by op, as PyTorch's own tables of decompositions have them."""
    return {getattr(torch.ops.aten, name.removeprefix("aten::")).default: formula for name, formula in FORMULAS.items() if _is_known(name)}


def _is_known(name: str) -> bool:
    """Whether this PyTorch has the op: some are newer than the oldest that is supported."""
    return hasattr(torch.ops.aten, name.removeprefix("aten::"))
