"""The local error of one op, as lean as it can be: the trusted peer and the spread are computed only where the rule asks for them."""

from __future__ import annotations

from typing import Any

from sapper.prove import reference
from sapper.prove.call import Call
from sapper.prove.judge import judge
from sapper.prove.verdict import Score


def judged(call: Call, got: list[Any]) -> tuple[list[Score], str | None]:
    """Scores of the outputs of a call; without any, why: ``no-reference``.

    Args:
        call: With the inputs that the device had.
        got: What it made of them, on the CPU.
    """
    try:
        found = reference.refer(call.computation())
        scores = judge(got, found, call.labels)
    except reference.NoReference:
        return [], "no-reference"
    return scores, None
