"""Encoder-decoders: t5, mt5, umt5 (arXiv:1910.10683; gated feed-forward: arXiv:2002.05202).

A workload of ``seq_len`` T has T tokens in the encoder and ``target_len(T)`` in the decoder. In decode one new decoder
token sees ``target_len(T)`` decoder tokens and the T encoder tokens, whose keys and values are kept; the encoder does not
run. In prefill the encoder runs whole and the decoder takes its start token.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import msgspec

from sapper.workloads.families.encoder import architecture
from sapper.workloads.fields import Fields
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model, stack
from sapper.workloads.op import Block, Op

HEADS = ("ForConditionalGeneration", "Model", "EncoderModel")
TARGET_SHARE = 4
"""Encoder tokens to one decoder token: Megatron-LM's T5 recipe has 512 and 128."""


def target_len(seq_len: int) -> int:
    """Decoder tokens of a sequence of ``seq_len`` encoder tokens."""
    return max(1, seq_len // TARGET_SHARE)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the arithmetic of a T5 needs."""

    hidden: int
    head_dim: int
    ffn: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    vocab: int
    buckets: int
    gated: bool
    dropout: float
    bias_in_each_layer: bool
    """umt5: every layer has relative position biases, not only the first of a stack."""


def self_attention(kit: Kit, s: Sizes, *, causal: bool, biased: bool) -> tuple[Op, ...]:
    """Pre-norm self-attention with relative position biases (arXiv:1910.10683, section 2.1)."""
    inner = s.heads * s.head_dim
    return (
        kit.norm("attn.norm", s.hidden),
        *(kit.linear(f"attn.{part}", inner, s.hidden, keep_input=part == "q", lora=part != "k") for part in "qkv"),
        *kit.attention(
            "attn", heads=s.heads, kv_heads=s.heads, qk_dim=s.head_dim, v_dim=s.head_dim, causal=causal, dropout=s.dropout,
            bias_params=s.buckets * s.heads if biased else 0,
        ),
        kit.linear("attn.o", s.hidden, inner, shard="row", lora=True),
        kit.residual("attn.residual", s.hidden, dropout=s.dropout),
    )


def cross_attention(kit: Kit, s: Sizes, source_len: int) -> tuple[Op, ...]:
    """Attention of the decoder's queries over the encoder's output, whose keys and values decode has already."""
    inner = s.heads * s.head_dim
    source = () if kit.purpose == "decode" else tuple(
        kit.linear(f"cross.{part}", inner, s.hidden, rows=source_len, keep_input=part == "k", lora=part == "v") for part in "kv"
    )
    core = kit.attention(
        "cross", heads=s.heads, kv_heads=s.heads, qk_dim=s.head_dim, v_dim=s.head_dim, causal=False, dropout=s.dropout, kv_len=source_len,
    )
    if not source:
        # Weights that are not used in this step are still owned.
        core = (*core[:-1], msgspec.structs.replace(core[-1], params=core[-1].params + 2 * inner * s.hidden))
    return (
        kit.norm("cross.norm", s.hidden),
        kit.linear("cross.q", inner, s.hidden, lora=True),
        *source, *core,
        kit.linear("cross.o", s.hidden, inner, shard="row", lora=True),
        kit.residual("cross.residual", s.hidden, dropout=s.dropout),
    )


def feed_forward(kit: Kit, s: Sizes) -> tuple[Op, ...]:
    """Pre-norm feed-forward, gated or plain."""
    names = ("wi_0", "wi_1", "wo") if s.gated else ("", "wi", "wo")
    return (
        kit.norm("mlp.norm", s.hidden),
        *kit.mlp("mlp", s.hidden, s.ffn, gated=s.gated, names=names),
        kit.residual("mlp.residual", s.hidden, dropout=s.dropout),
    )


def kinds(layers: int, name: str, s: Sizes) -> list[str]:
    """Types of a stack's layers: the first has the relative position biases, or all."""
    return [f"{name}+bias" if index == 0 or s.bias_in_each_layer else name for index in range(layers)]


def encoder(kit: Kit, s: Sizes) -> tuple[Block, ...]:
    """The encoder stack and its norm."""
    return (
        *stack(
            kinds(s.encoder_layers, "encoder", s),
            lambda kind: (*self_attention(kit, s, causal=False, biased=kind.endswith("+bias")), *feed_forward(kit, s)),
            hidden=s.hidden, prefix="encoder",
        ),
        Block(name="encoder.norm", role="layer", ops=(kit.norm("final_norm", s.hidden),), hidden_size=s.hidden),
    )


def decoder(kit: Kit, s: Sizes, source_len: int) -> tuple[Block, ...]:
    """The decoder stack and its norm."""
    return (
        *stack(
            kinds(s.decoder_layers, "decoder", s),
            lambda kind: (
                *self_attention(kit, s, causal=True, biased=kind.endswith("+bias")), *cross_attention(kit, s, source_len),
                *feed_forward(kit, s),
            ),
            hidden=s.hidden, prefix="decoder",
        ),
        Block(name="decoder.norm", role="layer", ops=(kit.norm("final_norm", s.hidden),), hidden_size=s.hidden),
    )


def blocks(kit: Kit, s: Sizes, head: str) -> tuple[Block, ...]:
    """All blocks of the class ``head``."""
    source_len = kit.kv_tokens
    source = kit.with_tokens(source_len)
    context = target_len(source_len)
    # Prefill runs the start token alone; decode one token that sees what was made so far.
    rows = context if kit.purpose == "train" else 1
    target = kit.with_tokens(rows, context if kit.purpose == "decode" else rows)
    words = source.embedding("shared", s.vocab, s.hidden, dropout=s.dropout)
    again = target.embedding("shared.decoder", s.vocab, s.hidden, dropout=s.dropout, owns=False)
    taken = {"EncoderModel": (words,)}.get(
        head, (msgspec.structs.replace(again, params=words.params),) if kit.purpose == "decode" else (words, again),
    )
    found = [Block(name="embeddings", role="embedding", ops=taken, hidden_size=s.hidden)]
    found += _resting(encoder(source, s)) if kit.purpose == "decode" else encoder(source, s)
    if head != "EncoderModel":
        found += decoder(target, s, source_len)
    if head == "ForConditionalGeneration":
        found.append(
            Block(
                name="head", role="head", ops=(target.lm_head(s.vocab, s.hidden, tied=True), *target.loss(s.vocab)), hidden_size=s.hidden,
            ),
        )
    return tuple(found)


def _resting(found: tuple[Block, ...]) -> tuple[Block, ...]:
    """The same blocks with their weights and no work: the encoder in decode."""
    return tuple(
        msgspec.structs.replace(
            block,
            ops=tuple(
                Op(
                    name=op.name, kind=op.kind, flops=0.0, input_bytes=0.0, output_bytes=0.0, params=op.params, shard=op.shard,
                ) for op in block.ops
            ),
        )
        for block in found
    )


def t5(fields: Fields, *, prefix: str, bias_in_each_layer: bool = False, **defaults: int | str) -> Model:
    """T5 and its multilingual kin.

    Transformers 5 ties the output head to the embedding whatever ``tie_word_embeddings`` says; params follow the library,
    and a note tells what the checkpoint holds beyond them.
    """
    fields.ignore(
        "relative_attention_max_distance", "layer_norm_epsilon", "dense_act_fn", "scale_decoder_outputs",
        "classifier_dropout",
        "output_past", "n_positions", "tie_word_embeddings", "eos_token_ids", "tokenizer_class",
    )
    head = architecture(fields, prefix, heads=HEADS, default="ForConditionalGeneration")
    encoder_layers = fields.layers("num_layers", default=defaults["layers"])
    projection = fields.text("feed_forward_proj", default=defaults["projection"])
    fields.only("is_gated_act", projection.startswith("gated-"))
    s = Sizes(
        hidden=fields.count("d_model", "hidden_size", default=512), head_dim=fields.count("d_kv", default=64),
        ffn=fields.count("d_ff", default=defaults["ffn"]),
        heads=fields.count("num_heads", "num_attention_heads", default=defaults["heads"]),
        encoder_layers=encoder_layers, decoder_layers=fields.optional_count("num_decoder_layers") or encoder_layers,
        vocab=fields.count("vocab_size", default=defaults["vocab"]), buckets=fields.count("relative_attention_num_buckets", default=32),
        gated=projection.startswith("gated-"), dropout=fields.dropout("dropout_rate", default=0.1), bias_in_each_layer=bias_in_each_layer,
    )
    encoder_only = head == "EncoderModel"
    if not encoder_only:
        fields.note("target")
    if fields.raw.get("tie_word_embeddings") is False and head == "ForConditionalGeneration":
        fields.note("tied_t5", params=f"{s.vocab * s.hidden:,}")
    layer_types = (*kinds(s.encoder_layers, "encoder", s), *(() if encoder_only else kinds(s.decoder_layers, "decoder", s)))
    return Model(
        name=fields.name, family=fields.family, layers=len(layer_types), hidden=s.hidden, heads=s.heads, kv_heads=s.heads,
        head_dim=s.head_dim,
        vocab=s.vocab, blocks=lambda kit: blocks(kit, s, head), layer_types=layer_types, causal=not encoder_only,
        sequence_tokens=None if encoder_only else lambda seq_len: seq_len + target_len(seq_len), notes=tuple(fields.notes),
        source=fields.where,
    )


FAMILIES = {
    "t5": functools.partial(t5, prefix="T5", layers=6, ffn=2048, heads=8, vocab=32128, projection="relu"),
    "mt5": functools.partial(t5, prefix="MT5", layers=8, ffn=1024, heads=6, vocab=250112, projection="gated-gelu"),
    "umt5": functools.partial(
        t5, prefix="UMT5", bias_in_each_layer=True, layers=8, ffn=1024, heads=6, vocab=250112, projection="gated-gelu",
    ),
}
