"""Findings with their rules and verdicts, in the order in which they matter, and the choice among them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import get_args

import msgspec

from sapper.port.finding import Finding, Scan, Standing
from sapper.port.rule import Class, Rule, rules
from sapper.port.target import Target, targets
from sapper.port.verdict import Cell, Silence, Status
from sapper.port.verdicts import verdict

STATUSES: tuple[Status, ...] = get_args(Status)
STANDINGS: tuple[Standing, ...] = get_args(Standing)
CLASSES: tuple[Class, ...] = get_args(Class)
QUIET: tuple[Silence, ...] = ("inexact", "silent", "slower")
"""Kinds of silence that let the program go on, worst first: wrong numbers, another device, lost speed."""


class Judged(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A finding with what is known of it."""

    finding: Finding
    rule: Rule
    cells: dict[str, Cell]
    """By target, in the order in which targets were asked for."""

    def silence(self, target: str) -> Silence | None:
        """What one sees on ``target`` if nothing is done.

        Where no source tells, the rule's own word, which is of stacks that do not present themselves as CUDA.
        """
        cell = self.cells[target]
        if cell.silence is not None or cell.status != "unknown" or targets()[target].device == "cuda":
            return cell.silence
        return "silent" if self.rule.silent else None

    @functools.cached_property
    def quiet(self) -> Silence | None:
        """The worst silence over all targets; None where it fails aloud, or nobody knows."""
        seen = {self.silence(name) for name in self.cells}
        return next((kind for kind in QUIET if kind in seen), None)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which findings are wanted; an empty field wants all."""

    select: tuple[str, ...] = ()
    """Beginnings of codes, such as ``SP-PORT-1``; the short form ``1`` or ``101`` is understood."""
    ignore: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    standings: tuple[str, ...] = ()

    def wants(self, finding: Finding, rule: Rule) -> bool:
        """Whether ``finding`` is among them."""
        return (
            (not self.select or finding.code.startswith(self.select))
            and not (self.ignore and finding.code.startswith(self.ignore))
            and (not self.classes or rule.klass in self.classes)
            and (not self.standings or finding.standing in self.standings)
        )


def judge(scan: Scan, to: Sequence[Target], *, choice: Choice | None = None) -> tuple[Judged, ...]:
    """The findings of ``scan`` that are wanted with their verdicts: :func:`rank` gives the order."""
    known = rules()
    wanted = choice or Choice()
    cells: dict[tuple[object, ...], dict[str, Cell]] = {}
    found = []
    for finding in scan.findings:
        if wanted.wants(finding, known[finding.code]):
            alike = (finding.code, finding.symbol, *sorted(finding.values.items()))  # all that a verdict looks at
            if alike not in cells:
                cells[alike] = {target.name: verdict(finding, target) for target in to}
            found.append(Judged(finding=finding, rule=known[finding.code], cells=cells[alike]))
    return tuple(sorted(found, key=rank))


def rank(one: Judged) -> tuple[object, ...]:
    """Sorts what ties before what is explained, and silent couplings before those that fail aloud; then by place."""
    quiet = one.quiet
    return (
        STANDINGS.index(one.finding.standing),
        QUIET.index(quiet) if quiet else len(QUIET),
        one.finding.place.path, one.finding.place.cell or 0, one.finding.place.line, one.finding.place.column, one.finding.code,
    )  # fmt: skip


def tying(found: Iterable[Judged]) -> list[Judged]:
    """Those that make the exit code 1."""
    return [one for one in found if one.finding.standing == "ties"]


def prefixes(given: Iterable[str]) -> tuple[str, ...]:
    """Beginnings of codes from what was typed: ``101,SP-PORT-2`` is ``SP-PORT-101`` and ``SP-PORT-2``."""
    words = (word.strip().upper() for one in given for word in one.split(","))
    return tuple(word if word.startswith("SP") else f"SP-PORT-{word}" for word in words if word)
