"""A small Mamba (Gu and Dao, arXiv:2312.00752) whose selective scan is a loop over tokens in plain PyTorch.

No chip should run such a loop as thousands of small kernels, and none does: the scan is one kernel that keeps its state on
chip. ``sapper_kind = "scan"`` on the module says so. Its FLOPs are those of the loop; it reads its inputs and writes its
output once. Without the mark the loop is priced as it stands, kernel by kernel.

    sapper capture examples/capture/mamba.py
"""

from torch.nn import functional

import torch
from torch import nn


class SelectiveScan(nn.Module):
    """``h[t] = exp(dt A) h[t-1] + dt B x[t]``, ``y[t] = C h[t] + D x[t]``."""

    sapper_kind = "scan"

    def __init__(self, size, state):
        super().__init__()
        self.log_a, self.d = nn.Parameter(torch.zeros(size, state)), nn.Parameter(torch.ones(size))

    def forward(self, x, dt, b, c):
        decay = torch.exp(dt.unsqueeze(-1) * -torch.exp(self.log_a))
        drive = (dt * x).unsqueeze(-1) * b.unsqueeze(2)
        h = torch.zeros_like(drive[:, 0])
        out = []
        for t in range(x.shape[1]):
            h = decay[:, t] * h + drive[:, t]
            out.append((h * c[:, t].unsqueeze(1)).sum(-1))
        return torch.stack(out, 1) + self.d * x


class Layer(nn.Module):
    def __init__(self, size, state=16, kernel=4):
        super().__init__()
        inner, rank = 2 * size, size // 16
        self.rank, self.state = rank, state
        self.norm, self.into = nn.LayerNorm(size), nn.Linear(size, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.select, self.dt = nn.Linear(inner, rank + 2 * state, bias=False), nn.Linear(rank, inner)
        self.scan, self.out = SelectiveScan(inner, state), nn.Linear(inner, size, bias=False)

    def forward(self, x):
        y, gate = self.into(self.norm(x)).chunk(2, -1)
        y = functional.silu(self.conv(y.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        dt, b, c = self.select(y).split([self.rank, self.state, self.state], -1)
        return x + self.out(self.scan(y, functional.softplus(self.dt(dt)), b, c) * functional.silu(gate))


class Mamba(nn.Module):
    def __init__(self, vocab=50280, size=768, depth=2):
        super().__init__()
        self.embed = nn.Embedding(vocab, size)
        self.layers = nn.ModuleList(Layer(size) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, vocab, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def build(batch, seq=32):
    ids = torch.zeros(batch, seq, dtype=torch.long)
    return Mamba(), ids, lambda logits: functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten())
