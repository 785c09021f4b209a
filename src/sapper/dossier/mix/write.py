"""Write the pages of a plan, each atomically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sapper import files, messages
from sapper.dossier.mix.lanes import Happening
from sapper.dossier.mix.page import page
from sapper.mix.sheet import Answer, Compared


def write_pages(
    answer: Answer, compared: Sequence[Compared], events: Sequence[Happening], *, path: Path, lang: str
) -> tuple[Path, ...]:
    """Write the page in ``lang`` to ``path`` and the other language's beside it; both are made before the first is written.

    Raises:
        BadFile: The system refuses to write.
    """
    other = next(one for one in messages.LANGUAGES if one != lang)
    places = {lang: path, other: path.with_name(f"{path.stem}.{other}{path.suffix or '.html'}")}
    contents = {
        where: page(answer, compared, events, one, other=places[other if one == lang else lang].name) for one, where in places.items()
    }
    for where, content in contents.items():
        files.write_atomic(where, content)
    return tuple(contents)
