"""Fit of the efficiencies: maximum a posteriori by Gauss-Newton, with Student-t weights, and what remains uncertain.

Residuals are log(predicted step time / measured step time). Each row weighs its confidence, less for each row that
shares its chip and source (``crowding``), so that one long table does not outvote ten short ones. The posterior covariance is
that of the linearised model at the mode (Laplace approximation). The width of intervals is scaled by the errors that
leaving out each chip in turn makes (jackknife+ in spirit: Barber et al., arXiv:1905.02928), computed on the linearised
model, so that a left-out chip never lends its own error to its interval; each level has its own quantile of them, since
their tails are not those of a normal variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from sapper.evidence import Grade
from sapper.predict.arrays import Floats, Ints
from sapper.predict.prior import OWN, Book, Subject

NOISE_SD = 0.06
"""Log scale. Run to run 2-4%, other submitter same system median 3.8%, max 11.3% (MLPerf; research/predict, section 3)."""
STUDENT = 4.0
ITERATIONS = 12
DIFFERENCE = 1e-4
USUAL_SD = 0.2
"""Log scale, of a matmul rate that nobody measured."""
BEARING = 0.01
"""Slope of a row's log time over a coefficient from which on the row counts as bearing on it."""
NORMAL = {0.5: 0.6745, 0.8: 1.2816, 0.9: 1.6449, 0.95: 1.9600}
"""Level -> half width of a normal variable's interval in standard deviations."""
WIDEST = 2.5
"""Most that held-out errors may widen an interval, against few of them."""
LEAST_WEIGHT = 1e-9
"""Of a row that is divided by its weight."""
FEWEST_ROWS, FEWEST_CHIPS = 30, 2
"""What a kind must have to be given tails of its own."""
MOST_TAIL = 6.0
"""Most that a kind's tails may exceed a normal variable's."""


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
    own_chips: tuple[str, ...] = ()
    """Chips that the user's own runs and probes bear on."""
    informed: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Coefficient -> (rows, measured constants) that bear on it."""
    tails: Mapping[float, float] = field(default_factory=lambda: dict(NORMAL))
    """Level -> half width of its interval in deviations, ascending."""
    tails_of: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    """The same for kinds of rows that scatter in their own way; kinds that it lacks have :attr:`tails`."""
    newest: str | None = None
    """Month (``2026-05``) of the newest software that a row ran on, which dates the constants."""

    def grounds(self, chip: str, *, purpose: str, stack: str) -> tuple[Grade, str]:
        """Grade of the constants for ``chip``, and in words what they rest on."""
        others = "" if chip in self.chips else ", not this one"
        source = f"fitted on {self.rows} published {purpose} rows ({len(self.chips)} chips{others}); stack {stack}"
        if chip in self.own_chips:
            return "measured-here", f"{source}; corrected by your own measurements"
        return ("measured-elsewhere" if chip in self.chips else "derived"), source

    def levels(self, family: str) -> tuple[str, ...]:
        """The levels of a family of effects that rows or records were seen of, such as the stacks."""
        return tuple(column.removeprefix(f"{family}:") for column in self.columns if column.startswith(f"{family}:"))

    def is_own(self, chip: str) -> bool:
        """Whether runs of the user's own on ``chip`` were seen: its subjects have levels of their own then."""
        return f"{OWN[0]}:{chip}" in self.columns

    def factor(self, level: float = 0.8, *, kind: str = "") -> float:
        """Half width of the interval of ``level`` for rows of ``kind`` in units of :meth:`deviation`, on the log scale.

        Between the levels of ``tails`` the ratio to a normal variable's half width is straight over the level.
        """
        tails = self.tails_of.get(kind, self.tails)
        known = sorted(tails)
        ratio = np.interp(level, known, [tails[one] / NORMAL[one] for one in known])
        return float(ratio * NormalDist().inv_cdf(0.5 + level / 2.0))

    def eta(self, subjects: Sequence[Subject]) -> tuple[Floats, Floats, Floats]:
        """(C x N link-scale constants, C x N x Q design, F x N marks of unseen levels)."""
        known = [subject.as_own() if self.is_own(subject.chip) else subject for subject in subjects]
        factored = self.book.factored(known, self.columns)
        return factored.eta(self.mean), factored.design, factored.missing

    def log_time(self, time_s: Callable[[Floats], Floats], eta: Floats) -> tuple[Floats, Floats]:
        """(log time of length N, C x N slopes for :meth:`deviation`)."""
        return log_time(time_s, eta, steps=reach(self.book))

    def deviation(self, slope: Floats, *, design: Floats, missing: Floats) -> Floats:
        """Standard deviation of the log time of N rows, widened to honest coverage.

        Args:
            slope: C x N slopes of :meth:`log_time`.
            design: C x N x Q, of :meth:`eta`.
            missing: F x N marks of unseen levels, of :meth:`eta`.
        """
        jacobian = np.einsum("cn,cnq->nq", slope, design)
        variance = ((jacobian @ self.covariance) * jacobian).sum(axis=1) + self.noise_sd**2
        # an unseen level moves all constants of its family together, so their slopes add before they are squared
        variance = variance + (missing * (self.book.unseen_directions() @ slope) ** 2).sum(axis=0)
        return np.asarray(np.sqrt(variance) * self.widen, float)

    def scatter(self, design: Floats, *, missing: Floats) -> Floats:
        """C x N: standard deviation of each constant on its link scale; arguments as of :meth:`deviation`."""
        unseen = (self.book.unseen_directions() ** 2).T @ missing
        known = np.stack([self._variance(one) for one in design])
        return np.asarray(np.sqrt(known + unseen), float)

    def _variance(self, rows: Floats) -> Floats:
        """N: variance of what ``rows`` (N x Q) make of the coefficients, of which most bear on other constants."""
        bearing = np.flatnonzero(rows.any(axis=0))
        own = rows[:, bearing]
        return np.asarray(((own @ self.covariance[np.ix_(bearing, bearing)]) * own).sum(axis=1), float)

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
            "informed": [list(self.informed.get(name, (0, 0))) for name in self.columns],
            "tails": _frozen(self.tails),
            "tails_of": {kind: _frozen(tails) for kind, tails in self.tails_of.items()},
            "newest": self.newest,
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
            informed={name: (rows, records) for name, (rows, records) in zip(raw["columns"], raw.get("informed", ()), strict=False)},
            tails=_thawed(raw.get("tails", NORMAL)),
            tails_of={kind: _thawed(tails) for kind, tails in raw.get("tails_of", {}).items()},
            newest=raw.get("newest"),
        )


def _frozen(tails: Mapping[float, float]) -> dict[str, float]:
    return {str(level): round(half, 4) for level, half in tails.items()}


def _thawed(raw: Mapping[Any, float]) -> dict[float, float]:
    return {float(level): half for level, half in raw.items()}


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
    crowding: float = 0.5
    """Power of a table's rows by which each of them weighs less: rows of one table share errors, but not all of them."""
    tolerance: float = 1.0
    """Factor on the spread of the residuals in the first iteration, halved in each further one until it is 1. Above 1, tables that the
    prior misses by far pull before Student's weights take them for outliers (graduated non-convexity, Blake and Zisserman 1987)."""
    gauge: Floats | None = None
    """Which rows set the width of the intervals, and by how much; None: all alike."""
    kinds: Sequence[str] = ()
    """Of each row: what scatters alike, so that intervals of a kind have tails of their own; none: all rows are of one kind."""


@dataclass(frozen=True)
class Observation:
    """A constant that somebody measured apart from any row: a matmul rate, a copy rate."""

    subject: Subject
    constant: str
    value: float
    """Natural, such as 0.8 of the dense peak."""
    sd: float
    """On the log scale: of the measurement, and of how a like measurement stands to the constant."""


@dataclass(frozen=True)
class _Linear:
    """Observations as a least-squares problem over the coefficients: design O x Q, values less what is known, weights."""

    design: Floats
    value: Floats
    weight: Floats

    @classmethod
    def of(cls, book: Book, observations: Sequence[Observation], columns: Sequence[str]) -> _Linear:
        """The problem that ``observations`` pose."""
        if not observations:
            return cls(np.zeros((0, len(columns))), np.zeros(0), np.zeros(0))
        design, offset, _ = book.design_of([one.subject for one in observations], columns)
        place = [book.constants.index(one.constant) for one in observations]
        rows = np.arange(len(observations))
        values = np.array([book.constant[one.constant].to_link(one.value) for one in observations])
        weights = np.array([(one.sd * book.constant[one.constant].stretch(one.value)) ** -2.0 for one in observations])
        return cls(design[place, rows], values - offset[place, rows], weights)

    @property
    def hessian(self) -> Floats:
        """Q x Q."""
        return np.asarray(self.design.T @ (self.weight[:, None] * self.design), float)

    def pull(self, theta: Floats) -> Floats:
        """Downhill gradient at ``theta``."""
        return np.asarray(self.design.T @ (self.weight * (self.value - self.design @ theta)), float)


@dataclass(frozen=True)
class _Mode:
    """Where Gauss-Newton ends."""

    theta: Floats
    hessian: Floats
    jacobian: Floats
    reaching: Floats
    """The same over the steps of :func:`reach`."""
    residual: Floats
    effective: Floats
    """Weight of each row in the end."""


def _climb(
    sample: Sample,
    columns: Sequence[str],
    weight: Floats,
    *,
    start: Floats,
    precision: Floats,
    seen: _Linear,
    noise: float | None = None,
) -> _Mode:
    """The mode of a Gaussian prior (``start``, ``precision``) times the rows and the observations.

    ``noise`` is a row's standard deviation; None: that of the residuals, of which there must be many.
    """
    factored = sample.book.factored(sample.subjects, columns)
    target = np.log(sample.measured_s)
    theta, fixed = start.copy(), precision + seen.hessian
    for turn in range(ITERATIONS):
        predicted, slope = log_time(sample.time_s, factored.eta(theta))
        jacobian = factored.jacobian(slope)
        residual = target - predicted
        spread = noise or max(NOISE_SD, 1.4826 * float(np.median(np.abs(residual)))) * max(sample.tolerance * 0.5**turn, 1.0)
        effective = weight * (STUDENT + 1) / (STUDENT + (residual / spread) ** 2) / spread**2
        weighed = np.sqrt(effective)[:, None] * jacobian
        hessian = weighed.T @ weighed + fixed
        step = np.linalg.solve(hessian, jacobian.T @ (effective * residual) + seen.pull(theta) - precision @ (theta - start))
        theta = theta + np.clip(step, -0.5, 0.5)
        if float(np.abs(step).max()) < 1e-3 and sample.tolerance * 0.5**turn <= 1.0:
            break
    _, slope = log_time(sample.time_s, factored.eta(theta), steps=reach(sample.book))
    return _Mode(theta, hessian, jacobian, factored.jacobian(slope), residual, effective)


def fit(sample: Sample, observations: Sequence[Observation] = ()) -> Fitted:
    """The posterior given the rows of ``sample`` and what was measured of single constants."""
    columns = sample.book.columns_of([*sample.subjects, *(one.subject for one in observations)])
    mean, deviation = sample.book.prior_of(columns)
    seen = _Linear.of(sample.book, observations, columns)
    weight = sample.weight * _balance(sample.groups, sample.crowding)
    mode = _climb(sample, columns, weight, start=mean, precision=np.diag(1.0 / deviation**2), seen=seen)
    noise = float(np.clip(_quantile(np.abs(mode.residual), weight, 0.8) / NORMAL[0.8], 0.03, 0.25))
    covariance = _inverse(mode.hessian)
    widen, tails, tails_of = _calibrated(sample, mode, covariance=covariance, noise=noise)
    return Fitted(
        book=sample.book, columns=columns, mean=mode.theta, covariance=covariance, noise_sd=noise,
        widen=widen, rows=len(mode.residual), chips=tuple(sorted({subject.chip for subject in sample.subjects})), tails=tails,
        tails_of=tails_of,
        informed=_informed(columns, mode.jacobian, seen.design),
    )


def _informed(columns: Sequence[str], jacobian: Floats, records: Floats) -> dict[str, tuple[int, int]]:
    """How many rows and records bear on each coefficient."""
    rows = (np.abs(jacobian) > BEARING).sum(axis=0)
    return {name: (int(rows[i]), int(np.count_nonzero(records[:, i]))) for i, name in enumerate(columns)}


def condition(fitted: Fitted, observations: Sequence[Observation] = (), sample: Sample | None = None) -> Fitted:
    """``fitted`` with further evidence: measured constants, and runs (of weight 1: as sure as the fit's noise says).

    What the evidence touches narrows and moves, however much the fit had seen; the calibration of the tails stays. Runs of
    one's own have subjects with a level that says so, which is free to depart from what others saw.
    """
    subjects = [*(one.subject for one in observations), *(sample.subjects if sample is not None else ())]
    wider = _extended(fitted, subjects)
    seen = _Linear.of(wider.book, observations, wider.columns)
    precision = _inverse(wider.covariance)
    if sample is None:
        covariance = _inverse(precision + seen.hessian)
        return replace(wider, mean=wider.mean + covariance @ seen.pull(wider.mean), covariance=covariance)
    mode = _climb(sample, wider.columns, sample.weight, start=wider.mean, precision=precision, seen=seen, noise=fitted.noise_sd)
    chips = tuple(sorted({*wider.chips, *(subject.chip for subject in sample.subjects)}))
    return replace(
        wider, mean=mode.theta, covariance=_inverse(mode.hessian), rows=wider.rows + len(mode.residual), chips=chips
    )


def _extended(fitted: Fitted, subjects: Sequence[Subject]) -> Fitted:
    """``fitted`` over the coefficients of ``subjects`` too; new ones have their prior."""
    new = [name for name in fitted.book.columns_of(subjects) if name not in set(fitted.columns)]
    if not new:
        return fitted
    mean, deviation = fitted.book.prior_of(new)
    size = len(fitted.columns)
    covariance = np.diag(np.concatenate([np.zeros(size), deviation**2]))
    covariance[:size, :size] = fitted.covariance
    return replace(fitted, columns=(*fitted.columns, *new), mean=np.concatenate([fitted.mean, mean]), covariance=covariance)


def log_time(time_s: Callable[[Floats], Floats], eta: Floats, *, steps: Floats | None = None) -> tuple[Floats, Floats]:
    """(log time of length N, its slope over each constant's link scale, C x N).

    Args:
        time_s: Constants on their link scale -> times.
        eta: C x N.
        steps: Of each constant, over which its slope is taken; None: small ones.
    """
    base = np.log(time_s(eta))
    slopes = []
    for index, step in enumerate(np.full(len(eta), DIFFERENCE) if steps is None else steps):
        moved = eta.copy()
        moved[index] += step
        slopes.append((np.log(time_s(moved)) - base) / step)
    return base, np.stack(slopes)


def reach(book: Book) -> Floats:
    """Steps of :func:`log_time` for what an interval needs. A rate that is capped near its peak cannot rise but it can fall, and its
    slope at the mode tells of neither: it is taken over one usual deviation downwards."""
    return np.array([-USUAL_SD if entry.link == "capped" else DIFFERENCE for entry in book.constant.values()])


def _inverse(matrix: Floats) -> Floats:
    return np.asarray(np.linalg.inv(matrix), float)


def _balance(groups: Sequence[str], crowding: float) -> Floats:
    names, counts = np.unique(np.array(groups), return_counts=True)
    size = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return np.array([size[g] ** -crowding for g in groups])


def _calibrated(
    sample: Sample, mode: _Mode, *, covariance: Floats, noise: float
) -> tuple[float, dict[float, float], dict[str, dict[float, float]]]:
    """(factor that makes the 80% intervals of held-out chips hold 80%, half widths of all levels after it, and by kind)."""
    score, weight = _held_out(sample, mode, covariance=covariance, noise=noise)
    gauge = weight if sample.gauge is None or not sample.gauge.any() else weight * sample.gauge
    widen = float(np.clip(_quantile(score, gauge, 0.8) / NORMAL[0.8], 0.6, WIDEST))
    half = _half_widths(score / widen, gauge, most=2.0)
    half[0.8] = NORMAL[0.8]
    chips = np.array([subject.chip for subject in sample.subjects])
    kinds = np.array(sample.kinds)
    tails_of = {}
    for kind in np.unique(kinds).tolist():
        own = kinds == kind
        if own.sum() >= FEWEST_ROWS and len(np.unique(chips[own])) >= FEWEST_CHIPS:
            tails_of[kind] = _ascending(_half_widths(score[own] / widen, weight[own], most=MOST_TAIL))
    return widen, _ascending(half), tails_of


def _half_widths(score: Floats, weight: Floats, *, most: float) -> dict[float, float]:
    """Level -> half width that holds that share of the scores, between 0.8 and ``most`` times a normal variable's."""
    return {level: float(np.clip(_quantile(score, weight, level), 0.8 * NORMAL[level], most * NORMAL[level])) for level in NORMAL}


def _ascending(half: Mapping[float, float]) -> dict[float, float]:
    """Half widths that no higher level undercuts."""
    levels = sorted(half)
    widths = np.maximum.accumulate([half[level] for level in levels])
    return {level: float(width) for level, width in zip(levels, widths, strict=True)}


def _quantile(values: Floats, weight: Floats, level: float) -> float:
    """Weighted quantile."""
    order = np.argsort(values)
    share = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(share, level)), len(values) - 1)])


def _by_chip(sample: Sample) -> list[Ints]:
    """Rows of each chip."""
    chips = np.array([subject.chip for subject in sample.subjects])
    return [np.flatnonzero(chips == chip) for chip in np.unique(chips)]


def _held_out(sample: Sample, mode: _Mode, *, covariance: Floats, noise: float) -> tuple[Floats, Floats]:
    """(|error| over predicted deviation of each row when its chip is left out, weight of the row).

    Without the rows J of weights w the covariance is S + S J' (1/w - J S J')^-1 J S (Woodbury), of which what the rows make of it is
    needed alone: matrices of the chip's rows, not of the coefficients.
    """
    score, weight = np.zeros(len(mode.residual)), np.zeros(len(mode.residual))
    for rows in _by_chip(sample):
        part, reaching, effective = mode.jacobian[rows], mode.reaching[rows], mode.effective[rows]
        spread = part @ covariance
        known, across = spread @ part.T, spread @ reaching.T
        forgotten = np.linalg.inv(np.diag(1.0 / np.maximum(effective, LEAST_WEIGHT)) - known)
        cover = known + known @ forgotten @ known
        variance = ((reaching @ covariance) * reaching).sum(axis=1) + (across * (forgotten @ across)).sum(axis=0)
        score[rows] = np.abs(mode.residual[rows] + cover @ (effective * mode.residual[rows])) / np.sqrt(variance + noise**2)
        weight[rows] = 1.0 / np.sqrt(len(rows))
    return score, weight
