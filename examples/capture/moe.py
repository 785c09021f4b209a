"""A mixture of experts in plain PyTorch: the rows of each expert are sorted together and go through one grouped matmul.

Shapes follow from shapes alone, whatever the routing: that is what makes it capturable (and fast). Boolean masks per
expert would not be.

    sapper capture examples/capture/moe.py --seq 1024
"""

from torch.nn import functional

import torch
from torch import nn


class Experts(nn.Module):
    """``topk`` of ``count`` gated feed-forward layers per token."""

    def __init__(self, size, ffn, count, topk):
        super().__init__()
        self.count, self.topk = count, topk
        self.router = nn.Linear(size, count, bias=False)
        self.up = nn.Parameter(torch.zeros(count, size, 2 * ffn))
        self.down = nn.Parameter(torch.zeros(count, ffn, size))

    def forward(self, x):
        tokens = x.flatten(0, 1)
        weights, chosen = self.router(tokens).softmax(-1).topk(self.topk, -1)
        order = chosen.flatten().argsort()
        ends = torch.histc(chosen.flatten().float(), self.count, 0, self.count - 1).cumsum(0).to(torch.int32)
        gate, up = torch._grouped_mm(tokens[order // self.topk], self.up, ends).chunk(2, -1)
        routed = torch._grouped_mm(functional.silu(gate) * up, self.down, ends)
        back = torch.zeros_like(routed).index_copy(0, order, routed).unflatten(0, (-1, self.topk))
        return (back * weights.unsqueeze(-1)).sum(1).view(x.shape)


class Layer(nn.Module):
    def __init__(self, size, heads, ffn, count, topk):
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.RMSNorm(size), nn.Linear(size, 3 * size, bias=False), nn.Linear(size, size, bias=False)
        self.norm2, self.experts = nn.RMSNorm(size), Experts(size, ffn, count, topk)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.experts(self.norm2(x))


class Moe(nn.Module):
    def __init__(self, vocab=32000, size=1024, depth=8, heads=16, ffn=1408, count=16, topk=2):
        super().__init__()
        self.embed = nn.Embedding(vocab, size)
        self.layers = nn.ModuleList(Layer(size, heads, ffn, count, topk) for _ in range(depth))
        self.norm, self.head = nn.RMSNorm(size), nn.Linear(size, vocab, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def build(batch, seq=1024):
    ids = torch.zeros(batch, seq, dtype=torch.long)
    return Moe(), ids, lambda logits: functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten())
