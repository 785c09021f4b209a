"""``sapper capture``: layers that are equal to one that ran are not run, and nobody can tell."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="Transformers is not installed")

import msgspec  # noqa: E402

from sapper.capture import capture  # noqa: E402
from sapper.workloads.notes import said  # noqa: E402

STACK = """
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.checkpoint import checkpoint

    LOG = []

    class Layer(nn.Module):
        def __init__(self, at, d=32, drop=0.1):
            super().__init__()
            self.at, self.norm, self.drop = at, nn.LayerNorm(d), nn.Dropout(drop)
            self.qkv, self.out, self.up, self.down = nn.Linear(d, 3 * d), nn.Linear(d, d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
            self.register_buffer("scale", torch.ones(d))

        def forward(self, x, bias=None):
            b, t, d = x.shape
            q, k, v = self.qkv(self.norm(x)).view(b, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
            x = x + self.drop(self.out(y.transpose(1, 2).reshape(b, t, d))) * self.scale
            y = x + self.down(F.gelu(self.up(x)))
            {inside}
            return y

    class Net(nn.Module):
        def __init__(self, layers=6, d=32):
            super().__init__()
            self.table, self.layers, self.head = nn.Embedding(64, d), nn.ModuleList(Layer(at) for at in range(layers)), nn.Linear(d, 64)

        def forward(self, ids):
            x, kept = self.table(ids), []
            for layer in self.layers:
                x = {call}
                kept.append(x)
            return self.head({end})

    def build(batch, seq=16):
        LOG.clear()
        return Net(), torch.zeros(batch, seq, dtype=torch.long)
"""
CALLS = {
    "plain": ("pass", "layer(x)", "x", 5),
    "mask": ("pass", "layer(x, torch.zeros(16, 16, dtype=x.dtype))", "x", 5),
    # and what must not be repeated, or is found out at the end
    "checkpoint": ("pass", "checkpoint(layer, x, use_reentrant=False)", "x", 0),
    "all states": ("pass", "layer(x)", "torch.stack(kept).sum(0)", 0),
    "own position": ("y = y.relu() if self.at % 2 else y", "layer(x)", "x", 0),
    "a log that is read": ("LOG.append(self.up(x).mean())", "layer(x)", "x + sum(LOG)", 0),
    "an attribute": ("self.last = y.sum()", "layer(x)", "x + self.layers[-1].last", 0),
    "an argument in place": ("x.add_(1)", "layer(x)", "x", 0),
}


@pytest.mark.parametrize("case", CALLS)
def test_equal_layers_run_once_and_count_the_same(case: str, tmp_path: Path):
    inside, call, end, repeated = CALLS[case]
    path = tmp_path / "net.py"
    path.write_text(textwrap.dedent(STACK).format(inside=inside, call=call, end=end), "utf-8")

    fast, full = capture(str(path)), capture(str(path), every_layer=True)

    assert msgspec.structs.replace(fast, notes=()) == msgspec.structs.replace(full, notes=())
    assert sum(f"{repeated} layers were not run" in said(text) for text in fast.notes) == bool(repeated)
    assert not any("layers were not run" in said(text) for text in full.notes)


SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4, "vocab_size": 128}
LIBRARY = {
    "Llama": {"architectures": ["LlamaForCausalLM"], "num_key_value_heads": 2},
    "DeepseekV3": {
        "architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
        "v_head_dim": 8, "num_key_value_heads": 4, "first_k_dense_replace": 2, "n_routed_experts": 8, "num_experts_per_tok": 2,
        "n_shared_experts": 1, "moe_intermediate_size": 32, "n_group": 2, "topk_group": 1,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", LIBRARY)
def test_models_of_the_library(kind: str, tmp_path: Path):
    path = tmp_path / "config.json"
    getattr(transformers, f"{kind}Config")(**SMALL | LIBRARY[kind]).to_json_file(str(path))

    fast, full = capture(str(path), seq=32), capture(str(path), seq=32, every_layer=True)

    assert msgspec.structs.replace(fast, notes=()) == msgspec.structs.replace(full, notes=())
    assert len(fast.notes) == len(full.notes) + 1
