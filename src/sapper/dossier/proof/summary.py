"""What a folder of proofs comes to: a verdict, who is to blame, what was not covered, and each check; page, JSON and JUnit show it.

A check is of one of two types, as in tenders: *pass-type* items hold or do not, *quantified* items have a figure and perhaps a limit.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sapper import __version__
from sapper.prove.results import Part, Results
from sapper.prove.verdict import Blame, Outcome
from sapper.prove.words import Saying

Verdict = Literal["red", "green", "unproven"]
"""``red``: something is wrong; ``green``: what was run is right; ``unproven``: nothing was found, for want of evidence."""
Answer = Literal["pass", "fail", "unknown"]
EXCUSED: frozenset[str] = frozenset({"model", "reference", "legal"})
"""Blames that leave the device and its stack without fault."""
FORMAT, VERSION = "sapper-proof-report", 1


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of the report."""

    part: Part
    name: str
    """Of the message ``proof.check.PART.NAME``."""
    type: Literal["pass", "quantified"]
    answer: Answer
    value: float | None = None
    """Of a quantified item; None: not known."""
    unit: str = "1"
    limit: float | None = None
    """What the value is held against; None: it is for information."""
    most: bool = True
    """Whether the limit is an upper one."""
    why: Saying | None = None
    """What decided."""


class Found(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is wrong, or that looked so until the counter-runs excused the device."""

    part: Part
    op: str
    """The op, or the quantity where no op is accused."""
    where: str = ""
    """Module, phase, step or edit."""
    outcome: Outcome
    blame: Blame | None = None
    evidence: tuple[Saying, ...] = ()
    """What decided the blame."""
    ratio: float | None = None
    """Error over what is allowed."""
    count: int = 1
    why: Saying | None = None
    said: str | None = None
    """The stack's own words."""
    repro: str | None = None
    """Script, relative to the folder."""

    @property
    def excused(self) -> bool:
        """Whether it is no fault of what was proved."""
        return self.blame in EXCUSED


class Subject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one part was run on."""

    part: Part
    backend: str
    target: str | None = None
    dtype: str | None = None
    real: bool | None = None
    """False: an emulated chip; None: the part does not say."""
    where: str | None = None
    """Where it executed, by the stack's own evidence."""
    versions: dict[str, str] = {}
    date: str = ""
    sapper: str = ""
    seed: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole, as ``--json`` prints it."""

    format: str
    version: int
    sapper: str
    verdict: Verdict
    blame: Blame | None
    """Of the first finding that has one."""
    guilty: Found | None
    """The finding that the report leads with."""
    ran: tuple[Part, ...]
    not_covered: tuple[Saying, ...]
    subjects: tuple[Subject, ...]
    checks: tuple[Check, ...]
    found: tuple[Found, ...]
    """Worst first, those that are excused last."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """What one part adds."""

    subjects: tuple[Subject, ...] = ()
    checks: tuple[Check, ...] = ()
    found: tuple[Found, ...] = ()
    not_covered: tuple[Saying, ...] = ()


def summarised(results: Results) -> Report:
    """The report of a folder."""
    from sapper.dossier.proof.parts import sections_of

    sections = sections_of(results)
    checks = tuple(check for section in sections for check in section.checks)
    found = _ranked([one for section in sections for one in section.found])
    accused = [one for one in found if not one.excused]
    guilty = accused[0] if accused else None
    return Report(
        format=FORMAT, version=VERSION, sapper=__version__, verdict=_verdict(checks), guilty=guilty,
        blame=next((one.blame for one in accused if one.blame not in (None, "unknown")), None), ran=results.ran,
        not_covered=(*_missing(results), *(gap for section in sections for gap in section.not_covered)),
        subjects=tuple(one for section in sections for one in section.subjects), checks=checks, found=found,
    )  # fmt: skip


def _verdict(checks: tuple[Check, ...]) -> Verdict:
    answers = {check.answer for check in checks}
    if "fail" in answers:
        return "red"
    evidence = [check for check in checks if check.name == "executed"]
    proven = any(check.answer == "pass" and check.name != "executed" for check in checks)
    return "green" if proven and all(check.answer != "unknown" for check in evidence) else "unproven"


_LEADING: tuple[Part, ...] = ("model", "ops", "change", "train", "speed", "doctor")
"""A model's guilty op is what the user came for; ops by themselves come next, and symptoms after causes."""


def _ranked(found: list[Found]) -> tuple[Found, ...]:
    """By part; inside a part as it ranks them itself."""
    return tuple(sorted(found, key=lambda one: (one.excused, _LEADING.index(one.part))))


def _missing(results: Results) -> list[Saying]:
    damaged = [
        Saying(code="proof.gap.unreadable", values={"file": error.where or part, "code": error.code})
        for part, error in (results.unreadable or {}).items()
    ]
    return damaged + [Saying(code=f"proof.gap.absent.{part}") for part in results.absent]

