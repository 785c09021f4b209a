"""The denoiser of DDPM for 32 x 32 images (Ho et al., arXiv:2006.11239, appendix B): a UNet of 35.7 million weights.

    sapper capture examples/capture/unet.py
"""

import math

from torch.nn import functional

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, inputs, outputs, condition):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(condition, outputs)
        self.norm2, self.conv2, self.drop = nn.GroupNorm(32, outputs), nn.Conv2d(outputs, outputs, 3, padding=1), nn.Dropout(0.1)
        self.short = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, t):
        y = self.conv1(functional.silu(self.norm1(x))) + self.time(functional.silu(t))[:, :, None, None]
        return self.conv2(self.drop(functional.silu(self.norm2(y)))) + self.short(x)


class Attention(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.norm, self.qkv, self.out = nn.GroupNorm(32, size), nn.Conv2d(size, 3 * size, 1), nn.Conv2d(size, size, 1)

    def forward(self, x):
        batch, size, height, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, 3, 1, size, height * width).transpose(-2, -1).unbind(1)
        y = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(-2, -1).reshape(x.shape))


class Step(nn.Module):
    """A residual block, and attention at 16 x 16."""

    def __init__(self, inputs, outputs, condition, *, attends):
        super().__init__()
        self.residual = Residual(inputs, outputs, condition)
        self.attention = Attention(outputs) if attends else nn.Identity()

    def forward(self, x, t):
        return self.attention(self.residual(x, t))


class UNet(nn.Module):
    def __init__(self, size=128, multiples=(1, 2, 2, 2), depth=2, resolution=32):
        super().__init__()
        wide = 4 * size
        self.size = size
        self.time = nn.Sequential(nn.Linear(size, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.first = nn.Conv2d(3, size, 3, padding=1)
        self.down, self.shrink, widths, inputs = nn.ModuleList(), nn.ModuleDict(), [size], size
        for level, multiple in enumerate(multiples):
            for _ in range(depth):
                self.down.append(Step(inputs, size * multiple, wide, attends=resolution >> level == 16))
                inputs = size * multiple
                widths.append(inputs)
            if level < len(multiples) - 1:
                self.shrink[str(len(self.down) - 1)] = nn.Conv2d(inputs, inputs, 3, 2, padding=1)
                widths.append(inputs)
        self.middle = nn.ModuleList([Step(inputs, inputs, wide, attends=True), Step(inputs, inputs, wide, attends=False)])
        self.up, self.grow = nn.ModuleList(), nn.ModuleDict()
        for level, multiple in reversed(list(enumerate(multiples))):
            for _ in range(depth + 1):
                self.up.append(Step(inputs + widths.pop(), size * multiple, wide, attends=resolution >> level == 16))
                inputs = size * multiple
            if level:
                self.grow[str(len(self.up) - 1)] = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.norm, self.last = nn.GroupNorm(32, inputs), nn.Conv2d(inputs, 3, 3, padding=1)

    def forward(self, images, times):
        half = self.size // 2
        waves = torch.exp(-math.log(10000) * torch.arange(half) / (half - 1)) * times[:, None]
        t = self.time(torch.cat([waves.sin(), waves.cos()], -1).to(images.dtype))
        x = self.first(images)
        kept = [x]
        for index, step in enumerate(self.down):
            x = step(x, t)
            kept.append(x)
            if str(index) in self.shrink:
                x = self.shrink[str(index)](x)
                kept.append(x)
        for step in self.middle:
            x = step(x, t)
        for index, step in enumerate(self.up):
            x = step(torch.cat([x, kept.pop()], 1), t)
            if str(index) in self.grow:
                x = self.grow[str(index)](functional.interpolate(x, scale_factor=2))
        return self.last(functional.silu(self.norm(x)))


def build(batch):
    inputs = torch.zeros(batch, 3, 32, 32), torch.zeros(batch)
    return UNet(), inputs, lambda noise: noise.float().square().mean()
