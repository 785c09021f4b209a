"""Proven: what a folder of ``sapper prove`` comes to, condensed, with its sentences in both languages."""

from __future__ import annotations

from typing import Literal

import msgspec

from sapper.prove.verdict import Blame, Outcome

Standing = Literal["device", "emulated", "host", "other"]
"""``device``: counts for the chip; ``emulated``: an emulated chip; ``host``: the host's processor; ``other``: a device that says it is
another chip. All but the first are no evidence."""
MOST_GUILTY = 12
"""Accused that the condensed form keeps; ``findings`` counts them all."""


class Accused(msgspec.Struct, frozen=True, kw_only=True):
    """An op, or a quantity, that is wrong and not excused by the counter-runs."""

    part: str
    op: str
    where: str
    outcome: Outcome
    blame: Blame | None
    ratio: float | None
    """Error over what is allowed."""
    count: int
    why: dict[str, str]
    """What decided, by language."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A short training against correct runs."""

    steps_inside: int
    """Before anything left the envelope."""
    steps_asked: int
    left_first: str | None
    """What left first, as ``grad NAME``; None: nothing did."""


class Survival(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of the model that the stack was put to."""

    tried: int
    known: int
    """Changes that there are."""
    outcomes: dict[Outcome, int]


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How near the ops come to what the machine can do; None: not known."""

    ops: int
    """Calls that were timed."""
    green_share: float | None
    """Of the step, in ops that are right and fast."""
    roof_share: float | None
    """Least time by the measured roofline over the time taken."""
    launch_share: float | None
    """Of the step, bound by launches."""


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sapper prove`` found, for one chip; verdict and blame first, then what was not covered."""

    chip: str
    """Catalogue id. That the device was this chip is the word of whoever gave the folder, unless the device names another."""
    verdict: Literal["red", "green", "unproven"]
    blame: Blame | None
    standing: Standing
    other_chip: str | None
    """Catalogue id of the chip that the device says it is, where that is not ``chip``."""
    not_covered: tuple[dict[str, str], ...]
    """Sentences by language."""
    covered: tuple[dict[str, str], ...]
    """Sentences by language: what was looked at, with counts."""
    ran: tuple[str, ...]
    """Parts: doctor, ops, model, train, change, speed."""
    unreadable: tuple[str, ...]
    """Parts whose file is damaged or of another version."""
    date: str
    """Of the newest part, ISO 8601; empty where no part says."""
    backends: tuple[str, ...]
    targets: tuple[str, ...]
    dtypes: tuple[str, ...]
    versions: dict[str, str]
    sapper: tuple[str, ...]
    """Versions of Sapper that proved."""
    items: dict[str, int]
    """Items of the report by answer: pass, fail, unknown."""
    outcomes: dict[Outcome, int]
    """Occurrences of findings by outcome, those that are excused left out."""
    findings: int
    guilty: tuple[Accused, ...]
    """Worst first, at most :data:`MOST_GUILTY`."""
    train: Envelope | None
    survival: Survival | None
    speed: Pace | None
