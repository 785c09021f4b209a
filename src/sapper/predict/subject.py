"""TrainSubject: who computes a training step, and the training book of constants."""

from __future__ import annotations

import functools
import math
import tomllib
from dataclasses import dataclass, field, replace
from importlib import resources

from sapper.chips.schema import Chip
from sapper.evidence import Fact
from sapper.predict.arrays import Floats
from sapper.predict.combine import Constants
from sapper.predict.job import LOW_PRECISIONS, TrainJob
from sapper.predict.prior import OWN, Book, book

USUAL_RIDGE = 200.0
"""FLOPs per byte of memory bandwidth that the slopes over the ridge are counted from."""
SOFTWARE_YEAR, NOW_YEAR = 2024.5, 2026.0
"""The year that the slope over it is counted from, and that of a question which names none."""
OVERLAP_YEAR, NO_OVERLAP = 2023.5, -5.0
"""Megatron-LM reduced gradients after the last backward pass until ``--overlap-grad-reduce`` came, and stood still in
tensor-parallel reductions until ``--tp-comm-overlap`` did (both in its releases of 2023); what that takes off the logit of
either overlap."""
USUAL_DENSITY = {"fp32": 5e10, "tf32": 5e11}
"""FLOP/s per watt of board power that the slope over it is counted from, by precision; 1e12 for all others."""


def train_book() -> Book:
    """Constants of a training step: the keys are the fields of :class:`~sapper.predict.combine.Constants`, in order."""
    return book("prior")


@dataclass(frozen=True)
class Silicon:
    """What the catalogue says of a chip that its efficiencies depend on."""

    chip: str
    vendor: str
    arch: str
    die: str
    """Vendor and dense 16-bit peak: the same die under another memory or link shares it (H100, H200, H800)."""
    ridge: float
    """log of (dense 16-bit FLOPs per byte of memory bandwidth / USUAL_RIDGE)."""
    density: float
    """log of (dense FLOP/s per watt / USUAL_DENSITY): what a chip's power limit has to feed; 0 where unknown."""

    def effects(self) -> dict[str, str]:
        """Effect family -> level."""
        return {
            "arch": self.arch,
            "vendor": self.vendor,
            "silicon": self.die,
            "chip": self.chip,
            "chip_matmul": self.chip,
            "chip_wide": self.chip,
        }

    def covariates(self) -> dict[str, float]:
        """Slope -> value of its covariate."""
        return {"density": self.density, "density_low": self.density, "ridge": self.ridge}


def silicon_of(chip: Chip, precision: str) -> Silicon:
    """The silicon that ``chip`` is at ``precision``."""
    peak = _first(chip.peak_flops_per_s.get("bf16"), chip.peak_flops_per_s.get("fp16"))
    bandwidth = _first(chip.memory.bandwidth_bytes_per_s)
    watts = _first(chip.tdp_w)
    full = precision in ("fp32", "tf32")
    used = _first(chip.peak_flops_per_s.get(precision)) if full else peak
    return Silicon(
        chip=chip.id,
        vendor=chip.vendor,
        arch=chip.arch_class,
        die=f"{chip.vendor}/{(peak or 0.0) / 1e12:.0f}",
        ridge=math.log(peak / bandwidth / USUAL_RIDGE) if peak and bandwidth and precision != "fp32" else 0.0,
        density=math.log(used / watts / USUAL_DENSITY.get(precision, 1e12)) if used and watts and chip.arch_class == "gpu" else 0.0,
    )


def _first(*facts: Fact | None) -> float | None:
    return next((fact.number for fact in facts if fact is not None and fact.number), None)


@dataclass(frozen=True)
class TrainSubject:
    """Who computes: what the effects depend on."""

    silicon: Silicon
    stack: str
    source: str = "-"
    precision: str = "bf16"
    issued: str = "eager"
    """How the stack issues kernels: ``eager`` one by one, ``graph`` many at once (data/stacks.toml)."""
    year: float | None = None
    """When the software was current; None: now."""
    own: bool = False
    """Measured by the user: runs that calibrate, and predictions after them."""
    flags: frozenset[str] = field(default_factory=frozenset)
    """Of compile, moe, lora, searched (the plan is unknown and taken to be the best that fits)."""

    @property
    def chip(self) -> str:
        """Catalogue id."""
        return self.silicon.chip

    def effects(self) -> dict[str, str]:
        """Effect family -> level."""
        found = {**self.silicon.effects(), "stack": self.stack, "source": self.source}
        found |= {f"stack_{what}": self.stack for what in ("memory", "attention", "launch", "dispatch", "link", "tensor", "host")}
        found |= dict.fromkeys(self.flags, "yes")
        if self.own:
            found |= dict.fromkeys(OWN, self.chip)
        if self.precision == "fp32":
            found["fp32"] = "yes"
        if self.precision in LOW_PRECISIONS:
            found |= {"vendor_low": self.silicon.vendor, "chip_low": self.chip}
        return found

    def as_own(self) -> TrainSubject:
        """The same, of a chip that the user measured."""
        return replace(self, own=True)

    def offsets(self) -> dict[str, float]:
        """What is known of how the stack issues its kernels, and what of its communication it hides."""
        known = {"dispatch_s": _stacks()[1].get(self.issued, 0.0)}
        if self.stack == "megatron" and self.year is not None and self.year < OVERLAP_YEAR:
            known |= {"data_overlap": NO_OVERLAP, "tensor_overlap": NO_OVERLAP}
        return known

    def covariates(self) -> dict[str, float]:
        """Those of the silicon, and how mature the software is."""
        return {**self.silicon.covariates(), "year": (self.year or NOW_YEAR) - SOFTWARE_YEAR}


def subject_of(job: TrainJob, chip: Chip, *, source: str = "-", compiled: bool = False, searched: bool = False) -> TrainSubject:
    """Who computes ``job`` on ``chip``: the levels of the effects."""
    moe = any(block.experts for block in job.workload.blocks)
    flags = {"compile": compiled, "moe": moe, "lora": job.finetune == "lora", "searched": searched}
    stack = job.stack or usual_stack(chip)
    return TrainSubject(
        silicon=silicon_of(chip, job.precision),
        stack=stack,
        source=source,
        precision=job.precision,
        year=job.stack_year,
        issued=issued_by(stack),
        flags=frozenset(name for name, on in flags.items() if on),
    )


def constants_of(eta: Floats) -> Constants:
    """Constants of a training step from their link scale; ``eta`` is C x ... in the order of the book."""
    return Constants(**train_book().natural(eta))


def usual_stack(chip: Chip) -> str:
    """The training stack that is usual on the chip's torch device; ``unknown`` where there is none."""
    device = chip.software.torch_device if chip.software else None
    return _stacks()[0].get((device or "").split()[0].strip("(),") if device else "", "unknown")


def issued_by(stack: str) -> str:
    """How a stack issues its kernels."""
    return _stacks()[2].get(stack, "eager")


@functools.cache
def _stacks() -> tuple[dict[str, str], dict[str, float], dict[str, str]]:
    """(torch device -> stack, way of issuing -> log of its host time against eager, stack -> way) of ``data/stacks.toml``."""
    raw = tomllib.loads(resources.files(__package__).joinpath("data", "stacks.toml").read_text("utf-8"))
    devices = {device: stack for stack, entry in raw["stack"].items() for device in entry.get("torch_devices", ())}
    ways = {way: math.log(entry["host_time"]) for way, entry in raw["issued"].items()}
    return devices, ways, {stack: entry["issued"] for stack, entry in raw["stack"].items() if "issued" in entry}
