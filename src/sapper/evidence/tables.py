"""The tables of a store, and the triggers that refuse every change of what stands in them.

``body`` is the record; the columns beside it repeat what queries choose by and are never read back. It is text and not
the database's JSON type, which would rewrite numbers and with them the hash.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Connection, Integer, MetaData, String, Table, Text, event

SCHEMA_VERSION = 1
"""Raised when a table changes; a store of a larger number is refused."""

METADATA = MetaData()

RECORDS = Table(
    "sapper_evidence",
    METADATA,
    # SQLite counts rows by INTEGER alone.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(64), CheckConstraint("length(id) = 64"), unique=True, nullable=False),
    Column("kind", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("chip", Text, index=True),
    Column("dtype", Text),
    Column("date", Text, nullable=False),
    Column("supersedes", String(64), index=True),
    Column("body", Text, nullable=False),
    Column("appended", Text, nullable=False),
    sqlite_autoincrement=True,
)

SCHEMA = Table(
    "sapper_schema",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

_APPEND_ONLY = "evidence is append-only: write a record that supersedes this one"

# INSERT OR REPLACE deletes without asking the trigger of DELETE.
_SQLITE = f"""
CREATE TRIGGER sapper_evidence_no_update BEFORE UPDATE ON sapper_evidence
BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END
;;
CREATE TRIGGER sapper_evidence_no_delete BEFORE DELETE ON sapper_evidence
BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END
;;
CREATE TRIGGER sapper_evidence_no_replace BEFORE INSERT ON sapper_evidence
WHEN EXISTS (SELECT 1 FROM sapper_evidence WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM sapper_evidence WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END
"""

_POSTGRESQL = f"""
CREATE FUNCTION sapper_evidence_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{_APPEND_ONLY}'; END $$
;;
CREATE TRIGGER sapper_evidence_no_change BEFORE UPDATE OR DELETE ON sapper_evidence
FOR EACH ROW EXECUTE FUNCTION sapper_evidence_refuse()
;;
CREATE TRIGGER sapper_evidence_no_truncate BEFORE TRUNCATE ON sapper_evidence
FOR EACH STATEMENT EXECUTE FUNCTION sapper_evidence_refuse()
"""

TRIGGERS = {
    "sqlite": ("sapper_evidence_no_update", "sapper_evidence_no_delete", "sapper_evidence_no_replace"),
    "postgresql": ("sapper_evidence_no_change", "sapper_evidence_no_truncate"),
}
"""Triggers that a whole store has, by dialect."""


def _protect(_table: Table, connection: Connection, **_: Any) -> None:
    script = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}[connection.dialect.name]
    for statement in script.split(";;"):
        connection.exec_driver_sql(statement.strip())


event.listen(RECORDS, "after_create", _protect)
