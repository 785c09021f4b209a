"""The files that a git repository tracks, read from its index (``.git/index``, gitformat-index(5)) without running git."""

from __future__ import annotations

import struct
from pathlib import Path

_MAX_BYTES = 256 * 2**20
_HEADER = struct.Struct(">4sII")
_FIXED_BYTES = 62
"""Of an entry, before its path: times, numbers, size, SHA-1 (20 bytes), flags."""
_EXTENDED = 0x4000


def tracked(index: Path) -> frozenset[str]:
    """Paths in the index, relative to the top of the repository; empty where the index is missing or not readable by us.

    Versions 2 to 4 of the format with SHA-1; an index of another kind gives nothing, and ``.gitignore`` decides alone.
    """
    try:
        with open(index, "rb") as file:
            data = file.read(_MAX_BYTES)
        return frozenset(_paths(data))
    except (OSError, struct.error, ValueError, IndexError):
        return frozenset()


def _paths(data: bytes) -> list[str]:
    signature, version, count = _HEADER.unpack_from(data)
    if signature != b"DIRC" or version not in (2, 3, 4):
        return []
    at, previous, found = _HEADER.size, b"", []
    for _ in range(count):
        start = at
        (flags,) = struct.unpack_from(">H", data, at + _FIXED_BYTES - 2)
        at += _FIXED_BYTES + (2 if version >= 3 and flags & _EXTENDED else 0)
        kept = b""
        if version == 4:
            drop, at = _varint(data, at)
            kept = previous[: len(previous) - drop]
        end = data.index(b"\0", at)
        previous = kept + data[at:end]
        found.append(previous.decode("utf-8", "surrogateescape"))
        at = end + 1 if version == 4 else start + (end - start + 8) // 8 * 8
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Number and where it ends, in the encoding of offsets in packs."""
    value = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        value = ((value + 1) << 7) | (data[at] & 0x7F)
    return value, at + 1
