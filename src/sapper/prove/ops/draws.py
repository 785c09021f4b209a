"""Random ops: their streams are their own, so the distribution of what they draw is compared, pooled over outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from sapper.prove.verdict import Outcome, Score

VALUES = 2000
"""Values that are drawn on each side, by repeating small samples."""
LEAST_DRAWS, MOST_DRAWS = 20, 40
FALSE_ALARM_SHARE = 1e-7
"""Of right generators, those that the test accuses: with thousands of cases, fewer than one in a thousand campaigns."""


def compare(
    draw: Callable[[], Sequence[torch.Tensor]], *, reference: Callable[[], Sequence[torch.Tensor]], labels: Sequence[str]
) -> list[Score]:
    """One score for each output: form, then the two-sample test of Kolmogorov and Smirnov.

    Values of one draw need not be independent. In a permutation they are more alike than chance, which makes the test milder; where they
    come in groups (``dropout3d`` drops whole channels) they count as fewer, see :func:`_worth`.
    """
    first, expected = list(draw()), list(reference())
    size = max((one.numel() for one in expected), default=0)
    times = max(LEAST_DRAWS, min(MOST_DRAWS, math.ceil(VALUES / max(size, 1))))
    draws = [first, *(list(draw()) for _ in range(times - 1))]
    others = [expected, *(list(reference()) for _ in range(times - 1))]
    return [
        _score([one[at] for one in draws], [one[at] for one in others], label) for at, label in enumerate(labels)
    ]


def _score(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], label: str) -> Score:
    if got[0].dtype != expected[0].dtype or got[0].dim() != expected[0].dim():
        forms = {"expected": form(expected[0]), "got": form(got[0])}
        return Score(label=label, outcome="wrong", reason="prove.reason.form", values=forms)
    fixed = _all_alike(expected)
    ours, theirs = (_pool(one[:1] if fixed else one) for one in (got, expected))
    if not theirs.numel() or not ours.numel():
        return Score(label=label, outcome="ok" if theirs.numel() == ours.numel() else "wrong", reason="prove.ops.reason.drawn")
    if not fixed and _all_alike(got) and _chance_of_alike(got, expected) < FALSE_ALARM_SHARE:
        return Score(label=label, outcome="wrong", reason="prove.ops.reason.same_draw")
    distance, at = _distance(ours, theirs)
    worth = 1.0 if fixed else _worth(expected, at)
    most = _critical(worth * ours.numel(), worth * theirs.numel())
    outcome: Outcome = "ok" if distance <= most else "wrong"
    return Score(label=label, outcome=outcome, ratio=8 * distance / most, reason="prove.ops.reason.drawn")


def form(tensor: torch.Tensor) -> str:
    """Dtype and shape as a reader knows them."""
    return f"{str(tensor.dtype)[6:]}{list(tensor.shape)}"


def _pool(draws: Sequence[torch.Tensor]) -> torch.Tensor:
    flat = torch.cat([(torch.view_as_real(one) if one.is_complex() else one).reshape(-1).double() for one in draws])
    return torch.where(torch.isnan(flat), torch.full_like(flat, float("-inf")), flat)


def _all_alike(draws: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(one, draws[0]) for one in draws[1:])


def _chance_of_alike(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """How likely draws of one distribution put only equal ones, of which ``expected`` may have some, on the side of ``got``.

    Fisher's exact test, one-sided (R. A. Fisher, Statistical Methods for Research Workers, 5th edition, 1934, section 21.02): few outcomes
    of which one is frequent, as of pooling windows whose place is drawn, come up alone now and then.
    """
    equal = sum(torch.equal(one, got[0]) for one in expected)
    return math.comb(len(got) + equal, equal) / math.comb(len(got) + len(expected), len(expected))


def _distance(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """Largest difference of the two distribution functions, and where it is."""
    points = torch.cat([ours, theirs]).unique()
    below = [torch.searchsorted(one.sort().values, points, right=True) / one.numel() for one in (ours, theirs)]
    apart = (below[0] - below[1]).abs()
    return float(apart.max()), float(points[apart.argmax()])


def _worth(draws: Sequence[torch.Tensor], at: float) -> float:
    """How many independent values one value of the reference's draws is worth, at most 1: the inverse of Kish's design effect.

    Source: L. Kish, Survey Sampling (1965), section 8.1: the variance of the share of values up to ``at`` over draws, divided by that of
    as many independent values.
    """
    shares = torch.stack([(_pool([one]) <= at).double().mean() for one in draws])
    share, size = float(shares.mean()), _pool(draws[:1]).numel()
    alone = share * (1.0 - share) / size
    return 1.0 if alone == 0.0 else min(1.0, alone / max(float(shares.var()), alone))


def _critical(count: float, other: float) -> float:
    """Smirnov's bound for large samples: c sqrt((n + m) / nm) with c = sqrt(-ln(alpha / 2) / 2)."""
    return math.sqrt(-math.log(FALSE_ALARM_SHARE / 2) / 2) * math.sqrt((count + other) / (count * other))
