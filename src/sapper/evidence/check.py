"""Whether a store is whole: what :meth:`Store.append` promises, looked at anew."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, select

from sapper.evidence.record import identity, record_of
from sapper.evidence.store import Store
from sapper.evidence.tables import RECORDS, TRIGGERS
from sapper.messages import text

_COLUMNS = ("kind", "metric", "chip", "dtype", "date", "supersedes")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that no program of ours can have done."""

    code: str
    id: str | None = None
    """The record, where it is one record's."""
    values: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def text(self) -> str:
        """The fault in the language in force."""
        return text(self.code, **self.values)


def check_store(store: Store) -> list[Fault]:
    """Faults of ``store``: damaged pages, changed records, columns that belie their record, guards taken off.

    Raises:
        StoreError: The database cannot be read at all.
    """
    if not store.exists():
        return []
    with store.reading() as connection:
        faults = _damage(connection) + _guards(connection)
        for row in connection.execute(select(RECORDS).order_by(RECORDS.c.seq)):
            faults += _row_faults(row._mapping)
    return faults


def _damage(connection: Connection) -> list[Fault]:
    if connection.dialect.name != "sqlite":
        return []
    found = [str(line) for line in connection.exec_driver_sql("PRAGMA integrity_check").scalars()]
    return [Fault(code="SP-EVID-060", values={"problem": line}) for line in found if line != "ok"]


def _guards(connection: Connection) -> list[Fault]:
    query = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgname FROM pg_trigger WHERE tgrelid = 'sapper_evidence'::regclass AND tgenabled <> 'D'",
    }[connection.dialect.name]
    there = set(connection.exec_driver_sql(query).scalars())
    missing = [name for name in TRIGGERS[connection.dialect.name] if name not in there]
    return [Fault(code="SP-EVID-061", values={"name": name}) for name in missing]


def _row_faults(row: Any) -> list[Fault]:
    if identity(row["body"]) != row["id"]:
        return [Fault(code="SP-EVID-062", id=row["id"], values={"id": row["id"][:12]})]
    try:
        record = record_of(row["body"])
    except msgspec.ValidationError as error:
        return [Fault(code="SP-EVID-064", id=row["id"], values={"id": row["id"][:12], "problem": str(error)})]
    wrong = [name for name in _COLUMNS if getattr(record, name) != row[name]]
    return [Fault(code="SP-EVID-063", id=row["id"], values={"id": row["id"][:12], "field": name}) for name in wrong]
