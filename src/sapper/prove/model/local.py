"""The local error of one op, on the inputs that the device really had."""

from __future__ import annotations

import torch
from sapper.prove.call import Call
from sapper.prove.judge import judge
from sapper.prove.reference import NoReference, refer
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
        return judge(got, refer(call.computation(labels)), labels), None
    except (NoReference, NotImplementedError):  # the latter of an op that must run once for its outputs to be known
        return [], "no-reference"
