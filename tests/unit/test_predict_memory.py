"""Memory: what stacks keep, and what their allocators take beside it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from predict_kit import cluster, job

from sapper.chips import catalogue
from sapper.predict import Plan, predict_train
from sapper.predict.allocator import MemorySubject, allocation_of, fit_memory, peak_of, shipped_memory, unfitted
from sapper.predict.job import TrainJob
from sapper.predict.predictor import TrainPredictor
from sapper.predict.rows.case import Case
from sapper.predict.validate import pool


def parts(question: TrainJob, plan: Plan, chips: int = 64) -> dict[str, float]:
    found = predict_train(question, cluster("nvidia-h100-sxm-80gb", chips), plan).memory.parts
    return {part.name: part.size_bytes for part in found}


def test_fsdp_keeps_fp32_shards_of_weights_and_gradients() -> None:
    """4 bytes of weight, 4 of gradient, 8 of moments, over 64 chips (arXiv:2304.11277)."""
    found = parts(job(stack="fsdp"), Plan(tp=1, pp=1, dp=64, zero=3))

    assert found["gradients"] + found["optimizer"] == pytest.approx(16 * job().workload.params / 64, rel=0.02)


def test_fsdp_keeps_weights_gathered_under_a_pipeline() -> None:
    single, piped = (parts(job(stack="fsdp"), Plan(tp=1, pp=pp, dp=64 // pp, zero=3))["buffers"] for pp in (1, 4))

    assert piped > 6 * job().workload.params / 4 * 0.8
    assert single < piped / 5


def test_a_fused_loss_keeps_a_third_of_the_logits() -> None:
    eager, fused = (parts(job(stack="fsdp", fused_loss=on), Plan(tp=1, pp=1, dp=64, zero=3))["logits"] for on in (False, True))

    assert fused == pytest.approx(eager / 3)


def test_selective_recomputation_op_by_op_keeps_less_than_by_parts() -> None:
    plan = Plan(tp=1, pp=1, dp=64, zero=3, recompute="selective")
    by_op, by_part = (parts(job(stack=stack), plan)["activations"] for stack in ("fsdp", "deepspeed"))

    assert by_op < 0.75 * by_part


def test_xla_keeps_named_maps_and_repeats_the_attention() -> None:
    """MaxText's minimal policy: neither the context nor the sum behind it; the core runs once more."""
    plan = Plan(tp=1, pp=1, dp=64, zero=3, recompute="selective")
    by_name, by_part = (predict_train(job(stack=stack), cluster("nvidia-h100-sxm-80gb"), plan) for stack in ("xla", "deepspeed"))
    kept = [next(part.size_bytes for part in one.memory.parts if part.name == "activations") for one in (by_name, by_part)]

    assert kept[0] < 0.97 * kept[1]
    assert by_name.hfu is not None and by_name.mfu is not None and by_name.hfu.mid > by_name.mfu.mid


def test_transformer_engine_keeps_fp8_copies_of_trained_weights() -> None:
    plan = Plan(tp=2, pp=1, dp=32)
    wide, narrow = (parts(job(stack="megatron", precision=precision), plan)["buffers"] for precision in ("bf16", "fp8"))

    assert narrow - wide > 2 * 0.8 * job().workload.params / 2
    assert parts(job(stack="megatron", precision="fp8", finetune="lora"), plan)["buffers"] == 0.0


def test_what_the_driver_shows_is_more_than_what_the_allocator_counts() -> None:
    bytes_ = np.array([[40e9], [20e9], [1.0]])
    counts, shows = (peak_of(shipped_memory(), MemorySubject("-", "megatron", driver=on), bytes_, level=0.8) for on in (False, True))

    assert 61e9 < counts[0] < 64e9
    assert 1.05 < shows[0] / counts[0] < 1.25
    assert shows[1] > 0.0


def test_a_stack_that_nobody_measured_has_the_wider_interval() -> None:
    bytes_ = np.array([[10e9], [50e9], [1.0]])
    known, unknown = (peak_of(shipped_memory(), MemorySubject("-", stack), bytes_, level=0.8)[1] for stack in ("megatron", "nobody"))

    assert unknown > known


def test_too_few_peaks_leave_the_prior() -> None:
    assert fit_memory([]).rows == 0
    assert allocation_of(unfitted(), MemorySubject("-", "megatron")).live == pytest.approx(1.04)


@pytest.mark.slow
def test_peaks_of_a_source_move_the_posterior() -> None:
    """Peaks a fifth above what is counted raise the factor on what changes every step."""
    every = [case for case in pool(catalogue()) if case.family == "MooreThreads/SimuMax" and case.quantity == "memory"]
    more: list[Case] = [msgspec.structs.replace(case, measured=case.measured * 1.1) for case in every]
    fits = [TrainPredictor().fit_memory(cases) for cases in (every, more)]
    plain, raised = (allocation_of(found, MemorySubject("-", "megatron")) for found in fits)

    assert raised.live > plain.live
