"""Reading a checkpoint onto any mix: each process asks for the boxes that it holds, whoever wrote them in whatever pieces."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from sapper.errors import BadFile
from sapper.mix.checkpoint import manifest
from sapper.mix.checkpoint.manifest import About, Manifest
from sapper.mix.checkpoint.shard import OPTIMIZER, RNG, Shard, State, assemble, whole
from sapper.mix.checkpoint.tensors import TensorFile, dtype_of, name_of


class Checkpoint:
    """An open checkpoint; files are mapped and their hashes checked when first read from."""

    def __init__(self, folder: Path, found: Manifest) -> None:
        self.folder = folder
        self._manifest = found
        self._open: dict[str, TensorFile] = {}

    @property
    def about(self) -> About:
        """Step, ledger, model and plan."""
        return self._manifest.about

    @property
    def names(self) -> list[str]:
        """All tensors."""
        return list(self._manifest.tensors)

    @property
    def weights(self) -> list[str]:
        """The tensors of the model."""
        return [name for name in self.names if not name.startswith((OPTIMIZER, RNG))]

    def fill(self, state: State) -> None:
        """Copy the values of each shard of ``state`` into its tensor.

        Raises:
            BadFile: A tensor is not in the checkpoint, or of another shape or dtype there; or a file is damaged.
        """
        lacking = [name for name in state if name not in self._manifest.tensors]
        if lacking:
            raise BadFile("SP-MIX-190", where=str(self.folder), names=", ".join(lacking[:3]), count=len(lacking))
        for name, shard in ((name, shard) for name, shards in state.items() for shard in shards):
            entry = self._manifest.tensors[name]
            if entry.shape != shard.box.shape or entry.dtype != name_of(shard.tensor.dtype):
                have, due = f"{entry.dtype} {list(entry.shape)}", f"{name_of(shard.tensor.dtype)} {list(shard.box.shape)}"
                raise BadFile("SP-MIX-191", where=str(self.folder), name=name, have=have, due=due)
            with torch.no_grad():
                filled = assemble(shard.tensor, shard.box, sources=self._sources(name))
            if filled < math.prod(shard.box.size):
                raise BadFile("SP-MIX-192", where=str(self.folder), name=name)

    def like(self, name: str) -> tuple[tuple[int, ...], Any]:
        """Shape and dtype of the whole tensor ``name``."""
        entry = self._manifest.tensors[name]
        return entry.shape, dtype_of(entry.dtype)

    def tensor(self, name: str) -> Any:
        """The whole tensor ``name``.

        Raises:
            BadFile: See :meth:`fill`.
        """
        if name not in self._manifest.tensors:
            raise BadFile("SP-MIX-190", where=str(self.folder), names=name, count=1)
        sources = list(self._sources(name))
        if len(sources) == 1 and sources[0].box.whole:
            return sources[0].tensor.reshape(sources[0].box.shape)
        target = torch.empty(self._manifest.tensors[name].shape, dtype=sources[0].tensor.dtype)
        self.fill({name: (whole(target),)})
        return target

    def rng(self) -> State:
        """The states of the generators."""
        return {name: (whole(self.tensor(name)),) for name in self.names if name.startswith(RNG)}

    def verify(self) -> None:
        """Check the hash of every file.

        Raises:
            BadFile: Names the first that is damaged.
        """
        for name in self._manifest.files:
            self._file(name)

    def _sources(self, name: str) -> Iterable[Shard]:
        entry = self._manifest.tensors[name]
        for piece in entry.pieces:
            yield Shard(self._file(piece.file).tensor(piece.key), entry.box(piece))

    def _file(self, name: str) -> TensorFile:
        found = self._open.get(name)
        if found is None:
            found = TensorFile(self.folder / name)
            if found.sha256() != self._manifest.files[name].sha256:
                raise BadFile("SP-MIX-193", where=str(self.folder), file=name, others=manifest.others(self.folder))
            self._open[name] = found
        return found


def open_checkpoint(path: str | os.PathLike[str], *, step: int | None = None) -> Checkpoint:
    """The checkpoint in a step's own folder, or the one of ``step`` (None: the newest) in the folder of a run.

    Raises:
        BadFile: There is none, or it is not whole: says what is missing and which older one is whole.
    """
    folder = Path(path)
    if not (folder / manifest.NAME).exists():
        have = manifest.steps(folder)
        if step is not None:
            folder = manifest.folder_of(folder, step)
        elif have:
            folder = manifest.folder_of(folder, have[-1])
    return Checkpoint(folder, manifest.read(folder))
