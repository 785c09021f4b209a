"""What the court finds: a blame, and each counter-run with what it says."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sapper import messages
from sapper.messages import Phrase
from sapper.prove import words
from sapper.prove.verdict import Blame, Outcome

Counter = Literal["alone", "again", "after", "reference", "truth", "peer", "spread", "exported", "coarse", "plain", "parts", "decomposed"]
"""A counter-run: the suspect alone in a fresh process, a second time, after others; the reference's own error, another truth, the
peer against the truth, the spread; the exported graph in a reference evaluator; operands of products in coarser formats; passes off;
op by op; decomposed."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One counter-run."""

    counter: Counter
    on: str
    """What ran it: a backend's name, or the CPU in a precision."""
    code: str
    """Message code of what it says, with ``values``."""
    values: dict[str, Any] = {}
    outcome: Outcome | None = None
    """What became of it; None where it measures the reference."""
    roundings_ratio: float | None = None
    """Its largest error in units of the output's rounding."""
    said: str | None = None
    """The stack's own words where it raised or died."""
    wall_s: float | None = None

    def sentence(self, lang: str | None = None) -> str:
        """What was run and what it says."""
        return messages.text(self.code, lang, on=self.on, **_spoken(self.values, self.outcome, self.roundings_ratio))


def _spoken(values: dict[str, Any], outcome: Outcome | None, roundings: float | None) -> dict[str, Any]:
    given = dict(values)
    if outcome is not None:
        given["outcome"] = Phrase(f"prove.outcome.{outcome}")
    given["size"] = "-" if roundings is None else f"{roundings:.2g}"
    return given


class Ruling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose fault it is, and why."""

    blame: Blame
    reason: str
    """Message code of the row of the truth table that decided."""
    outcome: Outcome
    """What became of the suspect when it ran alone."""
    evidence: tuple[Evidence, ...] = ()
    facts: dict[str, bool] = {}
    """What the evidence establishes, by the names of the truth table; what it leaves open is not there."""

    def sentences(self, lang: str | None = None) -> list[str]:
        """The ruling, then each piece of evidence."""
        return [f"{words.blame(self.blame, lang)}: {messages.text(self.reason, lang)}", *(one.sentence(lang) for one in self.evidence)]
