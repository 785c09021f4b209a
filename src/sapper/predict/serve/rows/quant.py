"""From a source's words for a precision to the dtypes of a served job."""

from __future__ import annotations

import functools
import re

import msgspec

from sapper.chips.schema import Chip
from sapper.predict.rows.case import Assumption
from sapper.predict.rows.row import Row, RowFault
from sapper.predict.rows.rules import fits
from sapper.predict.serve.rows.rules import ServeRule, read_data


class Word(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A word of a source and the dtypes that it means."""

    words: str
    weights: str
    compute: str | None = None
    """None: that of the weights; ``activations``: theirs."""
    activations: str = "bf16"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's name and the precision word that its published weights answer to."""

    words: str
    weights: str


class Attention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Checkpoints whose attention stays in 16 bit."""

    words: str
    weights: str
    why: str


class Precisions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``data/precision.toml``."""

    precision: tuple[Word, ...]
    checkpoint: tuple[Checkpoint, ...]
    attention: tuple[Attention, ...]


class Dtypes(msgspec.Struct, frozen=True, kw_only=True):
    """Dtypes of a served job, as :class:`~sapper.predict.serve.job.ServeJob` names them."""

    weights: str
    compute: str
    activations: str
    cache: str
    wide_attention: bool = False
    """Whether the attention's weights stay in the activations' dtype."""
    assumptions: tuple[Assumption, ...] = ()


@functools.cache
def precisions() -> Precisions:
    """The rules of precisions."""
    return msgspec.convert(read_data("precision.toml"), Precisions)


def dtypes_of(row: Row, rule: ServeRule, chip: Chip, *, cache: str | None = None) -> Dtypes:
    """The dtypes that the row means on ``chip``.

    Args:
        row: The row.
        rule: Of its source.
        chip: What runs it.
        cache: Dtype of keys and values by the recipe of its engine; ``activations``: theirs; None: the rule says.

    Raises:
        RowFault: The row's words are no precision that we know.
    """
    text, assumed = _words(row, rule)
    word = _word(text)
    if word is None:
        raise RowFault("SP-ROW-011", "precision", value=row.precision or text)
    activations = word.activations
    if activations == "bf16" and not _multiplies(chip, "bf16") and _multiplies(chip, "fp16"):
        activations = "fp16"
    weights = activations if word.weights in ("bf16", "fp16") else word.weights
    compute = activations if word.compute == "activations" else word.compute or weights
    if not _multiplies(chip, compute):
        compute = activations
    wide = any(fits(entry.words, row.model.name) and fits(entry.weights, weights) for entry in precisions().attention)
    usual, kept = _cache(rule, weights, activations)
    told, kept = (usual, kept) if cache is None else (activations if cache == "activations" else cache, ())
    return Dtypes(
        weights=weights, compute=compute, activations=activations, cache=told, wide_attention=wide, assumptions=(*assumed, *kept),
    )


def _multiplies(chip: Chip, dtype: str) -> bool:
    """Whether the catalogue knows units of the chip for ``dtype``."""
    peak = chip.peak_flops_per_s.get(dtype)
    return peak is not None and bool(peak.number)


def _words(row: Row, rule: ServeRule) -> tuple[str, tuple[Assumption, ...]]:
    """The words to be read: the row's; where it has none the rule's, else what the model's name says."""
    named = next((entry.weights for entry in precisions().checkpoint if fits(entry.words, row.model.name)), "bf16")
    if row.precision is not None:
        # A table's "fp4" for a model that is published in one 4-bit format alone means that format.
        return (named if named == "mxfp4" and fits("fp4", row.precision) else row.precision), ()
    text = rule.weights or named
    return text, (Assumption(field="precision", value=text, code="assume.serve.precision", values={"name": row.model.name}),)


def _word(text: str) -> Word | None:
    remark_free = re.sub(r"\(.*?\)|\(.*$", " ", text).strip().lower()
    for spelled in (remark_free, text.lower()):
        found = next((entry for entry in precisions().precision if spelled and fits(entry.words, spelled)), None)
        if found is not None:
            return found
    return None


def _cache(rule: ServeRule, weights: str, activations: str) -> tuple[str, tuple[Assumption, ...]]:
    for words, dtype in rule.cache:
        if fits(words, weights):
            return dtype, (Assumption(field="cache_dtype", value=dtype, code="assume.serve.cache", values={"source": rule.family}),)
    return activations, ()
