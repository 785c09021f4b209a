"""The manifest: what a checkpoint holds, in which files, with their sizes and hashes. It is written last; without it there is none."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from sapper.errors import BadFile, SapperError
from sapper.files import decode, read_json
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.checkpoint.shard import Box
from sapper.mix.plan import digest

FORMAT = "sapper-mix-checkpoint/1"
NAME = "manifest.json"
_STEP = re.compile(r"step-(\d{8})")


class Piece(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One box of a tensor in a file."""

    file: str
    key: str
    """Its name in the file."""
    offset: tuple[int, ...]
    extent: tuple[int, ...]
    """Elements by dim."""
    flat: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor."""

    dtype: str
    """As safetensors names it."""
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    def box(self, piece: Piece) -> Box:
        """Where ``piece`` lies."""
        return Box(self.shape, piece.offset, piece.extent, piece.flat)


class Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file."""

    size_bytes: int
    sha256: str


class About(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint is of."""

    step: int
    """Steps that are in the weights."""
    ledger: Ledger
    model: str = ""
    model_digest: str = ""
    plan: str = ""
    """Digest of the plan in force."""
    config: dict[str, Any] | None = None
    """The model's config.json; None: a module of the user's."""
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    """Such as the seed and the settings of the optimizer."""


class Parts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one writer has written."""

    files: dict[str, Written]
    tensors: dict[str, Entry]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole."""

    format: str = FORMAT
    about: About
    files: dict[str, Written]
    tensors: dict[str, Entry]
    sha256: str = ""
    """Of everything else in the manifest."""

    def sealed(self) -> Manifest:
        """With its own hash."""
        return msgspec.structs.replace(self, sha256=_hash(self))


def _hash(manifest: Manifest) -> str:
    return digest({name: value for name, value in msgspec.to_builtins(manifest).items() if name != "sha256"})


def merge(parts: list[Parts]) -> tuple[dict[str, Written], dict[str, Entry]]:
    """Files and tensors of all writers; of a box that two have written one is kept."""
    files: dict[str, Written] = {}
    tensors: dict[str, Entry] = {}
    for one in parts:
        files.update(one.files)
        for name, entry in one.tensors.items():
            have = tensors.get(name)
            known = {(piece.offset, piece.extent, piece.flat) for piece in have.pieces} if have else set()
            fresh = tuple(piece for piece in entry.pieces if (piece.offset, piece.extent, piece.flat) not in known)
            tensors[name] = entry if have is None else msgspec.structs.replace(have, pieces=have.pieces + fresh)
    return files, tensors


def read(folder: Path) -> Manifest:
    """The manifest of the checkpoint in ``folder``, with the sizes of its files looked at.

    Raises:
        BadFile: There is none, it was cut short or altered, or a file is missing or of another size; says which.
    """
    path = folder / NAME
    if not path.exists():
        raise BadFile("SP-MIX-180", where=str(folder), others=others(folder))
    manifest = decode(Manifest, read_json(path), path)
    if manifest.format != FORMAT:
        raise BadFile("SP-MIX-184", where=str(path), format=manifest.format, known=FORMAT)
    if manifest.sha256 != _hash(manifest):
        raise BadFile("SP-MIX-185", where=str(path), others=others(folder))
    faults = []
    for name, written in manifest.files.items():
        have = os.path.getsize(folder / name) if (folder / name).is_file() else None
        if have != written.size_bytes:
            faults.append((name, have, written.size_bytes))
    if faults:
        name, have, due = faults[0]
        code = "SP-MIX-186" if have is None else "SP-MIX-187"
        raise BadFile(code, where=str(folder), file=name, have=have, due=due, more=len(faults) - 1, others=others(folder))
    return manifest


def folder_of(root: Path, step: int) -> Path:
    """The folder of ``step`` in the folder of a run."""
    return root / f"step-{step:08d}"


def steps(root: Path) -> list[int]:
    """Steps that the folder of a run has a committed checkpoint of, oldest first; not yet looked into."""
    if not root.is_dir():
        return []
    found = (_STEP.fullmatch(path.name) for path in root.iterdir())
    return sorted(int(match[1]) for match in found if match and (root / match[0] / NAME).exists())


def whole(root: Path) -> list[int]:
    """Steps whose checkpoint has a sound manifest and files of the right sizes, oldest first."""
    found = []
    for step in steps(root):
        folder = folder_of(root, step)
        try:
            manifest = decode(Manifest, read_json(folder / NAME), folder / NAME)
        except SapperError:
            continue
        files = ((folder / name, written) for name, written in manifest.files.items())
        if manifest.sha256 == _hash(manifest) and all(path.is_file() and path.stat().st_size == one.size_bytes for path, one in files):
            found.append(step)
    return found


def others(folder: Path) -> str:
    """The whole checkpoints beside ``folder``, newest first, for a message."""
    names = [folder_of(folder.parent, step).name for step in reversed(whole(folder.parent))]
    return ", ".join(name for name in names if name != folder.name) or "-"
