from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapper.chips import catalogue
from sapper.predict.rows import Case, Refused, case_of, census, read_rows
from sapper.predict.rows.flops import step_flops
from sapper.predict.rows.read import parse_rows
from sapper.predict.rows.row import Row
from sapper.predict.rows.shipped import shipped_rows

SHIPPED = Path(__file__).parent.parent / "data" / "measurements_training.jsonl"
BY_ID = {row.id: row for row in read_rows(SHIPPED).rows}
RAW = {obj["id"]: obj for obj in map(json.loads, SHIPPED.read_text("utf-8").splitlines())}


@functools.cache
def all_cases() -> dict[str, Case | Refused]:
    return {id_: case_of(row, catalogue()) for id_, row in BY_ID.items()}


def case(id_: str) -> Case:
    found = case_of(BY_ID[id_], catalogue())
    assert isinstance(found, Case), found
    return found


def changed(id_: str, **change: Any) -> Case | Refused:
    raw = {**RAW[id_], **{key: value for key, value in change.items() if key != "extra"}}
    raw["extra"] = {**RAW[id_].get("extra", {}), **change.get("extra", {})}
    raw["extra"] = {key: value for key, value in raw["extra"].items() if value is not None}
    found = parse_rows([json.dumps(raw)], "x")
    assert found.rows, found.refused
    return case_of(found.rows[0], catalogue())


@pytest.mark.slow
def test_nearly_every_certain_row_is_a_case() -> None:
    rows = [row for row in BY_ID.values() if row.confidence == "high"]
    lines = census(rows, catalogue())
    assert sum(line.rows for line in lines) == len(rows)
    assert sum(line.cases for line in lines) / len(rows) > 0.97
    assert all(code in ("SP-ROW-001", "SP-ROW-012") for line in lines for code, _, _ in line.reasons)


@pytest.mark.slow
def test_each_refusal_names_the_field() -> None:
    refused = [found for found in all_cases().values() if isinstance(found, Refused)]
    assert all(refusal.field and refusal.text for refusal in refused)
    by_id = {refusal.row_id: refusal for refusal in refused}
    assert by_id["pangu-ultra-moe"].field == "model.seq_len"
    assert by_id["mindspeed-rc3-internlm2-20b-32k-910b"].code == "SP-ROW-018"
    assert "column" in by_id["mindspeed-rc3-grok1-8x5b-8k-ref"].values["name"]


def test_plans_use_exactly_the_chips_and_divide_the_batch() -> None:
    for one in all_cases().values():
        if isinstance(one, Refused):
            continue
        assert one.plan.chips == one.cluster.chips
        assert one.job.global_batch % (one.plan.dp * one.plan.micro_batch) == 0, one.row_id
        if one.micro_batches is not None:
            assert one.job.global_batch == one.plan.dp * one.plan.micro_batch * one.micro_batches
        assert 0 <= one.weight <= 1


def published_mfu(row: Row) -> float | None:
    for key in ("mfu_pct", "mfu_pct_vs_bf16_peak", "mfu_pct_printed"):
        value = row.extra.get(key)
        if isinstance(value, (int, float)):
            return float(value)
    return None


@pytest.mark.parametrize(
    ("family", "tolerance"),
    [("mosaicml/llm-foundry", 0.04), ("NVIDIA/Megatron-LM", 0.04), ("AI-Hypercomputer/maxtext", 0.04), ("arXiv:2205.05198", 0.03)],
)
def test_the_mfu_that_a_source_prints_follows_from_its_row(family: str, tolerance: float) -> None:
    """Workload, batch, chips, unit and conversion are right together, or this fails."""
    checked = 0
    for row in BY_ID.values():
        printed = published_mfu(row)
        if printed is None or row.confidence != "high":
            continue
        one = all_cases()[row.id]
        if not isinstance(one, Case) or one.family != family:
            continue
        peak = catalogue().chips[one.chip_id].peak_flops_per_s[one.precision].value
        assert one.measured_time_s is not None and isinstance(peak, float)
        mfu = step_flops(one.job.workload, one.job.global_batch) / (one.measured_time_s * one.cluster.chips * peak)
        assert mfu * 100 == pytest.approx(printed, rel=tolerance), row.id
        checked += 1
    assert checked >= 2


def test_step_times_in_the_log_follow_from_the_rates() -> None:
    for row in BY_ID.values():
        if "step_time_s" in row.extra:
            one = case(row.id)
            assert one.measured_time_s == pytest.approx(row.extra["step_time_s"], rel=0.01)


def test_sc21_flops_hold_recomputation() -> None:
    """96 B s l h^2 (1 + s/6h + V/16lh), arXiv:2104.04473, equation 3."""
    one = case("megatron-sc21-18b")
    batch, s, layers, h, vocab = 1024, 2048, 40, 6144, 51200
    printed = 96 * batch * s * layers * h**2 * (1 + s / (6 * h) + vocab / (16 * layers * h))
    assert one.measured_time_s == pytest.approx(printed / (256 * 135e12), rel=0.01)


def test_hfu_counts_what_recomputation_repeats() -> None:
    hfu = case("palm-540b")
    mfu = changed("palm-540b", metric="mfu_pct")
    assert isinstance(mfu, Case)
    assert hfu.measured_time_s / mfu.measured_time_s == pytest.approx(4 / 3, rel=0.01)  # type: ignore[operator]
    unknown = changed("palm-540b", recompute=None)
    assert isinstance(unknown, Refused) and unknown.field == "recompute"


@pytest.mark.parametrize(
    ("metric", "unit", "factor"),
    [
        ("tokens_per_s_per_chip", "tokens/s/chip", 64 * 2048 / 8), ("tokens_per_s", "tokens/s", 64 * 2048), ("step_time", "ms", None),
        ("step_time", "s", None), ("samples_per_s", "samples/s", 64), ("tokens_per_s", "tokens/s (per-chip by magnitude)", 64 * 2048 / 8),
        ("tokens_per_s_per_chip", "ktokens/s/gpu", 64 * 2048 / 8 / 1000),
    ],
)
def test_a_step_time_becomes_the_rows_metric_and_back(metric: str, unit: str, factor: float | None) -> None:
    one = changed("flagperf-nvidia-aquila2_7b-flagscale-a800-n8-tp1pp1dp8-bf16", metric=metric, unit=unit, global_batch=64, value=5.0)
    assert isinstance(one, Case)
    expected = {"ms": 2500.0, "s": 2.5}.get(unit) if factor is None else (factor or 0) / 2.5
    assert one.value_of(2.5) == pytest.approx(expected)
    assert one.conversion.quantity_of(one.value_of(2.5)) == pytest.approx(2.5)


def test_memory_rows_are_scored_in_their_own_unit() -> None:
    id_ = "simumax-b200-llama3_70b_tp2_pp1_dp4_l12_mbc4_cef-memo"
    gib = case(id_)
    assert gib.quantity == "memory" and gib.measured_time_s is None
    assert gib.value_of(2**30) == pytest.approx(1.0)
    for unit in ("GB", "GB/chip"):
        gb = changed(id_, unit=unit)
        assert isinstance(gb, Case) and gb.value_of(1e9) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("metric", "unit", "field"), [("tpot", "ms", "metric"), ("step_time", "tokens/s", "unit"), ("tflops_per_chip", "%", "unit")]
)
def test_metrics_and_units_that_we_do_not_score_are_refused(metric: str, unit: str, field: str) -> None:
    found = changed("megatron-sc21-18b", metric=metric, unit=unit)
    assert isinstance(found, Refused) and found.field == field


@pytest.mark.parametrize("unit", ["TFLOP/s", "TFLOPS", "TFLOP/s/chip", "TFLOPS/gpu"])
def test_a_rate_of_flops_may_say_of_what_it_is(unit: str) -> None:
    plain, asked = case("megatron-sc21-18b"), changed("megatron-sc21-18b", unit=unit)
    assert plain.metric == "tflops_per_chip" and isinstance(asked, Case) and asked.value_of(2.5) == pytest.approx(plain.value_of(2.5))
    peta = changed("megatron-sc21-18b", unit="PFLOP/s", value=0.135)
    assert isinstance(peta, Case) and 1000 * peta.value_of(2.5) == pytest.approx(plain.value_of(2.5))


LORA = "mlperf-train-v4.0-asustek-esc_n8a-e12-llama2_70b_lora"
GPT3 = "mlperf-train-v4.1-nvidia-b200_n8_preview_nemo-gpt3"
BLOCK, LOGGED = "block_throughput_units_per_s", "logged_throughput_samples_per_s"


def test_time_to_train_is_scored_on_the_logged_throughput() -> None:
    one = case(LORA)
    assert (one.metric, one.unit, one.measured) == ("samples_per_s", "samples/s", 1.9707)
    assert one.job.finetune == "lora" and one.job.workload.seq_len == 8192
    assert one.value_of(4.0) == pytest.approx(8 / 4.0)


def test_gpt3_logs_count_tokens_whatever_the_field_says() -> None:
    one = case(GPT3)
    assert one.measured == pytest.approx(115689.513 / 2048)
    assert any("evaluat" in assumption.text for assumption in one.assumptions)
    agreeing = changed(GPT3, extra={LOGGED: 115000.0})
    assert isinstance(agreeing, Case) and agreeing.measured == pytest.approx(115000 / 2048)
    alone = changed(GPT3, extra={LOGGED: 115000.0, BLOCK: None})
    assert isinstance(alone, Case) and alone.measured == pytest.approx(115000 / 2048)


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ({LOGGED: 10.0}, "SP-ROW-016"),
        ({LOGGED: 40.0, BLOCK: 40.0}, "SP-ROW-017"),
        ({LOGGED: 0.001, BLOCK: None}, "SP-ROW-017"),
        ({LOGGED: None, BLOCK: None}, "SP-ROW-015"),
        ({BLOCK: 2.0, "block_throughput_unit": "epochs"}, "SP-ROW-010"),
        ({LOGGED: "fast"}, "SP-ROW-003"),
        ({LOGGED: True}, "SP-ROW-003"),
        ({BLOCK: -2.0}, "SP-ROW-003"),
    ],
)
def test_logs_that_contradict_physics_or_each_other_are_refused(extra: dict[str, Any], code: str) -> None:
    found = changed(LORA, extra=extra)
    assert isinstance(found, Refused) and found.code == code
    assert found.field and found.field.startswith("extra.")


def test_a_pretraining_without_any_rate_is_scored_on_the_whole_run() -> None:
    one = case("mlperf-train-v5.0-nvidia-tyche_ngpu256_ngc25.04_nemo-llama31_405b")
    assert one.measured == pytest.approx(22.37, rel=0.001)
    assert any(assumption.code == "assume.throughput.whole_run" for assumption in one.assumptions)


def test_what_was_assumed_of_the_precision_lowers_the_weight() -> None:
    assert case(LORA).weight == 0.5
    assert case("torchtitan-t1-0").weight == 1.0


def test_backward_only_timings_have_no_optimizer_step() -> None:
    one = case("neusight-nvidia_h100_80gb_hbm3-opt_13-train-2048-2")
    assert "no-optimizer" in one.tags and one.attention == "unfused" and one.job.stack == "eager"
    assert one.plan.micro_batch == 2 and one.unknown == frozenset()


def test_sums_of_parts_have_nothing_between_steps() -> None:
    """Doubling the micro-batches of a vTrain run of one node adds a multiple of one constant: its times are put together."""
    rows = [row for row in shipped_rows("training_bulk").rows if row.parallel == {"tp": 2, "pp": 1, "dp": 1, "zero": 0}]
    alike = {row.global_batch: row for row in rows if row.model.name == "GPT-h1024-l24" and row.micro_batch == 1}
    steps = [alike[2 * batch].value - alike[batch].value for batch in (2, 4, 8)]
    assert steps[1] == pytest.approx(2 * steps[0], abs=1e-5) and steps[2] == pytest.approx(4 * steps[0], abs=1e-5)

    found = case_of(alike[2], catalogue())
    assert isinstance(found, Case) and "no-pauses" in found.tags
    assert found.job.workload.params == pytest.approx(24 * 12 * 1024**2 + 50257 * 1024, rel=0.01)


def test_one_process_on_a_card_of_two_dies_has_one_die() -> None:
    one = case("neusight-amd_instinct_mi250-opt_13-train-2048-1")
    card = catalogue().chips["amd-mi250x"]
    assert one.cluster.groups[0].chip.peak_flops_per_s["fp32"].value == card.peak_flops_per_s["fp32"].value / 2  # type: ignore[operator]
    assert one.chip_id == "amd-mi250x" and "dies" in one.tags


def test_a_variant_is_left_out_with_the_chip_that_it_derives_from() -> None:
    note = "96GB, 2.9 TB/s"
    one = changed("torchtitan-h200-4n", chip="NVIDIA H200 96GB 600W", chip_id=None, note=note)
    assert isinstance(one, Case)
    assert one.chip_id == "nvidia-h200-sxm-141gb" and one.cluster.groups[0].chip.id != one.chip_id and "variant" in one.tags


def test_what_a_row_says_beside_its_metric_is_kept() -> None:
    one = case("torchtitan-t1-1")
    assert one.memory_bytes == 77 * 2**30 and "compile" in one.tags
    assert "compile" not in case("torchtitan-t1-0").tags
    assert "async-tp" in case("torchtitan-atp70-0-a").tags and "async-tp" not in case("torchtitan-atp70-0-v").tags


def test_degrees_that_count_dies_keep_the_rate_per_chip() -> None:
    id_ = "flagperf-iluvatar-mixtral_8x7b-megatron-bi-v150-n8-tp2pp2dp4-bf16"
    one = case(id_)
    assert one.cluster.chips == 16
    assert one.value_of(1.0) == pytest.approx(one.job.tokens_per_step / 8)


def test_models_that_rows_only_name_come_from_their_configs() -> None:
    scout = case("tpurecipes-v5p-llama4-scout-17b-16e-default").job.workload
    assert scout.params == pytest.approx(107.8e9, rel=0.01)
    qwen = case("flagperf-nvidia-qwen1.5_moe-megatron-a800-n8-tp1pp2dp4-bf16").job.workload
    assert qwen.params == pytest.approx(14.3e9, rel=0.01) and qwen.active_params == pytest.approx(2.7e9, rel=0.05)
    short = case("simumax-b200-deepseekv3_l4_tp1_ep8_pp1_dp8_mbc4_cef-step").job.workload
    assert sum(block.count for block in short.blocks if block.role == "layer") == 4


def test_params_that_contradict_the_dims_are_refused() -> None:
    found = changed("megatron-sc21-18b", model={**RAW["megatron-sc21-18b"]["model"], "params_b": 180.0})
    assert isinstance(found, Refused) and found.field == "model.params_b"


@pytest.mark.parametrize("field", ["layers", "hidden", "heads", "seq_len"])
def test_a_missing_dim_is_named(field: str) -> None:
    model = {key: value for key, value in RAW["megatron-sc21-18b"]["model"].items() if key != field}
    found = changed("megatron-sc21-18b", model=model)
    assert isinstance(found, Refused) and found.field == f"model.{field}"


odd = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**12), st.floats(), st.text(max_size=12), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["tp", "dp", "layers", "heads"]), st.integers(-1, 9), max_size=2),
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_mutated_row_is_a_case_or_a_refusal(data: st.DataObject) -> None:
    raw = json.loads(json.dumps(RAW[data.draw(st.sampled_from(sorted(RAW)))]))
    for _ in range(data.draw(st.integers(1, 3))):
        parent = raw
        key = data.draw(st.sampled_from(sorted(raw)))
        if isinstance(parent.get(key), dict) and parent[key] and data.draw(st.booleans()):
            parent = parent[key]
            key = data.draw(st.sampled_from(sorted(parent)))
        value = parent.get(key)
        scale = st.sampled_from([0, -1, 0.5, 2, 3, 7, 1e6, 1e-6, 1e30])
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        parent[key] = value * data.draw(scale) if numeric and data.draw(st.booleans()) else data.draw(odd)
    for row in parse_rows([json.dumps(raw)], "x").rows:
        found = case_of(row, catalogue())
        if isinstance(found, Refused):
            assert found.text
        else:
            assert found.plan.chips == found.cluster.chips
            assert math.isfinite(found.value_of(1.0)) and found.value_of(1.0) > 0


@pytest.mark.parametrize("page", ["validation.md", "validation.zh.md"])
def test_the_census_of_the_docs_is_that_of_the_file(page: str) -> None:
    text = (SHIPPED.parent.parent.parent / "docs" / page).read_text("utf-8")
    for line in census([row for row in BY_ID.values() if row.confidence == "high"], catalogue()):
        assert f"| {line.family} | {line.rows} | {line.cases} |" in text


def test_a_value_above_the_peak_is_refused_and_not_scored() -> None:
    base = BY_ID["megatron-h100-32b"]
    impossible = (
        msgspec.structs.replace(base, value=1400.0),
        msgspec.structs.replace(base, metric="mfu_pct", unit="%", value=140.0),
    )
    for row in impossible:
        found = case_of(row, catalogue())
        assert isinstance(found, Refused) and (found.code, found.field) == ("SP-ROW-024", "value")
