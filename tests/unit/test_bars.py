from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from sapper import messages
from sapper.chips import catalogue
from sapper.cli._bars import emit_bars, target
from sapper.cli.main import cli
from sapper.predict.bars import Bar, Bars, Figure
from sapper.predict.bars.memory import memory
from sapper.predict.bars.plans import plan_choice
from sapper.predict.bars.ranking import ranking
from sapper.predict.bars.training import intervals
from sapper.predict.rows import Case, case_of
from sapper.predict.rows.scores import Scored
from sapper.predict.rows.shipped import shipped_rows


def cases(*ids: str) -> list[Case]:
    by_id = {row.id: row for name in ("training", "training_bulk") for row in shipped_rows(name).rows}
    found = [case_of(by_id[id_], catalogue()) for id_ in ids]
    assert all(isinstance(case, Case) for case in found)
    return [case for case in found if isinstance(case, Case)]


def test_a_figure_meets_its_target_or_not_or_has_none() -> None:
    assert Figure(name="mean", value=0.1, most=0.12).met is True
    assert Figure(name="mean", value=0.13, most=0.12).met is False
    assert Figure(name="coverage", value=0.95, least=0.88, most=0.92).met is False
    assert Figure(name="width", value=0.5).met is None and Figure(name="mean", value=None, most=0.1).met is None
    assert Bar(key="plans", rows=0, answered=0, figures=(Figure(name="regret", value=None, most=0.1),)).met is None


def plans_of_one_job() -> list[Case]:
    (base,) = cases("vtrain-single-0002")
    made = []
    for index, (tp, measured) in enumerate(((1, 400.0), (2, 300.0), (4, 303.0), (8, 600.0))):
        plan = msgspec.structs.replace(base.plan, tp=tp)
        made.append(msgspec.structs.replace(base, row_id=str(index), plan=plan, measured=measured))
    return made


def figures(bar: Bar) -> dict[str, Any]:
    return {figure.name: figure.value for figure in bar.figures}


def test_choosing_within_two_percent_of_the_best_plan_is_right() -> None:
    job = plans_of_one_job()
    close = plan_choice(job, {"0": 390.0, "1": 290.0, "2": 280.0, "3": 500.0})
    assert close.rows == 1 and figures(close)["best_or_close"] == 1.0 and figures(close)["regret"] == pytest.approx(0.01)
    wrong = plan_choice(job, {"0": 100.0, "1": 290.0, "2": 280.0, "3": 500.0})
    assert figures(wrong)["best_or_close"] == 0.0 and figures(wrong)["regret"] == pytest.approx(1 / 3)
    assert figures(wrong)["random"] == pytest.approx(1603 / 4 / 300 - 1)


def test_three_plans_are_no_choice() -> None:
    assert plan_choice(plans_of_one_job()[:3], {str(index): 1.0 for index in range(3)}).rows == 0


def speeds(*pairs: tuple[str, float, float]) -> Bar:
    (base,) = cases("megatron-h100-32b")
    made = [msgspec.structs.replace(base, row_id=chip, chip_id=chip, measured=measured) for chip, measured, _ in pairs]
    return ranking(made, {(chip, base.metric): said for chip, _, said in pairs}, "ranking_training")


def test_ranking_by_hand() -> None:
    right = speeds(("a", 100.0, 90.0), ("b", 200.0, 170.0), ("c", 300.0, 310.0))
    assert figures(right)["tau"] == 1.0 and figures(right)["pairs"] == 3
    turned = speeds(("a", 100.0, 90.0), ("b", 200.0, 170.0), ("c", 300.0, 160.0))
    assert figures(turned)["tau"] == pytest.approx(1 / 3)
    tied = speeds(("a", 100.0, 90.0), ("b", 102.0, 80.0), ("c", 300.0, 310.0))
    assert figures(tied)["tau"] == 1.0 and figures(tied)["tau_all"] == pytest.approx(1 / 3)
    assert speeds(("a", 100.0, 90.0), ("b", 200.0, 170.0)).rows == 0


class Fixed:
    """Says the same of every case."""

    def __init__(self, gib: float) -> None:
        self.gib = gib

    def fit(self, cases: Sequence[Any]) -> Fixed:
        return self

    def predict(self, cases: Sequence[Any]) -> list[tuple[float, float, float]]:
        return [(self.gib, 0.9 * self.gib, 1.1 * self.gib)] * len(cases)


def test_memory_counts_what_stands_beside_and_calls_of_jobs_that_ran() -> None:
    own = cases("simumax-b200-llama3_70b_l12_tp1_pp2_dp4_mbc4_cef-memo", "torchtitan-t1-0", "vtrain-single-0002")
    right = memory(own, Fixed(66.55), pool=[])
    assert right.rows == 2 and figures(right)["stacks"] == 2.0 and figures(right)["wrong_calls"] == 0.0
    too_large = memory(own, Fixed(200.0), pool=[])
    assert figures(too_large)["wrong_calls"] == figures(too_large)["calls"] >= 1


def line(chip: str, inside: bool) -> Scored:
    return Scored(
        id="i", source="s", family="f", vendor="v", chip=chip, confidence="high", metric="m", unit="u", measured=1.0, predicted=1.0,
        low=0.9, high=1.1, error=0.0, optimism=0.0, inside=inside,
    )


def test_coverage_is_asked_of_each_group() -> None:
    honest = [line("a", index > 0) for index in range(10)]
    wide = [line("b", True) for _ in range(10)]
    found = figures(intervals([*honest, *wide], "intervals_training"))
    assert found["coverage"] == 0.95 and found["groups_inside"] == pytest.approx(1 / 3)  # chip a; not chip b, not the source
    # exact intervals hold 9 of 10 in 38.7% of all cases, and 18 of 20 in 28.5%
    assert found["groups_exact"] == pytest.approx((2 * 0.3874 + 0.2852) / 3, abs=1e-3)


def test_groups_of_thousands_of_rows_are_counted_too() -> None:
    many = [line("a", index % 10 > 0) for index in range(9_000)]
    assert figures(intervals(many, "intervals_inference"))["groups_exact"] == pytest.approx(1.0)


def test_bars_are_printed_in_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    missed = Bar(
        key="training_chip", rows=10, answered=9, figures=(Figure(name="mean", value=0.2, most=0.12), Figure(name="naive", value=0.3)),
        groups=({"group": "a chip", "rows": 3, "mean": 0.5, "bias": -0.5},),
    )
    found = Bars(date="2026-01-01", version="0", level=0.9, bars=(missed,))
    emit_bars(found, fmt="table")
    english = capsys.readouterr().out
    assert "20.0%" in english and "<= 12.0%" in english and "9 / 10" in english and "a chip" in english and "-50.0%" in english
    with messages.using("zh"):
        emit_bars(found, fmt="table")
    assert "平均误差" in capsys.readouterr().out
    emit_bars(found, fmt="csv")
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert target(Figure(name="coverage", value=0.9, least=0.88, most=0.92)) == "88.0% - 92.0%"


def test_bars_take_no_file() -> None:
    result = CliRunner().invoke(cli, ["validate", "--bars", "mine.jsonl"])
    assert result.exit_code == 2 and "mine.jsonl" in result.stderr
