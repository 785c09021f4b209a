"""How much work a port is: changed lines and files, as an interval fitted on ports that people have made.

``data/effort/pairs.jsonl`` holds the facts of those ports (repository, commits, counts of our findings before, what people
changed), ``data/effort/model.json`` what ``scripts/fit_effort.py`` made of them. The model is a sum of rates::

    lines = lines of any port + sum over groups of classes (rate of the group * findings that need a change)
            + rate of a file * files with such findings
    files = ratio * files with such findings

and the interval is what its errors on repositories that it had not seen leave: docs/port-effort.md has them and the coverage.
Person-days are not estimated: no source that we know of says how long people took. C++/CUDA is not in it either, since a kernel
is a rename or a rewrite: ``sapper port kernels`` tells which.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sapper import files
from sapper.port.rule import Class

DATA = Path(__file__).parent / "data" / "effort"
LEVEL = 0.8

GROUPS: dict[str, tuple[Class, ...]] = {
    "api": ("device", "memory", "stream", "random", "capability", "profiling"),
    "precision": ("precision",),
    "distributed": ("distributed",),
    "compiled": ("compile", "kernel"),
    "library": ("library",),
    "build": ("build",),
    "carried": ("carried",),
}
"""Classes that one rate stands for: single ones have too few examples in the history."""
NATIVE = "SP-PORT-9"
"""Rules of C++/CUDA, which effort leaves out."""
GROUP_OF: dict[Class, str] = {klass: group for group, classes in GROUPS.items() for klass in classes}


class Pair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port that people made, between two commits; facts only. Counts are of files that were there before and that it changed,
    scanned together."""

    repository: str
    before: str
    after: str
    date: str
    source: str
    """Page of the commit."""
    counts: dict[Class, int]
    """Findings that tie, by class, before."""
    in_tests: int
    """How many of them stand in tests."""
    files_with_findings: int
    lines: int
    """Changed lines: of each hunk the greater of removed and added."""
    files: int
    new_lines: int
    """Lines of files that the port added."""
    new_files: int
    naming_files: int
    """Python files that name CUDA (by a search) among those that it changed, and in the whole repository before: its reach."""
    naming_files_of_all: int


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """A count with its interval."""

    low: int
    mid: int
    high: int


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """Of the findings given."""

    lines: Range
    files: Range
    level: float
    extrapolated: bool
    """There is more to change than in any port of the history."""


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """Of one quantity, on repositories that the fit had not seen: logarithms of true over predicted."""

    low_log: float
    high_log: float
    """Quantiles that the interval is made of."""
    median_abs_log: float
    coverage_share: float
    """Of pairs inside the interval, each repository with the same weight, with quantiles from the other repositories alone."""


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fit."""

    rates: dict[str, float]
    """Lines for each finding of a group, ``file`` for each file, and ``port`` for the port itself (options, helpers)."""
    files_ratio: float
    lines: Errors
    files: Errors
    pairs: int
    repositories: int
    most_findings: int
    """Of one pair."""


@functools.cache
def model() -> Model:
    """The fit that ships."""
    path = DATA / "model.json"
    return files.decode(Model, files.read_json(path), path)


@functools.cache
def pairs() -> tuple[Pair, ...]:
    """The history that ships."""
    path = DATA / "pairs.jsonl"
    return tuple(files.decode(Pair, raw, f"{path}:{line}") for line, raw in files.read_jsonl(path))


def by_group(counts: Mapping[Class, int]) -> dict[str, int]:
    """Counts by the groups of :data:`GROUPS`."""
    found: Counter[str] = Counter()
    for klass, count in counts.items():
        found[GROUP_OF[klass]] += count
    return {group: found[group] for group in GROUPS}


def predicted_lines(rates: Mapping[str, float], counts: Mapping[Class, int], files_with_findings: int) -> float:
    """The model's sum; none for nothing."""
    if not files_with_findings:
        return 0.0
    own = sum(rates[group] * count for group, count in by_group(counts).items())
    return rates["port"] + own + rates["file"] * files_with_findings


def estimate(counts: Mapping[Class, int], files_with_findings: int, *, by: Model | None = None) -> Effort:
    """What changing findings of these ``counts`` in so many files takes.

    Args:
        counts: Findings that need a change, by class, without those of C++/CUDA.
        files_with_findings: Files that hold them.
        by: The fit; by default the one that ships.
    """
    fit = by or model()
    lines = predicted_lines(fit.rates, counts, files_with_findings)
    return Effort(
        lines=_range(lines, fit.lines, least=files_with_findings), files=_range(fit.files_ratio * files_with_findings, fit.files, least=0),
        level=LEVEL, extrapolated=sum(counts.values()) > fit.most_findings,
    )  # fmt: skip


def _range(mid: float, errors: Errors, *, least: int) -> Range:
    low, high = mid * math.exp(errors.low_log), mid * math.exp(errors.high_log)
    return Range(low=max(least, round(low)), mid=max(least, round(mid)), high=max(least, math.ceil(high)))
