"""A toy of a model: its own config.json with small widths, so that all its kinds of layers run in milliseconds.

What makes the architecture stays (layer types, ties, norms, activations, routing, grouping of heads); widths, vocabulary and numbers of
experts shrink. Dropout is switched on where the model has it, so that its seeds are proved too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sapper.errors import BadValue, SapperError
from sapper.workloads.config import from_config
from sapper.workloads.dims import KEYS

HEADS, HEAD_DIM, FFN, VOCAB, EXPERTS, RANK, STATE = 4, 8, 48, 96, 4, 16, 8
DROPOUT = 0.1

_SIZES: dict[str, int] = {
    **dict.fromkeys((*KEYS["ffn"], "moe_intermediate_size", "shared_expert_intermediate_size", "mlp_hidden_size"), FFN),
    **dict.fromkeys(KEYS["vocab"], VOCAB),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), RANK),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), HEAD_DIM),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size"), STATE),
    "sliding_window": 8, "n_group": 1, "topk_group": 1, "n_groups": 1, "mamba_n_groups": 1, "index_topk": 8, "index_n_heads": 2,
    "index_head_dim": 16,
}  # fmt: skip
"""Config field -> its toy value, where it is greater."""
_DROPOUTS = ("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "hidden_dropout_prob",
             "attention_probs_dropout_prob", "activation_dropout", "residual_dropout")  # fmt: skip

_SCANS = (("mamba_expand", "mamba_n_heads", "mamba_d_head"), ("mamba_expand", "n_mamba_heads", "mamba_headdim"),
          ("expand", "num_heads", "head_dim"))  # fmt: skip
"""State space layers: factor of the width, number of heads, size of one."""


def toy(raw: Mapping[str, Any], *, blocks: int, seq: int, tp: int = 1, name: str) -> dict[str, Any]:
    """The config of a toy.

    Args:
        raw: A parsed config.json.
        blocks: Layers that it has.
        seq: Tokens that its positions must reach.
        tp: Tensor parallel degree by which its heads can be cut.
        name: The model, for errors.

    Raises:
        BadValue: The family cannot be made that small.
    """
    found = dict(raw)
    inner = dict(found["text_config"]) if isinstance(found.get("text_config"), Mapping) else found
    _layers(inner, blocks)
    _widths(inner, tp)
    for key, value in _SIZES.items():
        if _is_count(inner.get(key)) and inner[key] > value:
            inner[key] = value
    _experts(inner)
    for key in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"):
        if _is_count(inner.get(key)):
            inner[key] = max(seq, min(inner[key], 4 * seq))
    for key in ("pad_token_id", *(key for key in inner if key.endswith("_token_id"))):
        if key not in inner or (_is_count(inner[key]) and inner[key] >= VOCAB):
            inner[key] = 0  # the default of its class may lie beyond the toy vocabulary
    for key in _DROPOUTS:
        if isinstance(inner.get(key), float | int) and not isinstance(inner[key], bool):
            inner[key] = DROPOUT
    if inner is not found:
        found["text_config"] = inner
    for key in ("quantization_config", "torch_dtype", "dtype"):
        found.pop(key, None)
    try:
        from_config(found, name=name, where=f"{name} (toy)")
    except SapperError as error:
        raise BadValue("SP-MIX-280", where=name, problem=error.render()) from error
    return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _layers(table: dict[str, Any], blocks: int) -> None:
    """Fewer layers; patterns by layer are thinned, so that every kind stays as long as there is room."""
    key = next((key for key in KEYS["layers"] if _is_count(table.get(key))), None)
    before = table[key] if key else blocks
    if key is None or before == blocks:
        return
    table[key] = blocks
    for pattern, values in table.items():
        if isinstance(values, list) and len(values) == before:
            table[pattern] = _thinned(values, blocks)
    if "attention_types" in table:  # GPT-Neo counts its pattern's turns
        kinds = [kind for turn, count in table["attention_types"] for kind in turn * count]
        table["attention_types"] = [[[kind], 1] for kind in _thinned(kinds, blocks)]
    for dense in ("first_k_dense_replace", "num_dense_layers"):
        if _is_count(table.get(dense)):
            table[dense] = max(1, round(table[dense] * blocks / before))
    for places in ("attn_layer_indices", "full_attn_idxs"):
        if isinstance(table.get(places), list):
            table[places] = sorted({at * blocks // before for at in table[places]})


def _thinned(values: list[Any], count: int) -> list[Any]:
    """The beginning of a pattern, or every so-manieth of it: whichever keeps more kinds."""
    every = [values[at * len(values) // count] for at in range(count)]
    return max(values[:count], every, key=lambda some: len({str(one) for one in some}))


def _widths(table: dict[str, Any], tp: int) -> None:
    """Heads and hidden size; query heads share key-value heads where they did, in the same number where that many fit."""
    heads = math.lcm(HEADS, 2 * tp)
    count = next((key for key in KEYS["heads"] if _is_count(table.get(key))), None)
    shared = next((key for key in KEYS["kv_heads"] if _is_count(table.get(key))), None)
    if count is not None:
        ratio = table[count] / table[shared] if shared else 1.0
        table[count] = heads
        if shared:
            table[shared] = max(one for one in range(tp, heads + 1, tp) if heads % one == 0 and one <= max(heads / ratio, tp))
    for key in KEYS["head_dim"]:
        if _is_count(table.get(key)):
            table[key] = HEAD_DIM
    for key in (*KEYS["hidden"], "word_embed_proj_dim", "embedding_size"):
        if _is_count(table.get(key)):
            table[key] = heads * HEAD_DIM
    _scans(table, heads * HEAD_DIM)


def _scans(table: dict[str, Any], hidden: int) -> None:
    """State space layers: heads times their size is the expanded width."""
    for expand, count, size in _SCANS:
        if _is_count(table.get(expand)) and _is_count(table.get(count)):
            table[count] = table[expand] * hidden // HEAD_DIM
            if size in table:
                table[size] = HEAD_DIM
    if _is_count(table.get("mamba_d_ssm")):
        table["mamba_d_ssm"] = table.get("mamba_n_heads", 1) * HEAD_DIM
    if _is_count(table.get("time_step_rank")):
        table["time_step_rank"] = max(1, hidden // 16)


def _experts(table: dict[str, Any]) -> None:
    for key in KEYS["experts"]:
        if _is_count(table.get(key)):
            table[key] = min(table[key], EXPERTS)
    for key in (*KEYS["topk"], "experts_per_token", "num_experts_per_token", "moe_topk"):
        if _is_count(table.get(key)):
            table[key] = min(table[key], 2)
    if "n_routed_experts" in table:
        table |= {"n_group": 1, "topk_group": 1}  # the classes' own defaults want more experts
    if "router_aux_loss_coef" in table:
        table["output_router_logits"] = True
