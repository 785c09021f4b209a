"""Which edits there are for a program: from its tree of modules, what its builder takes, and the fields of its config."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

from torch.nn import functional

import torch
from sapper import files
from sapper.programs import library
from sapper.programs.opened import Opened
from sapper.programs.program import batch_of, load_builder, tensors_in
from sapper.prove.change import functions
from sapper.prove.change.apply import lists_of, own_edits
from sapper.prove.change.edit import Edit, Family, Setting

BATCHES = (0, 1, 3, 7)
DTYPES = ("fp32", "bf16", "fp16")
_WORDS: dict[str, tuple[str, ...]] = {"approximate": ("none", "tanh"), "padding_mode": ("zeros", "reflect", "circular")}
"""Attributes that are words, with what they may be."""
_STEADY = frozenset({"training", "p", "drop_prob", "dropout"})
"""Attributes that are no part of what is computed here, or are edited elsewhere."""


def edits_of(setting: Setting, opened: Opened) -> list[Edit]:
    """All edits, families taking turns, so that the first few are of every kind."""
    groups: list[list[Edit]] = [
        list(found)
        for found in (
            _own(setting), _batches(opened), _lengths(setting, opened), _attributes(opened), _dtypes(setting), _layers(opened),
            _functions(opened), _forms(opened), _fields(setting), _passes(opened),
        )
    ]  # fmt: skip
    turns = itertools.chain.from_iterable(itertools.zip_longest(*groups))
    return list({edit.id: edit for edit in turns if edit is not None}.values())


def _edit(family: Family, name: Any, change: str, /, **args: Any) -> Edit:
    return Edit(family=family, name=str(name), change=change, args=args)


def _own(setting: Setting) -> Iterator[Edit]:
    if setting.edits_file is not None:
        for at, one in enumerate(own_edits(setting.edits_file)):
            yield _edit("own", getattr(one, "__name__", at), "own", spec=setting.edits_file, at=at)


def _batches(opened: Opened) -> Iterator[Edit]:
    now = batch_of(opened.program)
    if now is not None:
        for batch in (*BATCHES, 2 * now + 1):
            if batch != now:
                yield _edit("batch", batch, "resized", batch=batch)


def _lengths(setting: Setting, opened: Opened) -> Iterator[Edit]:
    seq, change = _takes_length(setting, opened)
    if seq is not None:
        key = "seq" if change == "seq" else "length"
        lengths = dict.fromkeys(one for one in (1, seq - 1, seq + 1, 2, 17, 2 * seq, 4 * seq + 1) if one > 0 and one != seq)
        for length in lengths:
            yield _edit("length", length, change, **{key: length})
        yield _edit("dynamic", "lengths", change, row=[seq, max(seq - 1, 1), max(seq // 2, 1), seq + 1, seq], key=key)
    elif any(one.dim() == 4 and min(one.shape[2:]) > 8 for one in tensors_in(opened.program.inputs)):
        for rows in (1, 3):
            yield _edit("length", f"-{rows} rows", "cropped", rows=rows)


def _takes_length(setting: Setting, opened: Opened) -> tuple[int | None, str]:
    """Tokens of a sample now, and how to change their number."""
    by_builder = library.is_config(setting.target) or "seq" in inspect.signature(load_builder(setting.target)[0]).parameters
    if by_builder and opened.program.seq is not None:
        return opened.program.seq, "seq"
    shapes = [one.shape for one in tensors_in(opened.program.inputs) if one.dim() > 1]
    words = [one for one in tensors_in(opened.program.inputs) if one.dim() == 2 and not one.is_floating_point()]
    if words and len({shape[1] for shape in shapes}) == 1:
        return int(words[0].shape[1]), "cut"
    return None, ""


def _dtypes(setting: Setting) -> Iterator[Edit]:
    for dtype in DTYPES:
        if dtype != setting.dtype:
            yield _edit("dtype", dtype, "dtype", dtype=dtype)


def _layers(opened: Opened) -> Iterator[Edit]:
    for name, found in lists_of(opened.program.module).items():
        last = len(found) - 1
        for how, at in (("drop", last), ("add", last), ("swap", 0), ("drop", 0)):
            yield _edit("layers", f"{how} {name}.{at}", "layers", of=name, how=how, at=at)


def _functions(opened: Opened) -> Iterator[Edit]:
    with functions.Seen() as seen, torch.no_grad():
        opened.program.call()
    if functional.scaled_dot_product_attention in seen.functions:
        for name in functions.ATTENTION:
            yield _edit("attention", name, "swap", kind="attention", name=name)
    used = dict.fromkeys(functions.SEEN_AS[one] for one in seen.functions if one in functions.SEEN_AS)
    for frm in used:
        for name in functions.ACTIVATIONS:
            if name != frm:
                yield _edit("activation", f"{frm} to {name}", "swap", kind="activation", name=name, frm=frm)
    for name, (func, _) in functions.NORMS.items():
        if func in seen.functions:
            yield _edit("norm", name, "swap", kind="norm", name=name)


def _attributes(opened: Opened) -> Iterator[Edit]:
    seen = set()
    for module in opened.program.module.modules():
        kind = type(module).__name__
        for name, value in vars(module).items():
            if name.startswith("_") or name in _STEADY or "drop" in name or (kind, name) in seen:
                continue
            for other in _others(name, value):
                seen.add((kind, name))
                yield _edit("attribute", f"{kind}.{name}={other}", "attribute", of=kind, name=name, value=other)


def _others(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,) if "causal" in name else ()
    if isinstance(value, float) and 0 < abs(value) < 1e6:
        return (1e-2,) if value < 1e-3 else (value / 2,)
    if name in _WORDS and value in _WORDS[name]:
        return tuple(one for one in _WORDS[name] if one != value)
    return ()


def _forms(opened: Opened) -> Iterator[Edit]:
    given = tensors_in(opened.program.inputs)
    yield _edit("layout", "strided", "strided")
    if any(one.dim() > 1 for one in given):
        yield _edit("layout", "transposed", "transposed")
    if any(one.dim() == 4 for one in given):
        yield _edit("layout", "channels last", "channels_last")
    if any(one.dtype == torch.int64 for one in given):
        yield _edit("index", "int32", "narrow_ints")


def _passes(opened: Opened) -> Iterator[Edit]:
    yield _edit("mode", "evaluation", "evaluated")
    if lists_of(opened.program.module):
        yield _edit("checkpoint", "each layer", "checkpointed")
    yield _edit("frozen", "first half", "frozen", share=0.5)


def _fields(setting: Setting) -> Iterator[Edit]:
    """Fields of a config, one at a time; what the library refuses is skipped later."""
    if not library.is_config(setting.target):
        return
    raw = files.read_json(library.config_path(setting.target))
    heads, hidden = raw.get("num_attention_heads") or raw.get("n_head"), raw.get("hidden_size") or raw.get("n_embd")
    wanted: dict[str, list[Any]] = {
        "num_key_value_heads": [1, heads], "tie_word_embeddings": [not raw.get("tie_word_embeddings", False)],
        "num_attention_heads": [heads // 2 if heads else None, 1], "n_head": [heads // 2 if heads else None],
        "hidden_act": ["relu", "silu", "gelu", "gelu_new"], "activation_function": ["relu", "gelu", "gelu_new"],
        "head_dim": [hidden // heads + 8 if heads and hidden else None], "rms_norm_eps": [1e-3], "layer_norm_epsilon": [1e-3],
    }  # fmt: skip
    for name in ("intermediate_size", "vocab_size", "n_inner"):
        if isinstance(raw.get(name), int):
            wanted[name] = [raw[name] + 1, raw[name] - 1]
    for name, values in wanted.items():
        for value in values:
            if name in raw and value not in (None, raw[name]):
                yield _edit("config", f"{name}={value}", "field", field=name, value=value)
