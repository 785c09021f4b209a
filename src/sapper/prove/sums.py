"""Sums over an output in blocks that fit a core's cache: the passes of the rule cost a tenth of what they would over whole tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BLOCK = 1 << 16
"""Elements at a time: half a MiB of fp64; smaller blocks cost more in calls than they save in memory traffic."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Of the squares of a matrix, and of what else one pass can tell."""

    rows: torch.Tensor
    columns: torch.Tensor
    worst: float = 0.0
    """Largest error of an element over what is allowed for it."""
    along: float = 0.0
    """Product of error and truth, of elements whose error is a share of them."""
    of_along: float = 0.0
    """Sum of the squares of the truth, of the same elements."""


def sums_of_squares(matrix: torch.Tensor) -> Sums:
    """Of a real fp64 matrix."""
    rows, columns = matrix.new_empty(len(matrix)), matrix.new_zeros(matrix.shape[1])
    squares = torch.empty(_step(matrix), matrix.shape[1], dtype=torch.float64)
    for begin in range(0, len(matrix), len(squares)):
        part = matrix[begin : begin + len(squares)]
        square = torch.mul(part, part, out=squares[: len(part)])
        torch.sum(square, 1, out=rows[begin : begin + len(part)])
        columns += square.sum(0)
    return Sums(rows=rows, columns=columns)


def sums_of_errors(
    other: torch.Tensor, truth: torch.Tensor, *, roundoff: float, floor: torch.Tensor, ready: bool = False,
    along_above: float | None = None, enough: float = 0.0,
) -> Sums:
    """Of ``d = other - truth``.

    Args:
        other: A matrix of fp64 or of a lower precision; with ``ready`` the error itself.
        truth: A real fp64 matrix.
        roundoff: What an element may be off, as a share of itself.
        floor: What each element of a row may be off besides.
        ready: Whether ``other`` is the error.
        along_above: Size from which elements count in the product of error and truth; None: it is not wanted.
        enough: Up to this the worst element may be overestimated, by leaving its own share out of what it may be off.
    """
    rows, columns = truth.new_empty(len(truth)), truth.new_zeros(truth.shape[1])
    worst = product = squares = 0.0
    apart_block, spare_block = (torch.empty(_step(truth), truth.shape[1], dtype=torch.float64) for _ in range(2))
    step = len(apart_block)
    for begin in range(0, len(truth), step):
        end = min(begin + step, len(truth))
        true = truth[begin:end]
        apart, spare = apart_block[: end - begin], spare_block[: end - begin]
        if ready:
            apart.copy_(other[begin:end])
        else:
            torch.sub(other[begin:end], true, out=apart)
        torch.mul(apart, apart, out=spare)
        torch.sum(spare, 1, out=rows[begin:end])
        columns += spare.sum(0)
        if along_above is not None:
            kept = torch.hardshrink(true, along_above).flatten()
            product += float(torch.dot(apart.flatten(), kept))
            squares += float(torch.dot(kept, kept))
        apart.abs_()
        most = float((apart.amax(1) / floor[begin:end]).max())
        if most > enough:
            most = float(apart.div_(torch.abs(true, out=spare).mul_(roundoff).add_(floor[begin:end, None])).max())
        worst = max(worst, most)
    return Sums(rows=rows, columns=columns, worst=worst, along=product, of_along=squares)


def _step(matrix: torch.Tensor) -> int:
    """Rows in a block."""
    return max(1, min(len(matrix), BLOCK // max(int(matrix.shape[1]), 1)))
