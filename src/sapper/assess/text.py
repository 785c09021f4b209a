"""Numbers as text, the same in every language; only words and unit names differ.

One table uses one unit for a column, so that its figures can be compared at a glance: :func:`time_scale` and its like
choose it from the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from sapper import messages, units
from sapper.evidence import Fact, Interval
from sapper.evidence.fact import letter
from sapper.predict.plan import Plan

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """A unit of a column: ``value * factor`` is in the unit that the label ``unit.<key>`` names."""

    key: str
    factor: float

    def name(self, lang: str | None = None) -> str:
        """The unit's name."""
        return messages.text(f"assess.unit.{self.key}", lang)


def time_scale(values_s: Iterable[float]) -> Scale:
    """Days, hours, minutes or seconds, such that the smallest value has a digit before the point if it can."""
    smallest = min(values_s, default=86400.0)
    for key, size_s in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if smallest >= size_s:
            return Scale(key=key, factor=1 / size_s)
    return Scale(key="s", factor=1.0)


def energy_scale(values_j: Iterable[float]) -> Scale:
    """GWh, MWh or kWh."""
    smallest = min(values_j, default=3.6e9)
    for key, size_j in (("gwh", 3.6e12), ("mwh", 3.6e9)):
        if smallest >= size_j:
            return Scale(key=key, factor=1 / size_j)
    return Scale(key="kwh", factor=1 / 3.6e6)


def money_scale(values: Iterable[float]) -> Scale:
    """Tens of thousands (the Chinese custom of stating prices) from 10 000 up, else whole units."""
    return Scale(key="wan", factor=1e-4) if min(values, default=0.0) >= 1e4 else Scale(key="one", factor=1.0)


def factor(ratio: Interval) -> str:
    """A ratio with its interval and the sign of multiplication: ``1.29 (0.96-1.74)x``."""
    if ratio.low == ratio.high:
        return f"{_fixed(ratio.mid, 0 if ratio.mid == 1 else 2)}{TIMES}"
    places = 2 if ratio.mid < 10 else 1
    mid, low, high = (_fixed(value, places) for value in (ratio.mid, ratio.low, ratio.high))
    return f"{mid}{TIMES} ({low}{DASH}{high})"


def number(value: float, *, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and thousands separators."""
    return _fixed(value, _places(value, digits))


def spread(interval: Interval, factor: float = 1.0) -> tuple[str, str, str]:
    """Middle, low and high of ``interval * factor``, all to the decimals that suit the middle."""
    places = _places(interval.mid * factor, 3)
    return _fixed(interval.mid * factor, places), _fixed(interval.low * factor, places), _fixed(interval.high * factor, places)


def ranged(interval: Interval, factor: float = 1.0) -> str:
    """``41.2 (35.1-52.0)`` with an en dash; the middle alone where the interval is a point."""
    mid, low, high = spread(interval, factor)
    return mid if low == high else f"{mid} ({low}{DASH}{high})"


def plain(value: float) -> str:
    """``value`` as it was given: up to six digits, no zeros behind."""
    text = f"{value:,.{min(12, _places(value, 6))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    """``0.123`` as ``12%``; one digit more below 10%."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share * 100:.1f}%" if 0 < abs(share) < 0.0995 else f"{share * 100:.0f}%"


def amount(tokens: float, *, samples: bool, lang: str | None = None) -> str:
    """What a job trains on, with its noun: ``samples`` where a sample counts as one token."""
    return messages.text(f"assess.amount.{'samples' if samples else 'tokens'}", lang, count=count(tokens))


def count(value: float, *, exact: bool = True) -> str:
    """A large count with a letter: ``7.62B``, ``1T``; three digits always where it is not ``exact``."""
    for size, sign in ((1e15, "e15"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            text = number(value / size)
            return f"{text.rstrip('0').rstrip('.') if '.' in text and exact else text}{sign}"
    return number(value)


def badge(interval: Interval) -> str:
    """The grade's letter."""
    return letter(interval.grade)


def plan_text(plan: Plan) -> str:
    """A plan as it may be given to ``--plan``: degrees above 1 and every choice."""
    parts = [f"{axis}={getattr(plan, axis)}" for axis in ("tp", "pp", "dp", "cp", "ep") if getattr(plan, axis) > 1 or axis == "dp"]
    parts += [f"micro_batch={plan.micro_batch}"]
    if plan.pp > 1:
        parts += [f"schedule={plan.schedule}"] + ([f"vpp={plan.vpp}"] if plan.vpp > 1 else [])
    parts += [f"zero={plan.zero}"] + ([f"hsdp={plan.hsdp}"] if plan.hsdp else []) + [f"recompute={plan.recompute}"]
    return ",".join(parts)


def fact_value(fact: Fact | None, lang: str | None = None) -> str:
    """A fact's value with its unit; the word for unknown or withheld where there is none."""
    if fact is None or fact.value is None:
        return messages.text("assess.label.withheld" if fact is not None and fact.withheld else "assess.label.unknown", lang)
    if fact.number is None:
        return str(fact.value)
    return quantity(fact.number, fact.unit)


def quantity(value: float, unit: str) -> str:
    """``value`` of base unit ``unit`` as a person writes it."""
    if unit == "bytes":
        return units.gib(value) if value >= 2**30 else units.scaled(value, "B")
    if unit in ("bytes/s", "B/s"):
        return units.scaled(value, "B/s")
    if unit.lower() in ("flop/s", "flops/s"):
        return units.scaled(value, "FLOP/s")
    if unit == "s":
        return units.duration(value)
    if unit in ("1", ""):
        return plain(value)
    if unit.endswith("/J"):
        return f"{plain(value * 3.6e6)} {unit.removesuffix('J')}kWh"
    return units.scaled(value, unit) if unit in ("W", "J", "Hz") else f"{plain(value)} {unit}"


def say(code: str, lang: str | None = None, /, **values: object) -> str:
    """The text of ``code``; where the catalogue lacks it or a value, the code and the values as they are.

    Texts of estimates and refusals come from other areas with values that have become strings on the way; a page must
    not fail over one of them.
    """
    try:
        return messages.text(code, lang, **values)
    except (KeyError, ValueError, IndexError):
        return f"{code}: " + ", ".join(f"{key}={value}" for key, value in values.items())


def _places(value: float, digits: int) -> int:
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value)) + 1e-12))


def _fixed(value: float, places: int) -> str:
    return f"{value:,.{places}f}"
