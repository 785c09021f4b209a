"""ViT-B/16 (Dosovitskiy et al., arXiv:2010.11929) on 224 x 224 images: 17.6 billion multiply-adds, 86.6 million weights.

    sapper capture examples/capture/vit.py
"""

from torch.nn import functional

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.LayerNorm(size), nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.norm2, self.mlp = nn.LayerNorm(size), nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    def forward(self, x):
        batch, tokens, size = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(batch, tokens, size))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, size=768, depth=12, heads=12, patch=16, image=224, classes=1000):
        super().__init__()
        self.patches = nn.Conv2d(3, size, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, size))
        self.positions = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, size))
        self.blocks = nn.ModuleList(Block(size, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, classes)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def build(batch):
    labels = torch.zeros(batch, dtype=torch.long)
    return ViT(), torch.zeros(batch, 3, 224, 224), lambda logits: functional.cross_entropy(logits.float(), labels)
