"""Vision transformers: vit, deit, dinov2 (arXiv:2010.11929, 2012.12877, 2304.07193).

A sequence is one image; its length is fixed: the patches, a class token, and in deit a distillation token. The patch
embedding is a convolution whose stride is its kernel, so that its implicit GEMM has one row a patch and
``channels * patch * patch`` columns to sum over.
"""

from __future__ import annotations

from dataclasses import dataclass

from sapper.workloads.families.encoder import architecture, classifier, labels
from sapper.workloads.fields import Fields
from sapper.workloads.kit import Kit
from sapper.workloads.model import Model, stack
from sapper.workloads.op import Block, Op


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the arithmetic of a vision transformer needs."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    patches: int
    patch_inputs: int
    """Values of a patch: channels times its pixels."""
    extra_tokens: int
    """Class token, and distillation token."""
    qkv_bias: bool
    dropout: float
    attention_dropout: float
    labels: int
    pooled: int
    """Width of the pooler's output."""
    layer_scale: bool = False
    swiglu: bool = False
    mask_token: bool = False

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        return self.patches + self.extra_tokens


def pair(fields: Fields, key: str, default: int) -> tuple[int, int]:
    """Height and width from a number or a list of two."""
    value = fields.raw.get(key)
    if isinstance(value, list):
        found = fields.numbers(key, minimum=1)
        if len(found) != 2:
            raise fields.bad(key, value, "[height, width]")
        return found[0], found[1]
    side = fields.count(key, default=default)
    return side, side


def embeddings(kit: Kit, s: Sizes) -> Block:
    """Patches, class token and learned positions."""
    size = kit.tokens * s.hidden
    learned = (s.tokens + s.extra_tokens + (1 if s.mask_token else 0)) * s.hidden
    ops = (
        kit.conv("embeddings.patches", rows=s.patches, n=s.hidden, k=s.patch_inputs),
        kit.elementwise(
            "embeddings.positions", reads=size, writes=size, flops=size, params=learned, mask=size if s.dropout > 0 else 0.0,
            shard="replicated",
        ),
    )
    return Block(name="embeddings", role="embedding", ops=ops, hidden_size=s.hidden)


def layer(kit: Kit, s: Sizes) -> tuple[Op, ...]:
    """A pre-norm encoder layer (arXiv:2010.11929, equations 2-3)."""
    h, dim = s.hidden, s.hidden // s.heads

    def scaled(name: str) -> tuple[Op, ...]:
        size = kit.tokens * h
        return (kit.elementwise(name, reads=size, writes=size, flops=size, kept=size, params=h),) if s.layer_scale else ()

    return (
        kit.norm("attn.norm", h, style="layer"),
        *(kit.linear(f"attn.{part}_proj", h, h, bias=s.qkv_bias, keep_input=part == "q", lora=part != "k") for part in "qkv"),
        *kit.attention("attn", heads=s.heads, kv_heads=s.heads, qk_dim=dim, v_dim=dim, causal=False, dropout=s.attention_dropout),
        kit.linear("attn.o_proj", h, h, bias=True, shard="row", lora=True),
        *scaled("attn.scale"),
        kit.residual("attn.residual", h, dropout=s.dropout),
        kit.norm("mlp.norm", h, style="layer"),
        *kit.mlp(
            "mlp", h, s.ffn, gated=s.swiglu, bias=True, names=("gate_proj", "up_proj", "down_proj") if s.swiglu else ("", "fc1", "fc2"),
        ),
        *scaled("mlp.scale"),
        kit.residual("mlp.residual", h, dropout=s.dropout),
    )


def head_ops(kit: Kit, s: Sizes, head: str) -> tuple[Op, ...]:
    """The last norm and what class ``head`` has behind it."""
    h = s.hidden
    norm = kit.norm("head.norm", h, style="layer")
    if head == "Model":
        if not s.pooled:
            return (norm,)
        pooler = kit.linear("head.pooler", s.pooled, h, bias=True, shard="replicated", rows=1, low_precision=False)
        return (norm, pooler, kit.activation("head.act", s.pooled, gated=False, rows=1, shard="replicated"))
    # dinov2 classifies the class token beside the mean of the patches.
    inputs = 2 * h if s.mask_token or s.layer_scale else h
    found = (norm, *classifier(kit, s.labels, hidden=inputs, rows=1))
    if head == "ForImageClassificationWithTeacher":
        return (*found, kit.linear("head.distillation", s.labels, h, bias=True, shard="replicated", rows=1, low_precision=False))
    return found


def model(fields: Fields, s: Sizes, head: str, *, height: int, width: int) -> Model:
    """The Model of a vision transformer with the sizes ``s``."""
    fields.divides("hidden_size", s.hidden, "num_attention_heads", s.heads)
    fields.note("patches", height=height, width=width, tokens=s.tokens, patches=s.patches)
    kinds = ("full",) * s.layers

    def blocks(kit: Kit) -> tuple[Block, ...]:
        return (
            embeddings(kit, s), *stack(kinds, lambda _: layer(kit, s), hidden=s.hidden),
            Block(name="head", role="head", ops=head_ops(kit, s, head), hidden_size=s.hidden),
        )

    return Model(
        name=fields.name, family=fields.family, layers=s.layers, hidden=s.hidden, heads=s.heads, kv_heads=s.heads,
        head_dim=s.hidden // s.heads,
        vocab=0, blocks=blocks, layer_types=kinds, max_positions=s.tokens, fixed_seq_len=s.tokens, causal=False, notes=tuple(fields.notes),
        source=fields.where,
    )


def read(fields: Fields, *, patch: int, extra_tokens: int, prefix: str, heads: tuple[str, ...]) -> Model:
    """Reads the fields that the families share, and those of their own."""
    fields.ignore(
        "hidden_act", "layer_norm_eps", "encoder_stride", "pooler_act", "layerscale_value", "drop_path_rate", "apply_layernorm",
        "reshape_hidden_states", "stage_names", "out_features", "out_indices", "_out_features", "_out_indices", "num_labels",
    )
    dino = prefix == "Dinov2"
    head = architecture(fields, prefix, heads=heads, default="ForImageClassification")
    height, width = pair(fields, "image_size", 224)
    patch_height, patch_width = pair(fields, "patch_size", patch)
    hidden = fields.count("hidden_size", default=768)
    swiglu = fields.flag("use_swiglu_ffn", default=False) if dino else False
    ratio = fields.count("mlp_ratio", default=4) if dino else 0
    ffn = hidden * ratio if dino else fields.count("intermediate_size", default=3072)
    if swiglu:
        # SwiGLU keeps two thirds of the width, rounded up to a multiple of 8.
        ffn = (int(ffn * 2 / 3) + 7) // 8 * 8
    s = Sizes(
        hidden=hidden, layers=fields.layers("num_hidden_layers", default=12), heads=fields.count("num_attention_heads", default=12),
        ffn=ffn,
        patches=(height // patch_height) * (width // patch_width),
        patch_inputs=fields.count("num_channels", default=3) * patch_height * patch_width, extra_tokens=extra_tokens,
        qkv_bias=fields.flag("qkv_bias", default=True), dropout=fields.dropout("hidden_dropout_prob", default=0.0),
        attention_dropout=fields.dropout("attention_probs_dropout_prob", default=0.0), labels=labels(fields),
        pooled=0 if dino else fields.optional_count("pooler_output_size") or hidden, layer_scale=dino, swiglu=swiglu,
        mask_token=fields.flag("use_mask_token", default=True) if dino else False,
    )
    if s.patches == 0:
        raise fields.bad("patch_size", patch_height, f"1 - {min(height, width)}")
    return model(fields, s, head, height=height, width=width)


def vit(fields: Fields) -> Model:
    """ViT (arXiv:2010.11929)."""
    return read(fields, patch=16, extra_tokens=1, prefix="ViT", heads=("ForImageClassification", "Model"))


def deit(fields: Fields) -> Model:
    """DeiT (arXiv:2012.12877): a distillation token beside the class token."""
    return read(
        fields, patch=16, extra_tokens=2, prefix="DeiT", heads=("ForImageClassification", "ForImageClassificationWithTeacher", "Model"),
    )


def dinov2(fields: Fields) -> Model:
    """DINOv2 (arXiv:2304.07193): layer scale, perhaps SwiGLU."""
    return read(fields, patch=14, extra_tokens=1, prefix="Dinov2", heads=("ForImageClassification", "Model"))


FAMILIES = {"vit": vit, "deit": deit, "dinov2": dinov2}
