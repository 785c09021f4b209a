"""All kernels of a project converted together: what they include of each other is renamed with the files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sapper.port import native, rule, walk
from sapper.port.finding import Unread
from sapper.port.kernels.convert import Converted, convert
from sapper.port.kernels.tables import Stack, table
from sapper.port.kernels.triage import sources
from sapper.port.kernels.work import asks_for_conversion
from sapper.port.source import Source


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A tree's converted files, by path."""

    files: tuple[Converted, ...]
    taken: tuple[str, ...]
    """Paths at which a file stands already (a port by hand, an earlier run): it is for the caller to overwrite them or not."""
    unread: tuple[Unread, ...]


def convert_tree(root: str | os.PathLike[str], to: Stack, *, exclude: Sequence[str] = ()) -> Project:
    """Every file under ``root`` that a kernel is in or depends on.

    Raises:
        BadFile: SP-READ-001: ``root`` is not there.
    """
    tree = walk.walk(root, exclude=exclude)
    found = list(sources(tree.files))
    done = convert_all([one for one in found if isinstance(one, Source)], to)
    there = {file.relative for file in tree.files}
    base = os.fspath(root) if os.path.isdir(root) else os.path.dirname(os.fspath(root))
    taken = tuple(sorted(one.path for one in done if one.path in there or os.path.lexists(os.path.join(base, one.path))))
    return Project(files=tuple(done), taken=taken, unread=tuple(one for one in found if isinstance(one, Unread)))


def convert_all(sources: Iterable[Source], to: Stack) -> list[Converted]:
    """The files of one project, those left out that nothing in them or in what they include asks to convert."""
    by_path = {source.path: source for source in sources}
    paths = table(to).paths
    stay = {path: path for path in by_path}
    chosen = {
        path
        for path, source in by_path.items()
        if (_asks(source) or paths.reworded(path) != path) and (_is_unit(source) or convert(source, to, twins=stay).edits)
    }
    while True:
        twins = {path: paths.renamed(path) if path in chosen else path for path in by_path}
        more = {path for path in by_path.keys() - chosen if _includes(by_path[path], to, twins)}
        if not more:
            break
        chosen |= more
    return [convert(by_path[path], to, twins=twins) for path in sorted(chosen)]


def _is_unit(source: Source) -> bool:
    """Is it compiled by itself, so that its suffix tells the compiler? Then it is needed even where no name changes."""
    return source.path.endswith(".cu") and bool(native.find(source, rule.rules()))


def _asks(source: Source) -> bool:
    return source.language == "cuda" or any(map(asks_for_conversion, native.find(source, rule.rules())))


def _includes(source: Source, to: Stack, twins: Mapping[str, str]) -> bool:
    """Does a header, which kernels share, include a file that is converted?"""
    if source.language != "cuda" and not source.path.endswith((".h", ".hpp", ".hh", ".hxx", ".inl", ".ipp")):
        return False
    return any(edit.text.startswith(("<", '"')) for edit in convert(source, to, twins=twins).edits)
