"""The local error of one op, on the inputs that the device really had."""

from __future__ import annotations

import torch
from sapper.prove.call import Call
from sapper.prove.judge import judge, same
from sapper.prove.reference import UNIT_ROUNDOFF, NoReference, kind_of, refer
from sapper.prove.verdict import Score

_labels: dict[str, tuple[str, ...]] = {}
"""By id of the call: of an op that changes its inputs they are found by running it, which is done once for all of a kind."""


def judged(call: Call, got: list[torch.Tensor]) -> tuple[list[Score], str | None]:
    """Scores of the outputs of a call; without any, why: ``no-reference``.

    Args:
        call: With the inputs that the device had.
        got: What it made of them, on the CPU.
    """
    labels = _labels.get(call.id)
    try:
        if labels is None:
            labels = _labels[call.id] = call.labels
        return _as_the_peer(call, got, labels) or judge(got, refer(call.computation(labels)), labels), None
    except (NoReference, NotImplementedError):  # the latter of an op that must run once for its outputs to be known
        return [], "no-reference"


def _as_the_peer(call: Call, got: list[torch.Tensor], labels: tuple[str, ...]) -> list[Score] | None:
    """The scores of outputs which equal the peer's, of an op whose peer is trusted; None of others, which the rule has to look at.

    So :func:`judge` would say, and most ops of a step are such; to put a reference together for each takes longer than small ops do.
    """
    if kind_of(call) not in ("exact", "arithmetic"):
        return None
    try:
        peer = call.run()
    except Exception:
        return None
    if len(peer) != len(got) or not all(one.dtype == other.dtype and same(one, other) for one, other in zip(got, peer, strict=True)):
        return None
    return [
        Score(label=label, outcome="ok", ratio=0.0 if one.dtype in UNIT_ROUNDOFF else None) for label, one in zip(labels, got, strict=False)
    ]
