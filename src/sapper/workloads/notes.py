"""Notes: sentences that come with a model. They are kept in English and said in the user's language."""

from __future__ import annotations

from typing import Any

from sapper import messages

AREA = "model.note"


def note(code: str, /, **values: Any) -> str:
    """The sentence ``model.note.<code>`` in English, in which form models and workloads carry it."""
    return messages.text(f"{AREA}.{code}", "en", **values)


def said(text: str, lang: str | None = None) -> str:
    """A note in ``lang`` (None: the language in force)."""
    return messages.Foreign(AREA, text).render(lang or messages.language())
