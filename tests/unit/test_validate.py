from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sapper.chips import catalogue
from sapper.cli.main import cli
from sapper.errors import BadValue, MissingFact, SapperError
from sapper.predict.rows import Case, read_rows
from sapper.predict.rows.naive import ConstantMfu
from sapper.predict.rows.read import Rows, parse_rows, read_all
from sapper.predict.rows.scores import Scored, by, summary
from sapper.predict.rows.shipped import shipped_rows
from sapper.predict.splits import GROUP, LEAVE_OUT, year_of
from sapper.predict.validate import at_level, confidences, level_of, pool, validate

SHIPPED = Path(__file__).parent.parent / "data" / "measurements_training.jsonl"
SOME = (
    "megatron-sc21-18b", "megatron-sc21-39b", "megatron-h100-32b", "maxtext-v5e-16b-1x256", "mindspeed-rc3-qwen2-72b-4k-910b",
    "torchtitan-t1-0", "simumax-b200-llama3_70b_tp2_pp1_dp4_l12_mbc4_cef-memo", "pangu-ultra-moe",
)
RAW = {obj["id"]: obj for obj in map(json.loads, SHIPPED.read_text("utf-8").splitlines())}


def rows(*ids: str, **change: Any) -> Rows:
    return parse_rows([json.dumps({**RAW[id_], **change}) for id_ in ids], "some.jsonl")


@dataclass
class Watched:
    """The naive predictor, with a record of what each fold was fitted on and asked."""

    inner: ConstantMfu = field(default_factory=ConstantMfu)
    seen: tuple[Case, ...] = ()
    asked: list[tuple[tuple[Case, ...], Case]] = field(default_factory=list)

    def fit(self, cases: Sequence[Case]) -> Watched:
        return Watched(inner=self.inner.fit(cases), seen=tuple(cases), asked=self.asked)

    def predict(self, cases: Sequence[Case]) -> list[tuple[float, float, float] | SapperError]:
        self.asked += [(self.seen, case) for case in cases]
        return self.inner.predict(cases)


@pytest.mark.parametrize("leave_out", [name for name in LEAVE_OUT if name != "time"])
def test_no_row_is_answered_by_a_prior_that_saw_its_like(leave_out: Any) -> None:
    watched = Watched()
    report = validate(rows(*SOME), {"training": watched}, catalogue=catalogue(), leave_out=leave_out)
    group = GROUP[leave_out]
    assert len(watched.asked) == len(SOME) - 1
    for seen, case in watched.asked:
        assert len(seen) > 100
        assert group(case) not in {group(one) for one in seen}
        assert case.row_id not in {one.row_id for one in seen}
    assert report.leave_out == leave_out and report.folds == len({group(case) for _, case in watched.asked})


def test_the_time_split_asks_what_is_new_from_what_is_old() -> None:
    watched = Watched()
    given = shipped_rows("training")
    report = validate(given, {"training": watched}, catalogue=catalogue(), leave_out="time", cut_year=2025.75)
    assert report.folds == 1 and report.cut_year == 2025.75 and report.not_asked > 100
    asked = [case for _, case in watched.asked]
    assert {case.family for case in asked} >= {"MLPerf Training"} and all((case.job.stack_year or 0) >= 2025.75 for case in asked)
    values = {(case.chip_id, f"{case.measured:.5g}") for case in asked}
    for seen, _ in watched.asked[:1]:
        assert len(seen) > 100 and all((case.job.stack_year or 9999) < 2025.75 for case in seen)
        assert values.isdisjoint((case.chip_id, f"{case.measured:.5g}") for case in seen)


def test_a_row_of_a_kind_that_nobody_answers_is_told_so() -> None:
    report = validate(rows(SOME[0], phase="decode"), {}, catalogue=catalogue())
    (line,) = report.rows
    assert line.predicted is None and line.code == "SP-VAL-004" and "inference" in (line.reason or "")


def test_intervals_of_another_level_are_lognormal() -> None:
    assert at_level((10.0, 8.0, 12.5), 0.8) == (10.0, 8.0, 12.5)
    mid, low, high = at_level((10.0, 8.0, 12.5), 0.9)
    assert mid == 10.0 and low == pytest.approx(10.0 * 0.8 ** (1.6449 / 1.2816), rel=1e-3) and low * high == pytest.approx(100.0)
    wide = validate(rows(*SOME), {"training": Watched()}, catalogue=catalogue(), level=0.95).summary
    narrow = validate(rows(*SOME), {"training": Watched()}, catalogue=catalogue()).summary
    assert wide.width is not None and narrow.width is not None and wide.width > narrow.width
    assert level_of("0.9") == 0.9
    for text in ("0", "1", "90", "x", "nan"):
        with pytest.raises(BadValue):
            level_of(text)


def test_a_predictor_with_levels_of_its_own_is_asked_for_the_level() -> None:
    class Levelled(Watched):
        level = 0.8

        def predict(self, cases: Sequence[Case]) -> list[tuple[float, float, float] | SapperError]:
            return [(case.measured, (1.0 - self.level) * case.measured, 2.0 * case.measured) for case in cases]

    predictor = Levelled()
    (line,) = validate(rows(SOME[0]), {"training": predictor}, catalogue=catalogue(), leave_out=None, level=0.9).rows
    assert line.low == pytest.approx(0.1 * line.measured) and predictor.level == 0.8


def test_years_of_a_cut() -> None:
    assert year_of("2026") == 2026.0
    for text in ("soon", "26", "nan"):
        with pytest.raises(BadValue):
            year_of(text)


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    one.write_text("\n".join(json.dumps(RAW[id_]) for id_ in SOME[:3]) + "\n{", "utf-8")
    other.write_text("\n".join(json.dumps(RAW[id_]) for id_ in SOME[2:]), "utf-8")
    found = read_all([one, other])
    assert [row.id for row in found.rows] == list(SOME)
    blamed = [(refusal.code, Path(refusal.path or "").name) for refusal in found.refused]
    assert blamed == [("SP-ROW-004", "one.jsonl"), ("SP-ROW-025", "other.jsonl")]


def test_a_variant_of_a_chip_counts_as_the_chip() -> None:
    watched = Watched()
    variant = rows("torchtitan-h200-4n", chip="NVIDIA H200 96GB 600W", chip_id=None, note="2.9 TB/s")
    validate(variant, {"training": watched}, catalogue=catalogue())
    ((seen, _),) = watched.asked
    assert not any(one.chip_id == "nvidia-h200-sxm-141gb" for one in seen)


def test_rows_of_the_file_are_never_fitted_on() -> None:
    watched = Watched()
    new = rows("megatron-sc21-18b", id="mine", chip_id="nvidia-h800-sxm-80gb")
    validate(new, {"training": watched}, catalogue=catalogue(), leave_out="source")
    assert all("mine" not in {one.row_id for one in seen} for seen, _ in watched.asked)
    same = rows("megatron-sc21-18b", source="another/repo table")
    watched = Watched()
    validate(same, {"training": watched}, catalogue=catalogue(), leave_out="source")
    assert all("megatron-sc21-18b" not in {one.row_id for one in seen} for seen, _ in watched.asked)


def test_only_certain_shipped_rows_are_fitted_on() -> None:
    certain = {row.id for row in shipped_rows("training").rows if row.confidence == "high"}
    assert {case.row_id for case in pool(catalogue())} < certain


def test_without_leaving_out_the_report_says_what_the_prior_saw() -> None:
    watched = Watched()
    report = validate(rows(*SOME), {"training": watched}, catalogue=catalogue(), leave_out=None)
    assert report.folds == 0 and all(seen == () for seen, _ in watched.asked)
    assert {row.id for row in report.rows if row.in_training} == set(SOME) - {"pangu-ultra-moe"}


def test_every_row_stands_in_the_report_answered_or_with_its_reason() -> None:
    report = validate(rows(*SOME), {"training": Watched()}, catalogue=catalogue())
    assert [row.id for row in report.rows] == list(SOME)
    by_id = {row.id: row for row in report.rows}
    assert by_id["pangu-ultra-moe"].predicted is None and by_id["pangu-ultra-moe"].field == "model.seq_len"
    memory = by_id["simumax-b200-llama3_70b_tp2_pp1_dp4_l12_mbc4_cef-memo"]
    assert memory.predicted is None and memory.code and memory.reason  # the naive bar knows no memory
    assert report.summary.n == 8 and report.summary.answered == 6
    assert report.by_chip["nvidia-a100-sxm-80gb"].n == 2 and report.by_source["NVIDIA/Megatron-LM"].n == 3
    assert report.by_vendor["Google"].answered == 1 and report.naive.answered == 6


def test_a_report_is_of_the_confidences_that_are_asked_for() -> None:
    suspect = "flagperf-iluvatar-mixtral_8x7b-megatron-bi-v150-n8-tp2pp2dp4-bf16"
    given = rows(*SOME, suspect)
    assert suspect not in [row.id for row in validate(given, {"training": Watched()}, catalogue=catalogue()).rows]
    only = validate(given, {"training": Watched()}, catalogue=catalogue(), confidence=("suspect",))
    assert only.other_confidence == {"high": len(SOME)}
    assert [row.id for row in only.rows] == [suspect] and only.summary.max_abs is not None and only.summary.max_abs > 0.8


def test_a_value_beyond_the_hardware_is_answered_told_and_not_counted() -> None:
    fine, fast = RAW["megatron-sc21-18b"], RAW["torchtitan-t1-0"] | {"id": "fast", "value": 90_000.0}
    report = validate(parse_rows([json.dumps(fine), json.dumps(fast)], "x"), {"training": Watched()}, catalogue=catalogue())
    by_id = {row.id: row for row in report.rows}
    assert by_id["fast"].impossible and by_id["fast"].predicted is not None and not by_id["megatron-sc21-18b"].impossible
    assert (report.summary.answered, report.summary.impossible) == (2, 1)
    assert report.summary.max_abs == pytest.approx(abs(by_id["megatron-sc21-18b"].error or 0.0))
    assert {(flag.id, flag.code) for flag in report.flagged} == {("fast", "SP-CLAIM-001")}


def test_confidences_are_words_of_the_schema() -> None:
    assert confidences("all") == ("high", "medium", "low", "suspect")
    assert confidences("high, medium,high") == ("high", "medium")
    with pytest.raises(BadValue):
        confidences("sure")


def line(id_: str, measured: float, predicted: float | None, low: float = 0.0, high: float = 0.0, chip: str = "c") -> Scored:
    error = None if predicted is None else predicted / measured - 1
    return Scored(
        id=id_, source="s", family="f", vendor="v", chip=chip, confidence="high", metric="m", unit="u", measured=measured,
        predicted=predicted, low=low or None, high=high or None, error=error, optimism=error,
        inside=None if predicted is None else low <= measured <= high,
    )


def test_summary_by_hand() -> None:
    found = summary([line("a", 100, 110, 90, 120), line("b", 100, 80, 70, 90), line("c", 100, 130, 120, 140), line("d", 100, None)])
    assert (found.n, found.answered, found.answered_share) == (4, 3, 0.75)
    assert found.mean_abs == pytest.approx(0.2) and found.median_abs == pytest.approx(0.2) and found.max_abs == pytest.approx(0.3)
    assert found.bias == pytest.approx(0.1) and found.coverage == pytest.approx(1 / 3) and found.worst == "c"
    assert found.width == pytest.approx(90 / 70 - 1)


def test_bias_has_one_sign_for_times_and_rates() -> None:
    """A prediction that is too fast is optimistic, be it read as a time or as a rate."""
    step, rate = "vtrain-multi-000", "megatron-sc21-18b"
    report = validate(rows(step, rate), {"training": Watched()}, catalogue=catalogue())
    by_id = {row.id: row for row in report.rows}
    for id_ in (step, rate):
        row = by_id[id_]
        assert row.predicted is not None and row.error is not None and row.optimism is not None
        faster = row.predicted < row.measured if id_ == step else row.predicted > row.measured
        assert (row.optimism > 0) == faster
        assert row.error == pytest.approx(row.predicted / row.measured - 1)


def test_summary_of_nothing_is_unknown_and_not_zero() -> None:
    for given in ([], [line("a", 1, None)]):
        assert summary(given).mean_abs is None and summary(given).coverage is None


def test_groups_are_ordered_by_size() -> None:
    found = by([line("a", 1, 1, chip="x"), line("b", 1, 1, chip="y"), line("c", 1, 1, chip="y")], lambda row: row.chip)
    assert list(found) == ["y", "x"]


def test_the_naive_bar_learns_its_mfu_from_what_it_is_fitted_on() -> None:
    cases = pool(catalogue())
    fitted = ConstantMfu().fit(cases)
    assert 0.25 < fitted.mfu[0] < 0.5 and fitted.mfu[1] < fitted.mfu[0] < fitted.mfu[2]
    time_case = next(case for case in cases if case.quantity == "time")
    answer = fitted.predict([time_case])[0]
    assert isinstance(answer, tuple) and answer[1] <= answer[0] <= answer[2]
    assert isinstance(fitted.predict([case for case in cases if case.quantity == "memory"][:1])[0], MissingFact)


def invoke(*words: str, **env: str) -> Result:
    return CliRunner(env=env).invoke(cli, ["validate", *words])


@pytest.fixture
def some_file(tmp_path: Path) -> Path:
    path = tmp_path / "some.jsonl"
    lines = [json.dumps(RAW[id_]) for id_ in SOME]
    path.write_text("\n".join([*lines[:2], "{broken", *lines[2:]]) + "\n", "utf-8")
    return path


@pytest.mark.slow
def test_json_holds_every_row_and_every_refused_line(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    few = SOME[:2]  # of one chip: the prior is fitted once
    path.write_text("\n".join([*(json.dumps(RAW[id_]) for id_ in few), "{broken"]) + "\n", "utf-8")
    result = invoke(str(path), "--format", "json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [row["id"] for row in report["rows"]] == list(few)
    for row in report["rows"]:
        assert {"id", "metric", "unit", "measured", "predicted", "low", "high", "error", "reason"} <= set(row)
        if row["predicted"] is not None:
            assert row["low"] <= row["predicted"] <= row["high"]
            assert row["error"] == pytest.approx(row["predicted"] / row["measured"] - 1)
    assert report["refused"][0]["line"] == 3 and ":3: " in result.stderr
    assert report["leave_out"] == "chip" and report["level"] == 0.8 and report["version"] and report["date"]
    assert {"summary", "by_chip", "by_source", "by_vendor"} <= set(report)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The naive bar in the predictor's place: what is printed does not depend on who answers."""
    monkeypatch.setattr("sapper.predict.predictor.TrainPredictor", ConstantMfu)


@pytest.mark.usefixtures("quick")
def test_csv_has_one_line_a_row(some_file: Path) -> None:
    result = invoke(str(some_file), "--format", "csv", "--leave-out", "vendor")
    lines = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [entry["id"] for entry in lines] == list(SOME)
    assert lines[-1]["predicted"] == "" and lines[-1]["field"] == "model.seq_len"


@pytest.mark.usefixtures("quick")
def test_the_table_lists_groups_the_worst_and_the_unanswered(some_file: Path) -> None:
    result = invoke(str(some_file), "--worst", "2")
    assert result.exit_code == 0
    assert "nvidia-a100-sxm-80gb" in result.stdout and "The 2 worst rows" in result.stdout
    assert "pangu-ultra-moe" in result.stdout and "model.seq_len" in result.stdout
    chinese = invoke(str(some_file), "--lang", "zh").stdout
    assert "芯片" in chinese and "区间命中" in chinese and "Rows" not in chinese


@pytest.mark.parametrize("words", [["none.jsonl"], ["--confidence", "sure"], ["--leave-out", "moon"], ["--worst", "-1"], ["--worst", "x"]])
def test_what_cannot_be_read_ends_with_two(words: list[str]) -> None:
    result = invoke(*words)
    assert result.exit_code == 2 and "Traceback" not in result.stderr and result.stdout == ""


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (["--cut", "2025"], "--cut"),
        (["--claims", "--level", "0.9"], "--level"),
        (["--bars", "--leave-out", "vendor"], "--leave-out"),
        (["--bars", "--claims"], "--claims"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(words: list[str], idle: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith(f"error: {idle}:") and "SP-VAL-008" in result.stderr


def test_an_empty_file_ends_with_two(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    result = invoke(str(path), SAPPER_LANG="zh")
    assert result.exit_code == 2 and "文件为空" in result.stderr


def test_shipped_file_and_test_data_agree() -> None:
    assert [row.id for row in shipped_rows("training").rows] == [row.id for row in read_rows(SHIPPED).rows]


def test_a_row_of_inference_is_asked_by_its_own_kind() -> None:
    """Mixed files: each kind has its predictor, and a row may put several questions."""
    served = next(row for row in shipped_rows("inference").rows if row.metric == "e2e_latency" and row.confidence == "high")
    mixed = Rows(path="x", rows=(*rows(SOME[0]).rows, served), refused=())

    class Said:
        def fit(self, cases: Sequence[Any]) -> Said:
            assert served.id not in {case.row_id for case in cases}
            return self

        def predict(self, cases: Sequence[Any]) -> list[tuple[float, float, float]]:
            return [(2.0 * case.measured, case.measured, 4.0 * case.measured) for case in cases]

    report = validate(mixed, {"training": Watched(), "inference": Said()}, catalogue=catalogue(), pools={"inference": []})
    assert [row.id for row in report.rows] == [SOME[0], served.id]
    assert report.rows[1].error == pytest.approx(1.0) and report.rows[1].chip and report.rows[1].unit == "s"
