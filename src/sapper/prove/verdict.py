"""The nouns of every proof: what became of a case, how far each output is from the truth, and whose fault it is."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Outcome = Literal[
    "ok", "legal", "imprecise", "wrong", "nan", "crash", "hang", "memory", "unsupported", "fallback", "nondeterministic", "stateful",
    "void", "skipped",
]  # fmt: skip
"""What became of a case.

======================= ==========================================================================================
``ok``                  within what a correct stack of this precision does
``legal``               differs in a way that is allowed: ties of a sort, denormals flushed, a documented choice
``imprecise``           right to a coarser precision than asked for: narrow accumulation, fp32 run as bf16
``wrong``               wrong values, shape or dtype
``nan``                 NaN or infinity where there is none, or none where there is one
``crash``               the process died, or the stack raised where the reference does not
``hang``                no answer within the time limit
``memory``              out of memory far beyond what the case needs
``unsupported``         the stack says that it does not have this op or dtype
``fallback``            computed, but not on the device
``nondeterministic``    two runs on equal inputs differ beyond what a correct stack does
``stateful``            right when alone, wrong after others
``void``                no evidence that the device executed
``skipped``             not run, or not judged as a whole, with the reason; counts as not covered
======================= ==========================================================================================
"""

RED: frozenset[str] = frozenset({"imprecise", "wrong", "nan", "crash", "hang", "memory", "fallback", "nondeterministic", "stateful"})
"""Outcomes that are findings."""
UNPROVEN: frozenset[str] = frozenset({"unsupported", "void", "skipped"})
"""Outcomes that neither accuse nor acquit."""
GREEN: frozenset[str] = frozenset({"ok", "legal"})

SEVERITY: tuple[Outcome, ...] = (
    "crash", "hang", "memory", "nan", "wrong", "stateful", "nondeterministic", "imprecise", "fallback", "unsupported", "void",
    "skipped", "legal", "ok",
)  # fmt: skip
"""Worst first: a case with several outputs is as bad as its worst one."""

Blame = Literal["model", "kernel", "compiler", "exporter", "state", "reference", "legal", "unknown"]
"""Whose fault a difference is; the chip's is ``kernel``."""


class Score(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far one output is from the truth, and what was allowed. Errors are relative to the truth's scale."""

    label: str
    """Of the output, such as ``value`` or ``grad of input 1``."""
    outcome: Outcome
    ratio: float | None = None
    """Largest, over the norms, of the error over the allowed error's unit; up to ``rule.OK`` is right."""
    error_l2: float | None = None
    """|device - truth|_2 / |truth|_2."""
    error_max: float | None = None
    """max|device - truth| / rms|truth|."""
    allowed_l2: float | None = None
    """Error of a correct stack on the same inputs, in the norm of ``error_l2``."""
    allowed_max: float | None = None
    bias: float | None = None
    """Mean signed error over its standard error, where it was tested."""
    reason: str | None = None
    """Message code of what decided, with ``values``."""
    values: dict[str, Any] = {}


class CaseVerdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one case, over its outputs and runs."""

    case: str
    """Id of the case, stable from run to run."""
    op: str
    """``aten::name.overload`` or the name in PyTorch's op database."""
    outcome: Outcome
    dtype: str | None = None
    phase: Literal["forward", "backward", "step"] = "forward"
    scores: tuple[Score, ...] = ()
    reason: str | None = None
    """Message code of what decided, with ``values``; the stack's own words are in ``said``."""
    values: dict[str, Any] = {}
    said: str | None = None
    """What the stack raised or the signal that ended it."""
    where: str | None = None
    """Where it executed, by the stack's own evidence."""
    wall_s: float | None = None
    """Wall time of the case on the device, compilation included."""
    repro: str | None = None
    """Path of a script that shows it alone, relative to the run's folder."""
    no_repro: str | None = None
    """Message code of why there is none, where one was tried."""


def worst(outcomes: list[Outcome]) -> Outcome:
    """The worst of several outcomes; ``skipped`` where there is none."""
    return min(outcomes, key=SEVERITY.index, default="skipped")
