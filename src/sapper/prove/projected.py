"""Products checked by random projection: a matrix product's error in the norms of rows and columns, without computing the product.

For ``C = A B`` and a vector ``x`` of random signs, ``C x - A (B x)`` has in each row the row's error times ``x``, whose mean square is
the square of the row's error in L2 (Freivalds 1977 for whether there is one; Hutchinson 1990 for its size). A few such vectors in fp64,
from the right for rows and from the left for columns, cost a few passes over the operands, where the product in fp64 costs twice the
device's own work. What this does not explain is judged in full. (fp32 would be cheaper still, but a matrix times a vector of signs in
fp32 is itself off by what a long sum may be.)
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from sapper.prove.call import Call
from sapper.prove.traits import plain_name

VECTORS = 3
"""Random vectors of each side: an error of one row is seen as a tenth of its size by chance once in 2,000."""
BLOCK = 1 << 17
"""Elements that are widened at a time."""
PRODUCTS = {"mm": (0, 1, None), "bmm": (0, 1, None), "addmm": (1, 2, 0), "baddbmm": (1, 2, 0)}
"""Op -> which of its tensors are the factors and the summand."""


def is_product(call: Call) -> bool:
    """Whether :func:`explained` can look at it: a plain product in fp32, whose errors are far below what a fault makes."""
    if plain_name(call.op) not in PRODUCTS or call.changed or call.kwargs.keys() - {"beta", "alpha"}:
        return False
    return all(one.dtype == torch.float32 and one.numel() for one in call.tensors)


def terms(call: Call) -> int:
    """How many products one element adds up."""
    return int(call.tensors[PRODUCTS[plain_name(call.op)][0]].shape[-1])


def error_ratio(call: Call, got: torch.Tensor) -> float | None:
    """The largest error of a row, a column or the whole, in units of what one rounding of each element gives; None: not of its form.

    Args:
        call: One of :func:`is_product`.
        got: What the device made of it.
    """
    left_at, right_at, added_at = PRODUCTS[plain_name(call.op)]
    form = (*call.tensors[left_at].shape[:-1], call.tensors[right_at].shape[-1])
    if got.dtype != torch.float32 or tuple(got.shape) != form:
        return None
    rows, columns = _signs(form[-2]).T, _signs(form[-1])
    left, right = call.tensors[left_at], call.tensors[right_at]
    alpha = float(call.kwargs.get("alpha", 1))
    first, _ = _both(right, columns)
    from_right, signed = _both(left, first * alpha, rows)
    _, from_left = _both(right, None, signed * alpha)
    if added_at is not None:
        added = call.tensors[added_at].to(torch.float64) * float(call.kwargs.get("beta", 1))
        if added.dim() < 2:  # one row for all
            from_right, from_left = from_right + added.expand(form[-1]) @ columns, from_left + rows.sum(-1, keepdim=True) * added
        else:
            added = added.expand(form)
            from_right, from_left = from_right + added @ columns, from_left + rows @ added
    by_right, by_left = _both(got, columns, rows)
    by_row, by_column = (by_right - from_right).square().mean(-1), (by_left - from_left).square().mean(-2)
    squares = got * got  # where it leaves fp32's range, the error is not explained here
    allowed = 2.0**-48 / 3
    tiny = torch.finfo(torch.float32).tiny ** 2
    worst = max(
        float((errors / (allowed * sums + tiny)).max())
        for errors, sums in ((by_row, squares.sum(-1)), (by_column, squares.sum(-2)), (by_row.sum(), squares.sum()))
    )
    return worst**0.5 if math.isfinite(worst) else None


def _both(matrix: torch.Tensor, columns: torch.Tensor | None, rows: torch.Tensor | None = None) -> tuple[Any, Any]:
    """``matrix @ columns`` and ``rows @ matrix`` in fp64; None for what is not given.

    With the few vectors on the left: BLAS libraries are up to ten times slower where a large matrix meets a factor of 3 columns. Large
    ones are widened in blocks, since fresh memory for the whole costs more than the products.
    """
    step = max(1, BLOCK // max(int(matrix.shape[-1]), 1))
    if matrix.dim() > 2 or len(matrix) < 8 * step:
        wide = matrix.to(torch.float64)
        return None if columns is None else (columns.mT @ wide.mT).mT, None if rows is None else rows @ wide
    by_columns = None if columns is None else matrix.new_empty((columns.shape[-1], len(matrix)), dtype=torch.float64)
    by_rows = None if rows is None else matrix.new_zeros((rows.shape[-2], matrix.shape[-1]), dtype=torch.float64)
    for begin in range(0, len(matrix), step):
        wide = matrix[begin : begin + step].to(torch.float64)
        if by_columns is not None and columns is not None:
            by_columns[:, begin : begin + step] = columns.mT @ wide.mT
        if by_rows is not None and rows is not None:
            by_rows += rows[..., begin : begin + step] @ wide
    return None if by_columns is None else by_columns.mT, by_rows


@functools.lru_cache(maxsize=64)
def _signs(length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(0, 2, (length, VECTORS), generator=generator).to(torch.float64) * 2 - 1
