from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapper.errors import BadFile
from sapper.predict.rows.read import parse_rows, read_rows
from sapper.predict.rows.row import RowFault
from sapper.predict.rows.shipped import SHIPPED as FILES
from sapper.predict.rows.shipped import shipped_path, shipped_rows

ROW: dict[str, Any] = {
    "id": "a", "source": "someone/repo table", "chip": "NVIDIA A100 80GB", "n_chips": 8,
    "model": {"name": "GPT-7B", "layers": 32, "hidden": 4096, "heads": 32, "seq_len": 2048},
    "global_batch": 64, "micro_batch": 4.0, "parallel": {"tp": 2, "pp": 1, "dp": 4}, "precision": "bf16",
    "metric": "tokens_per_s_per_chip", "value": 3000.0, "unit": "tokens/s/chip", "confidence": "high",
}
SHIPPED = Path(__file__).parent.parent / "data" / "measurements_training.jsonl"


def lines(*rows: object) -> list[str]:
    return [row if isinstance(row, str) else json.dumps(row) for row in rows]


def test_every_shipped_row_is_read() -> None:
    found = read_rows(SHIPPED)
    assert len(found.rows) == 726 and found.refused == ()


def test_shipped_rows_are_those_of_the_package() -> None:
    assert gzip.decompress(Path(shipped_path("training")).read_bytes()) == SHIPPED.read_bytes()


@pytest.mark.parametrize(("name", "count"), [("training", 726), ("training_bulk", 1440), ("inference", 1480), ("inference_bulk", 8483)])
def test_every_row_of_every_file_that_ships_is_read(name: str, count: int) -> None:
    found = shipped_rows(name)
    assert len(found.rows) == count and found.refused == ()
    assert {row.kind for row in found.rows} == {name.removesuffix("_bulk")}


def test_files_that_ship_stay_small() -> None:
    assert sum(Path(shipped_path(name)).stat().st_size for name in FILES) < 1_000_000


def test_an_inference_row_may_leave_open_on_how_many_chips_it_ran() -> None:
    served = ROW | {"phase": "decode", "metric": "tokens_per_s_per_user", "unit": "tokens/s/user", "n_chips": None}
    (row,) = parse_rows(lines(served), "x").rows
    assert row.kind == "inference" and row.stated_chips is None
    with pytest.raises(RowFault):
        _ = row.n_chips
    assert parse_rows(lines(served | {"phase": None, "metric": "tpot", "n_chips": 0}), "x").rows[0].stated_chips is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"date": "2999-01-01"}, "SP-ROW-023"),
        ({"extra": {"measured": "2999-01-01T00:00:00Z"}}, "SP-ROW-023"),
        ({"date": "yesterday"}, "SP-ROW-002"),
        ({"date": "2025-02-30"}, "SP-ROW-002"),
    ],
)
def test_a_row_of_the_future_or_of_no_day_is_refused(change: dict[str, Any], code: str) -> None:
    found = parse_rows(lines(ROW | change, ROW | {"id": "b", "date": "2025-06-30"}), "x")
    assert [refusal.code for refusal in found.refused] == [code]
    assert [str(row.date) for row in found.rows] == ["2025-06-30"]


def test_a_gzip_file_reads_like_the_plain_one(tmp_path: Path) -> None:
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    assert read_rows(packed).rows == parse_rows(lines(ROW), "x").rows


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"id": None}, "id", "SP-ROW-001"),
        ({"n_chips": None}, "n_chips", "SP-ROW-001"),
        ({"n_chips": 0}, "n_chips", "SP-ROW-003"),
        ({"n_chips": 2.5}, "n_chips", "SP-ROW-002"),
        ({"n_chips": True}, "n_chips", "SP-ROW-002"),
        ({"value": -1}, "value", "SP-ROW-003"),
        ({"value": "fast"}, "value", "SP-ROW-002"),
        ({"value": 10**400}, "value", "SP-ROW-003"),
        ({"model": {"layers": "many"}}, "model.layers", "SP-ROW-002"),
        ({"model": {"layers": 10**6}}, "model.layers", "SP-ROW-003"),
        ({"model": []}, "model", "SP-ROW-002"),
        ({"parallel": {"tp": -2}}, "parallel.tp", "SP-ROW-003"),
        ({"confidence": "sure"}, "confidence", "SP-ROW-003"),
        ({"source": "\ud800"}, "source", "SP-ROW-002"),
        ({"unit": None}, "unit", "SP-ROW-001"),
    ],
)
def test_a_faulty_field_refuses_its_row_alone(change: dict[str, Any], field: str, code: str) -> None:
    found = parse_rows(lines(ROW | change, ROW | {"id": "b"}), "x")
    assert [row.id for row in found.rows] == ["b"]
    (refusal,) = found.refused
    assert (refusal.field, refusal.code, refusal.line) == (field, code, 1)
    assert field in refusal.text


@pytest.mark.parametrize("line", ["{", "[1]", "3", "null", '{"value": NaN}', "[" * 100_000, '{"a":' * 100_000, "1" * 5000, b"\xff{}"])
def test_a_line_that_is_no_object_is_refused_with_its_number(line: str | bytes) -> None:
    found = parse_rows([json.dumps(ROW), "", line], "x")
    assert len(found.rows) == 1
    assert [refusal.line for refusal in found.refused] == [3]


def test_the_second_row_of_an_id_is_refused() -> None:
    found = parse_rows(lines(ROW, ROW | {"value": 5}), "x")
    assert [row.value for row in found.rows] == [3000.0]
    assert found.refused[0].values["first"] == 1


def test_absent_and_null_are_the_same() -> None:
    without = {key: value for key, value in ROW.items() if key != "micro_batch"}
    assert parse_rows(lines(without), "x").rows == parse_rows(lines(ROW | {"micro_batch": None}), "x").rows


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "SP-ROW-008"), (b"\n\n", "SP-ROW-008"), (b"\x00\x01", "SP-ROW-007"), (gzip.compress(b"{}" * 99, mtime=0)[:20], "SP-ROW-006")],
)
def test_a_file_without_rows_is_an_error(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadFile) as caught:
        read_rows(path)
    assert caught.value.code == code
    assert "rows.jsonl" in caught.value.render("zh")


def test_missing_files_and_folders_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path, "a\0b"):
        with pytest.raises(BadFile):
            read_rows(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(ROW)), json_values, max_size=4), st.dictionaries(st.sampled_from(
    ["layers", "hidden", "heads", "seq_len", "name", "vocab"]), json_values, max_size=2))
def test_no_row_is_more_than_a_refusal(change: dict[str, Any], model: dict[str, Any]) -> None:
    found = parse_rows([json.dumps({**ROW, "model": {**ROW["model"], **model}, **change})], "x")
    assert found.total == 1
    assert all(refusal.text for refusal in found.refused)
