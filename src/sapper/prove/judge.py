"""The rule: an output is right when its error is no larger than what a correct stack of the same precision may have.

For each output and each norm, ``ratio = |device - truth| / allowed``, where ``allowed`` is the largest of

- the error of the trusted peer on the same inputs in the same dtype;
- the spread: how far the truth moves when each input moves by up to a unit roundoff, which any stack that rounds its inputs may;
- the rounding of the output itself, half a unit in the last place.

Two norms, since either alone is blind: the L2 norm misses one bad element, the largest error misses a small bias of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sapper.prove.reference import UNIT_ROUNDOFF, Reference, widen
from sapper.prove.verdict import Score

OK = 4.0
"""Ratio up to which an output is right: healthy independent stacks reach 1.7 (fp32) to 2.2 (fp16) at their 99th percentile."""
RED = 8.0
"""Ratio from which it is a finding; between the two it is worth a look, and not accused."""


def judge(got: Sequence[torch.Tensor], reference: Reference, labels: Sequence[str]) -> list[Score]:
    """One score for each output of a computation; ``got`` lies on the CPU."""
    return [
        _score(one, truth, peer, [run[at] for run in reference.spread], label)
        for at, (one, truth, peer, label) in enumerate(zip(got, reference.truth, reference.peer, labels, strict=True))
    ]


def _score(got: torch.Tensor, truth: torch.Tensor, peer: torch.Tensor, spread: Sequence[torch.Tensor], label: str) -> Score:
    if got.shape != peer.shape or got.dtype != peer.dtype:
        forms = {"expected": f"{peer.dtype}{list(peer.shape)}", "got": f"{got.dtype}{list(got.shape)}"}
        return Score(label=label, outcome="wrong", reason="prove.reason.form", values=forms)
    if got.dtype not in UNIT_ROUNDOFF:
        return Score(label=label, outcome="ok" if torch.equal(got, truth.to(got.dtype)) else "wrong", reason="prove.reason.exact")
    if not got.numel():
        return Score(label=label, outcome="ok")
    wide, rounded = widen(got), widen(truth.to(got.dtype))
    odd = ~torch.isfinite(wide)
    for mask in (rounded, widen(peer)):
        if torch.equal(torch.isnan(wide), torch.isnan(mask)) and torch.equal(wide[torch.isinf(wide)], mask[torch.isinf(mask)]):
            break
    else:
        return Score(label=label, outcome="nan", reason="prove.reason.nan")
    keep = ~odd & torch.isfinite(truth)
    return _measured(wide[keep], truth[keep], widen(peer)[keep], [one[keep] for one in spread], got.dtype, label)


def _measured(
    got: torch.Tensor, truth: torch.Tensor, peer: torch.Tensor, spread: Sequence[torch.Tensor], dtype: torch.dtype, label: str
) -> Score:
    roundoff = UNIT_ROUNDOFF[dtype]
    tiny = torch.finfo(dtype).tiny
    l2 = max(float(truth.abs().square().sum().sqrt()), tiny)
    rms = max(l2 / max(truth.numel(), 1) ** 0.5, tiny)

    def errors(one: torch.Tensor) -> tuple[float, float]:
        apart = (one - truth).abs()
        return float(apart.square().sum().sqrt()) / l2, float(apart.max()) / rms if apart.numel() else 0.0

    error_l2, error_max = errors(got)
    others = [errors(one) for one in (peer, *spread)]
    largest = float(truth.abs().max()) / rms if truth.numel() else 0.0
    allowed_l2 = max(roundoff / 3**0.5, *(one[0] for one in others))
    allowed_max = max(roundoff * largest, *(one[1] for one in others))
    ratio = max(error_l2 / allowed_l2, error_max / allowed_max if allowed_max else 0.0)
    return Score(
        label=label, outcome="ok" if ratio <= RED else "wrong", ratio=ratio, error_l2=error_l2, error_max=error_max,
        allowed_l2=allowed_l2, allowed_max=allowed_max,
    )
