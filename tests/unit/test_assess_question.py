from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapper.assess import question
from sapper.errors import BadValue, SapperError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1T", 1e12),
        ("300B", 3e11),
        ("15e12", 15e12),
        ("1.5 T", 1.5e12),
        ("2_000_000", 2e6),
        ("1,000", 1000),
        ("7M tokens", 7e6),
        ("5k", 5e3),
    ],
)
def test_tokens_are_read_as_people_write_them(text: str, expected: float) -> None:
    assert question.tokens(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["0", "-1T", "nan", "inf", "1e30", "T", "", "1X", "one", "0.2", "1 TT", "1e400"])
def test_tokens_that_cannot_be_meant_are_refused_with_a_next_step(text: str) -> None:
    with pytest.raises(BadValue) as refused:
        question.tokens(text, where="--train-tokens")

    assert refused.value.render("en").startswith("--train-tokens: ")
    assert "-> write it like" in refused.value.render("en")
    assert "请写成" in refused.value.render("zh")


@given(st.text(max_size=20))
def test_no_text_makes_tokens_fail_otherwise(text: str) -> None:
    try:
        value = question.tokens(text)
    except SapperError:
        return
    assert 1 <= value <= 1e16


def test_a_price_of_power_is_money_per_joule() -> None:
    fact = question.power_price("0.6 CNY/kWh")

    assert fact.unit == "CNY/J"
    assert fact.number == pytest.approx(0.6 / 3.6e6)
    assert fact.grade == "assumed"


@pytest.mark.parametrize("text", ["0 CNY/kWh", "-1 CNY/kWh", "0.6", "0.6 CNY", "x CNY/kWh", "1e9 USD/kWh", "0.6 GBP/kWh"])
def test_a_price_of_power_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        question.power_price(text)


@pytest.mark.parametrize("value", [0.99, 0.0, -1.3, 5.1, float("nan"), float("inf")])
def test_a_site_that_uses_less_than_its_machines_is_refused(value: float) -> None:
    with pytest.raises(BadValue):
        question.pue(value)


def test_the_default_batch_is_about_four_million_tokens() -> None:
    assert question.default_batch(4096) == 1024
    assert question.default_batch(2**24) == 1
