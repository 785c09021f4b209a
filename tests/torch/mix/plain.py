"""Models that are no part of any library, written the way people write them."""

from __future__ import annotations

from typing import Any

from torch.nn import functional

import torch
from sapper.programs.program import Program
from torch import nn

WORDS, WIDTH, SEQ, BLOCKS = 50, 24, 16, 4


class Mixer(nn.Module):
    """A block that returns a tuple and takes the embeddings beside the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.gate = nn.Parameter(torch.full((WIDTH,), 0.3))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, start: torch.Tensor, *, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        mean = x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        wide = functional.gelu(self.up(self.norm(x + mean)))
        self.penalty = wide.square().mean()
        return x + scale * self.drop(self.down(wide)) + self.gate * start, wide.mean()


class Model(nn.Module):
    """Its loss has a term that each block leaves behind in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.randn(SEQ, WIDTH) * 0.1)
        self.blocks = nn.ModuleList(Mixer() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = start = self.words(ids) + self.places[: ids.shape[1]]
        for at, block in enumerate(self.blocks):
            x, _ = block(x, start, scale=1.0 / (at + 1))
        penalty = torch.stack([block.penalty for block in self.blocks]).sum()
        return functional.linear(self.norm(x), self.words.weight), penalty


class Leaky(Model):
    """Its last part looks at the embeddings, which no block hands on."""

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = start = self.words(ids)
        for block in self.blocks:
            x, _ = block(x, x, scale=1.0)
        return functional.linear(x + start, self.words.weight), torch.zeros(())


def loss(output: Any, inputs: Any) -> torch.Tensor:
    logits, penalty = output
    return functional.cross_entropy(logits.reshape(-1, WORDS), inputs["labels"].reshape(-1)) + 0.1 * penalty


def build() -> Program:
    return Program(module=Model(), inputs={}, loss=loss)


def build_leaky() -> Program:
    return Program(module=Leaky(), inputs={}, loss=loss)


def build_single() -> Program:
    whole = Named(nn.ModuleDict({"words": nn.Embedding(WORDS, WIDTH), "head": nn.Linear(WIDTH, WORDS)}))
    return Program(module=whole, inputs={}, loss=lambda output, inputs: loss((output, 0.0), inputs))


def build_sequential() -> Program:
    blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(BLOCKS)]
    parts = [nn.Embedding(WORDS, WIDTH), *blocks, nn.Linear(WIDTH, WORDS)]
    return Program(module=Named(nn.Sequential(*parts)), inputs={}, loss=lambda output, inputs: loss((output, 0.0), inputs))


class Named(nn.Module):
    """Takes inputs by name."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> Any:
        if isinstance(self.inner, nn.ModuleDict):
            return self.inner["head"](self.inner["words"](ids))
        return self.inner(ids)


class Words:
    """Ids and the next id of each, some hidden."""

    def batch(self, numbers: Any) -> dict[str, torch.Tensor]:
        rows = [torch.randint(0, WORDS, (SEQ + 1,), generator=torch.Generator().manual_seed(number)) for number in numbers]
        whole = torch.stack(rows)
        labels = whole[:, 1:].clone()
        labels[whole[:, 1:] % 7 == 0] = -100
        return {"ids": whole[:, :-1], "labels": labels}

    def weight(self, inputs: Any) -> float:
        return float((inputs["labels"] != -100).sum())
