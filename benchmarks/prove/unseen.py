"""Eight more models for `healthy.py --unseen`, written after the rule and never used while it was made.

Five are architectures of Transformers at small widths; the others have ops that the ten of `models.py` lack.
Shape suffixes: B batch, T time, N nodes, E edges, D width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F

import torch
from torch import nn

VOCABULARY = 97
NODES, EDGES, KINDS = 31, 113, 23
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
Made = tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]


class Logits(nn.Module):
    """A model of Transformers that returns its logits alone."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__()
        self.model, self.options = model, options

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(ids_BT, **self.options).logits
        return logits


def of_transformers(kind: str, *, causal: bool = True, attention: str = "sdpa", **config: Any) -> Callable[[], Made]:
    """The maker of an architecture by its model type."""

    def make() -> Made:
        import transformers

        settings = transformers.AutoConfig.for_model(kind, **config)
        settings._attn_implementation = attention
        maker = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
        model = Logits(maker.from_config(settings), **({"use_cache": False} if causal else {}))
        return model.train(), (torch.randint(3, VOCABULARY, (2, 19)),), torch.randint(0, VOCABULARY, (2, 19))

    return make


class Wave(nn.Module):
    """Gated dilated convolutions on sound with weight norm, and up again by a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(1, 16, 4, stride=2, padding=1), nn.ConvTranspose1d(16, 1, 4, stride=2, padding=1)
        gates = [nn.Conv1d(16, 32, 3, padding=step, dilation=step) for step in (1, 3, 9)]
        self.gates = nn.ModuleList([nn.utils.parametrizations.weight_norm(one) for one in gates])
        self.act, self.norm = nn.PReLU(16), nn.InstanceNorm1d(16, affine=True)

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        hidden = self.down(x_BCT)
        for gate in self.gates:
            value, opened = gate(hidden).chunk(2, 1)
            hidden = hidden + torch.tanh(value) * torch.sigmoid(opened)
        found: torch.Tensor = self.up(self.norm(self.act(hidden)))
        return found


class Graph(nn.Module):
    """Messages along edges, weighed by a softmax over each node's own edges, into a recurrent cell."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell, self.out = nn.Embedding(KINDS, 24), nn.GRUCell(24, 24), nn.Linear(24, 7)
        self.query, self.key, self.value = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 24)
        self.register_buffer("edges", torch.randint(0, NODES, (2, EDGES)))

    def forward(self, kinds_N: torch.Tensor) -> torch.Tensor:
        hidden_ND = self.embedding(kinds_N)
        source_E, target_E = self.edges[0], self.edges[1]
        for _ in range(2):
            score_E = (self.query(hidden_ND)[target_E] * self.key(hidden_ND)[source_E]).sum(-1) / 24**0.5
            top_N = score_E.new_full((NODES,), -1e9).scatter_reduce(0, target_E, score_E, "amax")
            share_E = (score_E - top_N[target_E]).exp()
            total_N = score_E.new_zeros(NODES).index_add(0, target_E, share_E)
            weighed_ED = self.value(hidden_ND)[source_E] * (share_E / total_N[target_E].clamp(min=1e-9))[:, None]
            hidden_ND = self.cell(torch.zeros_like(hidden_ND).index_add(0, target_E, weighed_ED), hidden_ND)
        found: torch.Tensor = self.out(F.normalize(hidden_ND, dim=-1))
        return found


class Upscaler(nn.Module):
    """A block of ConvNeXt V2 (layer scale, response norm), then pixels shuffled and interpolated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise, self.up = nn.Conv2d(3, 24, 4, stride=4), nn.Conv2d(24, 24, 7, padding=3, groups=24), nn.Conv2d(24, 48, 1)
        self.norm, self.wide, self.narrow = nn.LayerNorm(24), nn.Linear(24, 96), nn.Linear(96, 24)
        self.gain, self.scale = nn.Parameter(torch.full((96,), 0.1)), nn.Parameter(torch.full((24,), 0.1))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        stem = self.stem(x_BCHW)
        hidden = F.gelu(self.wide(self.norm(self.depthwise(stem).permute(0, 2, 3, 1))), approximate="tanh")
        response = hidden.norm(dim=(1, 2), keepdim=True)
        hidden = hidden + self.gain * hidden * response / (response.mean(-1, keepdim=True) + 1e-6)
        mixed = stem + (self.scale * self.narrow(hidden)).permute(0, 3, 1, 2)
        shuffled = F.pixel_shuffle(self.up(F.hardswish(mixed)), 4)
        return F.interpolate(shuffled, scale_factor=1.5, mode="bilinear", align_corners=False)


MODELS: dict[str, Callable[[], Made]] = {
    "olmo3": of_transformers("olmo3", **SMALL, num_key_value_heads=2),
    "lfm2": of_transformers("lfm2", **SMALL, num_key_value_heads=2),
    "mamba2": of_transformers(
        "mamba2", attention="eager", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_heads=8, head_dim=8, state_size=16,
        expand=2, n_groups=1, chunk_size=8, pad_token_id=0,
    ),
    "modernbert": of_transformers("modernbert", causal=False, **SMALL),
    "qwen3_moe": of_transformers(
        "qwen3_moe", **SMALL, num_key_value_heads=2, moe_intermediate_size=40, num_experts=4, num_experts_per_tok=2, head_dim=12
    ),
    "wave": lambda: (Wave(), (torch.randn(2, 1, 96),), torch.randn(2, 1, 96)),
    "graph": lambda: (Graph(), (torch.randint(0, KINDS, (NODES,)),), torch.randint(0, 7, (NODES,))),
    "upscaler": lambda: (Upscaler(), (torch.randn(2, 3, 32, 32),), torch.randn(2, 3, 48, 48)),
}
