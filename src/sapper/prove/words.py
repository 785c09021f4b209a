"""Outcomes, blame and sentences in the user's language, the same words wherever a proof speaks of them."""

from __future__ import annotations

from typing import Any

import msgspec

from sapper import messages
from sapper.prove.verdict import Blame, Outcome


class Saying(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sentence of the catalogue with its values, kept so that it can be said in either language."""

    code: str
    values: dict[str, Any] = {}

    def text(self, lang: str | None = None) -> str:
        """The sentence; values that are sentences themselves are in the same language."""
        values = {name: value.text(lang) if isinstance(value, Saying) else value for name, value in self.values.items()}
        return messages.text(self.code, lang, **values)


def outcome(name: Outcome, lang: str | None = None) -> str:
    """What became of a case, in a word or two."""
    return messages.text(f"prove.outcome.{name}", lang)


def meaning(name: Outcome, lang: str | None = None) -> str:
    """The same in a sentence."""
    return messages.text(f"prove.meaning.{name}", lang)


def blame(name: Blame, lang: str | None = None) -> str:
    """Whose fault it is, in a word or two."""
    return messages.text(f"prove.blame.{name}", lang)
