"""The export rules' arithmetic against the figures that the rules' own cases are known by."""

from __future__ import annotations

import msgspec
import pytest

from sapper.chips import catalogue, resolve
from sapper.chips.export_rules import RULES, export_arithmetic
from sapper.evidence import Fact


@pytest.mark.parametrize(
    ("name", "tpp"),
    [("a100-80g", 4992), ("4090", 5285), ("4090d", 4707), ("h20", 2368), ("l20", 1912), ("l40", 2896), ("h100", 15832)],
)
def test_total_processing_performance(name: str, tpp: int) -> None:
    found = export_arithmetic(resolve(name)).tpp
    assert found is not None
    assert round(found) == tpp


@pytest.mark.parametrize(
    ("name", "outcomes"),
    [
        ("a100-80g", ("above", "above", "covered")),
        ("a800-sxm", ("below", "above", "covered")),  # the cut of NVLink that made the A800, and the rule that caught it
        ("h800", ("below", "above", "covered")),
        ("4090", ("below", "above", "covered")),
        ("4090d", ("below", "exempt", "exempt")),
        ("l40", ("below", "below", "above")),
        ("l20", ("below", "below", "below")),
        ("h20", ("below", "unknown", "unknown")),
        ("s60", ("unknown", "unknown", "unknown")),
    ],
)
def test_outcomes(name: str, outcomes: tuple[str, ...]) -> None:
    result = export_arithmetic(resolve(name))
    assert tuple(found.outcome for found in result.results) == outcomes
    assert [found.rule for found in result.results] == list(RULES)


def test_an_unknown_die_leaves_the_density_unknown_and_says_so() -> None:
    result = export_arithmetic(resolve("h20"))
    assert (result.die_mm2, result.density) == (None, None)
    assert result.results[1].missing == ("die",)


def test_density_is_over_all_dies_and_never_over_a_part_of_them() -> None:
    assert export_arithmetic(resolve("mi250x")).die_mm2 == 2 * 724
    assert export_arithmetic(resolve("910a")).die_mm2 is None  # the file knows the main die only


def at(tpp: float, die: float | None) -> tuple[str, str]:
    """Outcomes of the rule of 2023 for a chip of this TPP and die."""
    base = resolve("h20")
    fact = Fact(value=tpp / 16 * 1e12, unit="flop/s", source="test", grade="assumed")
    area = None if die is None else Fact(value=die, unit="mm2", source="test", grade="assumed")
    result = export_arithmetic(msgspec.structs.replace(base, peak_flops_per_s={"bf16": fact}, die_mm2=area))
    return result.results[1].outcome, result.results[2].outcome


@pytest.mark.parametrize(
    ("tpp", "density", "outcomes"),
    [
        (4800, 1.0, ("above", "covered")), (4799, 5.92, ("above", "covered")), (4799, 5.91, ("below", "above")),
        (2400, 1.6, ("below", "above")), (2400, 1.59, ("below", "below")), (2399, 3.2, ("below", "above")),
        (2399, 3.19, ("below", "below")), (1600, 5.92, ("above", "covered")), (1599, 9.0, ("below", "below")),
    ],
)  # fmt: skip
def test_thresholds_at_their_edges(tpp: float, density: float, outcomes: tuple[str, str]) -> None:
    # A hair's breadth keeps the quotient on its own side of the edge.
    assert at(tpp, tpp / density * (1 - 1e-12)) == outcomes


def test_without_the_die_only_a_low_or_a_high_rate_decides() -> None:
    assert at(1599, None) == ("below", "below")
    assert at(2000, None) == ("unknown", "unknown")
    assert at(4800, None) == ("above", "covered")


def test_every_chip_has_an_answer() -> None:
    for chip in catalogue().chips.values():
        result = export_arithmetic(chip)
        assert len(result.results) == 3
        assert (result.density is None) == (result.tpp is None or result.die_mm2 is None)
