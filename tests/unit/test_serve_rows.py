"""From published inference measurements to serving questions: what each source means, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapper import messages
from sapper.chips import catalogue
from sapper.predict.rows.row import Refused, RowFault, row_of
from sapper.predict.rows.shipped import shipped_rows
from sapper.predict.serve.rows import ServeCase, all_cases, cases_of, census
from sapper.predict.serve.rows.exports import divided
from sapper.predict.serve.rows.rules import read_data, sources
from support import ROOT

LLAMA = {"name": "meta-llama/Llama-2-7b-hf", "arch": "dense", "params_b": 6.74, "layers": 32, "hidden": 4096, "heads": 32,
         "kv_heads": 32, "ffn": 11008, "vocab": 32000}
BASE: dict[str, Any] = {
    "id": "one", "source": "Somebody's blog", "chip": "NVIDIA H100 SXM", "chip_id": "nvidia-h100-sxm-80gb", "n_chips": 1, "model": LLAMA,
    "batch": 16, "input_len": 1024, "output_len": 128, "parallel": {"tp": 1, "pp": 1}, "precision": "fp16", "framework": "vLLM 0.9",
    "phase": "e2e generate", "metric": "e2e_latency", "value": 4.0, "unit": "s", "confidence": "high",
}
SILICON = "ai-dynamo/aiconfigurator systems/silicon_sample.csv (InferenceX); source_file="


def asked(**changes: Any) -> Sequence[ServeCase]:
    found = cases_of(row_of(BASE | changes), catalogue())
    assert not isinstance(found, Refused), (found.code, found.field, found.values)
    return found


def refused(**changes: Any) -> Refused:
    found = cases_of(row_of(BASE | changes), catalogue())
    assert isinstance(found, Refused)
    assert found.text
    return found


def silicon(file: str = "2026-03-25.csv", **changes: Any) -> ServeCase:
    row = {
        "source": f"{SILICON}{file}", "model": {"name": "deepseek-ai/DeepSeek-R1", "params_b": 671.0}, "precision": "fp8", "batch": 64,
        "phase": "serving agg", "metric": "tpot", "value": 20.0, "unit": "ms", "extra": {"ttft_ms": 500.0, "concurrency": 64},
        "framework": "sglang 0.5.9",
    }
    return asked(**row | changes)[0]


def test_the_recipes_of_a_benchmark_say_how_long_prompts_are_and_when_they_are_looked_at() -> None:
    blackwell = {"chip": "NVIDIA B200 SXM", "chip_id": "nvidia-b200-sxm", "input_len": 1024, "output_len": 1024}
    small = {"batch": 8, "extra": {"ttft_ms": 500.0, "concurrency": 8}}

    assert (silicon(**blackwell).input_len, silicon(**blackwell).output_len) == pytest.approx((921.6, 921.6))
    assert "assume.serve.drawn" in {one.code for one in silicon(**blackwell).assumptions}
    assert silicon(**blackwell).admission.poll == 30
    assert silicon(**blackwell, **small).admission.poll == 10
    assert silicon().admission.poll == 0  # the recipes for Hopper leave it out
    ranks = silicon(framework="trtllm 1.2.0", n_chips=8, parallel={"tp": 1, "dp": 8, "ep": 8}, **blackwell)
    assert (ranks.plan.attention_dp, ranks.admission.balance) == (8, 60)
    assert silicon("x/auto-gap-analysis/data/y.csv", **blackwell).input_len == 1024  # other runs of the same sample


def test_a_source_without_a_rule_is_read_by_its_words() -> None:
    (case,) = asked()

    assert (case.mode, case.quantity, case.measured_si) == ("static", "e2e", 4.0)
    assert (case.batch, case.input_len, case.output_len) == (16, 1024, 128)
    assert (case.plan.chips, case.replicas, case.cluster.chips) == (1, 1, 1)
    assert (case.job.stack, case.job.weights_dtype, case.job.dtype, case.family) == ("vllm", "fp16", "fp16", "Somebody's")


@pytest.mark.parametrize(
    ("metric", "unit", "phase", "value", "quantity", "si"),
    [
        ("tpot", "ms", "decode", 25.0, "tpot", 0.025),
        ("ttft", "ms", "prefill", 300.0, "ttft", 0.3),
        ("tokens_per_s_per_user", "tokens/s/user", "decode", 40.0, "tpot", 0.025),
        ("output_tokens_per_s", "tokens/s (all chips)", "e2e generate", 1024.0, "e2e", 2.0),  # 16 x 128 tokens
        ("throughput_tokens_per_s", "tokens/s", "e2e generate", 9216.0, "e2e", 2.0),  # 16 x 1152 tokens
        ("requests_per_s", "requests/s", "e2e generate", 8.0, "e2e", 2.0),
        ("decode_tokens_per_s_per_chip", "tokens/s/GPU", "decode", 640.0, "tpot", 0.025),
        ("prefill_tokens_per_s", "tokens/s", "prefill", 8192.0, "forward", 2.0),
        ("forward_latency", "ms", "prefill", 2000.0, "forward", 2.0),
        ("output_tokens_per_s", "ktokens/s", "max-throughput", 3.0, "output_rate", 3000.0),
        ("requests_per_s", "requests/s", "Offline", 10.0, "output_rate", 1280.0),
        ("energy_per_output_token", "J/token", "serving chat", 0.5, "energy_per_token", 0.5),
    ],
)
def test_a_metric_means_a_quantity(metric: str, unit: str, phase: str, value: float, quantity: str, si: float) -> None:
    case = asked(metric=metric, unit=unit, phase=phase, value=value)[0]

    assert case.quantity == quantity
    assert case.measured_si == pytest.approx(si)
    assert case.value_of(case.measured_si) == pytest.approx(value)


def test_ttft_and_tpot_beside_the_metric_are_questions_of_their_own() -> None:
    extra = {"ttft_p50_ms": 96.4, "tpot_p50_ms": 33.1}

    found = asked(metric="output_tokens_per_s", unit="tokens/s", value=400.0, extra=extra)

    assert [case.quantity for case in found] == ["e2e", "ttft", "tpot"]
    assert [case.measured_si for case in found[1:]] == pytest.approx([0.0964, 0.0331])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input_len": None}, "input_len"),
        ({"output_len": None}, "output_len"),
        ({"chip": "a chip that nobody knows", "chip_id": None}, "chip"),
        ({"metric": "wishes"}, "metric"),
        ({"unit": "furlongs"}, "unit"),
        ({"precision": "seven bits"}, "precision"),
        ({"batch": None, "metric": "output_tokens_per_s", "unit": "tokens/s"}, "batch"),
        ({"model": {"name": "An unheard-of 9B"}}, "model.layers"),
        ({"model": LLAMA | {"params_b": 70.0}}, "model.params_b"),
        ({"n_chips": 3, "parallel": {"tp": 2}}, "parallel"),
        ({"phase": "training", "metric": "step_time", "n_chips": 1}, "phase"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, Any], field: str) -> None:
    assert refused(**changes).field == field


@pytest.mark.parametrize(
    ("precision", "chip", "dtypes"),
    [
        ("fp16/bf16 (not in file)", "nvidia-h100-sxm-80gb", ("bf16", "bf16", "bf16")),
        ("fp16/bf16 (not in file)", "nvidia-t4", ("fp16", "fp16", "fp16")),
        ("fp8", "nvidia-h100-sxm-80gb", ("fp8", "fp8", "bf16")),
        ("fp8", "nvidia-a100-sxm-80gb", ("fp8", "bf16", "bf16")),  # no fp8 units: weights alone
        ("nvfp4", "nvidia-b200-sxm", ("fp4", "fp4", "bf16")),
        ("nvfp4", "nvidia-h100-sxm-80gb", ("fp4", "bf16", "bf16")),
        ("mxfp4", "nvidia-b200-sxm", ("fp4", "fp8", "bf16")),
        ("UINT4", "nvidia-h100-sxm-80gb", ("int4", "bf16", "bf16")),
        ("w8a8/w8a16 (table)", "nvidia-a100-sxm-80gb", ("int8", "int8", "bf16")),
        ("FP16, weights int8", "nvidia-a100-sxm-80gb", ("int8", "bf16", "bf16")),
        ("fp32 (TF32 off: sgemm)", "nvidia-a100-sxm-80gb", ("fp32", "fp32", "fp32")),
        ("mixed bfp8/bfp4 (not stated)", "nvidia-h100-sxm-80gb", ("fp8", "fp8", "bf16")),
    ],
)
def test_precisions_by_words_and_by_what_the_chip_multiplies(precision: str, chip: str, dtypes: tuple[str, str, str]) -> None:
    job = asked(precision=precision, chip_id=chip)[0].job

    assert (job.weights_dtype, job.compute_dtype, job.dtype) == dtypes


def test_a_precision_that_the_row_leaves_out_is_the_checkpoints() -> None:
    plain, named = asked(precision=None)[0], asked(precision=None, model={"name": "openai/gpt-oss-120b"})[0]

    assert plain.job.weights_dtype == "bf16"
    assert named.job.weights_dtype == "fp4"
    assert plain.weight == 0.5
    assert plain.assumptions[0].field == "precision"


def test_the_model_is_known_by_its_name_whatever_the_row_calls_its_architecture() -> None:
    case = asked(model={"name": "moonshotai/Kimi-K2.5", "arch": "dense"}, n_chips=8, parallel={"tp": 8}, precision="int4")[0]

    assert case.job.model.family == "kimi_k2"
    assert "wide-attention" in case.tags


def test_replicas_are_what_the_degrees_leave() -> None:
    case = asked(n_chips=8, parallel={"tp": 2, "dp": 4})[0]

    assert (case.plan.chips, case.replicas, case.replica_batch) == (2, 4, 4)


def test_ranks_of_a_card_of_two_devices_are_dies() -> None:
    mi250 = asked(chip="AMD Instinct MI250", chip_id="amd-mi250x", parallel={"tp": 1})[0]
    inferentia = asked(chip="AWS Inferentia2", chip_id="aws-inferentia2", n_chips=12, parallel={"tp": 24})[0]

    assert mi250.cluster.groups[0].chip.id == "amd-mi250x+die"
    assert (inferentia.cluster.chips, inferentia.plan.tp) == (24, 24)
    assert "dies" in inferentia.tags


def test_no_degrees_start_from_the_fewest_chips_that_hold_the_model() -> None:
    case = asked(n_chips=8, parallel={}, model={"name": "Llama2-70B"}, precision="fp8")[0]

    assert (case.plan.tp, case.replicas) == (2, 4)
    assert {"tp", "replicas"} <= case.unknown


def test_a_hosted_service_has_as_many_chips_as_hold_the_model() -> None:
    case = asked(
        source="SambaNova blog", chip="Groq LPU", chip_id="groq-lpu-v1", n_chips=None, model={"name": "Llama3.1-70B"}, parallel={},
        precision="8-bit", metric="tokens_per_s_per_user", unit="tokens/s/user", phase="decode", batch=1,
    )[0]

    assert case.plan.chips > 300
    assert case.weight < 0.2


# ---- single sources ------------------------------------------------------------------------------------------------


def test_llama_cpp_of_argonne_generates_one_sequence_over_layers_on_each_chip() -> None:
    case = asked(source="argonne-lcf/LLM-Inference-Bench row 1", framework="llama.cpp", n_chips=4, parallel={"tp": 4}, batch=32)[0]

    assert (case.batch, case.plan.pp, case.plan.tp, case.plan.max_batched_tokens) == (1, 4, 1, 32)


def test_prompts_of_argonne_count_in_nothing_but_the_latency() -> None:
    assert asked(source="argonne-lcf/LLM-Inference-Bench row 1")[0].mode == "static"


def test_an_export_that_multiplies_degrees_is_divided() -> None:
    plain = silicon(n_chips=8, parallel={"tp": 8, "ep": 8, "dp": 1})
    multiplied = silicon("2026-04-06.csv", n_chips=64, parallel={"tp": 64, "ep": 8, "dp": 1})

    assert plain.plan == multiplied.plan
    assert plain.cluster.chips == multiplied.cluster.chips == 8
    assert plain.mode == "closed"
    assert plain.batch == 64


@pytest.mark.parametrize(
    ("stated", "ran"),
    [((64, 1, 8), (8, 1, 8)), ((1, 64, 8), (1, 8, 8)), ((4, 4, 16), (1, 4, 4)), ((4, 1, 2), (2, 1, 2)), ((8, 1, 1), (8, 1, 1))],
)
def test_multiplied_degrees(stated: tuple[int, int, int], ran: tuple[int, int, int]) -> None:
    assert divided(tp=stated[0], dp=stated[1], ep=stated[2]) == ran


def test_data_parallel_attention_lies_inside_a_replica_of_experts() -> None:
    experts = silicon(n_chips=8, parallel={"tp": 1, "ep": 8, "dp": 8})
    dense = silicon(n_chips=8, parallel={"tp": 1, "dp": 8}, model={"name": "Qwen/Qwen3-32B"})

    assert (experts.plan.attention_dp, experts.replicas) == (8, 1)
    assert (dense.plan.attention_dp, dense.replicas) == (1, 8)


DISAGG = {
    "prefill_num_workers": "2", "prefill_tp_size": "1", "prefill_attention_dp_size": "4", "prefill_moe_ep_size": "4",
    "decode_num_workers": "3", "decode_tp_size": "8", "decode_attention_dp_size": "1", "decode_moe_ep_size": "8", "decode_batch_size": "16",
}


def disaggregated(**table: str | None) -> dict[str, Any]:
    kept = {key: value for key, value in (DISAGG | table).items() if value is not None}
    extra = {"ttft_ms": 500.0, "concurrency": 48, "disagg": kept}
    return {"phase": "serving disagg", "n_chips": None, "parallel": {}, "extra": extra, "chip_id": "nvidia-b200-sxm"}


def test_prefill_and_decode_workers() -> None:
    case = silicon(**disaggregated())

    assert case.prefill is not None
    assert (case.plan.tp, case.plan.ep, case.replicas, case.cluster.chips) == (8, 8, 3, 24)
    assert (case.prefill.workers, case.prefill.plan.attention_dp, case.prefill.chips) == (2, 4, 8)
    assert case.unknown == frozenset({"max_sequences"})


@pytest.mark.slow
def test_workers_that_a_row_leaves_out_come_from_its_twin_or_its_neighbour() -> None:
    base = {"source": f"{SILICON}2026-03-25.csv", "model": {"name": "deepseek-ai/DeepSeek-R1"}, "precision": "fp8",
            "metric": "tpot", "value": 20.0, "unit": "ms", "framework": "someengine 1"}
    full = BASE | base | disaggregated() | {"id": "full"}
    bare = disaggregated(decode_num_workers=None, prefill_num_workers=None, decode_batch_size=None)
    twin = BASE | base | bare | {"id": "twin"}
    neighbour = twin | {"id": "neighbour", "value": 33.0, "extra": bare["extra"] | {"ttft_ms": 700.0, "concurrency": 64}}

    cases, faults = all_cases([row_of(row) for row in (full, twin, neighbour)], catalogue())
    first = {case.row_id: case for case in cases if case.quantity == "tpot"}

    assert not faults
    assert first["twin"].replicas == first["neighbour"].replicas == 3
    assert "replicas" not in first["twin"].unknown
    assert "replicas" in first["neighbour"].unknown
    assert first["full"].weight == first["twin"].weight == 0.5  # one measurement, told twice
    assert first["neighbour"].weight == pytest.approx(0.4)
    assert first["neighbour"].batch == 64


def recipe_row(load: int, **extra: Any) -> ServeCase:
    """A row of B200 with TensorRT-LLM that leaves out how many workers there were."""
    table = {"prefill_tp_size": "4", "prefill_moe_ep_size": "4", "decode_tp_size": "8", "decode_moe_ep_size": "4"}
    return silicon(
        chip="NVIDIA B200 SXM", chip_id="nvidia-b200-sxm", n_chips=0, precision="fp4", batch=None, input_len=1024, output_len=1024,
        framework="trtllm 0.8.1.post1", phase="serving disagg", parallel={},
        extra={"ttft_ms": 500.0, "concurrency": load, "measured": "2026-01-29", "disagg": table} | extra,
    )


def test_workers_and_drafts_that_a_row_leaves_out_come_from_the_recipe_of_its_day() -> None:
    plain, drafting = recipe_row(2192), recipe_row(1214)
    assert plain.prefill is not None and drafting.prefill is not None

    assert (plain.prefill.workers, plain.replicas, plain.plan.attention_dp, plain.plan.max_sequences) == (1, 2, 8, 128)
    assert "speculative" not in plain.tags
    assert (drafting.prefill.workers, drafting.replicas, drafting.plan.max_sequences) == (1, 2, 64)
    assert ("speculative" in drafting.tags, drafting.drafts) == (True, 2)
    assert {one.code for one in plain.assumptions if one.field == "parallel"} == {"assume.serve.recipe"}
    assert "1 x 4 prefill, 2 x 8 decode" in {one.value for one in plain.assumptions}
    assert not {"max_sequences", "replicas"} & plain.unknown


def test_a_load_that_no_recipe_has_is_guessed_as_before() -> None:
    codes = {one.code for one in recipe_row(2193).assumptions}

    assert "assume.serve.recipe" not in codes
    assert codes & {"assume.serve.workers", "assume.serve.neighbour"}


def test_recipes_say_what_an_engine_keeps_and_reads_at_once() -> None:
    hopper = {"chip": "NVIDIA H100 SXM", "chip_id": "nvidia-h100-sxm-80gb", "n_chips": 4, "parallel": {"tp": 4}, "framework": "vllm 0.18.0"}
    case = silicon(model={"name": "MiniMaxAI/MiniMax-M2.5"}, **hopper)
    llama = {"model": {"name": "meta-llama/Llama-3.1-70B"}, "framework": "trtllm ", "output_len": 1024, "chip_id": "nvidia-b200-sxm",
             "chip": "NVIDIA B200 SXM", "n_chips": 2, "parallel": {"tp": 2}}

    assert (case.job.weights_dtype, case.job.cache_dtype, case.memory_share) == ("fp8", "bf16", 0.9)
    assert silicon(input_len=1024, **llama).admission.gather == 20
    assert silicon(input_len=8192, **llama).admission.gather == 0  # a long prompt is enough by itself
    assert silicon(**llama).plan.max_batched_tokens == 16384


def test_a_client_that_offers_more_than_the_run_was_meant_for_leaves_the_engine_its_limit() -> None:
    gpt = {"model": {"name": "openai/gpt-oss-120b", "params_b": 117.0}, "chip": "NVIDIA H100 SXM", "chip_id": "nvidia-h100-sxm-80gb",
           "framework": "vllm 0.11.2", "precision": "fp4", "batch": 512, "n_chips": 8, "parallel": {"tp": 8}}
    december = {"ttft_ms": 500.0, "concurrency": 512, "measured": "2025-12-08T00:00:00.000Z"}
    found = silicon(**gpt, extra=december)
    later = silicon(**gpt, extra=december | {"measured": "2026-03-27T00:00:00.000Z"})

    assert (found.plan.max_sequences, found.batch, found.requests) == (16, 160.0, 160)
    assert "assume.serve.client" in {one.code for one in found.assumptions}
    assert found.weight < later.weight
    assert (later.plan.max_sequences, later.batch, later.requests) == (512, 512.0, None)


def test_runs_that_decode_speculatively_by_their_release() -> None:
    ran = {"n_chips": 8, "parallel": {"tp": 8}, "framework": "trtllm 1.1.0rc2.post2"}
    extra = {"ttft_ms": 500.0, "concurrency": 64}

    before, after = (silicon(**ran, extra=extra | {"measured": day}) for day in ("2025-12-15", "2026-01-14"))

    assert "speculative" not in before.tags
    assert "speculative" in after.tags
    assert after.assumptions[-1].field == "speculative"


def test_ranks_may_be_groups_of_cores() -> None:
    case = asked(chip="AWS Trainium2", chip_id="aws-trainium2", n_chips=16, parallel={"tp": 64})[0]
    chip = catalogue().chips["aws-trainium2"].memory.capacity_bytes
    rank = case.cluster.groups[0].chip.memory.capacity_bytes

    assert case.plan.tp == 64
    assert chip is not None and rank is not None and chip.number is not None
    assert rank.number == chip.number / 4


def test_more_chips_than_a_node_in_one_server_are_pools_that_the_row_does_not_split() -> None:
    case = silicon(chip_id="nvidia-b200-sxm", n_chips=36, parallel={"tp": 36, "ep": 1, "dp": 1})

    assert case.prefill is not None
    assert case.prefill.chips is not None
    assert case.cluster.chips + case.prefill.chips == 36
    assert "unsplit" in case.tags
    assert case.weight <= 0.1


def test_mlperf_scenarios_have_lengths_and_limits() -> None:
    row = {"source": "MLPerf Inference v5.1 summary_results.json, closed/X", "model": {"name": "Llama2-70B"}, "input_len": None,
           "output_len": None, "batch": None, "n_chips": 8, "parallel": {}, "precision": "fp8", "framework": "TensorRT 10.11",
           "metric": "output_tokens_per_s", "unit": "tokens/s (whole system)", "value": 25000.0,
           "extra": {"accuracy": "ROUGE1: 44  TOKENS_PER_SAMPLE: 273.3", "system_power_w": 5000.0}}

    offline, server = asked(**row, phase="Offline")[0], asked(**row, phase="Interactive")[0]

    assert (offline.mode, offline.output_len, offline.job.stack, offline.ttft_limit_s) == ("saturated", 273.3, "trtllm", None)
    assert (server.mode, server.ttft_limit_s, server.tpot_limit_s) == ("server", 0.45, 0.04)
    assert offline.job.stack_year == pytest.approx(2025.65)
    assert "system-power" in offline.tags
    assert {"tp", "max_sequences"} <= offline.unknown


def test_a_dual_board_is_two_chips() -> None:
    found = asked(chip="[MAXSUN] MS-Intel Arc Pro B60 Dual 48G Turbo", chip_id="intel-arc-pro-b60", n_chips=1, parallel={})[0]

    assert found.cluster.chips == 2


def test_prompts_of_tenstorrents_demos_are_read_one_by_one() -> None:
    row = {"source": "tenstorrent/tt-metal models/README.md", "metric": "tokens_per_s_per_user", "unit": "tokens/s/user",
           "phase": "decode", "output_len": 1, "extra": {"ttft_ms": 90}}

    decode, first = asked(**row)

    assert (decode.batch, first.batch) == (16, 1)


def test_prefill_rows_without_a_batch_hold_the_tokens_that_their_words_state() -> None:
    row = {"source": "alibaba/InferSim README", "metric": "prefill_tokens_per_s_per_chip", "unit": "tokens/s/GPU", "phase": "prefill",
           "batch": None, "input_len": 4096, "output_len": None, "n_chips": 32, "parallel": {"tp": 1, "ep": 32},
           "model": {"name": "DeepSeek-V3"}, "precision": "fp8", "value": 8192.0, "extra": {"cfg": "EP32, 16K tokens per GPU"}}

    case = asked(**row)[0]

    assert (case.batch, case.plan.attention_dp, case.plan.ep, case.measured_si) == (128, 32, 32, 2.0)


# ---- the rules themselves ------------------------------------------------------------------------------------------


def test_rules_speak_of_sources_and_not_of_rows() -> None:
    ids = {row.id for row in shipped_rows("inference").rows}
    text = json.dumps([read_data("sources.toml"), read_data("precision.toml")])

    assert not [id_ for id_ in ids if id_ in text]
    assert all(len(entry.why) > 20 for entry in sources().source)


@pytest.mark.slow
def test_all_but_a_few_shipped_rows_put_questions() -> None:
    cases, faults = all_cases(shipped_rows("inference").rows, catalogue())

    assert len(faults) <= 15
    assert all(fault.field for fault in faults)
    for case in cases:
        assert case.cluster.chips == case.plan.chips * (case.replicas or 1)
        assert 0 < case.measured_si < math.inf
        assert 0 <= case.weight <= 1
        assert case.plan.tp * case.plan.attention_dp % case.plan.ep == 0
        assert all(assumption.text for assumption in case.assumptions)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["validation.md", "validation.zh.md"])
def test_the_census_of_the_docs_is_that_of_the_curated_file(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    for line in census(shipped_rows("inference").rows, catalogue()):
        assert f"| {line.family} | {line.rows} | {line.answered} | {line.questions} |" in text


@pytest.mark.slow
def test_the_census_of_the_docs_is_that_of_the_bulk_file() -> None:
    texts = [(ROOT / "docs" / page).read_text("utf-8") for page in ("validation.md", "validation.zh.md")]
    for line in census(shipped_rows("inference_bulk").rows, catalogue()):
        assert all(f"| {line.family} (bulk) | {line.rows} | {line.answered} | {line.questions} |" in text for text in texts)


@pytest.mark.parametrize("lang", messages.LANGUAGES)
def test_assumptions_are_told_in_both_languages(lang: str) -> None:
    case = silicon(**disaggregated(decode_num_workers=None))

    with messages.using(lang):
        assert all("{" not in assumption.text for assumption in case.assumptions)


@pytest.mark.parametrize("load", [float("inf"), float("nan"), -1, True, "many"])
def test_a_load_that_is_no_number_of_requests_is_none(load: object) -> None:
    raw = json.loads(json.dumps(BASE | disaggregated() | {"source": f"{SILICON}2026-04-06.csv", "n_chips": 8}))
    raw["extra"]["concurrency"] = load

    found, _ = all_cases([row_of(raw)], catalogue())

    assert all(case.batch is None or case.batch < 1e6 for case in found)


@pytest.mark.parametrize("field", ["decode_tp_size", "decode_attention_dp_size", "prefill_tp_size", "prefill_attention_dp_size"])
@pytest.mark.parametrize("size", [float("inf"), float("nan"), "many", []])
def test_a_size_of_workers_that_is_no_number_is_a_fault_or_none(field: str, size: object) -> None:
    raw = json.loads(json.dumps(BASE | disaggregated() | {"source": f"{SILICON}2026-04-06.csv", "n_chips": 8}))
    raw["extra"]["disagg"][field] = size

    found, faults = all_cases([row_of(raw)], catalogue())

    assert found or faults


def test_a_day_of_measuring_that_is_blank_is_none() -> None:
    raw = json.loads(json.dumps(BASE | disaggregated() | {"source": f"{SILICON}2026-04-06.csv", "n_chips": 8, "parallel": {"tp": 9}}))
    raw["extra"]["measured"] = ""
    del raw["extra"]["disagg"]

    found, faults = all_cases([row_of(raw)], catalogue())

    assert found or faults


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_row_however_odd_makes_it_raise(data: st.DataObject) -> None:
    odd = st.one_of(st.none(), st.integers(-3, 10**9), st.floats(allow_nan=True), st.text(max_size=8), st.booleans())
    raw = json.loads(json.dumps(BASE | disaggregated() | {"source": f"{SILICON}2026-04-06.csv", "n_chips": 8}))
    for key in data.draw(st.lists(st.sampled_from(sorted(raw["extra"]["disagg"])), max_size=4)):
        raw["extra"]["disagg"][key] = data.draw(odd)
    raw["extra"][data.draw(st.sampled_from(["concurrency", "ttft_ms", "max_num_seqs", "measured", "accuracy"]))] = data.draw(odd)
    raw["parallel"] = data.draw(st.dictionaries(st.sampled_from(["tp", "pp", "dp", "ep"]), st.integers(0, 100), max_size=4))
    if data.draw(st.booleans()):
        del raw["extra"]["disagg"]

    try:
        row = row_of(raw)
    except RowFault:
        return  # a line that is no row is refused before
    found, faults = all_cases([row], catalogue())

    assert found or faults
