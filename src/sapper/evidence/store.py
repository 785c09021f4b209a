"""Store: the evidence that this machine, or a team, has gathered. Append-only; a correction is a record of its own.

A batch is one transaction: after :meth:`Store.append` returns, all of it survives the death of the process or of the
machine; before, none of it is there. Writers wait for each other.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import msgspec
from sqlalchemy import Connection, Select, exists, func, inspect, select

from sapper.errors import AmbiguousName, StoreError, UnknownName
from sapper.evidence.engine import engine_of, make_folder, shown, transaction, use_write_ahead_log
from sapper.evidence.record import Record, identity, record_of
from sapper.evidence.rules import check
from sapper.evidence.tables import METADATA, RECORDS, SCHEMA, SCHEMA_VERSION
from sapper.evidence.where import store_url

_CHUNK = 500
"""Ids per query; databases bound the number of parameters."""


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch."""

    added: int
    known: int
    """Records that were there already (or twice in the batch): nothing was added for them."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A record with what the store knows of it."""

    id: str
    record: Record
    appended: str
    """When it came into this store, ISO, UTC."""
    superseded_by: tuple[str, ...]
    """Ids of the records that correct it."""


class Store:
    """An evidence store; made by :meth:`open`, and to be closed (it is a context manager)."""

    def __init__(self, url: str) -> None:
        self._engine = engine_of(url)
        self._checked = False

    @classmethod
    def open(cls, url: str | None = None) -> Self:
        """The store at ``url``: a path, ``sqlite:///PATH``, ``postgresql://...``; None: ``SAPPER_STORE``, else the user's own.

        A store that does not exist yet reads as an empty one and is created by the first :meth:`append`.

        Raises:
            StoreError: The URL cannot be used.
        """
        return cls(store_url(url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @property
    def place(self) -> str:
        """The path or URL of the store as messages show it, without a password."""
        return shown(self._engine.url)

    @property
    def file(self) -> str | None:
        """The path of a SQLite store; None of any other."""
        url = self._engine.url
        return url.database if url.get_backend_name() == "sqlite" else None

    def append(self, records: Iterable[Record]) -> Appended:
        """Add a batch in one transaction; of records that are there already nothing is added.

        Raises:
            BadValue: A record is not sound (see :mod:`sapper.evidence.rules`) or cannot be written; nothing was added.
            StoreError: The database refuses; nothing was added.
        """
        given = list(records)
        for record in given:
            check(record)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        # In the order of ids, so that two writers of the same records cannot wait for each other in a circle.
        rows = {row["id"]: row for row in (_row(record, now) for record in given)}
        with self._writing() as connection:
            known: set[str] = set()
            ids = sorted(rows)
            for start in range(0, len(ids), _CHUNK):
                known |= set(connection.scalars(select(RECORDS.c.id).where(RECORDS.c.id.in_(ids[start : start + _CHUNK]))))
            new = [rows[id_] for id_ in ids if id_ not in known]
            if new:
                connection.execute(RECORDS.insert(), new)
        return Appended(added=len(new), known=len(given) - len(new))

    def records(
        self,
        *,
        chip: str | None = None,
        kind: str | Sequence[str] | None = None,
        metric: str | None = None,
        dtype: str | None = None,
        since: str | None = None,
        history: bool = False,
    ) -> list[Record]:
        """The records that stand, by date and id.

        Args:
            chip: Of this chip alone: the id that the records have.
            kind: Of this kind, or of one of these.
            metric: Of this quantity.
            dtype: Of this dtype.
            since: Measured on this day (ISO) or later.
            history: Also what later records corrected or took back, and the taking back itself.

        Raises:
            StoreError: The database refuses.
        """
        if not self.exists():
            return []
        query = select(RECORDS.c.body).order_by(RECORDS.c.date, RECORDS.c.id)
        for column, wanted in ((RECORDS.c.chip, chip), (RECORDS.c.metric, metric), (RECORDS.c.dtype, dtype)):
            if wanted is not None:
                query = query.where(column == wanted)
        if kind is not None:
            query = query.where(RECORDS.c.kind.in_([kind] if isinstance(kind, str) else kind))
        if since is not None:
            query = query.where(RECORDS.c.date >= since)
        if not history:
            query = _standing(query)
        with self.reading() as connection:
            found = [record_of(body) for body in connection.scalars(query)]
        return found if history else [record for record in found if record.status != "withdrawn"]

    def get(self, id_: str) -> Stored:
        """The record whose id begins with ``id_``.

        Raises:
            UnknownName: No record's id does.
            AmbiguousName: Several records' ids do.
            StoreError: The database refuses.
        """
        if not id_ or not self.exists():
            raise UnknownName("SP-EVID-020", where=self.place, name=id_)
        begins = RECORDS.c.id.startswith(id_.lower(), autoescape=True)
        with self.reading() as connection:
            found = connection.execute(select(RECORDS.c.id, RECORDS.c.body, RECORDS.c.appended).where(begins).limit(2)).all()
            if not found:
                raise UnknownName("SP-EVID-020", where=self.place, name=id_)
            if len(found) > 1:
                raise AmbiguousName("SP-EVID-021", where=self.place, name=id_)
            row = found[0]
            later = connection.scalars(select(RECORDS.c.id).where(RECORDS.c.supersedes == row.id).order_by(RECORDS.c.id)).all()
        return Stored(id=row.id, record=record_of(row.body), appended=row.appended, superseded_by=tuple(later))

    def count(self) -> int:
        """How many records there are, history included."""
        if not self.exists():
            return 0
        with self.reading() as connection:
            return connection.scalar(select(func.count()).select_from(RECORDS)) or 0

    def exists(self) -> bool:
        """Whether there is a store at the place, as opposed to none yet.

        Raises:
            StoreError: There is something else, or a store that a newer Sapper made.
        """
        if self._checked:
            return True
        if self.file is not None and (not os.path.exists(self.file) or not os.path.getsize(self.file)):
            return False
        with transaction(self._engine) as connection:
            self._checked = self._is_ours(connection)
        return self._checked

    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        """A connection that sees one moment of the store."""
        return transaction(self._engine)

    def _writing(self) -> contextlib.AbstractContextManager[Connection]:
        if not self.exists():
            self._create()
        return transaction(self._engine, write=True)

    def _is_ours(self, connection: Connection) -> bool:
        """Whether the tables are there and of our version; an empty database is none yet."""
        names = set(inspect(connection).get_table_names())
        if SCHEMA.name not in names:
            if names and self.file is not None:
                raise StoreError("SP-EVID-022", where=self.place, tables=", ".join(sorted(names)[:5]))
            return False
        version = connection.scalar(select(func.max(SCHEMA.c.version))) or 0
        if version > SCHEMA_VERSION:
            raise StoreError("SP-EVID-023", where=self.place, version=version, known=SCHEMA_VERSION)
        return True

    def _create(self) -> None:
        if self.file is not None:
            make_folder(self.file)
            use_write_ahead_log(self._engine)
        with transaction(self._engine, write=True) as connection:
            if not self._is_ours(connection):  # else another writer was first
                METADATA.create_all(connection)
                connection.execute(SCHEMA.insert(), {"version": SCHEMA_VERSION})
        self._checked = True


def _row(record: Record, now: str) -> dict[str, Any]:
    body = record.body
    return {
        "id": identity(body), "kind": record.kind, "metric": record.metric, "chip": record.chip, "dtype": record.dtype,
        "date": record.date, "supersedes": record.supersedes, "body": body, "appended": now,
    }


def _standing(query: Select[Any]) -> Select[Any]:
    later = RECORDS.alias("later")
    return query.where(~exists(select(later.c.seq).where(later.c.supersedes == RECORDS.c.id)))
