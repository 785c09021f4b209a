"""Safetensors files, written with a running hash and forced to the disk; read by mapping, no byte twice in memory.

The format (github.com/huggingface/safetensors, README, "Format"): 8 bytes little-endian length of the header, the header as JSON
``{name: {dtype, shape, data_offsets}}``, then the bytes of all tensors without gaps. Written here rather than by the library, which
gives neither a hash of what it wrote nor an fsync.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from sapper.errors import BadFile

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_ALIGN_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""The limit of the library's own reader."""


def name_of(dtype: Any) -> str:
    """The format's name of a dtype of PyTorch."""
    return _NAMES[dtype]


def dtype_of(name: str) -> Any:
    """PyTorch's dtype of a name of the format."""
    return _DTYPES[name]


def write(path: Path, tensors: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Write ``tensors`` (on the CPU) to a new file and force it to the disk.

    Returns:
        Size in bytes and SHA-256.

    Raises:
        OSError: The place cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGN_BYTES)
    seen, total = hashlib.sha256(), 0
    with open(path, "wb") as file:
        blocks: Iterator[bytes | memoryview] = itertools.chain((len(text).to_bytes(8, "little"), text), map(raw, tensors.values()))
        for block in blocks:
            file.write(block)
            seen.update(block)
            total += len(block)
        file.flush()
        os.fsync(file.fileno())
    return total, seen.hexdigest()


def raw(tensor: Any) -> memoryview:
    """The bytes of a tensor on the CPU."""
    flat = tensor.detach().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


class TensorFile:
    """An open safetensors file; ``names`` are its tensors, which share the file's memory."""

    def __init__(self, path: Path) -> None:
        """Map ``path``.

        Raises:
            BadFile: Missing, unreadable, or not whole.
        """
        self.path = path
        try:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise BadFile("SP-MIX-181", where=str(path), problem=getattr(error, "strerror", None) or str(error)) from error
        length = int.from_bytes(self._map[:8], "little")
        if length > min(len(self._map) - 8, _MAX_HEADER_BYTES):
            raise BadFile("SP-MIX-182", where=str(path), have=len(self._map), due=length + 8)
        try:
            header = json.loads(self._map[8 : 8 + length])
            self.names = {name: entry for name, entry in header.items() if name != "__metadata__"}
            due = 8 + length + max((entry["data_offsets"][1] for entry in self.names.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadFile("SP-MIX-181", where=str(path), problem=str(error)) from error
        if due != len(self._map):
            raise BadFile("SP-MIX-182", where=str(path), have=len(self._map), due=due)
        self._start = 8 + length

    def tensor(self, name: str) -> Any:
        """The tensor ``name``."""
        entry = self.names[name]
        start, end = entry["data_offsets"]
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        if start == end:
            return torch.empty(shape, dtype=dtype)
        bytes_ = torch.frombuffer(self._map, dtype=torch.uint8, offset=self._start + start, count=end - start)
        if (self._start + start) % dtype.itemsize:  # another library's file, or small dtypes before large ones
            bytes_ = bytes_.clone()
        return bytes_.view(dtype).reshape(shape)

    def sha256(self) -> str:
        """Of the whole file."""
        return hashlib.sha256(self._map).hexdigest()
