"""What the tests of evidence share: records, stores of either database, and a PostgreSQL of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sapper.evidence import Record

SERVER_URL = "SAPPER_TEST_POSTGRES"


def record(**changes: Any) -> Record:
    """A record that nothing is wrong with, apart from ``changes``."""
    fields: dict[str, Any] = {
        "kind": "matmul", "metric": "rate", "value": 2.5e14, "unit": "flop/s", "chip": "nvidia-a100-sxm-80gb", "dtype": "bf16",
        "conditions": {"m": 4096, "n": 4096, "k": 4096}, "stack": "torch 2.8.0", "source": "probe", "date": "2025-05-01",
        "grade": "measured-here",
    }
    return Record(**fields | changes)


def many(count: int, *, of: str = "a") -> list[Record]:
    """Records that differ from each other, and from those of another ``of``."""
    return [record(conditions={"m": index + 1, "n": 1, "k": 1, "run": of}) for index in range(count)]


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server for tests: the one that SAPPER_TEST_POSTGRES names, else a private one, else a skip."""
    pytest.importorskip("psycopg", reason="the dev extra is not installed")
    given = os.environ.get(SERVER_URL)
    if given:
        yield given
        return
    folder = _binaries()
    if folder is None:
        pytest.skip(f"no PostgreSQL here: {SERVER_URL} is not set and `initdb` is not found")
    with tempfile.TemporaryDirectory(prefix="sapper-pg-") as data, _server(folder, Path(data)) as url:
        yield url


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@contextlib.contextmanager
def _server(binaries: Path, folder: Path) -> Iterator[str]:
    """A cluster in ``folder`` that listens on loopback alone, and ends with the block."""
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = next((name for name in ("postgres", "nobody") if _has_user(name)), None)
        if user is None or shutil.which("setpriv") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no other user to run it as")
        shutil.chown(folder, user)
        as_user = ["setpriv", f"--reuid={user}", "--clear-groups", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["-D", str(folder / "data")]
    start = [*as_user, str(binaries / "initdb"), *options, "-U", "sapper", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(start, capture_output=True, text=True, cwd=folder, check=False)
    if made.returncode != 0:
        pytest.skip(f"initdb refuses: {made.stderr.strip()[-200:]}")
    line = [*as_user, str(binaries / "postgres"), *options, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(line, stdout=log, stderr=log, cwd=folder)
        try:
            _wait(f"postgresql://sapper@127.0.0.1:{port}/postgres")
            yield f"postgresql://sapper@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(timeout=20)


def _has_user(name: str) -> bool:
    import pwd

    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def _wait(url: str) -> None:
    import time

    import psycopg

    for _ in range(200):
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
            return
        time.sleep(0.05)
    raise TimeoutError(url)


def fresh_database(server: str) -> str:
    """URL of a database of ``server`` that nothing is in."""
    import secrets

    import psycopg
    from sqlalchemy import make_url

    name = f"sapper_test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_url(server).set(database=name).render_as_string(hide_password=False)
