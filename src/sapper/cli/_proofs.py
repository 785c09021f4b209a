"""``--proof CHIP=DIR``: folders of proofs, each for a chip that the question asks about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sapper.errors import BadValue, UnknownName

if TYPE_CHECKING:
    from sapper.assess.proof import Proven

WHERE = "--proof"


def proofs_of(given: Sequence[str], *, chips: Sequence[str]) -> tuple[Proven, ...]:
    """What the folders say.

    Args:
        given: ``CHIP=DIR`` each; CHIP is any name of the catalogue.
        chips: Catalogue ids of the chips that are asked for.

    Raises:
        BadValue: Not of that form, or two folders for one chip.
        UnknownName: The chip is none of those asked for.
        BadFile: No such folder, or no proof in it.
    """
    from sapper.dossier.proof.condense import proven

    folders: dict[str, str] = {}
    for text in given:
        name, equals, folder = (part.strip() for part in text.partition("="))
        if not (name and equals and folder):
            raise BadValue("SP-ASSESS-030", where=WHERE, text=text)
        chip = _chip(name, chips)
        if chip in folders:
            raise BadValue("SP-ASSESS-032", where=WHERE, chip=chip, first=folders[chip], second=folder)
        folders[chip] = folder
    return tuple(proven(Path(folder), chip=chip) for chip, folder in folders.items())


def _chip(name: str, chips: Sequence[str]) -> str:
    """The one of ``chips`` that bears ``name``."""
    from sapper.chips import catalogue

    found = [name] if name in chips else [chip for chip in catalogue().names.find(name) if chip in chips]
    if len(found) != 1:
        raise UnknownName("SP-ASSESS-031", where=WHERE, name=name, chips=", ".join(chips))
    return found[0]
