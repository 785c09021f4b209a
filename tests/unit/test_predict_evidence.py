"""Evidence in the training prior: records of the catalogue, runs of one's own, honest levels, what would narrow most."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from predict_kit import cluster, job

from sapper.chips import catalogue
from sapper.chips.schema import Measured
from sapper.clusters.cluster import Cluster
from sapper.predict import Plan, predict_train
from sapper.predict.engine import shipped_fit
from sapper.predict.fit import NORMAL, Observation, Sample, condition
from sapper.predict.observe import catalogue_observations, measured
from sapper.predict.subject import constants_of, subject_of, train_book


def of_chip(where: Cluster, fraction: float | None) -> Cluster:
    """``where`` on a chip of the user's own, alike but for its one matmul record."""
    group = where.groups[0]
    record = Measured(metric="matmul", dtype="bf16", fraction=fraction, source="own run", grade="measured-here")
    own = msgspec.structs.replace(group.chip, id="own-chip", measured=(record,) if fraction else ())
    return msgspec.structs.replace(where, groups=(msgspec.structs.replace(group, chip=own),))


def test_a_users_chip_is_as_fast_as_its_own_matmul_record_says() -> None:
    plan, where = Plan(tp=8, dp=8), cluster()
    slow, fast = (predict_train(job(), of_chip(where, fraction), plan) for fraction in (0.4, 0.8))

    assert slow.step_time.mid > 1.25 * fast.step_time.mid
    assert fast.step_time.mid / predict_train(job(), of_chip(where, 0.8), plan).step_time.mid == pytest.approx(1.0)


def test_a_record_narrows_the_interval_of_a_chip_without_runs() -> None:
    plan, where = Plan(tp=8, dp=8), cluster()
    without, with_one = (predict_train(job(), of_chip(where, fraction), plan).step_time for fraction in (None, 0.7))

    assert with_one.high / with_one.low < without.high / without.low


def test_a_figure_above_the_peak_or_of_another_unit_is_no_observation() -> None:
    chips = catalogue().chips

    assert not any(record.dtype == "int8" for record in measured(chips["nvidia-a100-sxm-40gb"]))
    assert all(0.1 <= one.value <= 1.1 for one in catalogue_observations())


def test_three_runs_of_ones_own_move_the_prediction_onto_them() -> None:
    """Runs a third slower than predicted: what follows is much nearer to them, and surer."""
    question, where = job(), cluster()
    subject = subject_of(question, where.groups[0].chip)
    fitted = shipped_fit()
    eta, design, missing = fitted.eta([subject])
    base = float(constants_of(eta).matmul[0])

    def seconds(link: np.ndarray) -> np.ndarray:
        return np.asarray(1.0 / constants_of(link).matmul, float)

    runs = Sample(
        book=train_book(), subjects=[replace(subject, own=True)] * 3, time_s=seconds, measured_s=np.full(3, 1.33 / base),
        weight=np.ones(3), groups=["here"] * 3,
    )
    after = condition(fitted, sample=runs)
    now = 1.0 / float(constants_of(after.eta([replace(subject, own=True)])[0]).matmul[0])
    slope = np.where(np.arange(len(eta))[:, None] == 0, -1.0, 0.0)

    assert now == pytest.approx(1.33 / base, rel=0.1)
    _, new_design, new_missing = after.eta([replace(subject, own=True)])
    assert after.deviation(slope, design=new_design, missing=new_missing)[0] < fitted.deviation(slope, design=design, missing=missing)[0]


def test_evidence_of_one_constant_leaves_the_others_nearly_alone() -> None:
    subject = subject_of(job(), catalogue().chips["nvidia-h100-sxm-80gb"])
    fitted = shipped_fit()
    after = condition(fitted, [Observation(subject, "host_s", 0.5, 0.05)])
    before_c, after_c = (constants_of(one.eta([subject])[0]) for one in (fitted, after))

    assert float(after_c.host_s[0]) == pytest.approx(0.5, rel=0.1)
    assert float(after_c.matmul[0]) == pytest.approx(float(before_c.matmul[0]), rel=0.15)


def test_a_wider_level_is_a_wider_interval() -> None:
    fitted = shipped_fit()
    widths = [fitted.factor(level) for level in (0.5, 0.6, 0.8, 0.85, 0.9, 0.95)]

    assert widths == sorted(widths)
    assert fitted.factor(0.8) == pytest.approx(NORMAL[0.8], rel=1e-3)


def test_every_effect_behind_a_constant_is_explained() -> None:
    estimate = predict_train(job(), cluster(), Plan(tp=8, dp=8))
    keys = {use.key for use in estimate.used}

    assert {"efficiency matmul", "efficiency dispatch", "effect vendor NVIDIA", "effect stack megatron"} <= keys
    assert all("sd" in use.fact.source for use in estimate.used if use.key.startswith("effect"))


def test_the_narrowing_measurement_names_its_command() -> None:
    found = predict_train(job(), of_chip(cluster(), None), Plan(tp=8, dp=8)).narrowing

    assert found is not None and found.width_then < found.width_now
    assert found.command.startswith("sapper ")
    if found.what == "training-step":
        assert "calibrate" in found.command
    else:
        assert math.log1p(found.width_then) <= 0.5 * math.log1p(found.width_now) or "probe" in found.command


def test_no_chip_multiplies_faster_than_its_peak() -> None:
    """Whatever the effects of a chip, a vendor and a stack add up to: fp32 on A100 came to 1.3 of its peak without a cap."""
    subjects = [
        subject_of(job(precision=precision), chip)
        for chip in catalogue().chips.values() for precision in ("fp32", "bf16", "fp8") if precision in chip.peak_flops_per_s
    ]
    eta, _, _ = shipped_fit().eta(subjects)
    rates = constants_of(eta)

    assert all(float(share.max()) <= 1.0 for share in (rates.matmul, rates.low, rates.attention))


def test_a_record_at_the_peak_says_less_than_one_far_below_it() -> None:
    """Between 0.97 of a peak and 0.98 lies less of a measurement than of a peak's rounding."""
    matmul = train_book().constant["matmul"]

    assert matmul.stretch(0.5) == pytest.approx(1.0, abs=1e-3) and matmul.stretch(0.97) > 2.0
    assert matmul.to_link(1.05) == matmul.to_link(1.02) > matmul.to_link(0.9)


def test_kernels_measured_on_l4_hold_it_to_a_third_of_its_fp32_peak() -> None:
    """72 W do not feed the peak at boost clock: the table of kernels says 0.29 of it."""
    chip = catalogue().chips["nvidia-l4"]
    record = next(one for one in measured(chip) if one.metric == "gemm" and one.dtype == "fp32")
    eta, _, _ = shipped_fit().eta([subject_of(job(precision="fp32"), chip)])

    assert record.fraction == pytest.approx(0.29, abs=0.01)
    assert 0.2 < float(constants_of(eta).matmul[0]) < 0.45
