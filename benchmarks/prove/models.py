"""Ten small models of the kinds that are trained, each a training step, made from a seed.

Shape suffixes: B batch, T tokens, D model dimension, H heads, E experts, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F

import torch
from torch import nn

VOCABULARY = 211
"""Prime, so that tiles have edges."""


@dataclass(frozen=True)
class Step:
    """One training step: forward, loss, backward, optimizer."""

    name: str
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    target: torch.Tensor
    optimizer: torch.optim.Optimizer

    def run(self, mark: Callable[[str], None] = lambda phase: None) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs of the module and the loss; ``mark`` is told when a phase begins."""
        mark("forward")
        outputs = self.module(*self.inputs)
        loss = loss_of(outputs, self.target)
        mark("backward")
        loss.backward()
        mark("step")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return outputs.detach(), loss.detach()


def loss_of(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy for classes, mean square for numbers."""
    if target.dtype == torch.int64:
        return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]).float(), target.reshape(-1))
    return F.mse_loss(outputs.float(), target.float())


class Attention(nn.Module):
    """Self or cross attention; fused or of elementary ops, with or without rotary positions, with fewer key heads."""

    def __init__(self, dim: int, heads: int, *, causal: bool, fused: bool, kv_heads: int | None = None, rotary: bool = False) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.causal, self.fused, self.rotary = heads, kv_heads or heads, causal, fused, rotary
        self.size = dim // heads
        self.q = nn.Linear(dim, dim, bias=not rotary)
        self.kv = nn.Linear(dim, 2 * self.size * self.kv_heads, bias=not rotary)
        self.out = nn.Linear(dim, dim, bias=not rotary)

    def forward(self, x_BTD: torch.Tensor, context: torch.Tensor | None = None, bias: torch.Tensor | None = None) -> torch.Tensor:
        source = x_BTD if context is None else context
        q = self.q(x_BTD).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
        k, v = (one.unflatten(-1, (self.kv_heads, self.size)).transpose(1, 2) for one in self.kv(source).chunk(2, -1))
        if self.rotary:
            q, k = rotated(q), rotated(k)
        if self.kv_heads != self.heads:
            k, v = (one.repeat_interleave(self.heads // self.kv_heads, 1) for one in (k, v))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            scores = q @ k.transpose(-1, -2) / self.size**0.5
            if bias is not None:
                scores = scores + bias
            if self.causal:
                masked = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x_BTD.device).triu(1)
                scores = scores.masked_fill(masked, float("-inf"))
            mixed = scores.softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


def rotated(x_BHTD: torch.Tensor) -> torch.Tensor:
    """Rotary positions, in fp32 as models do."""
    half = x_BHTD.shape[-1] // 2
    device = x_BHTD.device
    places, steps = (torch.arange(count, device=device).float() for count in (x_BHTD.shape[-2], half))
    angles = torch.outer(places, 10000.0 ** (-steps / half))
    cos, sin = angles.cos().to(x_BHTD.dtype), angles.sin().to(x_BHTD.dtype)
    first, second = x_BHTD.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class RMSNorm(nn.Module):
    """As LLaMA writes it out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * self.weight


class SwiGLU(nn.Module):
    """Gated feed-forward."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Experts(nn.Module):
    """Top-2 of E experts, tokens gathered by expert and added back by index."""

    def __init__(self, dim: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(dim, experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(dim, hidden) for _ in range(experts))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        tokens = x_BTD.flatten(0, 1)
        weights, chosen = self.router(tokens).softmax(-1).topk(2, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        mixed = torch.zeros_like(tokens)
        for at, expert in enumerate(self.experts):
            rows, places = torch.where(chosen == at)
            mixed = mixed.index_add(0, rows, expert(tokens[rows]) * weights[rows, places, None])
        return mixed.view_as(x_BTD)


class Layer(nn.Module):
    """A transformer layer, norm first; with cross attention where a context is given."""

    def __init__(self, norm: type[nn.Module], attention: Attention, feed: nn.Module, cross: Attention | None = None) -> None:
        super().__init__()
        dim = attention.out.out_features
        self.norms = nn.ModuleList(norm(dim) for _ in range(2 if cross is None else 3))
        self.attention, self.feed, self.cross = attention, feed, cross

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None, bias: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attention(self.norms[0](x), bias=bias)
        if self.cross is not None:
            x = x + self.cross(self.norms[2](x), context)
        return x + self.feed(self.norms[1](x))


def feed_forward(dim: int, activation: nn.Module) -> nn.Module:
    """Two layers and an activation."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), activation, nn.Linear(4 * dim, dim))


class Decoder(nn.Module):
    """Tokens in, scores of the next token out."""

    def __init__(self, dim: int, layers: list[nn.Module], norm: type[nn.Module], *, positions: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, dim)
        self.positions = nn.Embedding(64, dim) if positions else None
        self.layers, self.norm, self.head = nn.ModuleList(layers), norm(dim), nn.Linear(dim, VOCABULARY, bias=False)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens_BT)
        if self.positions is not None:
            x = x + self.positions(torch.arange(tokens_BT.shape[1], device=x.device))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Translator(nn.Module):
    """Encoder and decoder with relative position biases, as T5 has them."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.bias = nn.Embedding(VOCABULARY, dim), nn.Embedding(16, heads)

        def attention(causal: bool) -> Attention:
            return Attention(dim, heads, causal=causal, fused=False)

        self.encoder = Layer(RMSNorm, attention(False), feed_forward(dim, nn.ReLU()))
        self.decoder = Layer(RMSNorm, attention(True), feed_forward(dim, nn.ReLU()), attention(False))
        self.head = nn.Linear(dim, VOCABULARY, bias=False)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        places = torch.arange(source.shape[1], device=source.device)
        far = (places[None] - places[:, None]).clamp(-8, 7) + 8
        bias = self.bias(far).permute(2, 0, 1)
        memory = self.encoder(self.tokens(source), bias=bias)
        return self.head(self.decoder(self.tokens(target), memory, bias=bias))


class ImageTransformer(nn.Module):
    """Patches by a strided convolution, a class token, post-activation tanh-GELU."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, dim, 4, stride=4), nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 65, dim) * 0.02)

        def attention() -> Attention:
            return Attention(dim, heads, causal=False, fused=True)

        layers = [Layer(nn.LayerNorm, attention(), feed_forward(dim, nn.GELU("tanh"))) for _ in range(2)]
        self.layers, self.norm, self.head = nn.ModuleList(layers), nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class Residual(nn.Module):
    """Two convolutions with batch norm and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outside) for _ in range(3))
        self.short = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norms[0](self.first(x)), inplace=True)
        return F.relu(self.norms[1](self.second(y)) + self.norms[2](self.short(x)))


class ConvNet(nn.Module):
    """A small ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16)
        self.blocks, self.head = nn.Sequential(Residual(16, 24, 1), Residual(24, 32, 2)), nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(image))), 3, 2, 1)
        return self.head(F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1))


class UNet(nn.Module):
    """Down, up and a skip, group norm and SiLU, a time embedding: the net of a diffusion model."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))
        self.down = nn.ModuleList([nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, 1)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.Conv2d(32, 3, 3, padding=1)])
        self.norms = nn.ModuleList([nn.GroupNorm(4, 16), nn.GroupNorm(8, 32), nn.GroupNorm(4, 16)])

    def forward(self, image: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        steps = torch.exp(-torch.arange(8, device=time.device).float() / 2).to(image.dtype) * time[:, None]
        embedded = self.time(torch.cat([steps.sin(), steps.cos()], -1))
        high = F.silu(self.norms[0](self.down[0](image)))
        low = F.silu(self.norms[1](self.down[1](high)) + embedded[:, :, None, None])
        raised = F.silu(self.norms[2](self.up[0](low))) + F.interpolate(low[:, :16], scale_factor=2, mode="nearest")
        return self.up[1](torch.cat([raised, high], 1))


class Scan(nn.Module):
    """A selective state space: gates from the input, a causal convolution, a scan over time."""

    def __init__(self, dim: int, states: int) -> None:
        super().__init__()
        self.inner, self.mix, self.out = nn.Linear(dim, 2 * dim), nn.Conv1d(dim, dim, 4, padding=3, groups=dim), nn.Linear(dim, dim)
        self.gates, self.step = nn.Linear(dim, 2 * states), nn.Linear(dim, dim)
        self.decay = nn.Parameter(torch.log(torch.arange(1, states + 1).float()).expand(dim, -1).clone())

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        value, gate = self.inner(x_BTD).chunk(2, -1)
        value = F.silu(self.mix(value.transpose(1, 2))[..., : x_BTD.shape[1]].transpose(1, 2))
        into, read = self.gates(value).chunk(2, -1)
        step = F.softplus(self.step(value))
        keep = torch.exp(-step[..., None] * self.decay.exp())
        fed = step[..., None] * into[:, :, None] * value[..., None]
        state, read_out = torch.zeros_like(fed[:, 0]), []
        for t in range(x_BTD.shape[1]):
            state = keep[:, t] * state + fed[:, t]
            read_out.append((state * read[:, t, None]).sum(-1))
        return self.out(torch.stack(read_out, 1) * F.silu(gate))


class ScanLayer(nn.Module):
    """A scan behind a norm."""

    def __init__(self, dim: int, states: int) -> None:
        super().__init__()
        self.norm, self.scan = RMSNorm(dim), Scan(dim, states)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scan(self.norm(x))


class ClickThrough(nn.Module):
    """Embedding bags of sparse features, their products, and two towers."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(97, 16) for _ in range(4))
        self.dense = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 16), nn.LeakyReLU())
        self.top = nn.Sequential(nn.Linear(10 + 16, 48), nn.ELU(), nn.Linear(48, 1), nn.Sigmoid())

    def forward(self, dense: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        x = self.dense(dense)
        features = torch.stack([x, *(table(sparse[:, at]).mean(1) for at, table in enumerate(self.tables))], 1)
        products = torch.bmm(features, features.transpose(1, 2))
        row, column = torch.tril_indices(5, 5, -1)
        return self.top(torch.cat([x, products[:, row, column]], 1)).squeeze(-1)


def _tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, shape)


def _gpt() -> tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]:
    layers = [Layer(nn.LayerNorm, Attention(64, 4, causal=True, fused=True), feed_forward(64, nn.GELU())) for _ in range(2)]
    return Decoder(64, list(layers), nn.LayerNorm, positions=True), (_tokens(2, 33),), _tokens(2, 33)


def _llama() -> tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]:
    layers = [Layer(RMSNorm, Attention(64, 4, causal=True, fused=False, kv_heads=2, rotary=True), SwiGLU(64, 172)) for _ in range(2)]
    return Decoder(64, list(layers), RMSNorm, positions=False), (_tokens(2, 33),), _tokens(2, 33)


def _moe() -> tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]:
    layers = [Layer(RMSNorm, Attention(64, 4, causal=True, fused=True, rotary=True), Experts(64, 80, 4))]
    return Decoder(64, list(layers), RMSNorm, positions=False), (_tokens(2, 33),), _tokens(2, 33)


def _bert() -> tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]:
    layers = [Layer(nn.LayerNorm, Attention(48, 3, causal=False, fused=False), feed_forward(48, nn.GELU())) for _ in range(2)]
    return Decoder(48, list(layers), nn.LayerNorm, positions=True), (_tokens(3, 25),), _tokens(3, 25)


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]]] = {
    "gpt": _gpt,
    "llama": _llama,
    "moe": _moe,
    "bert": _bert,
    "t5": lambda: (Translator(48, 4), (_tokens(2, 24), _tokens(2, 24)), _tokens(2, 24)),
    "vit": lambda: (ImageTransformer(48, 4), (torch.randn(2, 3, 32, 32),), torch.randint(0, 10, (2,))),
    "convnet": lambda: (ConvNet(), (torch.randn(4, 3, 33, 33),), torch.randint(0, 10, (4,))),
    "unet": lambda: (UNet(), (torch.randn(2, 3, 16, 16), torch.rand(2)), torch.randn(2, 3, 16, 16)),
    "scan": lambda: (Decoder(32, [ScanLayer(32, 4)], RMSNorm, positions=False), (_tokens(2, 17),), _tokens(2, 17)),
    "ctr": lambda: (ClickThrough(), (torch.randn(32, 13), torch.randint(0, 97, (32, 4, 3))), torch.rand(32)),
}


def build(name: str, *, seed: int, dtype: torch.dtype = torch.float32, foreach: bool = True) -> Step:
    """The training step of a model, its weights, inputs and targets drawn from ``seed``; ``foreach``: all weights in one op."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module, inputs, target = MODELS[name]()
        module = module.to(dtype)
        given = tuple(one.to(dtype) if one.is_floating_point() else one for one in inputs)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, foreach=foreach)
    return Step(name, module, given, target, optimizer)
