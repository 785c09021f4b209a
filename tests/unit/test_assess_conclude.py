from __future__ import annotations

import re

import msgspec
import pytest

from assess_examples import AS_OF, answers, assessment, question
from sapper.assess.assessment import Assessment
from sapper.assess.conclude import basis_text, conclude
from sapper.assess.join import join
from sapper.assess.text import count, energy_scale, fact_value, money_scale, percent, plain, plan_text, ranged, spread, time_scale
from sapper.evidence import Fact, Interval
from sapper.predict.plan import Plan


@pytest.fixture(scope="module")
def given() -> Assessment:
    return assessment()


def numbers(text: str) -> list[str]:
    return re.findall(r"\d[\d,.]*\d|\d", text)


def test_the_head_says_what_the_reference_needs(given: Assessment) -> None:
    head = conclude(given, "en").head

    assert "Qwen2.5-7B" in head
    assert "1T tokens" in head
    assert "24.0 (20.9\u201327.6) days" in head


def test_options_are_grouped_by_what_the_interval_allows_to_say(given: Assessment) -> None:
    groups = {group.code: [line.label for line in group.lines] for group in conclude(given, "en").groups}

    assert any("H100" in label for label in groups["faster"])
    assert any("910B3" in label for label in groups["same"])
    assert any("MTT S4000" in label for label in groups["slower"])
    assert groups["none"] == ["64\u00d7 S60"]
    assert sum(map(len, groups.values())) == len(given.options) - 1


def test_both_languages_have_the_same_numbers(given: Assessment) -> None:
    en, zh = conclude(given, "en"), conclude(given, "zh")

    for one, other in zip(en.groups, zh.groups, strict=True):
        for left, right in zip(one.lines, other.lines, strict=True):
            assert (left.label, left.ratio, left.letter) == (right.label, right.ratio, right.letter)
            assert numbers(left.time) == numbers(right.time)
    for left, right in zip(en.findings, zh.findings, strict=True):
        assert left.code == right.code
        without_unit = left.text.replace(" \u00d7 10,000 ", " ")
        assert sorted(numbers(without_unit)) == sorted(numbers(right.text))


def test_without_nvlink_is_answered_in_words(given: Assessment) -> None:
    said = {finding.code: finding.text for finding in conclude(given, "en").findings}

    assert "1.24\u00d7" in said["host-link"]
    assert "NVLink 3" in said["link"]
    assert "6.0% shorter" in said["link"]


def test_a_refused_reference_is_said_and_nothing_is_compared() -> None:
    found = join(question(), (answers()[-1], answers()[1]), as_of=AS_OF, version="0", elapsed_s=0.0)
    said = conclude(found, "en")

    assert "could not be assessed" in said.head
    assert [group.code for group in said.groups] == ["alone"]


def test_a_basis_of_cost_is_put_in_words() -> None:
    assert basis_text("CNY cloud", "zh") == "\u6309\u5c0f\u65f6\u79df\u7528\uff08\u5143\uff09"
    assert "4-year" in basis_text("USD purchase 4y", "en")
    assert basis_text("CNY barter", "en") == "CNY barter"


def interval(mid: float, low: float, high: float) -> Interval:
    return Interval(mid=mid, low=low, high=high, unit="s", grade="derived")


def test_an_interval_has_the_decimals_of_its_middle() -> None:
    assert spread(interval(41.23, 35.1, 52.04)) == ("41.2", "35.1", "52.0")
    assert ranged(interval(5, 5, 5)) == "5.00"


@pytest.mark.parametrize(("value", "text"), [(7.62e9, "7.62B"), (1e12, "1T"), (15e12, "15T"), (999, "999"), (2.5e16, "25e15")])
def test_counts_have_letters(value: float, text: str) -> None:
    assert count(value) == text


def test_a_column_has_one_unit() -> None:
    assert time_scale([86400.0, 9e6]).key == "d"
    assert time_scale([7000.0, 9e6]).key == "h"
    assert energy_scale([3.6e9]).key == "mwh"
    assert money_scale([9e3, 9e6]).key == "one"
    assert money_scale([1e4, 9e6]).key == "wan"


def test_small_numbers_of_text() -> None:
    assert percent(0.0123) == "1.2%"
    assert percent(0.5) == "50%"
    assert plain(1.3) == "1.3"
    assert plain(10000.0) == "10,000"
    assert plan_text(Plan(tp=8, pp=4, dp=2, vpp=2, schedule="interleaved")) == (
        "tp=8,pp=4,dp=2,micro_batch=1,schedule=interleaved,vpp=2,zero=1,recompute=none"
    )


def test_unknown_is_a_word_and_withheld_another() -> None:
    withheld = Fact(value=None, source="vendor", grade="vendor-claimed", status="withheld")

    assert fact_value(None, "en") == "unknown"
    assert fact_value(withheld, "zh") == "\u5382\u5546\u672a\u516c\u5f00"
    assert fact_value(msgspec.structs.replace(withheld, value=80 * 2**30, unit="bytes", status=None), "en") == "80 GiB"
