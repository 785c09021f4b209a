from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapper import units
from sapper.errors import BadValue


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        ("80 GiB", "bytes", 80 * 2**30),
        ("80GB", "bytes", 80e9),
        ("3.35 TB/s", "bytes/s", 3.35e12),
        ("400 Gb/s", "bytes/s", 50e9),
        ("400 Gbps", "bytes/s", 50e9),
        ("989 TFLOP/s", "flop/s", 989e12),
        ("1_979 TOPS", "flop/s", 1979e12),
        ("5 us", "s", 5e-6),
        ("2 days", "s", 172800.0),
        ("0.6 CNY/kWh", "CNY/kWh", 0.6),
        ("40%", "1", 0.4),
        ("1T", "tokens", 1e12),
        ("300B", "tokens", 3e11),
        ("15.6T tokens", "tokens", 15.6e12),
        ("7e5 steps", "steps", 7e5),
        (700, "W", 700.0),
    ],
)
def test_quantities_are_read_into_base_units(text: str | float, dimension: str, expected: float) -> None:
    assert units.parse(text, dimension) == pytest.approx(expected, rel=1e-12)


def test_b_is_bytes_where_bytes_are_meant() -> None:
    assert units.parse("300 B", "bytes") == 300.0
    with pytest.raises(BadValue, match="SP-UNIT-003"):
        units.parse("300 GB", "tokens")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "SP-UNIT-001"),
        ("many", "SP-UNIT-001"),
        ("1e999 GB", "SP-UNIT-001"),
        ("nan", "SP-UNIT-001"),
        (float("inf"), "SP-UNIT-001"),
        (10**400, "SP-UNIT-001"),
        (True, "SP-UNIT-001"),
        (None, "SP-UNIT-001"),
        ([80], "SP-UNIT-001"),
        ("80 gigs", "SP-UNIT-002"),
        ("80 GB/s", "SP-UNIT-003"),
        ("80 W", "SP-UNIT-003"),
        ("0 GB", "SP-UNIT-004"),
        ("-3 GB", "SP-UNIT-004"),
    ],
)
def test_what_is_no_size_is_refused_with_an_example(text: object, code: str) -> None:
    with pytest.raises(BadValue) as caught:
        units.parse(text, "bytes", where="chip.toml:3", positive=True)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert str(caught.value).startswith("chip.toml:3: ")
    assert "80 GiB" in str(caught.value)
    assert "字节数" in caught.value.render("zh")


anything = st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers()))


@given(anything, st.sampled_from(sorted(units.UNITS)))
def test_nothing_but_a_finite_number_or_our_error_comes_out(text: object, unit: str) -> None:
    dimension = units.UNITS[unit][0]
    try:
        value = units.parse(text, dimension)  # type: ignore[arg-type]
    except BadValue as error:
        assert error.render("en") and error.render("zh")
    else:
        assert math.isfinite(value)


@given(st.floats(min_value=1e-3, max_value=1e20), st.sampled_from(["B", "FLOP/s", "W"]))
def test_scaled_text_reads_back_as_the_value(value: float, unit: str) -> None:
    text = units.scaled(value, unit).replace(",", "")
    dimension = units.UNITS[unit][0]
    assert units.parse(text, dimension) == pytest.approx(value, rel=6e-3)


@given(st.floats(min_value=1e-6, max_value=1e11))
def test_durations_read_back_as_the_value(value_s: float) -> None:
    assert units.parse(units.duration(value_s).replace(",", ""), "s") == pytest.approx(value_s, rel=6e-3)


@pytest.mark.parametrize(
    ("value_s", "expected"),
    [(1e-3, "1 ms"), (0.312, "312 ms"), (0.99999, "1 s"), (119.99, "2 min"), (34560.0, "9.6 h"), (1226880.0, "14.2 d"), (3.2e8, "10.1 y"),
     (0.0, "0 us")],
)
def test_durations_are_in_the_unit_that_a_person_would_use(value_s: float, expected: str) -> None:
    assert units.duration(value_s) == expected


def test_rounding_moves_to_the_next_prefix_and_not_to_a_thousand() -> None:
    assert units.scaled(999.96e9, "FLOP/s") == "1 TFLOP/s"
    assert units.scaled(312e12, "FLOP/s") == "312 TFLOP/s"
    assert units.scaled(0.0, "W") == "0 W"
    assert units.gib(80 * 2**30) == "80 GiB"
