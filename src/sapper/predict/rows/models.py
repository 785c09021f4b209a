"""The workload of a row: its dims as the config of a known kind, or a known model's config with the row's layers."""

from __future__ import annotations

import functools
import json
import math
from typing import Any, Literal

import msgspec

from sapper.errors import MissingFact
from sapper.predict.rows.case import Assumption
from sapper.predict.rows.row import Model, Row, RowFault, required
from sapper.predict.rows.rules import Word, fits, read_data, source_rule
from sapper.workloads.config import from_config
from sapper.workloads.dims import from_dims
from sapper.workloads.op import Workload

Attention = Literal["flash", "unfused"]
PLAIN = ("gpt2", "bert", "opt", "bloom", "mpt", "gpt_bigcode")
"""Kinds whose feed-forward is two matrices, four widths wide unless stated."""
MOST_OFF = 1.6
"""A model whose params are further from the row's than this factor is not the row's model."""


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model whose rows leave something out."""

    match: str
    source: str
    config: dict[str, Any]


class VocabWord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Vocabulary of models by name."""

    words: str
    vocab: int
    source: str


class Models(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``data/models.toml``."""

    known: tuple[Known, ...]
    kind: tuple[Word, ...]
    vocab: tuple[VocabWord, ...]


@functools.cache
def models() -> Models:
    """The rules of models."""
    return msgspec.convert(read_data("models.toml"), Models)


def workload_of(row: Row, *, dtype: str, attention: Attention) -> tuple[Workload, tuple[Assumption, ...]]:
    """One sequence of the row's model.

    Raises:
        RowFault: A dim that the row leaves out and no rule supplies, or params that contradict the row's.
        SapperError: Dims that make no model.
    """
    seq_len = required(row.model.seq_len, "model.seq_len")
    model, rule = row.model, source_rule(row)
    told: tuple[Assumption, ...] = ()
    if model.vocab is None and rule.vocab is not None:
        model, told = msgspec.structs.replace(model, vocab=rule.vocab), (_supplied("vocab", rule.vocab, rule.family),)
    try:
        config, assumed = config_of(model, attention=attention)
        workload = _workload(json.dumps(config, sort_keys=True), row.model.name, seq_len, dtype, attention)
    except RowFault:
        workload, assumed = _by_name(row.model, seq_len, dtype=dtype, attention=attention)
    stated = row.model.params_b
    if stated is not None and abs(math.log(workload.params / (stated * 1e9))) > math.log(MOST_OFF):
        values = {"name": row.model.name, "found": f"{workload.params / 1e9:.3g}", "stated": f"{stated:g}"}
        raise RowFault("SP-ROW-022", "model.params_b", **values)
    return workload, (*told, *assumed)


def _by_name(model: Model, seq_len: int, *, dtype: str, attention: Attention) -> tuple[Workload, tuple[Assumption, ...]]:
    """The bundled model that the row names, with the row's dims in place of its own, where the dims alone make none.

    Raises:
        RowFault: No model of that name either.
    """
    dims = {name: value for name, value in msgspec.to_builtins(model).items() if value is not None}
    try:
        found = from_dims(dims, name=model.name)
    except MissingFact as missing:
        first = str(missing.values["fields"]).split(", ")[0]
        raise RowFault("SP-ROW-001", f"model.{first}") from missing
    source = "; ".join(found.notes) or found.name
    assumption = Assumption(field="model", value=model.name, code="assume.model.known", values={"source": source})
    return found.workload(seq_len, dtype=dtype, attention_impl=attention), (assumption,)


@functools.lru_cache(maxsize=1024)
def _workload(config: str, name: str, seq_len: int, dtype: str, attention: Attention) -> Workload:
    found = from_config(json.loads(config), name=name, where=f"model {name}")
    return found.workload(seq_len, dtype=dtype, attention_impl=attention)


def config_of(model: Model, *, attention: Attention) -> tuple[dict[str, Any], tuple[Assumption, ...]]:
    """A config that the row's dims fill.

    Raises:
        RowFault: A dim is missing.
    """
    known = _known(model)
    if known is not None:
        layers = model.layers or known.config["num_hidden_layers"]
        config = known.config | {"num_hidden_layers": layers, "max_position_embeddings": max(model.seq_len or 1, 2048)}
        return config, (Assumption(field="model", value=model.name, code="assume.model.known", values={"source": known.source}),)
    if "mla" in model.arch:
        raise RowFault("SP-ROW-001", "model.kv_lora_rank")
    dims, assumed = _dims(model, kind := _kind(model))
    if model.experts:
        required(model.topk, "model.topk")
        return _mixture(dims, model), assumed
    return _FILL[kind](dims, model, 0.1 if attention == "unfused" else 0.0), assumed


def _known(model: Model) -> Known | None:
    for entry in models().known:
        if fits(entry.match, model.name) and model.hidden in (None, entry.config["hidden_size"]):
            return entry
    return None


def _kind(model: Model) -> str:
    for entry in models().kind:
        if fits(entry.words, model.name):
            return entry.meaning
    if model.params_b and model.layers and model.hidden and model.ffn:
        attention = 4 * model.hidden**2
        counts = {kind: model.layers * (attention + n * model.hidden * model.ffn) for kind, n in (("llama", 3), ("gpt2", 2))}
        stated = model.params_b * 1e9
        return min(counts, key=lambda kind: abs(math.log(counts[kind] / stated)))
    return "llama"


class Dims(msgspec.Struct, frozen=True):
    """Dims that every kind needs."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    positions: int


def _dims(model: Model, kind: str) -> tuple[Dims, tuple[Assumption, ...]]:
    layers, hidden = required(model.layers, "model.layers"), required(model.hidden, "model.hidden")
    heads = required(model.heads, "model.heads")
    assumed: tuple[Assumption, ...] = ()
    ffn, vocab = model.ffn, model.vocab
    if ffn is None:
        if kind not in PLAIN:
            raise RowFault("SP-ROW-001", "model.ffn")
        ffn = 4 * hidden
        assumed += (_supplied("ffn", ffn, "4 x hidden (GPT, arXiv:2005.14165)"),)
    if vocab is None:
        entry = next((entry for entry in models().vocab if fits(entry.words, model.name)), None)
        if entry is None:
            raise RowFault("SP-ROW-001", "model.vocab")
        vocab = entry.vocab
        assumed += (_supplied("vocab", vocab, entry.source),)
    return Dims(layers, hidden, heads, model.kv_heads or heads, ffn, vocab, max(model.seq_len or 1, 1024)), assumed


def _supplied(field: str, value: int, source: str) -> Assumption:
    return Assumption(field=f"model.{field}", value=str(value), code="assume.model", values={"source": source})


def _llama(dims: Dims, model: Model, dropout: float, *, kind: str = "llama") -> dict[str, Any]:
    return {
        "model_type": kind, "hidden_size": dims.hidden, "intermediate_size": dims.ffn, "num_hidden_layers": dims.layers,
        "num_attention_heads": dims.heads, "num_key_value_heads": dims.kv_heads, "vocab_size": dims.vocab,
        "max_position_embeddings": dims.positions, "tie_word_embeddings": kind == "gemma" or _tied(dims, model),
        **({"head_dim": model.head_dim} if model.head_dim else {"head_dim": 256} if kind == "gemma" else {}),
    }


def _tied(dims: Dims, model: Model) -> bool:
    """Whether one embedding serves both ends: where the row's params say so (small Qwen, MiniCPM), else not."""
    if model.params_b is None or model.params_b > 5:
        return False
    body = dims.layers * (dims.hidden * dims.hidden * (2 + 2 * dims.kv_heads / dims.heads) + 3 * dims.hidden * dims.ffn)
    once, twice = (body + n * dims.vocab * dims.hidden for n in (1, 2))
    return abs(math.log(once / (model.params_b * 1e9))) < abs(math.log(twice / (model.params_b * 1e9)))


def _mixture(dims: Dims, model: Model) -> dict[str, Any]:
    config = _llama(dims, model, 0.0, kind="mixtral")
    return config | {"num_local_experts": model.experts, "num_experts_per_tok": model.topk, "sliding_window": None}


def _gpt2(dims: Dims, model: Model, dropout: float) -> dict[str, Any]:
    if dims.kv_heads != dims.heads:
        return _bigcode(dims, model, dropout) if dims.kv_heads == 1 else _llama(dims, model, dropout)
    return {
        "model_type": "gpt2", "n_embd": dims.hidden, "n_inner": dims.ffn, "n_layer": dims.layers, "n_head": dims.heads,
        "vocab_size": dims.vocab, "n_positions": dims.positions, "resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout,
    }


def _bigcode(dims: Dims, model: Model, dropout: float) -> dict[str, Any]:
    config = _gpt2(msgspec.structs.replace(dims, kv_heads=dims.heads), model, dropout)
    return config | {"model_type": "gpt_bigcode", "multi_query": dims.kv_heads == 1}


def _bert(dims: Dims, model: Model, dropout: float) -> dict[str, Any]:
    return {
        "model_type": "bert", "hidden_size": dims.hidden, "intermediate_size": dims.ffn, "num_hidden_layers": dims.layers,
        "num_attention_heads": dims.heads, "vocab_size": dims.vocab, "max_position_embeddings": dims.positions,
        "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout,
    }


def _opt(dims: Dims, model: Model, dropout: float) -> dict[str, Any]:
    return {
        "model_type": "opt", "hidden_size": dims.hidden, "ffn_dim": dims.ffn, "num_hidden_layers": dims.layers,
        "num_attention_heads": dims.heads, "vocab_size": dims.vocab, "max_position_embeddings": dims.positions,
        "word_embed_proj_dim": dims.hidden, "dropout": dropout,
    }


def _bloom(dims: Dims, model: Model, dropout: float) -> dict[str, Any]:
    return {
        "model_type": "bloom", "hidden_size": dims.hidden, "n_layer": dims.layers, "n_head": dims.heads, "vocab_size": dims.vocab,
        "hidden_dropout": dropout, "attention_dropout": dropout,
    }


def _mpt(dims: Dims, model: Model, dropout: float) -> dict[str, Any]:
    if dims.ffn % dims.hidden:
        return _gpt2(dims, model, dropout)
    return {
        "model_type": "mpt", "d_model": dims.hidden, "expansion_ratio": dims.ffn // dims.hidden, "n_layers": dims.layers,
        "n_heads": dims.heads, "vocab_size": dims.vocab, "max_seq_len": dims.positions, "no_bias": True,
    }


_FILL = {
    "llama": _llama, "gemma": lambda dims, model, dropout: _llama(dims, model, dropout, kind="gemma"), "gpt2": _gpt2,
    "gpt_bigcode": _bigcode, "bert": _bert, "opt": _opt, "bloom": _bloom, "mpt": _mpt,
}
