"""Matrix products: dense, batched, grouped, scaled, and solves with a triangular matrix."""

from __future__ import annotations

import math
from typing import Any

from sapper.capture.rules import Cost, register


def _product(m: int, n: int, k: int, groups: int = 1) -> Cost:
    return Cost(kind="matmul", flops=2.0 * m * n * k * groups, m=m, n=n, k=k, groups=groups)


@register("aten.mm", "aten._int_mm", "aten._scaled_mm")
def mm(a: Any, b: Any, *_: Any, **__: Any) -> Cost:
    """``[M, K] @ [K, N]``."""
    return _product(a.shape[0], b.shape[1], a.shape[1])


@register("aten.addmm", "aten._addmm_activation")
def addmm(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> Cost:
    """``c + [M, K] @ [K, N]``."""
    return _product(a.shape[0], b.shape[1], a.shape[1])


@register("aten.bmm")
def bmm(a: Any, b: Any, *_: Any, **__: Any) -> Cost:
    """``[G, M, K] @ [G, K, N]``."""
    return _product(a.shape[1], b.shape[2], a.shape[2], a.shape[0])


@register("aten.baddbmm", "aten.addbmm")
def baddbmm(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> Cost:
    """``c + [G, M, K] @ [G, K, N]``."""
    return _product(a.shape[1], b.shape[2], a.shape[2], a.shape[0])


@register("aten.matmul")
def matmul(a: Any, b: Any, *_: Any, **__: Any) -> Cost:
    """``[..., M, K] @ [..., K, N]``, with leading dims broadcast; a matrix without them is shared by all rows."""
    if len(b.shape) <= 2:
        columns = b.shape[1] if len(b.shape) == 2 else 1
        return _product(math.prod(a.shape[:-1]), columns, a.shape[-1])
    rows = a.shape[-2] if len(a.shape) > 1 else 1
    lead = max(math.prod(a.shape[:-2]), math.prod(b.shape[:-2]))
    return _product(rows, b.shape[-1], a.shape[-1], lead)


@register("aten.linear")
def linear(x: Any, weight: Any, *_: Any, **__: Any) -> Cost:
    """``[..., K] @ [N, K]^T``."""
    return _product(math.prod(x.shape[:-1]), weight.shape[0], x.shape[-1])


@register("aten.linear_backward")
def linear_backward(x: Any, gradient: Any, weight: Any, mask: Any, **_: Any) -> Cost:
    """One product for the input gradient, one for the weight gradient, as ``mask`` asks."""
    m, n, k = math.prod(gradient.shape[:-1]), weight.shape[0], weight.shape[1]
    return Cost(kind="matmul", flops=2.0 * m * n * k * (bool(mask[0]) + bool(mask[1])), m=m, n=n, k=k)


@register("aten.mv")
def mv(a: Any, *_: Any, **__: Any) -> Cost:
    """``[M, K] @ [K]``."""
    return _product(a.shape[0], 1, a.shape[1])


@register("aten.addmv")
def addmv(_: Any, a: Any, *__: Any, **___: Any) -> Cost:
    """``c + [M, K] @ [K]``."""
    return _product(a.shape[0], 1, a.shape[1])


@register("aten.dot", "aten.vdot")
def dot(a: Any, *_: Any, **__: Any) -> Cost:
    """``[K] . [K]``."""
    return _product(1, 1, a.shape[0])


@register("aten._grouped_mm", "aten._scaled_grouped_mm")
def grouped_mm(a: Any, b: Any, *_: Any, **__: Any) -> Cost:
    """Rows sorted by group, each times its group's matrix: the FLOPs of the rows there are, whatever the routing.

    ``a`` [R, K] with ``b`` [G, K, N] is the forward pass and the input gradient, ``a`` [K, R] with ``b`` [R, N] (both
    2-d) the weight gradient, whose groups lie along R. M of a group is the mean of its rows, rounded up, over the
    groups that R rows can reach.
    """
    if len(a.shape) == 2 and len(b.shape) == 2:
        return Cost(kind="matmul", flops=2.0 * a.shape[0] * a.shape[1] * b.shape[1], m=a.shape[0], n=b.shape[1], k=a.shape[1], expert=True)
    if len(a.shape) == 2:
        rows, n, k, groups = a.shape[0], b.shape[-1], a.shape[1], b.shape[0]
    elif len(b.shape) == 2:
        rows, n, k, groups = b.shape[1], a.shape[-2], a.shape[-1], a.shape[0]
    else:
        return _product(a.shape[1], b.shape[2], a.shape[2], a.shape[0])
    reached = max(1, min(groups, rows))
    return Cost(
        kind="matmul", flops=2.0 * rows * n * k, m=math.ceil(rows / reached), n=n, k=k, groups=reached, expert=True,
        reads={1 if len(a.shape) == 2 else 0: float(reached * n * k)},
    )


@register("aten.linalg_solve_triangular", "aten.triangular_solve")
def solve_triangular(a: Any, b: Any, *_: Any, **__: Any) -> Cost:
    """``a`` [..., N, N] triangular, ``b`` [..., N, K]: N^2 K, half of a full product (Golub and Van Loan, section 3.1)."""
    n, k = b.shape[-2:]
    groups = math.prod(b.shape[:-2])
    return Cost(kind="matmul", flops=float(n * n * k * groups), m=n, n=k, k=n, groups=groups)


@register("aten._cdist_forward")
def cdist(a: Any, b: Any, *_: Any, **__: Any) -> Cost:
    """Distances of P and R points in K dims: subtract, power and add for each, on the vector unit."""
    return Cost(kind="elementwise", flops=3.0 * math.prod(a.shape) * b.shape[-2], reduces=True)


@register("aten._trilinear")
def trilinear(a: Any, b: Any, c: Any, *_: Any, out: Any, **__: Any) -> Cost:
    """Bilinear layers: for each of N outputs a product over K1 x K2 (a row of ``b`` each)."""
    m, n = math.prod(a.shape[:1]), out.shape[-1]
    k = math.prod(b.shape) // max(n, 1)
    return _product(m, n, k)
