"""ServePredictor: answers serving cases, fitted on the cases that it is given and on nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sapper.errors import SapperError
from sapper.predict.arrays import Floats
from sapper.predict.fit import Fitted, Observation, Sample, condition, fit, log_time
from sapper.predict.serve.ask import Asked, ask, tdp_of
from sapper.predict.serve.posterior import Posterior, shipped_posterior
from sapper.predict.serve.power import NOISE_SD, Draw
from sapper.predict.serve.records import records
from sapper.predict.serve.rows.case import ServeCase
from sapper.predict.serve.subject import ServeSubject, constants, factors_of, serve_book

Answer = tuple[float, float, float]
"""(middle, low, high) in the row's own metric."""
TIMES = ("e2e", "ttft", "tpot", "forward", "output_rate")
TRUST = {"ttft": 0.3}
"""Weight of a quantity's rows: the first token of a loaded engine scatters three times as much as the others."""
MOST_POWER = 300
"""Runs that the power model is fitted on."""
GAUGE = ("tpot", "e2e")
"""Quantities whose held-out errors set the width of the intervals; each kind of row has tails of its own beside."""
TOLERANCE = 8.0
"""Of the first iteration of a fit: whole tables lie a factor of three from the prior."""
MOST_ROWS = 4000
"""Rows of one fit: of a larger pool every n-th of each group is taken."""


@dataclass
class ServePredictor:
    """Predicts serving cases; ``fit`` returns a new one."""

    posterior: Posterior | None = None
    """None: the posterior that ships."""
    level: float = 0.8
    """Probability that the intervals state."""
    asked: dict[tuple[str, str], Asked | SapperError] = field(default_factory=dict)
    """By row and quantity; shared between the fits of one validation, since asking does not depend on the fit."""

    def fit(self, cases: Sequence[ServeCase]) -> ServePredictor:
        """A predictor whose constants come from ``cases`` alone."""
        _, sample = self.sample(cases)
        fitted = fit(sample, records({case.chip_id for case in cases}))
        draw = self._draw(cases, fitted)
        return replace(self, posterior=Posterior(fitted=fitted, draw=draw))

    def _draw(self, cases: Sequence[ServeCase], fitted: Fitted) -> Draw:
        """The power model on those of ``cases`` whose chips' power was measured."""
        measured = [case for case in cases if case.quantity == "energy_per_token" and case.power_w and "system-power" not in case.tags]
        measured = measured[:: max(1, len(measured) // MOST_POWER)]
        found = [(case, ready) for case in measured if isinstance(ready := self.ask(case), Asked)]
        if not found:
            return Draw()
        eta, _, _ = fitted.eta([ready.subject for _, ready in found])
        seconds = factors_of(eta) * np.stack([ready.bundles[0] for _, ready in found], axis=1)
        shares = [(case.power_w or 0.0) / tdp_of(case) for case, _ in found]
        return Draw.fit(seconds, shares)

    def sample(self, cases: Sequence[ServeCase]) -> tuple[list[ServeCase], Sample]:
        """The cases of time that can be priced, of long tables an even selection; and the same ready to fit."""
        cases = [case for case in cases if case.quantity in TIMES]
        kept = thinned([_table(case) for case in cases], MOST_ROWS)
        found = [(case, ready) for case in (cases[i] for i in kept) if isinstance(ready := self.ask(case), Asked)]
        bundles = np.stack([ready.bundles for _, ready in found], axis=2)
        sample = Sample(
            book=serve_book(), subjects=[ready.subject for _, ready in found], time_s=lambda eta: time_s(bundles, eta),
            measured_s=np.array([ready.measured_s for _, ready in found]),
            weight=np.array([case.weight * TRUST.get(case.quantity, 1.0) for case, _ in found]), groups=[_table(case) for case, _ in found],
            tolerance=TOLERANCE, gauge=np.array([float(_kind(case) in GAUGE) for case, _ in found]),
            kinds=[_kind(case) for case, _ in found],
        )
        return [case for case, _ in found], sample

    @property
    def constants(self) -> Fitted:
        """What answers: the constants of ``posterior``, or of the one that ships."""
        return (self.posterior or shipped_posterior()).fitted

    def conditioned(self, cases: Sequence[ServeCase], observations: Sequence[Observation] = ()) -> ServePredictor:
        """This predictor with ``cases`` and measured constants as further evidence."""
        timed = [case for case in cases if case.quantity in TIMES and isinstance(self.ask(case), Asked)]
        own: Sample | None = None
        if timed:
            _, sample = self.sample(timed)
            own = replace(sample, subjects=[subject.as_own() for subject in sample.subjects])
        fitted = condition(self.constants, observations, own)
        return replace(self, posterior=replace(self.posterior or shipped_posterior(), fitted=fitted))

    def subjects(self, cases: Sequence[ServeCase]) -> list[ServeSubject]:
        """Who serves, for each case that can be priced."""
        return [ready.subject for case in cases if isinstance(ready := self.ask(case), Asked)]

    def predict(self, cases: Sequence[ServeCase]) -> list[Answer | SapperError]:
        """Middle, low and high of each case in its own metric, or why there is none."""
        ready = [self.ask(case) for case in cases]
        good = [i for i, one in enumerate(ready) if isinstance(one, Asked)]
        answers: list[Answer | SapperError] = list(ready)  # type: ignore[arg-type]
        if not good:
            return answers
        posterior = self.posterior or shipped_posterior()
        fitted = posterior.fitted
        asked = [one for one in ready if isinstance(one, Asked)]
        eta, design, missing = fitted.eta([one.subject for one in asked])
        bundles = np.stack([one.bundles for one in asked], axis=2)
        log_s, slope = log_time(lambda eta: time_s(bundles, eta), eta)
        scatter = fitted.scatter(design, missing=missing)
        falls, rises = (fitted.deviation(chords(slope, sign * scatter), design=design, missing=missing) for sign in (-1.0, 1.0))
        draws = posterior.draw.share(factors_of(eta) * bundles[0])
        for place, one, log_mid, sides, draw in zip(good, asked, log_s, zip(falls, rises, strict=True), draws, strict=True):
            half = fitted.factor(self.level, kind=_kind(cases[place]))
            drawn = NOISE_SD / float(draw) if one.watts else 0.0  # of the log of the share
            down, up = (half * math.hypot(float(sd), drawn) for sd in sides)
            times = (math.exp(float(log_mid) + shift) for shift in (0.0, -down, up))
            ends = [cases[place].value_of(one.si_of(seconds, float(draw))) for seconds in times]
            answers[place] = (ends[0], min(ends[1:]), max(ends[1:]))
        return answers

    def ask(self, case: ServeCase) -> Asked | SapperError:
        """Price ``case`` once."""
        if _key(case) not in self.asked:
            try:
                self.asked[_key(case)] = ask(case)
            except SapperError as error:
                self.asked[_key(case)] = error
        return self.asked[_key(case)]


def _kind(case: ServeCase) -> str:
    """What scatters alike: a quantity, for the first token that of an engine, and whether prompts are read by workers of their own,
    of which sources say little."""
    named = f"{case.quantity} {case.job.stack}" if case.quantity == "ttft" else case.quantity
    return f"{named} apart" if case.disaggregated else named


def _key(case: ServeCase) -> tuple[str, str]:
    """A row may put several questions."""
    return case.row_id, case.quantity


def time_s(bundles: Floats, eta: Floats) -> Floats:
    """Seconds of N questions from their bundles (3 x K x N) and the constants on their link scale (C x N)."""
    factor, queue, burst = constants(eta)
    own, queued, first = (factor * bundles).sum(axis=1)
    return np.asarray(own + queue * queued + burst * first, float)


def chords(slope: Floats, scatter: Floats) -> Floats:
    """Slopes of the log time over whole deviations of each constant, C x N, where the slope at the point misleads: a term that
    is a tenth of the time and uncertain by a factor of ten can double it, and cannot halve it.

    Args:
        slope: Of :func:`~sapper.predict.fit.log_time`; its size is the share of the time that the constant scales.
        scatter: Deviations of the constants; positive for slower ends, negative for faster ones.
    """
    share = np.minimum(np.abs(slope), 1.0)
    reach = np.where(scatter == 0.0, 1.0, scatter)
    return np.asarray(np.sign(slope) * np.where(scatter == 0.0, share, np.log1p(share * np.expm1(reach)) / reach), float)


def _table(case: ServeCase) -> str:
    """Rows of one table lean on the same conditions."""
    return f"{case.chip_id}|{case.family}|{case.job.stack}|{case.quantity}"


def thinned(groups: Sequence[str], most: int) -> list[int]:
    """Indices of at most about ``most`` rows: whole small groups, of large ones evenly spaced rows, so that the largest give
    most. Deterministic."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    if len(groups) <= most:
        return list(range(len(groups)))
    low, high = 1, max(len(rows) for rows in members.values())
    while low < high:  # the greatest cap that keeps the sum below the limit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(len(rows), middle) for rows in members.values()) <= most else (low, middle - 1)
    kept = []
    for rows in members.values():
        kept += [rows[i * len(rows) // min(len(rows), low)] for i in range(min(len(rows), low))]
    return sorted(kept)
