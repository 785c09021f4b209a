"""Outcomes and blame in the user's language, the same words wherever a proof speaks of them."""

from __future__ import annotations

from sapper import messages
from sapper.prove.verdict import Blame, Outcome


def outcome(name: Outcome, lang: str | None = None) -> str:
    """What became of a case, in a word or two."""
    return messages.text(f"prove.outcome.{name}", lang)


def meaning(name: Outcome, lang: str | None = None) -> str:
    """The same in a sentence."""
    return messages.text(f"prove.meaning.{name}", lang)


def blame(name: Blame, lang: str | None = None) -> str:
    """Whose fault it is, in a word or two."""
    return messages.text(f"prove.blame.{name}", lang)
