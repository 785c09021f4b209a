"""Results that a kernel of the reference leaves unwritten: they accuse nobody.

Shown by running the reference again where memory holds other values: on a heap that was filled with them, and after the same kernels
computed them, which leaves them on the stack. A stack cannot be filled at will, and a freed block of a few bytes holds the allocator's own
words, so that some kernels show it by chance alone; these are named in :data:`KERNELS`, each with its reason. That the CPU's fp32 and fp64
differ shows nothing: sums that cancel do that too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.backends.computation import Computation
from sapper.prove.reference import widen

_FILLINGS = (0.3, 7.0)
"""Values that memory holds before the reference runs again: no number is within half of both."""
_COPIES = 4
"""Of each result, freed for it to be written into."""
_LEAST_DEGREE, _DEGREES = 2.0, 2.0**63
"""Degrees of polynomials for which a loop is entered: not below the first, and below the second, where int64 ends."""


def unwritten(computation: Computation, peer: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """For each output of the reference a mask of its shape: where its values depend on what memory held.

    Args:
        computation: What is computed, on its own tensors.
        peer: Its outputs on the CPU, in the dtypes of the inputs.
    """
    masks = [torch.zeros(one.shape, dtype=torch.bool) for one in peer]
    for value in _FILLINGS:
        for again in (_on_a_filled_heap(computation, peer, value), _after_others(computation, value), _filled(computation, value)):
            masks = [mask | _unlike(one, other) for mask, one, other in zip(masks, again, peer, strict=True)]
    return masks


def _unlike(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Where two runs of one kernel have no digit in common, on ``other``'s shape; another order of a sum, which an allocation may cause, is
    less."""
    if one.shape != other.shape:
        return torch.ones(other.shape, dtype=torch.bool)
    one, other = widen(one), widen(other)
    same = (one == other) | (one.isnan() & other.isnan())
    if not (one.is_floating_point() or one.is_complex()):
        return ~same
    near = (one - other).abs() <= 0.5 * torch.maximum(one.abs(), other.abs())
    return ~(same | (near & one.isfinite() & other.isfinite()))


# ---- the reference once more -----------------------------------------------------------------------------------------


def _run(computation: Computation) -> list[torch.Tensor]:
    with torch.no_grad():
        return [one.detach() for one in computation([one.clone() for one in computation.tensors])]


def _on_a_filled_heap(computation: Computation, like: Sequence[torch.Tensor], value: float) -> list[torch.Tensor]:
    for one in like:
        rubbish = [torch.full_like(one, value) for _ in range(_COPIES)]
        del rubbish
    return _run(computation)


def _after_others(computation: Computation, value: float) -> list[torch.Tensor]:
    """Straight after the same kernels on numbers in the place of NaN and infinity, which leaves those on the stack."""
    given = [one.clone() for one in computation.tensors]
    others = [torch.where(one.isfinite(), one, value) if one.is_floating_point() else one.clone() for one in given]
    with torch.no_grad(), contextlib.suppress(Exception):
        computation(others)
    with torch.no_grad():
        return [one.detach() for one in computation(given)]


def _filled(computation: Computation, value: float) -> list[torch.Tensor]:
    with _Filled(value):
        return _run(computation)


class _Filled(TorchDispatchMode):
    """Puts a value wherever one of :data:`KERNELS` writes nothing."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        left_out = KERNELS.get(func.name().partition(".")[0])
        if left_out is not None:
            result = outputs[0] if isinstance(outputs, tuple) else outputs
            result.masked_fill_(left_out(result, args), self._value)
        return outputs


# ---- kernels ---------------------------------------------------------------------------------------------------------


def _of_nan(result: torch.Tensor, args: Sequence[Any]) -> torch.Tensor:
    """Polynomials of NaN: the loop that would write the result stops before it begins (``(k < n) && !isnan(q)``).

    Where a compiler makes NaN of it all the same, which is right, that may accuse.
    """
    x, degree = (torch.as_tensor(one) for one in args[:2])
    return x.isnan() & (degree >= _LEAST_DEGREE) & (degree < _DEGREES) & ~result.isnan()


def _of_no_rows(result: torch.Tensor, args: Sequence[Any]) -> torch.Tensor:
    """Losses of an empty batch: the kernel returns as soon as the result has its shape (``if (input.numel() == 0) return``)."""
    return torch.full(result.shape, args[0].numel() == 0)


_POLYNOMIALS = (
    "chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w", "hermite_polynomial_h",
    "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p", "shifted_chebyshev_polynomial_t",
    "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v", "shifted_chebyshev_polynomial_w",
)  # fmt: skip
KERNELS: Mapping[str, Callable[[torch.Tensor, Sequence[Any]], torch.Tensor]] = MappingProxyType({
    **{f"aten::special_{name}": _of_nan for name in _POLYNOMIALS},
    "aten::multi_margin_loss": _of_no_rows, "aten::multilabel_margin_loss_forward": _of_no_rows,
})  # fmt: skip
"""CPU kernels of PyTorch 2.13 that leave places of their (first) result unwritten, and where.

Sources: ``aten/src/ATen/native/Math.h``, ``LossMultiMargin.cpp``, ``LossMultiLabelMargin.cpp``.
"""
