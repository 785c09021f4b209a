"""ServeSubject: who serves, and the serving book of constants."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from sapper.chips import catalogue
from sapper.chips.schema import Chip
from sapper.predict.arrays import Floats
from sapper.predict.fractions import matmul_fraction
from sapper.predict.prior import OWN, Book, book
from sapper.predict.serve.dies import UNDATED, die_of, first_released
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.parts import Parts
from sapper.predict.serve.rates import Rates
from sapper.predict.serve.stacks import attention_level, ported
from sapper.predict.serve.terms import factors

GENERATION = UNDATED
"""Dies are dated from here, so that one of unknown date adds nothing."""
BANDWIDTH_METRICS = ("memory_bandwidth_gemm_decode", "memory_bandwidth")
"""Records of achieved bandwidth, the nearest to weight streaming first."""
BANDWIDTH_USUAL = 0.82
"""Median of the records of all chips."""
BANDWIDTH_WEIGHT = 0.8
"""Weight of a chip's own record against the usual share, on the log scale."""
STACK_PARTS = ("memory", "cache", "attention", "launch", "host", "sequence", "link", "prompt", "stream", "queue", "reread", "thin", "row")
"""What each stack does in its own way: families of effects ``stack_<part>``."""
VENDOR_PARTS = ("stack", "host", "cache", "thin", "reread", "row")
"""What a stack does in another way on another vendor's chips: families of effects ``vendor_<part>``."""
DIE_PARTS = ("die_stack", "die_host")
"""What a stack does in another way on another die: kernels are written for one, whatever memory and power stand around it."""
CHIP_PARTS = ("chip_row", "chip_host")
"""What a stack does in another way on another chip of the same vendor: which products its libraries are tuned for, and its start."""
PORT_PARTS = ("port", "port_thin", "port_row", "port_host")
"""The same where the stack was written for another vendor's chips: how far a port has come differs from chip to chip."""
YEAR = 2025.0
"""Releases are dated from here, so that a release of unknown date is one of this year."""


def serve_book() -> Book:
    """Constants of an engine's iteration: the keys are :data:`~sapper.predict.serve.terms.TERMS`, in order."""
    return book("serve")


@dataclass(frozen=True)
class ServeSubject:
    """Who serves: what the effects depend on. Names and levels are those of training where they mean the same."""

    chip: str
    vendor: str
    arch: str
    silicon: str
    stack: str
    version: str
    """Release of the stack; empty where unknown."""
    source: str
    format: str
    """Weights and compute dtypes where the weights are quantised, such as ``int4-bf16``; empty: 16 bit."""
    fraction: float
    low_fraction: float
    memory_fraction: float
    """Measured (or class median) share of the nominal bandwidth that a matmul of few rows reads its weights at."""
    measured: bool
    moe: bool
    latent: bool
    year: float
    """Of the stack's release, from :data:`YEAR`."""
    generation: float
    """Of the first release of the chip's die, from :data:`GENERATION`."""
    speculative: bool = False
    """Tokens are drafted and checked, at a guessed rate of acceptance."""
    separate: bool = False
    """Prompts are read by workers of their own: a router, a second engine and a transfer of the cache stand before the first token."""
    family: str = ""
    """Architecture of the model, for which a stack has its own kernels and tunings."""

    own: bool = False
    """Measured by the user: runs that calibrate, and predictions after them."""

    def effects(self) -> dict[str, str]:
        """Effect family -> level."""
        found = {
            "arch": self.arch, "vendor": self.vendor, "chip": self.chip, "silicon": self.silicon, "stack": self.stack,
            "source": self.source, "chip_thin": self.chip,
        }
        found |= {f"stack_{part}": self.stack for part in STACK_PARTS}
        found |= {f"vendor_{part}": f"{self.vendor}/{self.stack}" for part in VENDOR_PARTS}
        found["vendor_reread"] = attention_level(self.vendor, self.stack, year=YEAR + self.year)
        on_chip, ran = f"{self.chip}/{self.stack}", f"{self.source}/{self.stack}"
        found |= dict.fromkeys(CHIP_PARTS, on_chip) | {"source_stack": ran, "source_stack_host": ran}
        if die := die_of(self.chip):
            found |= dict.fromkeys(DIE_PARTS, f"{die}/{self.stack}")
        if ported(self.stack, self.vendor):
            found |= dict.fromkeys(PORT_PARTS, on_chip)
        if self.family:
            of_stack = f"{self.stack}/{self.family}"
            found |= {"family": self.family, "stack_family": of_stack, "family_host": of_stack, "family_prompt": of_stack}
        if self.version:
            found |= dict.fromkeys(("version", "version_host", "version_queue"), f"{self.stack}/{self.version}")
        if self.format:
            found |= {"format": self.format, "stack_format": f"{self.stack}/{self.format}"}
        if self.moe:
            found |= {"moe": "yes", "stack_moe": self.stack, "vendor_moe": f"{self.vendor}/{self.stack}"}
        if self.latent:
            found |= {"latent": "yes", "stack_latent": self.stack}
        if self.speculative:
            found |= {"speculative": "yes", "stack_speculative": self.stack}
        if self.separate:
            found |= {"separate": "yes", "stack_separate": self.stack}
        if not self.measured:
            found["unmeasured"] = self.chip
        if self.own:
            found |= dict.fromkeys(OWN, self.chip)
        return found

    def as_own(self) -> ServeSubject:
        """The same, of a chip that the user measured."""
        return replace(self, own=True)

    def offsets(self) -> dict[str, float]:
        """Log of the catalogue's matmul fractions: the matmul constants are what is left after them."""
        bandwidth = float(np.log(self.memory_fraction))
        return {"matmul": float(np.log(self.fraction)), "low": float(np.log(self.low_fraction)), "memory": bandwidth, "cache": bandwidth}

    def covariates(self) -> dict[str, float]:
        """Values of the slopes."""
        return {"year": self.year, "year_host": self.year, "generation": self.generation}


def subject_of(job: ServeJob, parts: Parts | None, rates: Rates, *, stack: str, version: str = "", source: str = "-") -> ServeSubject:
    """Who serves: the levels of the effects. ``parts`` None: a model that does not generate."""
    chip = rates.chip
    fraction, measured = _fraction(chip, "bf16")
    own_low, has_low = _fraction(chip, rates.compute_dtype) if rates.low else (fraction, False)
    wide = chip.peak_flops_per_s.get("bf16") or chip.peak_flops_per_s.get("fp16")
    quantised = job.weights_dtype not in ("bf16", "fp16", "fp32")
    return ServeSubject(
        chip=chip.id, vendor=chip.vendor, arch=chip.arch_class,
        silicon=f"{chip.vendor}/{((wide.number if wide else None) or 0.0) / 1e12:.0f}",
        stack=stack, version=version, source=source, format=_format(job, rates) if quantised else "",
        fraction=fraction, low_fraction=own_low if has_low else fraction, memory_fraction=bandwidth_fraction(chip), measured=measured,
        generation=first_released(chip) - GENERATION, family=job.model.family, moe=parts is not None and parts.routed_layers > 0,
        latent=parts is not None and any(cache.value_dim == 0 for cache in parts.caches),
        year=0.0 if job.stack_year is None else job.stack_year - YEAR,
    )


def _format(job: ServeJob, rates: Rates) -> str:
    """Weights and compute dtype, and whether the weights are unpacked in software since the chip has no unit for them."""
    own = rates.chip.peak_flops_per_s.get(job.weights_dtype)
    native = own is not None and own.number is not None
    return f"{job.weights_dtype}-{rates.compute_dtype}" + ("" if native else "-unpacked")


def bandwidth_fraction(chip: Chip) -> float:
    """Share of the nominal bandwidth that streaming reaches: the chip's own record drawn towards the usual share, else that."""
    for metric in BANDWIDTH_METRICS:
        own = [m.fraction or sum(m.fraction_range or ()) / 2.0 for m in chip.measured if m.metric == metric]
        own = [share for share in own if share > 0.0]
        if own:
            return float(np.median(own) ** BANDWIDTH_WEIGHT * BANDWIDTH_USUAL ** (1.0 - BANDWIDTH_WEIGHT))
    return BANDWIDTH_USUAL


def constants(eta: Floats) -> tuple[Floats, Floats, Floats]:
    """(factors of the terms, K x ..., of queueing and of the first wave) from the constants on their link scale."""
    natural = serve_book().natural(eta)
    return factors(natural), natural["queue"], natural["burst"]


def factors_of(eta: Floats) -> Floats:
    """Factors of the terms alone."""
    return constants(eta)[0]


def _fraction(chip: Chip, precision: str) -> tuple[float, bool]:
    """The catalogue's matmul fraction; of a chip that the catalogue does not have, as it stands, with its class's median."""
    if _all_chips().get(chip.id) is chip:
        return _fraction_of(chip.id, precision)
    return matmul_fraction(chip, precision, tuple(_all_chips().values()))


@functools.lru_cache(maxsize=1024)
def _fraction_of(chip: str, precision: str) -> tuple[float, bool]:
    return matmul_fraction(_all_chips()[chip], precision, tuple(_all_chips().values()))


@functools.cache
def _all_chips() -> dict[str, Chip]:
    return dict(catalogue().chips)
