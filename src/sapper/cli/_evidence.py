"""What ``sapper evidence`` reads and shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sapper import messages
from sapper.cli.output import Column, emit, emit_json, talk

if TYPE_CHECKING:
    from sapper.evidence import Grade, Record
    from sapper.evidence.read import Evidence

ID_SHOWN = 12
"""Characters of an id in tables; ``show`` takes them."""

_MOST_REMARKS = 50
"""Refusals and warnings printed per file; JSON has all."""

COLUMNS = [
    Column("id", "evidence.column.id", show=lambda value: str(value)[:ID_SHOWN]),
    Column("subject", "evidence.column.chip"),
    Column("kind", "evidence.column.kind"),
    Column("dtype", "evidence.column.dtype"),
    Column("shape", "evidence.column.shape"),
    Column("shown", "evidence.column.value", "right"),
    Column("date", "evidence.column.date"),
    Column("letter", "evidence.column.grade"),
    Column("source", "evidence.column.source"),
]
RAW_COLUMNS = [
    Column(key, "evidence.column.id")
    for key in (
        "id", "chip", "device", "stack", "kind", "metric", "dtype", "value", "unit", "low", "high", "status", "date", "grade", "source",
        "supersedes", "note", "conditions",
    )
]


def chip_id(name: str | None) -> str | None:
    """The catalogue's id of the chip that ``name`` means; a name that the catalogue lacks means itself.

    Raises:
        AmbiguousName: Several chips bear the name.
    """
    from sapper.chips import catalogue
    from sapper.chips.limits import KnownChips

    limits = KnownChips(catalogue()).limits(name) if name else None
    return name if limits is None else limits.id


def grade_of(name: str) -> Grade:
    """``name`` as a grade; the command line has checked that it is one."""
    from sapper.evidence import GRADES

    return next(grade for grade in GRADES if grade == name)


def imported(read: Sequence[Evidence], *, store: str | None, dry_run: bool) -> list[dict[str, Any]]:
    """Store what was read, and a row of counts per file."""
    from sapper.evidence import Store

    rows = []
    with Store.open(store) as opened:
        for file in read:
            counts = {"file": file.path, "records": len(file.records), "refused": len(file.refused), "added": 0, "known": 0}
            if not dry_run and file.records:
                appended = opened.append(file.records)
                counts |= {"added": appended.added, "known": appended.known}
            rows.append({**counts, "store": None if dry_run else opened.place})
    return rows


def print_imported(read: Sequence[Evidence], rows: Sequence[Mapping[str, Any]], *, fmt: str) -> None:
    """What became of each file on stdout, refusals and warnings on stderr."""
    from sapper.evidence.read import placed

    for file in read:
        remarks = list(placed(file))
        for place, remark in remarks[:_MOST_REMARKS]:
            talk("evidence.import.remark", place=place, text=remark.text, code=remark.code)
        if len(remarks) > _MOST_REMARKS:
            talk("evidence.import.more", count=len(remarks) - _MOST_REMARKS)
    if fmt == "json":
        details = [
            {name: [{"line": remark.line, "code": remark.code, "text": remark.text} for remark in getattr(file, name)]
             for name in ("refused", "warnings")}
            for file in read
        ]
        emit_json([{**row, **detail} for row, detail in zip(rows, details, strict=True)])
        return
    names = ("file", "records", "added", "known", "refused", "store")
    emit(rows, [Column(key, f"evidence.column.{key}", "right" if key not in ("file", "store") else "left") for key in names], fmt=fmt)


def found(store: str | None, *, shipped: bool, history: bool, chosen: Mapping[str, str | None]) -> list[Record]:
    """The records of the store, or of those that ship, that the flags choose.

    Raises:
        BadValue: ``--since`` is no day.
    """
    wanted = {**chosen, "chip": chip_id(chosen.get("chip")), "since": _day(chosen.get("since"))}
    if shipped:
        from sapper.evidence.shipped import shipped as all_shipped

        return [record for record in all_shipped() if _fits(record, wanted)]
    from sapper.evidence import Store

    with Store.open(store) as opened:
        if not opened.exists():
            talk("evidence.none_yet", place=opened.place)
        return opened.records(**wanted, history=history)


def _fits(record: Record, wanted: Mapping[str, str | None]) -> bool:
    since = wanted["since"]
    exact = all(value is None or getattr(record, key) == value for key, value in wanted.items() if key != "since")
    return exact and (since is None or record.date >= since)


def _day(text: str | None) -> str | None:
    from datetime import date

    from sapper.errors import BadValue

    if text is None:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise BadValue("SP-EVID-070", where="--since", value=text) from error


def fields(id_: str, *, store: str | None) -> dict[str, Any]:
    """Every field of the record whose id begins with ``id_``, in the store or among those that ship.

    Raises:
        UnknownName: No record's id does.
        AmbiguousName: Several records' ids do.
    """
    import msgspec

    from sapper.errors import UnknownName
    from sapper.evidence import Store
    from sapper.evidence.shipped import shipped

    with Store.open(store) as opened:
        try:
            stored = opened.get(id_)
        except UnknownName:
            own = [record for record in shipped() if id_ and record.id.startswith(id_.lower())]
            if len(own) != 1:
                raise
            return whole(own[0])
    beside = {"appended": stored.appended, "superseded_by": list(stored.superseded_by)}
    return {**whole(stored.record), **{key: value for key, value in msgspec.to_builtins(beside).items() if value}}


def whole(record: Record) -> dict[str, Any]:
    """The fields of ``record`` with its id."""
    import msgspec

    return {"id": record.id, **msgspec.to_builtins(record)}


def row(record: Record) -> dict[str, Any]:
    """``record`` as a line of a listing: raw fields, and beside them what a table shows."""
    from sapper.evidence.fact import letter

    return {
        **{column.key: getattr(record, column.key) for column in RAW_COLUMNS},
        "subject": record.chip or record.device, "shape": shape(record), "shown": shown(record), "letter": letter(record.grade),
    }


def shown(record: Record) -> str:
    """The value with a prefix that a person reads; of a case without one, why."""
    from sapper import units

    if record.value is None:
        return messages.text(f"evidence.status.{record.status}")
    scales: dict[str, Callable[[float], str]] = {
        "s": units.duration,
        "1": lambda value: f"{100 * value:.1f}%",
        "flop/s": lambda value: units.scaled(value, "FLOP/s"),
        "bytes/s": lambda value: units.scaled(value, "B/s"),
        "Hz": lambda value: units.scaled(value, "Hz"),
        "W": lambda value: units.scaled(value, "W"),
    }
    scale = scales.get(record.unit)
    return scale(record.value) if scale else f"{record.value:,.4g} {record.unit}"


def shape(record: Record) -> str:
    """The conditions that tell a record from its neighbours, short."""
    from sapper import units

    have = record.conditions
    if record.payload:
        model = record.payload.get("model")
        return f"{record.metric}, {model.get('name') if isinstance(model, dict) else model}, n={record.payload.get('n_chips')}"
    if record.kind == "matmul":
        return "x".join(str(have.get(key)) for key in ("m", "n", "k"))
    if record.kind == "attention":
        return f"{have.get('pass')} b{have.get('batch')} h{have.get('heads')} q{have.get('query_len')} kv{have.get('kv_len')}"
    for name in ("bytes", "message_bytes"):
        if isinstance(have.get(name), (int, float)):
            size = units.gib(have[name]) if have[name] >= 2**30 else f"{have[name] / 2**20:.6g} MiB"
            return size + (f" x{have['devices']}" if "devices" in have else "")
    return str(have.get("what", ""))


def plain(value: Any) -> str:
    """A field as text: what is nested as JSON."""
    import msgspec

    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode("utf-8")
