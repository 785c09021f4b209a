"""``predict train``: what a user may rely on in every answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predict_kit import LLAMA, cluster, job, model, unfitted

from sapper.clusters.file import read_cluster
from sapper.errors import BadPlan, BadValue, MissingFact, SapperError
from sapper.mix.costs.network import network_of
from sapper.predict import Plan, predict_train, search_train
from sapper.predict.arrays import PlanArray
from sapper.predict.engine import evaluate, require_links, the_group
from sapper.predict.estimate import Estimate
from sapper.predict.job import TrainJob
from sapper.predict.legal import parse_plan
from sapper.predict.search import rank
from sapper.predict.subject import subject_of
from sapper.workloads import from_config, load


def predicted(question: TrainJob, plan: Plan, *, chip: str = "nvidia-a100-sxm-80gb", chips: int = 64) -> Estimate:
    where = cluster(chip, chips)
    return predict_train(question, where, plan, fitted=unfitted(subject_of(question, the_group(where).chip)))


def seconds(estimate: Estimate, term: str) -> float:
    return next(t.time_s for t in estimate.terms if t.name == term)


def test_interval_holds_the_middle_and_terms_sum_to_it() -> None:
    estimate = predicted(job(tokens=1e12), Plan(tp=4, pp=2, dp=8))

    assert estimate.step_time.low < estimate.step_time.mid < estimate.step_time.high
    assert sum(t.time_s for t in estimate.terms) == pytest.approx(estimate.step_time.mid)
    assert estimate.job_time is not None and estimate.steps is not None
    assert estimate.job_time.mid == pytest.approx(estimate.steps * estimate.step_time.mid)
    assert estimate.tokens_per_s.mid == pytest.approx(256 * 4096 / estimate.step_time.mid)


def test_mfu_is_model_flops_over_dense_peak() -> None:
    question = job()
    estimate = predicted(question, Plan(tp=4, pp=2, dp=8))

    flops = 3 * question.workload.flops(convention="full") * 256
    assert estimate.mfu is not None
    assert estimate.mfu.mid == pytest.approx(flops / (estimate.step_time.mid * 64 * 312e12))


def test_full_recomputation_trades_time_for_memory() -> None:
    none = predicted(job(), Plan(tp=2, pp=1, dp=32, recompute="none"))
    full = predicted(job(), Plan(tp=2, pp=1, dp=32, recompute="full"))

    assert full.step_time.mid > 1.2 * none.step_time.mid
    assert full.memory.peak.mid < none.memory.peak.mid
    assert full.hfu is not None and full.mfu is not None and full.hfu.mid > 1.2 * full.mfu.mid


@pytest.mark.parametrize(("stack", "code"), [("homemade", "warn.unfitted-stack"), ("eager", "warn.counted-fused"), ("fsdp", None)])
def test_what_is_not_known_of_a_stack_is_said(stack: str, code: str | None) -> None:
    about_stacks = {"warn.unfitted-stack", "warn.counted-fused"}
    estimate = predict_train(job(stack=stack), cluster("nvidia-a100-sxm-80gb", 64), Plan(tp=8, dp=8))
    found = {one.code for one in estimate.warnings} & about_stacks
    assert found == ({code} if code else set())


def test_selective_recomputation_repeats_only_the_core() -> None:
    """With unfused attention, arXiv:2205.05198 finds most of the memory saved for a few percent of time."""
    plans = [Plan(tp=8, pp=1, dp=8, recompute=r) for r in ("none", "selective", "full")]
    none, selective, full = (predicted(job(attention="unfused"), plan) for plan in plans)

    assert none.step_time.mid < selective.step_time.mid < full.step_time.mid
    assert full.memory.peak.mid < selective.memory.peak.mid < none.memory.peak.mid


@pytest.mark.parametrize(
    ("schedule", "vpp", "share"),
    [("gpipe", 1, 1.0), ("1f1b", 1, 1.0), ("interleaved", 2, 0.5), ("zero-bubble", 1, 1 / 3), ("dualpipe", 1, 1 / 3)],
)
def test_bubble_of_each_schedule(schedule: str, vpp: int, share: float) -> None:
    """(p - 1) / m of the busy time for GPipe and 1F1B, over v for interleaved (arXiv:2104.04473), a third for ZB-H1."""
    estimate = predicted(job(), Plan(tp=4, pp=4, dp=4, micro_batch=4, schedule=schedule, vpp=vpp))  # type: ignore[arg-type]

    busy = sum(seconds(estimate, t) for t in ("matmul", "attention", "memory-bound", "launch", "tensor-comm"))
    expected = (4 - 1) / 16 * share
    # the others wait on the last stage, which the head makes longer: a mean stage is 0.8 of it
    assert 0.75 * expected < seconds(estimate, "bubble") / busy <= expected


def test_dualpipe_hides_most_of_the_experts_exchange_and_holds_two_stages() -> None:
    """What is left are the 20 of 132 SMs that the exchange takes (arXiv:2412.19437, section 3.2.2); its table 2 has the memory."""
    mixture = TrainJob(workload=load("mixtral-8x7b").workload(4096), global_batch=256, precision="bf16")

    plain, dual = (predicted(mixture, Plan(pp=4, dp=16, ep=8, schedule=s)) for s in ("zero-bubble", "dualpipe"))  # type: ignore[arg-type]

    assert seconds(dual, "expert-comm") == pytest.approx(seconds(plain, "expert-comm") * 20 / 132)
    held = [{part.name: part.size_bytes for part in one.memory.parts} for one in (plain, dual)]
    assert held[1]["weights"] == pytest.approx(2 * held[0]["weights"], rel=1e-3)
    with pytest.raises(BadPlan) as raised:
        parse_plan("pp=3,schedule=dualpipe", mixture, chips=48)
    assert raised.value.code == "SP-PRED-023"


def test_megatron_before_2023_hides_none_of_its_communication() -> None:
    old, new = (
        predicted(job(stack="megatron", stack_year=year), Plan(tp=4, dp=16)) for year in (2022.5, 2026.0)
    )

    for term in ("tensor-comm", "data-comm"):
        assert seconds(old, term) > 1.05 * seconds(new, term)


def test_a_vocabulary_of_odd_width_slows_its_product_on_a_gpu_alone() -> None:
    """Rows of 50,257 halves start at any two bytes (PTX ISA, cp.async copies at least four); a padded one costs next to nothing."""
    head = [replace_vocab(size) for size in (128256, 128257)]
    gpu, tpu = (
        [seconds(predicted(one, Plan(dp=64), chip=chip), "matmul") for one in head] for chip in ("nvidia-a100-sxm-80gb", "google-tpu-v5p")
    )

    assert 1.04 < gpu[1] / gpu[0] < 1.12
    assert tpu[1] / tpu[0] == pytest.approx(1.0, abs=0.01)


def test_a_stack_that_pads_the_vocabulary_has_no_odd_product() -> None:
    even, odd = (
        seconds(predicted(replace_vocab(size, stack="megatron"), Plan(dp=64)), "matmul") for size in (128256, 128257)
    )
    as_it_is = seconds(predicted(replace_vocab(128257, stack="megatron", vocab_padded=False), Plan(dp=64)), "matmul")

    assert odd == pytest.approx(even, rel=0.001)
    assert as_it_is > 1.04 * odd


def replace_vocab(size: int, **options: Any) -> TrainJob:
    workload = from_config(LLAMA | {"vocab_size": size}, name="m", where="test").workload(4096, dtype="bf16", attention_impl="flash")
    return TrainJob(workload=workload, global_batch=256, **options)


def test_few_score_matrices_have_no_fused_softmax_in_megatron() -> None:
    """Megatron-LM's kernel takes multiples of four matrices (fused_softmax.py of v2.5): of 32 heads over 16 ways, two."""
    few, more = (
        seconds(predicted(job(seq_len=2048, attention="unfused", stack=stack), Plan(tp=16, dp=4, sequence_parallel=False)), "memory-bound")
        for stack in ("megatron", "paddle")
    )
    enough = [
        seconds(predicted(job(seq_len=2048, attention="unfused", stack=stack), Plan(tp=8, dp=8, sequence_parallel=False)), "memory-bound")
        for stack in ("megatron", "paddle")
    ]

    assert few > 1.3 * more
    assert enough[0] == pytest.approx(enough[1])


def test_megatron_ranks_send_their_share_of_a_boundary() -> None:
    """arXiv:2104.04473, section 4.1: without it each of 8 ranks sends the whole activation over its own network port."""
    plan = Plan(tp=8, pp=4, dp=4, sequence_parallel=False)
    scattered, whole = (
        seconds(predicted(job(stack=stack), plan, chips=128), "pipeline-comm") for stack in ("megatron", "paddle")
    )

    assert scattered < 0.4 * whole


def test_gpipe_keeps_every_micro_batch_alive() -> None:
    one, all_ = (predicted(job(), Plan(tp=4, pp=4, dp=4, schedule=s)) for s in ("1f1b", "gpipe"))  # type: ignore[arg-type]

    assert all_.memory.peak.mid > 3 * one.memory.peak.mid


def test_each_zero_stage_needs_less_memory() -> None:
    sizes = [predicted(job(), Plan(tp=1, pp=1, dp=64, zero=z)).memory.peak.mid for z in (0, 1, 2, 3)]

    assert sizes == sorted(sizes, reverse=True)
    # 8.03e9 weights at 2 + 4 + 12 bytes (arXiv:1910.02054, section 3.1, with fp32 main gradients)
    parts = {p.name: p.size_bytes for p in predicted(job(), Plan(tp=1, pp=1, dp=64, zero=0)).memory.parts}
    assert parts["weights"] + parts["gradients"] + parts["optimizer"] == pytest.approx(18 * model().params, rel=0.01)


def test_lora_needs_no_optimizer_for_the_frozen_weights() -> None:
    full, lora = predicted(job(), Plan(dp=64)), predicted(job(finetune="lora"), Plan(dp=64))

    parts = {p.name: p.size_bytes for p in lora.memory.parts}
    assert parts["optimizer"] + parts["gradients"] < 0.02 * parts["weights"]
    assert 0.5 < lora.step_time.mid / full.step_time.mid < 0.9


def test_no_communication_without_parallelism() -> None:
    estimate = predicted(job(), Plan(), chips=1)

    assert all(t.time_s == 0 for t in estimate.terms if t.name.endswith("-comm") or t.name == "bubble")


def test_slower_links_cost_time_where_they_are_used() -> None:
    fast = predicted(job(), Plan(tp=8, dp=8))
    slow = predicted(job(), Plan(tp=8, dp=8), chip="nvidia-a800-sxm-80gb")

    assert seconds(slow, "tensor-comm") > 1.3 * seconds(fast, "tensor-comm")
    assert seconds(slow, "matmul") == pytest.approx(seconds(fast, "matmul"), rel=0.15)


def test_search_finds_what_pricing_plan_by_plan_finds() -> None:
    """The arrays and the single prediction are one arithmetic."""
    question, where = job(), cluster(chips=16)
    fitted = unfitted(subject_of(question, the_group(where).chip))
    found = search_train(question, where, fitted=fitted)
    ranked = rank(question, where, fitted=fitted)
    singles = [predict_train(question, where, ranked.evaluated.plans.plan(i), fitted=fitted) for i in range(0, len(ranked.step_s), 37)]

    for i, single in zip(range(0, len(ranked.step_s), 37), singles, strict=True):
        assert single.step_time.mid == pytest.approx(float(ranked.step_s[i]))
        assert single.memory.peak.mid == pytest.approx(float(ranked.evaluated.memory.peak_bytes[i]))
    assert found.best is not None and found.best.memory.fits
    fitting = [s.step_time.mid for s in singles if s.memory.fits]
    assert found.best.step_time.mid <= min(fitting) * (1 + 1e-9)
    assert [r.step_time_s for r in found.runners] == sorted(r.step_time_s for r in found.runners)
    assert all(r.reason_code.startswith("reason.slower.") for r in found.runners)


def test_when_nothing_fits_it_says_what_is_too_large() -> None:
    question, where = job(seq_len=4096, global_batch=8), cluster("nvidia-l40s", 1, node=1)
    found = search_train(question, where, fitted=unfitted(subject_of(question, the_group(where).chip)))

    assert found.best is None and found.why_none is not None
    assert found.why_none.values["part"] == "optimizer"


def test_all_unknown_links_are_named_at_once(tmp_path: Path) -> None:
    bare, joined = (the_group(cluster(chip, 16, node=8)) for chip in ("nvidia-h100-sxm-80gb", "amd-mi300x"))
    with pytest.raises(MissingFact) as refused:
        require_links([msgspec.structs.replace(bare, scale_up=None, scale_out=None), msgspec.structs.replace(joined, scale_out=None)])
    for field in ("`nvidia-h100-sxm-80gb scale_up`", "`nvidia-h100-sxm-80gb scale_out`", "`amd-mi300x scale_out`"):
        assert field in refused.value.values["fields"]
    assert "`--assume amd-mi300x.scale_out=...`" in str(refused.value.values["keys"])

    groups = "\n".join(f'[[group]]\nname = "{name}"\nchip = "h100-sxm-80gb"\nnodes = 1' for name in "abc")
    links = '[[link]]\nfrom = "a"\nto = "b"\n[[link]]\nfrom = "b"\nto = "c"\n'
    file = tmp_path / "mixed.toml"
    file.write_text(f"{groups}\n{links}", "utf-8")
    with pytest.raises(MissingFact) as unjoined:
        network_of(read_cluster(file))
    assert unjoined.value.values["pairs"] == "`a` - `b`, `b` - `c`"


def test_unknown_peak_is_named_and_never_filled() -> None:
    with pytest.raises(MissingFact) as refused:
        evaluate(job(precision="fp8"), cluster("nvidia-a100-sxm-80gb"), PlanArray.of([Plan(dp=64)]))

    assert "peak_flops_per_s.fp8" in refused.value.render("en")


def test_plan_that_does_not_multiply_prints_the_equation() -> None:
    with pytest.raises(BadPlan) as refused:
        predicted(job(), Plan(tp=3, pp=4, dp=5))

    assert "tp(3) x pp(4) x dp(5) x cp(1) = 60, but the cluster has 64 chips" in refused.value.render("en")


@pytest.mark.parametrize(
    "text",
    [
        "tp=0",
        "tp=-1",
        "tp=1e3",
        "xp=2",
        "tp",
        "tp=8,tp",
        "pp=64",
        "tp=64",
        "dp=7",
        "schedule=fast",
        "zero=9",
        "recompute=some",
        "tp=",
        "=3",
        "hsdp=3",
        "ep=2",
        "vpp=2,schedule=1f1b",
        "tp=99999999999999999999",
    ],
)
def test_bad_plans_are_refused_with_the_field(text: str) -> None:
    with pytest.raises(BadPlan) as refused:
        parse_plan(text, job(), 64)

    assert refused.value.where is not None and refused.value.where.lstrip("-").startswith("plan")
    assert "->" in refused.value.render("zh")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="tpdce=,0123456789zrovsm_ -.", max_size=40))
def test_any_plan_text_is_a_plan_or_a_refusal(text: str) -> None:
    try:
        plan = parse_plan(text, job(), 64)
    except SapperError as refused:
        assert refused.render("en") and refused.render("zh")
    else:
        assert plan.chips == 64


@pytest.mark.parametrize(
    ("field", "value"),
    [("global_batch", 0), ("global_batch", -4), ("tokens", -1.0), ("tokens", float("inf")), ("precision", "int3"), ("optimizer", "magic")],
)
def test_numbers_that_cannot_be_meant(field: str, value: object) -> None:
    question = job(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(BadValue):
        predicted(question, Plan(dp=64))


@settings(max_examples=40, deadline=None)
@given(
    tp=st.sampled_from([1, 2, 4, 8]),
    pp=st.sampled_from([1, 2, 4, 8]),
    cp=st.sampled_from([1, 2]),
    micro=st.sampled_from([1, 2, 4]),
    zero=st.integers(0, 3),
    recompute=st.sampled_from(["none", "selective", "full"]),
    chip=st.sampled_from(["nvidia-a100-sxm-80gb", "huawei-ascend-910b3", "amd-mi300x", "google-tpu-v5p", "intel-gaudi3"]),
)
def test_every_legal_plan_gives_a_possible_result(tp: int, pp: int, cp: int, micro: int, zero: int, recompute: str, chip: str) -> None:
    """Invariants run inside; an impossible result raises."""
    dp = 128 // (tp * pp * cp)
    plan = Plan(tp=tp, pp=pp, dp=dp, cp=cp, micro_batch=micro, zero=zero, recompute=recompute)  # type: ignore[arg-type]
    estimate = predicted(job(global_batch=512), plan, chip=chip, chips=128)

    assert 0 < estimate.tokens_per_s.low <= estimate.tokens_per_s.high
    assert len(estimate.memory.stages) == pp


def test_unknown_cost_and_energy_stay_unknown() -> None:
    estimate = predicted(job(tokens=1e12), Plan(dp=64), chip="aws-trainium1")

    assert estimate.energy_per_step is None and estimate.job_energy is None


def test_plan_array_keeps_plans_whole() -> None:
    plans = [Plan(tp=2, pp=4, dp=8, schedule="zero-bubble", recompute="full"), Plan(ep=4, dp=8, sequence_parallel=False, zero=3, hsdp=4)]
    arrays = PlanArray.of(plans)

    assert [arrays.plan(0), arrays.plan(1)] == plans
    assert np.array_equal(arrays.chips, [64, 8])
