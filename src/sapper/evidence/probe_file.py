"""What the probe wrote, read back: the chain of checksums verified, each result as the fields of a record.

A line ends in ``"check"``: the SHA-256 of the check before it and of the line's own text. Whoever edits, drops or cuts a
line breaks the chain there. It is no signature: who writes the whole file anew can make a chain of his own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from sapper import files
from sapper.errors import BadFile, BadValue

FORMAT = 1
"""Version of the lines that we read."""

_CHECKED = re.compile(r'(.*), "check": "([0-9a-f]{64})"\}\s*', re.DOTALL)
_RESULT_FIELDS = ("kind", "metric", "value", "unit", "low", "high", "status", "dtype")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all results of a run; further fields of the line stay in the file."""

    sapper_probe: int
    date: str
    device: str
    stack: str
    chip: str | None = None
    memory_bytes: float | None = None
    note: str | None = None
    circumstances: dict[str, Any] = msgspec.field(default_factory=dict)
    """Conditions of every result: threads, clock limits, power limit."""


def begins(line: str) -> bool:
    """Whether a file that begins with ``line`` is a probe's."""
    return line.lstrip("\ufeff").lstrip().startswith('{"sapper_probe":')


class Probe:
    """A probe's file, read line by line."""

    def __init__(self, header: Header, check: str) -> None:
        self._header = header
        self._check = check
        self._seq = 0
        self._run = check[:12]
        self.ended = False

    @classmethod
    def of(cls, line: str, *, where: str) -> Self:
        """The probe whose file begins with ``line``.

        Raises:
            BadFile: The line was changed or cut, or is of a newer format.
        """
        header = files.decode(Header, files.parse_json(line, where), where)
        if header.sapper_probe > FORMAT:
            raise BadFile("SP-EVID-056", where=where, version=header.sapper_probe, known=FORMAT)
        found = _CHECKED.fullmatch(line)
        if found is None or found[2] != check_of("", found[1]):
            raise BadFile("SP-EVID-057", where=where)
        return cls(header, found[2])

    @property
    def chip(self) -> str | None:
        """The chip that the probe was told."""
        return self._header.chip

    @property
    def device(self) -> str:
        """What the device calls itself."""
        return self._header.device

    @property
    def memory_bytes(self) -> float | None:
        """Memory of the device, as its driver shows it."""
        return self._header.memory_bytes

    @property
    def on_processor(self) -> bool:
        """Whether the run was on the host's processor and no accelerator."""
        return self._header.circumstances.get("torch_device") == "cpu"

    def skip(self, line: str) -> re.Match[str] | None:
        """Pass over ``line`` and take what can be read of its check for the next one."""
        found = _CHECKED.fullmatch(line)
        self._seq, self._check = self._seq + 1, found[2] if found else ""
        return found

    def next(self, line: str, obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """``obj``, which ``line`` holds, where it is a result that follows on the line before; None of the end of the run.

        Raises:
            BadValue: The line was changed, or lines before it are missing.
        """
        previous, seq = self._check, obj.get("seq")
        found = self.skip(line)
        if isinstance(seq, int) and seq != self._seq:
            self._seq = seq
            raise BadValue("SP-EVID-051", seq=seq)
        if found is None or found[2] != check_of(previous, found[1]):
            raise BadValue("SP-EVID-050")
        if obj.get("type") == "end":
            self.ended = True
            return None
        return obj

    def fields(self, obj: Mapping[str, Any], *, chip: str | None, date: str | None) -> dict[str, Any]:
        """The fields of the record of a result.

        Args:
            obj: Of :meth:`next`.
            chip: The chip that the machine has; None leaves the device's own name alone.
            date: Day of the run, where the machine's clock was wrong.
        """
        conditions = obj.get("conditions")
        return {
            **{name: obj.get(name) for name in _RESULT_FIELDS},
            "conditions": {**self._header.circumstances, **(conditions if isinstance(conditions, dict) else {}), "run": self._run},
            "note": "; ".join(filter(None, (obj.get("note"), self._header.note))) or None,
            "chip": chip, "device": self._header.device, "stack": self._header.stack, "source": "sapper probe",
            "date": date or self._header.date, "grade": "measured-here",
        }


def check_of(previous: str, text: str) -> str:
    """The check of a line whose text before ``, "check"`` is ``text``, after a line whose check is ``previous``."""
    return hashlib.sha256((previous + text).encode("utf-8")).hexdigest()
