"""From an op's scores to its record."""

from __future__ import annotations

from collections.abc import Sequence

from sapper.prove.call import Call
from sapper.prove.model.result import OpRecord, Pass, Phase
from sapper.prove.verdict import Outcome, Score, worst


def record_of(
    call: Call, scores: Sequence[Score] = (), *, index: int, phase: Phase, path: str, at: Pass = "first", outcome: Outcome | None = None,
    reason: str | None = None, said: str | None = None,
) -> OpRecord:
    """The record of one op, by its worst output; ``outcome`` where no output could be judged."""
    bad = outcome or worst([one.outcome for one in scores] or ["ok"])
    alike = [one for one in scores if one.outcome == bad]
    first = max(alike, key=lambda one: one.ratio if one.ratio is not None else 0.0, default=None)
    record = OpRecord(
        index=index, op=call.op, phase=phase, path=path, outcome=bad, call=call.id, said=said, at=at, reason=reason, shapes=shapes_of(call)
    )
    if first is None:
        return record
    return OpRecord(
        index=index, op=call.op, phase=phase, path=path, outcome=bad, call=call.id, said=said, at=at, shapes=record.shapes,
        reason=reason or first.reason, values=dict(first.values), label=first.label, ratio=first.ratio, error_l2=first.error_l2,
        allowed_l2=first.allowed_l2,
    )


def shapes_of(call: Call) -> str:
    """The tensors that go in, as text; of many the first."""
    return ", ".join(f"{str(one.dtype)[6:]}{list(one.shape)}" for one in call.tensors[:8])
