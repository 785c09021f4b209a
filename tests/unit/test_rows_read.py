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
    from sapper.predict.validate import pool_path

    assert gzip.decompress(Path(pool_path()).read_bytes()) == SHIPPED.read_bytes()


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
