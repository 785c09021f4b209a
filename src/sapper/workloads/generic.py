"""Decoders of lines that have no config: GPT of Megatron-LM, MPT of llm-foundry, PaLM, and models known by their dims alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sapper.errors import BadValue
from sapper.workloads.decoder import Attention, Decoder, Experts, Layer, Mlp, Norm, Order
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model
from sapper.workloads.notes import note

GPT_VOCAB = 51200
"""GPT-2's 50,257 tokens padded to a multiple of 1024, as Megatron-LM trains with (arXiv:2104.04473, section 5.1)."""
_ROUNDING = 0.03
"""Published parameter counts are rounded to two or three digits."""
ASSUMED_VOCAB = 32000
"""Where nobody states one; Llama's."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a line builds its layers."""

    gated: bool
    tied: bool
    norm: Norm = field(default_factory=Norm)
    bias: bool = False
    rope: bool = True
    learned: bool = False
    """Positions are learned: as many as the sequence is long."""
    order: Order = "pre"
    dropout: float = 0.0
    vocab: int = ASSUMED_VOCAB
    fused: str | None = None
    beats_config: bool = False
    """Published dims are built so even where a config of that very name is bundled, which the library reads differently."""


STYLES: dict[str, Style] = {
    "gpt": Style(
        gated=False, tied=True, norm=Norm(style="layer"), bias=True, rope=False, learned=True, dropout=0.1, vocab=GPT_VOCAB, fused="c_attn",
    ),
    "mpt": Style(gated=False, tied=True, norm=Norm(style="layer", bias=False), rope=False, vocab=50368, fused="Wqkv", beats_config=True),
    "palm": Style(gated=True, tied=True, norm=Norm(style="layer", bias=False), order="parallel", vocab=256000),
    "grok": Style(gated=True, tied=True, order="sandwich", vocab=131072),
}
"""First letters of a name -> style. GPT: Megatron-LM (arXiv:1909.08053). MPT: llm-foundry, ALiBi, no biases. PaLM: arXiv:2204.02311,
section 2. Grok-1: the code that xAI published, norms before and after each branch."""
STYLES["megatron"] = STYLES["turing"] = STYLES["mt-nlg"] = STYLES["gpt"]


def build(name: str, sizes: Mapping[str, int], style: Style, *, seq_len: int | None, params_b: float | None) -> Model:
    """The model of a known style, with what its line leaves open chosen by the published parameters.

    GPT: the embedding is untied where tied misses them by more than their rounding. MPT: positions are learned besides ALiBi
    where that is closer (llm-foundry's ``learned_pos_emb``).
    """
    positions = (seq_len or 2048) if style.learned else 0
    model = _model(name, sizes, style, positions)
    if params_b is None:
        return model
    other = replace(style, tied=False) if style.learned else replace(style, learned=True)
    if not style.learned and (not style.beats_config or seq_len is None):
        return model
    rival = _model(name, sizes, other, (seq_len or 2048) if other.learned else 0)
    off, rival_off = (abs(made.params / (params_b * 1e9) - 1) for made in (model, rival))
    return rival if rival_off < off and (off > _ROUNDING or not style.learned) else model


def closest(name: str, sizes: Mapping[str, int], *, params_b: float | None) -> Model:
    """The model of dims alone: gated or plain, tied or not, whichever is closest to the published parameters.

    Without those the width tells: four times the hidden size is plain (arXiv:1706.03762), another ratio is gated, whose
    width is two thirds of that or freely chosen (arXiv:2002.05202).
    """
    ffn = sizes.get("ffn")
    plain = ffn is None or ffn == 4 * sizes["hidden"]
    if params_b is None:
        style = Style(gated=not plain, tied=False)
        return replace_notes(_model(name, sizes, style, 0), note("plain_by_ratio" if plain else "gated_by_ratio"))
    models = [
        (abs(made.params / (params_b * 1e9) - 1), index, made, gated)
        for index, (gated, tied) in enumerate(itertools.product((not plain, plain), (False, True)))
        for made in (_model(name, sizes, Style(gated=gated, tied=tied), 0),)
    ]
    _, _, model, gated = min(models, key=lambda entry: entry[:2])
    return replace_notes(model, note("gated_by_params" if gated else "plain_by_params", published=f"{params_b:g}"))


def replace_notes(model: Model, *notes: str) -> Model:
    """The model with further notes."""
    return replace(model, notes=(*model.notes, *notes))


def _model(name: str, sizes: Mapping[str, int], style: Style, positions: int) -> Model:
    hidden, heads = sizes["hidden"], sizes["heads"]
    kv_heads = sizes.get("kv_heads", heads)
    for whole, part in ((("hidden", hidden), ("heads", heads)), (("heads", heads), ("kv_heads", kv_heads))):
        if whole[1] % part[1] and not (whole[0] == "hidden" and "head_dim" in sizes):
            raise BadValue(
                "SP-MODEL-008",
                where=f"model.{whole[0]}",
                key=whole[0],
                whole=whole[1],
                part_key=part[0],
                part=part[1],
                rest=whole[1] % part[1],
            )
    head_dim = sizes.get("head_dim", hidden // heads)
    fields = Fields({}, where=name, name=name)
    if "ffn" not in sizes:
        fields.note("ffn_assumed")
    if "vocab" not in sizes:
        fields.note("vocab_assumed", value=style.vocab)
    ffn = sizes.get("ffn", 4 * hidden)
    attention = Attention(
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, rope_dim=head_dim if style.rope else 0, qkv_bias=style.bias, out_bias=style.bias,
        fused=style.fused, dropout=style.dropout,
    )
    branch: Mlp | Experts = Mlp(ffn=ffn, gated=style.gated, bias=style.bias)
    kind = "full"
    if "experts" in sizes:
        topk = sizes.get("topk", 1)
        if topk > sizes["experts"]:
            raise BadValue("SP-MODEL-004", where="model.topk", value=topk, expected=f"1 - {sizes['experts']}")
        branch = Experts(experts=sizes["experts"], topk=topk, ffn=ffn, gated=style.gated, bias=style.bias)
        kind = "full+moe"
    layer = Layer(attention=attention, ffn=branch, norm=style.norm, order=style.order, dropout=style.dropout)
    decoder = Decoder(
        hidden=hidden,
        vocab=sizes.get("vocab", style.vocab),
        layers={kind: layer},
        layer_types=(kind,) * sizes["layers"],
        final_norm=style.norm,
        tied=style.tied,
        positions=positions,
        embed_dropout=style.dropout,
    )
    return decoder.model(fields, max_positions=positions or None, family="dims")
