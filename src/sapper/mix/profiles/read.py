"""Which format a profile is in, and its reader."""

from __future__ import annotations

import os
from collections.abc import Callable

from sapper.errors import BadValue
from sapper.mix.profiles.profile import Profile, read_own
from sapper.mix.profiles.sailor import read_sailor

Reader = Callable[..., dict[str, Profile]]


def _own(path: str | os.PathLike[str], *, model: str) -> dict[str, Profile]:
    """The one profile of a file of ours; ``model`` is in it."""
    profile = read_own(path)
    return {profile.device: profile}


FORMATS: dict[str, Reader] = {"sapper": _own, "sailor": read_sailor}
"""Format -> reader: (path, model=...) -> device -> profile."""


def read_profiles(path: str | os.PathLike[str], *, format: str = "sapper", model: str = "") -> dict[str, Profile]:
    """The profiles of ``path`` by device.

    Args:
        path: A file, or the folder of a format that has many.
        format: A key of :data:`FORMATS`.
        model: Of those that the file holds; our own format holds one.

    Raises:
        BadValue: An unknown format.
        BadFile: What the reader refuses.
    """
    if format not in FORMATS:
        raise BadValue("SP-MIX-060", where=os.fspath(path), format=format, known=", ".join(FORMATS))
    return FORMATS[format](path, model=model)
