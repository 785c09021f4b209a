"""Fit of the efficiencies: maximum a posteriori by Gauss-Newton, with Student-t weights, and what remains uncertain.

Residuals are log(predicted step time / measured step time). Each row weighs its confidence over the square root of how
many rows share its chip and source, so that one long table does not outvote ten short ones. The posterior covariance is
that of the linearised model at the mode (Laplace approximation). The width of intervals is scaled by the errors that
leaving out each chip in turn makes (jackknife+ in spirit: Barber et al., arXiv:1905.02928), computed on the linearised
model, so that a left-out chip never lends its own error to its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.prior import Book, Subject

NOISE_SD = 0.06
"""Log scale. Run to run 2-4%, other submitter same system median 3.8%, max 11.3% (MLPerf; research/predict, section 3)."""
STUDENT = 4.0
ITERATIONS = 12
DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Fitted:
    """The posterior over the coefficients of a book."""

    book: Book
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
        design, offset, missing = self.book.design_of(subjects, self.columns)
        return np.einsum("cnq,q->cn", design, self.mean) + offset, design, missing

    def deviation(self, slope: Floats, *, design: Floats, missing: Floats) -> Floats:
        """Standard deviation of the log time of N rows, widened to honest coverage.

        Args:
            slope: C x N slopes of :func:`log_time`.
            design: C x N x Q, of :meth:`eta`.
            missing: F x N marks of unseen levels, of :meth:`eta`.
        """
        jacobian = np.einsum("cn,cnq->nq", slope, design)
        variance = np.einsum("nq,qr,nr->n", jacobian, self.covariance, jacobian) + self.noise_sd**2
        # an unseen level moves all constants of its family together, so their slopes add before they are squared
        variance = variance + (missing * (self.book.unseen_directions() @ slope) ** 2).sum(axis=0)
        return np.asarray(np.sqrt(variance) * self.widen, float)

    def freeze(self) -> dict[str, object]:
        """The posterior as JSON data, without its book."""
        lower = self.covariance[np.tril_indices(len(self.columns))]
        return {
            "columns": list(self.columns),
            "mean": [round(float(x), 5) for x in self.mean],
            "covariance_lower": [float(f"{x:.4g}") for x in lower],
            "noise_sd": round(self.noise_sd, 5),
            "widen": round(self.widen, 4),
            "rows": self.rows,
            "chips": list(self.chips),
        }

    @classmethod
    def thaw(cls, raw: Mapping[str, Any], book: Book) -> Fitted:
        """What :meth:`freeze` made of a posterior over ``book``."""
        size = len(raw["columns"])
        lower = np.zeros((size, size))
        lower[np.tril_indices(size)] = raw["covariance_lower"]
        return cls(
            book=book,
            columns=tuple(raw["columns"]),
            mean=np.array(raw["mean"]),
            covariance=lower + lower.T - np.diag(np.diag(lower)),
            noise_sd=raw["noise_sd"],
            widen=raw["widen"],
            rows=raw["rows"],
            chips=tuple(raw["chips"]),
        )


@dataclass(frozen=True)
class Sample:
    """Rows to fit: one subject and one measured time each, and the model that predicts the times."""

    book: Book
    subjects: Sequence[Subject]
    time_s: Callable[[Floats], Floats]
    """Constants on their link scale (C x N) -> predicted times of the N rows."""
    measured_s: Floats
    weight: Floats
    groups: Sequence[str]
    """Rows of one group share a table."""


def fit(sample: Sample) -> Fitted:
    """The posterior given ``sample``."""
    columns = sample.book.columns_of(sample.subjects)
    mean, deviation = sample.book.prior_of(columns)
    design, offset, _ = sample.book.design_of(sample.subjects, columns)
    weight = sample.weight * _balance(sample.groups)
    theta, precision = mean.copy(), np.diag(1.0 / deviation**2)
    target = np.log(sample.measured_s)
    hessian, jacobian, residual = precision, np.zeros((len(target), len(columns))), np.zeros(len(target))
    effective = weight / NOISE_SD**2
    for _ in range(ITERATIONS):
        eta = np.einsum("cnq,q->cn", design, theta) + offset
        predicted, slope = log_time(sample.time_s, eta)
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
    return Fitted(
        book=sample.book, columns=columns, mean=theta, covariance=covariance, noise_sd=noise, widen=widen, rows=len(target), chips=seen
    )


def log_time(time_s: Callable[[Floats], Floats], eta: Floats) -> tuple[Floats, Floats]:
    """(log time of length N, its slope over each constant's link scale, C x N)."""
    base = np.log(time_s(eta))
    slopes = []
    for index in range(len(eta)):
        moved = eta.copy()
        moved[index] += DIFFERENCE
        slopes.append((np.log(time_s(moved)) - base) / DIFFERENCE)
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
