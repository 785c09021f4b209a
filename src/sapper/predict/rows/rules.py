"""Rules of reading: what sources mean by their words and columns, as data with reasons (``data/sources.toml``, ``words.toml``).

A rule speaks of a source, a framework or a word, never of a row.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from sapper.predict.rows.row import Row

MicroBatch = Literal["micro", "local", "chip"]
Flops = Literal["full", "causal", "full+recompute"]


class SourceRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one source means by its columns; fields as ``data/sources.toml`` explains them."""

    family: str
    match: str
    why: str
    framework: str | None = None
    stack: str | None = None
    year: float | None = None
    attention: Literal["flash", "unfused"] | None = None
    micro_batch: MicroBatch = "micro"
    missing_micro_batch: Literal["whole"] | None = None
    flops: Flops | None = None
    recompute_of: dict[str, Literal["none", "selective", "full"]] = msgspec.field(default_factory=dict)
    vpp: int | None = None
    sequence_parallel: bool | None = None
    fused_loss: bool = False
    vocab: int | None = None
    """Vocabulary of its models where its rows state none, and it pads none."""
    vpp_of: dict[str, int] = msgspec.field(default_factory=dict)
    optimizer_step: bool = True
    scale_out: str | None = None
    tags: tuple[str, ...] = ()


class Word(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"meaning": "is"}):
    """A word of a source and what it means."""

    words: str
    meaning: str
    source: str | None = None
    """Only for rows whose source fits."""
    memory: Literal["static", "activations"] | None = None
    sequence_parallel: bool | None = None


class StackWord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words of a framework and the software stack that they name."""

    words: str
    stack: str


class PrecisionRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"meaning": "is", "round_": "round"}):
    """Precision of the MLPerf submissions that every given pattern fits."""

    meaning: str
    why: str
    framework: str | None = None
    chip: str | None = None
    round_: str | None = None
    submitter: str | None = None
    benchmark: str | None = None


class Sources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``data/sources.toml``."""

    source: tuple[SourceRule, ...]
    stack: tuple[StackWord, ...]


class Words(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``data/words.toml``."""

    precision: tuple[Word, ...]
    recompute: tuple[Word, ...]
    mlperf: tuple[PrecisionRule, ...]
    rounds: dict[str, float]


def read_data(name: str) -> dict[str, Any]:
    """A TOML file of this package's data."""
    return tomllib.loads(resources.files(__package__).joinpath("data", name).read_text("utf-8"))


@functools.cache
def sources() -> Sources:
    """The rules of sources."""
    return msgspec.convert(read_data("sources.toml"), Sources)


@functools.cache
def words() -> Words:
    """The rules of words."""
    return msgspec.convert(read_data("words.toml"), Words)


def fits(pattern: str | None, text: str | None) -> bool:
    """Whether ``pattern`` is absent or occurs in ``text``, whatever the case."""
    return pattern is None or re.search(pattern, text or "", re.IGNORECASE) is not None


def source_rule(row: Row) -> SourceRule:
    """The rule of the row's source; one that says only what follows from the names, where nobody wrote a rule."""
    return _rule(row.source, row.framework)


@functools.lru_cache(maxsize=16_384)
def _rule(source: str, framework: str | None) -> SourceRule:
    written = first_fitting(sources().source, source, framework)
    return written or SourceRule(family=family_of(source), match="", why="no rule", stack=_stack(framework, source))


class SourceWords(Protocol):
    """What a rule of a source is found by."""

    @property
    def match(self) -> str:
        """Pattern of the source's name."""

    @property
    def framework(self) -> str | None:
        """Pattern of the framework; None: any."""


R = TypeVar("R", bound=SourceWords)


def first_fitting(rules: Iterable[R], source: str, framework: str | None) -> R | None:
    """The first of ``rules`` that speaks of the source and framework."""
    return next((rule for rule in rules if fits(rule.match, source) and fits(rule.framework, framework)), None)


def family_of(source: str) -> str:
    """The name of a source that nobody wrote a rule for: its first word."""
    return re.split(r"[\s,;]", source, maxsplit=1)[0]


def _stack(framework: str | None, source: str) -> str | None:
    for text in (framework, source):
        for entry in sources().stack:
            if text and fits(entry.words, text):
                return entry.stack
    return None


def stack_of(row: Row, rule: SourceRule) -> str | None:
    """Key of the software priors."""
    return rule.stack or _stack(row.framework, row.source)


_YEAR = re.compile(r"(?<![\d.])(20[12]\d)(?:[-.]?(0[1-9]|1[0-2]))?(?!\d)")
_NGC = re.compile(r"(?:release|ngc|nemo|pytorch)\D{0,24}(2[0-9])\.(0[1-9]|1[0-2])(?!\d)", re.IGNORECASE)


def year_of(row: Row, rule: SourceRule) -> float | None:
    """When the software was current; None where nothing tells."""
    round_ = mlperf_round(row)
    if round_ is not None:
        return words().rounds.get(round_)
    if rule.year is not None:
        return rule.year
    found = _NGC.search(row.framework or "")
    if found:
        return 2000 + int(found[1]) + int(found[2]) / 12
    for text in (row.framework, row.source, row.note):
        dated = _YEAR.search(text or "")
        if dated:
            return int(dated[1]) + (int(dated[2]) / 12 if dated[2] else 0.5)
    return None


def mlperf_round(row: Row) -> str | None:
    """``v5.1`` where the row is an MLPerf Training result."""
    found = re.search(r"MLPerf.*?\b(v\d+\.\d+)", row.source)
    return found[1] if found else None


def mlperf_submitter(row: Row) -> str | None:
    """Who submitted an MLPerf result."""
    found = re.search(r"training_results_v[\d.]+\s+(\S+?)/", row.source)
    return found[1] if found else None


def attention_of(rule: SourceRule, stack: str | None, year: float | None) -> Literal["flash", "unfused"]:
    """Whether scores stay on the chip: FlashAttention (arXiv:2205.14135) is usual from 2023 on, except in eager models."""
    if rule.attention is not None:
        return rule.attention
    return "unfused" if stack == "eager" or (year is not None and year < 2023.0) else "flash"
