"""What a campaign asks and finds, as ``ops.jsonl`` keeps it: a header, then a line for each case. Readable without PyTorch."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import msgspec

from sapper import files
from sapper.errors import BadFile
from sapper.prove.ops.entry import Phase
from sapper.prove.verdict import RED, CaseVerdict, Outcome

FORMAT = "sapper-prove-ops"
VERSION = 1
NAME = "ops.jsonl"
"""File of the run's folder."""
SAME_SHARE = 0.999
"""Share of rounded results equal to the CPU's bit for bit from which a stack without a count of kernels is taken to have used the
CPU: independent stacks sum in other orders."""
SAME_LEAST = 20


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The question."""

    backend: str
    dtypes: tuple[str, ...] = ("fp32",)
    phases: tuple[Phase, ...] = ("forward", "backward")
    pattern: str | None = None
    """Shell patterns of op names, separated by commas."""
    samples: int = 8
    """Of the database, for each op, dtype and phase."""
    edges: bool = True
    model: str | None = None
    """Whose ops are asked for, in place of the database's."""
    seed: int = 0


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """First line of the file."""

    format: str
    version: int
    sapper: str
    asked: Asked
    versions: dict[str, str]
    """Of the stack."""
    kind: str
    """``device`` or ``compiler``."""
    real: bool
    """False for an emulated chip."""
    entries: int
    """Ops times dtypes times phases that the question takes in."""
    ops: int
    """Different ops among them."""
    left_out: tuple[str, ...]
    """Ops of the database that none of these dtypes and phases takes in."""
    date: str


class Ops(msgspec.Struct, frozen=True, kw_only=True):
    """A file read back."""

    header: Header
    verdicts: tuple[CaseVerdict, ...]
    """Of cases that are settled."""
    pending: tuple[str, ...] = ()
    """Suspects that were not looked at alone before the run was stopped."""
    entries_done: int = 0
    same: int = 0
    """Results that were rounded and equal the CPU's bit for bit, of :attr:`rounded`, where the stack counts no kernels."""
    rounded: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return not self.pending and self.entries_done >= self.header.entries

    @property
    def suspected_fallback(self) -> bool:
        """Whether all looks as if the CPU had computed it."""
        return self.rounded >= SAME_LEAST and self.same >= SAME_SHARE * self.rounded

    def counts(self) -> Counter[Outcome]:
        """Cases by outcome."""
        return Counter(one.outcome for one in self.verdicts)

    def red(self) -> list[CaseVerdict]:
        """Findings."""
        return [one for one in self.verdicts if one.outcome in RED]


def read(path: str | os.PathLike[str]) -> Ops:
    """The file of a campaign, finished or not.

    Raises:
        BadFile: It is none.
    """
    text = files.read_text(path)
    lines = text[: text.rfind("\n") + 1].splitlines()  # the last may be torn while a campaign writes
    try:
        parsed = [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]
    except msgspec.MsgspecError as error:
        raise BadFile("SP-OPS-006", where=os.fspath(path)) from error
    first = parsed[0].get("header") if parsed else None
    if not isinstance(first, dict) or first.get("format") != FORMAT or first.get("version") != VERSION:
        raise BadFile("SP-OPS-006", where=os.fspath(path))
    header = files.decode(Header, first, path)
    return collected(header, {str(line.get("case")): line for line in parsed[1:]})


def collected(header: Header, by_case: dict[str, dict[str, Any]]) -> Ops:
    """What the lines of a journal say, the last of each case."""
    verdicts = [line for line in by_case.values() if "outcome" in line]
    settled = tuple(msgspec.convert(line, CaseVerdict) for line in verdicts if not line.get("suspect"))
    asked = [line["equals_peer"] for line in verdicts if line.get("equals_peer") is not None]
    found = Ops(
        header=header, verdicts=settled, pending=tuple(str(line["case"]) for line in verdicts if line.get("suspect")),
        entries_done=sum("entry" in line for line in by_case.values()), same=sum(asked), rounded=len(asked),
    )  # fmt: skip
    if not found.suspected_fallback:
        return found
    void = tuple(
        msgspec.structs.replace(one, outcome="void", reason="prove.ops.reason.same") if one.outcome in ("ok", "legal") else one
        for one in settled
    )
    return msgspec.structs.replace(found, verdicts=void)
