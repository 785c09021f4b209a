"""What a software stack takes of a chip's memory beside what is counted: a posterior over published peaks.

memory.py counts bytes; allocators keep free blocks, drivers keep contexts. Three constants stand between (``data/memory.toml``):
a factor on what is allocated once, a factor on what changes every step, and the bytes of a context. They are fitted like the
efficiencies (prior.py, fit.py), with effects of the stack, the source and what measured, so that a stack whose peaks nobody
published has a wider interval.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import msgspec
import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.fit import Fitted, Sample, fit, log_time
from sapper.predict.memory import LIVE, STATES, Allocation, MemoryUse
from sapper.predict.prior import Book, book
from sapper.predict.rows.case import Case, Conversion

FEWEST = 8
"""Published peaks from which on there is something to fit."""
UNFITTED_SD = 0.06
"""Log scale, of one peak about the prior."""
_GIB = 2.0**-30


@dataclass(frozen=True)
class MemorySubject:
    """Whose memory, and who measured it."""

    chip: str
    stack: str
    source: str = "-"
    driver: bool = False
    """As the driver shows it."""

    def effects(self) -> dict[str, str]:
        """Effect family -> level."""
        found = {"stack": self.stack, "source": self.source}
        return found | {"driver": "yes"} if self.driver else found

    def as_own(self) -> MemorySubject:
        """A peak says where it was measured by itself."""
        return self

    def offsets(self) -> dict[str, float]:
        """Nothing is known beforehand."""
        return {}

    def covariates(self) -> dict[str, float]:
        """None."""
        return {}


def memory_book() -> Book:
    """The constants of memory; the keys are the fields of :class:`~sapper.predict.memory.Allocation`, in order."""
    return book("memory")


def unfitted() -> Fitted:
    """The prior as a posterior that has seen nothing."""
    prior = memory_book()
    mean, deviation = prior.prior_of(prior.constants)
    return Fitted(
        book=prior, columns=prior.constants, mean=mean, covariance=np.diag(deviation**2), noise_sd=UNFITTED_SD, widen=1.0, rows=0, chips=()
    )


def fit_memory(peaks: Sequence[tuple[MemorySubject, Floats, Case]]) -> Fitted:
    """The posterior given published peaks: (subject, counted bytes of :func:`counted`, the case) of each."""
    if len(peaks) < FEWEST:
        return unfitted()
    bytes_ = np.concatenate([one for _, one, _ in peaks], axis=1)
    return fit(Sample(
        book=memory_book(),
        subjects=[subject for subject, _, _ in peaks],
        time_s=lambda eta: _taken(bytes_, eta),
        measured_s=np.array([case.conversion.quantity_of(case.measured) for _, _, case in peaks]),
        weight=np.array([case.weight for _, _, case in peaks]),
        groups=[f"{subject.chip}|{subject.source}|{subject.stack}" for subject, _, _ in peaks],
    ))


def counted(memory: MemoryUse, allocation: Allocation) -> Floats:
    """3 x 1: counted bytes of the single plan that are allocated once, that change every step, and one context."""
    states, live = (sum(float(memory.parts[name][0]) for name in names) for names in (STATES, LIVE))
    return np.array([[states / allocation.states], [live / allocation.live], [1.0]])


def peak_of(fitted: Fitted, subject: MemorySubject, bytes_: Floats, *, level: float) -> tuple[float, float]:
    """(peak in bytes, half width of its interval of ``level`` on the log scale) of what :func:`counted` gives."""
    eta, design, missing = fitted.eta([subject])
    log_bytes, slope = log_time(lambda eta: _taken(bytes_, eta), eta)
    half = float(fitted.deviation(slope, design=design, missing=missing)[0]) * fitted.factor(level)
    return float(np.exp(log_bytes[0])), half


def allocation_of(fitted: Fitted, subject: MemorySubject) -> Allocation:
    """The constants of ``subject``."""
    eta, _, _ = fitted.eta([subject])
    return Allocation(**{name: float(value[0]) for name, value in memory_book().natural(eta).items()})


def _taken(bytes_: Floats, eta: Floats) -> Floats:
    natural = memory_book().natural(eta)
    return np.asarray(sum(part * natural[name] for name, part in zip(memory_book().constants, bytes_, strict=True)), float)


def peaks_asked(cases: Sequence[Case]) -> list[Case]:
    """Memory questions: rows whose metric is memory, and the peaks that stand beside other metrics."""
    found = []
    for case in cases:
        if case.quantity == "memory":
            found.append(case)
        elif case.memory_bytes is not None and "offload" not in case.tags:
            found.append(peak_question(case, case.memory_bytes))
    return found


def peak_question(case: Case, measured_bytes: float) -> Case:
    """The same job, asked for the peak of the fullest chip."""
    return msgspec.structs.replace(
        case, quantity="memory", metric="memory_per_chip", unit="GiB", measured=measured_bytes * _GIB,
        conversion=Conversion(kind="direct", factor=_GIB), memory_part="peak",
    )


@functools.cache
def shipped_memory() -> Fitted:
    """The posterior that ships (data/memory_fitted.json, written by scripts/fit_priors.py)."""
    raw = json.loads(resources.files(__package__).joinpath("data", "memory_fitted.json").read_text("utf-8"))
    return Fitted.thaw(raw, memory_book())


@functools.cache
def shipped_allocation(stack: str) -> Allocation:
    """What ``stack`` takes by the posterior that ships."""
    return allocation_of(shipped_memory(), MemorySubject(chip="-", stack=stack))
