"""Errors that a user may meet, as one small tree.

SapperError                      every error of ours; carries a message code, never a bare sentence
|- InputError                    what the user gave cannot be used (exit code 2)
|  |- BadFile                    a file is missing, malformed, or holds a field that we do not know
|  |- BadValue                   a number or unit that cannot be meant
|  |- UnknownName                no such chip, model, field, ...; carries near names
|  |- AmbiguousName              a name that several things bear; carries the candidates
|  |- BadPlan                    a parallel plan that does not fit the cluster or the model
|- StoreError                   the evidence store is out of reach, full, foreign, or newer than this Sapper
|- MissingFact                   the catalogue does not know a value that the question needs
|- InvariantError                an impossible result: our own bug, never the user's

A message is a code in ``messages/data/*.toml`` with the texts ``en`` and ``zh`` and, in ``next_en`` and ``next_zh``,
the next step. ``values`` fill the placeholders of both.
"""

from __future__ import annotations

from typing import Any


class SapperError(Exception):
    """An error with a message code, the place where it arose, and the values that prove it.

    Args:
        code: Key of the message catalogue, such as ``SP-CHIP-001``.
        where: File, line, field or flag, such as ``plan.toml:3 tp``; None when there is no place.
        **values: What fills the placeholders of the message.
    """

    exit_code = 2

    def __init__(self, code: str, /, *, where: str | None = None, **values: Any) -> None:
        self.code = code
        self.where = where
        self.values = values
        super().__init__(code)

    def render(self, lang: str | None = None) -> str:
        """The whole message in ``en`` or ``zh``: place, what is wrong, and the next step on a line of its own."""
        from sapper import messages

        head = f"{self.where}: " if self.where else ""
        text = f"{head}{messages.text(self.code, lang, **self.values)} [{self.code}]"
        step = messages.next_step(self.code, lang, **self.values)
        return f"{text}\n  -> {step}" if step else text

    def __str__(self) -> str:
        return self.render("en")


class InputError(SapperError):
    """What the user gave cannot be used."""


class BadFile(InputError):
    """A file is missing, malformed, or holds a field that we do not know."""


class BadValue(InputError):
    """A number or unit that cannot be meant."""


class UnknownName(InputError):
    """A name that nothing bears."""


class AmbiguousName(InputError):
    """A name that several things bear."""


class BadPlan(InputError):
    """A parallel plan that fits neither the cluster nor the model."""


class StoreError(SapperError):
    """The evidence store is out of reach, full, foreign, or newer than this Sapper."""


class MissingFact(SapperError):
    """The catalogue does not know a value that the question needs."""


class InvariantError(SapperError):
    """An impossible result: a bug of ours."""
