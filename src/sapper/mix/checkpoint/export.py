"""Weights of a checkpoint as a folder that Transformers' ``from_pretrained`` and any reader of safetensors take."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sapper.errors import BadFile
from sapper.files import write_atomic
from sapper.mix.checkpoint import tensors
from sapper.mix.checkpoint.read import Checkpoint

MAX_FILE_BYTES = 5 * 10**9
"""Of one file, as Transformers cuts them."""


def export(checkpoint: Checkpoint, target: str | os.PathLike[str], *, max_file_bytes: int = MAX_FILE_BYTES) -> list[Path]:
    """Write the weights, each tensor whole, and the model's config.json where the checkpoint has one.

    Returns:
        The files of weights.

    Raises:
        BadFile: The checkpoint is damaged, or the place cannot be written.
    """
    folder = Path(target)
    shares: list[list[str]] = [[]]
    size = 0
    for name in checkpoint.weights:
        tensor = checkpoint.tensor(name)
        size += tensor.numel() * tensor.element_size()
        if size > max_file_bytes and shares[-1]:
            shares.append([])
            size = tensor.numel() * tensor.element_size()
        shares[-1].append(name)
    alone = len(shares) == 1
    paths = [
        folder / ("model.safetensors" if alone else f"model-{at:05d}-of-{len(shares):05d}.safetensors")
        for at in range(1, len(shares) + 1)
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, names in zip(paths, shares, strict=True):
            tensors.write(path, {name: checkpoint.tensor(name) for name in names}, metadata={"format": "pt"})
    except OSError as error:
        raise BadFile("SP-MIX-188", where=str(folder), problem=error.strerror or str(error)) from error
    if not alone:
        where = {name: path.name for path, names in zip(paths, shares, strict=True) for name in names}
        write_atomic(folder / "model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": where}, indent=1) + "\n")
    if checkpoint.about.config is not None:
        write_atomic(folder / "config.json", json.dumps(checkpoint.about.config, indent=1) + "\n")
    return paths
