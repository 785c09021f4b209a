"""A correct stack of the working precision, drawn at random: Monte Carlo arithmetic.

Every op's floating inputs are moved by up to one unit roundoff of their dtype before it computes, anew at each use (Parker,
"Monte Carlo Arithmetic", UCLA CSD-970002, 1997, section 3). A stack that sums in another order, or rounds between ops that
others fuse, differs from the reference by as much; so a handful of such runs spans what correct runs do.
"""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import torch
from sapper.backends.trees import tensors_in
from sapper.prove import traits
from sapper.prove.reference import UNIT_ROUNDOFF

_MOVES = frozenset({
    "embedding", "index", "index_select", "gather", "take", "cat", "stack", "clone", "copy_", "_to_copy", "constant_pad_nd", "where",
    "masked_fill", "masked_fill_", "fill_", "zero_", "flip", "roll", "repeat", "empty_like", "zeros_like", "ones_like", "full_like",
    "new_zeros", "new_empty", "new_full", "new_ones", "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "_local_scalar_dense", "equal",
    "sign", "bernoulli", "bernoulli_", "tril", "triu", "slice_backward", "select_backward", "set_",
})  # fmt: skip
"""Ops that move values, compare them or make new ones: no arithmetic, hence no rounding of their own."""


class Perturbed(TorchDispatchMode):
    """While it lasts, arithmetic is that of a random correct stack; forward and backward alike, on the CPU."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.is_view or func.overloadpacket.__name__ in _MOVES or _chooses(func, args, kwargs):
            return func(*args, **kwargs)
        written = [one.alias_info is not None and one.alias_info.is_write for one in func._schema.arguments]
        moved = tuple(one if write else tree_map(self._moved, one) for one, write in zip(args, written, strict=False))
        return func(*moved, **{key: one if key == "out" else tree_map(self._moved, one) for key, one in kwargs.items()})

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype not in UNIT_ROUNDOFF or not value.numel() or value.layout != torch.strided:
            return value
        share = torch.rand(value.shape, generator=self._generator, dtype=torch.float32) * (2 * UNIT_ROUNDOFF[value.dtype])
        broad = torch.promote_types(value.dtype, torch.float32)
        moved = torch.addcmul(value.to(broad), value.to(broad), share - UNIT_ROUNDOFF[value.dtype]).to(value.dtype)
        return torch.where(torch.isfinite(moved), moved, value)  # the largest finite number must stay finite: masks are made of it


def _chooses(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an op hands on values as they are, such as the largest: its backward pass asks which of them are equal to what it gave."""
    return traits.kind_of(func.name(), traits.bound(func, args, kwargs), tensors_in((args, kwargs))) == "exact"
