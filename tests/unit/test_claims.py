from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapper import messages
from sapper.chips import catalogue
from sapper.cli.main import cli
from sapper.predict.claims import KINDS, check
from sapper.predict.claims.limits import width_bytes
from sapper.predict.claims.work import work_of
from sapper.predict.rows.read import parse_rows
from sapper.predict.rows.row import Model, Row
from sapper.predict.rows.shipped import SHIPPED, shipped_rows

LLAMA = {"name": "Llama-2-7B", "layers": 32, "hidden": 4096, "heads": 32, "ffn": 11008, "vocab": 32000, "params_b": 6.74}
DECODE: dict[str, Any] = {
    "id": "a", "source": "a vendor's sheet", "chip": "NVIDIA A100 80GB", "chip_id": "nvidia-a100-sxm-80gb", "n_chips": 1, "model": LLAMA,
    "batch": 1, "input_len": 512, "output_len": 128, "parallel": {"tp": 1}, "precision": "fp16", "framework": "vLLM", "phase": "decode",
    "metric": "tokens_per_s_per_user", "value": 90.0, "unit": "tokens/s/user",
}
TRAIN: dict[str, Any] = {
    "id": "a", "source": "a vendor's sheet", "chip": "NVIDIA A100 80GB", "chip_id": "nvidia-a100-sxm-80gb", "n_chips": 8,
    "model": LLAMA | {"seq_len": 4096}, "global_batch": 64, "micro_batch": 1, "parallel": {"tp": 2, "pp": 1, "dp": 4}, "precision": "bf16",
    "framework": "Megatron-LM", "metric": "tokens_per_s_per_chip", "value": 3000.0, "unit": "tokens/s/chip",
}


def rows(*objects: dict[str, Any]) -> tuple[Row, ...]:
    found = parse_rows([json.dumps({**obj, "id": f"{obj['id']}{index}"}) for index, obj in enumerate(objects)], "x")
    assert found.refused == ()
    return found.rows


def codes(*objects: dict[str, Any], beside: tuple[dict[str, Any], ...] = ()) -> set[str]:
    return {finding.code for finding in check(rows(*objects), catalogue(), beside=rows(*(one | {"id": "b"} for one in beside))).findings}


def test_what_is_possible_is_not_flagged() -> None:
    assert codes(DECODE) == codes(TRAIN) == set()


@pytest.mark.parametrize(
    ("row", "change", "code"),
    [
        # 6 * 6.7e9 FLOPs a token: 9,000 tokens/s are 400 TFLOP/s on a chip of 312
        (TRAIN, {"value": 9000.0}, "SP-CLAIM-001"),
        (TRAIN, {"metric": "step_time", "unit": "ms", "value": 3000.0}, "SP-CLAIM-001"),
        (TRAIN, {"metric": "tflops_per_chip", "unit": "TFLOP/s", "value": 500.0}, "SP-CLAIM-003"),
        (TRAIN, {"metric": "mfu_pct", "unit": "%", "value": 145.0}, "SP-CLAIM-004"),
        (TRAIN, {"metric": "peak_tflops", "unit": "TFLOPS", "value": 624.0}, "SP-CLAIM-003"),
        (TRAIN, {"metric": "memory_per_chip", "unit": "GiB", "value": 120.0}, "SP-CLAIM-005"),
        (TRAIN, {"extra": {"peak_mem_gib": 120}}, "SP-CLAIM-005"),
        (TRAIN, {"extra": {"mfu_pct": 5.0}}, "SP-CLAIM-010"),
        (TRAIN, {"parallel": {"tp": 8, "pp": 4}, "n_chips": 24}, "SP-CLAIM-011"),
        (TRAIN, {"parallel": {"tp": 4, "pp": 2, "dp": 3}}, "SP-CLAIM-011"),
        (TRAIN, {"unit": "GiB"}, "SP-CLAIM-012"),
        # 13.2 GB of weights a token: 200 tokens/s are 2.6 TB/s on a chip of 2.0
        (DECODE, {"value": 200.0}, "SP-CLAIM-002"),
        (DECODE, {"metric": "tpot", "unit": "ms", "value": 5.0}, "SP-CLAIM-002"),
        (DECODE, {"metric": "e2e_latency", "unit": "s", "value": 0.5}, "SP-CLAIM-002"),
        (DECODE, {"metric": "output_tokens_per_s", "unit": "tokens/s", "value": 50_000.0, "batch": 256}, "SP-CLAIM-001"),
        (DECODE, {"metric": "prefill_tokens_per_s", "unit": "tokens/s", "value": 40_000.0, "phase": "prefill"}, "SP-CLAIM-001"),
        (DECODE, {"metric": "forward_latency", "unit": "ms", "value": 10.0, "phase": "prefill"}, "SP-CLAIM-001"),
        (DECODE, {"model": {"name": "Llama-3-70B"}, "value": 5.0}, "SP-CLAIM-006"),
        (DECODE, {"extra": {"avg_power_w": 900}}, "SP-CLAIM-007"),
        (DECODE, {"metric": "e2e_latency", "unit": "s", "value": 2.0, "extra": {"throughput_tokens_per_s": 900}}, "SP-CLAIM-008"),
        (DECODE, {"metric": "e2e_latency", "unit": "s", "value": 2.0, "extra": {"ttft_ms": 2500}}, "SP-CLAIM-009"),
    ],
)
def test_what_cannot_be_is_flagged_with_its_reason(row: dict[str, Any], change: dict[str, Any], code: str) -> None:
    found = check(rows(row | change), catalogue())
    assert code in {finding.code for finding in found.findings}
    for finding in found.findings:
        assert finding.kind in KINDS
        for lang in messages.LANGUAGES:
            with messages.using(lang):
                assert finding.text and "{" not in finding.text


def test_a_closed_loop_reads_the_prompts_of_all_that_are_under_way() -> None:
    """100 requests in (0.5 s + 100 * 10 ms) are 67 prompts a second: of 4,000 tokens 3.6 PFLOP/s, of 40 well within the chip."""
    loop = DECODE | {"metric": "tpot", "unit": "ms", "value": 10.0, "phase": "serving agg", "output_len": 101}
    loop |= {"extra": {"concurrency": 100, "ttft_ms": 500.0}}

    assert codes(loop | {"input_len": 4000}) == {"SP-CLAIM-001"}
    assert codes(loop | {"input_len": 40}) == set()
    assert codes(loop | {"input_len": 4000, "extra": {"concurrency": 100, "ttft_ms": 500.0, "prefix_cache": True}}) == set()


def test_a_bound_that_software_may_break_is_not_drawn() -> None:
    drafted = DECODE | {"value": 200.0, "framework": "vLLM with EAGLE-3 speculative decoding"}
    found = check(rows(drafted), catalogue())
    assert found.findings == () and ("SP-CLAIM-002", "speculation") in {(gap.rule, gap.lacks) for gap in found.gaps}
    reused = DECODE | {"metric": "prefill_tokens_per_s", "unit": "tokens/s", "value": 40_000.0, "note": "prefix cache hits included"}
    assert codes(reused) == set()


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"chip": "a chip of tomorrow", "chip_id": None}, "chip"),
        ({"n_chips": None}, "n_chips"),
        ({"model": {"name": "a model of nobody"}}, "model"),
        ({"chip": "Huawei Ascend 950PR", "chip_id": "huawei-ascend-950pr"}, None),
    ],
)
def test_what_could_not_be_checked_is_said(change: dict[str, Any], lacks: str | None) -> None:
    found = check(rows(DECODE | change), catalogue())
    assert found.findings == ()
    assert lacks is None or lacks in {gap.lacks for gap in found.gaps}


@pytest.mark.parametrize("metric", ["tpot", "itl", "inter_token_latency", "time_per_output_token", "decode_latency", "TPOT"])
def test_a_metric_is_checked_by_whichever_of_its_names(metric: str) -> None:
    """7B weights of 16 bit in 2 ms are 6.7 TB/s, on a chip of 2 TB/s."""
    assert codes(DECODE | {"metric": metric, "value": 2.0, "unit": "ms"}) == {"SP-CLAIM-002"}
    assert codes(DECODE | {"metric": metric, "value": 20.0, "unit": "ms"}) == set()


def test_a_metric_of_an_unknown_name_does_not_pass_as_checked() -> None:
    found = check(rows(DECODE | {"metric": "tpot_ms", "value": 2.0, "unit": "ms"}), catalogue())
    assert [(gap.rule, gap.lacks) for gap in found.gaps] == [("SP-CLAIM-001", "metric")]


def test_one_value_on_two_chips_is_a_copy() -> None:
    other = DECODE | {"chip": "NVIDIA H100 SXM", "chip_id": "nvidia-h100-sxm-80gb"}
    assert codes(DECODE | {"value": 90.137}, other | {"value": 90.137}) == {"SP-CLAIM-013"}
    assert codes(DECODE | {"value": 90.137}, beside=(other | {"value": 90.137},)) == {"SP-CLAIM-013"}
    assert codes(DECODE | {"value": 90.137}, other | {"value": 90.138}) == set()
    assert codes(DECODE, other) == set(), "two digits are a coincidence"
    assert codes(DECODE | {"value": 90.137}, DECODE | {"value": 90.137}) == set(), "the same chip twice is a repetition"
    assert codes(DECODE | {"value": 90.137}, other | {"value": 90.137, "batch": 2}) == set()


def test_a_cell_without_a_twin_in_a_table_that_copies_is_doubtful() -> None:
    other = {"chip": "NVIDIA H100 SXM", "chip_id": "nvidia-h100-sxm-80gb"}
    table = [row | {"value": 80.111 + batch, "batch": batch} for batch in range(1, 5) for row in (DECODE, DECODE | other)]
    lone = DECODE | {"value": 71.234, "batch": 9}
    found = check(rows(*table, lone), catalogue())
    assert [finding.kind for finding in found.findings] == ["copied"] * 8 + ["doubtful"]


def test_a_row_far_above_its_table_is_flagged_even_where_the_chip_is_unknown() -> None:
    values = (2000.0, 2100.0, 2500.0, 2700.0, 3000.0, 2900.0)
    table = [TRAIN | {"chip": "reference card", "chip_id": None, "value": value} for value in values]
    assert codes(*table) == set()
    assert codes(*table, table[0] | {"value": 24_000.0}) == {"SP-CLAIM-015"}


def test_a_row_far_below_its_table_is_flagged() -> None:
    sizes = (("Llama-2-7B", 80.0), ("Llama-2-13B", 42.0), ("Mistral-7B-v0.1", 78.0), ("Qwen-7B", 70.0))
    table = [DECODE | {"model": {"name": name}, "value": value} for name, value in sizes]
    assert codes(*table) == set()
    assert codes(*table, DECODE | {"model": {"name": "Yi-6B"}, "value": 9.0}) == {"SP-CLAIM-016"}


@pytest.mark.parametrize(
    ("words", "width"),
    [
        ("fp16", 2.0), ("FP16, weights int8", 1.0), ("w4a16 AWQ", 0.5), ("fp32 (TF32 off: sgemm)", 4.0), ("nvfp4", 0.5), (None, None),
        ("8-bit", 1.0),
    ],
)
def test_widths_of_weights(words: str | None, width: float | None) -> None:
    assert width_bytes(words) == width


def test_work_is_a_lower_bound() -> None:
    dense = work_of(Model(**LLAMA))
    assert dense is not None
    assert 6.5e9 < dense.weights < dense.all_weights < 6.8e9
    assert dense.decode_flops(1) == pytest.approx(2 * dense.weights, rel=0.01)
    assert dense.cache_bytes(1000) == pytest.approx(1000 * 32 * 2 * 4096)  # one byte each of key and value
    mixture = work_of(Model(name="Mixtral-8x7B"))
    assert mixture is not None and mixture.weights < 0.3 * mixture.all_weights
    named = work_of(Model(name="somebody/New-397B-A17B"))
    assert named is not None and named.weights == pytest.approx(0.9 * 17e9) and named.all_weights == pytest.approx(0.9 * 397e9)
    assert work_of(Model(name="somebody/New-397B", arch="moe")) is None


@pytest.mark.slow
def test_suspect_rows_are_flagged_and_certain_ones_are_not() -> None:
    """Rows of confidence high that are flagged as impossible lie beyond the hardware, whoever vouched for them."""
    given = [row for name in SHIPPED for row in shipped_rows(name).rows]
    found = check(given, catalogue())
    assert {row.id for row in given if row.confidence == "suspect"} <= found.flagged
    sure = {row.id for row in given if row.confidence == "high"}
    impossible = {finding.row_id for finding in found.findings if finding.kind == "impossible"}
    assert len(sure & found.flagged) < 0.01 * len(sure)
    assert len((sure & found.flagged) - impossible) <= 1


@pytest.mark.slow
def test_findings_depend_on_neither_id_nor_confidence() -> None:
    given = shipped_rows("training").rows
    anonymous = parse_rows(
        [json.dumps({**json.loads(line), "id": str(number), "confidence": "high"}) for number, line in enumerate(_lines("training"))], "x",
    ).rows
    plain, renamed = check(given, catalogue()), check(anonymous, catalogue())
    assert {given[int(id_)].id for id_ in renamed.flagged} == plain.flagged


def _lines(name: str) -> list[str]:
    import gzip

    from sapper.predict.rows.shipped import shipped_path

    return gzip.decompress(Path(shipped_path(name)).read_bytes()).decode().splitlines()


values = st.none() | st.floats(1e-6, 1e12) | st.integers(1, 10**8)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([TRAIN, DECODE]),
    st.dictionaries(st.sampled_from(["value", "batch", "input_len", "output_len", "n_chips", "global_batch"]), values, max_size=4),
    st.sampled_from(["tpot", "e2e_latency", "output_tokens_per_s", "step_time", "memory_per_chip", "mfu_pct", "?"]),
    st.sampled_from(["s", "ms", "GiB", "%", "tokens/s", "?"]),
)
def test_no_row_breaks_the_checker(row: dict[str, Any], change: dict[str, Any], metric: str, unit: str) -> None:
    for one in parse_rows([json.dumps({**row, **change, "metric": metric, "unit": unit})], "x").rows:
        assert check([one], catalogue()).rows == 1


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, ["validate", "--claims", *words])


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "sheet.jsonl"
    lines = [json.dumps(DECODE), "{broken", json.dumps(DECODE | {"id": "fast", "value": 900.0})]
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.mark.slow
def test_the_command_exits_with_one_where_something_is_flagged(sheet: Path) -> None:
    result = invoke(str(sheet))
    assert result.exit_code == 1 and "1 of 2 rows are flagged" in result.stdout and "SP-CLAIM-002" in result.stdout
    assert ":2: refused" in result.stderr
    found = json.loads(invoke(str(sheet), "--format", "json").stdout)
    assert found["flagged"] == 1 and found["findings"][0]["id"] == "fast" and found["refused"][0]["line"] == 2
    lines = invoke(str(sheet), "--format", "csv", "--lang", "zh").stdout.splitlines()
    assert len(lines) == 2 and "内存带宽" in lines[1]


@pytest.mark.slow
def test_the_command_exits_with_zero_where_nothing_is(tmp_path: Path) -> None:
    path = tmp_path / "sheet.jsonl"
    path.write_text(json.dumps(DECODE), "utf-8")
    result = invoke(str(path))
    assert result.exit_code == 0 and "none is flagged" in result.stdout
