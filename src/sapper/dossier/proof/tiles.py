"""Maps of many outcomes: groups of squares, one for each op or edit, in the colour of its worst case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from sapper import messages
from sapper.dossier.proof import families
from sapper.dossier.proof.parts.change import why_of
from sapper.dossier.proof.parts.ops import plain
from sapper.dossier.proof.wording import first_line, reason_of
from sapper.prove.change.result import ChangeProof
from sapper.prove.ops.result import Ops
from sapper.prove.verdict import GREEN, SEVERITY, CaseVerdict, Outcome, worst
from sapper.prove.words import outcome


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """One op, or one edit."""

    name: str
    outcome: Outcome
    """The worst of its cases."""
    counts: tuple[tuple[Outcome, str, int], ...]
    """Outcome, its word, cases; worst first."""
    why: str


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Tiles that belong together."""

    name: str
    tiles: tuple[Tile, ...]
    counts: tuple[tuple[Outcome, str, int], ...]
    """Outcome, its word, tiles of which it is the worst."""

    @property
    def notable(self) -> tuple[Tile, ...]:
        """Those that are not simply right."""
        return tuple(one for one in self.tiles if one.outcome not in GREEN)


def legend_of(groups: Sequence[Group], lang: str) -> list[tuple[Outcome, str]]:
    """Outcomes that occur, the best first, with their words: the map's legend."""
    there = {name for group in groups for name, _, _ in group.counts}
    return [(name, outcome(name, lang)) for name in reversed(SEVERITY) if name in there]


def map_of_ops(ops: Ops, lang: str) -> tuple[Group, ...]:
    """Families of ops; those with the worst ops first."""
    by_op: dict[str, list[CaseVerdict]] = {}
    for case in ops.verdicts:
        by_op.setdefault(plain(case.op), []).append(case)
    tiles: dict[str, list[Tile]] = {}
    for op, cases in by_op.items():
        tiles.setdefault(families.family_of(op), []).append(_tile(op, cases, lang))
    return _ranked([_group(messages.text(f"proof.family.{families.key(name)}", lang), group, lang) for name, group in tiles.items()])


def map_of_changes(proof: ChangeProof, lang: str) -> tuple[Group, ...]:
    """Families of edits; those with the worst outcome first."""
    tiles: dict[str, list[Tile]] = {}
    for one in proof.results:
        counts = ((one.outcome, outcome(one.outcome, lang), 1),)
        why = "" if one.outcome in GREEN else why_of(one).text(lang)
        tiles.setdefault(one.edit.family, []).append(Tile(name=one.edit.name, outcome=one.outcome, counts=counts, why=why))
    return _ranked([_group(messages.text(f"prove.change.family.{name}", lang), group, lang) for name, group in tiles.items()])


def _ranked(groups: list[Group]) -> tuple[Group, ...]:
    return tuple(sorted(groups, key=lambda one: (SEVERITY.index(one.tiles[0].outcome), -len(one.notable), one.name)))


def _group(name: str, tiles: list[Tile], lang: str) -> Group:
    ranked = sorted(tiles, key=lambda one: (SEVERITY.index(one.outcome), one.name))
    return Group(name=name, tiles=tuple(ranked), counts=_counted(Counter(one.outcome for one in tiles), lang))


def _tile(op: str, cases: list[CaseVerdict], lang: str) -> Tile:
    bad = worst([case.outcome for case in cases])
    case = next(one for one in cases if one.outcome == bad)
    reason = reason_of(case.reason, case.values)
    why = reason.text(lang) if reason else first_line(case.said) or messages.text(f"prove.meaning.{bad}", lang)
    return Tile(name=op, outcome=bad, counts=_counted(Counter(one.outcome for one in cases), lang), why="" if bad in GREEN else why)


def _counted(counts: Counter[Outcome], lang: str) -> tuple[tuple[Outcome, str, int], ...]:
    return tuple((name, outcome(name, lang), counts[name]) for name in SEVERITY if counts[name])
