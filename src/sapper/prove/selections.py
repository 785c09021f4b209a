"""Positions that an op names: of equal values it may name any."""

from __future__ import annotations

import torch
from sapper.prove.reference import Selection


def equally_chosen(got: torch.Tensor, truth: torch.Tensor, *, selection: Selection) -> bool:
    """Whether the positions ``got`` hold the same values as those of the truth, and none twice where the truth has none twice."""
    values, dim = selection.values, selection.dim
    if dim is None or dim < 0:
        values = values.flatten(-2 if dim is not None else 0)
        chosen, right = (one.flatten(-2 if dim is not None else 0) for one in (got, truth))
        dim = values.dim() - 1
    else:
        dropped = got.dim() < values.dim()
        chosen, right = (one.unsqueeze(dim) if dropped else one for one in (got, truth))
    size = values.shape[dim] if values.dim() else 1
    if bool(((chosen < 0) | (chosen >= size)).any()):
        return False
    values, chosen, right = (one if one.dim() else one[None] for one in (values, chosen, right))
    same = torch.equal(values.gather(dim, chosen), values.gather(dim, right))
    return same and (_repeats(right, dim) or not _repeats(chosen, dim))


def _repeats(positions: torch.Tensor, dim: int) -> bool:
    ordered = positions.sort(dim).values
    return bool((ordered.diff(dim=dim) == 0).any())
