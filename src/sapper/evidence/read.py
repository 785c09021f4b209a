"""read_evidence: the records that a file holds, and of each line that holds none, the reason.

A file is one of three: lines of records (docs/evidence.md), what the probe wrote (docs/probe.md), or measurement rows
(docs/validation.md). Every line is judged by itself; only a file that cannot be read at all is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sapper import files
from sapper.errors import BadFile, BadValue, SapperError
from sapper.evidence import probe_file, rows, rules
from sapper.evidence.fact import Grade
from sapper.evidence.limits import Chips, hold_against
from sapper.evidence.quantities import RUNS
from sapper.evidence.record import Record
from sapper.messages import text as message


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """Something to say about a file or one of its lines: a refusal, or a warning beside what was kept."""

    code: str
    line: int | None = None
    values: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def text(self) -> str:
        """The remark in the language in force."""
        return message(self.code, **self.values)


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller says where a file does not."""

    chip: str | None = None
    """The chip that a probe ran on; beats the probe's own word."""
    date: str | None = None
    """Day of measurement rows that state none, and of probes whose clock was wrong."""
    grade: Grade = "measured-elsewhere"
    """Of measurement rows."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds."""

    path: str
    records: tuple[Record, ...]
    refused: tuple[Remark, ...]
    """Lines that hold no record, in order."""
    warnings: tuple[Remark, ...]


def read_evidence(path: str | os.PathLike[str], *, chips: Chips, given: Given | None = None) -> Evidence:
    """Read a file of evidence; a faulty line is refused with its number and reason, the others are kept.

    Args:
        path: A JSON Lines file of any of the three forms.
        chips: The catalogue; names of chips are resolved and values held against it.
        given: What the caller says where the file does not.

    Raises:
        BadFile: The file is missing, unreadable or empty, or it is a probe's and its first line was changed,
            or its run was on the host's processor and not on the chip that is named.
    """
    where, given = os.fspath(path), given or Given()
    lines = [(number, line) for number, line in enumerate(files.read_text(path).split("\n"), start=1) if line.strip()]
    if not lines:
        raise BadFile("SP-EVID-055", where=where)
    reader = _Reader(where, chips=chips, given=given)
    reader.read(lines)
    return Evidence(path=where, records=tuple(reader.records), refused=tuple(reader.refused), warnings=tuple(reader.warnings))


class _Reader:
    """Collects what the lines of one file come to."""

    def __init__(self, where: str, *, chips: Chips, given: Given) -> None:
        self.where, self.chips, self.given = where, chips, given
        self.records: list[Record] = []
        self.refused: list[Remark] = []
        self.warnings: list[Remark] = []
        self._strangers: set[str] = set()

    def read(self, lines: list[tuple[int, str]]) -> None:
        if probe_file.begins(lines[0][1]):
            probe = probe_file.Probe.of(lines[0][1], where=f"{self.where}:{lines[0][0]}")
            self._probe(probe, lines[1:])
            return
        for number, line in lines:
            try:
                obj = self._object(line, number)
                self._keep(self._record(obj, number), number)
            except SapperError as error:
                self._refuse(error, number)

    def _probe(self, probe: probe_file.Probe, lines: list[tuple[int, str]]) -> None:
        chip = self.given.chip or probe.chip or self.chips.guess(probe.device, memory_bytes=probe.memory_bytes)
        if chip is None:
            self.warnings.append(Remark(code="SP-EVID-053", values={"device": probe.device}))
        elif not (self.given.chip or probe.chip):
            self.warnings.append(Remark(code="SP-EVID-054", values={"device": probe.device, "chip": chip}))
        limits = self.chips.limits(chip) if chip else None
        if limits is not None and probe.on_processor and limits.torch_device not in (None, "cpu"):
            raise BadFile("SP-EVID-058", where=self.where, device=probe.device, chip=limits.id, kind=limits.torch_device)
        for number, line in lines:
            try:
                obj = self._object(line, number)
            except SapperError as error:
                probe.skip(line)
                self._refuse(error, number)
                continue
            try:
                result = probe.next(line, obj)
                if result is not None:
                    fields = probe.fields(result, chip=chip, date=self.given.date)
                    self._keep(self._record(fields, number), number)
            except SapperError as error:
                self._refuse(error, number)
        if not probe.ended:
            self.warnings.append(Remark(code="SP-EVID-052"))

    def _object(self, line: str, number: int) -> dict[str, Any]:
        obj = files.parse_json(line, f"{self.where}:{number}")
        if not isinstance(obj, dict):
            raise BadFile("SP-FILE-009", where=f"{self.where}:{number}", found=files.type_name(obj))
        return obj

    def _record(self, obj: Mapping[str, Any], number: int) -> Record:
        """The record of one line: of the record format, or of a measurement row."""
        if "kind" not in obj and "model" in obj:
            obj = rows.fields(obj, date=self.given.date, grade=self.given.grade)
        stated = obj.get("id")
        fields = rules.in_base_units({key: value for key, value in obj.items() if key != "id" and value is not None})
        rules.check_choices(fields)
        record = files.decode(Record, fields, f"{self.where}:{number}")
        found = record.id
        # A line with an id is somebody's record already: it is taken as it stands, or not at all.
        if stated is not None and stated != found:
            raise BadValue("SP-EVID-044", stated=str(stated)[:12], found=found[:12])
        rules.check(record)
        return record if stated is not None else self._named(record)

    def _named(self, record: Record) -> Record:
        """``record`` with its chip by the catalogue's id."""
        limits = self.chips.limits(record.chip) if record.chip else None
        return record if limits is None else msgspec.structs.replace(record, chip=limits.id)

    def _keep(self, record: Record, number: int) -> None:
        limits = self.chips.limits(record.chip) if record.chip else None
        if limits is not None and record.kind not in RUNS:
            hold_against(limits, record)
        if limits is None and record.chip and record.chip not in self._strangers:
            self._strangers.add(record.chip)
            self.warnings.append(Remark(code="SP-EVID-045", line=number, values={"chip": record.chip}))
        self.records.append(record)

    def _refuse(self, error: SapperError, number: int) -> None:
        self.refused.append(Remark(code=error.code, line=number, values=dict(error.values)))


def placed(evidence: Evidence) -> Iterator[tuple[str, Remark]]:
    """Every remark with its place, ``file:line``: refusals first."""
    for remark in (*evidence.refused, *evidence.warnings):
        yield (evidence.path if remark.line is None else f"{evidence.path}:{remark.line}"), remark
