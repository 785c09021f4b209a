"""The encoder of Whisper large (Radford et al., arXiv:2212.04356, table 1): 32 layers of width 1280 over 30 s of audio,
which are 3000 frames of 80 mel bands, halved by a strided convolution to 1500 positions.

    sapper capture examples/capture/whisper_encoder.py
"""

from torch.nn import functional

import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.q, self.k, self.v = nn.Linear(size, size), nn.Linear(size, size, bias=False), nn.Linear(size, size)
        self.out = nn.Linear(size, size)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    def forward(self, x):
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    def __init__(self, bands=80, size=1280, depth=32, heads=20, positions=1500):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(bands, size, 3, padding=1), nn.Conv1d(size, size, 3, 2, padding=1)
        self.positions = nn.Parameter(torch.zeros(positions, size), requires_grad=False)
        self.layers = nn.ModuleList(Layer(size, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(size)

    def forward(self, mel):
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def build(batch):
    return {"module": Encoder(), "inputs": torch.zeros(batch, 80, 3000), "seq": 1500}
