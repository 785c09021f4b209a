"""The local error of one op, as lean as it can be.

Most ops of a step are elementwise and right to the last bit or two, which two cheap passes over their output show. The rule is
asked about the others; it computes the trusted peer and the spread where it needs them.
"""

from __future__ import annotations

import torch
from sapper.prove.call import Call
from sapper.prove.judge import judge
from sapper.prove.reference import UNIT_ROUNDOFF, NoReference, refer
from sapper.prove.verdict import Score

ROUNDINGS = 3.0
"""Unit roundoffs of each element within which no norm of the rule reaches its limit: sqrt(3) times as many, of 8, in L2."""


def judged(call: Call, got: list[torch.Tensor]) -> tuple[list[Score], str | None]:
    """Scores of the outputs of a call; without any, why: ``no-reference``.

    Args:
        call: With the inputs that the device had.
        got: What it made of them, on the CPU.
    """
    try:
        reference = refer(call.computation())
        plain = [_within_roundings(one, true, reference.dtypes) for one, true in zip(got, reference.truth, strict=False)]
        if len(got) == len(reference.truth) and all(ratio is not None for ratio in plain):
            return [Score(label=label, outcome="ok", ratio=ratio) for label, ratio in zip(call.labels, plain, strict=True)], None
        return judge(got, reference, call.labels), None
    except NoReference:
        return [], "no-reference"


def _within_roundings(got: torch.Tensor, truth: torch.Tensor, dtypes: frozenset[torch.dtype] | None) -> float | None:
    """The ratio where each element is the rounded truth (0) or, in fp32, at most :data:`ROUNDINGS` from it (1); else None.

    In a low precision an error of all elements by one share may hide behind roundings, which the rule looks for.
    """
    if got.shape != truth.shape:
        return None
    if got.dtype not in UNIT_ROUNDOFF:
        return 0.0 if got.dtype == truth.dtype and torch.equal(got, truth) else None
    if dtypes != frozenset((got.dtype,)):
        return None
    rounded = truth.to(got.dtype)
    if torch.equal(got, rounded):
        return 0.0
    if got.dtype != torch.float32:
        return None
    more = (ROUNDINGS - 1) * UNIT_ROUNDOFF[got.dtype]
    apart, allowed = (got - rounded).abs_(), rounded.abs_().mul_(more).add_(torch.finfo(got.dtype).tiny)
    return 1.0 if bool((apart <= allowed).all()) else None


