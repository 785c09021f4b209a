from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapper.assess.ratio import ratio, same, tells_apart
from sapper.errors import InvariantError
from sapper.evidence import Interval

Z80 = 1.2815515655446004


def interval(mid: float, low: float, high: float, *, grade: str = "derived", unit: str = "s", level: float = 0.8) -> Interval:
    return Interval(mid=mid, low=low, high=high, unit=unit, grade=grade, level=level)  # type: ignore[arg-type]


def test_the_ratio_holds_eight_of_ten_quotients_of_independent_draws() -> None:
    random = np.random.default_rng(7)
    a, b = interval(30.0, 30 / 1.4, 30 * 1.4), interval(24.0, 24 / 1.15, 24 * 1.15)
    draws = [x.mid * np.exp(random.normal(0, math.log(x.high / x.mid) / Z80, 200_000)) for x in (a, b)]
    quotient = draws[0] / draws[1]

    found = ratio(a, b)

    assert found.mid == pytest.approx(30 / 24)
    assert found.low == pytest.approx(float(np.quantile(quotient, 0.1)), rel=0.01)
    assert found.high == pytest.approx(float(np.quantile(quotient, 0.9)), rel=0.01)


def test_the_two_sides_of_an_interval_are_combined_apart() -> None:
    found = ratio(interval(10, 10, 20), interval(10, 5, 10))

    assert found.low == pytest.approx(1.0)
    assert found.high == pytest.approx(math.exp(math.hypot(math.log(2), math.log(2))))


@given(st.floats(1e-3, 1e6), st.floats(1.0, 5.0), st.floats(1e-3, 1e6), st.floats(1.0, 5.0))
def test_a_ratio_is_ordered_and_wider_than_each_side(a: float, wide_a: float, b: float, wide_b: float) -> None:
    one, other = interval(a, a / wide_a, a * wide_a), interval(b, b / wide_b, b * wide_b)

    found = ratio(one, other)

    assert found.low <= found.mid <= found.high
    assert found.high / found.mid >= max(wide_a, wide_b) * (1 - 1e-9)


def test_a_ratio_is_no_better_than_its_weaker_side() -> None:
    assert ratio(interval(1, 1, 1, grade="measured-here"), interval(1, 1, 1, grade="assumed")).grade == "assumed"


def test_a_thing_is_exactly_as_long_as_itself() -> None:
    found = same(interval(24, 20, 30))

    assert (found.low, found.mid, found.high, found.unit) == (1, 1, 1, "1")


def test_an_interval_around_one_tells_nothing_apart() -> None:
    assert not tells_apart(interval(1.2, 0.9, 1.6))
    assert tells_apart(interval(1.2, 1.01, 1.6))
    assert tells_apart(interval(0.5, 0.4, 0.99))


@pytest.mark.parametrize(
    "other",
    [interval(1, 1, 1, unit="J"), interval(1, 1, 1, level=0.9), interval(1, 0, 1), interval(1, 2, 3), interval(1, 1, math.inf)],
)
def test_a_ratio_that_cannot_be_is_our_fault_and_says_so(other: Interval) -> None:
    with pytest.raises(InvariantError):
        ratio(interval(1, 0.5, 2), other)
