"""The smallest edit that still fails: fewest layers, fewest samples, shortest samples, one after the other until none gets smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from sapper.prove.change.edit import Edit, Setting, Size

MOST_TRIES = 24
_SMALL = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 512, 513, 1024, 1025)
"""Numbers of samples or tokens that are tried: powers of two and their neighbours, where kernels change their ways."""


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """An edit at a size, seen to fail, and how many others were tried."""

    edit: Edit
    size: Size
    tries: int


def shrunk(edit: Edit, setting: Setting, *, fails: Callable[[Edit, Size], bool], most_tries: int = MOST_TRIES) -> Shrunk:
    """Delta debugging over the size of the program and of the edit itself.

    Args:
        edit: That fails on the program as it is.
        setting: What the program is.
        fails: Whether an edit at a size fails in the same way.
        most_tries: Questions that may be asked.
    """
    best, tries, changed = (edit, Size()), 0, True
    seen = {_key(edit, Size())}
    while changed:
        changed = False
        for axis in (_layers, _batches, _lengths, _amounts):
            for candidate in axis(*best, setting):
                if _key(*candidate) in seen:
                    continue
                if tries >= most_tries:
                    return Shrunk(edit=best[0], size=best[1], tries=tries)
                seen.add(_key(*candidate))
                tries += 1
                if fails(*candidate):
                    best, changed = candidate, True
                    break
    return Shrunk(edit=best[0], size=best[1], tries=tries)


def _key(edit: Edit, size: Size) -> bytes:
    return msgspec.json.encode((edit, size))


Candidates = Iterator[tuple[Edit, Size]]


def _layers(edit: Edit, size: Size, _: Setting) -> Candidates:
    for count in (1, 2, 4):
        if size.layers is None or count < size.layers:
            yield edit, msgspec.structs.replace(size, layers=count)


def _batches(edit: Edit, size: Size, setting: Setting) -> Candidates:
    if edit.change == "resized":
        return
    for count in (1, 2):
        if count < (size.batch or setting.batch or 1 << 30):
            yield edit, msgspec.structs.replace(size, batch=count)


def _lengths(edit: Edit, size: Size, setting: Setting) -> Candidates:
    if edit.change in ("seq", "cut"):
        return
    for count in _SMALL[:12]:
        if count < (size.seq or setting.seq or 1 << 30):
            yield edit, msgspec.structs.replace(size, seq=count)


def _amounts(edit: Edit, size: Size, _: Setting) -> Candidates:
    """Smaller values of the one number that an edit of batch or length has; fewer lengths in a row."""
    if "row" in edit.args:
        row = edit.args["row"]
        for at in range(len(row)):
            if len(row) > 2:
                yield _with(edit, row=[*row[:at], *row[at + 1 :]]), size
        return
    key = next((key for key in ("batch", "seq", "length") if key in edit.args), None)
    if key is not None:
        for count in _SMALL:
            if count < edit.args[key]:
                yield _with(edit, **{key: count}), size
        if edit.args[key] > 2:
            yield _with(edit, **{key: edit.args[key] - 1}), size


def _with(edit: Edit, **args: object) -> Edit:
    return msgspec.structs.replace(edit, args={**edit.args, **args})
