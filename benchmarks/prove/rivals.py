"""The rules in use, scored on the same faults.

Those of msprobe are as its release 26.2.0 states them: the verdict of its comparison (`check_accuracy`: cosine below 0.99 and largest
absolute error above 0.001, or cosine below 0.9 or error above 1), its statistics mode (an output's norm off by more than 50% while the
inputs' are off by less than 10%), and its double benchmark (errors of the device over those of the peer, both to a higher precision:
largest relative 10, 5 or 2, mean relative 2, 1.5 or 1.2, root mean square the same, by level of the op; floors 2^-14, 2^-11, 2^-8).
"""

from __future__ import annotations

import torch

LEVEL_1 = {"embedding", "scatter", "scatter_add"}
LEVEL_2 = {"addmm", "matmul", "mm", "gelu", "native_layer_norm", "index", "sum", "nonzero"}
LIMITS = {0: (10.0, 2.0, 2.0), 1: (5.0, 1.5, 1.5), 2: (2.0, 1.2, 1.2)}
FLOORS = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SMALL = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-10}
SMALL_ERROR = {torch.float16: 1e-16, torch.bfloat16: 1e-16}


def loss_differs(got: torch.Tensor, clean: torch.Tensor) -> bool:
    """By more than 1%."""
    return not bool((got - clean).abs() <= 0.01 * clean.abs())


def cosine(got: torch.Tensor, clean: torch.Tensor) -> float:
    """Of two tensors as vectors."""
    one, other = got.double().flatten(), clean.double().flatten()
    norm = float(one.norm() * other.norm())
    return float(one @ other) / norm if norm else float(torch.equal(one, other))


def cosine_low(got: torch.Tensor, clean: torch.Tensor, limit: float = 0.99) -> bool:
    """Below the limit, or of another shape."""
    return got.shape != clean.shape or not cosine(got, clean) >= limit


def msprobe_compare(got: torch.Tensor, clean: torch.Tensor) -> bool:
    """The verdict of its comparison of two dumps."""
    if got.shape != clean.shape:
        return True
    alike, apart = cosine(got, clean), float((got.double() - clean.double()).abs().max()) if got.numel() else 0.0
    return not (apart <= 1 and alike >= 0.9) or (alike < 0.99 and apart > 0.001)


def norm_off(got: torch.Tensor, clean: torch.Tensor, share: float) -> bool:
    """By more than a share."""
    one, other = float(got.double().norm()), float(clean.double().norm())
    return not abs(one - other) <= share * other


def msprobe_double(got: torch.Tensor, peer: torch.Tensor, truth: torch.Tensor, *, op: str) -> bool:
    """On the same inputs: error of the device over that of the peer."""
    level = 2 if op in LEVEL_2 else 1 if op in LEVEL_1 else 0
    tables = ((FLOORS, 2.0**-14), (SMALL, 2.0**-20), (SMALL_ERROR, 2.0**-30))
    floor, small, small_error = (table.get(peer.dtype, other) for table, other in tables)
    if not torch.equal(got.isfinite(), peer.isfinite()):
        return True
    finite = peer.isfinite()
    measured = []
    for one in (got, peer):
        apart = (one.double() - truth).abs()[finite]
        scale = truth.abs()[finite]
        normal = scale >= small
        relative = (apart / (scale + torch.finfo(peer.dtype).eps))[normal]
        little = (apart[~normal] > small_error).double()
        measured.append([
            float(relative.max()) if len(relative) else 0.0, float(relative.mean()) if len(relative) else 0.0,
            float(apart.square().mean().sqrt()) if len(apart) else 0.0, float(little.mean()) if len(little) else 0.0,
        ])  # fmt: skip
    ratios = [one / max(other, floor) for one, other in zip(*measured, strict=True)]
    return any(ratio > limit for ratio, limit in zip(ratios, (*LIMITS[level], 2.0), strict=True))


def plain_ratio(got: torch.Tensor, peer: torch.Tensor, truth: torch.Tensor, *, roundoff: float, limit: float = 8.0) -> bool:
    """The simplest ratio to an fp64 truth: L2 and largest error over the peer's or a rounding's, 8 times."""
    if not torch.equal(got.isfinite(), peer.isfinite()):
        return True
    finite = peer.isfinite() & truth.isfinite()
    got, peer, truth = got.double()[finite], peer.double()[finite], truth[finite]
    if not len(truth):
        return False
    norm, largest = float(truth.norm()), float(truth.abs().max())
    allowed = max(float((peer - truth).norm()), roundoff / 3**0.5 * norm), max(float((peer - truth).abs().max()), roundoff * largest)
    errors = float((got - truth).norm()), float((got - truth).abs().max())
    return any(error > limit * most for error, most in zip(errors, allowed, strict=True))
