"""The reference: the truth in fp64 on the very inputs, the trusted peer in the same dtype, and the spread of correct answers.

The truth is never "the CPU's fp32" (whose vectorised ``gelu`` is off by 1e-4): every floating input is widened exactly, and
every dtype that the computation names inside is widened too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import torch
from sapper.backends.computation import Computation

WIDE = {
    torch.float32: torch.float64, torch.bfloat16: torch.float64, torch.float16: torch.float64, torch.complex64: torch.complex128,
    torch.complex32: torch.complex128, torch.float8_e4m3fn: torch.float64, torch.float8_e5m2: torch.float64,
}  # fmt: skip
UNIT_ROUNDOFF = {
    torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float8_e4m3fn: 2.0**-4,
    torch.float8_e5m2: 2.0**-3, torch.complex64: 2.0**-24, torch.complex128: 2.0**-53, torch.complex32: 2.0**-11,
}  # fmt: skip
"""Half the distance from 1 to the next number above."""
SPREADS = 5
"""Perturbed runs that the spread is taken over."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the outputs of a correct stack look like."""

    truth: list[torch.Tensor]
    """fp64 (complex128), or the exact dtype of outputs that are no floats."""
    peer: list[torch.Tensor]
    """The same on the CPU in the dtypes of the inputs."""
    spread: list[list[torch.Tensor]]
    """For each perturbed run, its outputs in fp64: the inputs moved by up to one unit roundoff each. Empty where not asked."""


class Widened(TorchDispatchMode):
    """Runs every op in fp64: widens the dtypes that ops name, and low-precision tensors that appear inside."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*tree_map(_wide, args), **tree_map(_wide, kwargs or {}))


def _wide(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return WIDE.get(value, value)
    if isinstance(value, torch.Tensor) and value.dtype in WIDE:
        return value.to(WIDE[value.dtype])
    return value


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in fp64 (complex128); other dtypes as they are."""
    return tensor.to(WIDE[tensor.dtype]) if tensor.dtype in WIDE else tensor


def refer(computation: Computation, tensors: Sequence[torch.Tensor] | None = None, *, spreads: int = 0, seed: int = 0) -> Reference:
    """Truth, peer and (where ``spreads`` > 0) the spread, on ``tensors`` (the computation's own where None), all on the CPU."""
    given = computation.tensors if tensors is None else tuple(tensors)
    peer = computation([one.clone() for one in given])
    wide = [widen(one) for one in given]
    with Widened():
        truth = computation([one.clone() for one in wide])
        spread = [computation(_moved(given, wide, seed + run)) for run in range(spreads)]
    return Reference(truth=truth, peer=peer, spread=spread)


def _moved(given: Sequence[torch.Tensor], wide: Sequence[torch.Tensor], seed: int) -> list[torch.Tensor]:
    """Each floating value moved by a random share, up to one, of its dtype's unit roundoff."""
    generator = torch.Generator().manual_seed(seed)
    moved = []
    for narrow, one in zip(given, wide, strict=True):
        if narrow.dtype not in UNIT_ROUNDOFF:
            moved.append(one.clone())
            continue
        share = torch.rand(one.shape, generator=generator, dtype=torch.float64) * 2 - 1
        moved.append(one * (1 + share * UNIT_ROUNDOFF[narrow.dtype]))
    return moved
