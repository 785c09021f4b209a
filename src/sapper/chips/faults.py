"""A chip file read with every fault noted: place, field, value, and what is expected.

:class:`Reader` walks one parsed TOML table. It never stops at a fault, so that ``sapper chips check`` can show all of
them at once; the loader turns the first into an error.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sapper import messages, places, units
from sapper.chips import ranges
from sapper.errors import BadFile, BadValue
from sapper.evidence import GRADES, Fact, Grade
from sapper.files import type_name

STATUS_GRADES: dict[str, Grade] = {
    "official": "vendor-claimed",
    "vendor_claim": "vendor-claimed",
    "press_report": "vendor-claimed",
    "measured": "measured-elsewhere",
    "estimate": "derived",
    "unsourced": "assumed",
    "withheld": "vendor-claimed",
}
"""Status words and the grade that each stands for; a press report repeats the vendor's sheet at second hand."""

EVIDENCE_FIELDS = ("source", "from", "date", "status", "grade", "read", "primary_cited", "primary_read", "note")
SOURCE_FIELDS = ("text", "date", "status", "grade", "read", "primary_cited", "primary_read")

_UNKNOWN, _WITHHELD = "unknown", "withheld"
_EDITION = datetime.date(2026, 11, 30)
"""No shipped date is later, so a clock that is wrong does not make them futures."""
_DATE = re.compile(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?")
_SHOWN = 60


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong in a chip file."""

    file: str
    line: int | None
    field: str
    """Dotted path, such as ``peak.bf16`` or ``measured[2].fraction``."""
    value: str
    """What stands there, shortened."""
    code: str
    values: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def where(self) -> str:
        """``file:line field``."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place} {self.field}".strip()

    def problem(self, lang: str | None = None) -> str:
        """What is wrong, as one sentence."""
        return messages.text(self.code, lang, **self.values)

    def expected(self, lang: str | None = None) -> str:
        """What should stand there."""
        return messages.next_step(self.code, lang, **self.values) or ""

    def error(self) -> BadFile:
        """The fault as an error."""
        return BadFile(self.code, where=self.where, **self.values)


class Reader:
    """Reads fields of one chip file's table and notes what is wrong with them.

    Args:
        table: What TOML gave.
        where: The file's name for messages.
        text: The file's text, for lines.
    """

    def __init__(self, table: Mapping[str, Any], *, where: str, text: str) -> None:
        self.table = table
        self.where = where
        self.text = text
        self.faults: list[Fault] = []
        self.sources: dict[str, dict[str, Any]] = {}
        self._read_sources()

    def fault(self, code: str, field: str, value: Any = None, /, **values: Any) -> None:
        """Note a fault of ``field``."""
        shown = "" if value is None else show(value)
        line = places.toml_line(self.text, field) if field else None
        values = {"field": field, "value": shown, **values}
        self.faults.append(Fault(file=self.where, line=line, field=field, value=shown, code=code, values=values))

    def fields(self, table: Mapping[str, Any], path: str, known: Iterable[str]) -> None:
        """Note each key of ``table`` that is not in ``known``, with near ones."""
        known = list(known)
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=3, cutoff=0.5) or known
                self.fault("SP-CHIP-011", join(path, key), table[key], known=", ".join(f"`{name}`" for name in near))

    def sub(self, table: Mapping[str, Any], key: str, path: str = "") -> dict[str, Any]:
        """The table at ``key``; empty where it is absent or no table."""
        value = table.get(key, {})
        if isinstance(value, dict):
            return value
        self.fault("SP-CHIP-012", join(path, key), value, found=messages.Phrase(type_code(value)), want=messages.Phrase("chips.type.table"))
        return {}

    def tables(self, table: Mapping[str, Any], key: str, path: str = "") -> list[tuple[str, dict[str, Any]]]:
        """The tables of the array at ``key``, each with its path."""
        value = table.get(key, [])
        want = messages.Phrase("chips.type.tables")
        if not isinstance(value, list):
            self.fault("SP-CHIP-012", join(path, key), value, found=messages.Phrase(type_code(value)), want=want)
            return []
        found = []
        for index, item in enumerate(value):
            at = f"{join(path, key)}[{index}]"
            if isinstance(item, dict):
                found.append((at, item))
            else:
                self.fault("SP-CHIP-012", at, item, found=messages.Phrase(type_code(item)), want=want)
        return found

    def string(self, table: Mapping[str, Any], key: str, path: str = "", *, required: bool = False) -> str | None:
        """Text at ``key``; None where absent."""
        if key not in table:
            if required:
                self.fault("SP-CHIP-013", join(path, key))
            return None
        value = table[key]
        if not isinstance(value, str):
            self.wrong_type(join(path, key), value, "string")
            return None
        if not value.strip():
            self.fault("SP-CHIP-014", join(path, key), value)
            return None
        return value

    def strings(self, table: Mapping[str, Any], key: str, path: str = "") -> tuple[str, ...]:
        """List of texts at ``key``."""
        value = table.get(key, [])
        if not isinstance(value, list):
            self.wrong_type(join(path, key), value, "strings")
            return ()
        found = []
        for index, item in enumerate(value):
            if isinstance(item, str) and item.strip():
                found.append(item)
            else:
                self.wrong_type(f"{join(path, key)}[{index}]", item, "string")
        return tuple(found)

    def choice(self, table: Mapping[str, Any], key: str, path: str, known: Iterable[str], *, required: bool = False) -> str | None:
        """One of the words ``known`` at ``key``."""
        value = self.string(table, key, path, required=required)
        known = list(known)
        if value is None or value in known:
            return value
        self.fault("SP-CHIP-015", join(path, key), value, known=", ".join(f"`{name}`" for name in nearest_first(value, known)))
        return None

    def boolean(self, table: Mapping[str, Any], key: str, path: str) -> bool | None:
        """True or false at ``key``."""
        value = table.get(key)
        if value is None or isinstance(value, bool):
            return value
        self.wrong_type(join(path, key), value, "boolean")
        return None

    def integer(self, table: Mapping[str, Any], key: str, path: str, quantity: str) -> int | None:
        """A whole number at ``key`` in the plausible range of ``quantity``."""
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong_type(join(path, key), value, "integer")
            return None
        return value if self.plausible(value, join(path, key), value, quantity) else None

    def number(self, value: Any, path: str, quantity: str) -> float | None:
        """A number or a quantity of dimension 1, such as a fraction."""
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return self.quantity(value, path, quantity)
        self.wrong_type(path, value, "number")
        return None

    def quantity(self, value: Any, path: str, quantity: str) -> float | None:
        """``value`` in the base unit of ``quantity``, checked against its plausible range; None after a fault."""
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            self.fault("SP-CHIP-016", path, value, found=messages.Phrase(type_code(value)), example=ranges.example(quantity))
            return None
        try:
            number = units.parse(value, ranges.RANGES[quantity].dimension)
        except BadValue as error:
            step = ranges.example(quantity)
            if error.code == "SP-UNIT-003":
                self.fault("SP-CHIP-017", path, value, unit=error.values["unit"], found=_dimension(error.values["found"]),
                           want=_dimension(ranges.RANGES[quantity].dimension), example=step)
            elif error.code == "SP-UNIT-002":
                self.fault("SP-CHIP-018", path, value, unit=error.values["unit"], example=step)
            else:
                self.fault("SP-CHIP-019", path, value, example=step)
            return None
        return number if self.plausible(number, path, value, quantity) else None

    def plausible(self, number: float, path: str, value: Any, quantity: str) -> bool:
        """Whether ``number`` can be meant; notes a fault where not."""
        allowed = ranges.RANGES[quantity]
        if allowed.low <= number <= allowed.high:
            return True
        low, high = ranges.shown(quantity)
        self.fault("SP-CHIP-020", path, value, low=low, high=high, example=ranges.example(quantity))
        return False

    def wrong_type(self, path: str, value: Any, want: str) -> None:
        """Note that ``value`` has the wrong type; ``want`` is a word of ``chips.type``."""
        self.fault("SP-CHIP-012", path, value, found=messages.Phrase(type_code(value)), want=messages.Phrase(f"chips.type.{want}"))

    def date(self, table: Mapping[str, Any], key: str, path: str) -> str | None:
        """A date: ISO (year, month or day), or text that begins with a year, such as ``2024-26 crawl``."""
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, (datetime.datetime, datetime.date)):
            value = value.isoformat()[:10]
        if not isinstance(value, str):
            self.wrong_type(join(path, key), value, "date")
            return None
        problem = date_problem(value)
        if problem:
            self.fault(problem, join(path, key), value)
            return None
        return value

    # -- evidence

    def _read_sources(self) -> None:
        for key, entry in self.sub(self.table, "sources").items():
            path = f"sources.{key}"
            if not isinstance(entry, dict):
                self.wrong_type(path, entry, "table")
                continue
            self.fields(entry, path, SOURCE_FIELDS)
            self.sources[key] = self._evidence(entry, path) | {"source": self.string(entry, "text", path, required=True) or "?"}

    def _evidence(self, table: Mapping[str, Any], path: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "date": self.date(table, "date", path),
            "status": self.choice(table, "status", path, STATUS_GRADES),
            "grade": self.choice(table, "grade", path, GRADES),
            "source_read": self.boolean(table, "read", path),
            "primary_cited": self.string(table, "primary_cited", path),
            "primary_read": self.boolean(table, "primary_read", path),
        }
        return {key: value for key, value in found.items() if value is not None}

    def evidence(self, table: Mapping[str, Any], path: str, *, status: str | None = None) -> dict[str, Any]:
        """What vouches for the value in ``table``: its own fields over those of the source that it names.

        Args:
            status: The status where neither says one.
        """
        before = len(self.faults)
        own = self._evidence(table, path)
        base: dict[str, Any] = {}
        key = table.get("from", "default" if "source" not in table else None)
        if "from" in table and "source" in table:
            self.fault("SP-CHIP-021", join(path, "from"), table["from"])
        elif key is not None and (not isinstance(key, str) or key not in self.sources):
            if "from" in table:
                near = difflib.get_close_matches(str(key), self.sources, n=3) or list(self.sources)
                self.fault("SP-CHIP-022", join(path, "from"), key, known=", ".join(f"`{name}`" for name in near) or "-")
            else:
                self.fault("SP-CHIP-023", path)
        elif key is not None:
            base = self.sources[key]
        else:
            base = {"source": self.string(table, "source", path) or "?"}
        merged = {"source": "?"} | base | own | ({"note": note} if (note := self.string(table, "note", path)) else {})
        merged.setdefault("status", status)
        if "grade" not in own and merged["status"] is not None and ("status" in own or "grade" not in base):
            merged["grade"] = STATUS_GRADES[merged["status"]]
        if "grade" not in merged:
            if len(self.faults) == before and (base or "from" not in table):
                self._ungraded(path, key if base else None)
            merged["grade"] = "assumed"
        return merged

    def _ungraded(self, path: str, source: Any) -> None:
        """Note that nothing grades the value at ``path``: once for the source that it names, else at the value."""
        field = path if source is None else f"sources.{source}"
        if not any(fault.code == "SP-CHIP-024" and fault.field == field for fault in self.faults):
            self.fault("SP-CHIP-024", field)

    def fact(self, table: Mapping[str, Any], key: str, path: str, quantity: str | None) -> Fact | None:
        """The value at ``key`` with its evidence; ``quantity`` None: text. None where absent or faulty."""
        if key not in table:
            return None
        return self.fact_of(table[key], join(path, key), quantity)

    def fact_of(self, entry: Any, path: str, quantity: str | None, *, value_key: str = "value", also: Iterable[str] = ()) -> Fact | None:
        """``entry`` (a table, or a bare value that the source ``default`` vouches for) as a Fact."""
        at = path
        if isinstance(entry, dict):
            at = join(path, value_key)
        else:
            entry = {value_key: entry}
        self.fields(entry, path, (value_key, *EVIDENCE_FIELDS, *also))
        if value_key not in entry:
            self.fault("SP-CHIP-013", join(path, value_key))
            return None
        value, evidence = entry[value_key], self.evidence(entry, path)
        if value == _WITHHELD:
            return Fact(value=None, unit=_unit(quantity), **(evidence | {"status": "withheld"}))
        if value == _UNKNOWN:
            return Fact(value=None, unit=_unit(quantity), **evidence)
        if quantity is None:
            if isinstance(value, str) and value.strip():
                return Fact(value=value, **evidence)
            self.wrong_type(at, value, "string")
            return None
        number = self.quantity(value, at, quantity)
        return None if number is None else Fact(value=number, unit=_unit(quantity), **evidence)


def date_problem(value: str) -> str | None:
    """The message code of what is wrong with a date; None where nothing is."""
    match = _DATE.match(value)
    if not match or not 1970 <= int(match[1]) <= 2100:
        return "SP-CHIP-025"
    whole = match[0] == value
    year, month, day = int(match[1]), int(match[2] or 1), int(match[3] or 1)
    if not whole:
        month = day = 1
    try:
        found = datetime.date(year, month, day)
    except ValueError:
        return "SP-CHIP-025"
    return "SP-CHIP-026" if found > max(datetime.date.today(), _EDITION) else None


def nearest_first(word: str, known: Sequence[str]) -> list[str]:
    """``known`` with what resembles ``word`` first; of many only those."""
    near = [name for name in known if len(word) > 1 and word in name]
    near += [name for name in difflib.get_close_matches(word, known, n=3, cutoff=0.5) if name not in near]
    return near if near and len(known) > 9 else near + [name for name in known if name not in near]


def join(path: str, key: str) -> str:
    """``path.key``, quoted as TOML would where the key needs it."""
    return f"{path}.{key}" if path else key


def show(value: Any) -> str:
    """A value as a message quotes it."""
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def type_code(value: Any) -> str:
    """Message code of the type of a TOML value."""
    if isinstance(value, (datetime.date, datetime.time)):
        return "chips.type.date"
    return {"true/false": "chips.type.boolean"}.get(name := type_name(value), f"chips.type.{name}")


def _dimension(name: Any) -> Any:
    """A dimension as a reader calls it; a phrase of another part stays what it is."""
    if not isinstance(name, str):
        return name
    code = f"chips.dimension.{name.replace('/', '_per_')}"
    return messages.Phrase(code) if messages.known(code) else name


def _unit(quantity: str | None) -> str:
    return "" if quantity is None else ranges.RANGES[quantity].unit
