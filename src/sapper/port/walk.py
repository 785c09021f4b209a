"""The files of a tree that are in a language that we read.

Links are never followed: a loop cannot trap the walk, a file is not counted twice, and a repository cannot make us show
what lies outside of it. Inside a git repository ``.gitignore`` counts as git counts it: a tracked file is taken even
where a pattern names it. A tree without ``.git`` (an archive) is taken whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sapper.errors import BadFile
from sapper.port import ignore
from sapper.port.finding import Unread
from sapper.port.languages import has_no_suffix, language_of, language_of_shebang
from sapper.port.source import Language
from sapper.port.tracked import tracked

_SKIPPED = frozenset(
    {
        ".git", ".hg", ".svn", ".tox", ".nox", ".venv", ".eggs", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis",
        ".ipynb_checkpoints", "__pycache__", "node_modules", "site-packages",
    }
)  # fmt: skip
"""Folders that hold no source of the project, whoever made them."""


_MAX_CONFIG_BYTES = 2**18
"""A larger file of a language that configuration and data share is data, and none that we read."""
_SHARED: tuple[Language, ...] = ("config", "yaml")


class File(msgspec.Struct, frozen=True):
    """A file to be read."""

    path: str
    relative: str
    """To the scanned root, with forward slashes; bytes of a name that are not UTF-8 are shown as ``\\xNN``."""
    language: Language
    size_bytes: int


class Tree(msgspec.Struct, frozen=True):
    """What a walk found, by path."""

    files: tuple[File, ...]
    unread: tuple[Unread, ...]
    """Folders and files that the system did not let us see."""


def walk(root: str | os.PathLike[str], *, exclude: Sequence[str] = ()) -> Tree:
    """The files of ``root``, a folder or one file, in the order of their paths.

    Args:
        root: What to walk.
        exclude: Patterns in the syntax of ``.gitignore``, relative to ``root``.

    Raises:
        BadFile: SP-READ-001: ``root`` is not there, or cannot be opened.
    """
    where = os.fspath(root)
    try:
        top = os.path.realpath(where)
        mode = os.stat(top).st_mode
        if stat.S_ISDIR(mode):
            os.scandir(top).close()
    except (OSError, ValueError) as error:
        raise BadFile("SP-READ-001", where=where, problem=getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISDIR(mode):
        name = os.path.basename(top)
        language = language_of(name) or _sniffed(top)
        files = () if language is None else (File(top, shown(name), language, os.stat(top).st_size),)
        return Tree(files, ())
    walker = _Walker(top, exclude)
    found = sorted(walker.folder(top, "", walker.patterns), key=lambda file: file.relative)
    return Tree(tuple(found), tuple(sorted(walker.unread, key=lambda unread: unread.path)))


def shown(name: str) -> str:
    """A name as text that can be printed: bytes that are not UTF-8 become ``\\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class _Walker:
    """State of one walk."""

    def __init__(self, top: str, exclude: Sequence[str]) -> None:
        self.unread: list[Unread] = []
        self.excluded = ignore.parse(exclude)
        repository = _repository(Path(top))
        self.in_git = repository is not None
        self.patterns: list[ignore.Pattern] = []
        self.tracked: frozenset[str] = frozenset()
        self.tracked_folders: frozenset[str] = frozenset()
        if repository is None:
            return
        prefix = "" if str(repository) == top else Path(top).relative_to(repository).as_posix() + "/"
        self.tracked = frozenset(path.removeprefix(prefix) for path in tracked(repository / ".git" / "index") if path.startswith(prefix))
        self.tracked_folders = frozenset(parent for path in self.tracked for parent in _parents(path))
        self.patterns = _outer_patterns(repository, prefix)

    def folder(self, path: str, relative: str, patterns: list[ignore.Pattern]) -> Iterator[File]:
        """Files below a folder; ``relative`` is empty or ends with a slash."""
        stack = [(path, relative, patterns, False)]
        while stack:
            path, relative, patterns, only_tracked = stack.pop()
            try:
                with os.scandir(path) as entries:
                    inside = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._refused(relative, error)
                continue
            if self.in_git and any(entry.name == ".gitignore" for entry in inside):
                patterns = [*patterns, *ignore.parse(_lines(os.path.join(path, ".gitignore")), relative)]
            if relative and any(entry.name == "pyvenv.cfg" for entry in inside):
                continue
            for entry in inside:
                name = relative + entry.name
                try:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    is_file = not is_folder and entry.is_file(follow_symlinks=False)
                except OSError as error:
                    self._refused(name, error)
                    continue
                if not (is_folder or is_file) or ignore.ignored(self.excluded, name, folder=is_folder):
                    continue
                dropped = only_tracked or (bool(patterns) and ignore.ignored(patterns, name, folder=is_folder))
                if is_folder:
                    if entry.name not in _SKIPPED and (not dropped or name in self.tracked_folders):
                        stack.append((entry.path, f"{name}/", patterns, dropped))
                elif not dropped or name in self.tracked:
                    yield from self._file(entry, name)

    def _file(self, entry: os.DirEntry[str], name: str) -> Iterator[File]:
        language = language_of(name) or (_sniffed(entry.path) if has_no_suffix(name) else None)
        if language is not None:
            try:
                size_bytes = entry.stat(follow_symlinks=False).st_size
            except OSError as error:
                self._refused(name, error)
                return
            if size_bytes <= _MAX_CONFIG_BYTES or language not in _SHARED:
                yield File(entry.path, shown(name), language, size_bytes)

    def _refused(self, name: str, error: OSError) -> None:
        path = shown(name).rstrip("/") or "."
        self.unread.append(Unread(path=path, code="SP-READ-002", values={"problem": error.strerror or str(error)}))


def _sniffed(path: str) -> Language | None:
    try:
        with open(path, "rb") as file:
            return language_of_shebang(file.read(128))
    except OSError:
        return None


def _repository(top: Path) -> Path | None:
    return next((folder for folder in (top, *top.parents) if (folder / ".git").exists()), None)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _outer_patterns(repository: Path, prefix: str) -> list[ignore.Pattern]:
    """Patterns of the repository's own exclude file and of the folders above the scanned root."""
    found = ignore.parse(_lines(str(repository / ".git" / "info" / "exclude")), above=prefix)
    parts = prefix.split("/")[:-1]
    for depth in range(len(parts)):
        lines = _lines(str(repository.joinpath(*parts[:depth], ".gitignore")))
        found += ignore.parse(lines, above="".join(f"{part}/" for part in parts[depth:]))
    return found


def _lines(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            return file.read(2**20).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
