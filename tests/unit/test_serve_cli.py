"""``sapper predict serve`` as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sapper.cli import main

CHAT = ("--input", "1024", "--output", "256")
SHORT = ("--requests", "200")


def serve(model: str, *line: str, lang: str = "en") -> Result:
    return CliRunner(env={"SAPPER_LANG": lang, "COLUMNS": "200"}).invoke(main.cli, ["predict", "serve", model, *line])


def answer(result: Result) -> dict:
    return json.loads(result.stdout)[0]["answer"]


@pytest.mark.slow
def test_the_answer_comes_first_with_ranges_grades_and_reasons() -> None:
    result = serve("llama-3.1-8b", "--on", "1x h100-sxm", "--rate", "2/s", *CHAT, *SHORT)
    lines = result.stdout.splitlines()

    assert result.exit_code == 0
    assert len(lines) < 25
    assert "2 requests/s" in lines[0] and "prompts of 1,024" in lines[0]
    assert lines[1].startswith("1 x nvidia-h100-sxm-80gb: 1x [tp=1")
    for word in (
        "time to first token",
        "time per output token",
        "tokens/s/chip",
        "energy per output token",
        "USD cloud",
        "bound by",
        "not priced",
    ):
        assert word in result.stdout
    assert "narrow" in result.stdout


def test_chinese_has_no_english_sentence() -> None:
    result = serve("llama-3.1-8b", "--on", "1x h100-sxm", "--rate", "2/s", *CHAT, *SHORT, lang="zh")
    assert result.exit_code == 0
    assert "首词元时间" in result.stdout and "每百万输出词元成本" in result.stdout
    assert "time to" not in result.stdout


@pytest.mark.slow
def test_figures_fit_together() -> None:
    found = answer(serve("llama-3.1-8b", "--on", "2x h100-sxm", "--concurrency", "32", *CHAT, *SHORT, "--plan", "tp=2", "--format", "json"))
    estimate = found["estimate"]
    whole, chip = estimate["output_tokens_per_s"]["mid"], estimate["chip_tokens_per_s"]["mid"]
    assert estimate["chips"] == 2 and whole == pytest.approx(2 * chip)
    assert estimate["batch"]["mid"] == pytest.approx(32, rel=0.1)
    assert estimate["user_tokens_per_s"]["mid"] == pytest.approx(1 / estimate["tpot"]["p50"]["mid"])
    assert estimate["energy_per_token"]["mid"] == pytest.approx(estimate["power"]["mid"] / whole)
    split = {basis: estimate["cost_input"][basis]["mid"] * 4 + estimate["cost_output"][basis]["mid"] for basis in estimate["cost"]}
    assert split == {basis: pytest.approx(cost["mid"], rel=0.02) for basis, cost in estimate["cost"].items()}
    assert sum(term["share"] for term in estimate["terms"]) == pytest.approx(1.0)
    for name in ("ttft", "tpot", "e2e"):
        values = estimate[name]["p50"]
        assert values["low"] <= values["mid"] <= values["high"]


@pytest.mark.slow
def test_the_seed_decides_the_answer() -> None:
    line = ("llama-3.1-8b", "--on", "1x h100-sxm", "--rate", "4/s", *CHAT, *SHORT, "--format", "csv")
    one, same, other = (serve(*line, "--seed", seed).stdout for seed in ("1", "1", "2"))
    assert one == same != other


@pytest.mark.slow
def test_a_service_level_is_kept_with_the_fewest_chips_and_dearer_at_a_higher_rate() -> None:
    line = ("llama-3.1-8b", "--on", "h100-sxm", *CHAT, "--slo", "ttft=500ms,tpot=40ms", "--requests", "500", "--format", "json")
    few, many = (answer(serve(*line, "--rate", rate)) for rate in ("5/s", "100/s"))
    assert few["estimate"]["meets"] and many["estimate"]["meets"]
    assert few["estimate"]["chips"] < many["estimate"]["chips"]
    assert few["chips_low"] <= few["estimate"]["chips"] <= (few["chips_high"] or 10**9)
    assert few["plans"] > 3
    assert many["estimate"]["ttft"]["p99"]["mid"] <= 0.5 and many["estimate"]["tpot"]["p99"]["mid"] <= 0.04


@pytest.mark.slow
def test_without_a_rate_the_highest_one_is_found() -> None:
    found = answer(serve("llama-3.1-8b", "--on", "h100-sxm", *CHAT, "--slo", "tpot=40ms,p90", "--requests", "500", "--format", "json"))
    assert found["highest_rate"]["low"] <= found["highest_rate"]["mid"] <= found["highest_rate"]["high"]
    assert found["estimate"]["load"]["rate_per_s"] == pytest.approx(found["highest_rate"]["mid"])
    assert found["estimate"]["meets"]


def test_what_cannot_be_kept_names_what_can() -> None:
    result = serve("llama-3.1-70b", "--on", "h100-sxm", "--rate", "5/s", *CHAT, "--slo", "tpot=2ms")
    assert result.exit_code == 1
    assert "no plan keeps TPOT within 2 ms" in result.stdout and "at best (tp=" in result.stdout


def test_too_few_chips_are_told_how_many_it_takes() -> None:
    result = serve("llama-3.1-8b", "--on", "1x h100-sxm", "--rate", "500/s", *CHAT)
    assert result.exit_code == 1
    assert "1 chips do not sustain 500 requests/s" in result.stdout and "takes" in result.stdout


def test_a_model_that_does_not_fit_is_told_how_much_is_missing() -> None:
    result = serve("llama-3.1-70b", "--on", "1x h100-sxm", "--rate", "5/s", *CHAT)
    assert result.exit_code == 1
    assert "does not fit" in result.stdout and "GiB more than there is" in result.stdout and "--weights fp8" in result.stdout


@pytest.mark.slow
def test_several_chips_stand_side_by_side_and_a_refusal_below_them() -> None:
    result = serve("llama-3.1-70b", "--on", "4x h100-sxm,1x rtx-4090", "--rate", "1/s", *CHAT, *SHORT)
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert any(line.startswith("nvidia-h100-sxm-80gb") for line in lines)
    assert any(line.startswith("1x nvidia-rtx-4090: the model does not fit") for line in lines)


@pytest.mark.slow
def test_a_chip_of_little_memory_is_placed_by_capacity() -> None:
    links = ("--assume", "scale_up=100GB/s", "--assume", "scale_out=50GB/s")
    found = answer(
        serve("llama-3.1-8b", "--on", "groq-lpu-v1", "--weights", "int8", "--rate", "1/s", *CHAT, *SHORT, *links, "--format", "json")
    )
    plan, memory = found["estimate"]["pools"][0]["plan"], found["estimate"]["memory"]
    assert plan["tp"] * plan["pp"] > 30  # 8 GB of weights over chips of 0.2 GB
    assert memory["weights_bytes"] + memory["workspace_bytes"] < memory["capacity_bytes"] < 2**30 / 4


@pytest.mark.slow
def test_the_frontier_trades_users_speed_for_a_chips_throughput(tmp_path: Path) -> None:
    chart = tmp_path / "frontier.svg"
    result = serve("llama-3.1-8b", "--on", "2x h100-sxm", *CHAT, "--frontier", "--format", "csv", "--chart", str(chart))
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    user, chip = ([float(row[name]) for row in rows] for name in ("user_tokens_per_s", "chip_tokens_per_s"))
    assert len(rows) > 3
    assert user == sorted(user, reverse=True) and chip == sorted(chip)
    drawn = chart.read_text("utf-8")
    assert drawn.startswith("<svg") and "2x nvidia-h100-sxm-80gb" in drawn


def test_a_model_of_one_pass_answers_by_batch() -> None:
    result = serve("bert-large-uncased", "--on", "h100-sxm", "--input", "512", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    rates = [float(row["samples_per_s"]) for row in rows]
    assert [float(row["batch"]) for row in rows][:4] == [1, 2, 4, 8]
    assert rates == sorted(rates)
    queued = answer(serve("bert-large-uncased", "--on", "h100-sxm", "--input", "512", "--rate", "50/s", *SHORT, "--format", "json"))
    assert queued["estimate"]["tpot"] is None and queued["estimate"]["sustained"]


@pytest.mark.slow
def test_drafts_and_workers_of_their_own_are_understood() -> None:
    line = ("llama-3.1-8b", "--on", "2x h100-sxm", "--concurrency", "4", *CHAT, *SHORT, "--plan", "tp=2", "--format", "json")
    plain, drafted = answer(serve(*line)), answer(serve(*line, "--speculate", "draft=4,accept=0.8"))
    assert drafted["estimate"]["tpot"]["p50"]["mid"] < plain["estimate"]["tpot"]["p50"]["mid"]
    assert drafted["estimate"]["speculation"]["cost_ratio"] > 0
    slo = ("--slo", "ttft=1s,tpot=50ms", "--rate", "20/s", "--disaggregate", "yes", "--requests", "300", "--format", "json")
    apart = answer(serve("llama-3.1-8b", "--on", "h100-sxm", *CHAT, *slo))
    assert [pool["role"] for pool in apart["estimate"]["pools"]] == ["prefill", "decode"]


APART = ("llama-3.1-70b", "--input", "4096", "--output", "256", "--disaggregate", "yes", "--requests", "300", "--format", "json")
LIMITS = ("--slo", "ttft=1s,tpot=30ms")


def roles(result: Result) -> list[str]:
    return [pool["role"] for pool in answer(result)["estimate"]["pools"]]


@pytest.mark.slow
def test_too_few_chips_for_workers_of_their_own_are_not_called_a_broken_limit() -> None:
    """Sixteen chips serve less than is asked; that no plan keeps the limits at any rate would be false."""
    refused = serve(*APART, *LIMITS, "--on", "16x h100-sxm", "--rate", "10/s")
    assert "16 chips do not sustain 10 requests/s" in refused.stdout + refused.stderr
    found = answer(serve(*APART, *LIMITS, "--on", "16x h100-sxm", "--rate", "5/s"))
    assert found["estimate"]["chips"] <= 16
    none = serve(*APART, *LIMITS, "--on", "2x h100-sxm", "--rate", "1/s")
    assert "need at least 4 chips" in none.stdout + none.stderr


@pytest.mark.slow
@pytest.mark.parametrize("load", [("--rate", "2/s"), ("--concurrency", "16")])
@pytest.mark.parametrize("cluster", ["16x h100-sxm", "h100-sxm"])
def test_workers_of_their_own_are_given_without_a_limit_too(cluster: str, load: tuple[str, str]) -> None:
    assert roles(serve(*APART, "--on", cluster, *load)) == ["prefill", "decode"]


@pytest.mark.slow
def test_workers_of_their_own_fill_the_cluster_and_keep_the_limit_that_they_are_said_to_keep() -> None:
    """Two times the chips serve about two times the requests, and the times at the highest rate are within the limits."""
    found = [answer(serve(*APART, *LIMITS, "--on", f"{chips}x h100-sxm")) for chips in (8, 16, 32)]
    rates = [one["highest_rate"]["mid"] for one in found]
    assert rates[1] > 1.7 * rates[0] and rates[2] > 1.7 * rates[1]
    for one in found:
        assert one["estimate"]["ttft"]["p99"]["mid"] <= 1.0 and one["estimate"]["tpot"]["p99"]["mid"] <= 0.03


@pytest.mark.slow
def test_workers_of_their_own_are_as_small_as_the_chips_ask_for() -> None:
    """The best worker of either kind takes all four chips; two of two chips each do."""
    line = ("llama-3.1-70b", "--input", "2048", "--output", "128", "--disaggregate", "yes", "--requests", "300", "--format", "json")
    assert roles(serve(*line, "--on", "4x h100-sxm", "--rate", "0.2/s")) == ["prefill", "decode"]


def test_one_user_is_no_users() -> None:
    line = ("llama-3-8b", "--on", "h100-sxm", "--input", "64", "--output", "16", *SHORT, "--plan", "tp=1", "--concurrency")
    assert "; 1 user without pause;" in serve(*line, "1").stdout + serve(*line, "1").stderr
    assert "; 2 users without pause;" in serve(*line, "2").stdout + serve(*line, "2").stderr


def test_requests_beyond_the_positions_of_the_model_are_told() -> None:
    line = ("llama-3-8b", "--on", "h100-sxm", "--concurrency", "1", "--output", "16", *SHORT, "--plan", "tp=1")
    assert "has positions for 8,192 tokens" in serve(*line, "--input", "9000").stdout
    assert "has positions for" not in serve(*line, "--input", "8000").stdout


def test_what_no_row_informs_is_told_apart_from_what_many_do() -> None:
    """fp8 is measured on H100, int8 is not: their constants differ for that, and who reads the answer can see it."""
    line = ("llama-3.1-8b", "--on", "h100-sxm", "--concurrency", "4", *CHAT, *SHORT, "--plan", "tp=1", "--explain", "--format", "json")
    found = {dtype: answer(serve(*line, "--weights", dtype))["estimate"]["used"] for dtype in ("fp8", "int8")}
    used = {dtype: {one["key"]: one["fact"] for one in entries} for dtype, entries in found.items()}

    assert used["fp8"]["effect format fp8-fp8"]["grade"] == "measured-elsewhere"
    assert used["int8"]["effect format int8-int8"]["grade"] == "assumed"
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", used["fp8"]["serving matmul"]["date"])


EXPERTS = ("deepseek-v3", "--on", "16x h200", "--rate", "5/s", "--input", "512", "--output", "64", "--requests", "300")


@pytest.mark.slow
def test_attention_ranks_beside_expert_parallelism_are_written_as_either_engine_has_them() -> None:
    """vLLM's ranks multiply tp; who writes SGLang's, which divide it, is told the same plan in our words, and that plan runs."""
    refused = serve(*EXPERTS, "--plan", "tp=16,attention_dp=16,ep=16")
    assert refused.exit_code == 2
    assert "`tp=1,attention_dp=16,ep=16`" in refused.stderr
    found = answer(serve(*EXPERTS, "--plan", "tp=1,attention_dp=16,ep=16", "--format", "json"))
    assert found["estimate"]["chips"] == 16
    assert "16" in serve(*EXPERTS, "--plan", "tp=16,attention_dp=3").stderr  # divides nothing: the plain refusal


def test_a_trace_is_played(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{0.1 * at},500,{20 + at % 7}\n" for at in range(300)))
    found = answer(serve("llama-3.1-8b", "--on", "1x h100-sxm", "--trace", str(path), "--format", "json"))
    assert found["estimate"]["load"]["requests"] == 300
    assert found["estimate"]["load"]["rate_per_s"] == pytest.approx(10.0)


GOOD = '{"arrival_s": 0, "input_tokens": 5, "output_tokens": 3}'


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.jsonl", GOOD + '\n{"arrival_s": 1}\n', "a.jsonl:2: a request lacks `input_tokens`"),
        ("b.jsonl", '{"arrival_s": 0, "input_tokens": 0, "output_tokens": 3}\n', "b.jsonl:1: `input_tokens` = 0 cannot be meant"),
        ("c.csv", "arrival_s,input_tokens,output_tokens\n0,5,x\n", "c.csv:2: `output_tokens` = x cannot be meant"),
        ("d.csv", "time,input_tokens,output_tokens\n0,5,3\n", "d.csv:1: a request lacks `arrival_s`"),
        ("e.jsonl", "\n", "the trace has no request"),
    ],
)  # fmt: skip
def test_a_bad_line_of_a_trace_is_named(tmp_path: Path, name: str, text: str, fault: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    result = serve("llama-3.1-8b", "--on", "1x h100-sxm", "--trace", str(path))
    assert result.exit_code == 2
    assert fault in result.stderr


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (CHAT, "nothing says how much is asked"),
        (("--rate", "2"), "the length is not given"),
        (("--rate", "0", *CHAT), "`0` is not a rate"),
        (("--rate", "2", "--concurrency", "3", *CHAT), "exclude each other"),
        (("--rate", "2", "--input", "x", "--output", "1"), "`x` is not a length"),
        (("--rate", "2", "--input", "0", "--output", "1"), "`0` cannot be meant"),
        (("--rate", "2", *CHAT, "--slo", "speed=1s"), "no part of a service level"),
        (("--rate", "2", *CHAT, "--slo", "ttft=1s,p42"), "not a percentile"),
        (("--rate", "2", *CHAT, "--slo", "ttft=500"), "`500` has no unit"),
        (("--rate", "2", *CHAT, "--slo", "ttft=1s,ttft=2s"), "`ttft` is given twice"),
        (("--rate", "2", *CHAT, "--slo", "percentile=p99"), "limits no time"),
        (("--rate", "2", *CHAT, "--weights", "int3"), "`int3` is not a precision"),
        (("--rate", "2", *CHAT, "--kv", "fp2"), "`fp2` is not a precision"),
        (("--rate", "2", *CHAT, "--plan", "dp=2"), "`dp=2` is not a field"),
        (("--rate", "2", *CHAT, "--plan", "tp=0"), "not a positive whole number"),
        (("--rate", "2", *CHAT, "--speculate", "draft=4"), "does not describe a draft"),
        (("--rate", "2", *CHAT, "--speculate", "draft=4,accept=2"), "cannot be meant"),
        (("--rate", "2", *CHAT, "--chart", "x.svg"), "a chart is drawn of a frontier"),
    ],
)
def test_bad_input_is_told_what_to_do(line: tuple[str, ...], fault: str) -> None:
    result = serve("llama-3.1-8b", "--on", "1x h100-sxm", *line)
    assert result.exit_code == 2
    assert fault in result.stderr and "->" in result.stderr


def test_chips_without_known_links_are_placed_by_capacity() -> None:
    line = ("--on", "groq-lpu-v1", "--rate", "2/s", *CHAT, "--slo", "tpot=50ms", "--weights", "bf16,int8")
    result = serve("llama-3.1-70b", *line)
    assert result.exit_code == 1
    assert "`groq-lpu-v1 scale_up.bandwidth`" in result.stdout and "at least 352 chips hold the weights" in result.stdout
    [found] = json.loads(serve("llama-3.1-70b", *line, "--format", "json").stdout)
    assert found["answer"] is None and found["refusal"]["code"] and found["capacity"]["weights_dtype"] == "int8"
    # 70.6 B parameters of about one byte, in 90% of 230 MB each
    assert found["capacity"]["chips"] == pytest.approx(70.6e9 / (0.9 * 230e6), rel=0.05)


def test_an_engine_of_which_nothing_is_known_is_told_so() -> None:
    line = ("--on", "1x h100-sxm", "--rate", "2/s", *CHAT, *SHORT, "--plan", "tp=1")
    assert "no published serving row of the stack `vlm`" in serve("llama-3.1-8b", *line, "--stack", "vlm").stdout
    assert "no published serving row" not in serve("llama-3.1-8b", *line, "--stack", "sglang").stdout


@pytest.mark.parametrize(
    ("lang", "answers", "tokens"), [("en", "cost per million answers", "output token"), ("zh", "每百万次回答成本", "输出词元")]
)
def test_a_model_of_one_pass_has_answers_and_no_tokens(lang: str, answers: str, tokens: str) -> None:
    result = serve("bert-base-uncased", "--on", "1x l4", "--rate", "20/s", "--input", "128", *SHORT, lang=lang)
    assert result.exit_code == 0
    assert answers in result.stdout and tokens not in result.stdout
