"""DiT-XL/2 (Peebles and Xie, arXiv:2212.09748, table 1) on 32 x 32 latents of 256 x 256 images: 118.6 Gflops, which that
paper counts as one per multiply-add, and 675 million weights.

    sapper capture examples/capture/dit.py
"""

import math

from torch.nn import functional

import torch
from torch import nn


class Block(nn.Module):
    """A transformer layer whose norms are shifted, scaled and gated by the condition (adaLN-Zero)."""

    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(size, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(approximate="tanh"), nn.Linear(4 * size, size))
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(size, 6 * size))

    def forward(self, x, c):
        batch, tokens, size = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = self.condition(c).unsqueeze(1).chunk(6, -1)
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).view(batch, tokens, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + gate1 * self.out(y.transpose(1, 2).reshape(batch, tokens, size))
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class DiT(nn.Module):
    def __init__(self, size=1152, depth=28, heads=16, patch=2, latent=32, channels=4, classes=1000):
        super().__init__()
        self.patches = nn.Conv2d(channels, size, patch, patch)
        self.positions = nn.Parameter(torch.zeros(1, (latent // patch) ** 2, size), requires_grad=False)
        self.time = nn.Sequential(nn.Linear(256, size), nn.SiLU(), nn.Linear(size, size))
        self.label = nn.Embedding(classes + 1, size)
        self.blocks = nn.ModuleList(Block(size, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(size, elementwise_affine=False, eps=1e-6)
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(size, 2 * size))
        self.out = nn.Linear(size, 2 * channels * patch * patch)

    def forward(self, latents, times, labels):
        waves = torch.exp(-math.log(10000) * torch.arange(128) / 128) * times[:, None]
        c = self.time(torch.cat([waves.cos(), waves.sin()], -1).to(latents.dtype)) + self.label(labels)
        x = self.patches(latents).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.condition(c).unsqueeze(1).chunk(2, -1)
        return self.out(self.norm(x) * (1 + scale) + shift)


def build(batch):
    inputs = torch.zeros(batch, 4, 32, 32), torch.zeros(batch), torch.zeros(batch, dtype=torch.long)
    return {"module": DiT(), "inputs": inputs, "loss": lambda noise: noise.float().square().mean(), "name": "dit-xl-2"}
