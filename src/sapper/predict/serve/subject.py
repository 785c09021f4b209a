"""ServeSubject: who serves, and the serving book of constants."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from sapper.chips import catalogue
from sapper.chips.schema import Chip
from sapper.predict.arrays import Floats
from sapper.predict.prior import Book, book
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.parts import Parts
from sapper.predict.serve.rates import Rates
from sapper.predict.serve.terms import factors
from sapper.predict.subject import matmul_fraction

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
    measured: bool
    moe: bool
    latent: bool
    year: float
    """Of the stack's release, from :data:`YEAR`."""
    spread: bool = False
    """Cut over several chips."""

    def effects(self) -> dict[str, str]:
        """Effect family -> level."""
        found = {
            "arch": self.arch, "vendor": self.vendor, "chip": self.chip, "silicon": self.silicon, "stack": self.stack,
            "source": self.source,
        }
        found |= {f"stack_{part}": self.stack for part in ("memory", "cache", "attention", "launch", "host", "sequence", "link", "prompt")}
        found["vendor_stack"] = f"{self.vendor}/{self.stack}"
        found["vendor_host"] = f"{self.vendor}/{self.stack}"
        found["vendor_cache"] = f"{self.vendor}/{self.stack}"
        if self.version:
            found |= {"version": f"{self.stack}/{self.version}", "version_host": f"{self.stack}/{self.version}"}
        if self.format:
            found |= {"format": self.format, "stack_format": f"{self.stack}/{self.format}"}
        if self.moe:
            found |= {"moe": "yes", "stack_moe": self.stack, "vendor_moe": f"{self.vendor}/{self.stack}"}
        if self.latent:
            found |= {"latent": "yes", "stack_latent": self.stack}
        if not self.measured:
            found["unmeasured"] = self.chip
        return found

    def offsets(self) -> dict[str, float]:
        """Log of the catalogue's matmul fractions: the matmul constants are what is left after them."""
        return {"matmul": float(np.log(self.fraction)), "low": float(np.log(self.low_fraction))}

    def covariates(self) -> dict[str, float]:
        """Values of the slopes."""
        return {"year": self.year}


def subject_of(job: ServeJob, parts: Parts | None, rates: Rates, *, stack: str, version: str = "", source: str = "-") -> ServeSubject:
    """Who serves: the levels of the effects. ``parts`` None: a model that does not generate."""
    chip = rates.chip
    fraction, measured = matmul_fraction(chip, "bf16", _all_chips())
    own_low, has_low = matmul_fraction(chip, rates.compute_dtype, _all_chips()) if rates.low else (fraction, False)
    wide = chip.peak_flops_per_s.get("bf16") or chip.peak_flops_per_s.get("fp16")
    quantised = job.weights_dtype not in ("bf16", "fp16", "fp32")
    return ServeSubject(
        chip=chip.id, vendor=chip.vendor, arch=chip.arch_class,
        silicon=f"{chip.vendor}/{((wide.number if wide else None) or 0.0) / 1e12:.0f}",
        stack=stack, version=version, source=source, format=f"{job.weights_dtype}-{rates.compute_dtype}" if quantised else "",
        fraction=fraction, low_fraction=own_low if has_low else fraction, measured=measured,
        moe=parts is not None and parts.routed_layers > 0,
        latent=parts is not None and any(cache.value_dim == 0 for cache in parts.caches),
        year=0.0 if job.stack_year is None else job.stack_year - YEAR,
    )


def factors_of(eta: Floats) -> Floats:
    """Factors of the terms from the constants on their link scale; K x ..."""
    return factors(serve_book().natural(eta))


@functools.cache
def _all_chips() -> tuple[Chip, ...]:
    return tuple(catalogue().chips.values())
