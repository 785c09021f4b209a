from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapper import files, places
from sapper.errors import BadFile


class Memory(msgspec.Struct, forbid_unknown_fields=True):
    capacity_bytes: int
    bandwidth_bytes_per_s: float | None = None


class Chip(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    memory: Memory
    spares: list[Memory] = []
    pools: dict[str, Memory] = {}


def fault(path: Path, content: str | bytes, read: Any = files.read_toml) -> BadFile:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadFile) as caught:
        read(path)
    assert caught.value.render("en") and caught.value.render("zh")
    return caught.value


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        ("a = 1\nb = \n", "SP-FILE-006", ":2:5"),
        ("a = 1\na = 2\n", "SP-FILE-006", ":2:6"),
        ("a = [1,\n2", "SP-FILE-006", ":2:2"),
        (b"a = 1\nb = '\xff'", "SP-FILE-005", ":2:6"),
        ("a = 1\n[m]\nb = inf\n", "SP-FILE-010", ":3 m.b"),
        ("a = 99999999999999999999\n", "SP-FILE-010", ":1 a"),
        ("a = " + "9" * 5000, "SP-FILE-010", ""),
        ("a = " + "[" * 100_000, "SP-FILE-008", ""),
    ],
)
def test_a_malformed_toml_file_is_refused_at_its_place(content: str | bytes, code: str, place: str, tmp_path: Path) -> None:
    error = fault(tmp_path / "chip.toml", content)
    assert (error.code, error.where) == (code, f"{tmp_path}/chip.toml{place}")


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        ('{"a": 1,\n "b": }', "SP-FILE-007", ":2:7"),
        ("", "SP-FILE-007", ":1:1"),
        ('{"a": NaN}', "SP-FILE-010", ""),
        ('{"a": {\n"b": [1, 1e999]}}', "SP-FILE-010", ":2 a.b[1]"),
        ("[" * 200_000, "SP-FILE-008", ":1:1"),
        ('{"a": ' + "9" * 5000 + "}", "SP-FILE-010", ":1:1"),
    ],
)
def test_a_malformed_json_file_is_refused_at_its_place(content: str, code: str, place: str, tmp_path: Path) -> None:
    error = fault(tmp_path / "config.json", content, files.read_json)
    assert (error.code, error.where) == (code, f"{tmp_path}/config.json{place}")


def test_json_lines_come_with_their_numbers_and_end_at_the_first_fault(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n\n{"id": 2, "t": "\u2028"}\n{"id": \n', "utf-8")
    rows = files.read_jsonl(path)
    assert next(rows) == (1, {"id": 1})
    assert next(rows) == (3, {"id": 2, "t": "\u2028"})
    with pytest.raises(BadFile) as caught:
        next(rows)
    assert caught.value.where == f"{path}:4:8"


def test_a_json_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    error = fault(tmp_path / "rows.jsonl", "[1]\n", lambda path: list(files.read_jsonl(path)))
    assert (error.code, error.where) == ("SP-FILE-009", f"{tmp_path}/rows.jsonl:1:1")


def test_the_parsers_words_are_said_in_chinese(tmp_path: Path) -> None:
    assert "值不合法" in fault(tmp_path / "a.toml", "b = \n").render("zh")
    assert "此处缺少逗号" in fault(tmp_path / "b.json", '{"a": 1 "b"}', files.read_json).render("zh")


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    for path, code in [
        (tmp_path / "none.toml", "SP-FILE-001"),
        (tmp_path, "SP-FILE-002"),
        (tmp_path / ("x" * 300), "SP-FILE-003"),
        (tmp_path / "nul\0byte", "SP-FILE-003"),
        (Path("/dev/zero"), "SP-FILE-004"),
    ]:
        with pytest.raises(BadFile) as caught:
            files.read_text(path)
        assert caught.value.code == code


def test_a_byte_order_mark_and_windows_line_ends_are_no_content(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n")
    assert files.read_toml(tmp_path / "a.toml") == {"a": 1, "b": 2}


TEXT = """\
id = "x"  # memory = { capacity_bytes = 0 }
[memory]
capacity_bytes = "much"
bandwith_bytes_per_s = 3
[[spares]]
capacity_bytes = 1
[[spares]]
capacity = 2
[pools]
ddr = {
  capacity_bytes = 1.5 }
"""


@pytest.mark.parametrize(
    ("obj", "code", "place", "said"),
    [
        ({"id": "x", "memory": {"capacity_bytes": "much"}}, "SP-FILE-014", ":3", "Expected `int`, got `str`"),
        ({"id": "x", "memory": {"capacity_bytes": 1, "bandwith_bytes_per_s": 3}}, "SP-FILE-012", ":4", "did you mean `bandwidth_"),
        ({"id": "x", "memory": {}}, "SP-FILE-013", ":2", "`memory.capacity_bytes` is missing"),
        ({"id": "x", "memory": {"capacity_bytes": 1}, "spares": [{"capacity_bytes": 1}, {"zz": 2}]}, "SP-FILE-011", ":7", "`capacity_"),
        ({"id": "x"}, "SP-FILE-013", "", "`memory` is missing"),
        (7, "SP-FILE-014", "", "Expected `object`, got `int`"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(obj: object, code: str, place: str, said: str) -> None:
    with pytest.raises(BadFile) as caught:
        files.decode(Chip, obj, "chip.toml", text=TEXT)
    assert (caught.value.code, caught.value.where) == (code, f"chip.toml{place}")
    assert said in str(caught.value)


def test_the_line_is_found_in_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "chip.json"
    path.write_text('{"id": "x",\n "memory": {\n  "capacity_bytes": null}}')
    with pytest.raises(BadFile) as caught:
        files.decode(Chip, files.read_json(path), path)
    assert caught.value.where == f"{path}:3"


def test_what_fits_is_decoded() -> None:
    chip = files.decode(Chip, {"id": "x", "memory": {"capacity_bytes": 8}}, "chip.toml")
    assert chip == Chip(id="x", memory=Memory(capacity_bytes=8))


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("id", 1),
        ("memory", 2),
        ("memory.capacity_bytes", 3),
        ("spares[0]", 5),
        ("spares[1].capacity", 8),
        ("pools.ddr.capacity_bytes", 11),
        ("pools[...]", 9),
        ("spares[1].absent", 7),
        ("absent", None),
    ],
)
def test_lines_of_toml_keys(key: str, line: int | None) -> None:
    assert files.line_of(TEXT, key) == line


keys = st.text(st.sampled_from("abc_-1"), min_size=1, max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, values, max_size=4))
def test_every_key_of_a_json_text_has_its_line(value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1)
    lines = text.split("\n")
    for key in value:
        line = places.json_line(text, key)
        assert line is not None and lines[line - 1].startswith(f" {json.dumps(key)}:")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_no_bytes_make_a_reader_fail_otherwise(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    for read in (files.read_toml, files.read_json, lambda name: list(files.read_jsonl(name))):
        try:
            files.decode(Chip, read(path), "x.toml", text=content.decode("utf-8", "replace"))
        except BadFile as error:
            assert error.render("en") and error.render("zh")


def test_a_fault_deep_inside_is_found_or_at_least_survived(tmp_path: Path) -> None:
    for depth in (10, 300, 900):
        error = fault(tmp_path / "deep.json", "[" * depth + "1e999" + "]" * depth, files.read_json)
        assert error.code in ("SP-FILE-008", "SP-FILE-010")
        error = fault(tmp_path / "deep.toml", "a = " + "[" * depth + "inf" + "]" * depth)
        assert error.code in ("SP-FILE-008", "SP-FILE-010")


@given(st.text(alphabet="[]{}=.,\"'# \nab1:\\", max_size=80), st.text(alphabet="ab.[]0\"' ", max_size=12))
def test_the_search_for_a_line_never_fails_and_always_ends(text: str, key: str) -> None:
    assert places.toml_line(text, key) is None or 1 <= places.toml_line(text, key) <= text.count("\n") + 1  # type: ignore[operator]
    assert places.json_line(text, key) is None or 1 <= places.json_line(text, key) <= text.count("\n") + 1  # type: ignore[operator]


def test_writing_replaces_the_whole_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "out" / "deep" / "a.html"
    files.write_atomic(path, "first, longer")
    path.chmod(0o640)
    files.write_atomic(path, "二")
    assert path.read_text("utf-8") == "二"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["a.html"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.html"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadFile) as caught:
        files.write_atomic(path, "new")
    assert caught.value.code == "SP-FILE-015" and "No space left" in str(caught.value)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.html"]


def test_a_link_is_followed_and_a_folder_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.write_atomic(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"x"
    with pytest.raises(BadFile, match="SP-FILE-002"):
        files.write_atomic(tmp_path, "x")
    with pytest.raises(BadFile, match="SP-FILE-015"):
        files.write_atomic(tmp_path / "real" / "below", "x")


def test_a_device_is_written_to_and_not_replaced() -> None:
    files.write_atomic("/dev/null", "x")
    assert not Path("/dev/null").is_file()
