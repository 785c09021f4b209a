"""A model from published dims, as measurement files carry them.

A publication names a model and gives some of its dims. Where the name means a bundled model (or another size of its
line), that model's config is the template, and the dims given replace what they name: truncated layer counts win.
Where nothing is known of the line, the dims alone make a decoder; whether its feed-forward is gated and its embedding
tied is what comes closest to the published number of parameters. What stays unknown is a MissingFact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sapper import files
from sapper.errors import BadValue, MissingFact
from sapper.workloads.config import bundled, from_config
from sapper.workloads.fields import MAX_COUNT, MAX_LAYERS
from sapper.workloads.generic import STYLES, Style, build, closest
from sapper.workloads.model import Model
from sapper.workloads.names import Meaning, meaning
from sapper.workloads.notes import note

KEYS: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels"),
    "ffn": ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff"),
    "vocab": ("vocab_size", "padded_vocab_size"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "num_routed_experts"),
    "topk": ("num_experts_per_tok",),
}
"""Dim -> the config fields that hold it, of which a family has one."""

_FLOATS = ("params_b",)
_PLAIN = ("name", "arch", "seq_len", *_FLOATS)
_LEADING_DENSE = ("first_k_dense_replace", "num_dense_layers")
_TOLERANCE = 0.03
"""Published parameter counts are rounded; beyond this the difference is told."""


@dataclass(frozen=True)
class Dims:
    """Dims that a publication gives; None where it does not."""

    name: str
    arch: str | None
    values: Mapping[str, int]
    params_b: float | None
    seq_len: int | None
    unread: tuple[str, ...]

    def get(self, key: str) -> int | None:
        """A dim, or None."""
        return self.values.get(key)


def from_dims(dims: Mapping[str, Any], *, name: str | None = None) -> Model:
    """The model that published dims describe.

    Args:
        dims: ``name, arch (dense, moe, moe-mla), params_b, layers, hidden, heads, kv_heads, head_dim, ffn, vocab, seq_len,
            experts, topk``; each may be absent or null.
        name: Overrides ``dims["name"]``.

    Raises:
        BadValue: A dim that cannot be, or dims that contradict each other.
        MissingFact: The name is not known and a dim that the arithmetic needs is not given.
    """
    read = _read(dims, name)
    found = meaning(read.name) if read.name else Meaning(None, False)
    style = next((style for prefix, style in STYLES.items() if read.name.lower().startswith(prefix)), None)
    alone = style is not None and (style.beats_config or not found.exact) and all(read.get(key) for key in ("layers", "hidden", "heads"))
    if found.template is None or alone or not _fits(found, read):
        model = _from_dims_alone(read, style, found)
    else:
        model = _from_template(read, found)
    return replace(model, notes=(*model.notes, *_told(read, model)), source="dims")


def _read(dims: Mapping[str, Any], name: str | None) -> Dims:
    if not isinstance(dims, Mapping):
        raise BadValue("SP-MODEL-003", where="model", expected="object", value=str(dims)[:80])
    called = name if name is not None else dims.get("name")
    if called is not None and not isinstance(called, str):
        raise BadValue("SP-MODEL-003", where="model.name", expected="text", value=str(called)[:80])
    values = {}
    for key in KEYS:
        value = dims.get(key)
        if value is not None:
            values[key] = _count(key, value, MAX_LAYERS if key == "layers" else MAX_COUNT)
    seq_len = None if dims.get("seq_len") is None else _count("seq_len", dims["seq_len"], MAX_COUNT)
    arch = dims.get("arch")
    if arch is not None and arch not in ("dense", "moe", "moe-mla"):
        raise BadValue("SP-MODEL-004", where="model.arch", expected="dense, moe, moe-mla", value=str(arch)[:80])
    unread = tuple(sorted(str(key) for key in dims if key not in KEYS and key not in _PLAIN and dims[key] is not None))
    return Dims(called or "", arch, values, _positive("params_b", dims.get("params_b")), seq_len, unread)


def _count(key: str, value: Any, limit: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue("SP-MODEL-003", where=f"model.{key}", expected="whole number", value=str(value)[:80])
    if not 0 < value <= limit:
        raise BadValue("SP-MODEL-004", where=f"model.{key}", expected=f"1 - {limit}", value=str(value)[:80])
    return value


def _positive(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadValue("SP-MODEL-003", where=f"model.{key}", expected="number", value=str(value)[:80])
    if not math.isfinite(value) or value <= 0:
        raise BadValue("SP-MODEL-004", where=f"model.{key}", expected="> 0", value=str(value)[:80])
    return float(value)


# ---- from the config of a bundled model --------------------------------------------------------------------------


def _template(stem: str) -> dict[str, Any]:
    raw: dict[str, Any] = files.read_json(bundled()[stem])
    return raw


def _inner(raw: dict[str, Any]) -> dict[str, Any]:
    """The table that holds the language model's dims."""
    inner = raw.get("text_config")
    return inner if isinstance(inner, dict) else raw


def _field(table: Mapping[str, Any], dim: str) -> str | None:
    return next((key for key in KEYS[dim] if key in table), None)


def _fits(found: Meaning, dims: Dims) -> bool:
    """Whether the template's architecture can carry the dims: experts need a mixture, grouped heads a family that has them."""
    assert found.template is not None
    table = _inner(_template(found.template))
    if found.exact:
        return True
    mixture = _field(table, "experts") is not None
    grouped = _field(table, "kv_heads") is not None
    kv_heads = dims.get("kv_heads")
    return mixture == (dims.get("experts") is not None) and (grouped or kv_heads is None or kv_heads == dims.get("heads"))


def _from_template(dims: Dims, found: Meaning) -> Model:
    assert found.template is not None
    raw = _template(found.template)
    table = _inner(raw)
    if not found.exact:
        _need(dims, "layers", "hidden", "heads")
    before = dict(table)
    for dim, value in dims.values.items():
        _put(table, before, dim, value, found.template)
    _settle(table, before, dims)
    model = from_config(raw, name=dims.name, where=f"{dims.name} (dims)")
    told = () if found.exact else (note("line", name=found.template),)
    return replace(model, notes=(*model.notes, *told, *_cut_note(before, table)))


def _put(table: dict[str, Any], before: Mapping[str, Any], dim: str, value: int, template: str) -> None:
    """Writes one dim into the template's table."""
    kind = table.get("model_type")
    key = _field(table, dim)
    if dim == "ffn":
        _put_ffn(table, before, value)
    elif dim in ("head_dim", "kv_heads") and ("kv_lora_rank" in table or "attention_kv_lora_dim" in table):
        return  # latent attention has neither: its head dims are the template's, its key-value heads are its heads
    elif key is not None:
        table[key] = value
    elif dim == "head_dim" or (dim == "kv_heads" and value != table.get(_field(table, "heads") or "")):
        if kind in ("llama", "mistral", "aquila", "Yi", "minicpm", "internlm2", "qwen2_moe") or (
            dim == "head_dim" and "hidden_size" in table
        ):
            table["num_key_value_heads" if dim == "kv_heads" else "head_dim"] = value
        else:
            raise BadValue("SP-MODEL-021", where=f"model.{dim}", value=value, name=template)
    elif dim != "kv_heads":
        raise BadValue("SP-MODEL-021", where=f"model.{dim}", value=value, name=template)


def _put_ffn(table: dict[str, Any], before: Mapping[str, Any], value: int) -> None:
    """The width that publications call ffn: of an expert where there are experts, unless it is the dense layers' known one."""
    expert = "moe_intermediate_size"
    if table.get("model_type") == "qwen":
        table["intermediate_size"] = 2 * value
    elif expert in table:
        if value not in (before[expert], before.get("intermediate_size")):
            table[expert] = value
    else:
        key = _field(table, "ffn")
        hidden = table.get(_field(table, "hidden") or "", 0)
        if key is not None:
            table[key] = value
        elif table.get("model_type") == "gpt2":
            table["n_inner"] = value
        elif value != 4 * hidden:
            raise BadValue("SP-MODEL-021", where="model.ffn", value=value, name=str(table.get("model_type")))


def _settle(table: dict[str, Any], before: Mapping[str, Any], dims: Dims) -> None:
    """What follows from dims that changed: head counts, head dims, layer patterns, positions."""
    heads, hidden, layers = (_field(table, dim) for dim in ("heads", "hidden", "layers"))
    if heads is None or hidden is None or layers is None:
        return  # an architecture without attention has no head counts that could follow
    changed = table[heads] != before.get(heads) or table[hidden] != before.get(hidden)
    kv_heads = _field(table, "kv_heads")
    if changed and dims.get("kv_heads") is None and kv_heads and kv_heads in before:
        table[kv_heads] = table[heads]
    if changed and dims.get("ffn") is None and dims.get("hidden") is not None:
        key = _field(table, "ffn")
        if key and table.get("model_type") in ("opt", "gpt2", "gpt_neox", "gpt_bigcode"):
            table[key] = 4 * table[hidden]
    if "word_embed_proj_dim" in table:
        table["word_embed_proj_dim"] = table[hidden]
    if changed and dims.get("head_dim") is None:
        for key in KEYS["head_dim"]:
            if key in table and key in before and table[hidden] % table[heads] == 0 and before[hidden] == before[heads] * before[key]:
                table[key] = table[hidden] // table[heads]
    if table[layers] != before[layers]:
        _cut(table, before, layers)
    if "n_positions" in table and dims.seq_len is not None:
        table["n_positions"] = max(dims.seq_len, table["n_positions"] if dims.get("hidden") is None else 0)


def _cut(table: dict[str, Any], before: Mapping[str, Any], layers: str) -> None:
    """Another number of layers: patterns by layer start anew, leading dense layers shrink in proportion, one at least."""
    for key in ("layer_types", "no_rope_layers", "moe_layers", "attention_types"):
        table.pop(key, None)
    if table.get("model_type") == "gpt_neo":
        table["attention_types"] = [[["global"], 1], *([[["local", "global"], table[layers] // 2]] if table[layers] > 1 else [])]
    for key in _LEADING_DENSE:
        dense = before.get(key)
        if isinstance(dense, int) and dense > 0 and table[layers] < before[layers]:
            table[key] = max(1, round(dense * table[layers] / before[layers]))


def _cut_note(before: Mapping[str, Any], table: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(note("dense_cut", before=before[key], after=table[key]) for key in _LEADING_DENSE if before.get(key) != table.get(key))


# ---- from the dims alone -----------------------------------------------------------------------------------------


def _from_dims_alone(dims: Dims, style: Style | None, found: Meaning) -> Model:
    _need(dims, "layers", "hidden", "heads")
    if dims.arch == "moe-mla":
        raise MissingFact("SP-MODEL-020", where=dims.name or "model", fields="q_lora_rank, kv_lora_rank", name=dims.name or "-")
    if dims.arch == "moe":
        _need(dims, "experts", "topk")
    if style is None and found.template is not None and _inner(_template(found.template)).get("model_type") == "gpt2":
        style = STYLES["gpt"]
    sizes = dict(dims.values)
    if style is not None:
        return build(dims.name, sizes, style, seq_len=dims.seq_len, params_b=dims.params_b)
    return closest(dims.name, sizes, params_b=dims.params_b)


def _need(dims: Dims, *keys: str) -> None:
    missing = [key for key in keys if dims.get(key) is None]
    if missing:
        raise MissingFact("SP-MODEL-020", where=dims.name or "model", fields=", ".join(missing), name=dims.name or "-")


def _told(dims: Dims, model: Model) -> tuple[str, ...]:
    told = []
    if dims.unread:
        told.append(note("unread", fields=", ".join(dims.unread)))
    if dims.params_b is not None and abs(model.params / (dims.params_b * 1e9) - 1) > _TOLERANCE:
        told.append(note("params_differ", published=f"{dims.params_b:g}", built=f"{model.params / 1e9:.3g}"))
    return tuple(told)
