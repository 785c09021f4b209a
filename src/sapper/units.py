"""Units: SI inside, human text at the edge.

Inside Sapper every number is in base units and its name says which (``_s``, ``_bytes``, ``_flops``, ``_flops_per_s``,
``_bytes_per_s``, ``_w``, ``_j``). Files and flags carry text such as ``"80 GiB"``, ``"3.35 TB/s"``, ``"400 Gb/s"`` or
``"989 TFLOP/s"``; :func:`parse` turns it into the base unit once, and refuses a unit of another dimension.
GB is 1e9 bytes, GiB is 2**30 bytes, Gb is 1e9 bits.
"""

from __future__ import annotations

import math
import re

from sapper.errors import BadValue
from sapper.messages import Phrase, known

_SI = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_YEAR_S = 365.25 * 86400
_SMALL = {"n": 1e-9, "u": 1e-6, "\N{MICRO SIGN}": 1e-6, "m": 1e-3}


def _table() -> dict[str, tuple[str, float]]:
    table: dict[str, tuple[str, float]] = {"%": ("1", 0.01), "x": ("1", 1.0), "steps": ("steps", 1.0)}
    table |= {"tokens": ("tokens", 1.0), "tokens/s": ("tokens/s", 1.0)}
    for prefix, factor in (_SI | _BINARY).items():
        table[f"{prefix}B"] = ("bytes", factor)
        table[f"{prefix}B/s"] = ("bytes/s", factor)
        if prefix not in _BINARY:
            table[f"{prefix}b/s"] = ("bytes/s", factor / 8)
            table[f"{prefix}bps"] = ("bytes/s", factor / 8)
            for op in ("FLOP", "OP"):
                table[f"{prefix}{op}/s"] = ("flop/s", factor)
                table[f"{prefix}{op}S"] = ("flop/s", factor)
            table[f"{prefix}Hz"] = ("Hz", factor)
            table[f"{prefix}W"] = ("W", factor)
            table[f"{prefix}J"] = ("J", factor)
    table["bytes"] = ("bytes", 1.0)
    for prefix, factor in ({"": 1.0} | _SMALL).items():
        table[f"{prefix}s"] = ("s", factor)
    table |= {"min": ("s", 60.0), "h": ("s", 3600.0), "y": ("s", _YEAR_S)} | dict.fromkeys(("d", "day", "days"), ("s", 86400.0))
    table |= {"mm2": ("mm2", 1.0), "Wh": ("J", 3600.0), "kWh": ("J", 3.6e6), "MWh": ("J", 3.6e9)}
    for currency in ("CNY", "USD", "EUR"):
        table[currency] = (currency, 1.0)
        table[f"{currency}/h"] = (f"{currency}/h", 1.0)
        table[f"{currency}/kWh"] = (f"{currency}/kWh", 1.0)
    return table


UNITS = _table()
"""Unit text -> (dimension, factor to the base unit)."""

_COUNTED = ("tokens", "steps", "sequences")
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
"""How counts of tokens are said: ``15T``, ``300B tokens``. B is a thousand million here and bytes everywhere else."""

_NUMBER = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*$")


def parse(text: str | float | int, dimension: str, *, where: str | None = None, positive: bool = False) -> float:
    """Read a quantity and return it in the base unit of ``dimension``.

    Args:
        text: ``"80 GiB"``, ``"3.35 TB/s"``, ``"350 W"``; a bare number is taken to be in the base unit.
        dimension: ``bytes``, ``bytes/s``, ``flop/s``, ``s``, ``W``, ``J``, ``Hz``, ``CNY``, ``USD``, ``CNY/h``, ``1``,
            ``tokens``, ``steps``, ...
        where: The place to name in the error.
        positive: Refuse zero and less.

    Raises:
        BadValue: Not a number, not finite, a unit of another dimension, or not positive where it must be.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return _checked(text, text, dimension, where, positive)
    match = _NUMBER.match(text) if isinstance(text, str) else None
    if not match:
        raise _bad("SP-UNIT-001", text, dimension, where)
    number, unit = float(match[1].replace("_", "")), match[2]
    if dimension in _COUNTED and unit.removesuffix(dimension).strip() in _COUNTS:
        return _checked(number * _COUNTS[unit.removesuffix(dimension).strip()], text, dimension, where, positive)
    if not unit:
        return _checked(number, text, dimension, where, positive)
    if unit not in UNITS:
        raise _bad("SP-UNIT-002", text, dimension, where, unit=unit)
    found, factor = UNITS[unit]
    if found != dimension:
        raise _bad("SP-UNIT-003", text, dimension, where, unit=unit, found=_spoken(found))
    return _checked(number * factor, text, dimension, where, positive)


def _checked(value: float, text: object, dimension: str, where: str | None, positive: bool) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _bad("SP-UNIT-001", text, dimension, where)
    if positive and number <= 0:
        raise _bad("SP-UNIT-004", text, dimension, where)
    return number


def _bad(code: str, text: object, dimension: str, where: str | None, **values: object) -> BadValue:
    shown = str(text) if not isinstance(text, int) or abs(text) < 10**40 else f"{'-' * (text < 0)}999..."
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return BadValue(code, where=where, text=shown, dimension=_spoken(dimension), example=example(dimension), **values)


def _spoken(dimension: str) -> Phrase | str:
    code = f"units.dimension.{dimension.replace('/', '-per-').lower()}"
    return Phrase(code) if known(code) else dimension


def example(dimension: str) -> str:
    """A quantity of ``dimension`` as a user may write it."""
    examples = {
        "bytes": "80 GiB", "bytes/s": "3.35 TB/s", "flop/s": "989 TFLOP/s", "s": "5 us", "W": "700 W", "J": "3 kWh",
        "Hz": "1.8 GHz", "1": "0.85", "mm2": "814 mm2", "tokens": "1T",
    }
    return examples.get(dimension, f"1 {dimension}")


def scaled(value: float, unit: str, *, digits: int = 3) -> str:
    """``value`` of base unit ``unit`` with an SI prefix: ``scaled(3.12e14, "FLOP/s")`` is ``312 TFLOP/s``."""
    for prefix, factor in reversed(_SI.items()):
        if prefix not in ("", "K") and abs(_rounded(value / factor, digits)) >= 1:
            return f"{significant(value / factor, digits)} {prefix}{unit}"
    return f"{significant(value, digits)} {unit}"


def gib(value_bytes: float, *, digits: int = 3) -> str:
    """``value_bytes`` as GiB text."""
    return f"{significant(value_bytes / 2**30, digits)} GiB"


_CLOCK = (
    (1e-3, 1e-6, "us"), (1.0, 1e-3, "ms"), (120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172800.0, 3600.0, "h"), (8.64e7, 86400.0, "d"),
)
"""Below the first number of a row, a duration is said in the row's unit."""


def duration(value_s: float) -> str:
    """``value_s`` in the unit that a person would use: ``312 ms``, ``9.6 h``, ``14.2 d``, ``3.4 y`` (of 365.25 days)."""
    for limit_s, factor_s, unit in _CLOCK:
        if abs(_rounded(value_s / factor_s, 3)) < round(limit_s / factor_s):
            return f"{significant(value_s / factor_s, 3)} {unit}"
    return f"{significant(value_s / _YEAR_S, 3)} y"


def _rounded(value: float, digits: int) -> float:
    """``value`` to ``digits`` significant digits, so that 999.9 ms is chosen a unit as the 1 s that it is printed as."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def significant(value: float, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and thousands separators, no zeros behind."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    value = _rounded(value, max(digits, math.floor(math.log10(abs(value))) + 1))
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
