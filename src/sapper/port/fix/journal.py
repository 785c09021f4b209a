"""All files or none: a journal is whole on disk before the first file changes, and undoes the run, even a run that was killed.

A journal is a folder ``0001``, ``0002``, ... with the originals, the new contents and a manifest; it is written under a
name of its own and renamed into place, so that a journal is either whole or not there. It lives in git's folder where
there is one (so that the tree stays clean), else in ``.sapper-fix`` beside the code.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sapper.errors import BadFile, InputError
from sapper.files import sync

FOLDER = ".sapper-fix"
_MANIFEST = "manifest.json"


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a run; the copies are ``N.before`` and ``N.after`` in the journal's folder."""

    path: str
    """Relative to the root of the run."""
    before: str | None
    """SHA-256 of the original; None where there was no file."""
    after: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a journal says of itself."""

    root: str
    """Of the run, relative to the folder of journals: a tree that was copied or moved takes its journals with it."""
    files: tuple[Entry, ...]
    format: int = 1


@dataclass(frozen=True)
class Undone:
    """What an undo put back, and what it took away again."""

    restored: tuple[str, ...]
    removed: tuple[str, ...]


def home(root: Path, git_folder: Path | None) -> Path:
    """The folder of journals of a tree."""
    if git_folder is not None:
        return git_folder / "sapper-fix"
    return (root if root.is_dir() else root.parent) / FOLDER


def interrupted(folder: Path) -> bool:
    """Whether the newest run changed some of its files and not all, since it was killed."""
    last = _last(folder)
    if last is None:
        return False
    manifest = _read(last)
    states = {_state(_root(last, manifest), entry) for entry in manifest.files}
    return ((last / "open").exists() and states != {"before"}) or {"before", "after"} <= states


def write(root: Path, contents: dict[str, bytes], *, folder: Path) -> Path:
    """Give each file (relative path to bytes) its new content, all or none; returns the journal's folder.

    Raises:
        BadFile: The system refuses; every file is as it was.
    """
    journal = _stage(root, contents, folder)
    parts: dict[Path, Path] = {}
    try:
        for number, path in enumerate(contents):
            target = Path(os.path.realpath(root / path))
            part = target.with_name(f".{target.name[:200]}.{os.getpid()}.sapper")
            parts[target] = part
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(journal / f"{number}.after", part)
            if target.exists():
                os.chmod(part, stat.S_IMODE(target.stat().st_mode))
            sync(part)
        for target, part in parts.items():
            os.replace(part, target)
        (journal / "open").unlink()
    except BaseException as error:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink()
        undo(folder, force=True)
        if isinstance(error, OSError):
            raise BadFile("SP-FIX-007", where=str(error.filename or root), problem=error.strerror or str(error)) from error
        raise
    return journal


def undo(folder: Path, *, force: bool = False) -> Undone:
    """Put back what the newest run changed, and forget that run.

    Raises:
        InputError: SP-FIX-004: there is no run. SP-FIX-005: a file has changed since (not where ``force``).
    """
    last = _last(folder)
    if last is None:
        raise InputError("SP-FIX-004")
    manifest = _read(last)
    root = _root(last, manifest)
    states = {entry: _state(root, entry) for entry in manifest.files}
    changed = [entry.path for entry, state in states.items() if state == "other"]
    if changed and not force:
        raise InputError("SP-FIX-005", paths=", ".join(changed))
    restored, removed = [], []
    for number, entry in enumerate(manifest.files):
        target = Path(os.path.realpath(root / entry.path))
        if states[entry] == "before":
            continue
        if entry.before is None:
            target.unlink(missing_ok=True)
            removed.append(entry.path)
        else:
            _put_back(last / f"{number}.before", target)
            restored.append(entry.path)
    gone = last.with_name(f"gone-{last.name}-{os.getpid()}")
    os.replace(last, gone)
    shutil.rmtree(gone, ignore_errors=True)
    _tidy(folder)
    return Undone(tuple(restored), tuple(removed))


def _tidy(folder: Path) -> None:
    """Remove the folder of journals when the last one has gone."""
    if {path.name for path in folder.iterdir()} <= {".gitignore"}:
        shutil.rmtree(folder, ignore_errors=True)


def _put_back(copy: Path, target: Path) -> None:
    part = target.with_name(f".{target.name[:200]}.{os.getpid()}.sapper")
    shutil.copyfile(copy, part)
    if target.exists():
        os.chmod(part, stat.S_IMODE(target.stat().st_mode))
    os.replace(part, target)


def _stage(root: Path, contents: dict[str, bytes], folder: Path) -> Path:
    """Write the journal, and rename it into place when it is whole."""
    numbers = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()]
    final = folder / f"{max(numbers, default=0) + 1:04}"
    part = folder / f"part-{os.getpid()}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        entries = []
        for number, (path, after) in enumerate(contents.items()):
            target = root / path
            before = target.read_bytes() if target.exists() else None
            if before is not None:
                _store(part / f"{number}.before", before)
            _store(part / f"{number}.after", after)
            entries.append(Entry(path=path, before=None if before is None else _sum(before), after=_sum(after)))
        where = os.path.relpath(root.resolve(), folder.resolve())
        _store(part / _MANIFEST, msgspec.json.encode(Manifest(root=where, files=tuple(entries))))
        _store(part / "open", b"")
        if folder.name == FOLDER:
            _store(folder / ".gitignore", b"*\n")
        os.replace(part, final)
        sync(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise BadFile("SP-FIX-007", where=str(error.filename or folder), problem=error.strerror or str(error)) from error
    return final


def _last(folder: Path) -> Path | None:
    return max((path for path in folder.glob("[0-9]*") if path.name.isdigit()), key=lambda path: int(path.name), default=None)


def _read(journal: Path) -> Manifest:
    path = journal / _MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadFile("SP-FIX-008", where=str(path)) from error


def _root(journal: Path, manifest: Manifest) -> Path:
    """Where the files of a run are.

    Raises:
        BadFile: SP-FIX-008: the journal names files outside of its tree. One beside the code may come with the code, and is not trusted.
    """
    folder = journal.resolve().parent
    root = Path(os.path.realpath(folder / manifest.root))
    inside = not os.path.isabs(manifest.root) and (folder.name != FOLDER or root == folder.parent)
    if not inside or not all(Path(os.path.realpath(root / entry.path)).is_relative_to(root) for entry in manifest.files):
        raise BadFile("SP-FIX-008", where=str(journal / _MANIFEST))
    return root


def _state(root: Path, entry: Entry) -> str:
    """``before``, ``after`` or ``other``."""
    try:
        found: str | None = _sum((root / entry.path).read_bytes())
    except FileNotFoundError:
        found = None
    except OSError:
        return "other"
    return "after" if found == entry.after else "before" if found == entry.before else "other"


def _sum(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _store(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    sync(path)
