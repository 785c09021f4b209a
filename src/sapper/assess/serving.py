"""Serving: the chapter on serving as data."""

from __future__ import annotations

from typing import Literal

import msgspec

from sapper.predict.serve.answer import ServeAnswer
from sapper.predict.serve.estimate import Load
from sapper.predict.serve.frontier import Frontier
from sapper.predict.serve.slo import Slo


class ServeOption(msgspec.Struct, frozen=True, kw_only=True):
    """One chip: its answer or its refusal, never neither."""

    chip: str
    """Catalogue id."""
    label: str
    is_reference: bool
    answer: ServeAnswer | None
    frontier: Frontier | None
    refusal_code: str | None
    refusal_kind: Literal["missing", "no-fit", "bad", "ours"] | None
    why: dict[str, str]
    """Why there is no answer, by language."""
    remedy: dict[str, str]
    evidence: tuple[int, ...]


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """The chapter: one load, every chip's answer."""

    load: Load
    slo: Slo | None
    weights: tuple[str, ...]
    """Dtypes that were allowed."""
    cache_dtype: str
    options: tuple[ServeOption, ...]
    """The reference's chip first; each chip once."""

    @property
    def answered(self) -> tuple[ServeOption, ...]:
        """Options with an answer, fewest chips first, then fastest per chip."""
        known = [option for option in self.options if option.answer is not None]
        return tuple(sorted(known, key=lambda one: (_chips(one), -_rate(one))))


def _chips(option: ServeOption) -> int:
    assert option.answer is not None
    return option.answer.estimate.chips


def _rate(option: ServeOption) -> float:
    assert option.answer is not None
    return option.answer.estimate.chip_tokens_per_s.mid
