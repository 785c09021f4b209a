"""How much of the verdict tables is known: per rule and target, and per name.

A rule's cell counts as known when its leading coupling (the first name, package or module that the rule lists, or the
rule itself where it lists none) has a verdict with a source. ``names`` counts every public name of every rule.
"""

from __future__ import annotations

import msgspec

from sapper.port.finding import Finding, Place
from sapper.port.rule import Rule, rules
from sapper.port.target import Target, targets
from sapper.port.verdict import Cell
from sapper.port.verdicts import verdict


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """Of one target, or of all (``target`` None)."""

    target: str | None
    known: int
    rules: int
    known_names: int
    names: int
    holes: tuple[str, ...]
    """``code target`` of each rule that is not known."""

    @property
    def share(self) -> float:
        """Of rules whose cell has a source."""
        return self.known / self.rules if self.rules else 0.0

    @property
    def share_of_names(self) -> float:
        """Of public names whose cell has a source."""
        return self.known_names / self.names if self.names else 0.0


def couplings(rule: Rule) -> tuple[str, ...]:
    """Public names, packages and modules that a rule lists, without patterns; ``rule.name`` where it lists none."""
    listed = [*rule.match.names, *rule.match.packages, *rule.match.imports]
    plain = [name for name in listed if "*" not in name and "[" not in name and "._" not in name]
    return tuple(dict.fromkeys(plain)) or (rule.name,)


def cell(rule: Rule, coupling: str, target: Target) -> Cell:
    """The verdict on a coupling of a rule, as a finding of it would get it."""
    return verdict(Finding(code=rule.code, place=Place("", 1, 0, 1, 0), symbol=coupling, excerpt=coupling), target)


def coverage() -> list[Coverage]:
    """For each target in the order of the file, then for all."""
    found = [_of(target) for target in targets().values()]
    total = Coverage(
        target=None,
        known=sum(item.known for item in found),
        rules=sum(item.rules for item in found),
        known_names=sum(item.known_names for item in found),
        names=sum(item.names for item in found),
        holes=tuple(hole for item in found for hole in item.holes),
    )
    return [*found, total]


def _of(target: Target) -> Coverage:
    known: dict[str, list[bool]] = {
        code: [cell(rule, coupling, target).status != "unknown" for coupling in couplings(rule)] for code, rule in rules().items()
    }
    return Coverage(
        target=target.name,
        known=sum(cells[0] for cells in known.values()),
        rules=len(known),
        known_names=sum(sum(cells) for cells in known.values()),
        names=sum(len(cells) for cells in known.values()),
        holes=tuple(f"{code} {target.name}" for code, cells in known.items() if not cells[0]),
    )
