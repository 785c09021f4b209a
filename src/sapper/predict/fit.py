"""Fit of the efficiencies: maximum a posteriori by Gauss-Newton, with Student-t weights, and what remains uncertain.

Residuals are log(predicted step time / measured step time). Each row weighs its confidence over the square root of how
many rows share its chip and source, so that one long table does not outvote ten short ones. The posterior covariance is
that of the linearised model at the mode (Laplace approximation). The width of intervals is scaled by the errors that
leaving out each chip in turn makes (jackknife+ in spirit: Barber et al., arXiv:1905.02928), computed on the linearised
model, so that a left-out chip never lends its own error to its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.combine import step_time
from sapper.predict.features import Features
from sapper.predict.prior import CONSTANTS, Subject, columns_of, constants_of, design_of, prior_of

NOISE_SD = 0.06
"""Log scale. Run to run 2-4%, other submitter same system median 3.8%, max 11.3% (MLPerf; research/predict, section 3)."""
STUDENT = 4.0
ITERATIONS = 12
DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Fitted:
    """The posterior over coefficients."""

    columns: tuple[str, ...]
    mean: Floats
    covariance: Floats
    noise_sd: float
    """Of one row, what no coefficient explains."""
    widen: float
    """Factor on the standard deviation that makes held-out chips' 80% intervals hold 80%."""
    rows: int
    chips: tuple[str, ...]
    """Chips whose rows were seen."""

    def eta(self, subjects: Sequence[Subject]) -> tuple[Floats, Floats, Floats]:
        """(C x N link-scale constants, C x N x Q design, F x N marks of unseen levels)."""
        design, offset, missing = design_of(subjects, self.columns)
        return np.einsum("cnq,q->cn", design, self.mean) + offset, design, missing


@dataclass(frozen=True)
class Sample:
    """Rows to fit: one subject, one set of features and one measured step time each."""

    subjects: Sequence[Subject]
    features: Features
    measured_s: Floats
    weight: Floats
    groups: Sequence[str]
    """Rows of one group share a table."""


def fit(sample: Sample) -> Fitted:
    """The posterior given ``sample``."""
    columns = columns_of(sample.subjects)
    mean, deviation = prior_of(columns)
    design, offset, _ = design_of(sample.subjects, columns)
    weight = sample.weight * _balance(sample.groups)
    theta, precision = mean.copy(), np.diag(1.0 / deviation**2)
    target = np.log(sample.measured_s)
    hessian, jacobian, residual = precision, np.zeros((len(target), len(columns))), np.zeros(len(target))
    effective = weight / NOISE_SD**2
    for _ in range(ITERATIONS):
        eta = np.einsum("cnq,q->cn", design, theta) + offset
        predicted, slope = log_time(sample.features, eta)
        jacobian = np.einsum("cn,cnq->nq", slope, design)
        residual = target - predicted
        spread = max(NOISE_SD, 1.4826 * float(np.median(np.abs(residual))))
        effective = weight * (STUDENT + 1) / (STUDENT + (residual / spread) ** 2) / spread**2
        hessian = jacobian.T @ (effective[:, None] * jacobian) + precision
        step = np.linalg.solve(hessian, jacobian.T @ (effective * residual) - precision @ (theta - mean))
        theta = theta + np.clip(step, -0.5, 0.5)
        if float(np.abs(step).max()) < 1e-3:
            break
    noise = float(np.clip(1.4826 * np.median(np.abs(residual)), 0.03, 0.25))
    covariance = np.asarray(np.linalg.inv(hessian), float)
    widen = _widen(sample, jacobian, residual, effective, hessian, covariance, noise)
    seen = tuple(sorted({subject.chip for subject in sample.subjects}))
    return Fitted(columns=columns, mean=theta, covariance=covariance, noise_sd=noise, widen=widen, rows=len(target), chips=seen)


def log_time(features: Features, eta: Floats) -> tuple[Floats, Floats]:
    """(log step time of length N, its slope over each constant's link scale, C x N)."""
    base = np.log(step_time(features, constants_of(eta)))
    slopes = []
    for index in range(len(CONSTANTS)):
        moved = eta.copy()
        moved[index] += DIFFERENCE
        slopes.append((np.log(step_time(features, constants_of(moved))) - base) / DIFFERENCE)
    return base, np.stack(slopes)


def _balance(groups: Sequence[str]) -> Floats:
    names, counts = np.unique(np.array(groups), return_counts=True)
    size = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return np.array([1.0 / np.sqrt(size[g]) for g in groups])


def _widen(
    sample: Sample, jacobian: Floats, residual: Floats, effective: Floats, hessian: Floats, covariance: Floats, noise: float
) -> float:
    """80% quantile of held-out |error| over predicted deviation, against that of a normal variable."""
    chips = np.array([subject.chip for subject in sample.subjects])
    weights, scores = [], []
    for chip in np.unique(chips):
        rows = np.flatnonzero(chips == chip)
        part = jacobian[rows]
        without = hessian - part.T @ (effective[rows, None] * part)
        shift = np.linalg.solve(without, part.T @ (effective[rows] * residual[rows]))
        held_out = residual[rows] + part @ shift
        cover = np.linalg.inv(without)
        deviation = np.sqrt(np.einsum("nq,qr,nr->n", part, cover, part) + noise**2)
        scores.append(np.abs(held_out) / deviation)
        weights.append(np.full(len(rows), 1.0 / np.sqrt(len(rows))))
    score, weight = np.concatenate(scores), np.concatenate(weights)
    order = np.argsort(score)
    share = np.cumsum(weight[order]) / weight.sum()
    quantile = float(score[order][np.searchsorted(share, 0.8)])
    return float(np.clip(quantile / 1.2816, 0.6, 2.5))
