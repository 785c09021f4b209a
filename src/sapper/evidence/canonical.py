"""Canonical JSON (RFC 8785): one text for one value, whatever program wrote it, so that its hash can name it.

Keys are sorted by UTF-16 code units, there is no white space, and a number is written as ECMAScript writes it: ``1.0``
and ``1`` are one number and one text.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from sapper.errors import BadValue

MAX_INTEGER = 2**53
"""Beyond it JSON readers of other languages round; such a number has to be written as text."""

MAX_DEPTH = 40
"""Deeper than any record has a use for, and far from Python's own limit."""


def canonical(value: Any) -> str:
    """``value`` (of JSON types) as canonical JSON text.

    Raises:
        BadValue: A number that JSON cannot carry faithfully, a half of a surrogate pair, or nesting beyond
            :data:`MAX_DEPTH`.
    """
    return _text(value, 0)


def _text(value: Any, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise BadValue("SP-EVID-003", limit=MAX_DEPTH)
    if isinstance(value, dict):
        keys = sorted(value) if all(map(str.isascii, value)) else sorted(value, key=_utf16)
        return "{" + ",".join(f"{_string(key)}:{_text(value[key], depth + 1)}" for key in keys) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_text(item, depth + 1) for item in value) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return _number(value)


_quote = json.JSONEncoder(ensure_ascii=False).encode


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")


def _string(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadValue("SP-EVID-002", text=text.encode("ascii", "backslashreplace").decode("ascii")[:60]) from error
    return _quote(text)


def _number(value: float) -> str:
    """A number as ``Number.prototype.toString`` of ECMAScript writes it."""
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise BadValue("SP-EVID-001", value=str(value) if abs(value) < 10**40 else "...")
        return str(value)
    if not math.isfinite(value):
        raise BadValue("SP-EVID-001", value=str(value))
    if value == 0:
        return "0"  # minus zero too
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    point = len(text) + exponent
    if 0 < point <= 21:
        body = text + "0" * exponent if exponent >= 0 else f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        body = f"0.{'0' * -point}{text}"
    else:
        mantissa = text if len(text) == 1 else f"{text[0]}.{text[1:]}"
        body = f"{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return f"-{body}" if sign else body
