"""Positions that an op names: of equal values it may name any."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, kw_only=True)
class Selection:
    """An output that names positions in a tensor."""

    values: torch.Tensor
    """The tensor, in fp64."""
    dim: int | None
    """That was searched. None: positions count the flattened tensor; below zero: its so many last dimensions, flattened."""
    any_order: bool = False
    """Whether what is found may come in any order (``topk`` with ``sorted=False``)."""

    def flushed(self, smallest: float) -> Selection:
        """The same where numbers below ``smallest`` count as zero."""
        return replace(self, values=self.values.masked_fill(self.values.abs() < smallest, 0.0))

    def ordered(self, found: torch.Tensor) -> torch.Tensor:
        """What was found, in one order, whatever order it came in."""
        assert self.dim is not None
        return found.sort(self.dim).values


def equally_chosen(got: torch.Tensor, truth: torch.Tensor, *, selection: Selection) -> bool:
    """Whether the positions ``got`` hold the same values as those of the truth, and none twice where the truth has none twice."""
    values, dim = selection.values, selection.dim
    if dim is None or dim < 0:
        values, chosen, right = (_flattened(one, dim) for one in (values, got, truth))
        dim = values.dim() - 1
    else:
        dropped = got.dim() < values.dim()
        chosen, right = (one.unsqueeze(dim) if dropped else one for one in (got, truth))
    size = values.shape[dim] if values.dim() else 1
    if bool(((chosen < 0) | (chosen >= size)).any()):
        return False
    values, chosen, right = (one if one.dim() else one[None] for one in (values, chosen, right))
    found, wanted = (values.gather(dim, one) for one in (chosen, right))
    if selection.any_order:
        found, wanted = selection.ordered(found), selection.ordered(wanted)
    same = bool(((found == wanted) | (found.isnan() & wanted.isnan())).all())
    return same and (_repeats(right, dim) or not _repeats(chosen, dim))


def _flattened(tensor: torch.Tensor, dims: int | None) -> torch.Tensor:
    """All dimensions in one, or the last ``-dims`` of them."""
    return tensor.flatten() if dims is None else tensor.flatten(max(dims, -tensor.dim()) if tensor.dim() else 0)


def _repeats(positions: torch.Tensor, dim: int) -> bool:
    ordered = positions.sort(dim).values
    return bool((ordered.diff(dim=dim) == 0).any())
