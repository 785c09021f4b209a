"""Which format a profile is in, and its reader."""

from __future__ import annotations

import os
from collections.abc import Callable

from sapper.errors import BadValue
from sapper.mix.profiles.metis import read_metis
from sapper.mix.profiles.piper import read_piper
from sapper.mix.profiles.profile import Profile, read_own
from sapper.mix.profiles.sailor import read_sailor
from sapper.mix.profiles.sized import read_amp, read_galvatron
from sapper.mix.profiles.varuna import read_varuna

Reader = Callable[..., dict[str, Profile]]


def _own(path: str | os.PathLike[str], *, model: str) -> dict[str, Profile]:
    """The one profile of a file of ours; ``model`` is in it."""
    profile = read_own(path)
    return {profile.device: profile}


FORMATS: dict[str, Reader] = {
    "sapper": _own, "sailor": read_sailor, "metis": read_metis, "varuna": read_varuna, "piper": read_piper,
    "amp": read_amp, "galvatron": read_galvatron,
}
"""Format -> reader: (path, model=...) -> device -> profile."""


def read_profiles(path: str | os.PathLike[str], *, format: str = "sapper", model: str = "") -> dict[str, Profile]:
    """The profiles of ``path`` by device.

    Args:
        path: A file (sapper, sailor, piper), or a folder (the others).
        format: A key of :data:`FORMATS`.
        model: Of those that the file holds; for formats without sizes (amp, galvatron) the model's config or bundled name; our own
            format holds one.

    Raises:
        BadValue: An unknown format.
        BadFile: What the reader refuses.
    """
    if format not in FORMATS:
        raise BadValue("SP-MIX-060", where=os.fspath(path), format=format, known=", ".join(FORMATS))
    return FORMATS[format](path, model=model)
