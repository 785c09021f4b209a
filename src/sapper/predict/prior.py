"""Hierarchical priors over efficiencies, and the linear design that ties them to subjects.

A *book* is the list of constants of one purpose (training, serving) with their priors. Every constant is, on its link scale
(log, logit, or a logarithm that ends at the peak), a sum of a mean, of slopes over covariates and of group effects:
architecture class, vendor, chip, software stack, source. Effects have a Gaussian prior with mean 0, so a chip or stack that no
measurement has touched keeps its class's mean and the wider interval. This is a linear mixed model (Laird & Ware 1982)
linearised around its posterior mode.

Shape legend: C = constants, N = subjects, Q = coefficients, F = families of effects.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from sapper.predict.arrays import Floats

CAP_POWER = 16.0
"""Of a capped link: effects that would add up to 0.8 of the peak give 0.80, to 0.9 of it 0.89, to 1.3 of it 1.00."""
MOST_SHARE = 0.98
"""A share that was measured nearer to 1, or above it where a peak is understated, says no more than this."""


class _Link(NamedTuple):
    """How a constant's natural value stands to the scale on which effects add up."""

    natural: Callable[[Floats], Floats]
    to_link: Callable[[float], float]
    stretch: Callable[[float], float]
    """What the link scale gains for each unit of the natural value's logarithm, at a natural value."""


LINKS: Mapping[str, _Link] = {
    "log": _Link(natural=np.exp, to_link=np.log, stretch=lambda _: 1.0),
    "logit": _Link(
        natural=lambda eta: 1.0 / (1.0 + np.exp(-eta)), to_link=lambda share: np.log(share / (1.0 - share)),
        stretch=lambda share: 1.0 / (1.0 - share),
    ),
    "capped": _Link(
        natural=lambda eta: (1.0 + np.exp(-CAP_POWER * eta)) ** (-1.0 / CAP_POWER),
        to_link=lambda share: -np.log(share**-CAP_POWER - 1.0) / CAP_POWER,
        stretch=lambda share: 1.0 / (1.0 - share**CAP_POWER),
    ),
}


class ConstantPrior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prior of one constant."""

    value: float
    sd: float
    link: str
    """``log`` for rates and times, ``logit`` for shares, ``capped`` for rates that no chip exceeds: as ``log`` far below 1."""
    why: str

    @property
    def mean(self) -> float:
        """On the link scale."""
        return self.to_link(self.value)

    def to_link(self, value: float) -> float:
        """A natural value on the link scale."""
        return float(LINKS[self.link].to_link(self._inside(value)))

    def stretch(self, value: float) -> float:
        """What the link scale gains for each unit of log(value): by this a measurement's error grows near a bound."""
        return float(LINKS[self.link].stretch(self._inside(value)))

    def _inside(self, value: float) -> float:
        return value if self.link == "log" else min(value, MOST_SHARE)


class SlopePrior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prior of a covariate's slope."""

    value: float
    """Mean: what the constant's link scale gains for each unit of the covariate."""
    sd: float
    on: tuple[str, ...]
    why: str


class EffectPrior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prior of one family of effects: the standard deviation of its levels on the constants that it moves."""

    sd: float
    on: tuple[str, ...]
    value: float = 0.0
    """Mean of a level: 0 where levels stand against each other, else what the one level ``yes`` does."""


OWN = ("own", "own_link", "own_host")
"""Effects of a chip that the user measured: how far it may depart from what others saw of its kind."""


class Subject(Protocol):
    """Who computes: what the constants of a book depend on."""

    @property
    def chip(self) -> str:
        """Catalogue id."""

    def effects(self) -> Mapping[str, str]:
        """Effect family -> level."""

    def as_own(self) -> Subject:
        """The same, of a chip that the user measured: with the levels of :data:`OWN`."""

    def offsets(self) -> Mapping[str, float]:
        """Constant -> what is known to add to its link scale, such as the log of a measured fraction."""

    def covariates(self) -> Mapping[str, float]:
        """Slope -> value of its covariate."""


@dataclass(frozen=True)
class Factored:
    """A linear design whose coefficients each have one value for a subject, whatever constant they bear on."""

    bears: Floats
    """C x Q: 1 where a coefficient bears on a constant."""
    values: Floats
    """N x Q: what a coefficient is multiplied by for a subject."""
    offset: Floats
    """C x N: what is known to add to a constant."""
    missing: Floats
    """F x N: 1 where a subject's level of an effect has no coefficient."""

    @property
    def design(self) -> Floats:
        """C x N x Q."""
        return self.bears[:, None, :] * self.values[None]

    def eta(self, theta: Floats) -> Floats:
        """C x N: the constants on their link scale at coefficients ``theta``."""
        return np.asarray((self.bears * theta) @ self.values.T + self.offset, float)

    def jacobian(self, slope: Floats) -> Floats:
        """N x Q: slopes over the coefficients from those over the constants, C x N."""
        return np.asarray((slope.T @ self.bears) * self.values, float)


class Book(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """The constants of one purpose with their priors, as a TOML file under ``data/`` holds them.

    The order of ``constant`` in the file is the order of the constants everywhere.
    """

    constant: dict[str, ConstantPrior]
    slope: dict[str, SlopePrior]
    effect: dict[str, EffectPrior]

    @functools.cached_property
    def constants(self) -> tuple[str, ...]:
        """Names of the constants, in order."""
        return tuple(self.constant)

    def natural(self, eta: Floats) -> dict[str, Floats]:
        """Constants from their link scale; ``eta`` is C x ... in the order of ``constants``."""
        return {name: LINKS[entry.link].natural(eta[c]) for c, (name, entry) in enumerate(self.constant.items())}

    def columns_of(self, subjects: Sequence[Subject]) -> tuple[str, ...]:
        """Names of the coefficients that ``subjects`` need: every constant, every slope, every effect level."""
        levels = sorted({f"{family}:{level}" for subject in subjects for family, level in subject.effects().items()})
        return (*self.constants, *self.slope, *levels)

    def prior_of(self, columns: Sequence[str]) -> tuple[Floats, Floats]:
        """(means, standard deviations) of the coefficients."""
        priors = [self.constant.get(c) or self.slope.get(c) or self.effect[c.split(":")[0]] for c in columns]
        means = [prior.mean if isinstance(prior, ConstantPrior) else prior.value for prior in priors]
        return np.array(means), np.array([prior.sd for prior in priors])

    def design_of(self, subjects: Sequence[Subject], columns: Sequence[str]) -> tuple[Floats, Floats, Floats]:
        """The linear design: (C x N x Q design, C x N offsets, F x N marks of effects that ``columns`` lacks)."""
        factored = self.factored(subjects, columns)
        return factored.design, factored.offset, factored.missing

    def factored(self, subjects: Sequence[Subject], columns: Sequence[str]) -> Factored:
        """The linear design in the two factors that it is the product of."""
        place = {name: index for index, name in enumerate(columns)}
        rows = {name: index for index, name in enumerate(self.constants)}
        families = {name: index for index, name in enumerate(self.effect)}
        bears = np.zeros((len(rows), len(columns)))
        for name, index in place.items():
            on = (name,) if name in rows else (self.slope.get(name) or self.effect[name.split(":")[0]]).on
            bears[[rows[one] for one in on], index] = 1.0
        values = np.zeros((len(subjects), len(columns)))
        values[:, [place[name] for name in rows]] = 1.0
        offset = np.zeros((len(rows), len(subjects)))
        missing = np.zeros((len(families), len(subjects)))
        for n, subject in enumerate(subjects):
            for name, value in subject.offsets().items():
                offset[rows[name], n] = value
            for slope, value in subject.covariates().items():
                values[n, place[slope]] = value
            for family, level in subject.effects().items():
                column = place.get(f"{family}:{level}")
                if column is None:
                    missing[families[family], n] = 1.0
                else:
                    values[n, column] = 1.0
        return Factored(bears=bears, values=values, offset=offset, missing=missing)

    def eta_of_prior(self, subject: Subject) -> Floats:
        """Constants of ``subject`` on the link scale before any measurement; C x 1."""
        columns = self.columns_of([subject])
        mean, _ = self.prior_of(columns)
        design, offset, _ = self.design_of([subject], columns)
        return np.asarray(np.einsum("cnq,q->cn", design, mean) + offset, float)

    def unseen_directions(self) -> Floats:
        """F x C: what an unseen level of each family does to the constants, one standard deviation of it."""
        return np.array([[effect.sd if name in effect.on else 0.0 for name in self.constants] for effect in self.effect.values()])


@functools.cache
def book(name: str) -> Book:
    """The book that ships as ``data/<name>.toml``: ``prior`` for training."""
    text = resources.files(__package__).joinpath("data", f"{name}.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), Book)
