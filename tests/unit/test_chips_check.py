"""A chip file with a fault: found, placed, explained; and nothing that a file can hold breaks the reader."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import ROOT
from sapper.chips import catalogue
from sapper.chips.catalogue import BUNDLED
from sapper.chips.check import check_files
from sapper.chips.faults import Fault, date_problem
from sapper.chips.parse import CHIP_FIELDS, EVIDENCE_FIELDS, SYSTEM_FIELDS, parse
from sapper.chips.ranges import RANGES, dimension_of
from sapper.chips.schema import DTYPES
from sapper.errors import SapperError

GOOD = (ROOT / "examples" / "chips" / "acme-x1.toml").read_text("utf-8")
SHIPPED = sorted(Path(BUNDLED).rglob("*.toml"))


def faults_of(text: str) -> list[Fault]:
    return list(parse(tomllib.loads(text), where="x.toml", text=text).faults)


def test_the_sample_is_clean() -> None:
    assert faults_of(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "code", "field", "expected"),
    [
        ('"64 GiB", from', '"80 GB/s", from', "SP-CHIP-017", "memory.capacity.value", "80 GiB"),
        ('"1.6 TB/s", from', '"1.6 TFLOP/s", from', "SP-CHIP-017", "memory.bandwidth.value", "2.039 TB/s"),
        ('"32 TFLOP/s"', '"32 ZFLOP/s"', "SP-CHIP-018", "peak.fp32.value", "312 TFLOP/s"),
        ('"32 TFLOP/s"', '"fast"', "SP-CHIP-019", "peak.fp32.value", "312 TFLOP/s"),
        ('"32 TFLOP/s"', '"2 EFLOP/s"', "SP-CHIP-020", "peak.fp32.value", "1 EFLOP/s"),
        ('"32 TFLOP/s"', '"-32 TFLOP/s"', "SP-CHIP-020", "peak.fp32.value", "1 GFLOP/s"),
        ('"32 TFLOP/s"', '"0 TFLOP/s"', "SP-CHIP-020", "peak.fp32.value", "1 GFLOP/s"),
        ('"32 TFLOP/s"', "true", "SP-CHIP-016", "peak.fp32.value", "312 TFLOP/s"),
        ('"32 TFLOP/s"', "[32]", "SP-CHIP-016", "peak.fp32.value", "withheld"),
        ("fp32 =", "fp33 =", "SP-CHIP-011", "peak.fp33", "`fp32`"),
        ("usable =", "useable =", "SP-CHIP-011", "memory.useable", "`usable`"),
        ("[onchip]", "[on_chip]", "SP-CHIP-011", "on_chip", "`onchip`"),
        ('name = "X1 64GB"', "", "SP-CHIP-013", "name", "docs/chips.md"),
        ('name = "X1 64GB"', 'name = " "', "SP-CHIP-014", "name", "leave the field out"),
        ('name = "X1 64GB"', "name = 7", "SP-CHIP-012", "name", "text"),
        ('aliases = ["X1", "顶峰 X1"]', 'aliases = "X1"', "SP-CHIP-012", "aliases", "list of texts"),
        ('id = "acme-x1"', 'id = "Acme X1"', "SP-CHIP-027", "id", "acme-x1"),
        ('arch = "npu"', 'arch = "tpu"', "SP-CHIP-015", "arch", "`systolic-tpu`"),
        ('arch = "npu"', "", "SP-CHIP-013", "arch", "docs/chips.md"),
        ('topology = "full-mesh"', 'topology = "mesh"', "SP-CHIP-015", "scale_up.topology", "`full-mesh`"),
        ("domain_size = 8", "domain_size = 0", "SP-CHIP-020", "scale_up.domain_size", "1000000"),
        ("domain_size = 8", "domain_size = 8.5", "SP-CHIP-012", "scale_up.domain_size", "whole number"),
        ('from = "sheet", note = "350 W', 'from = "shet", note = "350 W', "SP-CHIP-022", "tdp.from", "`sheet`"),
        ('{ value = "64 GiB", from', '{ value = "64 GiB", source = "x", from', "SP-CHIP-021", "memory.capacity.from", "keep"),
        ("[sources.default]", "[sources.other]", "SP-CHIP-023", "die", "[sources.default]"),
        ('date = "2026-04-20"\nstatus = "official"', 'date = "2026-04-20"', "SP-CHIP-024", "sources.sheet", "status"),
        ('status = "vendor_claim"\nread', 'status = "vendor"\nread', "SP-CHIP-015", "sources.default.status", "`vendor_claim`"),
        ('grade = "measured-here"', 'grade = "A"', "SP-CHIP-015", "sources.lab.grade", "`measured-here`"),
        ('date = "2026-06-11"', 'date = "June"', "SP-CHIP-025", "price[0].date", "2024-03-18"),
        ('date = "2026-06-11"', 'date = "2026-02-30"', "SP-CHIP-025", "price[0].date", "2024-03-18"),
        ('date = "2026-06-11"', 'date = "2097-06-11"', "SP-CHIP-026", "price[0].date", "written or read"),
        ('amount = "60000 CNY"', "amount = 60000", "SP-CHIP-028", "price[0].amount", "110000 CNY"),
        ('amount = "60000 CNY"', 'amount = "60000 BTC"', "SP-CHIP-018", "price[0].amount", "15000 USD"),
        ('tax = "excluded"', 'tax = "none"', "SP-CHIP-015", "price[0].tax", "`excluded`"),
        ("fraction = 0.78", "fraction = 1.9", "SP-CHIP-020", "measured[0].fraction", "1.2"),
        ("fraction = 0.78", "fraction = 0", "SP-CHIP-020", "measured[0].fraction", "between"),
        ("fraction = 0.78", "fraction = nan", "SP-CHIP-019", "measured[0].fraction", "0.85"),
        ("fraction = 0.78", "fraction_range = [0.9, 0.1]", "SP-CHIP-032", "measured[0].fraction_range", "lower first"),
        ('value = "199.7 TFLOP/s"', 'value = "199.7"', "SP-CHIP-031", "measured[0].value", "TFLOP/s"),
        ('value = "199.7 TFLOP/s"\nfraction = 0.78\nfrom = "lab"\nnote', 'from = "lab" #', "SP-CHIP-030", "measured[0]", "fraction"),
        ('metric = "matmul"', "", "SP-CHIP-013", "measured[0].metric", "docs/chips.md"),
        ("devices = 8\n", 'devices = 8\nby_devices = { two = "1 GB/s" }\n', "SP-CHIP-033", "measured[1].by_devices.two", "143 GB/s"),
        ("devices = 8\n", 'devices = 8\nbest = "3 TFLOP/s"\n', "SP-CHIP-029", "measured[1].best", "bytes/s"),
        ("[[measured]]\nmetric", "[[mesured]]\nmetric", "SP-CHIP-011", "mesured", "`measured`"),
    ],
)  # fmt: skip
def test_a_fault_is_found_placed_and_explained(old: str, new: str, code: str, field: str, expected: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    found = [fault for fault in faults_of(text) if fault.code == code and fault.field == field]
    assert found, [(fault.code, fault.field) for fault in faults_of(text)]
    fault = found[0]
    assert expected in fault.expected("en")
    assert fault.problem("zh") != fault.problem("en")
    assert fault.expected("zh")
    if len(text.splitlines()) == len(GOOD.splitlines()) and code not in ("SP-CHIP-013", "SP-CHIP-023"):
        assert fault.line == next(n for n, (was, now) in enumerate(zip(GOOD.splitlines(), text.splitlines(), strict=True), 1) if was != now)


def test_all_faults_of_a_file_are_reported_in_the_order_of_its_lines() -> None:
    text = GOOD.replace('"32 TFLOP/s"', '"32 GB"').replace("domain_size = 8", "domain_size = -1").replace("usable =", "useable =")
    lines = [fault.line for fault in faults_of(text)]
    assert len(lines) == 3
    assert lines == sorted(lines, key=lambda line: line or 0)


def test_a_source_without_a_status_is_one_fault_however_many_values_name_it() -> None:
    text = GOOD.replace('date = "2026-04-20"\nstatus = "official"', 'date = "2026-04-20"')
    assert [(fault.code, fault.field) for fault in faults_of(text)] == [("SP-CHIP-024", "sources.sheet")]


def test_an_id_borne_twice_is_a_fault_that_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD, "utf-8")
    (tmp_path / "b.toml").write_text(GOOD, "utf-8")
    (fault,) = check_files([str(tmp_path)]).faults
    assert (fault.code, fault.line) == ("SP-CHIP-034", 4)
    assert "a.toml" in fault.problem("en")
    (tmp_path / "b.toml").write_text(GOOD.replace("acme-x1", "amd-mi300x"), "utf-8")
    (fault,) = check_files([str(tmp_path)], among=catalogue()).faults
    assert "mi300x.toml" in fault.problem("en")


def test_a_system_of_a_chip_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "box.toml"
    file.write_text('id = "acme-box"\nvendor = "Acme"\nname = "Box"\nkind = "system"\nchip = "acme-x1"\ncount = 8\n', "utf-8")
    (fault,) = check_files([str(file)], among=catalogue()).faults
    assert (fault.code, fault.line) == ("SP-CHIP-035", 5)
    (tmp_path / "x1.toml").write_text(GOOD, "utf-8")
    assert check_files([str(tmp_path)], among=catalogue()).faults == ()


def test_what_cannot_be_read_is_reported_with_its_place_beside_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'id = "x\n')
    (tmp_path / "b.toml").write_bytes(b'id = "\xff"\n')
    (tmp_path / "c.toml").write_text(GOOD.replace("domain_size = 8", "domain_size = 0"), "utf-8")
    report = check_files([str(tmp_path)])
    assert (report.files, report.unreadable) == (3, 2)
    assert [Path(fault.file).name for fault in report.faults] == ["a.toml", "b.toml", "c.toml"]
    assert report.faults[0].line == 1


@pytest.mark.parametrize(
    ("text", "dimension"),
    [("80 GiB", "bytes"), ("3.35e3 GB/s", "bytes/s"), ("312 TFLOP/s", "flop/s"), ("400 W", "W"), ("100 BF16 / 200 FP8 / 64 GB", None),
     ("PCIe 5", None), ("", None), ("12", None)],
)  # fmt: skip
def test_the_dimension_of_a_text(text: str, dimension: str | None) -> None:
    assert dimension_of(text) == dimension


def test_every_plausible_range_holds_its_own_example() -> None:
    from sapper import units

    for name, allowed in RANGES.items():
        assert allowed.low <= units.parse(allowed.example, allowed.dimension) <= allowed.high, name


@pytest.mark.parametrize(
    ("date", "problem"),
    [("2024", None), ("2024-02-29", None), ("2024/2026 crawl", None), ("2026-07 snapshot", None), ("2023-02-29", "SP-CHIP-025"),
     ("2024-13", "SP-CHIP-025"), ("n/d", "SP-CHIP-025"), ("0024", "SP-CHIP-025"), ("2099-01", "SP-CHIP-026")],
)  # fmt: skip
def test_dates(date: str, problem: str | None) -> None:
    assert date_problem(date) == problem


def test_every_field_is_documented_in_both_languages() -> None:
    named = {*CHIP_FIELDS, *SYSTEM_FIELDS, *EVIDENCE_FIELDS, *DTYPES} - {"sources", "scale_up", "scale_out"}
    for page in ("chips.md", "chips.zh.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert [name for name in sorted(named) if f"`{name}`" not in text and f"[{name}]" not in text] == []


# -- nothing breaks the reader

keys = st.sampled_from((*CHIP_FIELDS, *SYSTEM_FIELDS, *EVIDENCE_FIELDS, *DTYPES, "value", "capacity", "metric", "fraction", "amount", "2"))
words = st.sampled_from((
    "80 GiB", "1 TB/s", "312 TFLOP/s", "withheld", "unknown", "system", "chip", "gpu", "official", "x", "9e999 W", "-1 W",
))
scalars = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20), words,
    st.dates().map(lambda day: day), st.datetimes(), st.times(),
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | st.text(max_size=8), inner, max_size=5), max_leaves=20
)
tables = st.dictionaries(keys | st.text(max_size=8), values, max_size=12)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(tables)
def test_any_table_gives_a_chip_or_faults_that_can_be_shown(table: dict[str, Any]) -> None:
    parsed = parse(table, where="fuzz.toml", text="")
    assert (parsed.entry is None) == bool(parsed.faults)
    for fault in parsed.faults:
        assert fault.problem("en")
        assert fault.problem("zh")
        assert fault.expected("en")


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_shipped_file_never_breaks_check_or_catalogue(data: st.DataObject, tmp_path: Path) -> None:
    raw = bytearray(data.draw(st.sampled_from(SHIPPED)).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1)) if raw else 0
        action = data.draw(st.sampled_from(("byte", "cut", "drop", "repeat", "insert")))
        if action == "byte" and raw:
            raw[at] = data.draw(st.integers(0, 255))
        elif action == "cut":
            del raw[at:]
        elif action == "drop":
            del raw[at:at + data.draw(st.integers(1, 200))]
        elif action == "repeat":
            raw[at:at] = raw[at:at + 80]
        else:
            raw[at:at] = data.draw(st.sampled_from((b"[", b"{", b'"', b"'''", b"=", b"\n", b"1e999", b"nan", b"[[x]]\n", "昇".encode())))
    file = tmp_path / f"{datetime.datetime.now().timestamp()}.toml"
    file.write_bytes(raw)
    report = check_files([str(file)])
    assert report.files == 1
    for fault in report.faults:
        assert fault.problem("zh")
    try:
        found = catalogue([file])
        for id_ in set(found.chips) - set(catalogue().chips):
            assert found.chips[id_].id == id_
    except SapperError as error:
        assert error.render("en")
    finally:
        file.unlink()
