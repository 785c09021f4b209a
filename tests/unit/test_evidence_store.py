from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from evidence_kit import fresh_database, many, postgresql, record
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sapper.errors import AmbiguousName, BadValue, StoreError, UnknownName
from sapper.evidence import Record, Store
from sapper.evidence.canonical import canonical
from sapper.evidence.engine import parse_url
from sapper.evidence.where import default_path
from support import ROOT, environment


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place for a store, in a file and on a server."""
    if request.param == "sqlite":
        return str(tmp_path / "folder" / "evidence.db")
    return fresh_database(request.getfixturevalue("server"))


def test_canonical_json_is_that_of_the_rfc() -> None:
    """RFC 8785, section 3.2.2 and appendix B."""
    assert canonical([333333333.33333329, 1e30, 4.50, 2e-3, 1e-27]) == "[333333333.3333333,1e+30,4.5,0.002,1e-27]"
    numbers = [-0.0, 5e-324, 1.7976931348623157e308, 9007199254740992.0, 295147905179352830000.0, 1e21, 1e23, 0.000001, 1.5e-7, 1.0]
    assert canonical(numbers) == (
        "[0,5e-324,1.7976931348623157e+308,9007199254740992,295147905179352830000,1e+21,1e+23,0.000001,1.5e-7,1]"
    )
    assert canonical({"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7}) == (
        '{"\\r":2,"1":4,"\x80":6,"\xf6":7,"\u20ac":1,"\U0001f600":5,"\ufb33":3}'
    )
    assert canonical("\u20ac$\x0f\nA'B\"\\\\\"/") == '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'
    for value in (float("nan"), float("inf"), 2**53 + 1, "\ud800", [[]]):
        deep = value
        for _ in range(60 if value == [[]] else 0):
            deep = [deep]
        with pytest.raises(BadValue):
            canonical(deep)


def test_the_id_is_the_content() -> None:
    assert record(value=1e12, conditions={"m": 1, "n": 2}).id == record(value=10**12, conditions={"n": 2.0, "m": 1.0}).id
    ids = {record().id, record(chip="b").id, record(note="x").id, record(low=1.0).id, record(date="2025-05-02").id}
    assert len(ids) == 5
    assert json.loads(record().line)["id"] == record().id
    assert record().id == "0e4a54a03c8843e8f09d701b8665f496b0027bd5fc1cdfaef3654436f776ab59"


def test_what_goes_in_comes_out_and_nothing_goes_in_twice(url: str) -> None:
    sizes = {"devices": 8, "message_bytes": 2**20}
    reduction = record(kind="all-reduce", metric="time", value=1e-3, unit="s", date="2025-06-01", conditions=sizes)
    first = [record(), reduction, record(chip=None, device="\u6607\u817e")]
    with Store.open(url) as store:
        assert store.records() == [] and not store.exists() and store.count() == 0
        assert (store.append(first).added, store.append(first).added, store.append(iter([first[0], record(note="new")])).added) == (3, 0, 1)
    with Store.open(url) as store:
        assert store.count() == 4
        assert sorted(r.id for r in store.records()) == sorted(r.id for r in [*first, record(note="new")])
        assert store.records(chip="nvidia-a100-sxm-80gb", kind="all-reduce") == [first[1]]
        assert store.records(kind=["all-reduce", "matmul"], since="2025-06-01") == [first[1]]
        assert store.records(dtype="fp8") == store.records(metric="time", chip="b") == []
        assert store.get(first[2].id[:12]).record == first[2]
        with pytest.raises(UnknownName):
            store.get("zz")
        with pytest.raises(UnknownName):
            store.get("")


def test_a_correction_stands_in_for_what_it_supersedes(url: str) -> None:
    wrong = record(value=9e14)
    right = record(value=2.4e14, supersedes=wrong.id, note="the clock was not that of delivery")
    back = record(value=None, status="withdrawn", supersedes=right.id)
    with Store.open(url) as store:
        store.append([right])
        assert store.records() == [right]
        store.append([wrong])  # the older one arrives later
        assert store.records() == [right]
        assert store.get(wrong.id).superseded_by == (right.id,)
        store.append([back])
        assert store.records() == []
        assert len(store.records(history=True)) == 3


def test_a_prefix_of_several_ids_is_ambiguous(url: str) -> None:
    records = many(40)
    prefixes = [r.id[0] for r in records]
    several = next(prefix for prefix in prefixes if prefixes.count(prefix) > 1)
    with Store.open(url) as store:
        store.append(records)
        with pytest.raises(AmbiguousName):
            store.get(several)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sapper_evidence SET body = '{}'",
        "DELETE FROM sapper_evidence",
        "TRUNCATE sapper_evidence",
        "INSERT OR REPLACE INTO sapper_evidence SELECT * FROM sapper_evidence",
    ],
)
def test_the_database_itself_refuses_to_forget(url: str, statement: str) -> None:
    with Store.open(url) as store:
        store.append([record()])
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with pytest.raises(DBAPIError), engine.begin() as connection:
        connection.execute(text(statement))
    with Store.open(url) as store:
        assert store.records() == [record()]


WRITER = """
import sys
sys.path.insert(0, sys.argv[4])
from evidence_kit import many
from sapper.evidence import Store
url, name, batches = sys.argv[1:4]
for batch in range(int(batches)):
    with Store.open(url) as store:
        records = many(25, of=f"{name}-{batch}")
        assert store.append(records).added == 25
    print(batch, flush=True)
"""


def writer(url: str, name: str, batches: int) -> subprocess.Popen[str]:
    """A process that appends batches of 25, and says the number of each when it is stored."""
    line = [sys.executable, "-c", WRITER, url, name, str(batches), str(ROOT / "tests" / "unit")]
    return subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("writers", [2, 4])
def test_writers_side_by_side_lose_nothing(url: str, writers: int) -> None:
    children = [writer(url, f"w{number}", 6) for number in range(writers)]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert (child.returncode, err, out.split()) == (0, "", [str(batch) for batch in range(6)])
    with Store.open(url) as store:
        assert store.count() == writers * 6 * 25


@pytest.mark.slow
def test_killed_in_the_middle_of_a_write_nothing_said_to_be_stored_is_lost(url: str) -> None:
    chance = random.Random(7)
    said: dict[str, int] = {}
    for attempt in range(8):
        child = writer(url, f"k{attempt}", 10_000)
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()  # it is at work
        time.sleep(chance.uniform(0.0, 0.15))
        child.send_signal(signal.SIGKILL)
        said[f"k{attempt}"] = 1 + len(child.stdout.read().split())
        assert child.wait(timeout=20) == -signal.SIGKILL and child.stderr.read() == ""
        child.stdout.close()
        child.stderr.close()
    with Store.open(url) as store:
        found = {r.id for r in store.records()}
        for name, batches in said.items():
            whole = [{r.id for r in many(25, of=f"{name}-{batch}")} <= found for batch in range(batches)]
            assert all(whole), (name, batches)
        # Of a batch that was not finished there is all (it was stored, and only saying so was cut off) or nothing.
        assert store.count() % 25 == 0
        assert all(r.id == rid for rid, r in ((s.id, s.record) for s in map(store.get, sorted(found)[:50])))


def test_an_unusable_record_stops_the_whole_batch(url: str) -> None:
    with Store.open(url) as store:
        with pytest.raises(BadValue):
            store.append([record(), record(note="\ud800")])
        with pytest.raises(BadValue):
            store.append([record(), record(unit="bytes/s")])
        assert store.records() == []


def test_places_of_a_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Store.open().place == str(default_path())
    monkeypatch.setenv("SAPPER_STORE", "postgresql://me:secret@db.example:5433/evidence")
    with Store.open() as store:
        assert "secret" not in store.place and "db.example:5433" in store.place
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        assert store.file == f"{tmp_path}/a.db"


@pytest.mark.parametrize(
    ("url", "code"),
    [("mysql://x/y", "SP-EVID-011"), ("foo://x", "SP-EVID-011"), ("sqlite://", "SP-EVID-010"), ("postgresql://h:port/x", "SP-EVID-010")],
)
def test_a_place_that_is_none(url: str, code: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store.open(url)
    assert caught.value.code == code


def refused(url: str) -> StoreError:
    """The error of appending one more record."""
    with Store.open(url) as store, pytest.raises(StoreError) as caught:
        store.append(many(2000, of="new"))
    return caught.value


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"chip,value\n" * 500)
    assert refused(str(path)).code == "SP-EVID-013"
    assert path.read_bytes() == b"chip,value\n" * 500
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE bookmarks (x)")
    connection.close()
    error = refused(str(other))
    assert error.code == "SP-EVID-022" and "bookmarks" in error.render("en")
    assert refused(str(tmp_path)).code == "SP-EVID-017"
    (tmp_path / "file").write_text("x")
    assert refused(str(tmp_path / "file" / "below.db")).code == "SP-EVID-017"


def test_a_store_of_a_newer_sapper_is_left_alone(url: str) -> None:
    with Store.open(url) as store:
        store.append([record()])
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO sapper_schema (version) VALUES (99)"))
    assert refused(url).code == "SP-EVID-023"
    with Store.open(url) as store, pytest.raises(StoreError):
        store.records()


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
sys.path.insert(0, sys.argv[2])
from evidence_kit import many
from sapper.errors import StoreError
from sapper.evidence import Store
with Store.open(sys.argv[1]) as store:
    try:
        store.append(many(3000, of="much"))
    except StoreError as error:
        print(error.code, store.count())
"""


@pytest.mark.slow
def test_a_full_disk_stores_nothing_of_the_batch_and_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "evidence.db")
    with Store.open(path) as store:
        store.append([record()])
    line = [sys.executable, "-c", FULL, path, str(ROOT / "tests" / "unit")]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
    code, count = done.stdout.split()
    assert code in ("SP-EVID-015", "SP-EVID-019") and count == "1", done.stderr
    with Store.open(path) as store:
        assert store.append(many(3000, of="much")).added == 3000


def test_a_store_that_may_not_be_written_to_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "evidence.db"
    with Store.open(str(path)) as store:
        store.append([record()])
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store.open(str(path)) as store:
        assert store.records() == [record()]
        assert refused(str(path)).code == "SP-EVID-014"


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="the dev extra is not installed")
    with Store.open("postgresql://me:secret@127.0.0.1:1/x?connect_timeout=2") as store, pytest.raises(StoreError) as caught:
        store.records()
    assert caught.value.code == "SP-EVID-018"
    assert "secret" not in caught.value.render("en") and "127.0.0.1:1" in caught.value.render("en")


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError) as caught:
        Store.open("postgresql://me@127.0.0.1/x")
    assert caught.value.code == "SP-EVID-012" and "sapper[postgres]" in caught.value.render("en")


def test_records_are_values() -> None:
    assert record() == record() and isinstance(record(), Record)
