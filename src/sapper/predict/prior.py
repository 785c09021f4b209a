"""The hierarchical prior over efficiencies, and the linear design that ties it to subjects.

Every constant of combine.py is, on its link scale (log or logit), a sum of a mean and of group effects: architecture
class, vendor, chip, software stack, source. Effects have a Gaussian prior with mean 0, so a chip or stack that no
measurement has touched keeps the class's mean and the wider interval. This is a linear mixed model (Laird & Ware 1982)
linearised around its posterior mode.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import resources

import msgspec
import numpy as np

from sapper.chips.schema import Chip
from sapper.predict.arrays import Floats
from sapper.predict.combine import Constants
from sapper.predict.job import LOW_PRECISIONS

FRACTIONS = (0.2, 0.95)
"""Shares of the peak that a record may claim: above them it is the peak that is understated (boost clocks, bins)."""
OWN_WEIGHT = 0.9
"""Weight of a chip's own matmul records against its class's median (on the log scale): the best of few large shapes says
less than all of how a model's many shapes will do."""
MATMUL_METRICS = ("matmul", "matmul_mamf")
"""Records of large sustained products; short bursts and typical ranges of a kernel database are not among them."""
CONSTANTS = tuple(field.name for field in fields(Constants))
"""Order of the constants everywhere: matmul, low, attention, memory, launch_s, link, ..."""


class ConstantPrior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prior of one constant."""

    value: float
    sd: float
    link: str
    why: str

    @property
    def mean(self) -> float:
        """On the link scale."""
        return float(np.log(self.value) if self.link == "log" else np.log(self.value / (1 - self.value)))


class SlopePrior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prior of a covariate's slope."""

    value: float
    """Mean: what the constant's link scale gains for each unit of the covariate."""
    sd: float
    on: tuple[str, ...]
    why: str


class EffectPrior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prior of one family of effects."""

    sd: float
    on: tuple[str, ...]


class Prior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``data/prior.toml``."""

    constant: dict[str, ConstantPrior]
    slope: dict[str, SlopePrior]
    effect: dict[str, EffectPrior]


@functools.cache
def prior() -> Prior:
    """The prior that ships."""
    text = resources.files(__package__).joinpath("data", "prior.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), Prior)


def key_of(constant: str) -> str:
    """Key of a constant in prior.toml: the field without its unit."""
    return constant.removesuffix("_s")


@dataclass(frozen=True)
class Subject:
    """Who computes: what the effects depend on."""

    chip: str
    vendor: str
    arch: str
    stack: str
    source: str
    precision: str
    fraction: float
    """Measured (or class mean) share of the dense peak that a large matmul reaches on this chip."""
    measured: bool
    """Whether ``fraction`` is the chip's own."""
    silicon: str = ""
    """Vendor and dense 16-bit peak: the same die under another memory or link shares it (H100, H200, H800)."""
    low_fraction: float = 1.0
    """The same of the low-precision peak."""
    ridge: float = 0.0
    """log of (dense 16-bit FLOPs per byte of memory bandwidth / 200)."""
    compiled: bool = False
    moe: bool = False
    lora: bool = False
    searched: bool = False
    """The plan is unknown and taken to be the best that fits."""

    def effects(self) -> dict[str, str]:
        """Effect family -> level."""
        found = {
            "arch": self.arch,
            "vendor": self.vendor,
            "chip": self.chip,
            "silicon": self.silicon,
            "stack": self.stack,
            "source": self.source,
            "stack_memory": self.stack,
            "stack_attention": self.stack,
            "stack_launch": self.stack,
            "stack_link": self.stack,
            "stack_tensor": self.stack,
            "stack_host": self.stack,
        }
        flags = {"fp32": self.precision == "fp32", "compile": self.compiled, "moe": self.moe, "lora": self.lora, "searched": self.searched}
        found |= {name: "yes" for name, on in flags.items() if on}
        if not self.measured:
            found["unmeasured"] = self.chip
        if self.precision in LOW_PRECISIONS:
            found |= {"vendor_low": self.vendor, "chip_low": self.chip}
        return found


def columns_of(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """Names of the coefficients that ``subjects`` need: every constant, every effect level."""
    levels = sorted({f"{family}:{level}" for subject in subjects for family, level in subject.effects().items()})
    return (*(key_of(name) for name in CONSTANTS), *prior().slope, *levels)


def prior_of(columns: Sequence[str]) -> tuple[Floats, Floats]:
    """(means, standard deviations) of the coefficients."""
    p = prior()
    means = [p.constant[c].mean if c in p.constant else p.slope[c].value if c in p.slope else 0.0 for c in columns]
    deviations = [(p.constant.get(c) or p.slope.get(c) or p.effect[c.split(":")[0]]).sd for c in columns]
    return np.array(means), np.array(deviations)


def design_of(subjects: Sequence[Subject], columns: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """The linear design: (C x N x Q design, C x N offsets, F x N marks of effects that ``columns`` lacks).

    C = constants, N = subjects, Q = coefficients, F = families of effects in the order of prior.toml.
    """
    place = {name: index for index, name in enumerate(columns)}
    p = prior()
    family_rows = {name: index for index, name in enumerate(p.effect)}
    design = np.zeros((len(CONSTANTS), len(subjects), len(columns)))
    offset = np.zeros((len(CONSTANTS), len(subjects)))
    missing = np.zeros((len(p.effect), len(subjects)))
    rows = {key_of(name): index for index, name in enumerate(CONSTANTS)}
    for n, subject in enumerate(subjects):
        for name, c in rows.items():
            design[c, n, place[name]] = 1.0
        offset[rows["matmul"], n], offset[rows["low"], n] = np.log(subject.fraction), np.log(subject.low_fraction)
        for covariate, slope in p.slope.items():
            for name in slope.on:
                design[rows[name], n, place[covariate]] = subject.ridge
        for family, level in subject.effects().items():
            column = place.get(f"{family}:{level}")
            if column is None:
                missing[family_rows[family], n] = 1.0
                continue
            for name in p.effect[family].on:
                design[rows[name], n, column] = 1.0
    return design, offset, missing


def unseen_directions() -> Floats:
    """F x C: what an unseen level of each family does to the constants, one standard deviation of it."""
    p = prior()
    names = [key_of(name) for name in CONSTANTS]
    return np.array([[effect.sd if name in effect.on else 0.0 for name in names] for effect in p.effect.values()])


def constants_of(eta: Floats) -> Constants:
    """Constants from their link scale; ``eta`` is C x ... in the order of CONSTANTS."""
    p = prior()
    values = {}
    for index, name in enumerate(CONSTANTS):
        link = p.constant[key_of(name)].link
        values[name] = np.exp(eta[index]) if link == "log" else 1.0 / (1.0 + np.exp(-eta[index]))
    return Constants(**values)


def matmul_fraction(chip: Chip, precision: str, others: Sequence[Chip]) -> tuple[float, bool]:
    """Share of the dense peak that large matmuls reach: the chip's own records drawn towards its class's median, else that median.

    Returns:
        The fraction (at most 1) and whether it is the chip's own.
    """
    own = _fractions(chip, precision)
    like = [float(np.median(f)) for o in others if o.id != chip.id and o.arch_class == chip.arch_class and (f := _fractions(o, "bf16"))]
    every = [float(np.median(f)) for o in others if o.id != chip.id and (f := _fractions(o, "bf16"))]
    pool = like if len(like) >= 3 else every
    usual = float(np.clip(np.median(pool), *FRACTIONS)) if pool else 0.8
    if not own:
        return usual, False
    return float(np.clip(np.median(own), *FRACTIONS)) ** OWN_WEIGHT * usual ** (1.0 - OWN_WEIGHT), True


def _fractions(chip: Chip, precision: str) -> list[float]:
    names = ("bf16", "fp16") if precision in ("bf16", "fp16") else (precision,)
    return [m.fraction for m in chip.measured if m.metric in MATMUL_METRICS and m.dtype in names and m.fraction is not None]
