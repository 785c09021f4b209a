"""Couplings by folder and class: stacked bars, of folders that are split as deep as there is something to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from sapper.port.report.judged import CLASSES, Judged
from sapper.port.rule import Class

MOST_FOLDERS = 18
WORTH_SPLITTING_SHARE = 0.12
"""A folder with more of all couplings than this is shown by what is in it."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One class in a bar."""

    klass: Class
    count: int
    share: float
    """Of the longest bar."""


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """One bar."""

    path: str
    """Ends in a slash where it is a folder; ``.`` for the files at the top."""
    count: int
    silent: int
    files: int
    pieces: tuple[Piece, ...]


def folders(ties: Sequence[Judged]) -> tuple[tuple[Folder, ...], int]:
    """The bars, the longest first, and how many couplings are in folders beyond them."""
    groups = _split(ties)
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    longest = max((len(group) for _, group in ranked), default=1)
    shown = tuple(_folder(path, group, longest) for path, group in ranked[:MOST_FOLDERS])
    return shown, sum(len(group) for _, group in ranked[MOST_FOLDERS:])


def classes_of(bars: Iterable[Folder]) -> tuple[Class, ...]:
    """Classes that occur, in the order of the stack."""
    there = {piece.klass for bar in bars for piece in bar.pieces}
    return tuple(klass for klass in CLASSES if klass in there)


def _split(ties: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Groups by folder: the heaviest one is opened until none is heavy or there are enough."""
    groups, whole = _children("", ties), set[str]()
    while len(groups) < MOST_FOLDERS:
        heavy = [path for path, group in groups.items() if path not in whole and len(group) > WORTH_SPLITTING_SHARE * len(ties)]
        if not heavy:
            break
        path = max(heavy, key=lambda name: (len(groups[name]), name))
        inner = _children(path, groups[path]) if path.endswith("/") else {}
        if len(inner) < 2 or len(groups) + len(inner) - 1 > MOST_FOLDERS + 6:
            only = next(iter(inner), path)
            if len(inner) == 1 and only.endswith("/"):
                groups[only] = groups.pop(path)
            else:
                whole.add(path)
            continue
        del groups[path]
        groups |= inner
    return groups


def _children(folder: str, group: Iterable[Judged]) -> dict[str, list[Judged]]:
    """What is right under ``folder``: its folders, and its own files together."""
    found: dict[str, list[Judged]] = {}
    for one in group:
        head, slash, _ = one.finding.place.path.removeprefix(folder).partition("/")
        own = f"{folder}*" if folder else "."
        found.setdefault(f"{folder}{head}/" if slash else own, []).append(one)
    return found


def _folder(path: str, group: Sequence[Judged], longest: int) -> Folder:
    counts = Counter(one.rule.klass for one in group)
    return Folder(
        path=path, count=len(group), silent=sum(one.quiet is not None for one in group),
        files=len({one.finding.place.path for one in group}),
        pieces=tuple(Piece(klass=klass, count=counts[klass], share=counts[klass] / longest) for klass in CLASSES if counts[klass]),
    )  # fmt: skip
