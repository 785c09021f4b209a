"""Names of chips: spelling folded away, vendor optional, ambiguity kept."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping

import msgspec

_TRADEMARK = re.compile(r"\((?:r|tm|c)\)|[\u00ae\u2122\u00a9]", re.IGNORECASE)
_SIZE = re.compile(r"(\d)\s*gi?b(?![a-z0-9])")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What names an entry, read from the head of its file."""

    id: str
    vendor: str
    vendor_zh: str | None = None
    name: str
    aliases: tuple[str, ...] = ()
    kind: str = "chip"
    path: str


def fold(name: str) -> str:
    """``name`` without case, spaces, hyphens and trademark signs: ``A100-SXM4-80 GB`` and ``a100 sxm4 80g`` are one."""
    text = _TRADEMARK.sub("", unicodedata.normalize("NFKC", name)).casefold()
    return "".join(c for c in _SIZE.sub(r"\1g", text) if c.isalnum())


def spellings(head: Head) -> set[str]:
    """Folded names of an entry, each with and without its vendor."""
    folded = {fold(name) for name in (head.id, head.name, *head.aliases)}
    return {name for name in folded | {bare(name, head) for name in folded} if name}


def bare(folded: str, head: Head) -> str:
    """``folded`` without the vendor that it may begin with: as the file spells it, in Chinese, or as the id begins."""
    for vendor in (head.vendor, head.vendor_zh or "", head.id.partition("-")[0]):
        prefix = fold(vendor)
        if prefix and folded.startswith(prefix) and folded != prefix:
            return folded[len(prefix):]
    return folded


class Index:
    """Which entries bear a name."""

    def __init__(self, heads: Iterable[Head]) -> None:
        self.heads = {head.id: head for head in heads}
        self._by_name: dict[str, set[str]] = {}
        for head in self.heads.values():
            for name in spellings(head):
                self._by_name.setdefault(name, set()).add(head.id)

    def find(self, name: str) -> list[str]:
        """Ids of the entries that ``name`` may mean, in catalogue order: one, several or none. An exact id means itself."""
        if name in self.heads:
            return [name]
        folded = fold(name)
        found = set(self._by_name.get(folded, ()))
        if not found:
            found = {head.id for head in self.heads.values() if (short := bare(folded, head)) != folded
                     and head.id in self._by_name.get(short, ())}
        exact = [id_ for id_ in found if fold(id_) == folded]
        return exact if exact else [id_ for id_ in self.heads if id_ in found]

    def near(self, name: str, *, most: int = 5) -> list[str]:
        """Names that ``name`` may have been meant to be, best first, one per entry."""
        folded = fold(name)
        if not folded:
            return []
        close = difflib.get_close_matches(folded, self._by_name, n=most * 4, cutoff=0.55)
        inside = sorted((known for known in self._by_name if len(folded) > 1 and folded in known), key=len)
        found: dict[str, str] = {}
        for known in (*inside, *close):
            for id_ in sorted(self._by_name[known]):
                found.setdefault(id_, self._display(self.heads[id_], known))
        return list(found.values())[:most]

    @staticmethod
    def _display(head: Head, folded: str) -> str:
        """The id, with the Chinese spelling beside it where that is what came near."""
        for alias in head.aliases:
            if not alias.isascii() and folded in (fold(alias), bare(fold(alias), head)):
                return f"{head.id} ({alias})"
        return head.id

    def sharing(self) -> Mapping[str, set[str]]:
        """Names that several entries bear."""
        return {name: ids for name, ids in self._by_name.items() if len(ids) > 1}
