"""Degrees of exports that multiply them: what a benchmark's table says of one worker after its columns were normalised.

Two exports of InferenceX hold degrees that were multiplied with the expert degree: a server of 8 chips with TP 8 and EP 8
stands there as TP 64, and with data-parallel attention as attention DP 64. The same measurements stand in another export as
they were run, so the rule is certain (docs/validation.md).
"""

from __future__ import annotations


def divided(*, tp: int, dp: int, ep: int) -> tuple[int, int, int]:
    """Tensor, attention-data and expert parallel degrees before they were multiplied."""
    if ep <= 1:
        return tp, dp, ep
    if dp == 1 and tp % ep == 0:
        return tp // ep, 1, min(ep, tp // ep)
    if tp == 1 and dp % ep == 0:
        return 1, dp // ep, min(ep, dp // ep)
    if tp == dp and ep == tp * dp:
        return 1, dp, dp
    return tp, dp, ep
