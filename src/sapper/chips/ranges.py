"""What a number in a chip file can plausibly mean, by quantity.

The limits are wide: they catch a lost or doubled prefix, a zero and a negative, not an unusual chip. The greatest that
exist today (a wafer of 125 PFLOP/s and 21 PB/s, 46,225 mm2, 23 kW) lie inside.
"""

from __future__ import annotations

import re

import msgspec

from sapper import units

_UNIT = re.compile(r"\s*[+-]?[\d._]+(?:[eE][+-]?\d+)?\s*([A-Za-z%][A-Za-z0-9/]*)\s*")


class Range(msgspec.Struct, frozen=True):
    """Plausible values of one quantity."""

    dimension: str
    """For :func:`sapper.units.parse`."""
    low: float
    high: float
    unit: str
    """Base unit, as a Fact names it."""
    example: str
    low_shown: str
    high_shown: str


RANGES: dict[str, Range] = {
    "peak": Range("flop/s", 1e9, 1e18, "flop/s", "312 TFLOP/s", "1 GFLOP/s", "1 EFLOP/s"),
    "capacity": Range("bytes", 2.0**20, 1e14, "bytes", "80 GiB", "1 MiB", "100 TB"),
    "bandwidth": Range("bytes/s", 1e8, 1e17, "bytes/s", "2.039 TB/s", "0.1 GB/s", "100 PB/s"),
    "link": Range("bytes/s", 1e6, 1e15, "bytes/s", "300 GB/s", "1 MB/s", "1 PB/s"),
    "onchip": Range("bytes", 1e3, 1e12, "bytes", "40 MB", "1 kB", "1 TB"),
    "power": Range("W", 0.5, 1e5, "W", "400 W", "0.5 W", "100 kW"),
    "die": Range("mm2", 1.0, 1e5, "mm2", "826 mm2", "1 mm2", "100000 mm2"),
    "units": Range("1", 1.0, 1e7, "", "108", "1", "1e7"),
    "transistors": Range("1", 1e6, 1e14, "", "54_200_000_000", "1e6", "1e14"),
    "price_USD": Range("USD", 1.0, 1e8, "USD", "15000 USD", "1 USD", "1e8 USD"),
    "price_CNY": Range("CNY", 1.0, 1e9, "CNY", "110000 CNY", "1 CNY", "1e9 CNY"),
    "price_EUR": Range("EUR", 1.0, 1e8, "EUR", "15000 EUR", "1 EUR", "1e8 EUR"),
    "price_USD/h": Range("USD/h", 1e-3, 1e4, "USD/h", "1.39 USD/h", "0.001 USD/h", "10000 USD/h"),
    "price_CNY/h": Range("CNY/h", 1e-3, 1e5, "CNY/h", "3.5 CNY/h", "0.001 CNY/h", "100000 CNY/h"),
    "price_EUR/h": Range("EUR/h", 1e-3, 1e4, "EUR/h", "1.39 EUR/h", "0.001 EUR/h", "10000 EUR/h"),
    "fraction": Range("1", 1e-6, 1.2, "", "0.85", "0", "1.2"),
    "latency": Range("s", 1e-9, 1.0, "s", "10 us", "1 ns", "1 s"),
    "message": Range("bytes", 1.0, 1e13, "bytes", "512 MiB", "1 B", "10 TB"),
    "tokens": Range("tokens/s", 1e-6, 1e9, "tokens/s", "908 tokens/s", "0", "1e9 tokens/s"),
    "domain": Range("1", 1, 1_000_000, "", "8", "1", "1000000"),
    "devices": Range("1", 1, 1_000_000, "", "8", "1", "1000000"),
    "per_card": Range("1", 1, 64, "", "2", "1", "64"),
    "array": Range("1", 1, 65_536, "", "128", "1", "65536"),
    "warp": Range("1", 1, 1024, "", "32", "1", "1024"),
}

OF_DIMENSION = {
    "flop/s": "peak", "bytes/s": "bandwidth", "bytes": "capacity", "W": "power", "tokens/s": "tokens", "s": "latency", "1": "fraction",
}
"""The quantity that a measured value of a dimension is checked as."""


def shown(quantity: str) -> tuple[str, str]:
    """The least and the greatest plausible value, as a user would write them."""
    return RANGES[quantity].low_shown, RANGES[quantity].high_shown


def example(quantity: str) -> str:
    """A value as a user may write it."""
    return RANGES[quantity].example


def dimension_of(text: str) -> str | None:
    """Dimension of the unit that quantity ``text`` ends in; None where there is none that we know."""
    match = _UNIT.fullmatch(text)
    return units.UNITS[match[1]][0] if match and match[1] in units.UNITS else None
