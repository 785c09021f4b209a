"""One message on a connection: a head of fixed size, a tag, the shape, and the elements. Two versions of PyTorch read it alike.

Little-endian, nothing padded:

    offset  bytes  field
    0       4      magic, "SPWR"
    4       1      version of the protocol
    5       1      kind (:class:`Kind`)
    6       1      dtype, its place in :data:`~sapper.mix.wire.dtypes.BITS`
    7       1      number of dimensions d
    8       4      bytes of the tag t
    12      8      bytes of the elements n
    20      4      CRC-32 of the elements
    24      4      CRC-32 of bytes 0 to 23, tag and shape
    28      t      tag, UTF-8
    28+t    8 d    shape
            n      elements

The layout of kind HELLO never changes, so that members of unlike versions can tell each other so.
"""

from __future__ import annotations

import enum
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sapper.mix.wire.dtypes import BITS, Array
from sapper.mix.wire.faults import BadFrame

VERSION = 1
MAGIC = b"SPWR"
_HEAD = struct.Struct("<4sBBBBIQI")
_CHECK = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _CHECK.size
MAX_TAG_BYTES = 4096
MAX_DIMS = 16
MAX_BYTES = 2**36

_NAMES = tuple(BITS)


class Kind(enum.IntEnum):
    """What a frame is for."""

    HELLO = 1
    """First on a connection: who is there, as JSON."""
    ARRAY = 2
    BEAT = 3
    """Sent when nothing else is, so that silence means something."""
    BYE = 4
    """Last on a connection; its tag is the reason, empty where all is well."""


@dataclass(frozen=True)
class Frame:
    """A message as read."""

    kind: Kind
    tag: str
    dtype: str
    array: Array


def raw(array: Array) -> memoryview:
    """The bytes of a contiguous array, which they share."""
    return array.reshape(-1).view(np.uint8).data


def head(kind: Kind, tag: str, array: Array, *, dtype: str) -> bytes:
    """Everything of a frame that comes before the elements of ``array``, which holds the bits of ``dtype``."""
    name = tag.encode()
    code = _NAMES.index(dtype)
    fixed = _HEAD.pack(MAGIC, VERSION, kind, code, array.ndim, len(name), array.nbytes, zlib.crc32(raw(array)))
    rest = name + struct.pack(f"<{array.ndim}Q", *array.shape)
    return fixed + _CHECK.pack(zlib.crc32(rest, zlib.crc32(fixed))) + rest


def read(fill: Callable[[memoryview], None]) -> Frame:
    """The next frame.

    Args:
        fill: Fills a buffer with the next bytes of the connection, all of it.

    Raises:
        BadFrame: Not a frame of this protocol and version, or its checksum differs.
    """
    start = bytearray(HEAD_BYTES)
    fill(memoryview(start))
    magic, version, kind, code, dims, tag_bytes, size, crc = _HEAD.unpack_from(start)
    if magic != MAGIC:
        raise BadFrame(f"starts with {bytes(magic)!r}")
    if version != VERSION and kind != Kind.HELLO:
        raise BadFrame(f"version {version} of the protocol")
    if tag_bytes > MAX_TAG_BYTES or dims > MAX_DIMS or code >= len(_NAMES) or size > MAX_BYTES:
        raise BadFrame("head out of bounds")
    rest = bytearray(tag_bytes + 8 * dims)
    fill(memoryview(rest))
    if zlib.crc32(rest, zlib.crc32(start[: _HEAD.size])) != _CHECK.unpack_from(start, _HEAD.size)[0]:
        raise BadFrame("checksum of the head")
    shape = struct.unpack_from(f"<{dims}Q", rest, tag_bytes)
    bits = BITS[_NAMES[code]]
    if math.prod(shape) * bits.itemsize != size:
        raise BadFrame(f"{size} bytes for shape {shape}")
    array = np.empty(shape, bits)
    elements = raw(array)
    fill(elements)
    if zlib.crc32(elements) != crc:
        raise BadFrame("checksum of the elements")
    try:
        return Frame(Kind(kind), bytes(rest[:tag_bytes]).decode(), _NAMES[code], array)
    except ValueError as error:  # an unknown kind, or a tag that is not UTF-8
        raise BadFrame(str(error)) from error
