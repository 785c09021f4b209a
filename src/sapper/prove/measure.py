"""Norms of an error, each in units of what rounding the output once to its dtype gives.

With ``d = got - truth`` and ``u`` the unit roundoff of the dtype:

- ``l2``: all of the output, ``|d|_2 / (u |t|_2 / sqrt 3)``; the rounding errors of many numbers are spread evenly over
  half a unit in the last place to either side, whose root mean square is ``u / sqrt 3`` of the number, at most;
- ``rows``: the same for each slice along the last dimension, the worst of them, so that small rows count as much as large ones;
- ``slices``: the same for each index of each dimension (a channel, a column, a head), the worst of all that hold a crowd;
- ``elements``: ``|d_i| / (u |t_i| + v s_i)``, the worst of them; ``s_i`` is the root mean square of the row of ``t_i`` and ``v`` the
  roundoff inside the op: fp32's where the output is of lower precision, since what is computed inside in fp32 is off by that share
  of the scale, not of the single element;
- ``bias``: the share by which all normal numbers are off alike, ``|<d, t>| / (u <t, t>)``: rounding to nearest is never off by more
  than 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from sapper.prove.sums import Sums, sums_of_errors, sums_of_squares

LOW_PRECISION = 2.0**-20
"""Roundoff above which an error of all alike can hide among the roundings."""
ENOUGH = 3.0
"""Units up to which the worst element need not be known better: below what any limit of the rule asks."""
SIGMAS = 6.0
"""Standard errors from which a mean is no accident: 1 in 5e8."""
SYSTEMATIC = 0.9
"""Share of an error that a line through the truth explains, from which it is no rounding; of truncation, even over two roundoffs, 3/4."""
SPARSE = 0.1
"""Share of the elements that carry the truth, of which an error made of roundings has at least as many."""
OUTLIER = 4.0
"""Times the worst hundredth of all elements from which the worst stands apart; of roundings it is 1 to 2."""
CROWD = 64
"""Elements from which the L2 norm of rounding errors is certain to some percent (its spread is ``1 / sqrt(2 n)``, 9%)."""


@dataclass(frozen=True, kw_only=True)
class Norms:
    """One error in several norms, in units of the output's rounding; 1 is about what one rounding gives."""

    l2: float = 0.0
    rows: float = 0.0
    slices: float = 0.0
    elements: float = 0.0
    bias: float = 0.0
    """Share of all, in units of the roundoff, with its sign dropped."""

    def items(self) -> Iterator[tuple[str, float]]:
        """Name and value of each."""
        for one in fields(self):
            yield one.name, getattr(self, one.name)

    def largest(self, other: Norms) -> Norms:
        """The larger of two in each norm."""
        return Norms(**{name: max(value, getattr(other, name)) for name, value in self.items()})


class Yardstick:
    """What the errors of one output are measured by: the truth's norms, computed once for device, peer and spread."""

    def __init__(self, truth: torch.Tensor, *, roundoff: float, inside: float, tiny: float, drop: torch.Tensor | None = None) -> None:
        """Take the truth's norms.

        Args:
            truth: fp64 or complex128, at least one element.
            roundoff: Unit roundoff of the dtype of the output.
            inside: Roundoff of what is computed before the output is written.
            tiny: Smallest normal number of the dtype; below it anything may be zero.
            drop: Elements that are no finite numbers and do not count.
        """
        self.roundoff, self.inside, self.tiny, self.drop = roundoff, inside, tiny, drop
        self.truth = truth if truth.dim() else truth[None]
        if drop is not None:
            self.drop = drop if drop.dim() else drop[None]
            self.truth = self.truth.masked_fill(self.drop, 0)
        self.count, self.shape = self.truth.numel(), self.truth.shape
        size = self.truth.abs() if self.truth.is_complex() else self.truth
        self._size = size.reshape(-1, self.shape[-1]).contiguous()
        self._squares = sums_of_squares(self._size)
        self.norm = float(self._squares.rows.sum()) ** 0.5
        scale = (self._squares.rows / self.shape[-1]).sqrt()
        self._floor = scale.mul_(inside).add_(tiny)

    @property
    def row_count(self) -> int:
        """Slices along the last dimension."""
        return len(self._size)

    def apart(self, other: torch.Tensor) -> torch.Tensor:
        """``other - truth``, zero where elements do not count; ``other`` is fp64 or of the output's dtype."""
        apart = (other if other.dim() else other[None]) - self.truth
        return apart if self.drop is None else apart.masked_fill_(self.drop | ~torch.isfinite(apart), 0)

    def norms(self, other: torch.Tensor) -> Norms:
        """All norms of the error of ``other``."""
        ready = self.drop is not None or self.truth.is_complex()
        if ready:
            other = self.apart(other)
            other = other.abs() if other.is_complex() else other
        low = self.roundoff > LOW_PRECISION
        # A denormal is rounded by a share of the smallest normal number, not of itself.
        found = sums_of_errors(
            other.reshape(self._size.shape), self._size, roundoff=self.roundoff, floor=self._floor, ready=ready,
            along_above=self.tiny if low else None, enough=0.0 if low else ENOUGH,
        )  # fmt: skip
        unit = self.roundoff / 3**0.5
        l2 = float(found.rows.sum()) ** 0.5 / (unit * self.norm + self.tiny * self.count**0.5)
        return Norms(
            l2=l2, rows=self._worst(found.rows, self._squares.rows, self.shape[-1]) if len(found.rows) > 1 else l2,
            slices=self._worst_slice(found), elements=found.worst,
            bias=abs(found.along) / (found.of_along * self.roundoff) if found.of_along else 0.0,
        )  # fmt: skip

    def _worst(self, errors: torch.Tensor, squares: torch.Tensor, each: int) -> float:
        """The worst error of several parts of ``each`` elements, from the sums of squares of error and truth."""
        allowed = squares.sqrt().mul_(self.roundoff / 3**0.5).add_(self.tiny * each**0.5)
        return float((errors.sqrt() / allowed).max())

    def _worst_slice(self, found: Sums) -> float:
        worst = 0.0
        for dim in range(len(self.shape)) if len(self.shape) > 1 else ():
            each = self.count // self.shape[dim]
            if self.shape[dim] > 1 and each >= CROWD:
                worst = max(worst, self._worst(self._by_slice(found, dim), self._by_slice(self._squares, dim), each))
        return worst

    def _by_slice(self, sums: Sums, dim: int) -> torch.Tensor:
        """Sums at each index of ``dim``."""
        if dim == len(self.shape) - 1:
            return sums.columns
        others = [one for one in range(len(self.shape) - 1) if one != dim]
        rows = sums.rows.reshape(self.shape[:-1])
        return rows.sum(others) if others else rows

    def leans(self, apart: torch.Tensor) -> bool:
        """Whether an error of the size of this yardstick's roundings is too one-sided to be made of them.

        Roundings are independent: their mean, and that of their product with the truth's sign, are within some standard errors of
        zero. Truncation leans towards zero, and is none the less a rounding; an error of all by one share, or one amount, is not.
        """
        if apart.is_complex():
            return False
        norm = max(float(torch.linalg.vector_norm(apart)), self.tiny)
        mean, signed = float(apart.sum()) / norm, float((apart * torch.sign(self.truth)).sum()) / norm
        if max(abs(mean), abs(signed)) <= SIGMAS:
            return False
        truncated = signed < -SIGMAS and abs(mean) <= 1.01 * abs(signed)
        return not truncated or _explained(apart, self.truth) > SYSTEMATIC

    def is_sparse(self, apart: torch.Tensor) -> bool:
        """Whether an error sits in a few elements, where roundings would be everywhere that the values are.

        By the number of elements that carry it, ``(sum d^2)^2 / sum d^4``, against those that carry the truth; or because the worst
        stands far above the worst hundredth.
        """
        if _carriers(apart) < SPARSE * _carriers(self.truth):
            return True
        allowed = (self._size.abs() * self.roundoff + self._floor[:, None]).flatten()
        ordered = (apart.abs().flatten() / allowed).sort(descending=True).values
        hundredth = max(2, len(ordered) // 100)
        return len(ordered) > 4 * hundredth and bool(ordered[0] > OUTLIER * ordered[hundredth])

    def coarser(self, roundoff: float) -> Yardstick:
        """The same for a stack that computes in a coarser format."""
        return Yardstick(self.truth, roundoff=roundoff, inside=roundoff, tiny=self.tiny, drop=self.drop)


def _carriers(tensor: torch.Tensor) -> float:
    squares = tensor.abs().square()
    largest = float(squares.max())
    if not largest:
        return 0.0
    squares /= largest
    return float(squares.sum() ** 2 / squares.square().sum())


def _explained(apart: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of ``sum d^2`` that ``d = a + b t`` with the best a and b explains."""
    total = float(apart.square().sum())
    centred = truth - truth.mean()
    slope = float((apart * centred).sum()) ** 2 / max(float(centred.square().sum()), torch.finfo(torch.float64).tiny)
    return (float(apart.sum()) ** 2 / apart.numel() + slope) / total if total else 0.0
