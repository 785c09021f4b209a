"""Bytes to text: sizes, encodings, byte-order marks, notebooks. Nothing that a file holds can make reading fail."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from sapper.port import notebook
from sapper.port.finding import Unread
from sapper.port.languages import language_of
from sapper.port.source import Language, Source

MAX_BYTES = 16 * 2**20
"""Larger than any source that a person wrote; what is larger is data, or was generated."""
MAX_SCRIPT_BYTES = 2 * 2**20
"""Of scripts, lists and configuration."""
MAX_NOTEBOOK_BYTES = 128 * 2**20
"""Notebooks hold the pictures that they drew."""
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
"""PEP 263, on the first two lines."""
_HAN_IN_GBK = re.compile(rb"(?:[\xa1-\xfe][\xa1-\xfe]){2}")


def read(path: Path, relative: str) -> Source | Unread:
    """A file as text, or why not. ``relative`` is its path from the scanned root, and tells the language."""
    language = language_of(relative) or "python"
    data = load(path, relative, language)
    return data if isinstance(data, Unread) else decoded(data, relative, language)


def limit_bytes(language: Language) -> int:
    """Size of the largest file of a language that is read."""
    if language == "notebook":
        return MAX_NOTEBOOK_BYTES
    return MAX_BYTES if language in ("python", "cuda", "cpp") else MAX_SCRIPT_BYTES


def load(path: str | Path, relative: str, language: Language) -> bytes | Unread:
    """The bytes of a file, or why they cannot be had."""
    limit = limit_bytes(language)
    try:
        data = _bytes_of(path, limit + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        return Unread(path=relative, code="SP-READ-002", values={"problem": problem})
    if len(data) > limit:
        return Unread(path=relative, code="SP-READ-003", values={"limit": f"{limit // 2**20} MiB"})
    if b"\0" in data[:8192] and marked(data) is None:
        return Unread(path=relative, code="SP-READ-004")
    return data


def _bytes_of(path: str | Path, most_bytes: int) -> bytes:
    """Up to so many bytes of a file, by as few calls of the system as can be: a project has thousands of small ones."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        size_bytes = os.fstat(file).st_size
        data = os.read(file, min(size_bytes + 1, most_bytes))
        while len(data) not in (size_bytes, most_bytes) and (more := os.read(file, most_bytes - len(data))):
            data += more  # it grows, or the system gives it in pieces
        return data
    finally:
        os.close(file)


def marked(data: bytes) -> str | None:
    """The encoding that a byte-order mark says."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def decoded(data: bytes, relative: str, language: Language) -> Source | Unread:
    """``data`` as the text of a file of ``language``; a notebook as its cells."""
    encoding = _encoding(data, language)
    try:
        text = data.decode(encoding)
    except (UnicodeError, LookupError, ValueError):
        # Every byte is a character in Latin-1: columns and bytes stay one to one, and ASCII, which is all that rules
        # look for, is read rightly.
        encoding = "latin-1"
        text = data.decode(encoding)
    if language == "notebook":
        return notebook.source(text, relative, encoding=encoding)
    return Source(path=relative, language=language, text=text, encoding=encoding)


def _encoding(data: bytes, language: Language) -> str:
    mark = marked(data)
    if mark is not None:
        return mark
    if data.isascii():
        return "utf-8"
    if language == "python":
        named = _cookie(data)
        if named is not None:
            return named
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "gb18030" if _HAN_IN_GBK.search(data) and _decodes(data, "gb18030") else "latin-1"
    return "utf-8"


def _cookie(data: bytes) -> str | None:
    """The text encoding that a Python file says it has, if there is such a one."""
    for line in data.split(b"\n", 2)[:2]:
        found = _COOKIE.match(line)
        if found:
            try:
                info = codecs.lookup(found[1].decode("ascii", "replace"))
            except LookupError:
                return None
            return info.name if getattr(info, "_is_text_encoding", True) and _decodes(data, info.name) else None
        if line.strip() and not line.lstrip().startswith(b"#"):
            return None
    return None


def _decodes(data: bytes, encoding: str) -> bool:
    """Does the encoding read ``data``, and give it back unchanged?"""
    try:
        return data.decode(encoding).encode(encoding) == data
    except (UnicodeError, LookupError, ValueError):
        return False
