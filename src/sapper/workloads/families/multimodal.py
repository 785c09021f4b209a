"""Models of text and images: the language model is priced, the vision tower is named as not priced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sapper.workloads.families.gemma import gemma3_text
from sapper.workloads.families.linear_attention import qwen3_5_moe_text, qwen3_5_text
from sapper.workloads.families.llama import llama, ministral3, mistral
from sapper.workloads.families.mixture import llama4_text
from sapper.workloads.families.qwen import qwen3, qwen3_moe
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model

_VISION = (
    "vision_config",
    "mm_tokens_per_image",
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "image_token_id",
    "boi_token_id",
    "eoi_token_id",
    "video_token_id",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
    "vision_feature_layer",
    "vision_feature_select_strategy",
    "image_seq_length",
    "ignore_index",
    "image_grid_pinpoints",
    "use_image_newline_parameter",
    "vocab_size",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_tower",
    "mm_vision_tower",
    "tie_word_embeddings",
    "vision_start_token_id",
    "vision_end_token_id",
)


def _around(*readers: tuple[str, Callable[[Fields], Model]]) -> Callable[[Fields], Model]:
    """A reader of configs with a ``text_config`` of one of the given types, the first where it names none."""
    known = dict(readers)

    def read(f: Fields) -> Model:
        f.ignore(*_VISION)
        inner = f.table("text_config")
        if inner is None:
            raise f.missing("text_config")
        kind = inner.text("model_type", default=readers[0][0], choices=tuple(known))
        if f.given("tie_word_embeddings") and not inner.given("tie_word_embeddings"):
            inner.raw = {**inner.raw, "tie_word_embeddings": f.raw["tie_word_embeddings"]}
        model = known[kind](inner)
        inner.finish()
        f.note("language_only")
        return dataclasses.replace(model, family=f.family, unpriced=("vision_tower", "multi_modal_projector"), notes=tuple(f.notes))

    return read


FAMILIES = {
    "gemma3": _around(("gemma3_text", gemma3_text)),
    "llama4": _around(("llama4_text", llama4_text)),
    "mistral3": _around(("mistral", mistral), ("ministral3", ministral3)),
    "llava": _around(("llama", llama), ("mistral", mistral)),
    "qwen3_vl": _around(("qwen3_vl_text", qwen3)),
    "qwen3_vl_moe": _around(("qwen3_vl_moe_text", qwen3_moe)),
    "llava_next": _around(("llama", llama), ("mistral", mistral)),
    "qwen3_5": _around(("qwen3_5_text", qwen3_5_text)),
    "qwen3_5_moe": _around(("qwen3_5_moe_text", qwen3_5_moe_text)),
}
