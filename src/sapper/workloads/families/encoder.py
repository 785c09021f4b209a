"""Encoders: bert, roberta and xlm-roberta, distilbert, albert (shared layers), electra.

The heads that a model has are those of the class in ``architectures``; where a config names none, the masked-language
model is taken and a note says so. Attention is two-sided; norms stand after the residual (post-norm, arXiv:1810.04805).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from sapper.workloads.fields import Fields
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model, stack
from sapper.workloads.op import Block, Op

HEADS = (
    "ForMaskedLM", "LMHeadModel", "ForPreTraining", "Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering",
)


POOLER_RELICS = ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head", "type")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the arithmetic of an encoder needs."""

    hidden: int
    embedding: int
    layers: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    types: int
    labels: int
    dropout: float
    attention_dropout: float
    tied: bool
    projected: bool = False
    """A dense layer from the embedding's width to the hidden size."""


def architecture(fields: Fields, prefix: str, *, heads: tuple[str, ...], default: str) -> str:
    """The head class of the config without the family's prefix.

    Raises:
        BadFile: A class that we do not price.
    """
    fields.ignore("architectures")
    named = fields.raw.get("architectures")
    known = ", ".join(f"{prefix}{head}" for head in heads)
    if named is None:
        fields.note("architecture", name=f"{prefix}{default}")
        return default
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise fields.wrong_type("architectures", f"list ({known})", named)
    head = named[0].removeprefix(prefix)
    if not named[0].startswith(prefix) or head not in heads:
        raise fields.bad("architectures", named[0], known)
    return head


def labels(fields: Fields) -> int:
    """Classes of a classification head: ``num_labels``, else the length of ``id2label``, else the library's 2."""
    named = fields.raw.get("id2label")
    if fields.given("num_labels"):
        return fields.count("num_labels")
    return len(named) if isinstance(named, dict) and named else 2


def shared(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """The same ops with weights that another layer owns."""
    return tuple(msgspec.structs.replace(op, params=0) for op in ops)


def idle_weights(kit: Kit, params: int) -> Op:
    """Weights that the model owns and no op of the forward pass reads."""
    return msgspec.structs.replace(kit.elementwise("weights", reads=0, writes=0, flops=0, params=params), weight_bytes=0.0)


def encoder_layer(kit: Kit, s: Sizes) -> tuple[Op, ...]:
    """Self-attention and feed-forward, each with a residual and a layer norm after it (arXiv:1810.04805, section 3)."""
    h = s.hidden
    qkv = (
        kit.linear(f"attn.{part}", h, h, bias=True, keep_input=part == "query", lora=part != "key") for part in ("query", "key", "value")
    )
    dim = h // s.heads
    return (
        *qkv,
        *kit.attention(
            "attn", heads=s.heads, kv_heads=s.heads, qk_dim=dim, v_dim=dim, causal=False, dropout=s.attention_dropout,
        ),
        kit.linear("attn.output", h, h, bias=True, shard="row", lora=True),
        kit.residual("attn.residual", h, dropout=s.dropout),
        kit.norm("attn.norm", h, style="layer"),
        *kit.mlp("mlp", h, s.ffn, gated=False, bias=True, names=("", "intermediate", "output")),
        kit.residual("mlp.residual", h, dropout=s.dropout),
        kit.norm("mlp.norm", h, style="layer"),
    )


def embeddings(kit: Kit, s: Sizes) -> Block:
    """Words, positions and types, summed and normalised; widened to the hidden size where they are narrower."""
    e = s.embedding
    tables = [kit.embedding("embeddings.words", s.vocab, e), kit.embedding("embeddings.positions", s.positions, e, shard="replicated")]
    if s.types:
        tables.append(kit.embedding("embeddings.types", s.types, e, shard="replicated"))
    widened = () if not s.projected else (kit.linear("embeddings.project", s.hidden, e, bias=True, shard="replicated"),)
    return Block(
        name="embeddings", role="embedding", hidden_size=s.hidden,
        ops=(
            *tables, kit.residual("embeddings.sum", e, dropout=s.dropout, terms=len(tables)), kit.norm("embeddings.norm", e, style="layer"),
            *widened,
        ),
    )


def masked_lm(kit: Kit, s: Sizes, *, width: int, two_biases: bool) -> tuple[Op, ...]:
    """Transform, layer norm and the output head, whose weight is the word table's where they are tied.

    ``two_biases``: an untied head has its own bias beside the one that the library ties to it otherwise.
    """
    head = kit.linear("head.decoder", s.vocab, width, bias=True, shard="vocab", low_precision=False)
    head = msgspec.structs.replace(head, params=s.vocab if s.tied else head.params + (s.vocab if two_biases else 0))
    return (
        kit.linear("head.transform", width, s.hidden, bias=True, shard="replicated"),
        kit.activation("head.act", width, gated=False, shard="sequence"),
        kit.norm("head.norm", width, style="layer"), head, *kit.loss(s.vocab),
    )


def pooled(kit: Kit, name: str, hidden: int) -> tuple[Op, ...]:
    """A dense layer with an activation over the first token alone."""
    return (
        kit.linear(name, hidden, hidden, bias=True, shard="replicated", rows=1, low_precision=False),
        kit.activation(f"{name}.act", hidden, gated=False, rows=1, shard="replicated"),
    )


def classifier(kit: Kit, count: int, *, hidden: int, rows: int) -> tuple[Op, ...]:
    """A linear layer to ``count`` classes and its loss."""
    return (
        kit.linear("head.classifier", count, hidden, bias=True, shard="replicated", rows=rows, low_precision=False),
        *kit.with_tokens(rows).loss(count),
    )


@dataclass(frozen=True, kw_only=True)
class Style:
    """How the families differ."""

    prefix: str
    """Class names begin with it."""
    heads: tuple[str, ...] = HEADS
    pooler: tuple[str, ...] = ("Model", "ForSequenceClassification", "ForPreTraining")
    """Classes with a pooler over the first token."""
    dense_classifier: bool = False
    """The sequence classifier has a dense layer of its own."""
    narrow_lm: bool = False
    """The masked-LM transform narrows to the embedding's width."""
    two_biases: bool = True
    """An untied masked-LM head has two biases."""


def head_ops(kit: Kit, s: Sizes, style: Style, head: str) -> tuple[Op, ...]:
    """The ops behind the last layer for class ``head``."""
    h = s.hidden
    first = pooled(kit, "pooler", h) if head in style.pooler else ()
    words = masked_lm(kit, s, width=s.embedding if style.narrow_lm else h, two_biases=style.two_biases)
    if head in ("ForMaskedLM", "LMHeadModel"):
        return (*first, *words)
    if head == "ForPreTraining" and style.prefix == "Electra":
        hidden_layer = kit.linear("head.dense", h, h, bias=True, shard="replicated")
        return (hidden_layer, kit.activation("head.act", h, gated=False, shard="sequence"), *classifier(kit, 1, hidden=h, rows=kit.tokens))
    if head == "ForPreTraining":
        classes = s.labels if style.prefix == "Albert" else 2
        order = kit.linear("head.order", classes, h, bias=True, shard="replicated", rows=1, low_precision=False)
        return (*first, *words, order)
    if head == "ForSequenceClassification":
        dense = pooled(kit, "head.dense", h) if style.dense_classifier else ()
        return (*first, *dense, *classifier(kit, s.labels, hidden=h, rows=1))
    if head in ("ForTokenClassification", "ForQuestionAnswering"):
        return classifier(kit, s.labels, hidden=h, rows=kit.tokens)
    return first


def model(
    fields: Fields, s: Sizes, style: Style, layers: Callable[[Kit], tuple[Block, ...]] | None = None, *, positions: int | None = None,
) -> Model:
    """The Model of an encoder with the sizes ``s``; ``layers`` where they are not all alike."""
    head = architecture(fields, style.prefix, heads=style.heads, default="ForMaskedLM")
    fields.divides("hidden size", s.hidden, "attention heads", s.heads)
    kinds = ("full",) * s.layers

    def blocks(kit: Kit) -> tuple[Block, ...]:
        middle = layers(kit) if layers else stack(kinds, lambda _: encoder_layer(kit, s), hidden=s.hidden)
        last = Block(name="head", role="head", ops=head_ops(kit, s, style, head), hidden_size=s.hidden)
        return (embeddings(kit, s), *middle, *((last,) if last.ops else ()))

    return Model(
        name=fields.name, family=fields.family, layers=s.layers, hidden=s.hidden, heads=s.heads, kv_heads=s.heads,
        head_dim=s.hidden // s.heads, vocab=s.vocab, blocks=blocks, layer_types=kinds, max_positions=positions or s.positions, causal=False,
        notes=tuple(fields.notes), source=fields.where,
    )


def read_sizes(fields: Fields, *, embedding: bool = False, dropout: float = 0.1, **defaults: int) -> Sizes:
    """The sizes of a config with BERT's field names."""
    fields.ignore("hidden_act", "layer_norm_eps", "position_embedding_type", "attention_probs_dropout_prob")
    # Relics of the TensorFlow checkpoints.
    fields.ignore("directionality", "output_past", *(f"pooler_{name}" for name in POOLER_RELICS))
    fields.only("add_cross_attention", False)
    fields.only("is_decoder", False)
    fields.only("position_embedding_type", "absolute")
    hidden = fields.count("hidden_size", default=defaults["hidden"])
    narrow = fields.count("embedding_size", default=128) if embedding else hidden
    return Sizes(
        hidden=hidden, embedding=narrow, projected=narrow != hidden,
        layers=fields.layers("num_hidden_layers", default=12), heads=fields.count("num_attention_heads", default=defaults["heads"]),
        ffn=fields.count("intermediate_size", default=defaults["ffn"]), vocab=fields.count("vocab_size", default=defaults["vocab"]),
        positions=fields.count("max_position_embeddings", default=512), types=fields.count("type_vocab_size", default=2),
        labels=labels(fields),
        dropout=fields.dropout("hidden_dropout_prob", default=dropout),
        attention_dropout=fields.dropout("attention_probs_dropout_prob", default=dropout),
        tied=fields.flag("tie_word_embeddings", default=True),
    )


def bert(fields: Fields) -> Model:
    """BERT (arXiv:1810.04805)."""
    return model(fields, read_sizes(fields, hidden=768, heads=12, ffn=3072, vocab=30522), Style(prefix="Bert"))


ROBERTA_HEADS = tuple(head for head in HEADS if head not in ("ForPreTraining", "LMHeadModel"))


def roberta(fields: Fields, *, prefix: str) -> Model:
    """RoBERTa (arXiv:1907.11692): BERT whose positions begin behind the padding index and whose classifier has a dense layer."""
    s = read_sizes(fields, hidden=768, heads=12, ffn=3072, vocab=30522 if prefix == "XLMRoberta" else 50265)
    style = Style(prefix=prefix, heads=ROBERTA_HEADS, pooler=("Model",), dense_classifier=True)
    padding = fields.raw.get("pad_token_id", 1)
    return model(fields, s, style, positions=max(1, s.positions - 1 - (padding if isinstance(padding, int) else 1)))


def distilbert(fields: Fields) -> Model:
    """DistilBERT (arXiv:1910.01108): BERT without types and pooler, with fields named otherwise."""
    fields.ignore("activation", "qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "tie_weights_", "output_past")
    hidden = fields.count("dim", default=768)
    s = Sizes(
        hidden=hidden, embedding=hidden, layers=fields.layers("n_layers", default=6), heads=fields.count("n_heads", default=12),
        ffn=fields.count("hidden_dim", default=3072), vocab=fields.count("vocab_size", default=30522),
        positions=fields.count("max_position_embeddings", default=512), types=0, labels=labels(fields),
        dropout=fields.dropout("dropout", default=0.1), attention_dropout=fields.dropout("attention_dropout", default=0.1),
        tied=fields.flag("tie_word_embeddings", default=True),
    )
    return model(fields, s, Style(prefix="DistilBert", heads=ROBERTA_HEADS, pooler=(), dense_classifier=True, two_biases=False))


def electra(fields: Fields) -> Model:
    """ELECTRA (arXiv:2003.10555): narrow embeddings; its pre-training head tells replaced tokens."""
    fields.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout")
    s = read_sizes(fields, embedding=True, hidden=256, heads=4, ffn=1024, vocab=30522)
    heads = tuple(head for head in HEADS if head != "LMHeadModel")
    return model(fields, s, Style(prefix="Electra", heads=heads, pooler=(), dense_classifier=True, narrow_lm=True, two_biases=False))


def albert(fields: Fields) -> Model:
    """ALBERT (arXiv:1909.11942): narrow embeddings, and layers that share the weights of their group.

    A group is owned by the first layer that uses it; the others compute with weights that they do not own.
    """
    s = read_sizes(fields, embedding=True, hidden=4096, heads=64, ffn=16384, vocab=30000, dropout=0.0)
    # The dense layer behind the embeddings is there even where the widths are equal.
    s = replace(s, projected=True)
    fields.ignore("classifier_dropout_prob", "down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks", "layers_to_keep")
    groups = fields.count("num_hidden_groups", default=1)
    inner = fields.count("inner_group_num", default=1)
    used = [int(layer / (s.layers / groups)) for layer in range(s.layers)]
    firsts = {used.index(group) for group in set(used)}
    kinds = [kind for layer in range(s.layers) for kind in (["own"] if layer in firsts else ["shared"]) * inner]
    # A group that no layer reaches still has its weights.
    idle = (groups - len(firsts)) * inner

    def layers(kit: Kit) -> tuple[Block, ...]:
        whole = encoder_layer(kit, s)
        made = {"own": whole, "shared": shared(whole)}
        found = stack(kinds, made.__getitem__, hidden=s.hidden)
        unused = sum(op.params for op in whole) * idle
        return found if not unused else (*found, Block(name="unused", role="layer", ops=(idle_weights(kit, unused),), hidden_size=s.hidden))

    heads = tuple(head for head in HEADS if head != "LMHeadModel")
    return model(fields, s, Style(prefix="Albert", heads=heads, narrow_lm=True), layers)


FAMILIES = {
    "bert": bert, "roberta": functools.partial(roberta, prefix="Roberta"), "xlm-roberta": functools.partial(roberta, prefix="XLMRoberta"),
    "distilbert": distilbert, "electra": electra, "albert": albert,
}
