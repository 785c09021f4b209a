"""Assumptions of the user: ``--assume KEY=VALUE`` fills what the catalogue does not know, and nothing else.

``scale_out=200Gb/s`` holds for every chip of the command, ``mtt-s4000.scale_out=200Gb/s`` for that chip alone and before
the general one. Each becomes a Fact of grade ``assumed``, so that a reader of the answer sees it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from sapper import units
from sapper.chips import Catalogue, Chip, catalogue
from sapper.chips.ranges import RANGES
from sapper.chips.schema import DTYPES
from sapper.clusters.cluster import TOPOLOGIES
from sapper.errors import BadValue, UnknownName
from sapper.evidence import Fact

Kind = Literal["link", "latency", "domain", "topology", "power", "capacity", "bandwidth", "peak", "money", "pue"]

KEYS: dict[str, Kind] = {
    "scale_up": "link", "scale_out": "link", "domain": "domain", "node": "domain", "topology": "topology", "latency": "latency",
    "scale_up_latency": "latency", "scale_out_latency": "latency", "tdp": "power", "memory": "capacity",
    "memory_bandwidth": "bandwidth", **{f"peak_{dtype}": "peak" for dtype in DTYPES}, "power_price": "money", "pue": "pue",
    "link": "link", "link_latency": "latency",
}
"""What can be assumed, and which quantity it is."""
OF_SITE = ("power_price", "pue", "link", "link_latency")
"""Keys of the whole cluster, which no chip can stand before."""
EXAMPLES: dict[Kind, str] = {"domain": "8", "topology": "full-mesh", "money": "0.6CNY/kWh", "pue": "1.25"}
MOST_PUE = 5.0
J_PER_KWH = 3.6e6


class Entry(msgspec.Struct, frozen=True):
    """One assumption."""

    key: str
    chip: str | None
    """Catalogue id; None: every chip."""
    value: float | str
    unit: str
    text: str
    """As the user wrote it."""


class Assumptions:
    """Assumptions of one command, and which of them filled something.

    Args:
        entries: Parsed assumptions.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = {(entry.chip, entry.key): entry for entry in entries}
        self.used: set[tuple[str | None, str]] = set()

    @classmethod
    def of(cls, given: Assumptions | Mapping[str, str] | None, chips: Catalogue | None = None) -> Assumptions:
        """``given`` parsed: a mapping such as ``{"scale_out": "200Gb/s", "mtt-s4000.tdp": "450 W"}``.

        Raises:
            UnknownName: A key or a chip that does not exist.
            BadValue: A value that is no such quantity.
        """
        if isinstance(given, Assumptions):
            return given
        return cls(_entry(key, text, chips) for key, text in (given or {}).items())

    def text(self, key: str, chip: str | None = None) -> str | None:
        """The word assumed for ``key`` (a topology); None where nothing is."""
        entry = self._entry(key, chip)
        return None if entry is None else str(entry.value)

    def number(self, key: str, chip: str | None = None) -> int | None:
        """The whole number assumed for ``key``; None where nothing is."""
        entry = self._entry(key, chip)
        return None if entry is None else int(entry.value)

    def fact(self, key: str, chip: str | None = None) -> Fact | None:
        """The value assumed for ``key`` of a chip (catalogue id) as evidence; None where nothing is."""
        entry = self._entry(key, chip)
        return None if entry is None else Fact(value=entry.value, unit=entry.unit, source=source_of(entry), grade="assumed")

    def _entry(self, key: str, chip: str | None) -> Entry | None:
        for place in ((chip, key), (None, key)):
            if place in self.entries:
                self.used.add(place)
                return self.entries[place]
        return None

    def unused(self) -> list[Entry]:
        """Assumptions that filled nothing, because the catalogue knows the value or because no such chip is there."""
        return [entry for place, entry in self.entries.items() if place not in self.used]

    def check_chips(self, present: Iterable[str]) -> None:
        """Refuse an assumption for a chip that is not asked about.

        Raises:
            UnknownName: The chip is none of ``present`` (catalogue ids).
        """
        known = sorted(set(present))
        for entry in self.entries.values():
            if entry.chip is not None and entry.chip not in known:
                listed = ", ".join(f"`{chip}`" for chip in known)
                raise UnknownName("SP-CLUSTER-011", where="--assume", text=entry.text, chip=entry.chip, known=listed)


def source_of(entry: Entry) -> str:
    """What the evidence of an assumed value says."""
    return f"assumed by the user (--assume {entry.text})"


def read_flags(flags: Iterable[str]) -> dict[str, str]:
    """Repeated ``--assume KEY=VALUE`` flags as a mapping.

    Raises:
        BadValue: No ``=``, an empty side, or a key given twice.
    """
    found: dict[str, str] = {}
    for flag in flags:
        key, equals, value = (part.strip() for part in flag.partition("="))
        if not equals or not key or not value:
            raise BadValue("SP-CLUSTER-007", where="--assume", text=flag, known=_listed(KEYS))
        if key in found:
            raise BadValue("SP-CLUSTER-010", where="--assume", key=key, first=found[key], second=value)
        found[key] = value
    return found


def _entry(name: str, text: str, chips: Catalogue | None) -> Entry:
    chip, dot, key = name.rpartition(".")
    key = key.strip().replace("-", "_")
    flag = f"{name}={text}"
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=3, cutoff=0.5)
        raise UnknownName("SP-CLUSTER-006", where="--assume", text=flag, key=key, known=_listed(near or KEYS))
    if dot and key in OF_SITE:
        raise BadValue("SP-CLUSTER-008", where="--assume", text=flag, key=key)
    found = (chips or catalogue()).resolve(chip.strip()).id if dot else None
    value, unit = _value(KEYS[key], str(text), flag)
    return Entry(key, found, value, unit, flag)


def _value(kind: Kind, text: str, flag: str) -> tuple[float | str, str]:
    if kind == "topology":
        return _topology(text.strip().lower(), flag), ""
    if kind == "domain":
        return _whole(text, flag), ""
    if kind == "money":
        return money_per_joule(text, where=f"--assume {flag}")
    if kind == "pue":
        return _within(units.parse(text, "1", where=f"--assume {flag}"), flag, text, low=1.0, high=MOST_PUE, example=EXAMPLES[kind]), ""
    allowed = RANGES[kind]
    number = units.parse(text, allowed.dimension, where=f"--assume {flag}")
    if not allowed.low <= number <= allowed.high:
        raise BadValue("SP-CLUSTER-009", where=f"--assume {flag}", value=text, low=allowed.low_shown, high=allowed.high_shown,
                       example=allowed.example)
    return number, allowed.unit


def _topology(word: str, flag: str) -> str:
    known = [name for name in TOPOLOGIES if name != "unknown"]
    if word not in known:
        near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
        raise UnknownName("SP-CLUSTER-012", where="--assume", text=flag, word=word, known=_listed(near or known))
    return word


def _whole(text: str, flag: str) -> float:
    number = units.parse(text, "1", where=f"--assume {flag}")
    if number != int(number):
        raise BadValue("SP-CLUSTER-009", where=f"--assume {flag}", value=text, low="1", high="1000000", example=EXAMPLES["domain"])
    return _within(number, flag, text, low=1, high=1_000_000, example=EXAMPLES["domain"])


def _within(number: float, flag: str, text: str, *, low: float, high: float, example: str) -> float:
    if not low <= number <= high:
        raise BadValue("SP-CLUSTER-009", where=f"--assume {flag}", value=text, low=f"{low:g}", high=f"{high:.0f}", example=example)
    return number


def money_per_joule(text: str, *, where: str) -> tuple[float, str]:
    """An electricity price such as ``0.6CNY/kWh`` as (amount per joule, ``CNY/J``).

    Raises:
        BadValue: No price of energy, negative, or beyond all markets.
    """
    currency = next((name for name in ("CNY", "USD", "EUR") if name in text), None)
    if currency is None:
        raise BadValue("SP-CLUSTER-009", where=where, value=text, low="0.001 CNY/kWh", high="100 CNY/kWh", example=EXAMPLES["money"])
    price = units.parse(text, f"{currency}/kWh", where=where)
    if not 0.001 <= price <= 100:
        raise BadValue("SP-CLUSTER-009", where=where, value=text, low=f"0.001 {currency}/kWh", high=f"100 {currency}/kWh",
                       example=EXAMPLES["money"])
    return price / J_PER_KWH, f"{currency}/J"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def with_assumed(chip: Chip, assumed: Assumptions) -> Chip:
    """``chip`` with power, memory and peaks that the catalogue lacks filled from the assumptions."""
    changes: dict[str, object] = {}
    if _gap(chip.tdp_w) and (fact := assumed.fact("tdp", chip.id)):
        changes["tdp_w"] = fact
    memory: dict[str, object] = {}
    if _gap(chip.memory.capacity_bytes) and (fact := assumed.fact("memory", chip.id)):
        memory["capacity_bytes"] = fact
    if _gap(chip.memory.bandwidth_bytes_per_s) and (fact := assumed.fact("memory_bandwidth", chip.id)):
        memory["bandwidth_bytes_per_s"] = fact
    if memory:
        changes["memory"] = msgspec.structs.replace(chip.memory, **memory)
    peaks = {
        dtype: fact for dtype in DTYPES
        if _gap(chip.peak_flops_per_s.get(dtype)) and (fact := assumed.fact(f"peak_{dtype}", chip.id))
    }
    if peaks:
        changes["peak_flops_per_s"] = dict(chip.peak_flops_per_s) | peaks
    return msgspec.structs.replace(chip, **changes) if changes else chip


def _gap(fact: Fact | None) -> bool:
    return fact is None or fact.number is None
