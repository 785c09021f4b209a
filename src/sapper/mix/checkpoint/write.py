"""Writing a checkpoint beside the training: a copy to host memory, then files, hashes, fsync and one rename on a thread.

Every rank writes its own files into a folder ``.step-N-ATTEMPT`` that all hosts see; when the lists of all writers are there, the
first of them writes the manifest and renames the folder to ``step-N``. Whatever is killed at whatever moment, a reader finds either
the folder with a manifest and all its files, or no folder of that name.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import torch
from sapper.errors import BadFile
from sapper.files import decode, read_json, sync
from sapper.mix.checkpoint import manifest, tensors
from sapper.mix.checkpoint.manifest import About, Entry, Manifest, Parts, Piece, Written
from sapper.mix.checkpoint.shard import OPTIMIZER, RNG, Box, Shard, State

_POLL_S = 0.02
_ROLES = {OPTIMIZER: "optimizer", RNG: "rng"}


@dataclass(frozen=True)
class Place:
    """Which of the writers of a checkpoint this process is."""

    writer: int = 0
    writers: int = 1
    attempt: str = "0"
    """The same on all of them, another after each fault: leftovers of a broken attempt never mix with a later one."""


_ALONE = Place()


class Writer:
    """Keeps the last checkpoints of a run in a folder."""

    def __init__(self, root: Path, *, keep: int = 3, limit_s: float = 600.0, told: Callable[[BadFile], None] | None = None) -> None:
        """Nothing is written yet.

        Args:
            root: Folder of the run.
            keep: Checkpoints that stay; older ones go once a newer one is whole.
            limit_s: That the first writer waits for the others.
            told: Hears why a checkpoint was not written; without it :meth:`wait` raises that.
        """
        self.root = root
        self.keep = keep
        self._limit_s = limit_s
        self._told = told
        self._thread: threading.Thread | None = None
        self._buffers: dict[str, Any] = {}
        self._fault: BadFile | None = None
        self._abandoned = threading.Event()

    def save(self, state: State, about: About, *, place: Place = _ALONE) -> None:
        """Copy ``state`` to host memory and return; a thread writes it. Waits for the checkpoint before.

        Args:
            state: What this writer writes: its own share, no shard that another writes.
            about: What it is of; that of the first writer counts.
            place: Which writer this is.
        """
        self.wait()
        self._abandoned.clear()
        shards = {
            name: tuple(Shard(self._kept(f"{name}/{at}", one.tensor), one.box) for at, one in enumerate(held))
            for name, held in state.items()
        }
        self._thread = threading.Thread(target=self._run, args=(shards, about, place), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the checkpoint under way is written or given up.

        Raises:
            BadFile: It was not written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        fault, self._fault = self._fault, None
        if fault is not None:
            if self._told is None:
                raise fault
            self._told(fault)

    def abandon(self) -> None:
        """Stop waiting for other writers: one of them is gone. The last whole checkpoint stays what it is."""
        self._abandoned.set()

    def _kept(self, name: str, tensor: Any) -> Any:
        """``tensor`` in a buffer of the host that is used again at the next checkpoint."""
        have = self._buffers.get(name)
        if have is None or have.shape != tensor.shape or have.dtype != tensor.dtype:
            have = self._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        have.copy_(tensor.detach())
        return have

    def _run(self, shards: State, about: About, place: Place) -> None:
        work = self.root / f".{manifest.folder_of(self.root, about.step).name}-{place.attempt}"
        try:
            work.mkdir(parents=True, exist_ok=True)
            _write_part(work, shards, place=place)
            if place.writer == 0:
                parts = self._parts(work, place.writers)
                if parts is not None:
                    self._commit(work, about, parts)
        except OSError as error:
            self._fault = BadFile("SP-MIX-188", where=str(work), problem=error.strerror or str(error))
        except BadFile as error:
            self._fault = error

    def _parts(self, work: Path, writers: int) -> list[Parts] | None:
        """The lists of all writers; None: given up."""
        end = time.monotonic() + self._limit_s
        paths = [work / _part_name(index) for index in range(writers)]
        while not all(path.exists() for path in paths):
            if self._abandoned.wait(_POLL_S):
                return None
            if time.monotonic() > end:
                late = ", ".join(str(index) for index, path in enumerate(paths) if not path.exists())
                raise BadFile("SP-MIX-189", where=str(work), late=late, limit_s=f"{self._limit_s:g}")
        return [decode(Parts, read_json(path), path) for path in paths]

    def _commit(self, work: Path, about: About, parts: list[Parts]) -> None:
        files, entries = manifest.merge(parts)
        _write_json(work / manifest.NAME, Manifest(about=about, files=files, tensors=entries).sealed())
        _write_index(work, about, entries)
        sync(work)
        final = manifest.folder_of(self.root, about.step)
        if final.exists():  # the step was taken back after a fault and computed again
            _remove(final)
        os.rename(work, final)
        sync(self.root)
        self._prune(about.step)

    def _prune(self, newest: int) -> None:
        kept = [step for step in manifest.steps(self.root) if step <= newest][-self.keep :]
        for step in manifest.steps(self.root):
            if step < kept[0]:
                _remove(manifest.folder_of(self.root, step))
        for path in self.root.glob(".step-*"):
            # Of an attempt that a fault cut short; a newer step may be under way.
            if path.name[6:14].isdigit() and int(path.name[6:14]) <= newest:
                shutil.rmtree(path, ignore_errors=True)


def _part_name(writer: int) -> str:
    return f"part-{writer:05d}.json"


def _write_part(work: Path, shards: State, *, place: Place) -> None:
    """The tensor files of one writer and, when they are on the disk, the list of them."""
    by_role: dict[str, dict[str, Sequence[Shard]]] = {}
    for name, held in shards.items():
        role = next((role for prefix, role in _ROLES.items() if name.startswith(prefix)), "model")
        by_role.setdefault(role, {})[name] = held
    files: dict[str, Written] = {}
    entries: dict[str, Entry] = {}
    for role, state in by_role.items():
        file = f"{role}-{place.writer + 1:05d}-of-{place.writers:05d}.safetensors"
        inside = {_key(name, one.box): one.tensor for name, held in state.items() for one in held}
        size, sha256 = tensors.write(work / file, inside, metadata={"format": "pt"})
        files[file] = Written(size_bytes=size, sha256=sha256)
        for name, held in state.items():
            pieces = tuple(
                Piece(file=file, key=_key(name, one.box), offset=one.box.offset, extent=one.box.size, flat=one.box.flat) for one in held
            )
            entries[name] = Entry(dtype=tensors.name_of(held[0].tensor.dtype), shape=held[0].box.shape, pieces=pieces)
    _write_json(work / _part_name(place.writer), Parts(files=files, tensors=entries))


def _key(name: str, box: Box) -> str:
    """A whole tensor bears its own name in the file, so that any reader of safetensors finds it."""
    return name if box.whole else f"{name}@{','.join(map(str, box.offset))}"


def _write_index(work: Path, about: About, entries: Mapping[str, Entry]) -> None:
    """What Transformers reads: the index of the weights and the config, where no weight is cut."""
    weights = {name: entry for name, entry in entries.items() if not name.startswith((OPTIMIZER, RNG))}
    if all(len(entry.pieces) == 1 and entry.box(entry.pieces[0]).whole for entry in weights.values()):
        index = {"metadata": {}, "weight_map": {name: entry.pieces[0].file for name, entry in weights.items()}}
        _write_json(work / "model.safetensors.index.json", index)
    if about.config is not None:
        _write_json(work / "config.json", about.config)


def _write_json(path: Path, value: Any) -> None:
    """Whole or not at all, and on the disk."""
    partial = path.with_name(f".{path.name}")
    with open(partial, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)


def _remove(folder: Path) -> None:
    """Take the name away first, so that a kill in the middle leaves nothing that looks like a checkpoint."""
    gone = folder.with_name(f".{folder.name}-gone")
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)
