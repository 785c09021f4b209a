"""Rules of reading inference rows: what sources mean by their words and columns, as data with reasons (``data/*.toml``).

A rule speaks of a source, a framework or a word, never of a row.
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from importlib import resources
from typing import Any, Literal

import msgspec

from sapper.chips.schema import Chip
from sapper.predict.rows import rules as general
from sapper.predict.rows.row import Row
from sapper.predict.rows.rules import family_of, first_fitting, fits
from sapper.predict.serve.plan import Admission
from sapper.predict.serve.rows.case import Mode, Statistic


class ServeRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one source means by its columns; fields as ``data/sources.toml`` explains them."""

    family: str
    match: str
    why: str
    framework: str | None = None
    stack: str | None = None
    year: float | None = None
    mode: Mode | None = None
    plan: Literal["all"] | None = None
    dp: Literal["attention"] | None = None
    export: Literal["product"] | None = None
    node: int | None = None
    split: Literal["layers"] | None = None
    batch_is: Literal["chunk"] | None = None
    batch_per: Literal["chip"] | None = None
    ttft_of: Literal["one"] | None = None
    weights: str | None = None
    cache: tuple[tuple[str, str], ...] = ()
    length_ratio: float = 1.0
    statistic: Statistic = "mean"
    tags: tuple[str, ...] = ()


class StackWord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words of a framework and the engine that they name."""

    words: str
    stack: str


class ModeWord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words of a phase and the load that they mean."""

    words: str
    mode: Mode


class Lengths(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lengths of rows that leave them out."""

    why: str
    source: str | None = None
    phase: str | None = None
    model: str | None = None
    input_len: float | None = None
    output_len: float | None = None


class Board(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A board of several chips that sources count as one."""

    words: str
    chips: int
    why: str


class Speculative(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs that decode speculatively though the row does not say so."""

    why: str
    source: str
    model: str
    framework: str
    chip: str | None = None
    from_year: float | None = None
    to_year: float | None = None
    workers: Literal["missing"] | None = None


class AdmissionRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a recipe's engine looks at waiting requests."""

    why: str
    source: str
    stack: str
    chip: str | None = None
    ranks: int = 1
    """Least attention ranks of a replica."""
    least: float = 0.0
    """Concurrent requests, of all replicas."""
    most: float = math.inf
    input_len: float | None = None
    """Nominal lengths, where a recipe makes a difference."""
    output_len: float | None = None
    model: str | None = None
    tp_below: int | None = None
    from_year: float | None = None
    poll: int = 0
    balance: int = 0
    gather: int = 0
    gather_tokens: int = 0


class Engine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of an engine, as far as its recipe says."""

    cache: str | None = None
    """Dtype of keys and values; ``activations``: theirs."""
    batched_tokens: int | None = None
    """Tokens of one iteration."""
    memory_share: float | None = None
    """Share of a chip's memory that the engine takes."""
    free_share: float | None = None
    """Share of what weights leave of it that the cache takes."""


class EngineRule(Engine, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recipe gives an engine of memory and tokens; of several that fit, the first that sets a field counts."""

    why: str
    source: str
    stack: str
    chip: str | None = None
    model: str | None = None
    precision: str | None = None


class ClientRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A benchmark whose client kept another number of requests under way than the run was meant for, by its recipe."""

    why: str
    source: str
    stack: str
    concurrency: int
    """As the rows have it: what the client offered at most."""
    chip: str | None = None
    model: str | None = None
    from_year: float | None = None
    to_year: float | None = None
    most: int
    """Requests that the engine decodes together: the middle of what the recipe sweeps over, since rows leave it out."""
    waves: int
    """Requests of a run over :attr:`most`."""


class Whole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chips whose degrees count whole cards."""

    chip: str
    why: str


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Latency limits of a benchmark's scenario."""

    model: str
    phase: str
    ttft_limit_s: float
    tpot_limit_s: float


class Sources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``data/sources.toml``."""

    source: tuple[ServeRule, ...]
    stack: tuple[StackWord, ...]
    mode: tuple[ModeWord, ...]
    lengths: tuple[Lengths, ...]
    board: tuple[Board, ...]
    speculative: tuple[Speculative, ...]
    admission: tuple[AdmissionRule, ...]
    engine: tuple[EngineRule, ...]
    client: tuple[ClientRule, ...]
    whole: tuple[Whole, ...]
    limits: tuple[Limits, ...]


def read_data(name: str) -> dict[str, Any]:
    """A TOML file of this package's data."""
    return tomllib.loads(resources.files(__package__).joinpath("data", name).read_text("utf-8"))


@functools.cache
def sources() -> Sources:
    """The rules of sources."""
    return msgspec.convert(read_data("sources.toml"), Sources)


def serve_rule(row: Row) -> ServeRule:
    """The rule of the row's source; one that says only what follows from the names, where nobody wrote a rule."""
    return _rule(row.source, row.framework)


@functools.lru_cache(maxsize=16_384)
def _rule(source: str, framework: str | None) -> ServeRule:
    return first_fitting(sources().source, source, framework) or ServeRule(family=family_of(source), match="", why="no rule")


def stated_chips(row: Row) -> int | None:
    """Chips of the catalogue that the row counts, board by board."""
    if row.stated_chips is None:
        return None
    return row.stated_chips * next((board.chips for board in sources().board if fits(board.words, row.chip)), 1)


def _about(rule: Speculative | AdmissionRule | EngineRule | ClientRule, row: Row) -> bool:
    """Whether a rule's source, model and chip are those of the row."""
    return fits(rule.source, row.source) and fits(rule.model, row.model.name) and fits(rule.chip, row.chip_id)


def _since(first: float | None, year: float | None) -> bool:
    """Whether ``year`` is known to be no earlier than ``first``; true where no first one is set."""
    return first is None or (year is not None and year >= first)


def speculates(row: Row, *, year: float | None, workers_missing: bool) -> Speculative | None:
    """The rule by which the row's run decodes speculatively; None where it does not, as far as rules tell."""
    for entry in sources().speculative:
        late = _since(entry.from_year, year)
        early = entry.to_year is None or (year is not None and year <= entry.to_year)
        told = _about(entry, row) and fits(entry.framework, row.framework)
        if told and late and early and (entry.workers is None or workers_missing):
            return entry
    return None


def admission_of(row: Row, *, stack: str | None, ranks: int, batch: float | None, tp: int = 1, year: float | None = None) -> Admission:
    """When the row's engine looks at waiting requests, as far as the recipe of its benchmark says."""
    found = [
        rule for rule in sources().admission
        if rule.stack == stack and _about(rule, row) and _since(rule.from_year, year)
        and ranks >= rule.ranks and rule.least <= (batch or 1.0) <= rule.most and (rule.tp_below is None or tp < rule.tp_below)
        and rule.input_len in (None, row.input_len) and rule.output_len in (None, row.output_len)
    ]
    return Admission(
        poll=sum(rule.poll for rule in found), balance=sum(rule.balance for rule in found), gather=sum(rule.gather for rule in found),
        gather_tokens=sum(rule.gather_tokens for rule in found),
    )


def engine_of(row: Row, *, stack: str | None) -> Engine:
    """The options that the recipe of the row's benchmark gives its engine."""
    found: dict[str, Any] = {}
    for rule in sources().engine:
        if rule.stack == stack and _about(rule, row) and fits(rule.precision, row.precision or ""):
            found = {name: getattr(rule, name) for name in Engine.__struct_fields__ if getattr(rule, name) is not None} | found
    return Engine(**found)


def client_of(row: Row, *, stack: str | None, year: float | None) -> ClientRule | None:
    """The rule by which the row's number of concurrent requests is not the one that its engine decoded together."""
    load = row.number("concurrency")
    for rule in sources().client:
        late = _since(rule.from_year, year) and (rule.to_year is None or (year is not None and year <= rule.to_year))
        if rule.stack == stack and load == rule.concurrency and late and _about(rule, row):
            return rule
    return None


def parts_of(chip: Chip) -> int:
    """Devices of a card that degrees may count."""
    whole = any(fits(entry.chip, chip.id) for entry in sources().whole)
    return 1 if whole else chip.devices_per_card or 1


def stack_of(row: Row, rule: ServeRule) -> str | None:
    """Key of the software priors: the rule's, else by the words of framework and source."""
    if rule.stack is not None:
        return rule.stack
    for text in (row.framework, row.source):
        for entry in sources().stack:
            if text and fits(entry.words, text):
                return entry.stack
    return None


def mode_of(row: Row, rule: ServeRule) -> Mode:
    """How load was put on: the rule's word, else the phase's."""
    if rule.mode is not None:
        return rule.mode
    return next(entry.mode for entry in sources().mode if fits(entry.words, row.phase or ""))


_RELEASED = re.compile(r"(20[12]\d)(0[1-9]|1[0-2])([0-3]\d)")
_ROUNDS = {"v3.1": 2023.7, "v4.0": 2024.2, "v4.1": 2024.65, "v5.0": 2025.2, "v5.1": 2025.65, "v6.0": 2026.2}
"""MLPerf Inference rounds, when their results were published."""


def year_of(row: Row, rule: ServeRule) -> float | None:
    """When the software was current: the day of measuring, the date of its release, the rule's year; None where nothing tells."""
    if row.date is not None:
        return row.date.year + (row.date.month - 1) / 12
    released = _RELEASED.search(row.framework or "")
    if released:
        return int(released[1]) + (int(released[2]) - 1) / 12
    round_ = general.mlperf_round(row)
    if round_ is not None and round_ in _ROUNDS:
        return _ROUNDS[round_]
    return rule.year if rule.year is not None else general.year_of(row, general.source_rule(row))
