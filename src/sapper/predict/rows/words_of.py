"""From a source's words to the values of a plan and a job: precision, recomputation."""

from __future__ import annotations

import re
from typing import Literal, cast

import msgspec

from sapper.chips.schema import Chip
from sapper.predict.plan import Recompute
from sapper.predict.rows.case import Assumption
from sapper.predict.rows.row import Row, RowFault
from sapper.predict.rows.rules import PrecisionRule, SourceRule, Word, fits, mlperf_round, mlperf_submitter, words


class Repeats(msgspec.Struct, frozen=True, kw_only=True):
    """What a row says of recomputation."""

    recompute: Recompute | None
    """None: not stated, or a policy that a plan has no word for."""
    memory: Literal["peak", "static", "activations"] = "peak"
    """Which memory a memory row means."""
    sequence_parallel: bool | None = None


def repeats(row: Row, rule: SourceRule) -> Repeats:
    """Recomputation as the row words it."""
    if row.recompute is None:
        return Repeats(recompute=None)
    word = row.recompute.lower()
    if word in rule.recompute_of:
        return Repeats(recompute=rule.recompute_of[word])
    for entry in words().recompute:
        if fits(entry.words, word) and fits(entry.source, row.source):
            meaning = None if entry.meaning == "unknown" else cast(Recompute, entry.meaning)
            return Repeats(recompute=meaning, memory=entry.memory or "peak", sequence_parallel=entry.sequence_parallel)
    return Repeats(recompute=None)


def precision(row: Row, chip: Chip) -> tuple[str, tuple[Assumption, ...]]:
    """Canonical precision of the matmuls.

    Raises:
        RowFault: Neither the row nor a rule says.
    """
    if row.precision is not None:
        remark_free = re.sub(r"\(.*?\)|\(.*$", " ", row.precision)
        entry = _narrowest(remark_free) or _narrowest(row.precision)
        if entry is None:
            raise RowFault("SP-ROW-011", "precision", value=row.precision)
        return entry.meaning, ()
    for guess in words().mlperf:
        if mlperf_round(row) is not None and _applies(guess, row, chip):
            return guess.meaning, (Assumption(field="precision", value=guess.meaning, code="assume.precision.mlperf"),)
    raise RowFault("SP-ROW-001", "precision")


def _narrowest(text: str) -> Word | None:
    return next((entry for entry in words().precision if fits(entry.words, text)), None)


def _applies(guess: PrecisionRule, row: Row, chip: Chip) -> bool:
    return (
        fits(guess.framework, row.framework)
        and fits(guess.chip, chip.id)
        and fits(guess.round_, mlperf_round(row))
        and fits(guess.submitter, mlperf_submitter(row))
        and fits(guess.benchmark, row.model.name)
    )
