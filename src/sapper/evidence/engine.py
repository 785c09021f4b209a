"""How a store's database is reached: URL to engine, transactions that really begin, and faults in our own words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from sapper.errors import StoreError

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for another one; a batch takes milliseconds."""

WRITES = "sapper_writes"
"""Execution option of a connection that is going to write."""


def engine_of(url: str) -> Engine:
    """An engine for ``url``: a path, ``sqlite:///PATH`` or ``postgresql://...``; nothing is opened or created yet.

    Raises:
        StoreError: The URL cannot be read, its database is not one of ours, or its driver is not installed.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        creator = _read_only_creator(parsed.database or "")
        engine = create_engine(parsed, poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_S}, **creator)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(parsed, pool_pre_ping=True, pool_size=1)
    except ModuleNotFoundError as error:
        raise StoreError("SP-EVID-012", where=shown(parsed), package=error.name) from error


def parse_url(url: str) -> URL:
    """``url`` as SQLAlchemy has it; a path is a SQLite file, and PostgreSQL is spoken to by psycopg.

    Raises:
        StoreError: No such form, or another database.
    """
    if "://" not in url:
        return URL.create("sqlite", database=os.path.expanduser(url))
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise StoreError("SP-EVID-011", where=shown(parsed), name=parsed.get_backend_name())
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ValueError(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise StoreError("SP-EVID-010", url=url.partition("://")[0] + "://...") from error
    return parsed


def _read_only_creator(path: str) -> dict[str, Any]:
    """How to open a file in a folder that may not be written to, where SQLite cannot put the files of its log."""
    if not os.path.exists(path) or os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        return {}
    mode = "mode=ro" if os.path.exists(f"{path}-wal") else "immutable=1"
    uri = f"file:{quote(os.path.abspath(path))}?{mode}"
    return {"creator": lambda: sqlite3.connect(uri, uri=True, check_same_thread=False)}


def use_write_ahead_log(engine: Engine) -> None:
    """Turn a SQLite file to write-ahead logging for good, so that readers never wait for a writer.

    Raises:
        StoreError: The file cannot be opened, is no database, or stays locked.
    """
    patience = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            with contextlib.closing(engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except DBAPIError as error:
            raise _refusal(error.orig, engine.url) from error
        except sqlite3.Error as error:
            # Changing the mode needs the file alone, and SQLite does not wait for that.
            if not _name_of(error).startswith(_BUSY) or time.monotonic() > patience:
                raise _refusal(error, engine.url) from error
            time.sleep(0.02)


def make_folder(path: str) -> None:
    """Make the folder of the file ``path``.

    Raises:
        StoreError: The system refuses.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    except OSError as error:
        raise StoreError("SP-EVID-017", where=path, problem=error.strerror or str(error)) from error


def shown(url: URL) -> str:
    """``url`` as a message may show it: a SQLite file by its path, any other without its password."""
    if url.get_backend_name() == "sqlite":
        return url.database or ""
    return url.render_as_string(hide_password=True)


@contextlib.contextmanager
def transaction(engine: Engine, *, write: bool = False) -> Iterator[Connection]:
    """A connection inside a transaction, which commits at the end and rolls back when an error leaves the block.

    Args:
        engine: Of :func:`engine_of`.
        write: Take the lock of writers at once, so that two of them wait for each other and never fail half-way.

    Raises:
        StoreError: The database refuses; a fault of SQLAlchemy never gets out.
    """
    try:
        with engine.connect().execution_options(**{WRITES: write}) as connection, connection.begin():
            if write and connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRESQL_LOCK})")
            yield connection
    except DBAPIError as error:
        raise _refusal(error.orig, engine.url) from error
    except SQLAlchemyError as error:
        raise StoreError("SP-EVID-019", where=shown(engine.url), problem=str(error).split("\n")[0]) from error


_POSTGRESQL_LOCK = int.from_bytes(b"sapper", "big")
"""Name of the lock that writers of any store in this database take in turn."""


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver would begin a transaction when it sees fit, and a reader's as a reader's even if it writes later.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITES) else "BEGIN")


_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_SQLITE_FAULTS = (
    (("SQLITE_NOTADB", "SQLITE_CORRUPT"), "SP-EVID-013"),
    (("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH"), "SP-EVID-014"),
    (("SQLITE_FULL",), "SP-EVID-015"),
    (_BUSY, "SP-EVID-016"),
    (("SQLITE_CANTOPEN",), "SP-EVID-017"),
)
"""Beginnings of SQLite's names of errors, and our code for them."""

_POSTGRESQL_FAULTS = {"42501": "SP-EVID-014", "25006": "SP-EVID-014", "53100": "SP-EVID-015", "55P03": "SP-EVID-016"}
"""SQLSTATE (insufficient privilege, read-only transaction, disk full, lock not available) and our code for it."""


def _name_of(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "")


def _refusal(cause: BaseException | None, url: URL) -> StoreError:
    if isinstance(cause, sqlite3.Error):
        code = next((code for heads, code in _SQLITE_FAULTS if _name_of(cause).startswith(heads)), "SP-EVID-019")
    else:
        state = getattr(cause, "sqlstate", None)
        # Without a state the server was never reached.
        code = _POSTGRESQL_FAULTS.get(state, "SP-EVID-019") if state else "SP-EVID-018"
    return StoreError(code, where=shown(url), problem=str(cause).split("\n")[0])
