from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from evidence_kit import many, record

from sapper.cli import main
from sapper.evidence import Store
from sapper.evidence.record import Record
from sapper.evidence.rules import check
from sapper.evidence.shipped import FOLDER, shipped

GOOD: dict[str, Any] = {
    "kind": "matmul", "metric": "rate", "value": 250, "unit": "TFLOP/s", "chip": "A100-SXM4-80GB", "dtype": "bf16",
    "conditions": {"m": 4096, "n": 4096, "k": 4096}, "source": "bench.py", "date": "2025-05-01", "grade": "measured-here",
}
REDUCTION = {"kind": "all-reduce", "metric": "time", "unit": "ms", "conditions": {"devices": 8, "message_bytes": 2**30}}
ROW: dict[str, Any] = {
    "id": "own-1", "source": "our cluster", "chip": "NVIDIA A100-SXM4-80GB", "n_chips": 64, "model": {"name": "llama-3-8b"},
    "metric": "tokens_per_s_per_chip", "value": 3100.0, "unit": "tokens/s/chip", "precision": "bf16", "date": "2025-05-02",
}


def invoke(*line: str, **env: str) -> Result:
    return CliRunner(env=env).invoke(main.cli, list(line))


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "evidence.db")


def write(folder: Path, *lines: object) -> str:
    path = folder / "results.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return str(path)


def records(store: str) -> list[Record]:
    with Store.open(store) as opened:
        return opened.records()


def test_names_of_chips_and_units_are_put_into_the_catalogues(tmp_path: Path, store: str) -> None:
    done = invoke("evidence", "import", write(tmp_path, GOOD), "--store", store)
    assert (done.exit_code, done.stderr) == (0, "")
    [found] = records(store)
    assert (found.chip, found.value, found.unit) == ("nvidia-a100-sxm-80gb", 2.5e14, "flop/s")


TOMORROW = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
BAD: list[tuple[str, object, str]] = [
    ("not JSON", "{not json", "SP-FILE-007"),
    ("not an object", [1, 2], "SP-FILE-009"),
    ("a missing field", {k: v for k, v in GOOD.items() if k != "source"}, "SP-FILE-013"),
    ("a missing value", {k: v for k, v in GOOD.items() if k != "value"}, "SP-EVID-032"),
    ("a missing shape", {**GOOD, "conditions": {"m": 1, "n": 1}}, "SP-EVID-032"),
    ("a missing dtype", {**GOOD, "dtype": None}, "SP-EVID-032"),
    ("no subject", {**GOOD, "chip": None}, "SP-EVID-032"),
    ("an unknown field", {**GOOD, "chps": "x"}, "SP-FILE-012"),
    ("a value that is text", {**GOOD, "value": "fast"}, "SP-FILE-014"),
    ("a unit of something else", {**GOOD, "unit": "GB/s"}, "SP-EVID-031"),
    ("a unit of nothing", {**GOOD, "unit": "parsec"}, "SP-EVID-031"),
    ("a metric of another kind", {**GOOD, "metric": "bandwidth", "unit": "GB/s"}, "SP-EVID-030"),
    ("a date in the future", {**GOOD, "date": TOMORROW}, "SP-EVID-037"),
    ("a date that is none", {**GOOD, "date": "2026-02-30"}, "SP-EVID-036"),
    ("zero", {**GOOD, "value": 0}, "SP-EVID-033"),
    ("a negative value", {**GOOD, "value": -3}, "SP-EVID-033"),
    ("an infinite value", json.dumps({**GOOD, "value": float("inf")}), "SP-FILE-010"),
    ("more than a number holds", json.dumps(GOOD).replace("250", "1e999"), "SP-FILE-010"),
    ("quartiles the wrong way round", {**GOOD, "low": 260, "high": 240}, "SP-EVID-035"),
    ("an unknown grade", {**GOOD, "grade": "A+"}, "SP-EVID-030"),
    ("an unknown kind", {**GOOD, "kind": "gemm"}, "SP-EVID-030"),
    ("a rate above the peak", {**GOOD, "value": 340}, "SP-EVID-040"),
    ("a bandwidth above the memory's", {
        **GOOD, "kind": "memory-copy", "metric": "bandwidth", "value": 3, "unit": "TB/s", "conditions": {"bytes": 2**30},
    }, "SP-EVID-041"),
    ("a collective faster than its links", {**GOOD, **REDUCTION, "value": 1}, "SP-EVID-042"),
    ("a name of several chips", {**GOOD, "chip": "A100"}, "SP-CHIP-002"),
    ("a value beside a failure", {**GOOD, "status": "unsupported"}, "SP-EVID-034"),
    ("an id of another content", {**GOOD, "unit": "flop/s", "id": "0" * 64}, "SP-EVID-044"),
    ("a correction of nothing", {**GOOD, "supersedes": "abc"}, "SP-EVID-038"),
    ("half a character", json.dumps(GOOD).replace("bench.py", "\\ud800"), "SP-EVID-002"),
    ("a run without its model", {**GOOD, "kind": "training-run", "payload": {"id": "x"}}, "SP-EVID-032"),
    ("a row whose unit contradicts its metric", {**ROW, "unit": "ms"}, "SP-EVID-043"),
    ("a row without a day", {k: v for k, v in ROW.items() if k != "date"}, "SP-FILE-013"),
    ("a row without chips", {k: v for k, v in ROW.items() if k != "n_chips"}, "SP-EVID-032"),
]


def test_each_faulty_line_is_refused_with_its_number_and_the_rest_is_kept(tmp_path: Path, store: str) -> None:
    path = write(tmp_path, GOOD, *(line for _, line, _ in BAD), {**GOOD, "value": 240})
    done = invoke("evidence", "import", path, "--store", store, "--format", "json")
    [report] = json.loads(done.stdout)
    expected = [(number, code) for number, (_, _, code) in enumerate(BAD, start=2)]
    assert [(item["line"], item["code"]) for item in report["refused"]] == expected
    assert done.exit_code == 1
    assert (report["records"], report["added"], len(records(store))) == (2, 2, 2)
    for number, code in expected:
        assert f"{path}:{number}: " in done.stderr and f"[{code}]" in done.stderr


def test_refusals_are_said_in_chinese_too(tmp_path: Path, store: str) -> None:
    done = invoke("evidence", "import", write(tmp_path, {**GOOD, "value": 340}), "--store", store, "--lang", "zh")
    assert "高于芯片目录中 `nvidia-a100-sxm-80gb` 的 bf16 稠密峰值 312 TFLOP/s" in done.stderr


@pytest.mark.parametrize("line", [
    {**GOOD, "value": 320},  # within the tolerance of 5% above 312
    {**GOOD, "kind": "memory-copy", "metric": "bandwidth", "value": 3, "unit": "TB/s", "conditions": {"bytes": 2**20}},  # in the cache
    {**GOOD, **REDUCTION, "value": 5.2},
    {**GOOD, "status": "unsupported", "value": None},
    {**GOOD, "chip": None, "device": "an unnamed accelerator"},
])  # fmt: skip
def test_what_may_be_is_kept(line: dict[str, Any], tmp_path: Path, store: str) -> None:
    assert invoke("evidence", "import", write(tmp_path, line), "--store", store).exit_code == 0
    assert len(records(store)) == 1


def test_a_chip_of_ones_own_is_kept_with_one_warning(tmp_path: Path, store: str) -> None:
    own = {**GOOD, "chip": "our-asic-1", "value": 9999}
    done = invoke("evidence", "import", write(tmp_path, own, {**own, "value": 8888}), "--store", store)
    assert done.exit_code == 0 and done.stderr.count("SP-EVID-045") == 1
    assert {r.chip for r in records(store)} == {"our-asic-1"}


def test_measurement_rows_become_runs_that_carry_them(tmp_path: Path, store: str) -> None:
    serving = {**ROW, "id": "own-2", "metric": "tpot", "unit": "ms", "value": 20.0, "input_len": 512, "output_len": 128}
    del serving["date"]
    path = write(tmp_path, ROW, serving)
    assert invoke("evidence", "import", path, "--store", store, "--date", "2025-05-03", "--grade", "measured-here").exit_code == 0
    training, later = records(store)
    assert (training.kind, training.payload, training.chip, training.date) == ("training-run", ROW, "nvidia-a100-sxm-80gb", "2025-05-02")
    assert (later.kind, later.payload, later.value, later.unit, later.date) == ("serving-run", serving, 20.0, "ms", "2025-05-03")
    assert later.grade == "measured-here"


def test_nothing_is_imported_twice_and_a_dry_run_imports_nothing(tmp_path: Path, store: str) -> None:
    path = write(tmp_path, GOOD, GOOD)
    dry = invoke("evidence", "import", path, "--store", store, "--dry-run", "--format", "json")
    assert json.loads(dry.stdout)[0]["records"] == 2 and not Path(store).exists()
    first, again = (json.loads(invoke("evidence", "import", path, "--store", store, "--format", "json").stdout)[0] for _ in range(2))
    assert [(r["added"], r["known"]) for r in (first, again)] == [(1, 1), (0, 2)]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b"\x00" * 100])
def test_a_file_that_cannot_be_read_is_two(content: bytes | None, tmp_path: Path, store: str) -> None:
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)
    done = invoke("evidence", "import", str(path), "--store", store)
    assert done.exit_code in (1, 2) and "Traceback" not in done.stderr and str(path) in done.stderr
    assert not Path(store).exists()


def test_two_stores_of_the_same_records_export_the_same_bytes(tmp_path: Path, store: str) -> None:
    wrong = record(value=9e13, note="\u65f6\u949f\u672a\u9501\u5b9a, caf\xe9 \U0001f600")
    some = [*many(30), wrong, record(value=1.23456789e14, supersedes=wrong.id), record(value=None, status="unsupported", dtype="fp8")]
    with Store.open(store) as opened:
        opened.append(some)
    first = invoke("evidence", "export", "--store", store).stdout_bytes
    (tmp_path / "carried.jsonl").write_bytes(first)
    other = str(tmp_path / "other.db")
    with Store.open(other) as opened:
        opened.append(reversed(some[:10]))
    assert invoke("evidence", "import", str(tmp_path / "carried.jsonl"), "--store", other).exit_code == 0
    assert invoke("evidence", "export", "--store", other).stdout_bytes == first
    assert first.count(b"\n") == 33
    assert invoke("evidence", "export", "--store", other, "--standing").stdout_bytes.count(b"\n") == 32
    out = tmp_path / "out.jsonl"
    assert invoke("evidence", "export", "--store", other, "--out", str(out), LANG="C").exit_code == 0
    assert out.read_bytes() == first


def test_an_export_may_be_of_a_part(store: str) -> None:
    with Store.open(store) as opened:
        opened.append([record(), record(chip="b"), record(date="2025-06-01"), record(kind="clock", metric="share", unit="1", value=0.9)])
    counts = {("--chip", "a100-sxm4-80gb"): 3, ("--since", "2025-06-01"): 1, ("--metric", "share"): 1, ("--chip", "c"): 0}
    for flags, count in counts.items():
        assert invoke("evidence", "export", "--store", store, *flags).stdout.count("\n") == count
    assert invoke("evidence", "export", "--store", store, "--since", "June").exit_code == 2


def test_listings(store: str) -> None:
    with Store.open(store) as opened:
        opened.append([record(), record(value=None, status="unsupported", dtype="fp8")])
    table = invoke("evidence", "list", "--store", store)
    assert "250 TFLOP/s" in table.stdout and "4096x4096x4096" in table.stdout and "unsupported" in table.stdout
    assert "2 records" in table.stderr
    rows = list(csv.DictReader(io.StringIO(invoke("evidence", "list", "--store", store, "--format", "csv").stdout)))
    assert {row["value"] for row in rows} == {"250000000000000.0", ""}
    objects = json.loads(invoke("evidence", "list", "--store", store, "--dtype", "bf16", "--format", "json").stdout)
    assert [item["id"] for item in objects] == [record().id]


def test_show_takes_the_beginning_of_an_id(store: str) -> None:
    later = record(value=2.6e14, supersedes=record().id)
    with Store.open(store) as opened:
        opened.append([record(), later])
    shown = json.loads(invoke("evidence", "show", record().id[:12], "--store", store, "--format", "json").stdout)
    assert (shown["id"], shown["superseded_by"], shown["conditions"]) == (record().id, [later.id], record().conditions)
    assert "measured-here" in invoke("evidence", "show", later.id[:12], "--store", store).stdout
    wrong = invoke("evidence", "show", "zzz", "--store", store)
    assert wrong.exit_code == 2 and "SP-EVID-020" in wrong.stderr


def test_a_store_that_is_not_there_is_empty_and_is_not_made(store: str) -> None:
    for verb in ("list", "export", "check"):
        done = invoke("evidence", verb, "--store", store)
        assert done.exit_code == 0, done.stderr
    assert not Path(store).exists()


def test_check_finds_what_was_done_behind_its_back(store: str) -> None:
    import sqlite3

    with Store.open(store) as opened:
        opened.append([record(), record(chip="b"), record(note="x")])
    assert invoke("evidence", "check", "--store", store).exit_code == 0
    connection = sqlite3.connect(store)
    connection.execute("DROP TRIGGER sapper_evidence_no_update")
    connection.execute("UPDATE sapper_evidence SET body = replace(body, '250000000000000', '290000000000000') WHERE chip = 'b'")
    connection.execute("UPDATE sapper_evidence SET chip = 'c' WHERE id = ?", [record().id])
    connection.commit()
    connection.close()
    done = invoke("evidence", "check", "--store", store, "--format", "json")
    assert done.exit_code == 1
    assert sorted(item["code"] for item in json.loads(done.stdout)) == ["SP-EVID-061", "SP-EVID-062", "SP-EVID-063"]


def test_the_measurements_that_ship_are_sound_records() -> None:
    lines = [line for path in sorted(FOLDER.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    assert sorted(lines) == sorted(item.line for item in shipped())
    assert {item.kind for item in shipped()} >= {"matmul", "memory-copy", "memory-read", "attention", "launch", "clock", "all-reduce"}
    for item in shipped():
        check(msgspec.structs.replace(item, date="2025-01-01"))  # whatever the clock of this machine says
    listed = json.loads(invoke("evidence", "list", "--shipped", "--kind", "clock", "--format", "json").stdout)
    assert {item["kind"] for item in listed} == {"clock"}
    assert json.loads(invoke("evidence", "show", listed[0]["id"][:16], "--format", "json").stdout) == listed[0]


def test_the_environment_names_the_store(tmp_path: Path, store: str) -> None:
    assert invoke("evidence", "import", write(tmp_path, GOOD), SAPPER_STORE=store).exit_code == 0
    assert len(records(store)) == 1
